"""Notebook 81: gradients that starts see, ranks that are shared out, frames, figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from rclib.adapters.activations import EVA, decomposed
from rclib.data.images import Dataset
from rclib.experiments.finetuning import (
    bases,
    eva,
    eva_inputs,
    loldu,
    plots_eva,
    signals,
    tuned_runs,
)

BASE: dict[str, Any] = {
    "pool": 1, "width": 12, "classes": 5, "n": 300, "batch_size": 32, "steps": 60, "rate": 0.01,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "base": BASE, "steps": 12, "batch_size": 16,
    "task": {"n_train": 300, "n_validation": 30, "n_test": 40, "head_rate": 0.002},
}  # fmt: skip
KEPT = ["EVA", "LoRA, unit rows", "full"]
SEEDS = [3, 8]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        yield


@pytest.fixture(scope="module")
def found(digits: Dataset, store: None) -> eva_inputs.Signals:
    return eva_inputs.measured_signals(digits, SEEDS, SETTINGS, [1, 2, 4], 2)


@pytest.fixture(scope="module")
def images(digits: Dataset, store: None) -> loldu.Studied:
    arms = eva.arms_of(2, full=True)
    return loldu.studied(digits, arms, [0.01, 0.03], [900], SEEDS, SETTINGS, inputs=64, keep=KEPT)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_share_is_that_of_a_projection() -> None:
    gradient, rows = drawn(5, 7), drawn(3, 7, seed=1)
    projector = rows.T @ torch.linalg.inv(rows @ rows.T) @ rows
    expected = float((gradient @ projector).square().sum() / gradient.square().sum())
    assert signals.seen_share(gradient, rows) == pytest.approx(expected, rel=1e-12)
    assert signals.seen_share(gradient, drawn(7, 7, seed=2)) == pytest.approx(1.0)
    # Other rows of the same space see the same.
    other = drawn(3, 3, seed=4) @ rows
    assert signals.seen_share(gradient, other) == pytest.approx(expected, rel=1e-10)
    frame = torch.linalg.qr(rows.T)[0].T
    assert float((gradient @ frame.T).square().sum()) == pytest.approx(
        expected * float(gradient.square().sum())
    )


def test_with_noise_for_errors_the_share_is_the_explained_one() -> None:
    # A linear layer whose errors are independent of its inputs: G = Δᵀ X / n, so that the mean of
    # ‖G Aᵀ‖² is proportional to the sum of squares of X along A, the mean of X included.
    x = drawn(400, 6) * torch.tensor([5.0, 3.0, 1.0, 1.0, 0.5, 0.2], dtype=torch.float64) + 1.5
    start = decomposed(x, 2, centred=False, batch_size=None, tau=1.0)
    errors = drawn(4000, 400, seed=9)
    gradient = errors @ x / 400
    values = torch.linalg.svdvals(x).square()
    explained = float(values[:2].sum() / values.sum())
    assert signals.seen_share(gradient, start.directions) == pytest.approx(explained, abs=0.01)
    centred = decomposed(x, 2, centred=True, batch_size=None, tau=1.0)
    assert signals.seen_share(gradient, centred.directions) < explained


def test_gradients_against_differences(digits: Dataset) -> None:
    task = bases.image_task(digits, [3], base=BASE, task=SETTINGS["task"])
    x, y = (
        t[0].double() if t[0].is_floating_point() else t[0] for t in task.at(task.places["train"])
    )
    tensors = {name: t[0].double() for name, t in task.start.tensors.items()}
    by_layer = signals.gradients(tensors, x, y)
    first, hidden = signals.layer_inputs(tensors, x)
    assert first is x
    assert (hidden >= 0).all()

    def loss(name: str, step: Tensor) -> float:
        own = {**tensors, name: tensors[name] + step}
        out = bases.relu_chain(own, x, lambda which, h: h @ own[which].T)
        return float(torch.nn.functional.cross_entropy(out, y))

    for name, gradient in zip(bases.ADAPTED, by_layer, strict=True):
        way = drawn(*gradient.shape, seed=6)
        slope = (loss(name, 1e-5 * way) - loss(name, -1e-5 * way)) / 2e-5
        assert slope == pytest.approx(float((gradient * way).sum()), rel=1e-4)


def test_signals_of_a_trained_network(found: eva_inputs.Signals) -> None:
    wide = found.seen.pivot(index=["seed", "layer", "rank"], columns="start", values="share")
    assert ((wide >= -1e-12) & (wide <= 1 + 1e-12)).all().all()
    # No rows see more than the gradient's own directions.
    assert (wide.drop(columns="best").sub(wide["best"], axis=0) <= 1e-9).all().all()
    assert (eva_inputs.seen_minus(found, "EVA", "random") > 0.1).all()
    assert (eva_inputs.seen_minus(found, "bottom", None, worst="max") < 0.2).all()
    spectrum = found.spectrum.groupby(["seed", "layer"])
    np.testing.assert_allclose(spectrum.share.sum(), 1.0)
    np.testing.assert_allclose(spectrum.white.sum(), 1.0)
    assert (found.layers.groupby("seed").kept.sum() == 2 * found.rank).all()  # the budget
    assert (found.layers.kept <= 2 * found.rank).all()
    first = found.spectrum[found.spectrum.place <= 2].groupby(["seed", "layer"]).share.sum()
    np.testing.assert_allclose(first.to_numpy(), found.layers.explained)
    mean = eva_inputs.mean_spectrum(found)
    assert mean.share[0] == pytest.approx(
        found.spectrum[(found.spectrum.layer == 1) & (found.spectrum.place == 1)].share.mean()
    )
    assert (eva_inputs.smaller(found, "explained", "white") > 0).all()
    assert set(eva_inputs.overlaps(found).columns) >= {"layer"}


def test_gain_of_shared_out_ranks_from_its_parts(found: eva_inputs.Signals) -> None:
    gained = eva_inputs.explained_gain(found)
    for seed in SEEDS:
        total = 0.0
        for layer in (1, 2):
            own = found.spectrum[(found.spectrum.seed == seed) & (found.spectrum.layer == layer)]
            row = found.layers[(found.layers.seed == seed) & (found.layers.layer == layer)]
            shares = own.sort_values("place").share.to_numpy()
            total += shares[: int(row.kept.iloc[0])].sum() - shares[: found.rank].sum()
        assert gained[seed] == pytest.approx(total / 2, abs=1e-12)


def test_a_budget_is_shared_out_and_kept(digits: Dataset) -> None:
    spec = {"kind": "EVA", "rank": 4, "budget": 2}
    method = tuned_runs.method_of(spec)
    assert isinstance(method, EVA)
    task = bases.image_task(digits, SEEDS, base=BASE, task=SETTINGS["task"])
    inputs = tuned_runs._inputs(task, task.places["train"])
    for s in range(len(SEEDS)):
        own = tuned_runs._redistributed(method, 2, [inputs[name][s] for name in bases.ADAPTED])
        assert sum(int(m.kept) for m in own) == 4  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="method must be EVA to have a budget"):
        tuned_runs._redistributed(tuned_runs.method_of({"kind": "LoRA", "rank": 2}), 2, [])


def test_frames(images: loldu.Studied, digits: Dataset, found: eva_inputs.Signals) -> None:
    arms = eva.arms_of(2, full=True)
    alike = eva.at_common_rate(digits, arms, 0.01, SEEDS, SETTINGS)
    table = eva.arm_means(images, alike).set_index("arm")
    # Where validation chose the common rate, both runs are one.
    for arm in [arm for arm in arms if images.rates[arm] == 0.01]:
        assert table.early[arm] == table["early, common rate"][arm]
    minus = eva.early_minus({"a": images.frame, "b": alike}, ["LoRA", "no such arm"])
    assert set(minus.arm) == {"LoRA"}
    own = images.frame.set_index(["arm", "seed"]).early
    expected = own["EVA"] - own["LoRA"]
    np.testing.assert_allclose(minus[minus.system == "a"].value, expected.loc[SEEDS])
    np.testing.assert_allclose(eva.gain(images.frame).loc[SEEDS], -expected.loc[SEEDS])
    added = eva.added(images, KEPT)
    assert len(added) == len(KEPT) * len(SEEDS)
    limit = {"EVA": 2, "LoRA, unit rows": 2, "full": 12}
    assert (added["rank"] <= added.arm.map(limit) + 1e-6).all()
    assert (added.correlation <= 1).all()
    np.testing.assert_allclose(
        eva.excess(added, "full"),
        added[added.arm == "full"].correlation - added[added.arm == "full"].chance,
    )
    curves = eva.curves(images, ["EVA"], points=6)
    first = next(run for key, run in images.runs.items() if key[0] == "EVA" and key[2] == 3)
    assert curves[curves.seed == 3].loss.iloc[0] == pytest.approx(first["losses"][0])
    assert curves[curves.seed == 3].loss.min() >= first["losses"].min()
    by_rate = eva.final_by_rate(images, ["EVA"])
    assert by_rate[by_rate.chosen].rate.unique().tolist() == [images.rates["EVA"]]


def test_all_starts_begin_with_the_same_loss(images: loldu.Studied) -> None:
    first = {
        (arm, seed): run["losses"][0]
        for (arm, _, seed), run in images.runs.items()
        if arm != "none"
    }
    for seed in SEEDS:
        own = [loss for (_, s), loss in first.items() if s == seed]
        np.testing.assert_allclose(own, own[0], rtol=1e-5)  # B = 0, or W as it was


def test_pairs_of_systems_by_place() -> None:
    one, other = pd.Series([1.0, 2.0, 3.0], index=[7, 8, 9]), pd.Series([0.5, 0.5], index=[1, 2])
    pd.testing.assert_series_equal(
        eva_inputs.by_place(one, other), pd.Series([0.5, 1.5], index=[7, 8])
    )


def test_image_claims_from_their_frames(images: loldu.Studied, found: eva_inputs.Signals) -> None:
    frame = images.frame
    changes = eva.added(images, KEPT)
    claims = eva.on_images(frame, frame, frame, found, changes)
    own = frame.set_index(["arm", "seed"])
    for key, one, other, what in (
        ("best_pissa", "EVA", "PiSSA", "early"),
        ("bottom_early", "bottom", "LoRA, unit rows", "early"),
        ("final_lora", "EVA", "LoRA", "accuracy"),
        ("whitened", "whitened", "EVA", "accuracy"),
        ("ranks_accuracy", "redistributed", "EVA", "accuracy"),
    ):
        expected = own[what][one] - own[what][other]
        np.testing.assert_allclose(claims[key].loc[SEEDS], expected.loc[SEEDS])
    ranks = changes.set_index(["arm", "seed"])["rank"]
    np.testing.assert_allclose(
        claims["narrow"].loc[SEEDS], (ranks["EVA"] - ranks["LoRA, unit rows"]).loc[SEEDS]
    )
    assert (claims["bottom_signal"] >= 0).all()
    assert all(set(values.index) == set(SEEDS) for values in claims.values())


def test_text_claims_from_their_frames(images: loldu.Studied, found: eva_inputs.Signals) -> None:
    frame = images.frame
    claims = eva.on_text(frame, frame, frame, {"images": found, "text": found})
    assert set(claims) == {
        "text_signal", "text_common", "text_best", "text_end", "text_pissa", "text_gain",
        "text_explained",
    }  # fmt: skip
    np.testing.assert_allclose(claims["text_gain"], 0)
    np.testing.assert_allclose(claims["text_explained"], 0)
    own = frame.set_index(["arm", "seed"])
    np.testing.assert_allclose(
        claims["text_end"].loc[SEEDS], (own.test["EVA"] - own.test["LoRA"]).loc[SEEDS]
    )


def test_without_adam_turned_rows_train_alike() -> None:
    # x Aᵀ Bᵀ with A' = Q A, B' = B Qᵀ: gradients turn along, so that B A is the same after every
    # step of plain descent, and not after Adam's.
    x, y, Q = drawn(50, 6), drawn(50, 4, seed=1), torch.linalg.qr(drawn(3, 3, seed=2))[0]
    rows = torch.linalg.qr(drawn(6, 3, seed=3))[0].T

    def trained(a: Tensor, make: Any) -> Tensor:
        A, B = a.clone().requires_grad_(), torch.zeros(4, 3, dtype=torch.float64).requires_grad_()
        optimizer = make([A, B])
        for _ in range(20):
            optimizer.zero_grad()
            (x @ A.T @ B.T - y).square().mean().backward()
            optimizer.step()
        return (B @ A).detach()

    plain = [trained(a, lambda p: torch.optim.SGD(p, lr=0.1)) for a in (rows, Q @ rows)]
    torch.testing.assert_close(*plain)
    adam = [trained(a, lambda p: torch.optim.Adam(p, lr=0.1)) for a in (rows, Q @ rows)]
    assert float((adam[0] - adam[1]).norm() / adam[0].norm()) > 0.01


def test_figures(images: loldu.Studied, found: eva_inputs.Signals) -> None:
    curves = eva.curves(images, ["LoRA", "EVA", "PiSSA", "bottom"], points=6)
    figure = plots_eva.main_panels(
        curves, found.seen, eva_inputs.mean_spectrum(found), found.layers
    )
    assert [p.get_xlabel() for p in figure.axes] == ["updates", "rank r", "rank r", "direction"]
    early = eva.early_minus({"own rates": images.frame}, ["LoRA", "PiSSA"])
    by_rate = eva.final_by_rate(images, ["LoRA", "EVA"])
    more = plots_eva.more_panels(early, by_rate, curves.iloc[:0], eva.added(images, KEPT))
    texts = [t.get_text() for t in more.axes[2].texts]
    assert "paper profile only" in texts
