"""rclib.experiments.mean_field.figure_4_2: correlations and spreads against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from rclib.data.images import Dataset, load
from rclib.experiments.mean_field import figure_4_2
from rclib.nets.mlp import MLP
from rclib.rowcolumn.measure import chance_level
from rclib.training.classifier import train

BIASES: dict[str, dict[str, Any]] = {
    "none": {"bias": "none"},
    "random": {"bias": "random", "bias_init": {"kind": "gaussian", "mean": 0.0, "scale": 1.0}},
}
Trained = tuple[figure_4_2.Runs, pd.DataFrame]


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load("digits").subset(120, 40)


@pytest.fixture(scope="module")
def trained(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        return figure_4_2.train_all(
            few,
            biases=BIASES,
            widths=[6, 9],
            seeds=[0, 3],
            snapshots=[1, 2],
            lr=0.3,
            batch_size=40,
            depth=4,
            parametrization="MF",
        )


def test_vectors_are_the_means_of_a_network_trained_by_hand(few: Dataset, trained: Trained) -> None:
    runs, outcome = trained
    assert len(runs) == len(outcome) == 8
    assert all(list(epochs) == [0, 1, 2] for epochs in runs.values())
    model = MLP(64, 9, 10, depth=4, bias="none", seed=3)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, few, epochs=2, lr=0.3, batch_size=40, seed=3, progress=False)
    for epoch, state in ((0, start), (2, dict(model.named_parameters()))):
        vectors = runs["none", 9, 3][epoch]
        w = state["W3"].detach().double().numpy()
        np.testing.assert_allclose(vectors["h3"]["W3.C"], w.mean(1))
        np.testing.assert_allclose(vectors["h2"]["W3.R"], w.mean(0))
        assert "B3" not in vectors["h3"]
        assert "B3" in runs["random", 9, 3][epoch]["h3"]
    row = outcome[(outcome.bias == "none") & (outcome.width == 9) & (outcome.seed == 3)].iloc[0]
    assert row.start_loss > 0
    assert row.test_loss > 0


def test_matrices_after_training_against_numpy(trained: Trained) -> None:
    runs, _ = trained
    found = figure_4_2.correlation_tables(runs, width=9, seed=3)
    assert list(found) == ["none", "random"]
    labels, indices, matrix = found["random"]
    last = runs["random", 9, 3][2]
    rows = [last[index][label].numpy() for index, label in zip(indices, labels, strict=True)]
    np.testing.assert_allclose(matrix, np.corrcoef(rows), atol=1e-12)


def test_correlation_table_against_numpy(trained: Trained) -> None:
    runs, _ = trained
    table = figure_4_2.correlation_table(runs, width=9)
    # Two bias variants, two seeds, two stages, three hidden indices and all pairs between them.
    assert len(table) == 2 * 2 * 2 * 4
    for row in table.itertuples():
        epochs = runs[row.bias, 9, row.seed]
        vectors = epochs[0 if row.stage == "start" else 2]
        if row.index == "between":
            continue
        group = vectors[row.index]
        r = np.abs(np.corrcoef([v.numpy() for v in group.values()]))
        np.fill_diagonal(r, 0.0)
        assert row.value == pytest.approx(r.max())
        i, j = np.unravel_index(r.argmax(), r.shape)
        names = list(group)
        assert set(row.pair.split(" - ")) == {names[i], names[j]}
        assert row.chance == pytest.approx(chance_level(9, len(group) * (len(group) - 1) // 2))
        assert 0 <= row.p_value <= 1
    between = table[table["index"] == "between"]
    assert all(len({label[1] for label in pair.split(" - ")}) for pair in between.pair)


def test_spreads_against_numpy(trained: Trained) -> None:
    runs, _ = trained
    table = figure_4_2.spreads(runs)
    assert set(table.epoch) == {1, 2}
    assert len(table) == 8 * 2 * 3  # runs, epochs, hidden layers
    row = table[(table.bias == "none") & (table.width == 6) & (table.seed == 0)].iloc[-1]
    vectors = runs["none", 6, 0]
    change = vectors[2]["h3"]["W3.C"] - vectors[0]["h3"]["W3.C"]
    assert (row["index"], row.epoch) == ("h3", 2)
    assert row.spread == pytest.approx(np.std(change.numpy(), ddof=1))


def test_exponents_of_a_power_law_are_found() -> None:
    rows = [
        ("none", "h1", n, seed, 1, 3.0 * n**power)
        for seed, power in ((0, -0.5), (1, -1.0))
        for n in (10, 30, 90)
    ]
    table = pd.DataFrame(rows, columns=["bias", "index", "width", "seed", "epoch", "spread"])
    found = figure_4_2.spread_exponents(table)
    assert list(found.exponent) == pytest.approx([-0.5, -1.0])
