"""experiments.beyond.split_frames: tables whose answers are known, and the figures from them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rclib.experiments.beyond import plots_split, split_frames
from rclib.experiments.beyond.split_measures import MATRICES
from rclib.runs.store import Arrays
from rclib.spectral.heavy_tails import noise_tail


def run(*, detached: int = 2, released: bool = False) -> Arrays:
    k = 3
    losses = np.array([[4.0, 2.0, 0.0, 0.0, 3.5], [5.0, 1.0, 0.0, 0.0, 2.0]])
    return {
        "eigenvalues": np.arange(200.0, 100.0, -1.0),
        "owned": np.linspace(1.0, 0.0, 100),
        "kept": np.array([0.9, 0.7, 0.5, 0.1]),
        "predicted": np.array([100.0, 50.0, 20.0]),
        "detached": np.arange(k) < detached,
        "expected": np.full((2, k), 0.5),
        "edge": np.array([20.0]),
        "places": np.array([[110.0, 45.0, 90.0], [0.0, 0.0, 0.0], [101.0, 50.0, 90.0]]),
        "overlaps": np.array([[0.5, 0.8, 0.0], [0.4, 0.5, 0.0]]),
        "counts": np.array([2, 4, 3, 2]),
        "alpha": np.array([[1.5, 2.5, 2.3, 1.9, 0.0], [1.0, 3.0, 1.5, 1.0, 0.0]]),
        "tail_ratio": np.arange(5.0),
        "losses": losses[: 1 + released],
        "alpha_ranks": np.array([1.6, 2.4]),
    }


def table() -> pd.DataFrame:
    rows = [
        split_frames.run_row((arm, rate, seed), run(released=arm == "gd"), (60, 40), [1, 9])
        for arm in ("MF", "gd")
        for rate in (0.1, 1.0)
        for seed in (3, 4)
    ]
    return pd.DataFrame(rows)


def test_a_row_has_shares_numbers_errors_exponents_and_losses() -> None:
    row = split_frames.run_row(("gd", 0.1, 3), run(released=True), (60, 40), [1, 9])
    assert (row["arm"], row["rate"], row["seed"]) == ("gd", 0.1, 3)
    assert [row[f"kept{end}"] for end in ("", "_variables", "_start", "_shuffled")] == [
        0.9, 0.7, 0.5, 0.1,
    ]  # fmt: skip
    assert [row[n] for n in ("predicted", "found", "owned", "independent")] == [2, 4, 3, 2]
    # The third product is not detached: its place is no error.
    assert row["place_error"] == pytest.approx(0.1)
    assert row["independent_error"] == pytest.approx(0.01)
    assert row["overlap_error"] == pytest.approx(0.3)
    assert (row["alpha_1"], row["alpha_9"]) == (1.6, 2.4)
    assert [row[f"alpha_hill_{m}"] for m in MATRICES] == [1.5, 2.5, 2.3, 1.9, 0.0]
    assert (row["loss_part"], row["loss_released_part"]) == (3.5, 2.0)
    assert row["alpha_hill_noise"] == noise_tail(60, 40).alpha
    alone = split_frames.run_row(("MF", 0.1, 3), run(detached=0), (60, 40), [1, 9])
    assert "loss_released_part" not in alone
    assert (alone["place_error"], alone["overlap_error"]) == (0.0, 0.0)


def test_what_is_undone_and_what_the_part_does_to_the_loss() -> None:
    last = split_frames.largest_rate(table(), "gd")
    assert set(last.rate) == {1.0}
    found = split_frames.undone(last)
    assert found.index.tolist() == [3, 4]
    assert found.index.name == "seed"
    np.testing.assert_allclose(found, 0.8)
    np.testing.assert_allclose(split_frames.undone(last, matrix="without_variables"), 0.4)
    np.testing.assert_allclose(split_frames.undone(last, method="ks"), 0.25)
    np.testing.assert_allclose(split_frames.loss_share(last, "equations"), 0.75)
    np.testing.assert_allclose(split_frames.loss_share(last, "released"), 0.25)
    with pytest.raises(ValueError, match="evaluation"):
        split_frames.loss_share(last, "other")


def test_long_forms_and_the_figures_of_them() -> None:
    rows = split_frames.spectrum_rows({("MF", 0.1, 3): run()}, {"MF": 0.1}, seed=3)
    assert rows.k.tolist() == [*range(1, 61), *range(61, 101, 5)]
    assert rows.value[0] == pytest.approx(10.0)
    assert rows.predicted[:2].tolist() == pytest.approx([5.0, 2.5])
    assert rows.predicted[2:].isna().all()
    tails = split_frames.tail_rows(table())
    assert len(tails) == 8 * len(MATRICES)
    assert set(tails[tails.matrix == "without"].alpha_hill) == {2.3}
    removed = split_frames.removed_rows(table(), [1, 9])
    assert sorted(removed.k.unique()) == [1, 9]
    assert set(removed[removed.k == 9].alpha) == {2.4}

    figure = plots_split.owned_spectra(rows)
    panel = figure.axes[0]
    assert panel.get_title() == "MF\nη = 0.1"
    np.testing.assert_allclose(panel.lines[0].get_ydata(), [5.0, 2.5])
    plt.close(figure)
    figure = plots_split.tails(tails, removed)
    assert [panel.get_title() for panel in figure.axes[:2]] == ["MF", "student, GD"]
    drawn = figure.axes[0].lines
    np.testing.assert_allclose(drawn[0].get_ydata(), 1.5)
    np.testing.assert_allclose(drawn[1].get_ydata(), 2.3)
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata(), [1.6, 2.4])
    plt.close(figure)
