"""dynamics.inductive_bias: laws of test errors, their fit, and the frames."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.spatial.distance import pdist
from scipy.stats import ncx2, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from rclib.data.images import Dataset, load
from rclib.experiments.dynamics import inductive_bias as experiment
from rclib.experiments.dynamics import inductive_bias_runs as runs
from rclib.experiments.dynamics import plots_inductive_bias as plots
from rclib.experiments.dynamics.inductive_bias_theory import (
    Quadratic,
    fitted,
    information,
    likelihood_fit,
    likelihood_information,
    sankaran,
)

SMALL: dict[str, Any] = {"n": 12, "m": 10, "jitter": 1e-6}


@pytest.mark.parametrize("at", [90.0, 60.0, 45.0, 25.0, 15.0])
def test_the_tail_is_that_of_scipy_where_all_weights_are_equal(at: float) -> None:
    law = Quadratic.of(0.5, 60.0, 15.0)  # 0.5 χ'²(60, 30)
    exact = float(ncx2.logcdf(2 * at, 60, 30))
    assert law.log_cdf(at) == pytest.approx(exact, rel=2e-4, abs=1e-3)
    split = Quadratic.of([0.5] * 60, 1.0, [15.0, *[0.0] * 59])
    assert split.log_cdf(at) == pytest.approx(law.log_cdf(at), rel=1e-9)


def imhof(law: Quadratic, at: float) -> float:
    """P(e <= at) by Imhof's integral of the characteristic function."""

    def integrand(u: float) -> float:
        left = 1.0 + (law.weights * u) ** 2
        theta = (
            0.5 * (law.df * np.arctan(law.weights * u) + law.shift * u / left).sum() - 0.5 * at * u
        )
        rho = (0.25 * law.df * np.log(left)).sum() + 0.5 * (
            law.shift * law.weights * u**2 / left
        ).sum()
        return float(np.sin(theta) / (u * np.exp(rho)))

    value, _ = quad(integrand, 0, np.inf, limit=2000)
    return float(0.5 - value / np.pi)


def test_the_tail_against_imhof_and_draws() -> None:
    random = np.random.default_rng(0)
    law = Quadratic.of(random.gamma(1.0, 1.0, 20), 1.0, random.gamma(1.0, 0.5, 20))
    draws = law.sample(random, 100_000)
    assert draws.mean() == pytest.approx(law.cumulant(1), rel=0.01)
    assert draws.var() == pytest.approx(law.cumulant(2), rel=0.03)
    assert ((draws - draws.mean()) ** 3).mean() == pytest.approx(law.cumulant(3), rel=0.15)
    for share in (0.01, 0.05, 0.5, 0.9):
        at = float(np.quantile(draws, share))
        assert np.exp(law.log_cdf(at)) == pytest.approx(share, rel=0.06)
        assert np.exp(law.log_cdf(at)) == pytest.approx(imhof(law, at), rel=0.01)
    mean = law.cumulant(1)  # where saddlepoint and w vanish: continuous
    around = [law.log_cdf(mean * f) for f in (0.999, 1.0, 1.001)]
    assert around[0] < around[1] < around[2]
    assert around[2] - around[0] < 0.01


def test_the_ends_of_the_law() -> None:
    law = Quadratic.of([1.0, 0.0], 1.0, [0.0, 0.3])
    assert law.log_cdf(0.3) == -np.inf
    assert information(law, 1e9) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="must be finite"):
        law.log_cdf(np.nan)
    with pytest.raises(ValueError, match="nonnegative"):
        Quadratic.of([1.0, -1.0], 1.0, 0.0)
    with pytest.raises(ValueError, match="one degree of freedom"):
        Quadratic.of(1.0, 3.0, 0.0).sample(np.random.default_rng(0), 2)


def test_labels_and_error_in_other_units_need_the_prior_in_them_too() -> None:
    """Information is the same only if the hypotheses' variance is scaled with both."""
    random = np.random.default_rng(2)
    weights, shift, unit = random.gamma(1.0, 1.0, 12), random.gamma(1.0, 0.5, 12), 1 / 9
    law = Quadratic.of(weights, 1.0, shift)
    at = 0.3 * law.cumulant(1)
    bare = Quadratic.of(weights, 1.0, unit * shift)
    whole = Quadratic.of(unit * weights, 1.0, unit * shift)
    assert information(whole, unit * at) == pytest.approx(information(law, at), rel=1e-9)
    assert abs(information(bare, unit * at) - information(law, at)) > 0.5


def test_the_fit_gives_back_its_own_family() -> None:
    random = np.random.default_rng(1)
    errors = 0.2 * random.noncentral_chisquare(40, 20, 200_000)
    fit = fitted(errors)
    own = Quadratic.of(0.2, 40.0, 4.0)
    for r in (1, 2):
        assert fit.cumulant(r) == pytest.approx(own.cumulant(r), rel=0.02)
    assert information(fit, 5.0) == pytest.approx(information(own, 5.0), rel=0.03)
    plain = fitted(0.3 * random.chisquare(10, 100_000) ** 1.5)  # more skewed than the family
    assert plain.shift[0] == 0.0
    assert information(fit, float(np.mean(errors))) == pytest.approx(np.log(2), abs=0.05)
    for bad in ([1.0], [2.0, 2.0], [-1.0, 0.5]):
        with pytest.raises(ValueError, match="must be positive and vary"):
            fitted(bad)


def test_posteriors_are_those_of_sklearn() -> None:
    run = runs.posterior(None, seed=2, teacher="sine", dimensions=[3], lengths=[1.5], **SMALL)
    random = np.random.default_rng([2, 3, runs.TEACHERS.index("sine")])
    x = np.sqrt(3.0) * random.uniform(-1, 1, (22, 3))
    direction = random.standard_normal(3)
    y = np.sin(2.0 * x @ direction / np.linalg.norm(direction))
    process = GaussianProcessRegressor(RBF(1.5), alpha=1e-6, optimizer=None).fit(x[:12], y[:12])
    mean, cov = process.predict(x[12:], return_cov=True)
    law = Quadratic.of(run["weights"][0], 1.0, run["shift"][0])
    expected = (np.square(mean - y[12:]).sum() + np.trace(cov)) / 10
    assert law.cumulant(1) == pytest.approx(expected, rel=1e-5)
    off = mean - y[12:]
    second = (2 * np.square(cov).sum() + 4 * off @ cov @ off) / 100
    assert law.cumulant(2) == pytest.approx(second, rel=1e-5)
    with pytest.raises(ValueError, match="teacher must be one of"):
        runs.posterior(None, seed=2, teacher="x", dimensions=[3], lengths=[1.5], **SMALL)


def test_networks_train_as_torch_does_and_linear_is_least_squares() -> None:
    digits = load("digits")
    given: dict[str, Any] = {"n": 60, "m": 30, "width": 6, "depth": 2, "steps": 4, "rate": 0.01}
    run = runs.digits_bias(digits, seed=5, nets=3, **given)
    assert run["networks"].shape == run["spikes"].shape == (3,)
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(len(digits.y_train), generator=generator)[:90]
    x = digits.x_train[order]
    y = torch.nn.functional.one_hot(digits.y_train[order], 10).float()
    sizes = [64, 6, 6, 10]
    starts = [
        (2 * torch.rand(3, a, b, generator=generator) - 1) / a**0.5 for a, b in pairwise(sizes)
    ]
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6), torch.nn.ReLU(),
        torch.nn.Linear(6, 10),
    )  # fmt: skip
    with torch.no_grad():
        for place, start in zip((0, 2, 4), starts, strict=True):
            net.get_parameter(f"{place}.weight").copy_(start[1].T)
            net.get_parameter(f"{place}.bias").zero_()
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(4):
        adam.zero_grad()
        (net(x[:60]) - y[:60]).square().mean().backward()
        adam.step()
    error = (net(x[60:]) - y[60:]).square().mean().item()
    assert float(run["networks"][1]) == pytest.approx(error, rel=1e-4)
    assert 0 < run["linear"] < 0.2


def test_frames_and_figures() -> None:
    frame = experiment.dimension_frame(
        [0, 1], ["kernel", "sine"], dimensions=[2, 4], share=0.25, **SMALL
    )
    assert len(frame) == 8
    gain = experiment.dimension_gain(frame, "kernel", 4, 2)
    assert (gain > 0).all()
    lengths = experiment.length_frame([0, 1], d=4, lengths=[1.0, 3.0], share=0.25, **SMALL)
    assert lengths.information.gt(0).all()
    fits = experiment.fit_frame(
        [0], dimensions=[4], shares=[0.5, 0.1], samples=400, quantile=0.05, **SMALL
    )
    assert fits[fits.what == "quantile"].exact.eq(-np.log(0.05)).all()
    refits = experiment.refit_frame([0, 1], sizes=[50, 800], m=10, quantile=0.1, repeats=12)
    assert experiment.refit_slopes(refits).between(-0.9, -0.1).all()
    assert refits.exact.sub(-3 * np.log(0.1)).abs().lt(1e-6).all()
    assert experiment.bias_left(refits).ge(0).all()
    digits = experiment.digits_frame(
        load("digits"), [0, 1], n=40, m=30, nets=3, width=4, depth=1, steps=3, rate=3e-3
    )
    assert digits.correlation.between(-1, 1).all()
    alike = {"spikes": np.array([2, 2]), "networks": np.array([0.1, 0.2])}
    assert experiment.spike_correlation(alike) == 0.0
    law = experiment.shown_law(0, d=4, share=0.25, samples=200, **SMALL)
    assert len(plots.bias_panels(law, frame, fits, digits).axes) == 4
    assert len(plots.refit_panels(refits, lengths).axes) == 3


def test_the_fit_by_likelihood_finds_the_law_of_its_draws() -> None:
    draws = 0.3 * ncx2.rvs(6.0, 4.0, size=4000, random_state=np.random.default_rng(0))
    df, nc, scale = likelihood_fit(draws)
    at = np.quantile(draws, [0.01, 0.2, 0.5, 0.9])
    exact = ncx2.cdf(at / 0.3, 6.0, 4.0)
    assert ncx2.cdf(at / scale, df, nc) == pytest.approx(exact, rel=0.15)
    with pytest.raises(ValueError, match="errors must be positive, got -1"):
        likelihood_fit([-1.0, 2.0])


def test_information_by_likelihood_is_scipys_and_sankarans_beyond_it() -> None:
    for x in (3.0, 6.0, 12.0):
        z = sankaran(x, df=6.0, nc=4.0)
        assert norm.cdf(z) == pytest.approx(ncx2.cdf(x, 6.0, 4.0), abs=5e-3)
    value, _ = likelihood_information((6.0, 4.0, 2.0), 6.0)
    assert value == pytest.approx(-np.log(ncx2.cdf(3.0, 6.0, 4.0)))
    # Far out scipy's logarithm is infinite and the fallback stands.
    far, fallback = likelihood_information((3000.0, 100.0, 1.0), 100.0)
    assert not np.isfinite(ncx2.logcdf(100.0, 3000.0, 100.0))
    assert far == fallback > 100
    assert likelihood_information((6.0, 4.0, 1.0), 50.0)[1] == 0.0  # more likely than not


def test_likelihood_runs_hold_the_exact_law_beside_their_fits() -> None:
    own: dict[str, Any] = {"seed": 1, "d": 2, "n": 12, "m": 8, "jitter": 1e-6}
    run = runs.likelihood_fits(None, samples=400, shares=[0.8, 0.4], **own)
    posterior = runs.posterior(
        None, teacher="kernel", dimensions=[2], lengths=[2**0.5],
        **{k: v for k, v in own.items() if k != "d"},
    )  # fmt: skip
    law = Quadratic.of(posterior["weights"][0], 1.0, posterior["shift"][0])
    at = [s * float(posterior["variance"][0]) for s in (0.8, 0.4)]
    assert run["exact"].tolist() == pytest.approx([information(law, a) for a in at])
    frame = experiment.likelihood_frame([1], dimensions=[2], shares=[0.8, 0.4], samples=400,
                                        n=12, m=8, jitter=1e-6)  # fmt: skip
    assert frame.exact.tolist() == pytest.approx(run["exact"].tolist())


def test_all_principal_components_are_the_images_themselves() -> None:
    """Axes turn, distances stay, and with them the law; fewer components are another space."""
    data = load("digits")
    run = runs.components_law(data, seed=3, n=30, m=12, components=[2, 64])
    order = np.random.default_rng([3, 11]).permutation(len(data.x_train))[:42]
    x = data.x_train.double().numpy()[order]
    y = np.eye(10)[data.y_train.numpy()[order]]
    y = y - y[:30].mean(0)
    length = float(np.median(pdist(x[:30])))
    weights, shift = runs._law(*runs._conditioned(x[:30], x[30:], y[:30], length, 1e-4), y[30:])
    assert run["weights"][1].sum() == pytest.approx(weights.sum(), rel=1e-3)
    assert run["shift"][1].sum() == pytest.approx(shift.sum(), rel=1e-3)
    assert run["weights"][0].sum() < 0.5 * run["weights"][1].sum()
    frame = experiment.component_frame(
        data, [3], components=[2, 64], share=0.5, n=30, m=12
    ).set_index("components")
    rise = experiment.component_rise(frame.reset_index())
    assert rise[3] == pytest.approx(np.log(frame.information[64] / frame.information[2]))


def test_colour_images_are_averaged_before_their_components() -> None:
    x = torch.randn(40, 3 * 32 * 32, generator=torch.Generator().manual_seed(0))
    pooled = torch.nn.functional.avg_pool2d(x.reshape(40, 3, 32, 32), 2).flatten(1)
    y = torch.arange(40) % 10
    sets = [Dataset("a", "a", each, y, each, y, 10, "0") for each in (x, pooled)]
    found = [runs.components_law(one, seed=0, n=20, m=10, components=[4]) for one in sets]
    assert found[0]["shift"] == pytest.approx(found[1]["shift"], rel=1e-5)


def test_settings_are_compared_by_their_means() -> None:
    shared: dict[str, Any] = {
        "n": 40, "m": 30, "nets": 3, "width": 6, "depth": 1, "steps": 3, "rate": 3e-3,
    }  # fmt: skip
    data = load("digits")
    table = experiment.settings_frame(data, [0, 1], {"a": {}, "b": {"width": 8}}, **shared)
    own = experiment.digits_frame(data, [0, 1], **{**shared, "width": 8})
    assert table.setting.tolist() == ["a", "b"]
    assert table.error[1] == pytest.approx(own.error.mean())
