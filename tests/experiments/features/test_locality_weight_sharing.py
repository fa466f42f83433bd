"""features.locality_weight_sharing: means against their law."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rclib.experiments.features import locality_weight_sharing as experiment

SIZES = [4, 16, 64]
REPEATS = 4000


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", "1")


def test_spread_is_the_closed_form() -> None:
    """A standard deviation from k draws has a relative error of 1 / sqrt(2 k): five of them."""
    tolerance = 5 / (2 * REPEATS) ** 0.5
    run = experiment.mean_spread(None, arm="independent", seed=0, sizes=SIZES, n_repeats=REPEATS)
    np.testing.assert_allclose(run["spread"], np.array(SIZES) ** -0.5, rtol=tolerance)
    run = experiment.mean_spread(None, arm="shared", seed=0, sizes=SIZES, n_repeats=REPEATS)
    np.testing.assert_allclose(run["spread"], 1.0, rtol=tolerance)


def test_one_run_an_arm_and_seed_and_exponents_by_seed() -> None:
    frame = experiment.spreads([3, 5], sizes=SIZES, n_repeats=REPEATS)
    assert list(frame.columns) == ["arm", "seed", "n", "spread"]
    assert len(frame) == len(experiment.ARMS) * 2 * len(SIZES)
    alone = experiment.mean_spread(None, arm="shared", seed=5, sizes=SIZES, n_repeats=REPEATS)
    chosen = frame[(frame.arm == "shared") & (frame.seed == 5)]
    np.testing.assert_array_equal(chosen.spread, alone["spread"])
    for arm, law in (("independent", -0.5), ("shared", 0.0)):
        fitted = experiment.exponents(frame, arm)
        assert list(fitted.index) == [3, 5]
        np.testing.assert_allclose(fitted, law, atol=0.05)


def test_unknown_arms_are_refused() -> None:
    with pytest.raises(ValueError, match="arm must be one of"):
        experiment.mean_spread(None, arm="other", seed=0, sizes=SIZES, n_repeats=8)


def test_figure_has_both_arms_and_the_law() -> None:
    figure = experiment.spread_panel(experiment.spreads([0, 1], sizes=SIZES, n_repeats=50))
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert {*experiment.ARMS, "slope −1/2"} <= set(labels)
    plt.close(figure)
