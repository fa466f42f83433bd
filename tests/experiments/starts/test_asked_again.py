"""rclib.experiments.starts.asked_again: against notebooks 50, 53 and 55 and against plain sums."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from scipy.stats import gennorm, spearmanr
from stored_runs import tiny

from rclib.data.images import load
from rclib.experiments.starts import asked_again, mixture_growth, plots_again, siren
from rclib.experiments.starts import asked_again_runs as runs
from rclib.experiments.starts.gg_runs import ARMS, gg_runs
from rclib.experiments.starts.mixture_growth_runs import growth_runs
from rclib.experiments.starts.siren_runs import band_runs
from rclib.stats.generalized_gaussian import fit

PLAN: dict[str, Any] = {
    "width": 8, "templates": 3, "norm": False, "before": 6, "after": 5, "at": [0, 2, 5],
    "batch_size": 16, "pool": 1, "n_train": 40, "n_valid": 20, "n_test": 20,
}  # fmt: skip
BANDS = {"high": [0.6, 0.9], "low": [0.0, 0.1]}
SINES: dict[str, Any] = {"n": 128, "width": 8, "layers": 3}
STARTS = ["SIREN", "WINNER", "s0 = 100", "s0 = 20", "s0 = 400"]


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "starts asked again"))


def test_around_zero_it_is_the_deepshape_of_notebook_53() -> None:
    data, own = load("digits").subset(60, 30), tiny("starts.asked_again_runs.deepshape_runs")
    members = [{**member, "nu": 2.0, "strength": 0.0} for member in own["group"]]
    older = {**own, "group": members, "moments": [0], "compress": True}
    older |= {"optimizer": "momentum", "decay": 0.0}
    found, before = runs.deepshape_runs(data, **own), gg_runs(data, **older)
    for form, arm in (("dense", "dense"), ("around zero", "deepshape")):
        place, at = runs.FORMS.index(form), ARMS.index(arm)
        for new, old in (
            ("overlap", "overlap"), ("bits", "arm_bits"), ("accuracy", "arm_accuracy"),
        ):  # fmt: skip
            np.testing.assert_allclose(found[new][:, place], before[old][:, at], atol=1e-9)
    place, at = runs.FORMS.index("around zero"), ARMS.index("deepshape")
    np.testing.assert_allclose(
        found["tuned_accuracy"][:, place], before["tuned_accuracy"][:, at], atol=1e-9
    )


def test_a_law_with_a_mean_keeps_ranks_and_mean() -> None:
    w = 0.3 + torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    found = runs.reshaped(w, "with the mean", seed=5)
    assert spearmanr(w.flatten(), found.flatten()).statistic == pytest.approx(1.0)
    assert float(found.mean()) == pytest.approx(float(w.mean()), abs=1e-3)
    law = fit(w.double().numpy(), mean=float(w.mean()))
    quarter = gennorm.ppf(0.25, 0.8 * law.shape, loc=law.mean, scale=0.6 * law.scale)
    assert float(found.quantile(0.25)) == pytest.approx(quarter, abs=2e-3)
    around = runs.reshaped(w, "around zero", seed=5)
    assert abs(float(around.mean())) < 0.02
    random = runs.reshaped(w, "ranks at random", seed=5)
    assert torch.equal(random.flatten().sort().values, found.flatten().sort().values)
    assert abs(float(spearmanr(w.flatten(), random.flatten()).statistic)) < 0.1
    assert torch.equal(runs.reshaped(w, "dense", seed=5), w)
    with pytest.raises(ValueError, match=r"form must be one of .*, got 'other'"):
        runs.reshaped(w, "other", seed=0)


def test_a_mean_that_is_taken_away_is_the_leading_direction() -> None:
    """A matrix of noise around a large mean: its leading direction is that of equal entries."""
    w = 1.0 + torch.randn(60, 60, generator=torch.Generator().manual_seed(1))
    first = torch.linalg.svd(w).Vh[0]
    overlap = {
        form: float((torch.linalg.svd(runs.reshaped(w, form, seed=2)).Vh[0] @ first).abs())
        for form in ("around zero", "with the mean")
    }
    assert overlap["with the mean"] > 0.98
    assert overlap["around zero"] < overlap["with the mean"]


def test_without_a_window_starts_are_those_of_notebook_55() -> None:
    member = {"seed": 3, "s0": 30.0, "s1": 0.2, "law": "normal"}
    before = band_runs(
        None, group=[member], low=0.6, high=0.9, rate=1e-4, steps=1, moments=[0, 1], **SINES
    )
    found = runs.start_spectra(
        None, seed=3, s0=30.0, s1=0.2, bands=[[0.6, 0.9], [0.0, 0.1]], **SINES
    )
    np.testing.assert_allclose(found["centroids"][0], before["centroids"][0], rtol=1e-9)
    assert found["shares"][0, 0] == pytest.approx(float(before["band"][0]), rel=1e-6)
    assert found["spectrum"].shape == (2, 64)
    np.testing.assert_allclose(found["spectrum"][0], before["spectrum"][0, -1], atol=1e-6)
    np.testing.assert_allclose(found["spectrum"].sum(1), 1.0)


def test_a_window_takes_the_jump_between_the_ends_away() -> None:
    """A sine of 2.3 periods has no energy at high frequencies but that of its ends."""
    n = 256
    x = torch.arange(n, dtype=torch.float64) / n
    h = torch.stack([torch.sin(2 * math.pi * 2.3 * x), torch.sin(2 * math.pi * 40 * x)], 1)
    sizes = {name: runs._sizes(h, runs._window(name, n)) for name in runs.WINDOWS}
    assert float(sizes["none"][100:, 0].max() / sizes["none"][:, 0].max()) > 1e-3
    assert float(sizes["Hann"][100:, 0].max() / sizes["Hann"][:, 0].max()) < 1e-4
    for name in runs.WINDOWS:  # whole periods: 40 of 128 frequencies
        assert runs._centroid(sizes[name][:, 1]) == pytest.approx(40 / 128, abs=1e-9)


def test_every_arm_gets_its_pair_of_rates() -> None:
    data = load("digits")
    tuned = asked_again.tuning_frame(data, [1, 2], [0.05, 0.1], [0.02, 0.2], PLAN)
    assert len(tuned) == 2 * (2 * 2 * 2 + 2 * 2)
    one = growth_runs(
        data, group=[{"seed": 2}], rate=0.1, rates={"orthogonal": 0.2}, **PLAN
    )["valid"]  # fmt: skip
    row = tuned[(tuned.arm == "orthogonal") & (tuned.rate == 0.1) & (tuned.after == 0.2)]
    assert float(row[row.seed == 2].valid.iloc[0]) == pytest.approx(float(one[0, 0]))
    assert set(tuned[tuned.rate.isna()].arm) == {"untrained", "scratch, equal compute"}

    made = pd.DataFrame(
        [("orthogonal", 0.1, 0.2, 0, 0.5), ("orthogonal", 0.05, 0.2, 0, 0.5),
         ("orthogonal", 0.05, 0.1, 0, 0.4), ("one half, equal compute", 0.1, 0.1, 0, 0.3),
         ("one half, equal compute", 0.05, 0.1, 0, 0.2), ("untrained", np.nan, 0.1, 0, 0.1),
         ("untrained", np.nan, 0.2, 0, 0.2), ("scratch, equal compute", np.nan, 0.1, 0, 0.7)],
        columns=["arm", "rate", "after", "seed", "valid"],
    )  # fmt: skip
    pairs = asked_again.chosen_pairs(made)
    assert pairs == {
        "orthogonal": (0.05, 0.2), "one half, equal compute": (0.1, 0.1),
        "untrained": (0.05, 0.2), "scratch, equal compute": (0.05, 0.1),
    }  # fmt: skip
    curves = asked_again.growth_frame(data, [5, 6], pairs, PLAN)
    for arm in pairs:
        rate, later = pairs[arm]
        rates = {"ensemble": 0.1, arm: later}
        alone = mixture_growth.runs_of(data, [5, 6], rates, **PLAN, rate=rate)
        expected = mixture_growth.curve_frame(data, alone, [5, 6], rates, PLAN)
        for key in ("accuracy", "compute"):
            np.testing.assert_allclose(
                curves[curves.arm == arm][key], expected[expected.arm == arm][key], atol=1e-6
            )
    gains = asked_again.gains_frame(curves, {"a": ("orthogonal", "untrained")})
    last = curves.groupby(["arm", "seed"]).accuracy.last()
    found = asked_again.gains_of(gains, "a")
    assert found[6] == pytest.approx(last["orthogonal", 6] - last["untrained", 6])
    with pytest.raises(ValueError, match=r"question must be one of \['a'\], got 'b'"):
        asked_again.gains_of(gains, "b")
    ends = last.groupby("arm").mean().to_frame()
    table = asked_again.with_rates(ends, pairs).set_index("arm")
    assert table.halves["one half, equal compute"] == 0.1
    assert np.isnan(table.halves["untrained"])
    assert table.after["untrained"] == 0.2


def test_rises_and_ratios_are_of_a_seed() -> None:
    assert asked_again.nyquist(1024) == pytest.approx(1608.5, abs=0.1)
    rows = []
    for seed, last in ((0, 0.45), (1, 0.55)):
        for arm, s0, centroid, high in (
            ("SIREN", 0.0, 0.1, 1e-15), ("WINNER", 49.0, 0.9, 1e-4 * 10**seed),
            ("s0 = 10", 10.0, 0.2, 0.1), ("s0 = 100", 100.0, 0.5, 0.1),
            ("s0 = 3000", 3000.0, last, 0.1),
        ):  # fmt: skip
            rows.append((arm, seed, s0, "Hann", centroid, high))
    starts = pd.DataFrame(rows, columns=["arm", "seed", "s0", "window", "centroid", "high"])
    assert list(asked_again.rises(starts, "Hann").round(9)) == [-0.05, 0.05]
    assert list(asked_again.rises(starts, "Hann", most=1600).round(9)) == [0.1, 0.1]
    with pytest.raises(ValueError, match="most must leave an arm with noise, got 5"):
        asked_again.rises(starts, "Hann", most=5)
    # A share of 1e-15 counts as 1e-12.
    decades = asked_again.share_ratio(starts, "high", "Hann")
    np.testing.assert_allclose(decades, [8, 9])
    value, low, high = asked_again.geometric(decades)(2, 0.1)
    half = scipy.stats.t.ppf(0.95, 1) * np.std([8, 9], ddof=1) / 2**0.5
    assert np.log10([value, low, high]) == pytest.approx([8.5, 8.5 - half, 8.5 + half])
    with pytest.raises(ValueError, match="decades must have 3 seeds, got 2"):
        asked_again.geometric(decades)(3, 0.1)


def test_starts_have_the_scales_of_their_arms() -> None:
    starts = asked_again.starts_frame([4, 2], STARTS, BANDS, SINES)
    assert len(starts) == len(STARTS) * 2 * 2
    assert list(starts.columns) == ["arm", "seed", "s0", "window", "centroid", "high", "low"]
    psi = siren.centroid(siren.band_signal(128, 0.6, 0.9, seed=2)[0])
    s0, s1 = siren.noise_scales(psi, "image")
    row = starts[(starts.arm == "WINNER") & (starts.seed == 2)]
    assert float(row.s0.iloc[0]) == s0
    alone = runs.start_spectra(None, seed=2, s0=s0, s1=s1, bands=list(BANDS.values()), **SINES)
    np.testing.assert_allclose(row.centroid, alone["centroids"][:, -1])
    np.testing.assert_allclose(row[["high", "low"]], alone["shares"])
    assert (asked_again.share_ratio(starts, "high", "Hann") > 0).all()
    assert asked_again.rises(starts, "Hann").index.tolist() == [2, 4]
    spectra = asked_again.spectrum_frame([4, 2], ["SIREN", "WINNER"], BANDS, SINES)
    np.testing.assert_allclose(spectra.groupby(["arm", "window"]).energy.sum(), 1.0)


def test_deepshape_has_a_row_a_form() -> None:
    own = tiny("starts.asked_again_runs.deepshape_runs")
    settings = {key: value for key, value in own.items() if key != "group"}
    data = load("digits").subset(60, 30)
    frame = asked_again.deepshape_frame(data, [3, 1], settings)
    assert list(frame.seed) == [3] * 4 + [1] * 4
    assert list(frame.form[:4]) == list(runs.FORMS)
    alone = runs.deepshape_runs(data, **{**own, "group": [{"seed": 1}]})
    np.testing.assert_allclose(frame[frame.seed == 1].overlap, alone["overlap"][0])
    assert frame[frame.form == "dense"].overlap.tolist() == pytest.approx([1, 1])
    assert float(frame["mean"].iloc[-1]) == pytest.approx(float(alone["mean"][0]))
    assert 0 <= float(alone["flat"][0]) <= 1


def test_figure_draws_every_question(tmp_path: Path) -> None:
    tuned = pd.DataFrame(
        [(arm, rate, 0.1, 0.4 + rate) for arm in plots_again.ARMS for rate in (0.05, 0.1)]
        + [(plots_again.SCRATCH, np.nan, 0.1, 0.45)],
        columns=["arm", "rate", "after", "valid"],
    )
    gains = pd.DataFrame(
        [(q, seed, 0.01 * seed) for q in ("a", "b") for seed in (0, 1, 2)],
        columns=["question", "seed", "gain"],
    )
    shaped = pd.DataFrame(
        [(seed, form, 0.3) for seed in (0, 1) for form in plots_again.FORMS],
        columns=["seed", "form", "overlap"],
    )
    starts = asked_again.starts_frame([4, 2], STARTS, BANDS, SINES)
    spectra = asked_again.spectrum_frame([4, 2], ["SIREN", "WINNER"], BANDS, SINES)
    figure = plots_again.again_panels(
        tuned, gains, shaped, spectra, starts, band=[0.6, 0.9],
        criteria={"a": 0.0, "b": -0.01, "overlap": 0.9},
    )  # fmt: skip
    assert len(figure.axes) == 6
    assert all(
        panel.get_title().startswith(f"({x})")
        for panel, x in zip(figure.axes, "abcdef", strict=True)
    )
    halves = figure.axes[0].lines[0]
    assert list(halves.get_ydata()) == pytest.approx([0.45, 0.5])
    figure.savefig(tmp_path / "asked_again.png")
