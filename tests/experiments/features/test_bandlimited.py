"""features.bandlimited and bandlimited_runs: limits and identities of frozen features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import Ridge

from rclib.data.images import load
from rclib.experiments.features import bandlimited as experiment
from rclib.experiments.features import bandlimited_runs as runs
from rclib.experiments.features import bandlimited_tables as tables
from rclib.experiments.features import plots_bandlimited as plots
from rclib.stats.ridge import ridge_path

SMALL: dict[str, Any] = {"widths": [100], "penalties": [1e-6], "n": 400, "n_test": 800}


def test_a_narrow_band_is_a_straight_line() -> None:
    """Features are affine in x as λ → 0: the closed form against a fit and against the runs."""
    x = np.linspace(-1, 1, 20001)
    for w in (1, 4):
        y = np.sin(np.pi * w * x)
        line = np.polyval(np.polyfit(x, y, 1), x)
        by_hand = np.sqrt(np.mean((y - line) ** 2) / np.mean(y**2))
        assert experiment.straight_line(w) == pytest.approx(by_hand, abs=1e-3)
    settings = {"widths": [20], "penalties": [1e-9], "n": 5000, "n_test": 20000}
    run = runs.band_run(None, seed=0, lams=[0.02], frequencies=[1, 4], **settings)
    wanted = [experiment.straight_line(w) for w in (1, 4)]
    assert run["error"][0, 0, :, 0] == pytest.approx(wanted, abs=0.03)


def test_a_run_is_what_scikit_learn_fits_on_the_same_points() -> None:
    run = runs.band_run(None, seed=3, lams=[5.0], frequencies=[2], **{**SMALL, "widths": [10, 30]})
    x, fresh = runs.points(3, 3, 400, 1), runs.points(3, 4, 800, 1)
    for place, width in enumerate((10, 30)):
        a, b = runs.draws(3, width, 1)
        H, others = (expit(5 * (p @ a.T + b)) for p in (x, fresh))
        y, wanted = (np.sin(2 * np.pi * p[:, 0]) for p in (x, fresh))
        model = Ridge(alpha=400 * 1e-6, fit_intercept=False, solver="svd").fit(H, y)
        error = np.linalg.norm(model.predict(others) - wanted) / np.linalg.norm(wanted)
        assert run["error"][0, place, 0, 0] == pytest.approx(error, rel=1e-5)
        assert run["norm"][0, place, 0, 0] == pytest.approx(np.linalg.norm(model.coef_), rel=1e-5)
    gram = np.linalg.eigvalsh(H.T @ H / 400)[::-1]
    np.testing.assert_allclose(run["eigenvalues"][0][:5], gram[:5], rtol=1e-6)


def test_a_narrow_band_spans_few_polynomials() -> None:
    """Ten singular values at λ = 1, and no fit of sane norm beats polynomials of about degree 9."""
    settings = {**SMALL, "widths": [300], "n": 600}
    run = runs.band_run(None, seed=1, lams=[1.0], frequencies=[4], **settings)
    assert abs(int(run["rank"][0, 0]) - 10) <= 1
    x = np.linspace(-1, 1, 4001)
    y = np.sin(4 * np.pi * x)
    fit = np.polynomial.Chebyshev.fit(x, y, 9)(x)
    polynomial = np.sqrt(np.mean((fit - y) ** 2) / np.mean(y**2))
    assert polynomial == pytest.approx(0.73, abs=0.02)
    assert run["error"][0, 0, 0, 0] > polynomial


def test_cosines_below_the_frequency_have_the_floor() -> None:
    """Fourier features are band-limited literally: |a| ≤ λ below and above π w."""
    run = runs.band_run(
        None, seed=2, lams=[2.0, 30.0], frequencies=[4], activation="cos", **SMALL
    )  # fmt: skip
    assert run["error"][0, 0, 0, 0] > 0.8
    assert run["error"][1, 0, 0, 0] < 0.01


def test_relu_fits_are_the_same_at_every_scale() -> None:
    run = runs.relu_run(
        None, seed=0, lams=[0.1, 1.0, 100.0], width=60, frequency=4, penalty=1e-6, n=300, n_test=300
    )
    assert float(run["spread"]) < 1e-9
    assert run["alone"][1] == pytest.approx(run["together"][1], rel=1e-12)
    assert run["alone"][[0, 2]].min() > 1.5 * run["alone"][1]
    direct = runs.band_run(
        None, seed=0, lams=[1.0], frequencies=[4], activation="relu",
        **{**SMALL, "widths": [60], "n": 300, "n_test": 300},
    )  # fmt: skip
    assert run["together"][1] == pytest.approx(float(direct["error"][0, 0, 0, 0]), rel=1e-9)


def test_draws_and_targets() -> None:
    a, b = runs.draws(5, 4000, 2)
    assert np.abs(a).max() <= 1
    assert np.var(b) == pytest.approx(1 / 3, rel=0.05)
    few = runs.draws(5, 10, 2)
    assert few[0].tolist() == a[:10].tolist()
    assert few[1].tolist() == b[:10].tolist()
    normal = runs.draws(5, 4000, 2, law="normal")
    assert np.var(normal[0]) == pytest.approx(1 / 3, rel=0.05)
    assert np.abs(normal[0]).max() > 1.2
    placed = runs.draws(5, 50, 2, law="points")
    bends = runs.points(5, 2, 50, 2)
    assert np.einsum("li,li->l", placed[0], bends) + placed[1] == pytest.approx(np.zeros(50))
    with pytest.raises(ValueError, match="law"):
        runs.draws(0, 3, 1, law="cauchy")
    with pytest.raises(ValueError, match="activation"):
        runs.activate(a, "softmax")
    x = np.array([[0.25, 0.5], [-0.5, 1.0]])
    assert runs.target(x, 2) == pytest.approx([np.sin(np.pi / 2) * np.cos(np.pi), 0.0], abs=1e-12)
    assert runs.target(x, runs.STEP).tolist() == [1.0, -1.0]
    with pytest.raises(ValueError, match="x must have one or two inputs, got 3"):
        runs.target(np.zeros((2, 3)), 1)


def test_training_is_torchs_adam() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.uniform(-1, 1, (30, 1)), generator.standard_normal(30)
    start = [generator.standard_normal(shape) for shape in ((5, 1), 5, 5)]
    found, losses = runs.trained(x, y, start, rate=0.03, steps=40)
    a, b, c = (torch.tensor(one, requires_grad=True) for one in start)
    optimizer = torch.optim.Adam([a, b, c], lr=0.03)
    wanted = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (torch.sigmoid(torch.tensor(x) @ a.T + b) @ c - torch.tensor(y)).square().mean()
        wanted.append(loss.item())
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(losses, wanted, rtol=1e-8)
    for one, other in zip(found, (a, b, c), strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-6, atol=1e-9)


def test_a_frozen_network_is_that_of_the_band() -> None:
    shared = {"n": 200, "n_test": 300}
    trained = runs.trained_run(
        None, seed=4, lam=3.0, width=20, frequency=1, rate=0.03, steps=200, penalty=1e-6, **shared
    )
    band = runs.band_run(
        None, seed=4, lams=[3.0], widths=[20], frequencies=[1], penalties=[1e-6], **shared
    )
    assert trained["error"][0] == pytest.approx(float(band["error"].squeeze()), rel=1e-6)
    assert trained["largest"][0] <= 3.0
    a, b = runs.draws(4, 20, 1)
    assert trained["correlation"][0] == pytest.approx(abs(np.corrcoef(a[:, 0], b)[0, 1]))


def test_crossings_minima_and_slopes() -> None:
    lams = [1.0, 10.0, 100.0, 1000.0]
    rows = [
        (seed, lam, 200, w, 1e-6, error, 1.0)
        for seed in (0, 1)
        for w, errors in ((1, (1, 0.01, 0.1, 1)), (10, (1, 1, 0.01, 0.2)), (16, (1, 1, 0.5, 1)))
        for lam, error in zip(lams, errors, strict=True)
    ]
    names = ["seed", "lam", "features", "frequency", "penalty", "error", "norm"]
    frame = pd.DataFrame(rows, columns=names)
    least = experiment.least_bands(frame, level=0.1)
    assert least[least.seed == 0].lam.tolist()[:2] == pytest.approx([10**0.5, 10**1.5])
    assert np.isnan(least.lam.iloc[2])
    assert experiment.band_slopes(frame, level=0.1).tolist() == pytest.approx([1.0, 1.0])
    assert experiment.interior(frame, [1, 10], [1, 1000]).tolist() == pytest.approx([20.0, 20.0])
    assert experiment.best(frame).lam.tolist() == [10.0, 100.0, 100.0] * 2
    worse = frame.assign(law="normal", error=frame.error * 10)
    laws = pd.concat([worse, frame.assign(law="uniform")], ignore_index=True)
    ratio = experiment.law_ratio(laws, "normal", "uniform", [1, 10])
    assert ratio.tolist() == pytest.approx([1.0, 1.0])
    assert tables.lowest(frame).lam.tolist() == [10.0, 100.0, 100.0]
    doubled = frame.assign(error=frame.error * np.where(frame.seed == 0, 1, 4))
    assert tables.lowest(doubled).error.tolist() == pytest.approx([0.02, 0.02, 1.0])
    assert experiment.chosen(frame, lam=10, frequency=1).tolist() == [0.01, 0.01]
    with pytest.raises(ValueError, match="need one row a seed"):
        experiment.chosen(frame, lam=10)
    assert experiment.slopes(
        frame.assign(features=frame.lam, error=frame.lam**-0.5), frequency=1
    ).tolist() == pytest.approx([-0.5, -0.5])


def test_the_price_of_a_band() -> None:
    paths = [
        (1.0, 1e-6, 1.0, 1e1), (1.0, 1e-12, 0.01, 1e5), (10.0, 1e-6, 0.05, 1e1),
        (10.0, 1e-12, 0.001, 1e2), (30.0, 1e-6, 1.0, 1e1), (30.0, 1e-12, 0.5, 1e7),
    ]  # fmt: skip
    frame = pd.DataFrame(paths, columns=["lam", "penalty", "error", "norm"]).assign(seed=7)
    needed = [experiment.norm_needed(frame, level=0.1, lam=lam)[7] for lam in (1, 10, 30)]
    assert needed == pytest.approx([3.0, 1.0, 7.0])  # the last is a lower bound
    assert experiment.price(frame, 1, 10, level=0.1)[7] == pytest.approx(2.0)


def test_spectra_are_told_apart() -> None:
    places = np.arange(1, 31)
    frames = [
        pd.DataFrame({"seed": 0, "lam": lam, "place": places, "eigenvalue": values})
        for lam, values in ((1.0, 0.5**places), (10.0, places**-2.0))
    ]
    fits = experiment.spectrum_fits(pd.concat(frames)).set_index("lam")
    assert fits.geometric[1.0] == pytest.approx(1.0)
    assert fits.power[1.0] < 0.9
    assert fits.power[10.0] == pytest.approx(1.0)
    assert fits.geometric[10.0] < 0.9
    assert experiment.ranks(fits.reset_index().assign(rank=[7, 70]))[0] == pytest.approx(1.0)
    settings = {**SMALL, "lams": [1.0, 30.0], "frequencies": [1]}
    spectra = experiment.spectra_frame([0], settings, [30.0])
    a, b = runs.draws(0, 100, 1)
    values = ridge_path(expit(30 * (runs.points(0, 3, 400, 1) @ a.T + b))).values
    np.testing.assert_allclose(spectra.eigenvalue, (values / values[0])[: len(spectra)] ** 2)
    assert spectra.eigenvalue.min() > experiment.NUMERICAL


def test_images_are_classified_and_a_band_is_best() -> None:
    data = load("digits")
    settings = {"lams": [0.1, 1.0, 1000.0], "width": 100, "penalties": [1e-6, 1e-2], "n": 600,
                "n_test": 200}  # fmt: skip
    frame = experiment.images_frame(data, [0], settings)
    assert frame.accuracy.min() > 0.7
    assert set(frame.penalty) <= {1e-6, 1e-2}
    gain = experiment.images_gain(frame)
    assert gain[0] == pytest.approx(frame.accuracy[1] - max(frame.accuracy[0], frame.accuracy[2]))


def test_excess_risk_and_panels() -> None:
    settings: dict[str, Any] = {
        **SMALL,
        "lams": [1.0, 30.0],
        "widths": [20, 40],
        "frequencies": [4],
    }
    wide = experiment.band_frame([0, 1], settings)
    assert len(wide) == 2 * 2 * 2
    training = {"lam": 1.0, "rate": 0.03, "steps": 20, "penalty": 1e-6, "n": 100, "n_test": 100}
    learned = experiment.trained_frame([0, 1], training, [(4, 20), (8, 20)])
    excess = tables.excess_frame([wide], learned, lams=[1.0, 30.0], frequency=4, penalty=1e-6)
    assert set(excess.arm) == {"frozen, λ = 1", "frozen, λ = 30", "trained"}
    own = experiment.chosen(wide, lam=30, features=40)
    ratio = experiment.excess_ratio(excess, "frozen, λ = 30", "frozen, λ = 1", 40)
    other = experiment.chosen(wide, lam=1, features=40)
    assert ratio.tolist() == pytest.approx((2 * np.log10(own / other)).tolist())
    relu = experiment.relu_frame([0, 1], {"lams": [0.1, 1.0], "width": 9, "frequency": 1,
                                          "penalty": 1e-6, "n": 50, "n_test": 50})  # fmt: skip
    images = pd.DataFrame({"seed": [0, 0, 1, 1], "lam": [1, 10] * 2, "accuracy": [0.5, 0.6] * 2})
    spectra = experiment.spectra_frame([0], settings, [1.0, 30.0])
    figure = plots.band_panels(
        wide, tables.lowest(wide), wide, wide, spectra, floor=experiment.straight_line(4)
    )
    assert len(figure.axes) == 4
    assert len(plots.arm_panels(excess, wide.assign(law="uniform"), relu, images).axes) == 4


def test_what_is_drawn_is_taken_from_the_tables() -> None:
    names = ["seed", "lam", "features", "frequency", "penalty", "error", "norm"]
    rows = [
        (seed, 1.0, width, w, penalty, width * penalty * (1 + seed), 2.0)
        for seed in (0, 1) for width in (20, 40) for w in (0, 4) for penalty in (1e-6, 1e-8)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=names)
    spectra = pd.DataFrame({"seed": [0, 1], "lam": 1.0, "place": 1, "eigenvalue": 1.0})
    lines, widening, paths, one = tables.shown(
        frame, frame, frame.assign(features=80), spectra, frequency=4, widest=40
    )
    assert set(lines.frequency) == {4}
    assert sorted(set(widening.features)) == [20, 40, 80]
    assert widening.error.min() == pytest.approx(20e-6)
    assert set(paths.penalty) == {1e-6, 1e-8}
    assert len(paths) == 4
    assert one.seed.tolist() == [0]
    fewer = tables.shown(frame, frame, frame, spectra, frequency=4, widest=40, most=1)
    assert all(set(part.seed) == {0} for part in fewer)
    panels = tables.joined({"a": lines, "d": one})
    assert panels.panel.tolist() == ["a"] * len(lines) + ["d"]
    learned = pd.DataFrame(
        {"seed": [0, 1], "frequency": 4, "features": 20, "frozen": 0.9, "error": [0.1, 0.3]}
    )
    fits = pd.DataFrame({"lam": [1.0, 1.0], "rank": [7, 8], "geometric": 0.9, "power": 0.8})
    excess = tables.excess_frame([frame], learned, lams=[1.0], frequency=4, penalty=1e-6)
    found = tables.tables(tables.lowest(frame), frame, learned, fits, excess, widest=40)
    assert found["penalties"].error.tolist() == pytest.approx([60e-6, 60e-8] * 2)
    assert found["training"].error.tolist() == pytest.approx([0.2])
    assert found["spectra"]["rank"].tolist() == [7.5]
    assert found["excess"].arm.tolist() == ["frozen, λ = 1", "frozen, λ = 1", "trained"]
    assert found["excess"].excess.iloc[-1] == pytest.approx(0.05)
