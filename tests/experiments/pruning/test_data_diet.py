"""pruning.data_diet and its runs: committees, networks on subsets, easy and hard examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset, load
from rclib.experiments.pruning import data_diet as experiment
from rclib.experiments.pruning import data_diet_conv as conv
from rclib.experiments.pruning import data_diet_dynamics as dynamics
from rclib.experiments.pruning import data_diet_runs as runs
from rclib.experiments.pruning import plots_data_diet as plots
from rclib.experiments.pruning.data_scores import (
    activations,
    auc,
    el2n,
    rank_correlation,
    wrong_labels,
)
from rclib.nets.mlp import MLP
from rclib.training.stacked import epoch_orders

SCORING: dict[str, Any] = {
    "nets": 2, "epochs": [0, 1, 2], "widths": [8, 6], "batch_size": 30, "rate": 3e-3, "pool": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits").subset(120, 80)


def plain(seed: int, d: int = 64) -> nn.Sequential:
    """He's start, as torch builds it from the same numbers."""
    made = MLP(
        d, [8, 6], 10, depth=3, parametrization="SP", activation="relu",
        init=runs.Init("gaussian", scale=2**0.5), bias="constant", seed=seed,
    )  # fmt: skip
    net = nn.Sequential(nn.Linear(d, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 10))
    with torch.no_grad():
        for layer, place in enumerate((0, 2, 4), 1):
            net.get_parameter(f"{place}.weight").copy_(made.get_parameter(f"W{layer}"))
            net.get_parameter(f"{place}.bias").zero_()
    assert float(made.get_parameter("W1").detach().std()) == pytest.approx((2 / d) ** 0.5, rel=0.15)
    return net


def trained(
    net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, seed: int, steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Before each update: the places of the batch and whether they are right."""
    adam = torch.optim.Adam(net.parameters(), lr=SCORING["rate"])
    order = epoch_orders(len(x), SCORING["batch_size"], [seed])
    for step in range(steps):
        places = order(step)[0]
        out = net(x[places])
        yield places, out.argmax(1) == y[places]
        adam.zero_grad()
        cross_entropy(out, y[places]).backward()  # type: ignore[no-untyped-call]
        adam.step()


def test_a_committee_is_torchs(data: Dataset) -> None:
    """Scores at the start are those of untrained networks, later ones of plain torch with the same
    orders; forgetting events by a dictionary."""
    run = runs.committee(data, seed=3, noise=0.2, **SCORING)
    y = torch.from_numpy(wrong_labels(data.y_train.numpy(), 0.2, 10, 3)[0])
    x = data.x_train
    for k in range(2):
        net = plain(3000 + k)
        one_hot = torch.eye(10)[y]
        start = (net(x).softmax(1) - one_hot).norm(dim=1).detach().numpy()
        np.testing.assert_allclose(run["el2n"][0, k], start, rtol=2e-5)
        state: dict[int, bool] = {}
        events, ever = np.zeros(120), np.zeros(120, bool)
        for places, right in trained(net, x, y, 3000 + k, 8):
            for place, fits in zip(places.tolist(), right.tolist(), strict=True):
                events[place] += state.get(place, False) and not fits
                ever[place] |= fits
                state[place] = fits
        end = (net(x).softmax(1) - one_hot).norm(dim=1).detach().numpy()
        np.testing.assert_allclose(run["el2n"][2, k], end, rtol=1e-4, atol=1e-5)
        assert np.array_equal(run["forgetting"][k], np.where(ever, events, 2))
        accuracy = float((net(x).argmax(1) == y).double().mean())
        assert float(run["accuracy"][2, k]) == pytest.approx(accuracy)
    assert run["el2n"].shape == run["grand"].shape == (3, 2, 120)
    with pytest.raises(ValueError, match="seed must be"):
        runs.committee(data, noise=0.0, **SCORING)


def member(**more: Any) -> dict[str, Any]:
    return {
        "seed": 5, "committee": 3, "score": "random", "epoch": 2, "nets": 2, "offset": 0.0,
        "balanced": False, **more,
    }  # fmt: skip


def test_a_retrained_network_is_torchs_on_its_subset(data: Dataset) -> None:
    shared: dict[str, Any] = {"share": 0.5, "noise": 0.2, "steps": 6, "scoring": SCORING}
    group = [member(score="el2n", offset=0.5), member(score="norm", offset=0.5), member()]
    run = runs.retrained(data, group=group, **shared)
    given, wrong = wrong_labels(data.y_train.numpy(), 0.2, 10, 3)
    scores = runs.committee(data, seed=3, noise=0.2, **SCORING)["el2n"][2].mean(0)
    kept = np.sort(np.argsort(scores, kind="stable")[60:])
    net = plain(5)
    start = [p.detach().clone() for p in net.parameters() if p.ndim == 2]
    list(trained(net, data.x_train[kept], torch.from_numpy(given[kept]), 5, 6))
    accuracy = float((net(data.x_test).argmax(1) == data.y_test).double().mean())
    assert float(run["accuracy"][0]) == pytest.approx(accuracy)
    assert float(run["wrong"][0]) == pytest.approx(wrong[kept].mean())
    assert np.array_equal(run["labels"][0], np.bincount(given[kept], minlength=10))
    ends = [p.detach() for p in net.parameters() if p.ndim == 2]
    moved = sum(float((a - b).square().sum()) for a, b in zip(start, ends, strict=True)) ** 0.5
    assert float(run["moved"][0]) == pytest.approx(moved, rel=1e-3)
    values = torch.linalg.svdvals(ends[0].double()).square().numpy()
    edge = 2 / 64 * ((8 - 0.5) ** 0.5 + (64 - 0.5) ** 0.5) ** 2
    assert float(run["top"][0]) == pytest.approx(values.max() / edge, rel=1e-4)
    assert float(run["spikes"][0]) == (values > 1.02 * edge).sum()
    assert float(run["rank"][0]) == pytest.approx(values.sum() / values.max(), rel=1e-4)
    vectors = [ends[0].mean(1), ends[1].mean(0), dict(net.named_parameters())["0.bias"].detach()]
    matrix = np.corrcoef(torch.stack(vectors).double())
    assert float(run["rowcolumn"][0]) == pytest.approx(np.abs(np.triu(matrix, 1)).max(), rel=1e-3)
    # The input's norm takes the longest images.
    longest = np.argsort(data.x_train.norm(dim=1).numpy(), kind="stable")[60:]
    assert np.array_equal(run["labels"][1], np.bincount(given[longest], minlength=10))
    # A random subset needs no committee, and is one of the seed.
    assert runs.needed({**shared, "group": [member()]}) == []
    again = runs.retrained(data, group=[member(committee=4), member(seed=6)], **shared)
    assert not np.array_equal(again["labels"][0], again["labels"][1])
    with pytest.raises(ValueError, match="score must be one of"):
        runs.retrained(data, group=[member(score="loss")], **shared)


def test_images_are_averaged_over_squares() -> None:
    x = torch.arange(2 * 3 * 16, dtype=torch.float32).view(2, 48)
    empty = torch.zeros(2, dtype=torch.long)
    colours = Dataset("cifar10", "made up", x, empty, x, empty, 10, "0")
    train, test = runs.images(colours, 2)
    assert train.shape == (2, 12)
    assert torch.equal(train, test)
    square = x[1].view(3, 4, 4)[2, 2:, :2].mean()
    assert float(train[1].view(3, 2, 2)[2, 1, 0]) == float(square)


def test_the_tangent_kernel_is_that_of_all_gradients() -> None:
    net = plain(1, d=9).double()
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tensors = {
        f"{kind}{layer}": net.get_parameter(f"{place}.{name}").detach()
        for layer, place in enumerate((0, 2, 4), 1)
        for kind, name in (("W", "weight"), ("B", "bias"))
    }
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(net(one)[k], list(net.parameters()))])
        for one in x for k in range(10)
    ]  # fmt: skip
    jacobian = torch.stack(rows)
    kernel = dynamics.tangent_kernel(tensors, x)
    assert torch.allclose(kernel, jacobian @ jacobian.t(), rtol=1e-10, atol=1e-12)


def test_barriers_on_the_line_between_two_networks(data: Dataset) -> None:
    start = runs.networks(64, [8, 6], 10, [0, 1])
    one, other = start.member(0), start.member(1)
    x, y = data.x_train, data.y_train
    errors = []
    for alpha in np.linspace(0, 1, 11):
        mixed = {n: (alpha * one[n] + (1 - alpha) * other[n]).unsqueeze(0) for n in one}
        errors.append(float((activations(mixed, x)[-1][0].argmax(1) != y).double().mean()))
    between = [
        e - a * errors[-1] - (1 - a) * errors[0]
        for a, e in zip(np.linspace(0, 1, 11), errors, strict=True)
    ]
    assert dynamics.barrier(one, other, x, y) == pytest.approx(max(between), abs=1e-6)
    assert dynamics.barrier(one, one, x, y) == pytest.approx(0.0, abs=1e-6)


def test_children_share_what_was_before_they_parted(data: Dataset) -> None:
    """Those that never part are one network; the kernel is that of the committee's epochs."""
    given: dict[str, Any] = {"examples": 20, "kernel_examples": 4, "steps": 8, "scoring": SCORING}
    group = [{"seed": 0, "committee": 3}, {"seed": 1, "committee": 3}]
    run = dynamics.dynamics(data, group=group, spawns=[0, 2], **given)
    assert run["velocity"].shape == (2, 2, 3)
    assert run["barriers"].shape == (2, 2, 3)
    assert np.abs(run["barriers"][:, 1]).max() < 1e-6  # two epochs are eight steps: none is left
    assert (run["velocity"] > 0).all()
    assert (run["velocity"] < 1).all()
    alone = dynamics.dynamics(data, group=group[1:], spawns=[0, 2], **given)
    np.testing.assert_array_equal(alone["velocity"][0], run["velocity"][1])
    committees = experiment.committees_of([0, 1], 1)
    shown = dynamics.velocity_frame(data, [0, 1], committees, spawns=[1], **given)
    barriers = dynamics.barrier_frame(data, [0, 1], committees, spawns=[1], **given)
    assert set(shown.epoch) == {1, 2}
    one = dynamics.hardest_minus_easiest(shown)
    by_hand = shown[shown.seed == 1].groupby("group").value.mean()
    assert float(one[1]) == pytest.approx(by_hand["highest"] - by_hand["lowest"])
    assert list(dynamics.hardest_minus_easiest(barriers, epoch=1).index) == [0, 1]
    relative = experiment.over_random(shown)
    at = shown[(shown.seed == 1) & (shown.epoch == 2)].set_index("group").value
    found = relative[(relative.seed == 1) & (relative.epoch == 2)].set_index("group").value
    assert float(found["highest"]) == pytest.approx(at["highest"] / at["random"])
    assert set(found.index) == {"lowest", "highest"}
    link = pd.DataFrame({"kind": ["EL2N", "random"], "moved": [1.0, 2.0], "top": [1.1, 1.0]})
    link["kind"] = experiment.link_kinds(link.assign(noise=[0.0, 0.2]))
    assert link.kind.tolist() == ["highest EL2N", "random, 20% wrong"]
    assert len(plots.inside_panels(relative, barriers, link).axes) == 3


def test_frames_and_figures(data: Dataset) -> None:
    arms = experiment.arms_of(
        {"random": [0.4, 0.5, 1.0], "EL2N": [0.4, 0.5], "lowest EL2N": [0.5],
         "GraNd at start": [0.5], "EL2N, balanced": [0.5], "forgetting": [0.5],
         "permuted": [0.5], "one network": [0.5]},
        {"random": [0.4]}, noise=0.2, windows=[0.0, 0.6], noisy_windows=[0.3],
    )  # fmt: skip
    seeds = [0, 1, 2]
    shared: dict[str, Any] = {"n_committees": 2, **SCORING}
    frame = experiment.retrained_frame(data, seeds, arms, steps=6, group=50, **shared)
    assert len(frame) == 3 * len(arms)
    assert frame.groupby("noise").wrong.mean()[0.0] == 0
    noisy = frame[(frame.noise == 0.2) & (frame.kind == "random")].wrong
    assert noisy.between(0.1, 0.3).all()
    assert experiment.committees_of([5, 6, 7], 2) == [5, 6, 5]
    gains = experiment.gain(frame, "EL2N", 0.5)
    table = frame[frame.share == 0.5].pivot_table(index="seed", columns="kind", values="accuracy")
    pd.testing.assert_series_equal(
        gains, (table["EL2N"] - table["random"]).rename("gain"), check_names=False
    )
    top = experiment.gain(frame, "window", 0.4, offset=0.6, over="EL2N")
    assert (top == 0).all()  # the highest 40 percent, by another name
    balanced = frame[frame.kind == "EL2N, balanced"].unbalance
    everything = frame[frame.share == 1.0].unbalance
    assert np.abs(balanced.to_numpy() - everything.to_numpy()).max() < 0.15
    gap = experiment.link_gap(frame, "moved", 0.5)
    own = frame[frame.share == 0.5].pivot_table(index="seed", columns="kind", values="moved")
    assert float(gap[1]) == pytest.approx(own["EL2N"][1] - own["lowest EL2N"][1])
    with pytest.raises(ValueError, match="no arm 'EL2N'"):
        experiment.gain(frame, "EL2N", 0.3)
    with pytest.raises(ValueError, match="kinds must be of"):
        experiment.arms_of({"loss": [0.5]}, {}, noise=0.1)

    scores = experiment.score_frame(data, seeds, noise=0.2, **shared)
    assert list(scores.seed.unique()) == [0, 1]
    for column in ("agreement", "reliability", "of_grand", "norm", "forgetting"):
        assert scores[column].between(-1, 1).all()
    assert scores.auc.between(0, 1).all()
    pictures = experiment.extremes(data, 0, n=4, **shared)
    run = runs.committee(data, seed=0, noise=0.0, **SCORING)
    hardest = data.x_train[int(run["el2n"][-1].mean(0).argmax())].numpy()
    scaled = (hardest - hardest.min()) / (hardest.max() - hardest.min())
    np.testing.assert_allclose(pictures["highest"][-1].ravel(), scaled, atol=1e-6)
    shown = experiment.shown_gains(frame)
    el2n = shown[(shown.kind == "EL2N") & (shown.share == 0.5)].iloc[0]
    assert el2n.gain == pytest.approx(gains.mean())
    assert el2n.error == pytest.approx(1.96 * gains.std() / 3**0.5)
    assert set(shown[shown.kind == "all data"].share) == {0.4, 0.5}
    assert "random" not in set(shown.kind)
    figure = plots.diet_panels(shown, scores, pictures)
    assert [panel.get_title()[:3] for panel in figure.axes][:3] == ["(a)", "(b)", "(c)"]

    given: dict[str, Any] = {"committee_seed": 9, "share": 0.5, "steps": 2, "channels": [2, 3, 4]}
    given |= {"nets": 2, "epochs": 1, "batch_size": 32, "rate": 1e-3, "pool": 1}
    found = conv.conv_frame(data, [0, 1], **given)
    assert len(found) == 6
    compared = experiment.shown_gains(found)
    assert len(plots.hard_panels(shown, compared).axes) == 3


def test_the_convolutional_network_is_torchs(data: Dataset) -> None:
    scoring = conv.TINY["conv_committee"] | {"epochs": 2}
    run = conv.conv_committee(data, **scoring)
    assert run["el2n"].shape == (2, 120)
    assert (run["el2n"] <= 2**0.5).all()
    retrained = conv.conv_retrained(
        data, seed=4, random=False, offset=0.5, share=0.5, steps=3, scoring=scoring
    )
    kept = np.sort(np.argsort(run["el2n"].mean(0), kind="stable")[60:])
    generator = torch.Generator().manual_seed(4)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 10),
    )  # fmt: skip
    with torch.no_grad():
        for p in net.parameters():
            fan_in = p[0].numel()
            draw = torch.randn(p.shape, generator=generator)
            p.copy_((2 / fan_in) ** 0.5 * draw if p.ndim > 1 else torch.zeros(p.shape))
    x, y = data.x_train[kept].view(-1, 1, 8, 8), data.y_train[kept]
    adam = torch.optim.Adam(net.parameters(), lr=scoring["rate"])
    order = epoch_orders(60, 32, [4])
    for step in range(3):
        places = order(step)[0]
        adam.zero_grad()
        cross_entropy(net(x[places]), y[places]).backward()  # type: ignore[no-untyped-call]
        adam.step()
    right = net(data.x_test.view(-1, 1, 8, 8)).argmax(1) == data.y_test
    assert float(retrained["accuracy"]) == pytest.approx(float(right.double().mean()))
    assert np.array_equal(retrained["labels"], np.bincount(y.numpy(), minlength=10))


@pytest.mark.slow
def test_cleanlab_ranks_wrong_labels_alike() -> None:
    """Its quality of a label, the probability that the network gives it, is a peer of EL2N."""
    peer = pytest.importorskip("cleanlab.rank")
    digits = load("digits").subset(600, 50)
    given, wrong = wrong_labels(digits.y_train.numpy(), 0.1, 10, 3)
    y = torch.from_numpy(given)
    net = plain(7)
    list(trained(net, digits.x_train, y, 7, 150))
    outputs = net(digits.x_train).detach()
    quality = peer.get_label_quality_scores(given, outputs.softmax(1).double().numpy())
    found = el2n(outputs, y).numpy()
    assert rank_correlation(-found, quality) > 0.9
    assert auc(found, wrong) > 0.8
    assert abs(auc(found, wrong) - auc(-quality, wrong)) < 0.03
