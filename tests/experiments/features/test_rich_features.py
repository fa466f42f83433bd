"""features.rich_*: coloured samples, penalties and rounds of notebook 75 against other routes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from rclib.data.images import Dataset
from rclib.experiments.features import plots_rich as plots
from rclib.experiments.features import rich_data as data
from rclib.experiments.features import rich_features as experiment
from rclib.experiments.features import rich_nets as nets
from rclib.experiments.features import rich_runs as runs

SOURCE = {"kind": "prototypes", "count": 6, "d": 8}
SETTINGS: dict[str, Any] = {
    "source": SOURCE, "noise": 0.25, "flips": [0.1, 0.2], "tests": [0.9, 0.1, 0.5], "n": 60,
    "n_test": 40, "hidden": 5, "decay": 1e-3, "rate": 5e-3, "head_rate": 1e-2, "at": [0, 2],
    "steps": {"ERM": 2, "discovery": 3, "synthesis": 3, "whole": 3, "head": 4},
}  # fmt: skip


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def coloured(**changed: Any) -> data.Coloured:
    given = {"noise": 0.25, "flips": [0.1, 0.2], "tests": [0.9, 0.1, 0.5], "n": 200, "n_test": 80}
    return data.coloured(None, SOURCE, seed=3, **{**given, **changed})


def colour_of(x: Tensor) -> Tensor:
    """The channel that is not zero."""
    half = x.shape[-1] // 2
    return (x[..., half:].sum(-1) > x[..., :half].sum(-1)).to(x.dtype)


# --- data ------------------------------------------------------------------------------------


def test_exactly_the_share_is_flipped() -> None:
    labels = torch.tensor([0.0, 1.0] * 50)
    for share in (0.0, 0.13, 1.0):
        out = data.flipped(labels, share, torch.Generator().manual_seed(1))
        assert int((out != labels).sum()) == round(100 * share)


def test_rules_have_their_accuracies() -> None:
    """The colour is right in 1 - e of the samples of each environment, the shape in 1 - noise."""
    own = coloured()
    for x, y, shares in (
        (own.x, own.y, [0.1, 0.2]),
        (own.same, own.y, [0.15, 0.15]),
        (own.plain, own.y, [0.5, 0.5]),
        (own.test_x, own.test_y, [0.9, 0.1, 0.5]),
    ):
        right = (colour_of(x) == y).double().mean(-1)
        assert right.tolist() == pytest.approx([1 - e for e in shares])
    clean = coloured(noise=0.0)  # the same shapes: the draw of the shapes comes first
    assert (own.y != clean.y).double().mean(-1).tolist() == [0.25, 0.25]


def test_the_other_channel_is_empty_and_shapes_are_the_same() -> None:
    own = coloured()
    half = own.x.shape[-1] // 2
    parts = own.x[..., :half], own.x[..., half:]
    assert float((parts[0] * parts[1]).abs().max()) == 0.0
    for other in (own.plain, own.same):
        assert torch.equal(parts[0] + parts[1], other[..., :half] + other[..., half:])


def test_images_are_grey_squares_with_two_labels() -> None:
    grey = torch.rand(20, 64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20) % 10
    digits = Dataset("digits", "random", grey, y, grey, y, 10, "sum")
    shape, label = data.shapes(
        digits, {"kind": "images", "pool": 2}, 20, torch.Generator().manual_seed(4)
    )
    order = torch.randperm(20, generator=torch.Generator().manual_seed(4))
    small = grey[order].view(20, 4, 2, 4, 2).mean((2, 4)).flatten(1)
    torch.testing.assert_close(shape, (small - small.min()) / (small.max() - small.min()))
    assert torch.equal(label, (y[order] < 5).long())
    colours = torch.rand(20, 3 * 16, generator=torch.Generator().manual_seed(1))
    cifar = Dataset("cifar10", "random", colours, y, colours, y, 10, "sum")
    shape, label = data.shapes(
        cifar, {"kind": "images", "pool": 1}, 20, torch.Generator().manual_seed(4)
    )
    assert shape.shape == (20, 16)
    assert set(y[order][label == 0].tolist()) == {0, 1, 8, 9}
    for given in (None, digits):
        with pytest.raises(ValueError, match="data must hold the 21 images"):
            data.shapes(given, {"kind": "images", "pool": 2}, 21, torch.Generator())
    with pytest.raises(ValueError, match="kind must be one of"):
        data.shapes(None, {"kind": "other"}, 2, torch.Generator())


# --- penalties -------------------------------------------------------------------------------


def test_irm_is_the_gradient_at_scale_one() -> None:
    logits, y = drawn(2, 30), (drawn(2, 30, seed=1) > 0).double()
    found = []
    for f, truth in zip(logits, y, strict=True):
        scale = torch.ones((), dtype=torch.double, requires_grad=True)
        (slope,) = torch.autograd.grad(cross_entropy(scale * f, truth), scale)
        found.append(float(slope) ** 2)
    assert float(nets.irm(logits, y)) == pytest.approx(np.mean(found), rel=1e-12)
    assert float(nets.irm(torch.zeros(2, 30), y)) == 0.0  # the trivial minimum


def test_vrex_of_two_environments() -> None:
    losses = torch.tensor([0.3, 0.7])
    assert float(nets.vrex(losses)) == pytest.approx((0.3 - 0.7) ** 2 / 2)


@pytest.mark.parametrize(("penalty", "strength"), [("none", 0.0), ("vREx", 50.0), ("IRMv1", 0.5)])
def test_objective_by_hand(penalty: str, strength: float) -> None:
    logits, y = drawn(2, 30), (drawn(2, 30, seed=1) > 0).double()
    losses = [cross_entropy(f, truth) for f, truth in zip(logits, y, strict=True)]
    of = {"none": 0.0, "vREx": (losses[0] - losses[1]) ** 2 / 2, "IRMv1": nets.irm(logits, y)}
    by_hand = ((losses[0] + losses[1]) / 2 + strength * of[penalty]) / max(1.0, strength)
    found = nets.objective(logits.view(-1, 1), nets.targets(y, penalty, strength).double())
    assert float(found) == pytest.approx(float(by_hand), rel=1e-12)


def test_unknown_penalties_are_refused() -> None:
    with pytest.raises(ValueError, match="penalty must be one of"):
        nets.targets(torch.zeros(2, 3), "other", 1.0)


def test_a_strong_penalty_ignores_the_colour() -> None:
    """With the two exact rules as features, logit = a · shape + b · colour: without a penalty the
    colour gets the larger weight, and with a strong vREx next to none."""
    # Shares of (shape right, colour right) in an environment with e, independent given the label.
    cases = [(s, c) for s in (1, -1) for c in (1, -1)]

    def loss(w: np.ndarray[Any, Any], e: float) -> float:
        shares = [(0.75 if s > 0 else 0.25) * (1 - e if c > 0 else e) for s, c in cases]
        margins = [w[0] * s + w[1] * c for s, c in cases]
        return float(np.dot(shares, np.logaddexp(0.0, -np.array(margins))))

    def total(w: np.ndarray[Any, Any], strength: float) -> float:
        one, two = loss(w, 0.1), loss(w, 0.2)
        losses = torch.tensor([one, two], dtype=torch.double)
        return (one + two) / 2 + strength * float(nets.vrex(losses))

    free = minimize(total, [0.1, 0.1], args=(0.0,), method="Nelder-Mead").x
    strong = minimize(total, [1.0, 0.5], args=(1e5,), method="Nelder-Mead").x
    assert free[1] == pytest.approx(np.log(0.85 / 0.15), abs=0.05)
    assert free[1] > free[0]
    assert abs(strong[1]) < 0.02 * strong[0]
    assert strong[0] == pytest.approx(np.log(3.0), abs=0.05)  # log-odds of the shape alone


def test_discovery_takes_the_worse_group() -> None:
    logits, y = drawn(40, 1), (drawn(40, seed=1) > 0).double()
    right = (drawn(40, seed=2) > 0).double()
    each = [float(cross_entropy(logits[right == k, 0], y[right == k])) for k in (0.0, 1.0)]
    found = nets.discovery_loss(logits, torch.stack([y, right], 1))
    assert float(found) == pytest.approx(max(each), rel=1e-12)


def test_what_was_found_is_no_use_for_the_next_round() -> None:
    """A rule that is right in one group and wrong in the other has a loss of log 2 at least."""
    y = torch.tensor([0.0, 1.0]).double().repeat(50)
    right = (torch.arange(100) % 5 > 0).double()
    rule = torch.where(right > 0, 2 * y - 1, 1 - 2 * y)
    given = torch.stack([y, right], 1)
    losses = [float(nets.discovery_loss(s * rule[:, None], given)) for s in (-3, -1, 0, 1, 3)]
    assert min(losses) == pytest.approx(np.log(2.0))
    assert losses[2] == min(losses)


def test_half_of_a_batch_is_of_disagreeing_samples() -> None:
    y = torch.tensor([0.0, 1.0] * 20)
    predicted = torch.stack([y, torch.where(torch.arange(40) < 30, y, 1 - y)], 1)
    x = torch.arange(40.0)[:, None]
    batch = nets.synthesis_batches(x, predicted, y, seed=0)
    (rows, labels), (later, _) = batch(0), batch(1)
    assert rows.shape == (1, 40, 1)
    assert int((rows >= 30).sum()) == 20  # ten of forty samples, half of the batch
    assert torch.equal(labels[0], predicted[rows[0, :, 0].long()])
    assert not torch.equal(rows, later)
    alike = nets.synthesis_batches(x, predicted[:, :1].repeat(1, 2), y, seed=0)(0)[0]
    assert alike.shape == (1, 40, 1)


def test_synthesis_sums_over_heads() -> None:
    logits, labels = drawn(20, 2), (drawn(20, 2, seed=1) > 0).double()
    by_hand = sum(float(cross_entropy(logits[:, k], labels[:, k])) for k in (0, 1))
    assert float(nets.synthesis_loss(logits, labels)) == pytest.approx(by_hand, rel=1e-12)


# --- training --------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 200.0])
def test_training_is_torchs_with_all_of_the_objective_divided(strength: float) -> None:
    own = coloured(n=40)
    x, given = own.x.flatten(0, 1), nets.targets(own.y, "vREx", strength)
    net = nets.Net(16, 5, seed=2)
    found, _ = nets.trained(
        [net], x[None], given[None], nets.objective, steps=4, rate=0.01, decay=0.05,
        strengths=[strength],
    )  # fmt: skip
    plain = nets.Net(16, 5, seed=2)
    adam = torch.optim.Adam(plain.parameters(), lr=0.01)
    for _ in range(4):
        adam.zero_grad()
        size = sum(w.square().sum() for w in plain.parameters())
        (nets.objective(plain(x), given) + 0.05 * size / max(1.0, strength)).backward()
        adam.step()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(found.tensors[name][0], tensor, rtol=1e-4, atol=1e-5)


def test_the_mean_head() -> None:
    two = nets.Net(16, 5, heads=2, seed=1)
    x = drawn(7, 16).float()
    one = nets.with_mean_head(nets.stack([two]), 16, 5)
    torch.testing.assert_close(one(x)[:, 0], two(x).mean(1))
    assert torch.equal(nets.member(nets.stack([one]), 0, 16, 5)(x), one(x))


def test_a_head_on_features_is_the_network() -> None:
    net, x = nets.Net(16, 5, seed=1), drawn(7, 16).float()
    head = nets.Head(net.get_parameter("W3"), net.get_parameter("B3"))
    torch.testing.assert_close(head(net.features(x)), net(x))


def test_first_layer_of_a_colour_and_of_a_shape() -> None:
    """Neurons that see one channel less the other, and neurons that see their sum."""
    net, gains = nets.Net(8, 5), torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])
    half = torch.ones(4)
    for sign, contrast in ((-1.0, 1.0), (1.0, 0.0)):
        row = torch.cat([half, sign * half])
        with torch.no_grad():
            net.get_parameter("W1").copy_(gains[:, None] * row)
        found = runs.first_layer(net)
        assert found == pytest.approx((contrast, sign, 1.0), abs=1e-6)


def test_rounds_split_by_the_first_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of the second round: model 0 is right on all of one and on none of the other."""
    seen: dict[str, Tensor] = {}
    real = runs.trained

    def watched(models: Any, x: Tensor, given: Tensor, loss: Any, **options: Any) -> Any:
        seen[loss.__name__] = given[0]
        return real(models, x, given, loss, **options)

    monkeypatch.setattr(runs, "trained", watched)
    own = coloured()
    steps = {"ERM": 20, "discovery": 3, "synthesis": 3}
    found = runs.rounds(own, seed=0, hidden=5, steps=steps, rate=5e-3, decay=1e-3)
    assert list(found) == list(runs.NETWORKS)
    predicted = (found["model 0"](own.x.flatten(0, 1))[:, 0] > 0).float()
    y, right = seen["discovery_loss"].T
    assert torch.equal(y, own.y.flatten())
    assert torch.equal(right, (predicted == y).float())
    assert torch.equal(seen["synthesis_loss"][:, 0], predicted)


@pytest.mark.slow
def test_a_network_learns_the_colour_and_the_second_round_the_shape() -> None:
    own = coloured(n=600, n_test=600)
    steps = {"ERM": 40, "discovery": 110, "synthesis": 110}
    found = runs.rounds(own, seed=1, hidden=32, steps=steps, rate=5e-3, decay=1e-3)
    right = {
        name: ((net(own.test_x[0])[:, 0] > 0) == (own.test_y[0] > 0.5)).double().mean().item()
        for name, net in found.items()
    }
    assert right["model 0"] < 0.3
    assert right["model 1"] > right["model 0"] + 0.2


# --- runs and frames -------------------------------------------------------------------------


def test_arms_of_a_run_are_those_alone() -> None:
    """Arms share a stack, and none sees the others; only kept features count."""
    whole = [["start", "vREx", 100.0, 0], ["oracle", "none", 0.0, 0], ["ERM 2", "vREx", 100.0, 0]]
    heads = [["RFC", "IRMv1", 10.0, 0], ["RFC, same", "vREx", 10.0, 0], ["start", "vREx", 10.0, 2]]
    both = runs.rich_runs(None, seed=4, **SETTINGS, whole=whole, heads=heads)
    assert both["networks"].shape == (4, 3)
    assert both["layers"].shape == (4, 3)
    assert both["whole"].shape == (3, 3, 3)
    for k in range(3):
        alone = runs.rich_runs(None, seed=4, **SETTINGS, whole=[whole[k]], heads=[heads[k]])
        np.testing.assert_array_equal(alone["whole"][0], both["whole"][k])
        np.testing.assert_array_equal(alone["heads"][0], both["heads"][k])
    assert "heads" not in runs.rich_runs(None, seed=4, **SETTINGS, whole=[], heads=[])


def test_frames_and_figures() -> None:
    top = 1e4
    given = experiment.arms([100.0, 1000.0, top], ["start", "ERM 1"], [2])
    settings = {**SETTINGS, **given}
    main = experiment.task_of(None, [0, 1], settings)
    few = experiment.task_of(None, [5, 6], {**SETTINGS, **experiment.few_arms(top)})
    run = runs.rich_runs(None, seed=1, **settings)
    place = given["heads"].index(["RFC", "vREx", top, 0])
    worst = experiment.last(main.heads, "RFC", "vREx", top)
    assert list(worst.index) == [0, 1]
    assert worst[1] == run["heads"][place, -1].min()
    reversed_ = experiment.last(main.whole, "start", what="e = 0.9")
    assert reversed_[1] == run["whole"][0, -1, 0]
    contrast = experiment.of_network(main.networks, "model 1", "contrast")
    assert contrast[1] == run["layers"][2, 0]
    with pytest.raises(ValueError, match="arm must be one of"):
        experiment.last(main.heads, "RFC", "vREx", 7.0)

    excess = experiment.excess(main.heads, main.whole, SETTINGS["hidden"])
    assert sorted(set(excess.features)) == [2, 5]
    own = excess[(excess.network == "RFC") & (excess.features == 5)].set_index("seed").excess
    pd.testing.assert_series_equal(
        own, experiment.last(main.whole, "oracle") - worst, check_names=False
    )
    tasks = {"coloured": main, "inverse": few}
    table = experiment.network_table(tasks)
    assert len(table) == 2 * len(runs.NETWORKS)
    arms = experiment.arm_table(tasks)
    assert len(arms) == sum(map(len, given.values())) + 8
    keys = ["task", "part", "network", "penalty", "strength", "k"]
    row = arms.set_index(keys).loc[("coloured", "heads", "RFC", "vREx", top, 0)]
    assert row.spread == pytest.approx(worst.std(), abs=1e-3)

    frames = experiment.panels(main, top)
    assert set(frames["curves"].arm) == set(experiment.CURVES)
    assert sorted(set(frames["strengths"].strength)) == [0.0, 100.0, 1000.0, top]
    figure = plots.accuracy_panels(**frames, oracle=0.7, published=0.7)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(
        experiment.NAMES.values()
    )
    dots = experiment.dots(tasks, top, ["start", "ERM 1"])
    figure = plots.feature_panels(main.networks, excess, dots, guides=[0.2])
    names = [text.get_text() for text in figure.axes[2].get_yticklabels()]
    assert names[0] == "RFC (cf)"
    assert names[-1] == "inverse: oracle"


def test_ratio_of_spreads_is_that_of_the_samples_and_covers() -> None:
    rng = np.random.RandomState(0)
    hits = 0
    for _ in range(400):
        one, other = (pd.Series(rng.standard_normal(12) * s) for s in (2.0, 1.0))
        value, low, high = experiment.spread_ratio(one, other)(10, 0.05)
        assert value == pytest.approx(one[:10].std() / other[:10].std())
        hits += low <= 2.0 <= high
    assert abs(hits / 400 - 0.95) < 0.044  # four standard errors


@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        (nets.objective, nets.objective_slope),
        (nets.discovery_loss, nets.discovery_slope),
        (nets.synthesis_loss, nets.synthesis_slope),
    ],
)
def test_written_slopes_are_those_of_autograd(loss: Any, slope: Any) -> None:
    """Each of three members against its own loss alone."""
    heads = 2 if loss is nets.synthesis_loss else 1
    logits, y = drawn(3, 40, heads), (drawn(3, 40, heads, seed=1) > 0).double()
    given = y
    if loss is nets.discovery_loss:
        given = torch.cat([y, (drawn(3, 40, 1, seed=2) > 0).double()], 2)
    if loss is nets.objective:
        arms = [("none", 0.0), ("vREx", 50.0), ("IRMv1", 0.5)]
        given = torch.stack([
            nets.targets(part.view(2, 20), *arm).double() for part, arm in zip(y, arms, strict=True)
        ])  # fmt: skip
    values, slopes = slope(logits, given)
    for s in range(3):
        alone = logits[s].clone().requires_grad_()
        value = loss(alone, given[s])
        (expected,) = torch.autograd.grad(value, alone)
        torch.testing.assert_close(values[s], value.detach(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(slopes[s], expected, rtol=1e-10, atol=1e-14)
