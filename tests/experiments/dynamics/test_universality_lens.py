"""dynamics.universality_lens: mixtures over Boolean functions, their bounds, Langevin chains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal

from rclib.experiments.dynamics import plots_universality as plots
from rclib.experiments.dynamics import universality_lens as experiment
from rclib.experiments.dynamics import universality_runs as runs
from rclib.experiments.dynamics import universality_spectra as matrices
from rclib.runs import store

PRIOR: dict[str, Any] = {"hidden": 3, "nets": 2000, "scaled": True}
SHARED: dict[str, Any] = {"sizes": [1, 6], "sets": 3, "delta": 0.1}


def test_functions_are_packed_values() -> None:
    assert runs.bits_of([1, 2**15]).argmax(1).tolist() == [0, 15]
    assert experiment.TARGETS["constant"] == runs.FUNCTIONS - 1
    parity = runs.bits_of([experiment.TARGETS["parity"]])[0]
    assert [int(bin(x).count("1") % 2) for x in range(16)] == parity.tolist()
    assert len(set(experiment.TARGETS.values())) == len(experiment.TARGETS)


def test_weights_count_the_functions_of_networks_as_torch_computes_them() -> None:
    run = runs.weights(None, seed=3, hidden=3, nets=40, scaled=True)
    assert run["counts"].sum() == 40
    random = np.random.default_rng([3, 3, 1])
    first, bias, last, shift = (
        torch.from_numpy(w) for w in runs._networks(random, 3, 40, scaled=True)
    )
    x = torch.from_numpy(runs.SIGNS).float()
    seen: dict[int, int] = {}
    for i in range(40):
        out = torch.relu(x @ first[i].T + bias[i]) @ last[i] + shift[i]
        function = sum(1 << k for k in range(16) if out[k] > 0)
        seen[function] = seen.get(function, 0) + 1
    found = dict(zip(run["functions"].tolist(), run["counts"].tolist(), strict=True))
    assert found == seen
    log_w = runs.log_weights(run)
    assert np.exp(log_w).sum() == pytest.approx(1.0)
    assert log_w.min() == pytest.approx(np.log(runs.FLOOR), abs=0.01)


@pytest.mark.parametrize("prior", [None, {"seed": 1, **PRIOR}])
def test_regret_is_that_of_a_mixture_written_out(prior: dict[str, Any] | None) -> None:
    """Label by label: the sum of predictive log-losses over the truth's, by the chain rule."""
    if prior is not None:
        store.fetch(runs.weights, prior)
    target = experiment.TARGETS["majority"]
    run = runs.regrets(None, seed=2, targets=[target], prior=prior, **SHARED)
    log_w = np.full(runs.FUNCTIONS, -np.log(runs.FUNCTIONS))
    if prior is not None:
        log_w = runs.log_weights(store.fetch(runs.weights, prior))
    every = runs.bits_of(np.arange(runs.FUNCTIONS)).astype(bool)
    random = np.random.default_rng([2, target])
    x = random.integers(0, 16, (3, 6))
    y = every[target][x] != (random.random(x.shape) < 0.1)
    totals = np.zeros((3, 2))
    for i in range(3):
        posterior = np.exp(log_w)
        total = 0.0
        for t in range(6):
            agree = np.where(every[:, x[i, t]] == y[i, t], 0.9, 0.1)
            total += np.log(agree[target]) - np.log(posterior @ agree)
            posterior = posterior * agree / (posterior @ agree)
            if t in (0, 5):
                totals[i, (0, 5).index(t)] = total
    np.testing.assert_allclose(run["regret"][0], totals.mean(0), rtol=2e-4)
    apart = (every != every[target]).mean(1) * 0.8 * np.log(9)
    jensen = [-np.log(np.exp(log_w) @ np.exp(-n * apart)) for n in (1, 6)]
    np.testing.assert_allclose(run["jensen"][0], jensen, rtol=1e-9)
    balls = [
        min(n * e - np.log(np.exp(log_w)[apart <= e + 1e-12].sum()) for e in np.unique(apart))
        for n in (1, 6)
    ]
    np.testing.assert_allclose(run["ball"][0], balls, rtol=1e-9)
    assert (run["jensen"] <= run["ball"] + 1e-9).all()
    assert run["weight"][0] == pytest.approx(-log_w[target])


def test_the_uniform_prior_has_a_closed_form() -> None:
    """Its 16 values are independent fair coins: a product over inputs."""
    target = experiment.TARGETS["parity"]
    run = runs.regrets(None, seed=5, targets=[target], prior=None, **SHARED)
    random = np.random.default_rng([5, target])
    x = random.integers(0, 16, (3, 6))
    truth = runs.bits_of([target])[0].astype(bool)
    y = truth[x] != (random.random(x.shape) < 0.1)
    total = 0.0
    for i in range(3):
        for k in range(16):
            ones, zeros = (y[i][x[i] == k]).sum(), (~y[i][x[i] == k]).sum()
            alike, other = 0.9**ones * 0.1**zeros, 0.1**ones * 0.9**zeros
            total += np.log(alike if truth[k] else other) - np.log(0.5 * (alike + other))
    assert run["regret"][0, 1] == pytest.approx(total / 3, rel=1e-5)


def test_limits_of_the_regret(monkeypatch: pytest.MonkeyPatch) -> None:
    """No labels cost nothing, nor does noise that hides everything; a point mass on the truth costs
    nothing either, whatever the labels."""
    none = runs.regrets(None, seed=0, targets=[7], sizes=[0, 1], sets=2, delta=0.1, prior=None)
    for name in ("regret", "jensen", "ball"):
        assert none[name][0, 0] == pytest.approx(0.0, abs=1e-5)
    prior = {"seed": 1, **PRIOR}
    store.fetch(runs.weights, prior)
    point = np.full(runs.FUNCTIONS, -np.inf)
    point[7] = 0.0
    monkeypatch.setattr(runs, "log_weights", lambda run: point)
    sure = runs.regrets(None, seed=0, targets=[7], sizes=[9], sets=2, delta=0.1, prior=prior)
    for name in ("regret", "jensen", "ball"):
        assert sure[name][0, 0] == pytest.approx(0.0, abs=1e-5)
    near = runs.regrets(None, seed=0, targets=[0], sizes=[9], sets=2, delta=0.4999999, prior=None)
    assert near["regret"][0, 0] == pytest.approx(0.0, abs=1e-5)


def test_regret_of_linear_regression_counts_the_directions_that_data_excite() -> None:
    given: dict[str, Any] = {"sizes": [64, 256, 1024], "draws": 4}
    wide = runs.linear_regret(None, seed=1, used=3, inputs=12, **given)
    narrow = runs.linear_regret(None, seed=1, used=3, inputs=3, **given)
    np.testing.assert_allclose(wide["regret"], narrow["regret"])
    slopes = experiment.linear_slopes([1, 2], used=3, inputs=5, **given)
    np.testing.assert_allclose(slopes, 1.5, atol=0.15)
    # By hand for one input: ½ ln(1 + |x|²).
    x = np.random.default_rng([7, 1]).standard_normal((4, 1))
    run = runs.linear_regret(None, seed=7, sizes=[4], used=1, inputs=1, draws=1)
    assert run["regret"][0] == pytest.approx(0.5 * np.log1p((x**2).sum()))


def test_regret_of_linear_regression_is_the_information_in_its_labels() -> None:
    """½ ln det(I + XᵀX) is the mean over the prior of the truth's log-likelihood over the
    mixture's, whose labels are Gaussian with covariance I + XXᵀ: by Monte Carlo."""
    run = runs.linear_regret(None, seed=7, sizes=[6], used=3, inputs=3, draws=1)
    x = np.random.default_rng([7, 3]).standard_normal((6, 3))
    random = np.random.default_rng(0)
    coefficients = random.standard_normal((200_000, 3))
    noise = random.standard_normal((200_000, 6))
    y = coefficients @ x.T + noise
    truth = multivariate_normal(np.zeros(6), np.eye(6)).logpdf(noise)
    mixture = multivariate_normal(np.zeros(6), np.eye(6) + x @ x.T).logpdf(y)
    assert run["regret"][0] == pytest.approx((truth - mixture).mean(), abs=0.02)


def test_descent_is_that_of_autograd() -> None:
    random = np.random.default_rng(0)
    state = [w.astype(float) for w in runs._networks(random, 3, 2, scaled=True)]
    ones, zeros = random.integers(0, 3, 16).astype(float), random.integers(0, 3, 16).astype(float)
    found = runs._descend(random, [w.copy() for w in state], ones, zeros, 0.01, 3, noisy=False)
    ours = [torch.from_numpy(w).requires_grad_() for w in state]
    x = torch.from_numpy(runs.SIGNS)
    for _ in range(3):
        first, bias, last, shift = ours
        hidden = torch.relu(torch.einsum("nhk,xk->nhx", first, x) + bias[..., None])
        logit = 3 * (torch.einsum("nh,nhx->nx", last, hidden) + shift[:, None])
        likelihood = torch.nn.functional.logsigmoid(logit) @ torch.from_numpy(ones)
        likelihood = likelihood + torch.nn.functional.logsigmoid(-logit) @ torch.from_numpy(zeros)
        prior = sum(0.5 * k * w.square().sum() for k, w in zip((4, 4, 3, 4), ours, strict=True))
        slopes = torch.autograd.grad(prior - likelihood.sum(), ours)
        with torch.no_grad():
            for w, g in zip(ours, slopes, strict=True):
                w -= 0.005 * g
    for a, b in zip(found, ours, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-12)


@pytest.mark.slow
def test_langevin_without_data_keeps_the_prior() -> None:
    """With no labels its stationary law is N(0, 1/precision), up to order rate."""
    random = np.random.default_rng(1)
    state = [w.astype(float) for w in runs._networks(random, 4, 300, scaled=True)]
    none = np.zeros(16)
    found = runs._descend(random, state, none, none, 0.02, 400, noisy=True)
    np.testing.assert_allclose([w.std() for w in found], [0.5, 0.5, 0.5, 0.5], rtol=0.08)


def test_frames_measures_and_figures() -> None:
    priors = {"net": PRIOR, "uniform": None}
    targets = {name: experiment.TARGETS[name] for name in ("constant", "parity")}
    frame = experiment.regret_frame([0, 1], priors, targets, prior_seed=1, **SHARED)
    assert len(frame) == 2 * 2 * 2 * 2
    assert list(experiment.largest_over_bound(frame).index) == [0, 1]
    gained = experiment.gap(frame, "uniform", "net", 6, ["constant"])
    assert (gained.constant > 0).all()
    relative = experiment.gap(frame, "uniform", "net", 6, ["constant"], relative=True)
    assert (relative.constant > 0).all()
    listed = experiment.several_targets(PRIOR, 1, seen=5, drawn=2)
    assert len(listed) >= 6
    many = experiment.regret_frame(
        [0, 1], {"net": PRIOR}, {str(f): f for f in listed}, prior_seed=1, **SHARED
    )
    assert experiment.rank_correlation(many, "net", 6).gt(0.0).all()
    widths = experiment.weight_frame([0], [2, 4], nets=500, scaled=False)
    assert experiment.weight_shift(widths).ge(0).all()
    ranks = experiment.rank_frame(1, {"net": PRIOR})
    growth, points = experiment.shown_regret(frame, many)
    assert len(plots.regret_panels(growth, points, ranks, widths).axes) == 4
    chains = experiment.chain_frame(
        [0, 1], {"majority": experiment.TARGETS["majority"], "drawn": -1}, n=8, delta=0.1, hidden=3,
        chains=4, rate=2e-3, steps=5, nets=500,
    )  # fmt: skip
    assert (chains.truth < chains.exact).all()
    assert (chains.effective >= 1).all()
    assert len(plots.chain_panels(chains).axes) == 2


def test_measures_of_the_claims_by_hand() -> None:
    rows = [
        (prior, target, n, seed, cost + n, 1000.0, 5.0)
        for prior, extra in (("16 units", 0.0), ("128 units", 1.0), ("uniform", 2.0))
        for target, cost in ((name, 10.0 * k + extra) for k, name in enumerate(experiment.TARGETS))
        for n in (64, 128, 256) for seed in (0, 1)
    ]  # fmt: skip
    columns = ["prior", "target", "n", "seed", "regret", "jensen", "weight"]
    frame = pd.DataFrame(rows, columns=columns)
    many = frame[frame.n == 64].assign(weight=frame.regret)
    widths = pd.DataFrame({
        "hidden": [2, 4] * 2, "seed": [0, 0, 1, 1], "target": "constant",
        "weight": [1.0, 1.5, 2.0, 1.0],
    })  # fmt: skip
    chains = pd.DataFrame({
        "target": ["majority", "drawn"], "seed": 0, "exact": [1.0, 2.0], "langevin": [1.1, 2.0],
        "langevin_one": [1.4, 2.0], "ascent": [1.3, 2.5],
    })  # fmt: skip
    found = experiment.lens_values(frame, many, many, widths, chains)
    assert found["below_bound"].tolist() == [pytest.approx(0.308)] * 2  # random, uniform, n = 256
    assert found["below_bound_early"].tolist() == [pytest.approx(0.116)] * 2
    assert found["weight_orders"].tolist() == [1.0, 1.0]
    assert found["width_is_no_cost"].tolist() == [pytest.approx(1 / 64)] * 2
    assert found["simple_beat_uniform"].tolist() == [2.0, 2.0]
    assert found["no_free_lunch"].tolist() == [-2.0, -2.0]
    assert found["regret_saturates"].tolist() == [1.0, 1.0]  # the constant, 128 to 256
    assert found["weights_free_of_width"].tolist() == [0.5, 1.0]
    expected = {"langevin_is_mixture": 0.1, "averaging_matters": 0.3, "mixture_beats_ascent": 0.3}
    for name, value in (expected | {"mixture_best_on_average": 0.5}).items():
        assert found[name].tolist() == [pytest.approx(value)]


def test_matrices_of_drawn_and_trained_networks() -> None:
    spectra = matrices.spectrum_distance([0], ["constant", "majority"], hidden=4, nets=300)
    assert spectra.set_index("target").distance["constant"] < 0.3
    run = matrices.network_spectra(None, seed=0, hidden=4, nets=300, targets=[0])
    assert run["all"].shape == (300, 4)
    names = ["constant", "majority", "parity"]
    frame = matrices.trained_frame([0, 1], names, hidden=16, nets=6, rate=0.05, steps=600)
    table = frame.groupby("target")[["solved", "beyond", "share"]].mean()
    assert table.solved.min() > 0.8
    assert table.beyond["parity"] > 0.4 > table.beyond["constant"]
    assert table.share["majority"] > 0.05 > abs(table.share["constant"])
    assert frame.groupby("seed").start.nunique().eq(1).all()  # targets share their starts
    values = matrices.spectrum_values(spectra, frame)
    assert values["majority_in_rows"].index.tolist() == [0, 1]
    assert len(plots.spectrum_panels(frame).axes) == 2
    with pytest.raises(ValueError, match="no network of seed 0 has learned 'parity'"):
        matrices.trained_frame([0], ["parity"], hidden=4, nets=2, rate=0.01, steps=1)


def test_training_without_decay_is_descent_of_the_log_loss() -> None:
    """One network against autograd on the mean labels alone, and its eigenvalues by hand."""
    given: dict[str, Any] = {"seed": 3, "target": 11_939, "hidden": 4, "nets": 2, "rate": 0.05}
    random = np.random.default_rng([3, 4, 3])
    drawn = runs._networks(random, 4, matrices.DRAWN, scaled=True)[0].astype(float)
    edge = np.quantile([np.linalg.norm(w, 2) ** 2 for w in drawn], 0.99)
    start = runs._networks(random, 4, 2, scaled=True)
    ours = [torch.from_numpy(w.astype(float)).requires_grad_() for w in start]
    x, labels = torch.from_numpy(runs.SIGNS), torch.from_numpy(runs.bits_of([11_939])[0]).double()

    def logits() -> torch.Tensor:
        first, bias, last, shift = ours
        hidden = torch.relu(torch.einsum("nhk,xk->nhx", first, x) + bias[..., None])
        return 3 * (torch.einsum("nh,nhx->nx", last, hidden) + shift[:, None])

    for _ in range(40):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits(), labels.expand(2, -1), reduction="sum"
        )
        slopes = torch.autograd.grad(loss, ours)
        with torch.no_grad():
            for w, g in zip(ours, slopes, strict=True):
                w -= 0.025 * g
    run = matrices.trained_spectra(None, steps=40, **given)
    values = np.linalg.svd(ours[0].detach().numpy(), compute_uv=False) ** 2
    np.testing.assert_array_equal(run["beyond"], (values > edge).sum(1))
    np.testing.assert_array_equal(run["solved"], ((logits() > 0) == (labels > 0.5)).all(1).numpy())
    for k, w in enumerate(ours[0].detach().numpy()):
        centred = w - w.mean()
        rows, columns = 4 * np.square(centred.mean(1)).sum(), 4 * np.square(centred.mean(0)).sum()
        share = (rows + columns) / np.square(centred).sum()
        assert run["share"][k] == pytest.approx(share - 6 / 15, abs=1e-9)
