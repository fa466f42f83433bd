"""starts.mixtures and mixture_growth: template layers, growth, frames, figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from rclib.data.images import Dataset, load
from rclib.experiments.starts import mixture_growth as experiment
from rclib.experiments.starts import mixture_growth_runs as runs
from rclib.experiments.starts import mixtures
from rclib.experiments.starts import plots_mixture_growth as plots
from rclib.spectral.random_matrix import marchenko_pastur
from rclib.spectral.spectra import esd, outliers

SIZES = (7, 12, 5)
PLAN: dict[str, Any] = {
    key: value for key, value in runs.TINY["growth_runs"].items() if key not in ("group", "rates")
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(*, norm: bool = False, k: int = 4) -> tuple[list[dict[str, Tensor]], Tensor]:
    """Two halves whose shifts and gains are not those of the start, in float64."""
    halves, inner = mixtures.construct(SIZES, k, norm=norm, seed=3)
    random = generator(5)
    for half in halves:
        for name, tensor in half.items():
            moved = tensor + 0.3 * torch.randn(tensor.shape, generator=random)
            half[name] = moved.double()
    return halves, inner.double()


@pytest.mark.parametrize("norm", [False, True])
def test_zeros_beside_the_diagonal_give_the_mean_of_the_halves(norm: bool) -> None:
    halves, inner = pair(norm=norm)
    x = torch.randn(20, SIZES[0], generator=generator(1), dtype=torch.float64)
    own = [mixtures.forward_half(half, x) for half in halves]
    whole = mixtures.grow(halves, torch.zeros_like(inner[2:]))
    assert torch.allclose(mixtures.forward_grown(whole, x), (own[0] + own[1]) / 2, atol=1e-12)
    untied = mixtures.untied(halves, None)
    assert torch.allclose(mixtures.forward_plain(untied, x), (own[0] + own[1]) / 2, atol=1e-12)
    # As the authors have it the logits are the sum; with other blocks neither holds.
    summed = mixtures.grow(halves, torch.zeros_like(inner[2:]), halved=False)
    assert torch.allclose(mixtures.forward_grown(summed, x), own[0] + own[1], atol=1e-12)
    other = mixtures.forward_grown(mixtures.grow(halves, inner[2:]), x)
    assert float((other - (own[0] + own[1]) / 2).abs().max()) > 0.01


def test_with_normalisation_a_half_is_torchs_network() -> None:
    half = pair(norm=True)[0][0]
    w = mixtures.plain(half)
    layers: list[nn.Module] = []
    for layer in (1, 2):
        linear = nn.Linear(w[f"W{layer}"].shape[1], len(w[f"W{layer}"]), bias=False).double()
        linear.weight.data = w[f"W{layer}"]
        batch = nn.BatchNorm1d(len(w[f"W{layer}"])).double()
        batch.weight.data, batch.bias.data = w[f"g{layer}"], w[f"b{layer}"]
        layers += [linear, batch, nn.ReLU()]
    last = nn.Linear(SIZES[1] // 2, SIZES[2]).double()
    last.weight.data, last.bias.data = w["W3"], w["b3"]
    x = torch.randn(20, SIZES[0], generator=generator(1), dtype=torch.float64)
    assert torch.allclose(mixtures.forward_half(half, x), nn.Sequential(*layers, last)(x))


def test_the_halves_stand_on_the_diagonal() -> None:
    halves, inner = pair()
    whole = mixtures.plain(mixtures.grow(halves, inner[2:]))
    n = SIZES[1] // 2
    for m, own in enumerate(mixtures.plain(half) for half in halves):
        place = slice(m * n, (m + 1) * n)
        assert torch.equal(whole["W1"][place], own["W1"])
        assert torch.equal(whole["W2"][place, place], own["W2"])
        assert torch.allclose(whole["W3"][:, place], own["W3"] / 2)
        assert torch.equal(whole["b1"][place], own["b1"])
    # Upper right: the first set's templates, with α2; lower left: the second set's, with α3.
    upper = torch.einsum("k,kij->ij", inner[2], halves[0]["T2"])
    lower = torch.einsum("k,kij->ij", inner[3], halves[1]["T2"])
    assert torch.allclose(whole["W2"][:n, n:], upper)
    assert torch.allclose(whole["W2"][n:, :n], lower)
    assert torch.allclose(whole["b3"], (halves[0]["b3"] + halves[1]["b3"]) / 2)


def test_gradients_are_those_of_the_chain_rule() -> None:
    """dL/dα_k = <dL/dW, T_k> and dL/dT_k = α_k dL/dW, against autograd and differences."""
    a, t = torch.randn(3, dtype=torch.float64), torch.randn(3, 4, 5, dtype=torch.float64)
    target = torch.randn(4, 5, dtype=torch.float64)

    def loss(w: Tensor) -> Tensor:
        return (w.tanh() * target).sum()

    a.requires_grad_()
    t.requires_grad_()
    w = mixtures.mixed(a, t)
    w.retain_grad()
    loss(w).backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert t.grad is not None
    assert w.grad is not None
    assert torch.allclose(a.grad, (w.grad * t.detach()).sum((1, 2)))
    assert torch.allclose(t.grad, a.detach()[:, None, None] * w.grad)
    with torch.no_grad():
        for k in range(3):
            step = torch.zeros(3, dtype=torch.float64)
            step[k] = 1e-6
            up, down = (loss(mixtures.mixed(a + sign * step, t)) for sign in (1, -1))
            assert float((up - down) / 2e-6) == pytest.approx(float(a.grad[k]), rel=1e-6)


def test_coefficients_at_construction_are_orthonormal_while_they_can() -> None:
    for k in (4, 6):
        a = mixtures.coefficients(k, members=4, generator=generator())
        assert torch.allclose(a @ a.T, torch.eye(4), atol=1e-6)
    two = mixtures.coefficients(2, members=4, generator=generator())
    assert torch.allclose(two.T @ two, torch.eye(2), atol=1e-6)
    assert bool((two.norm(dim=1) < 1).all())  # the rows are not, and shorter than one


def test_new_coefficients_are_those_of_the_authors_code() -> None:
    a = torch.randn(4, 4, generator=generator(2))

    def new(kind: str, **more: float) -> Tensor:
        return mixtures.new_coefficients(kind, a, generator=generator(7), **more)

    found = new("orthogonal")
    assert torch.equal(found[0], a[2])
    assert torch.allclose(a[:3] @ found[1], torch.zeros(3), atol=1e-5)
    assert float(found[1].norm()) == pytest.approx(1.0, abs=1e-6)
    assert float(new("orthogonal", noise=0.5)[1].norm()) == pytest.approx(0.5, abs=1e-6)
    added = new("copied") - a[:2]
    assert torch.allclose(added[0], added[1])
    assert float(added[0].norm()) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(new("copied exactly"), a[:2])
    assert torch.equal(new("zero"), torch.zeros(2, 4))
    assert bool(((new("random") >= 0) & (new("random") < 1)).all())
    assert torch.equal(new("kept"), a[2:])
    # Two templates: with three vectors before there is no orthogonal one, only the least used.
    two = torch.randn(4, 2, generator=generator(2))
    last = mixtures.new_coefficients("orthogonal", two, generator=generator())[1]
    angles = torch.linspace(0, np.pi, 2001)
    used = (two[:3] @ torch.stack([angles.cos(), angles.sin()])).square().sum(0)
    assert float((two[:3] @ last).square().sum()) <= float(used.min()) + 1e-6
    with pytest.raises(ValueError, match="kind must be"):
        new("straight")
    with pytest.raises(ValueError, match="even width"):
        mixtures.construct((7, 11, 5), 2, norm=False, seed=0)


def test_copies_of_one_half_are_net2nets_duplication() -> None:
    """Both halves the same, one set of templates: all four blocks are equal, and with the middle
    matrix halved (its inputs are doubled) the function is that of the half, as in Net2Net."""
    half = pair()[0][0]
    whole = mixtures.grow([half, half], torch.stack([half["a2"]] * 2))
    w, own = mixtures.plain(whole)["W2"], mixtures.plain(half)["W2"]
    assert torch.allclose(w, own.repeat(2, 2))
    whole["a2"] = whole["a2"] / 2
    x = torch.randn(20, SIZES[0], generator=generator(1), dtype=torch.float64)
    assert torch.allclose(mixtures.forward_grown(whole, x), mixtures.forward_half(half, x))


def test_copied_exactly_repeats_the_blocks() -> None:
    halves, inner = pair()
    a = torch.cat([torch.stack([half["a2"] for half in halves]), inner[2:]])
    new = mixtures.new_coefficients("copied exactly", a, generator=generator())
    w = mixtures.plain(mixtures.grow(halves, new))["W2"]
    n = len(w) // 2
    assert torch.allclose(w[:, :n][:n], w[:, n:][:n])
    assert torch.allclose(w[:, :n][n:], w[:, n:][n:])
    assert torch.linalg.matrix_rank(w) == n


def test_a_mixture_of_unit_length_has_the_law_of_one_template() -> None:
    """The bulk of Marchenko and Pastur, no spike, whatever the number of templates."""
    for k in (1, 4):
        a = torch.randn(k, generator=generator(k))
        t = torch.randn(k, 200, 200, generator=generator(10 + k))
        values = esd(mixtures.mixed(a / a.norm(), t) / 200**0.5)
        law = marchenko_pastur(1.0, 1.0)
        assert outliers(values, rows=200).count == 0
        places = np.quantile(values, [0.25, 0.5, 0.75])
        assert np.abs(law.cdf(places) - [0.25, 0.5, 0.75]).max() < 0.02
    # Without the length of one the edge moves by |α|².
    wide = outliers(esd(2 * mixtures.mixed(a / a.norm(), t)), rows=200).edge
    assert wide == pytest.approx(4 * outliers(esd(mixtures.mixed(a / a.norm(), t)), rows=200).edge)


def test_other_starts() -> None:
    halves, _ = pair(norm=True)
    whole = {n: t.double() for n, t in mixtures.scratch(SIZES, norm=True, seed=1).items()}
    n, own = SIZES[1] // 2, mixtures.plain(halves[0])
    random = mixtures.untied(halves, whole)["W2"]
    assert torch.equal(random[:n, n:], whole["W2"][:n, n:])
    assert torch.equal(random[:n, :n], own["W2"])
    one = mixtures.one_half(halves[0], whole)
    assert torch.equal(one["W2"][:n, :n], own["W2"])
    assert torch.equal(one["W2"][n:], whole["W2"][n:])
    assert torch.equal(one["W3"][:, :n], own["W3"])
    assert torch.equal(one["b3"], own["b3"])
    mixed = mixtures.permuted(halves[0], generator=generator())
    assert not torch.equal(mixed["T2"], halves[0]["T2"])
    assert torch.equal(mixed["T2"].flatten(1).sort()[0], halves[0]["T2"].flatten(1).sort()[0])
    # RC sampling: every row of the new matrix is one of the old, columns drawn and rescaled.
    drawn = mixtures.sampled(halves[0], SIZES[1], seed=0)
    assert {name: t.shape for name, t in drawn.items()} == {n: t.shape for n, t in whole.items()}
    for row in drawn["W1"]:
        assert bool((own["W1"] == row).all(1).any())


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits").subset(80, 30)


def test_runs_learn_and_measure() -> None:
    given = {**runs.TINY["growth_runs"], "norm": False, "before": 60, "after": 10}
    given |= {"at": [0, 5, 10], "n_train": 380, "width": 32}
    found = runs.growth_runs(load("digits").subset(400, 100), **given)
    assert (found["half_loss"][:, :, -1] < 0.5 * found["half_loss"][:, :, 0]).all()
    order = [*runs.TIED, *runs.UNTIED]
    zero, ensemble = order.index("zero"), order.index("ensemble")
    # At growth both are the mean of the halves; scratch and untrained know nothing.
    assert found["loss"][:, zero, 0] == pytest.approx(found["loss"][:, ensemble, 0], rel=1e-5)
    assert (found["loss"][:, order.index("scratch"), 0] > found["loss"][:, zero, 0]).all()
    assert (found["moved"] > 0).all()
    assert ((found["explained"] > 0) & (found["explained"] < 1)).all()
    exact = found["rows"][:, order.index("copied exactly"), 0]
    assert exact == pytest.approx(np.ones_like(exact), abs=1e-5)
    assert (found["rows"][:, ensemble, 0] == 0).all()
    n = 16
    assert (found["matrices"][:, order.index("zero")][:, :n, n:] == 0).all()


def test_frames_count_compute(digits: Dataset) -> None:
    rates = runs.TINY["growth_runs"]["rates"]
    found = experiment.runs_of(digits, [0, 1, 2], rates, **PLAN)
    curves = experiment.curve_frame(digits, found, [0, 1, 2], rates, PLAN)
    full, half = (runs.entries(64, w, 10) for w in (8, 4))
    assert (full, half) == (64 * 8 + 64 + 80, 64 * 4 + 16 + 40)
    spent = curves.groupby("arm").compute.agg(["min", "max"])
    cost = 5 * half / full
    assert spent.loc["orthogonal", "max"] == pytest.approx(2 * cost + 5)
    assert spent.loc["one half", "max"] == pytest.approx(cost + 5)
    assert spent.loc["scratch", "max"] == 5
    for arm in runs.LONG:  # to the nearest step
        assert spent.loc[arm, "max"] == pytest.approx(2 * cost + 5, abs=0.51)
    gained = experiment.gain(curves, "orthogonal", "scratch", step=2)
    accuracy = curves[curves.step == 2].set_index(["arm", "seed"]).accuracy
    assert gained[1] == accuracy["orthogonal"][1] - accuracy["scratch"][1]
    gap = experiment.start_gap(curves, ["orthogonal", "copied"], "zero")
    losses = curves[curves.step == 0].set_index(["arm", "seed"]).loss
    assert gap[2] == min(losses["orthogonal"][2], losses["copied"][2]) - losses["zero"][2]
    ends = experiment.end_frame(found, [0, 1, 2], rates)
    numbers = experiment.three_numbers(curves, ends).set_index(["arm", "seed"])
    last = curves.groupby(["arm", "seed"]).last().loss
    assert numbers.gained["zero", 0] == pytest.approx((last["scratch", 0] - last["zero", 0]) / 5)
    assert (numbers.gained["scratch"] == 0).all()
    table = experiment.summary(curves, ends, rates)
    assert len(table) == len(experiment.ARMS) + len(runs.LONG)
    order = ["orthogonal", "zero", "scratch"]
    matrices = experiment.start_matrices(found[0], rates)
    assert len(plots.growth_panels(curves, matrices, order).axes) == 4
    halves = experiment.half_spikes(found, [0, 1, 2])
    chance = experiment.at_chance(48)
    assert len(plots.link_panels(ends, numbers.reset_index(), chance, halves.mean()).axes) == 4
    assert list(experiment.means_frame(found, n=4)["with"]) == ["shifts", "next matrix"]


def test_chance_is_that_of_independent_rows() -> None:
    random = np.random.default_rng(0)
    pairs = random.standard_normal((4000, 2, 48))
    found = [abs(np.corrcoef(a, b)[0, 1]) for a, b in pairs]
    assert np.mean(found) == pytest.approx(experiment.at_chance(48), abs=0.004)


def test_rates_are_the_best_on_the_validation_set(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(experiment.chosen_rates(digits, [], [0.3], **PLAN).values()) == {0.3}
    names = (*experiment.ARMS, *runs.LONG)

    def scored(_: Dataset, seeds: list[int], rates: dict[str, float], **plan: Any) -> list[Any]:
        rate = rates["zero"]
        return [{"valid": np.array([-abs(rate - 0.1 * (i % 2)) for i in range(len(names))])}]

    monkeypatch.setattr(experiment, "runs_of", scored)
    found = experiment.chosen_rates(digits, [0], [0.1, 0.01, 0.05], **PLAN)
    assert [found[name] for name in names] == [[0.01, 0.1][i % 2] for i in range(len(names))]


def test_other_settings_are_compared(digits: Dataset) -> None:
    rates = runs.TINY["growth_runs"]["rates"]
    frame = experiment.settings_frame(
        digits, [0, 1], {"two templates": {"templates": 2, "norm": False}}, rates, **PLAN
    )
    assert set(frame.setting) == {"two templates"}
    assert len(frame) == 2 * 7 + 1
    assert isinstance(frame, pd.DataFrame)
    assert np.isfinite(frame.gain).all()


def test_pooling_averages_squares_of_each_channel() -> None:
    x = torch.arange(2 * 3 * 16, dtype=torch.float32).view(2, 48)
    found = runs._pooled(x, 2).view(2, 3, 2, 2)
    assert float(found[0, 1, 0, 1]) == float(x[0].view(3, 4, 4)[1, :2, 2:].mean())
    assert torch.equal(runs._pooled(x, 1), x)
