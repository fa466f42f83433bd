"""Notebook 82: measurements of matrices, arms, frames, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.experiments.finetuning import (
    bases,
    loldu,
    plots_svfit,
    svfit,
    svfit_frames,
    svfit_weights,
    tuned_runs,
)
from rclib.nets.stack import Stack
from rclib.training.stacked import epoch_batches, train_stack

BASE: dict[str, Any] = {
    "pool": 1, "width": 12, "classes": 5, "n": 300, "batch_size": 32, "steps": 60, "rate": 0.01,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "base": BASE, "steps": 15, "batch_size": 16,
    "task": {"n_train": 60, "n_validation": 30, "n_test": 40, "head_rate": 0.002},
}  # fmt: skip
RANKS = [3, 6, 12]
KEPT = ["top 12", "full"]


@pytest.fixture(scope="module")
def systems(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, loldu.Studied]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        arms, seeds = svfit.image_arms(RANKS, [1, 2]), [3, 8]
        sgd = {"rates": [0.3, 3.0], "head_rate": 0.1}
        few = {name: arms[name] for name in KEPT}
        return {
            "images": svfit.studied(
                digits, arms, [0.01, 0.1], [900], seeds, SETTINGS, inputs=64, keep=KEPT
            ),
            "images, SGD": svfit.sgd_studied(digits, few, [900], seeds, SETTINGS, sgd, inputs=64),
        }


def run_of(system: loldu.Studied, arm: str, seed: int = 3) -> dict[str, np.ndarray]:
    (run,) = (run for key, run in system.runs.items() if key[0] == arm and key[2] == seed)
    return dict(run)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- matrices --------------------------------------------------------------------------------


def test_the_rank_of_a_share_by_hand() -> None:
    values = [3.0, 2.0, 1.0]
    assert svfit_weights.kept_shares(values, 1) == pytest.approx([1 / 2, 5 / 6, 1])
    assert svfit_weights.kept_shares(values, 2) == pytest.approx([9 / 14, 13 / 14, 1])
    ranks = [svfit_weights.kept_rank(values, share, 2) for share in (0.1, 0.7, 13 / 14, 0.93, 1.0)]
    assert ranks == [1, 2, 2, 3, 3]
    # The share that is left is the squared norm of the rest.
    weight = drawn(9, 7)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    r = svfit_weights.kept_rank(s.numpy(), 0.9, 2)
    rest = [float((weight - (u[:, :m] * s[:m]) @ vh[:m]).square().sum()) for m in (r, r - 1)]
    whole = float(weight.square().sum())
    assert rest[0] <= 0.1 * whole < rest[1]
    for wrong in ([1.0, 2.0], [0.0, 0.0], [1.0, -1.0], []):
        with pytest.raises(ValueError, match="values must"):
            svfit_weights.kept_shares(wrong, 2)
    with pytest.raises(ValueError, match="share must"):
        svfit_weights.kept_rank(values, 0.0, 2)


def test_moves_of_values_and_vectors() -> None:
    weight = drawn(8, 12)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    steps = drawn(8, seed=4)
    values, moves = svfit_weights.value_moves(weight, (u * steps) @ vh)
    assert torch.allclose(values, s)
    assert torch.allclose(moves, steps)
    assert svfit_weights.vector_share(weight, (u * steps) @ vh) < 1e-12
    assert svfit_weights.vector_share(weight, torch.outer(u[:, 0], vh[1])) == pytest.approx(1)
    both = torch.outer(u[:, 0], vh[1]) + 2 * torch.outer(u[:, 2], vh[2])
    assert svfit_weights.vector_share(weight, both) == pytest.approx(1 / 5)
    assert svfit_weights.rank_correlation(s, -2 * s) == pytest.approx(1)
    assert svfit_weights.rank_correlation(s, 1 / s) == pytest.approx(-1)
    for refused in (
        lambda: svfit_weights.rank_correlation(s, 0 * s),
        lambda: svfit_weights.vector_share(weight, 0 * weight),
    ):
        with pytest.raises(ValueError, match="zero"):
            refused()
    assert svfit_weights.right_overlap(weight, weight, 3) == pytest.approx(1)
    swapped = (u * s.flip(0)) @ vh
    assert svfit_weights.right_overlap(weight, swapped, 3) == pytest.approx(0, abs=1e-12)
    assert svfit_weights.right_overlap(weight, swapped, 8) == pytest.approx(1)


def test_the_largest_value_scaled_and_the_hidden_correlation() -> None:
    weight = drawn(8, 12)
    s = torch.linalg.svdvals(weight)
    for factor in (0.0, 1.0, 2.0):
        found = torch.linalg.svdvals(svfit_weights.scaled_top(weight, factor))
        expected = torch.cat([factor * s[:1], s[1:]]).sort(descending=True)[0]
        assert torch.allclose(found, expected, atol=1e-12)
    first, second = drawn(8, 12), drawn(5, 8, seed=1)
    by_hand = np.corrcoef(first.mean(1).numpy(), second.mean(0).numpy())[0, 1]
    assert svfit_weights.hidden_correlation([first, second]) == pytest.approx(by_hand)
    # A row-column pair that stands out in both matrices is what the correlation follows.
    neurons = drawn(8, seed=2)
    one = 0.1 * first + torch.outer(neurons, torch.ones(12).double())
    two = 0.1 * second + torch.outer(torch.ones(5).double(), neurons)
    strong = svfit_weights.hidden_correlation([one, two])
    none = [svfit_weights.scaled_top(w, 0.0) for w in (one, two)]
    assert strong > 0.95
    assert abs(svfit_weights.hidden_correlation(none)) < strong


# --- runs ------------------------------------------------------------------------------------


def test_plain_steps_of_a_scaled_head_are_those_of_its_own_rate(digits: Dataset) -> None:
    """Against a network that is trained without adapters, its head at a factor of the rate."""
    settings = {**SETTINGS["task"], "head_rate": 0.2}
    task = bases.image_task(digits, [3], base=BASE, task=settings)
    group = [{"seed": 3, "rate": 0.05, "method": {"kind": "Full"}}]
    ours = tuned_runs.adapted(task, group, steps=10, batch_size=16, keep=True, optimizer="sgd")
    x, y = task.at(task.places["train"])
    batch = epoch_batches(x[0], y[0], batch_size=16, seeds=[3])
    start = Stack(task.start.tensors, task.start.one)
    end, _ = train_stack(
        start, batch, cross_entropy, steps=10, lr=0.05, lr_schedule=bases.cosine(10), own="xy",
        factors=dict.fromkeys(bases.HEAD, 4.0),
        frozen=["layers.0.bias", "layers.1.bias"],
    )  # fmt: skip
    for k, name in enumerate(bases.ADAPTED):
        change = (end.tensors[name] - task.start.tensors[name])[0].numpy()
        assert np.allclose(ours[f"change_{k}"][0], change, atol=1e-5)
        assert np.abs(change).max() > 1e-3


def test_trained_values_stay_between_their_vectors(systems: dict[str, loldu.Studied]) -> None:
    found = svfit.changes(systems, KEPT)
    values, full = (found[found.arm == arm] for arm in KEPT)
    assert (values.off < 1e-6).all()
    assert (full.off > 0.3).all()
    assert set(found.optimizer) == {"Adam", "SGD"}
    run = run_of(systems["images"], "top 12")
    weight, change = (torch.from_numpy(run[f"{what}_1"]) for what in ("weight", "change"))
    u, _, vh = torch.linalg.svd(weight.double())
    core = u.T @ (weight + change).double() @ vh.T
    assert float((core - core.diagonal().diag()).abs().max()) < 1e-5
    row = found[(found.optimizer == "Adam") & (found.arm == "full") & (found.seed == 3)].iloc[0]
    own = run_of(systems["images"], "full")
    ratio = np.linalg.norm(own["change_0"]) / np.linalg.norm(own["weight_0"])
    assert row.moved == pytest.approx(ratio)
    assert row.correlation_moved == pytest.approx(
        abs(row.correlation_after - row.correlation_before)
    )
    moved = svfit.moves({"Adam": systems["images"]}, "top 12", layer=2)
    assert len(moved) == 12
    assert moved.value.is_monotonic_decreasing


def test_all_arms_begin_at_the_same_function(systems: dict[str, loldu.Studied]) -> None:
    start = systems["images"].frame.pivot(index="seed", columns="arm", values="start")
    assert (start.max(axis=1) - start.min(axis=1)).max() < 1e-5
    count = systems["images"].frame.groupby("arm")["count"].first()
    assert count["top 6"] == count["bottom 6"] == count["mispaired 6"] == count["random 6"] == 12
    assert count["LoRA 2"] == 2 * (64 + 12 + 12 + 12)


def test_matrices_before_pre_training_are_those_it_begins_with(digits: Dataset) -> None:
    settings = {**BASE, "steps": 0}
    weight = bases.image_bases(digits, [8], settings).tensors[bases.ADAPTED[1]][0]
    run = {"weight_0": np.ones((12, 64), np.float32), "weight_1": weight.numpy()}
    system = loldu.Studied(None, {}, None, {("top 12", 0.1, 8): run})  # type: ignore[arg-type]
    rows = list(svfit_frames._spectra(system, "top 12"))
    found = {(layer, matrix): values for _, layer, matrix, values in rows}
    assert np.allclose(found[2, "start"], found[2, "trained"])
    assert not np.allclose(found[1, "start"], found[1, "trained"])


def test_frames_and_tables(digits: Dataset, systems: dict[str, loldu.Studied]) -> None:
    images = systems["images"]
    shares = svfit.kept_frame({**systems, "text": images}, "top 12")
    assert shares.share.between(1 / 12, 1).all()
    both = shares[(shares.system == "images") & (shares.matrix == "trained")]
    wide = both.pivot_table(index=["seed", "layer"], columns="power", values="share")
    assert (wide[1] >= wide[2]).all()  # sums ask for more values than squares
    changed, scaled = svfit.changes(systems, KEPT), svfit.interventions(images, "top 12")
    before = svfit.by_seed(changed, "correlation_before", optimizer="Adam", arm="full").abs()
    assert np.allclose(svfit.by_seed(scaled, "correlation", factor=1.0), before)
    found = svfit.weight_measures(changed, scaled, shares, "top 12")
    assert all(list(values.index) == [3, 8] for values in found.values())
    assert np.allclose(found["text_rank"], found["rank_squares"])
    assert "text_rank" not in svfit.weight_measures(
        changed, scaled, shares[shares.system == "images"], "top 12"
    )
    with pytest.raises(ValueError, match="frame must have rows"):
        svfit.by_seed(scaled, "share", factor=9.0)
    tables = svfit.tables(systems, changed, shares)
    assert set(tables) == {"rates", "shares", "changes", "arms"}
    assert set(svfit.frontier(images, "test").family) == {
        "singular values", "LoRA", "random frames", "head", "full",
    }  # fmt: skip


def test_differences_take_the_frames_that_are_there(systems: dict[str, loldu.Studied]) -> None:
    frame = systems["images"].frame
    arms = {
        "a": ("top 12", "head", "train"), "b": ("top 12", "LoRA 1", "test, text"),
        "c": ("full", "top 12", "train, other"),
    }  # fmt: skip
    found = svfit.differences({"images": frame, "other": frame}, arms)
    assert set(found) == {"a", "c"}
    own = frame.set_index(["arm", "seed"]).train
    assert found["a"][8] == pytest.approx(own["top 12", 8] - own["head", 8])
    assert set(svfit.text_arms(RANKS, [1])) == {
        "none", "top 6", "top 12", "bottom 6", "random 12", "LoRA 1", "full",
    }  # fmt: skip
    assert set(svfit.small_arms(4, [1])) == {"head", "top 4", "LoRA 1"}


def test_figures_with_and_without_a_text(
    systems: dict[str, loldu.Studied], digits: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    images = systems["images"]
    names = ["top 6", "bottom 6", "mispaired 6", "random 6"]
    arms = svfit.image_arms(RANKS, [1, 2])
    one = svfit.at_rate(digits, {name: arms[name] for name in names}, 0.03, [3, 8], SETTINGS)
    assert set(one.rate) == {0.03}
    alike = svfit.alike({"own rate": images.frame, "one rate": one}, names)
    assert len(alike) == 16
    accuracy = svfit.frontier(images, "accuracy")
    moved = svfit.moves({"Adam": images, "SGD": systems["images, SGD"]}, "top 12", layer=2)
    curves = svfit.tuning_curves(images, ["top 6", "LoRA 1"])
    plots_svfit.main_panels(accuracy, curves, moved, alike).savefig(tmp_path / "main.png")
    kept, scaled = (
        svfit.kept_curves(images, "top 12", layer=2), svfit.interventions(images, "top 12"),
    )  # fmt: skip
    assert kept.groupby(["matrix", "power"]).kept.max().to_list() == pytest.approx([1.0] * 4)
    titles = []
    for text in (accuracy.iloc[:0], accuracy):
        figure = plots_svfit.more_panels(accuracy, text, kept, scaled)
        figure.savefig(tmp_path / "more.png")
        titles.append([panel.get_title() for panel in figure.axes])
    assert titles[0] == titles[1]
