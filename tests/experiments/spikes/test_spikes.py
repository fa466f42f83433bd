"""The experiments behind the notebooks on paper B, and their figures, at small sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import quad, trapezoid
from scipy.stats import norm, spearmanr

from rclib.experiments.spikes import configuration as spikes_configuration
from rclib.experiments.spikes import first_step as spikes_first_step
from rclib.experiments.spikes import frames as spikes_runs
from rclib.experiments.spikes import plots_spikes
from rclib.experiments.spikes import rate_sweep as spikes_sweep
from rclib.experiments.spikes import samples as spikes_samples
from rclib.experiments.spikes import schedule as spikes_schedule
from rclib.experiments.spikes import width as spikes_width
from rclib.plots import spectra as plots_spectra
from rclib.spectral.random_matrix import outliers
from rclib.teacher.problem import make_problem
from rclib.training.descent import make_descent

SMALL: dict[str, Any] = {"d": 20, "h": 30, "n": 60, "n_test": 20, "steps": 3}


@pytest.fixture(autouse=True)
def own_store(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    yield
    plt.close("all")


def wishart(h: int, d: int, seed: int) -> np.ndarray:
    W = np.random.default_rng(seed).standard_normal((h, d))
    return np.sort(np.linalg.svd(W, compute_uv=False) ** 2)


# --- what the notebooks share


def test_expand_is_the_product_with_the_first_axis_slowest() -> None:
    configs = spikes_runs.expand({"d": 3}, seed=[0, 1], rate=[0.1, 1.0])
    assert [(c["seed"], c["rate"]) for c in configs] == [(0, 0.1), (0, 1.0), (1, 0.1), (1, 1.0)]
    assert all(c["d"] == 3 for c in configs)


def test_noise_is_no_heavy_tail_and_a_power_law_is() -> None:
    noise = spikes_runs.bulk(wishart(300, 200, 0), rows=300)
    assert noise.spikes == 0
    assert noise.top < 1 < noise.tail_ratio
    uniform = np.random.default_rng(0).random(200)
    pareto = spikes_runs.bulk(np.sort(uniform ** (-1 / 1.2)), rows=300)
    assert pareto.tail_ratio < 0.5
    assert pareto.spikes > 10


def test_bulk_does_not_depend_on_the_scale_of_the_weights() -> None:
    values = wishart(90, 60, 1)
    one, other = (spikes_runs.bulk(s * values, rows=90) for s in (1.0, 37.0))
    assert other.threshold == pytest.approx(37 * one.threshold)
    for name in ("top", "law_distance", "tail_ratio"):
        assert getattr(other, name) == pytest.approx(getattr(one, name))


def test_law_distance_by_integration_of_the_density() -> None:
    h, d = 60, 40
    values = wishart(h, d, 2)
    variance = outliers(values, rows=h).variance
    q, scale = d / h, h * variance
    a, b = scale * (1 - q**0.5) ** 2, scale * (1 + q**0.5) ** 2

    def density(x: float) -> float:
        return float(np.sqrt(max((b - x) * (x - a), 0.0)) / (2 * np.pi * scale * q * x))

    tail = values[d // 2 :]
    whole = quad(density, tail[0], b)[0]
    share = [quad(density, tail[0], min(x, b))[0] / whole for x in tail]
    expected = max(abs(s - i / len(tail)) for i, s in enumerate(share))
    assert spikes_runs.bulk(values, rows=h).law_distance == pytest.approx(expected, abs=1e-4)


def test_floors_are_what_regression_on_odd_functions_leaves() -> None:
    def gauss(f: Any) -> float:
        return quad(lambda z: f(z) * norm.pdf(z), -12, 12)[0]

    def softplus(z: float) -> float:
        return float(np.logaddexp(0, z))

    found = spikes_runs.floors(0.3)
    # The odd part of a function is (y(z) - y(-z)) / 2.
    odd = gauss(lambda z: (softplus(z) - (softplus(z) - softplus(-z)) / 2) ** 2)
    assert found.odd == pytest.approx(odd + 0.09, abs=1e-8)
    assert found.zero == pytest.approx(gauss(lambda z: softplus(z) ** 2) + 0.09, abs=1e-8)


def test_steps_frame_is_the_record_by_steps() -> None:
    configs = spikes_runs.expand({**SMALL, "optimizer": "gd"}, seed=[0, 1], rate=[1.0, 1e300])
    runs = spikes_runs.train_all(configs)
    frame = spikes_runs.steps_frame(configs, runs, keys=["seed", "rate"])
    assert len(frame) == 4 * 4
    for config, run in zip(configs, runs, strict=True):
        rows = frame[(frame.seed == config["seed"]) & (frame.rate == config["rate"])]
        assert list(rows.step) == [0, 1, 2, 3]
        np.testing.assert_array_equal(rows.test_loss, run["test_loss"])
        np.testing.assert_array_equal(rows.alpha_ks, run["alpha_ks"])
    diverged = frame[frame.rate == 1e300]
    assert diverged.finite.groupby(diverged.step).all().to_dict()[0]
    broken = diverged[~diverged.finite]
    assert len(broken)
    assert broken.top.isna().all()


def test_a_frame_by_one_evaluation_has_its_losses_under_plain_names() -> None:
    configs = spikes_runs.expand({**SMALL, "optimizer": "adam"}, seed=[0], rate=[1.0])
    frame = spikes_runs.steps_frame(configs, spikes_runs.train_all(configs), keys=["seed"])
    written, released = (spikes_runs.evaluated(frame, way) for way in spikes_runs.EVALUATIONS)
    for name in spikes_runs.LOSSES:
        np.testing.assert_array_equal(written[name], frame[name])
        np.testing.assert_array_equal(released[name], frame[f"{name}_released"])
    assert list(written.columns) == [c for c in frame.columns if not c.endswith("_released")]
    assert sorted(released.columns) == sorted(written.columns)
    np.testing.assert_array_equal(released.alpha_ks, frame.alpha_ks)
    with pytest.raises(ValueError, match=r"evaluation must be one of.*'paper'"):
        spikes_runs.evaluated(frame, "paper")


def test_machine_dependent_are_chaotic_runs_after_the_first_step() -> None:
    rows = [("adam", 10.0, 10), ("adam", 10.0, 1), ("adam", 1.0, 10), ("gd", 3000.0, 10)]
    frame = pd.DataFrame(rows, columns=["optimizer", "rate", "step"])
    assert spikes_runs.machine_dependent(frame).tolist() == [True, False, False, False]


def test_data_are_described() -> None:
    found = spikes_runs.drawn_samples(seeds=[3], d=2, h=4, n=5, noise=0.3, n_test=20_000)
    expected = "drawn from the teacher (d = 2, h = 4, n = 5, 20,000 test points, label noise 0.3, "
    assert found.description == expected + "seed 3)"


# --- the first step


def first_update(seed: int, optimizer: str, sizes: dict[str, int]) -> tuple[Any, np.ndarray]:
    """Problem and first update at rate one, by autograd."""
    p = make_problem(seed, n_test=1, noise=0.3, **sizes)
    W = torch.tensor(p.W0, dtype=torch.float64, requires_grad=True)
    X, y, a = (torch.tensor(v, dtype=torch.float64) for v in (p.X, p.y, p.a))
    f = torch.tanh(X @ W.T / sizes["d"] ** 0.5) @ a / sizes["h"] ** 0.5
    (gradient,) = torch.autograd.grad(((f - y) ** 2).mean(), W)
    g = gradient.numpy()
    return p, -g if optimizer == "gd" else -np.sign(g)


@pytest.mark.parametrize(("optimizer", "rates"), [("gd", [5.0, 300.0]), ("adam", [0.5, 3.0])])
def test_one_step_by_autograd_and_svd(optimizer: str, rates: list[float]) -> None:
    sizes = {"d": 40, "h": 60, "n": 80}
    found = spikes_first_step.one_step(None, seed=3, optimizer=optimizer, rates=rates, **sizes)
    p, M = first_update(3, optimizer, sizes)
    u = np.linalg.svd(M)[0][:, 0]
    for i, rate in enumerate(rates):
        W = p.W0.astype(float) + rate * M
        _, sigma, vt = np.linalg.svd(W)
        rest = W - np.outer(u, u @ W)
        variance = (rest**2).sum() / (59 * 40)
        s2 = max((u @ W) @ (u @ W) - variance * 40, 0.0)
        assert found["top"][i] == pytest.approx(sigma[0] ** 2, rel=1e-3)
        assert found["variance"][i] == pytest.approx(variance, rel=1e-3)
        assert found["strength"][i] ** 2 == pytest.approx(s2, rel=2e-2, abs=0.5)
        assert found["alignment"][i] == pytest.approx(abs(vt[0] @ p.beta), abs=1e-2)
        assert found["detached"][i] == float(s2 > variance * (60 * 40) ** 0.5)
    s2, v = found["strength"][1] ** 2, found["variance"][1]
    assert found["predicted"][1] == pytest.approx((s2 + v * 40) * (s2 + v * 60) / s2)
    assert found["predicted"][1] == pytest.approx(found["top"][1], rel=0.1)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("optimizer", ["gd", "adam"])
def test_critical_rate_is_that_of_halving(optimizer: str, seed: int) -> None:
    d, h, n = 40, 60, 80
    found = spikes_first_step.critical_rate(None, seed=seed, optimizer=optimizer, d=d, h=h, n=n)
    p = make_problem(seed, d=d, h=h, n=n, n_test=1, noise=0.3)
    update = make_descent(optimizer).update(p.first_step[1], 1.0).astype(float)

    def spikes(exponent: float) -> int:
        W = p.W0.astype(float) + 10.0**exponent * update
        return outliers(np.linalg.svd(W, compute_uv=False) ** 2, rows=h).count

    low, high = -4.0, 6.0
    for _ in range(12):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if spikes(middle) else (middle, high)
    assert found["rate"][0] == 10.0**high


@pytest.mark.parametrize("last", [1, 2, 50, 4096])
@pytest.mark.parametrize("guess", [0, 0.1, 0.5, 1])
@pytest.mark.parametrize("change", [-0.1, 0, 0.01, 0.5, 0.99, 1, 1.2])
def test_the_first_positive_place_of_a_line_and_a_step(
    change: float, guess: float, last: int
) -> None:
    at, begin = change * last, round(guess * last)
    expected = next((i for i in range(last + 1) if i > at), None)
    expected = None if expected == 0 else expected
    for shape in (lambda x: x, np.sign, lambda x: x**3):
        found = spikes_first_step._first_positive(
            lambda i, shape=shape: float(shape(i - at)),  # type: ignore[misc]
            guess=begin,
            last=last,
        )
        assert found == expected


@pytest.mark.parametrize("optimizer", ["gd", "adam"])
def test_critical_rate_separates_bulk_and_spike(optimizer: str) -> None:
    sizes = {"d": 40, "h": 60, "n": 80}
    found = spikes_first_step.critical_rate(None, seed=1, optimizer=optimizer, **sizes)
    p, M = first_update(1, optimizer, sizes)
    rate = float(found["rate"][0])

    def spikes(at: float) -> int:
        sigma = np.linalg.svd(p.W0.astype(float) + at * M, compute_uv=False)
        return outliers(sigma**2, rows=60).count

    assert spikes(0.98 * rate) == 0
    assert spikes(1.02 * rate) > 0
    assert found["predicted"][0] == pytest.approx(
        (60 * 40) ** 0.25 / np.linalg.norm(M, 2), rel=1e-2
    )


# --- the sweep


def sweep_frame(rng: np.random.Generator, rates: int = 9) -> pd.DataFrame:
    columns = {name: rng.random(rates) for name in ("test_loss", "alignment", "alpha_hill")}
    fixed = {"seed": 0, "optimizer": "gd", "step": 10, "finite": True}
    return pd.DataFrame({"rate": np.logspace(-3, 3, rates), **columns}).assign(**fixed)


def test_agreement_of_curves_that_move_together_and_part() -> None:
    frame = sweep_frame(np.random.default_rng(0))
    frame["test_loss"] = [5.0, 4.0, 3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    frame["alignment"] = np.linspace(0, 1, 9)
    frame["alpha_hill"] = np.linspace(3, 2, 9)
    row = spikes_sweep.agreement(frame, step=10).iloc[0]
    assert row.best == frame.rate[4]
    assert row.up_to == pytest.approx(1.0)
    assert row.beyond == pytest.approx(-1.0)


@pytest.mark.parametrize("seed", range(5))
def test_agreement_is_the_smaller_rank_correlation(seed: int) -> None:
    frame = sweep_frame(np.random.default_rng(seed))
    row = spikes_sweep.agreement(frame, step=10).iloc[0]
    at = int(np.argmin(frame.test_loss))
    for value, side in ((row.up_to, frame[: at + 1]), (row.beyond, frame[at:])):
        if len(side) < 3:
            assert np.isnan(value)
            continue
        with_alignment = -spearmanr(side.test_loss, side.alignment).statistic
        with_alpha = spearmanr(side.test_loss, side.alpha_hill).statistic
        assert value == pytest.approx(min(with_alignment, with_alpha))


def test_differences_of_rounding_are_ties() -> None:
    frame = sweep_frame(np.random.default_rng(1))
    frame["test_loss"] = 1.0 + 1e-7 * np.arange(9)
    row = spikes_sweep.agreement(frame, step=10).iloc[0]
    assert np.isnan(row.beyond)


def test_differences_between_two_rates() -> None:
    frame = sweep_frame(np.random.default_rng(2))
    frame = pd.concat([frame, frame.assign(seed=1, test_loss=1.0)])
    options = {"step": 10, "optimizer": "gd", "rate": frame.rate.max(), "base": frame.rate.min()}
    found = spikes_sweep.differences(frame, **options)
    first = frame[frame.seed == 0].test_loss
    assert found.to_dict() == {0: first.iloc[8] - first.iloc[0], 1: 0.0}


def test_first_rates() -> None:
    frame = pd.DataFrame(
        [(0, "gd", r, 1, s) for r, s in ((1.0, 0), (10.0, 0), (100.0, 2), (1000.0, 1))]
        + [(0, "adam", 1.0, 1, 0)],
        columns=["seed", "optimizer", "rate", "step", "spikes"],
    )
    found = spikes_sweep.first_rates(frame, step=1).set_index("optimizer").rate
    assert found["gd"] == 100.0
    assert np.isnan(found["adam"])


def test_spread_interval_covers_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(0)
    spreads = rng.normal(size=(1500, 5)).std(axis=1, ddof=1)
    inside = [
        low <= 1.0 <= high for low, high in (spikes_sweep.spread_interval(s, 5) for s in spreads)
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)
    with pytest.raises(ValueError, match="count must be at least 2, got 1"):
        spikes_sweep.spread_interval(1.0, 1)


@pytest.mark.slow
def test_formula_and_bootstrap_of_alpha_fit_independent_values_not_eigenvalues() -> None:
    rng = np.random.default_rng(0)
    independent = {s: rng.random(100) ** (-1 / 1.5) for s in range(20)}
    repelling = {s: wishart(150, 100, s) for s in range(20)}
    spectra = {"independent": independent, "eigenvalues": repelling}
    table = spikes_sweep.alpha_uncertainty(spectra, draws=20)
    hill = table[table.method == "hill"].set_index("state")
    assert hill.ratio["independent"] == pytest.approx(1.0, abs=0.35)
    assert hill.bootstrap["independent"] == pytest.approx(hill.repeats["independent"], rel=0.35)
    assert hill.high["eigenvalues"] < 0.6


def test_sweep_names_its_runs_and_shares_the_start() -> None:
    runs, frame = spikes_sweep.train([0, 1], optimizers=["gd", "adam"], rates=[0.1, 1.0], **SMALL)
    assert set(runs) == {(s, o, r) for s in (0, 1) for o in ("gd", "adam") for r in (0.1, 1.0)}
    start = frame[frame.step == 0]
    assert start.groupby("seed").test_loss.nunique().tolist() == [1, 1]
    assert (frame[frame.step == 1].groupby("seed").test_loss.nunique() == 4).all()
    sizes = {k: SMALL[k] for k in ("d", "h", "n")}
    critical = spikes_sweep.critical_rates([0, 1], optimizers=["gd", "adam"], **sizes)
    one = spikes_first_step.critical_rate(None, seed=1, optimizer="adam", **sizes)
    row = critical[(critical.seed == 1) & (critical.optimizer == "adam")].iloc[0]
    assert row.rate == one["rate"][0]


# --- one configuration


def test_histograms_hold_every_eigenvalue() -> None:
    runs, frame = spikes_configuration.train([0], optimizer="adam", rate=1.0, **SMALL)
    run = runs[0]
    for log in (True, False):
        bars, law = spikes_configuration.esd_frames(
            run, rows=30, steps=[0, 3], bins=7, log=log, reach=1.5
        )
        for i, step in ((0, 0), (3, 3)):
            chosen = bars[bars.step == step]
            mass = (chosen.density * (chosen.right - chosen.left)).sum()
            assert mass == pytest.approx(1 - chosen.beyond.iloc[0] / 20)
            assert chosen.largest.iloc[0] == run["eigenvalues"][i].max()
            beyond = (run["eigenvalues"][i] > chosen.right.max()).sum()
            assert chosen.beyond.iloc[0] == (0 if log else beyond)
            line = law[law.step == step]
            assert trapezoid(line.density, line.x) == pytest.approx(1.0, abs=0.02)
    assert list(frame.step) == [0, 1, 2, 3]


def test_weight_and_singular_values_of_the_start() -> None:
    runs, _ = spikes_configuration.train([0], optimizer="adam", rate=1.0, **SMALL)
    W = make_problem(0, d=20, h=30, n=60, n_test=20).W0.astype(float)
    values = spikes_configuration.weight_values(runs[0], steps=[0], fewest=0)
    width = values.value[1] - values.value[0]
    assert (values.density * width).sum() == pytest.approx(1.0)
    assert (values.density * values.value * width).sum() == pytest.approx(W.mean(), abs=width)
    sigma = spikes_configuration.singular_values(runs[0], steps=[0])
    np.testing.assert_allclose(sigma.value, np.linalg.svd(W, compute_uv=False), rtol=1e-6)
    assert list(sigma["index"]) == list(range(1, 21))


@pytest.mark.parametrize(
    ("counts", "fewest", "joined", "edges"),
    [
        ([0, 1, 1, 5, 9, 4, 2, 1, 1, 0], 3, [7, 9, 4, 4], [1, 4, 5, 6, 9]),
        ([9, 1, 1, 1, 1], 3, [9, 4], [0, 1, 5]),  # what is left over goes to the last bin
        ([1, 9], 3, [1, 9], [0, 1, 2]),
        ([2, 0, 3], 0, [2, 0, 3], [0, 1, 2, 3]),
    ],
)
def test_thin_bins_are_joined_outwards(
    counts: list[int], fewest: int, joined: list[int], edges: list[int]
) -> None:
    found = spikes_configuration.joined_bins(np.array(counts), np.arange(len(counts) + 1.0), fewest)
    assert (found[0].tolist(), found[1].tolist()) == (joined, edges)


# --- schedule and overlaps


def schedule_runs() -> tuple[Any, pd.DataFrame]:
    return spikes_schedule.train(
        [0, 1], optimizer="adam", rate=1.0, gammas=[1.0, 0.6], overlap_top=20, **SMALL
    )


def test_decay_effect_compares_runs_of_one_seed() -> None:
    losses = {
        (0, 1.0): [3, 1, 2, 4],
        (0, 0.6): [3, 1, 1, 2],
        (1, 1.0): [1, 5, 2, 5],
        (1, 0.6): [1, 5, 3, 4],
    }
    frame = pd.DataFrame(
        [(s, g, t, float(v)) for (s, g), values in losses.items() for t, v in enumerate(values)],
        columns=["seed", "gamma", "step", "test_loss"],
    )
    found = spikes_schedule.decay_effect(frame).set_index(["seed", "gamma"])
    assert found.against_constant[0, 0.6] == 0.5
    assert found.against_best[0, 0.6] == 2.0
    assert found.against_constant[1, 0.6] == 0.8
    assert found.against_best[1, 0.6] == pytest.approx(4 / 3)  # step 0 does not count
    assert (found.against_constant.xs(1.0, level="gamma") == 1.0).all()


def test_carriers_and_maps_are_products_of_singular_vectors() -> None:
    runs, _ = schedule_runs()
    sizes = {k: SMALL[k] for k in ("d", "h", "n")}
    p, M = first_update(1, "adam", sizes)
    W = p.W0.astype(float)
    before, update = np.linalg.svd(W)[2], np.linalg.svd(M)[2]
    after = np.linalg.svd(W + M)[2]
    found = spikes_schedule.carriers(runs)
    first = found[
        (found.seed == 1) & (found.gamma == 0.6) & (found.side == "right") & (found.step == 0)
    ]
    np.testing.assert_allclose(first.share[:3], (before[:3] @ update[0]) ** 2, atol=0.02)
    keys = ["seed", "gamma", "side", "step"]
    np.testing.assert_allclose(found.groupby(keys).share.sum(), 1.0)
    maps = spikes_schedule.overlap_maps(runs[1, 1.0], steps=[0, 2], top=5)
    np.testing.assert_allclose(
        maps["right"]["step 0"][0, 0], (after[0] @ update[0]) ** 2, atol=0.02
    )
    table = spikes_schedule.long_maps(maps)
    assert len(table) == 2 * 2 * 25
    entry = table[
        (table.side == "left") & (table.step == "step 2") & (table.w == 2) & (table.m == 4)
    ]
    assert entry.overlap.item() == maps["left"]["step 2"][1, 3]


# --- families and width


def test_families_meet_at_their_common_setting() -> None:
    base = {**SMALL, "optimizer": "adam", "rate": 1.0, "noise": 0.3, "ridge": 0.01, "gamma": 1.0}
    axes = {"n": [30, 60], "ridge": [0.01, 1.0], "noise": [0.3], "gamma": [0.5, 1.0]}
    frame = spikes_samples.families([0, 1], base=base, axes=axes)
    assert set(frame.family) == set(axes)
    common = {"n": 60, "ridge": 0.01, "noise": 0.3, "gamma": 1.0}
    losses = [
        frame[(frame.family == f) & (frame.setting == v)].test_loss.to_numpy()
        for f, v in common.items()
    ]
    for other in losses[1:]:
        np.testing.assert_array_equal(losses[0], other)
    for way, end in (("equations", ""), ("released", "_released")):
        gap = spikes_samples.with_gap(frame, way).gap
        np.testing.assert_allclose(gap, frame[f"test_loss{end}"] - frame[f"train_loss{end}"])
    change = spikes_samples.final_differences(frame, family="n", quantity="kta", of=60, minus=30)
    at = frame[(frame.family == "n") & (frame.step == 3)].set_index(["setting", "seed"]).kta
    np.testing.assert_allclose(change, at[60] - at[30])
    assert change.index.name == "seed"
    last = frame[(frame.family == "ridge") & (frame.step == 3)]
    rise = last.groupby("seed").train_loss.apply(lambda v: (v.iloc[1] - v.iloc[0]) / 2)
    found = spikes_samples.final_slopes(frame, family="ridge", quantity="train_loss")
    np.testing.assert_allclose(found, rise)  # log10 of 1 and 0.01 are 2 apart
    assert min(found) > 0  # a larger ridge fits its sample worse


def test_width_frames() -> None:
    sizes = [spikes_width.sizes_of(d, aspect=1.5, samples=2.0) for d in (16, 20)]
    assert sizes[1] == {"d": 20, "h": 30, "n": 40}
    frame = spikes_width.one_step_frame(
        sizes, seeds=[5], rates={"gd": [2.0, 8.0], "adam": [1.0]}, noise=0.3
    )
    gd, adam = frame[frame.optimizer == "gd"], frame[frame.optimizer == "adam"]
    np.testing.assert_array_equal(gd.rate, gd.factor * gd.d)
    np.testing.assert_array_equal(adam.rate, adam.factor)
    np.testing.assert_allclose(frame.error, (frame.top - frame.predicted) / frame.predicted)
    direct = spikes_first_step.one_step(
        None, seed=5, optimizer="gd", rates=[40.0], noise=0.3, **sizes[1]
    )
    row = gd[(gd.d == 20) & (gd.factor == 2.0)].iloc[0]
    assert row.top == direct["top"][0]
    steps = spikes_width.train(
        sizes, seeds=[0], record_at=[0, 2], optimizer="adam", rate=1.0, steps=2, noise=0.3
    )
    assert list(zip(steps.d, steps.step, strict=True)) == [(16, 0), (16, 2), (20, 0), (20, 2)]


def test_exponents_of_a_power_leave_missing_values_out() -> None:
    d = np.array([10, 20, 40, 80] * 2)
    y = 3.0 * d**1.5
    y[0] = np.nan
    frame = pd.DataFrame({"d": d, "seed": [0] * 4 + [1] * 4, "y": y})
    np.testing.assert_allclose(spikes_width.exponents(frame, "y"), [1.5, 1.5])


# --- figures draw what they are given


def test_panels_draw_mean_and_range() -> None:
    frame = pd.DataFrame(
        {"x": [1.0, 10.0] * 4, "who": (["a"] * 2 + ["b"] * 2) * 2, "y": np.arange(8.0), "z": 1.0}
    )
    figure = plots_spectra.panels(
        frame,
        x="x",
        rows={"y": "Y", "z": "Z"},
        x_label="size",
        by="who",
        log_x=True,
        levels={"y": 2.5},
        columns=2,
    )
    first, second = figure.axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("Y", "Z")
    assert [t.get_text() for t in first.get_xticklabels()] == ["1", "10"]
    np.testing.assert_array_equal(first.lines[0].get_ydata(), [2.0, 3.0])
    np.testing.assert_array_equal(first.lines[1].get_ydata(), [4.0, 5.0])
    assert first.lines[2].get_ydata()[0] == 2.5
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "b"]


def test_panels_draw_median_and_quartiles_on_a_shade() -> None:
    frame = pd.DataFrame({"x": [1.0, 10.0] * 5, "y": np.repeat([0.0, 1.0, 2.0, 3.0, 100.0], 2)})
    figure = plots_spectra.panels(
        frame.assign(who="a"),
        x="x",
        rows={"y": "Y"},
        x_label="x",
        by="who",
        log_x=True,
        quartiles=True,
        shade_from=(5.0, "chaos"),
    )
    panel = figure.axes[0]
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), [2.0, 2.0])
    band = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (1.0, 3.0)
    shade = panel.patches[0]
    assert shade.get_x() == 5.0
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "chaos"]
    assert shade.get_x() + shade.get_width() == pytest.approx(panel.get_xlim()[1])


def test_spectra_name_what_lies_beyond() -> None:
    bars = pd.DataFrame({"step": 2, "left": [0.0, 1.0], "right": [1.0, 2.0], "density": [0.6, 0.2]})
    bars = bars.assign(beyond=3, largest=1234.0)
    law = pd.DataFrame({"step": 2, "x": [0.0, 1.0], "density": [0.5, 0.4]})
    figure = plots_spectra.spectra(bars, law, bars, law)
    top, bottom = figure.axes
    assert top.get_title() == "step 2"
    np.testing.assert_array_equal(top.lines[0].get_ydata(), [0.5, 0.4])
    assert [t.get_text() for t in bottom.texts] == ["3 beyond,\nup to 1200"]


@pytest.mark.parametrize("view", ["heat", "3d"])
def test_overlap_maps_in_both_views(view: str) -> None:
    maps = {side: {"step 0": np.eye(3), "step 1": np.eye(3)[::-1]} for side in ("left", "right")}
    figure = plots_spikes.overlap_panels(maps, view=view, x="update", y="W")
    panels = figure.axes[:4]
    if view == "heat":
        np.testing.assert_array_equal(panels[1].images[0].get_array(), np.eye(3)[::-1])
        assert panels[0].get_ylabel() == "left\nW"
    else:
        assert panels[3].get_title() == "right, step 1"
        assert panels[3].get_xlabel() == "update"
    with pytest.raises(ValueError, match="view must be 'heat' or '3d', got 'flat'"):
        plots_spikes.overlap_panels(maps, view="flat", x="update", y="W")


def test_other_figures_draw_their_frames() -> None:
    shares = pd.DataFrame(
        [
            (1.0, side, t, d, 0.5)
            for side in ("left", "right")
            for t in (0, 1)
            for d in ("1", "others")
        ],
        columns=["gamma", "side", "step", "direction", "share"],
    )
    figure = plots_spikes.carried(
        shares, rows={1.0: "constant"}, names={"1": "first", "others": "rest"}
    )
    assert figure.axes[1].get_title() == "right singular vectors, constant"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["first", "rest"]

    alphas = pd.DataFrame(
        {
            "state": ["start", "end"] * 2,
            "method": ["hill"] * 2 + ["ks"] * 2,
            "alpha": [2.0, 3, 4, 5],
            "e": 0.1,
        }
    )
    figure = plots_spikes.alpha_errors(alphas, kinds={"e": "error"})
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_xdata(), [4.0, 5.0])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["start", "end"]

    spikes = pd.DataFrame(
        {
            "optimizer": "gd",
            "d": [10, 20],
            "predicted_over_edge": [1.0, 2.0],
            "top_over_edge": [1.1, 2.1],
        }
    )
    panel = plots_spikes.prediction(spikes, columns={"gd": "GD"}, by="d", legend="d").axes[0]
    assert [line.get_ydata()[0] for line in panel.lines[:2]] == [1.1, 2.1]

    losses = pd.DataFrame(
        {
            "family": "n",
            "setting": [10, 20] * 2,
            "seed": 0,
            "step": [0, 0, 1, 1],
            "loss": [4.0, 3, 2, 1],
        }
    )
    panel = plots_spikes.family_panels(
        losses, families={"n": "size"}, rows={"loss": "L"}, x_label="t"
    ).axes[0]
    np.testing.assert_array_equal(panel.lines[1].get_ydata(), [3.0, 1.0])
    assert (panel.get_title(), panel.get_ylabel(), panel.get_xlabel()) == ("size", "L", "t")

    lines = pd.DataFrame({"x": [10, 20, 40], "y": [1.0, 8.0, 64.0], "line": "GD"})
    panel = plots_spectra.scaling({"T": lines}, x="d", y={"T": "rate"}, slopes={"T": 3.0}).axes[0]
    np.testing.assert_allclose(panel.lines[-1].get_ydata(), lines.y)
    assert [t.get_text() for t in panel.get_xticklabels()] == ["10", "20", "40"]
    assert panel.get_ylim() == pytest.approx((0.1, 100.0))  # whole decades

    _, (left, right) = plt.subplots(1, 2)
    entries = pd.DataFrame({"step": 1, "value": [0.0, 1.0, 2.0], "density": [0.5, 0.0, 0.5]})
    plots_spectra.weight_value_panels(left, entries)
    np.testing.assert_array_equal(left.lines[0].get_xdata(), [0.0, 2.0])  # empty bins are left out
    plots_spectra.singular_value_panels(
        right, pd.DataFrame({"step": 1, "index": [1, 2], "value": [3.0, 2.0]})
    )
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [3.0, 2.0])
