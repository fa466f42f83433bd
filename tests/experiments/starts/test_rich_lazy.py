"""starts.rich_lazy: flows of linear networks, recurrent networks, and how far they moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.images import load
from rclib.experiments.starts import plots_rich_lazy as plots
from rclib.experiments.starts import rich_lazy as experiment
from rclib.experiments.starts import rich_lazy_linear as linear
from rclib.experiments.starts import rich_lazy_runs as runs

SHARED: dict[str, Any] = {"h": 12, "d": 6, "task": 0, "left": 1e-5, "most": 4000.0}
SMALL: dict[str, Any] = {
    "width": 8, "gain": 1.25, "trials": 60, "batch_size": 20, "rate": 0.02, "steps": 20,
    "moments": 3, "probe": 6,
}  # fmt: skip


@pytest.mark.parametrize("family", ["flat", "truncated"])
def test_starts_have_one_norm_and_their_rank(family: str) -> None:
    beta = np.eye(6)[0]
    shared: dict[str, Any] = {"norm": 1.7, "shape": (12, 6), "seed": 4, "beta": beta}
    full = linear.start_of(family, 6, **shared)
    for rank in (1, 3, 6):
        w = linear.start_of(family, rank, **shared)
        assert np.linalg.norm(w) == pytest.approx(1.7)
        assert np.linalg.matrix_rank(w) == rank
        # All ranks of a seed have the right vectors of one matrix.
        s = np.linalg.svd(w @ np.linalg.pinv(full))[1]
        assert np.sum(s > 1e-9) == rank
    s = np.linalg.svd(full)[1]
    assert (np.ptp(s) < 1e-12) == (family == "flat")


def test_starts_that_are_none_are_refused() -> None:
    shared: dict[str, Any] = {"shape": (12, 6), "seed": 4, "beta": np.eye(6)[0]}
    with pytest.raises(ValueError, match=r"rank must lie in 1 ... 6, got 7"):
        linear.start_of("flat", 7, norm=1.0, **shared)
    with pytest.raises(ValueError, match="norm must be positive, got 0"):
        linear.start_of("flat", 2, norm=0.0, **shared)
    with pytest.raises(ValueError, match="family must be"):
        linear.start_of("round", 2, norm=1.0, **shared)


@pytest.mark.parametrize("norm", [0.5, 1.0, 2.0, 4.0])
def test_the_aligned_start_has_a_closed_form(norm: float) -> None:
    run = linear.linear_flow(None, seed=1, family="aligned", rank=1, norm=norm, **SHARED)
    weights, kernel = linear.aligned_solution(norm, d=6)
    assert run["weights"] == pytest.approx(weights, abs=1e-4)
    assert run["kernel"] == pytest.approx(kernel, abs=1e-4)


def test_a_flat_start_of_full_rank_follows_the_aligned_form_and_no_task() -> None:
    """W0 = s/√d Q moves along Qβ alone: the two-variable flow with s/√d for s, the same for every
    target; the other directions of the kernel keep s²/d and gain a²."""
    norm, d = 2.0, 6
    found = [
        linear.linear_flow(None, seed=2, family="flat", rank=d, norm=norm, **{**SHARED, "task": t})
        for t in (0, 1)
    ]
    assert found[0]["kernel"] == pytest.approx(float(found[1]["kernel"]), abs=1e-5)
    s = norm / d**0.5
    w2 = (s**2 + np.sqrt(s**4 + 4)) / 2
    a2 = 1 / w2
    last = np.array([w2 + a2, *[s**2 + a2] * (d - 1)])
    kernel = last.sum() / (d**0.5 * np.linalg.norm(last))
    assert found[0]["kernel"] == pytest.approx(kernel, abs=1e-4)
    assert found[0]["weights"] == pytest.approx(np.sqrt(w2) - s, abs=1e-4)


def test_the_flow_conserves_and_is_that_of_small_steps_of_autograd() -> None:
    run = linear.linear_flow(None, seed=3, family="truncated", rank=2, norm=1.0, **SHARED)
    assert run["conserved"] < 1e-5
    assert run["residual"] <= 1.001e-5
    beta = np.random.default_rng([3, 52, 0]).standard_normal(6)
    beta /= np.linalg.norm(beta)
    start = linear.start_of("truncated", 2, norm=1.0, shape=(12, 6), seed=3, beta=beta)
    target = torch.from_numpy(beta)
    w, a = torch.from_numpy(start.copy()).requires_grad_(), torch.zeros(12, dtype=torch.double)
    a.requires_grad_()
    for _ in range(round(float(run["time"]) / 0.01)):
        (0.5 * (target - w.T @ a).square().sum()).backward()
        for part in (w, a):
            assert part.grad is not None
            with torch.no_grad():
                part -= 0.01 * part.grad
                part.grad = None
    moved = float((w.detach() - torch.from_numpy(start)).norm())
    assert moved == pytest.approx(float(run["weights"]), rel=0.02)


@pytest.mark.parametrize("every", [True, False])
def test_kernel_factors_are_the_jacobian_of_torch(every: bool) -> None:
    torch.manual_seed(0)
    model = runs.Recurrent(4, 6, 3, every=every).double()
    x = torch.randn(5, 4, 4, dtype=torch.double)
    tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}

    def outputs(w: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, {**tensors, "within.weight": w}, (x,))  # type: ignore[no-any-return]

    expected = torch.func.jacrev(outputs)(tensors["within.weight"]).reshape(-1, 36)
    assert expected.abs().max() > 0.01
    assert torch.allclose(runs.kernel_factors(tensors, x, every=every), expected, atol=1e-12)


@pytest.mark.parametrize("every", [True, False])
def test_kernel_is_the_product_of_its_factors(every: bool) -> None:
    torch.manual_seed(2)
    model = runs.Recurrent(4, 6, 3, every=every).double()
    x = torch.randn(5, 4, 4, dtype=torch.double)
    tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}
    j = runs.kernel_factors(tensors, x, every=every)
    assert torch.allclose(runs.kernel_of(tensors, x, every=every), j @ j.T, rtol=1e-12, atol=1e-12)


def test_kernels_do_not_see_rotated_names_of_units() -> None:
    """Units in another order are the same network: K = J Jᵀ is."""
    torch.manual_seed(1)
    model = runs.Recurrent(4, 6, 3, every=True).double()
    x = torch.randn(5, 4, 4, dtype=torch.double)
    tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}
    order = torch.randperm(6)
    other = {
        "into.weight": tensors["into.weight"][order],
        "within.weight": tensors["within.weight"][order][:, order],
        "out.weight": tensors["out.weight"][:, order],
    }
    j, k = (runs.kernel_factors(each, x, every=True) for each in (tensors, other))
    assert torch.allclose(j @ j.T, k @ k.T)


def test_rank_start_has_norm_and_rank() -> None:
    drawn = torch.randn(9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    for rank in (1, 4, 9):
        start = runs.rank_start(drawn, rank)
        assert int(torch.linalg.matrix_rank(start)) == rank
        assert start.norm() == pytest.approx(float(drawn.norm()))
    assert torch.allclose(runs.rank_start(drawn, 9), drawn)


def test_images_are_read_row_by_row() -> None:
    image = torch.arange(27.0).reshape(3, 3, 3)  # channels, rows, columns
    rows = runs.image_rows(image.flatten()[None])[0]
    assert rows[1].tolist() == [3, 4, 5, 12, 13, 14, 21, 22, 23]
    assert runs.image_rows(torch.arange(4.0)[None])[0].tolist() == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="got d = 5"):
        runs.image_rows(torch.zeros(2, 5))


def test_trials_show_the_stronger_side() -> None:
    x, y = runs._choice_trials(4000, torch.Generator().manual_seed(0))
    assert y[:, :-1].unique().tolist() == [0]
    assert y[:, -1].unique().tolist() == [1, 2]
    assert x[:, :-1, 0].unique().tolist() == [1.0]
    assert not x[:, -1].any()
    evidence = (x[:, :, 2] - x[:, :, 1]).sum(1)
    # Mean over coherences 0 to 51.2 percent of either sign, seven steps.
    assert evidence[y[:, -1] == 2].mean() == pytest.approx(7 * 0.192, abs=0.05)
    assert evidence[y[:, -1] == 1].mean() == pytest.approx(-7 * 0.192, abs=0.05)


@pytest.mark.parametrize("task", runs.TASKS)
def test_a_run_measures_what_it_says(task: str) -> None:
    group = [{"seed": 0, "rank": 1}, {"seed": 0, "rank": 8}]
    run = runs.recurrent_runs(load("digits"), group=group, task=task, **SMALL)
    assert run["at"][0].tolist()[0] == 0
    for name in ("kernel", "representation"):
        assert run[name][:, 0] == pytest.approx([1.0, 1.0])
        assert np.all(run[name][:, -1] < 0.9999)
    assert run["weights"][:, 0].tolist() == [0.0, 0.0]
    assert np.all(run["loss"][:, -1] < run["loss"][:, 0])
    assert np.all((run["update_rank"] >= 1) & (run["update_rank"] <= 8))


def test_frames_compare_arms() -> None:
    frame = experiment.linear_frame([0, 1], ranks=[1, 2, 6], norms=[1.0, 4.0], h=12, d=6)
    assert len(frame) == 2 * 2 * 8
    high, low = experiment.between(frame, "kernel", ("flat", 6), ("flat", 1), norm=1.0)
    assert np.all(high > low)
    assert experiment.rank_correlation(frame, "flat", norm=1.0).tolist() == [1.0, 1.0]
    assert experiment.task_free(frame, d=6).max() < 1e-4
    flat = frame[(frame.family == "flat") & (frame.task == 0)].set_index(["seed", "rank", "norm"])
    by_hand = min(flat.kernel[0, rank, 4.0] - flat.kernel[0, rank, 1.0] for rank in (1, 2, 6))
    assert experiment.norm_gain(frame, 4.0, 1.0)[0] == pytest.approx(by_hand)
    exact = pd.DataFrame({"norm": [1.0], "kernel": [0.6], "weights": [0.3]})
    assert len(plots.linear_panels(frame, exact).axes) == 2


def test_more_images_than_there_are_cannot_be_asked_for() -> None:
    data = load("digits").subset(60, 10)
    with pytest.raises(ValueError, match="trials and probe must be at most 60 images, got 66"):
        experiment.recurrent_frame(data, [0], {"rows": SMALL}, ranks=[1])


def test_losses_are_matched_by_straight_lines() -> None:
    rows = [
        ("a", 0, 1, step, loss, kernel)
        for step, loss, kernel in ((0, 4.0, 1.0), (10, 2.0, 0.5), (20, 1.0, 0.3))
    ]
    rows += [
        ("a", 0, 8, step, loss, kernel)
        for step, loss, kernel in ((0, 3.0, 1.0), (10, 0.5, 0.75), (20, 0.1, 0.7))
    ]
    frame = pd.DataFrame(rows, columns=["task", "seed", "rank", "step", "loss", "kernel"])
    # Rank 1 ends with 1.0, which rank 8 passes at 0.8 of its first stretch.
    expected = (1.0 - 0.8 * 0.25) - 0.3
    assert experiment.loss_matched(frame, "kernel", 8, 1)[0] == pytest.approx(expected)


def test_recurrent_frame_and_figure() -> None:
    tasks = {"rows": SMALL, "choice": SMALL}
    frame = experiment.recurrent_frame(load("digits"), [0, 1], tasks, ranks=[1, 8])
    ends = experiment.recurrent_end(frame)
    assert len(ends) == 8
    table = ends.pivot_table(index=["task", "seed"], columns="rank", values="weights")
    smallest = (table[1] / table[8]).groupby("seed").min()
    found = experiment.worst_task(ends, "weights", 1, 8, ratio=True)
    assert found.tolist() == pytest.approx(smallest.tolist())
    figure = plots.recurrent_panels(frame)
    assert len(figure.axes) == 8


def test_a_network_that_diverges_says_so_and_takes_its_seed_along() -> None:
    """Its neighbours in the group keep their numbers."""
    own = {**SMALL, "rate": 0.02}
    group = [{"seed": 0, "rank": 8}, {"seed": 1, "rank": 8}]
    calm = runs.recurrent_runs(load("digits"), group=group, task="choice", **own)
    wild = runs.recurrent_runs(
        load("digits"), group=group, task="choice", **{**own, "rate": 1e6, "steps": 60}
    )
    assert np.isnan(wild["weights"]).all()
    assert np.isnan(wild["kernel"]).all()
    assert np.isfinite(calm["update_rank"]).all()
    frame = pd.DataFrame({"seed": [0, 0, 1], "weights": [1.0, np.nan, 2.0]})
    assert experiment.stayed_finite(frame).seed.tolist() == [1]
