"""experiments.mean_field.figure_4_1: tables of trained matrices against the same steps by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rclib.data.images import Dataset, load
from rclib.experiments.mean_field import figure_4_1
from rclib.nets.init import Init
from rclib.training.classifier import evaluate, train

TRAINING: dict[str, Any] = {"lr": 0.2, "batch_size": 50, "bias": "random"}
STARTS = {"MF": {"kind": "uniform", "scale": 1.0}, "SP": {"kind": "gaussian", "scale": 0.5}}
Trained = tuple[figure_4_1.Weights, Any]


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load("digits").subset(150, 50)


@pytest.fixture(scope="module")
def trained(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        return figure_4_1.train_all(few, starts=STARTS, seeds=[0, 1], epochs=2, width=8, **TRAINING)


def test_weights_are_those_of_a_training_by_hand(few: Dataset, trained: Trained) -> None:
    weights, outcome = trained
    assert list(weights) == [("MF", 0), ("MF", 1), ("SP", 0), ("SP", 1)]
    from rclib.nets.mlp import MLP

    model = MLP(64, 8, 10, parametrization="SP", init=Init("gaussian", scale=0.5), seed=1)
    start, end = weights["SP", 1]
    assert torch.equal(start, model.state_dict()["W2"])
    train(model, few, epochs=2, lr=0.2, batch_size=50, seed=1, progress=False)
    assert torch.equal(end, model.state_dict()["W2"])
    loss, accuracy = evaluate(model, few.x_test, few.y_test)
    row = outcome[(outcome.parametrization == "SP") & (outcome.seed == 1)].iloc[0]
    assert (row.test_loss, row.test_accuracy) == pytest.approx((loss, accuracy))


def test_maps_are_normalised_and_sorted_by_the_trained_matrix(trained: Trained) -> None:
    weights, _ = trained
    found = figure_4_1.maps(weights, seed=1)
    assert list(found) == ["MF", "SP"]
    for name, panels in found.items():
        start, end = (w.double().numpy() for w in weights[name, 1])
        u, _, vt = np.linalg.svd(end)
        for label, matrix in (("start", start), ("trained", end)):
            flat = (matrix - matrix.mean()) / matrix.std(ddof=1)
            np.testing.assert_allclose(panels[label], flat, atol=0.0501)  # to tenths
            rows, columns = np.argsort(u[:, 0]), np.argsort(vt[0])
            ordered = panels[f"{label}, sorted"]
            turned = [flat[rows][:, columns], flat[rows[::-1]][:, columns[::-1]]]  # u v = -u -v
            assert any(np.allclose(ordered, t, atol=0.0501) for t in turned)
            few = figure_4_1.maps(weights, seed=1, most=4)[name]  # every second row and column
            np.testing.assert_array_equal(few[f"{label}, sorted"], ordered[::2, ::2])
    assert figure_4_1.maps(weights, seed=7) == {}


def test_shares_against_numpy(trained: Trained) -> None:
    weights, _ = trained
    table = figure_4_1.share_rows(weights, k=2)
    assert len(table) == 4
    for row, (start, end) in zip(table.itertuples(), weights.values(), strict=True):
        for label, w in (("start", start), ("trained", end), ("change", end - start)):
            s2 = np.linalg.svd(w.double().numpy(), compute_uv=False) ** 2
            assert getattr(row, label) == pytest.approx(s2[:2].sum() / s2.sum())
        moved = np.linalg.norm((end - start).numpy()) / np.linalg.norm(start.numpy())
        assert row.relative_change == pytest.approx(moved, rel=1e-5)
        assert 0 < row.chance < 1
        assert 0 < row.row_column < 1


def test_share_curves_rise_to_one(trained: Trained) -> None:
    weights, _ = trained
    curves = figure_4_1.share_curves(weights)
    assert set(curves.matrix) == {"start", "trained", "change"}
    for _, group in curves.groupby(["parametrization", "matrix", "seed"]):
        assert list(group.k) == sorted(set(group.k))
        assert list(group.k)[:: len(group) - 1] == [1, 8]
        assert group.share.is_monotonic_increasing
        assert group.share.iloc[-1] == pytest.approx(1.0)
    first = curves[(curves.k == 2) & (curves.matrix == "change")].share
    assert list(first) == pytest.approx(list(figure_4_1.share_rows(weights, k=2).change))


def test_relative_changes_over_widths(few: Dataset, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path))
        options = {"starts": {"MF": STARTS["MF"]}, "seeds": [0], "epochs": 1, **TRAINING}
        found = figure_4_1.relative_changes(few, widths=[4, 6], **options)
        weights, _ = figure_4_1.train_all(few, width=6, **options)
    assert list(found.width) == [4, 6]
    assert found.change.iloc[1] == pytest.approx(
        figure_4_1.share_rows(weights, k=1).relative_change.iloc[0]
    )
