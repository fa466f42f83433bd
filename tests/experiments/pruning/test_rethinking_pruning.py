"""pruning.rethinking_*: the arms, the stored runs, the frames and the figures of notebook 41."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset, load
from rclib.experiments.pruning import plots_rethinking as plots
from rclib.experiments.pruning import rethinking_arms as arms
from rclib.experiments.pruning import rethinking_conv as conv
from rclib.experiments.pruning import rethinking_pruning as experiment
from rclib.experiments.pruning import rethinking_runs as runs
from rclib.experiments.pruning import rethinking_slimming as slimming
from rclib.experiments.pruning import rethinking_tickets as tickets
from rclib.experiments.pruning.lottery_runs import drawn_elsewhere, starts_of
from rclib.nets.masks import share_left
from rclib.nets.units import largest_units_together, unit_masks
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_orders
from rclib.training.validation import accuracy

PLAN = {**arms.PLAN, "steps": 12, "rate": 0.1, "batch_size": 200, "decay": 1e-3}
CONFIG: dict[str, Any] = {
    "pool": 1, "widths": [20, 10], "plan": PLAN, "keeps": [0.5, 0.2], "shares": [0.3],
    "arms": {"units": list(arms.ARMS), "weights": ["fine_tuned", "scratch_e", "scratch_b"]},
    "cap": 8.0, "mask_cap": 2.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[int, Arrays]:
    run = runs.pruned(load("digits"), group=[{"seed": 3}, {"seed": 4}, {"seed": 5}], **CONFIG)
    return {seed: {n: a[k] for n, a in run.items()} for k, seed in enumerate((3, 4, 5))}


def pictures(n: int = 60, side: int = 8) -> Dataset:
    """Colour images of noise; "cifar10" is how experiments know that there are three colours."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3 * side * side, generator=generator)
    y = torch.arange(n) % 10
    return Dataset("cifar10", "noise", x, y, x[:20], y[:20], 10, "0")


# --- the arms ------------------------------------------------------------------------------


def test_schedules_are_those_of_torch() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [int(0.5 * 17), int(0.75 * 17)])
    rates = []
    for _ in range(17):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    made = arms.factors(20, 17, "schedule", [0.5, 0.75], 0.01)
    np.testing.assert_allclose(made, [*rates, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(arms.factors(4, 3, "low", [0.5], 0.01), [0.01] * 3 + [0.0])


def test_scratch_b_costs_what_the_large_network_does() -> None:
    """By hand: 64-100-50-10 has 11,900 products, 64-50-25-10 has 4,700, of ratio 2.53."""
    left = torch.tensor([4700 / 11900])
    assert runs.steps_of(300, left, 8.0) == [759]
    assert runs.steps_of(300, left, 2.0) == [600]
    start = starts_of({"widths": [100, 50]}, [0], 64, 10)
    assert runs._Units(start, start, [0], 0.5).left().tolist() == pytest.approx(left.tolist())


def by_hand(start: dict[str, torch.Tensor], seed: int, steps: int, rates: list[float]) -> float:
    """Test accuracy of one network of plain torch under SGD with momentum and these rates."""
    data = load("digits")
    sizes = [64, *(start[f"W{k}"].shape[0] for k in (1, 2, 3))]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    for k, layer in enumerate(layers, start=1):
        layer.weight.data.copy_(start[f"W{k}"])
        layer.bias.data.copy_(start[f"B{k}"])
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    order = epoch_orders(len(data.y_train), 200, [seed])
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for step in range(steps):
        sgd.param_groups[0]["lr"] = 0.1 * rates[step]
        sgd.zero_grad()
        places = order(step)[0]
        cross_entropy(net(data.x_train[places]), data.y_train[places]).backward()
        sgd.step()
    for k, layer in enumerate(layers, start=1):
        start[f"W{k}"], start[f"B{k}"] = layer.weight.detach(), layer.bias.detach()
    return float((net(data.x_test).argmax(1) == data.y_test).double().mean())


def test_a_seed_is_that_of_plain_torch(found: dict[int, Arrays]) -> None:
    """The large network, its units by L1 norm, fine-tuned, rewound, and Scratch-B of half."""
    seed, run = 4, found[4]
    full = [1.0] * 6 + [0.1] * 3 + [0.01] * 3
    large = dict(starts_of({"widths": [20, 10]}, [seed], 64, 10).member(0))

    def near(value: float) -> Any:
        return pytest.approx(value, abs=2.5 / 360)

    assert run["dense"] == near(by_hand(large, seed, 12, full))
    units = [
        large[f"W{k}"].abs().sum(1).topk(n).indices.sort().values for k, n in ((1, 10), (2, 5))
    ]
    first, second = units
    small = {
        "W1": large["W1"][first], "B1": large["B1"][first], "W2": large["W2"][second][:, first],
        "B2": large["B2"][second], "W3": large["W3"][:, second], "B3": large["B3"],
    }  # fmt: skip
    cut = by_hand(dict(small), seed, 0, [])
    assert run["units_cut"][0] == near(cut)
    tuned = by_hand(dict(small), seed, 3, [0.01] * 3)
    assert run["units_fine_tuned"][0] == near(tuned)
    assert run["units_rewound"][0] == near(by_hand(dict(small), seed, 12, full))
    fresh = dict(starts_of({"widths": [10, 5]}, [drawn_elsewhere(seed, 1)], 64, 10).member(0))
    left = (64 * 10 + 10 * 5 + 5 * 10) / (64 * 20 + 20 * 10 + 10 * 10)
    assert run["units_left"][0] == pytest.approx(left)
    steps = int(12 / left)
    rates = list(arms.factors(steps, steps, "schedule", [0.5, 0.75], 0.01))
    assert run["units_scratch_b"][0] == near(by_hand(fresh, seed, steps, rates))


def test_all_units_and_no_step_are_the_large_network() -> None:
    plan = {**PLAN, "steps": 3}  # a quarter of them is none
    config = {**CONFIG, "keeps": [1.0], "shares": [], "plan": plan}
    config["arms"] = {"units": ["fine_tuned", "long"], "weights": []}
    run = runs.pruned(load("digits"), group=[{"seed": 3}], **config)
    assert run["units_left"][0, 0] == 1.0
    assert run["units_cut"][0, 0] == run["units_fine_tuned"][0, 0] == run["dense"][0]


def test_fresh_arms_know_nothing_of_the_large_network() -> None:
    """The control: for widths that are fixed beforehand, Scratch-E of what the L1 norm kept and of
    what was drawn are one number."""
    task = arms.Task.of(load("digits"), 1, PLAN)
    start = starts_of({"widths": [20, 10]}, [3, 4], 64, 10)
    other = replace(start, tensors={n: t.flip(1) * 2 for n, t in start.tensors.items()})
    ends = []
    for dense in (start, other):
        units = runs._Units(start, dense, [3, 4], 0.5)
        end = arms.train_arms(task, ["scratch_e"], units.starts, [3, 4], [12, 12])["scratch_e"]
        ends.append(accuracy(end, task.x_test, task.y_test))
        assert not torch.equal(units.starts["inherited"].tensors["W1"], start.tensors["W1"][:, :10])
    assert torch.equal(*ends)
    with pytest.raises(ValueError, match="arms must be one of"):
        arms.train_arms(task, ["other"], units.starts, [3, 4], [12, 12])


def test_sparse_networks_keep_their_zeros_and_their_scale() -> None:
    start = starts_of({"widths": [40, 20]}, [3, 4], 64, 10)
    masks, starts = runs._weights(start, start, [3, 4], 0.3)
    left = share_left(masks["inherited"])
    assert left.tolist() == pytest.approx([0.3, 0.3], abs=1e-3)
    kept = torch.cat([start.tensors[n].abs()[0][masks["inherited"][n][0]] for n in ("W1", "W2")])
    gone = torch.cat([start.tensors[n].abs()[0][~masks["inherited"][n][0]] for n in ("W1", "W2")])
    assert float(kept.min()) >= float(gone.max())  # over all layers together
    for source, other in starts.items():
        for name, mask in masks[source].items():
            assert not other.tensors[name][~mask].any(), source
            assert torch.equal(mask.flatten(1).sum(1), masks["inherited"][name].flatten(1).sum(1))
    # The sum of squares of a fresh layer is that of a dense one, on average.
    fresh = starts_of({"widths": [40, 20]}, [drawn_elsewhere(s, 1) for s in (3, 4)], 64, 10)
    ratio = starts["fresh"].tensors["W1"].square().sum() / fresh.tensors["W1"].square().sum()
    assert float(ratio) == pytest.approx(1.0, abs=0.1)
    task = arms.Task.of(load("digits"), 1, {**PLAN, "steps": 4})
    ends = arms.train_arms(task, list(arms.ARMS), starts, [3, 4], [5, 5], masks)
    for arm, end in ends.items():
        mask = masks[arms.ARMS[arm].source]["W2"]
        assert not end.tensors["W2"][~mask].any(), arm
        assert end.tensors["W2"][mask].ne(starts[arms.ARMS[arm].source].tensors["W2"][mask]).any()


def test_chance_is_that_of_shuffled_vectors() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((3, 30))
    vectors[1] = vectors[0]  # a correlation of one, which shuffling takes away
    value = runs._shuffled_largest(vectors, np.random.default_rng(1))
    rows = np.random.default_rng(2).standard_normal((4000, 3, 30))
    each = [np.abs(np.corrcoef(row)[np.triu_indices(3, 1)]).max() for row in rows]
    assert value == pytest.approx(np.mean(each), abs=0.03)
    assert np.mean(each) == pytest.approx(0.25, abs=0.02)


# --- tickets -------------------------------------------------------------------------------


def test_tickets_with_a_fresh_start_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs between a ticket and a fresh start is the start alone."""
    monkeypatch.setattr(
        tickets, "drawn_elsewhere", lambda s, k: s if k == 1 else drawn_elsewhere(s, k)
    )
    config = {**tickets.TINY["tickets_by_rate"], "widths": [20, 10], "plan": PLAN, "share": 0.59}
    config["group"] = [{"seed": 3, "rate": 0.02}, {"seed": 3, "rate": 0.1}]
    run = tickets.tickets_by_rate(load("digits"), **config)
    np.testing.assert_array_equal(run["weights"][..., 0], run["weights"][..., 1])
    np.testing.assert_array_equal(run["one_shot"][:, 0], run["one_shot"][:, 1])
    assert not np.array_equal(run["weights"][..., 1], run["weights"][..., 2])
    assert run["left"][0] == pytest.approx([1.0, 0.41, 0.168], abs=1e-3)
    assert run["dense"][0] != run["dense"][1]


# --- network slimming ----------------------------------------------------------------------


def test_slimmed_networks_are_those_of_torch() -> None:
    start = slimming.normed_start([6, 5, 4, 3], [0, 1])
    g = torch.Generator().manual_seed(0)
    tensors = {n: t + 0.3 * torch.randn(t.shape, generator=g) for n, t in start.tensors.items()}
    x, y = torch.randn(50, 6, generator=g), torch.arange(50) % 3
    for s in range(2):
        layers: list[nn.Module] = []
        for k, (a, b) in enumerate([(6, 5), (5, 4)], start=1):
            linear, norm = nn.Linear(a, b, bias=False), nn.BatchNorm1d(b)
            linear.weight.data.copy_(tensors[f"W{k}"][s])
            norm.weight.data.copy_(tensors[f"G{k}"][s])
            norm.bias.data.copy_(tensors[f"B{k}"][s])
            layers += [linear, norm, nn.ReLU()]
        last = nn.Linear(4, 3)
        last.weight.data.copy_(tensors["W3"][s])
        last.bias.data.copy_(tensors["B3"][s])
        net = nn.Sequential(*layers, last)
        gradients = dict(net.named_parameters())
        own = {n: t[s].clone().requires_grad_() for n, t in tensors.items()}
        torch.testing.assert_close(slimming.outputs(own, x), net(x), atol=1e-5, rtol=1e-4)
        # The penalty adds s · sign(γ) to the gradient of the gains, and to nothing else.
        slimming._penalised_loss(slimming._penalised(0.1, own, x), y).backward()
        cross_entropy(net(x), y).backward()
        for k, place in ((1, 1), (2, 4)):
            of_loss = gradients[f"{place}.weight"].grad
            assert of_loss is not None
            theirs = of_loss + 0.1 * own[f"G{k}"].detach().sign()
            torch.testing.assert_close(own[f"G{k}"].grad, theirs, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(own["W1"].grad, gradients["0.weight"].grad, atol=1e-5, rtol=1e-4)
    # Statistics of the first rows alone: what comes after does not matter to the others.
    one = {n: t[0] for n, t in tensors.items()}
    both = slimming.outputs(one, torch.cat([x, 100 * x]), measured=50)
    torch.testing.assert_close(both[:50], slimming.outputs(one, x))


def test_a_slimmed_network_is_its_mask() -> None:
    """A unit without gain and shift is one that is not there."""
    axes = slimming.normed_axes(3)
    start = slimming.normed_start([6, 5, 4, 3], [0])
    tensors = {n: t.clone() for n, t in start.tensors.items()}
    tensors["G1"][0, :2] = 0.01
    kept = largest_units_together({h: tensors[f"G{h[1]}"].abs() for h in ("h1", "h2")}, 7)
    assert kept["h1"].tolist() == [[False, False, True, True, True]]
    masks = unit_masks(tensors, axes, kept)
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    masked = {n: (t * masks[n])[0] for n, t in tensors.items()}
    left = kept["h1"][0]
    small = {**masked, "W1": masked["W1"][left], "W2": masked["W2"][:, left]}
    small |= {n: masked[n][left] for n in ("G1", "B1")}
    torch.testing.assert_close(
        slimming.outputs(masked, x), slimming.outputs(small, x), atol=1e-5, rtol=1e-4
    )


def test_the_penalty_makes_gains_small() -> None:
    config = {**slimming.TINY["slimmed"], "plan": {**PLAN, "steps": 40}, "arms": []}
    weak, strong = (
        slimming.slimmed(load("digits"), **{**config, "penalty": s}) for s in (0.0, 0.05)
    )
    assert weak["widths"].sum(2).tolist() == strong["widths"].sum(2).tolist() == [[10], [10]]
    assert weak["left"].shape == (2, 1)
    task = arms.Task.of(load("digits"), 1, {**PLAN, "steps": 40})
    start = slimming.normed_start([64, 12, 8, 10], [0])
    sums = []
    for strength in (0.0, 0.05):
        penalised = replace(start, one=partial(slimming._penalised, strength))
        end = task.train(penalised, [0], loss=slimming._penalised_loss)
        sums.append(sum(float(end.tensors[f"G{k}"].abs().sum()) for k in (1, 2)))
    assert sums[1] < 0.8 * sums[0]


# --- convolutional networks ----------------------------------------------------------------


def test_cut_filters_are_filters_without_gain() -> None:
    net = conv.SmallVGG(3, [4, 6, 6], 2, 10, 0)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 8, 8, generator=g).contiguous(memory_format=torch.channels_last)
    net(x)  # running statistics
    net.eval()
    kept = conv._kept(net, "units", 0.5)
    assert {index: int(k.sum()) for index, k in kept.items()} == {"c1": 2, "c2": 3, "c3": 3}
    small = conv.sliced_network(net, kept).eval()
    for k, norm in enumerate(net.norms):
        for name in ("weight", "bias"):
            norm.get_parameter(name).data[~kept[f"c{k + 1}"][0]] = 0.0
    torch.testing.assert_close(small(x), net(x), atol=1e-6, rtol=1e-4)
    norms = net.convolutions[1].get_parameter("weight").abs().sum((1, 2, 3))
    assert kept["c2"][0].nonzero()[:, 0].tolist() == norms.topk(3).indices.sort().values.tolist()
    # Products by hand: 8 x 8, 4 x 4 and 2 x 2 places.
    whole = 9 * (3 * 4 * 64 + 4 * 6 * 16 + 6 * 6 * 4) + 60
    assert conv.multiplications(net, 8) == whole
    cut = 9 * (3 * 2 * 64 + 2 * 3 * 16 + 3 * 3 * 4) + 30
    assert conv.multiplications(small, 8) == cut
    # By gain, over all layers together.
    for k, norm in enumerate(net.norms):
        norm.get_parameter("weight").data.fill_(float(k + 1))
    by_gain = conv._kept(net, "gains", 0.5)
    assert [int(k.sum()) for k in by_gain.values()] == [1, 1, 6]


def test_a_convolutional_seed() -> None:
    config = {**conv.TINY["conv_pruned"], "pool": 2, "pools": 1, "keeps": [0.5, 1.0]}
    config |= {"plan": {**PLAN, "steps": 3, "batch_size": 20}, "arms": list(arms.ARMS)}
    run = conv.conv_pruned(pictures(), **config)
    assert run["units_cut"].shape == run["units_random_rewound"].shape == (2,)
    assert run["gains_scratch_b"].shape == (1,)
    assert run["widths"].shape == (1, 3)
    # All filters and no step: the large network.
    assert run["units_left"][1] == 1.0
    assert run["units_cut"][1] == run["units_fine_tuned"][1] == run["dense"]
    frame = experiment.conv_frame(pictures(), [0, 1, 2], {k: v for k, v in config.items()
                                                         if k != "seed"})  # fmt: skip
    assert frame is not None
    assert {*frame.method} == {"dense", "dense, gains", "filters", "conv gains"}
    assert experiment.conv_frame(pictures(), [0], None) is None
    own = frame[(frame.method == "filters") & (frame.seed == 0) & (frame.arm == "rewound")]
    assert own.accuracy.tolist() == run["units_rewound"].tolist()
    assert len(plots.inside_panels(layers(), differences(frame), experiment.shown(frame)).axes) == 3


def test_gains_of_convolutions_feel_the_penalty() -> None:
    """One step by hand."""
    task = conv._Task(pictures(), 1, {**PLAN, "batch_size": 60, "decay": 0.0, "drops": []}, 0)
    plain, penalised = (conv.SmallVGG(3, [4, 4], 1, 10, 0) for _ in range(2))
    task.train(plain, 1, "schedule")
    task.train(penalised, 1, "schedule", 0.5)
    for one, two in zip(plain.norms, penalised.norms, strict=True):
        gain, shift = (one.get_parameter(name) for name in ("weight", "bias"))
        torch.testing.assert_close(two.get_parameter("weight"), gain - 0.1 * 0.5)
        torch.testing.assert_close(two.get_parameter("bias"), shift)


# --- frames and figures --------------------------------------------------------------------


def layers() -> pd.DataFrame:
    rows = [
        {"keep": 0.5, "which": which, "mean": 0.4, "low": 0.3, "high": 0.5, "chance": 0.2,
         "rank": 3.0}
        for which in runs.LOOKED_AT
    ]  # fmt: skip
    return pd.DataFrame(rows)


def differences(frame: pd.DataFrame) -> pd.DataFrame:
    return experiment.shown_differences(frame)


def test_frames_and_figures(found: dict[int, Arrays]) -> None:
    shared = {k: v for k, v in CONFIG.items() if k != "group"}
    swept = experiment.sweep_pruned(load("digits"), [3, 4, 5], group=2, **shared)
    assert all(np.array_equal(swept[s][n], found[s][n]) for s in found for n in found[s])
    frame = experiment.pruned_frame(found, CONFIG["keeps"], CONFIG["shares"])
    assert len(frame) == 3 * (1 + 2 * (len(arms.ARMS) + 1) + 4)
    one = experiment.gap(frame, "units", 0.2, "scratch_e", "random")
    assert one[4] == pytest.approx(found[4]["units_scratch_e"][1] - found[4]["units_random"][1])
    with pytest.raises(ValueError, match=r"no arm 'long' of 'weights' at 0\.3"):
        experiment.gap(frame, "weights", 0.3, "scratch_e", "long")

    gains = {k: v for k, v in slimming.TINY["slimmed"].items() if k != "group"}
    slim = experiment.slimmed_frame(load("digits"), [3, 4, 5], group=3, **gains)
    assert {*slim.method} == {"dense, gains", "gains"}
    assert (slim[slim.arm == "cut"][["layer_1", "layer_2"]].sum(axis=1) == 10).all()
    assert (slim[slim.arm == "dense"].layer_1 == 12).all()
    both = pd.concat([frame, slim[frame.columns]])

    layer = experiment.first_layer_frame(found, CONFIG["keeps"])
    carried = experiment.inherited(layer, 0.5)
    value, chance = (found[5][n][0] for n in ("correlation", "chance"))
    assert carried.cut[5] == pytest.approx(value[2] - chance[2])
    assert carried.end[5] == pytest.approx(value[3] - value[4])
    ranks = found[5]["rank"][0]
    assert carried["rank"][5] == pytest.approx(ranks[3] / ranks[4] - 1)

    plan = {k: v for k, v in tickets.TINY["tickets_by_rate"].items() if k != "group"}
    lots = experiment.ticket_frame(load("digits"), [3, 4, 5], [0.02, 0.1], group=4, **plan)
    assert len(lots) == 6 * (1 + 2 * 3 + 3 + 2)
    dense = lots[lots.how == "dense"].groupby("rate").accuracy.mean()
    assert experiment.best_rate(lots) == dense.idxmax()
    at = lots[(lots.how == "rounds") & (lots.rate == 0.1) & (lots.seed == 4)]
    smallest = at[at.left == at.left.min()].set_index("start").accuracy
    gap = experiment.ticket_gap(lots, "rounds", 1, 0.1, over="scaled")
    assert gap[4] == pytest.approx(smallest["ticket"] - smallest["scaled"])
    with pytest.raises(ValueError, match="no share 2 of 'rounds'"):
        experiment.ticket_gap(lots, "rounds", 2, 0.1)

    shown, table = experiment.shown(both), experiment.shown_tickets(lots)
    assert (shown.low <= shown["mean"]).all()
    assert {*table.how} == {"dense", "rounds", "one shot", "units"}
    compared = differences(both)
    assert {*compared.over} == {"fine_tuned", "long", "rewound"}
    figure = plots.pruning_panels(shown, compared, table)
    low, high = figure.axes[0].get_xlim()
    assert low > high  # pruning goes to the right
    assert len(figure.axes) == 4
    names = [text.get_text() for text in figure.axes[3].get_yticklabels()]
    assert names[-len(plots.AUTHORS) :] == [*plots.AUTHORS]
    linked = experiment.shown_first_layer(layer)
    without = compared[compared.over != "rewound"]
    assert len(plots.inside_panels(linked[linked.keep == 0.5], without).axes) == 2


def test_a_run_without_the_arms_that_are_looked_at_has_the_pruned_network() -> None:
    config = copy.deepcopy(CONFIG) | {"shares": []}
    config["arms"] = {"units": ["scratch_e"], "weights": []}
    run = runs.pruned(load("digits"), group=[{"seed": 3}], **config)
    np.testing.assert_array_equal(run["correlation"][0, :, 2], run["correlation"][0, :, 3])
