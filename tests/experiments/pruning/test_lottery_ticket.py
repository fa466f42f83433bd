"""pruning.lottery_ticket: the trials, their arms, the frames and the figures."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune

from rclib.data.images import Dataset, load
from rclib.experiments.pruning import lottery_runs as runs
from rclib.experiments.pruning import lottery_ticket as experiment
from rclib.experiments.pruning import plots_lottery as plots
from rclib.runs.store import Arrays

ROUNDS = 2
CONFIG: dict[str, Any] = {
    "pool": 1, "n_train": 120, "n_validation": 40, "network": {"widths": [20, 15]}, "rate": 3e-3,
    "batch_size": 30, "steps": 12, "every": 4, "rounds": ROUNDS,
    "shares": {"full": 0.5, "output": 0.25},
    "arms": {arm: [ROUNDS] for arm in runs.ARMS} | {"reinit": [1, ROUNDS]},
}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[int, Arrays]:
    run = runs.tickets(load("digits"), group=[{"seed": 3}, {"seed": 4}], **CONFIG)
    return {seed: {n: a[k] for n, a in run.items()} for k, seed in enumerate((3, 4))}


def test_starts_have_glorots_law() -> None:
    start = runs.starts_of({"widths": [300, 200]}, [0, 1], 400, 10)
    for name, (fan_out, fan_in) in {"W1": (300, 400), "W2": (200, 300), "W3": (10, 200)}.items():
        value = start.tensors[name]
        assert value.shape == (2, fan_out, fan_in)
        variance = 2.0 / (fan_in + fan_out)
        assert float(value.var()) == pytest.approx(variance, rel=0.06)
        assert float((value**4).mean()) == pytest.approx(3 * variance**2, rel=0.2)
    assert all(not start.tensors[name].any() for name in ("B1", "B2", "B3"))


def test_a_trial_is_that_of_plain_torch(found: dict[int, Arrays]) -> None:
    """One seed by hand: its split, its order, torch's masks and torch's Adam."""
    data, seed = load("digits"), 4
    split = torch.Generator().manual_seed(runs.drawn_elsewhere(seed, 0))
    own = torch.randperm(len(data.y_train), generator=split)[:160]
    x, y = data.x_train[own[:120]], data.y_train[own[:120]]
    held, labels = data.x_train[own[120:]], data.y_train[own[120:]]
    start = runs.starts_of({"widths": [20, 15]}, [seed], 64, 10).member(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 20), torch.nn.ReLU(), torch.nn.Linear(20, 15), torch.nn.ReLU(),
        torch.nn.Linear(15, 10),
    )  # fmt: skip
    layers = [net[0], net[2], net[4]]
    for number in range(ROUNDS + 1):
        if number:
            for layer, share in zip(layers, (0.5, 0.5, 0.25), strict=True):
                prune.l1_unstructured(layer, "weight", share)
        for k, layer in enumerate(layers, start=1):
            raw = layer.weight_orig if number else layer.weight
            raw.data.copy_(start[f"W{k}"])
            layer.bias.data.copy_(start[f"B{k}"])
        order, at = torch.Generator().manual_seed(seed), 0
        adam = torch.optim.Adam(net.parameters(), lr=3e-3)
        losses = []
        for step in range(12):
            if step % 4 == 0:
                losses.append(cross_entropy(net(held), labels).item())
                batches = torch.randperm(120, generator=order)
                at = 0
            places = batches[at : at + 30]
            at += 30
            adam.zero_grad()
            cross_entropy(net(x[places]), y[places]).backward()
            adam.step()
        losses.append(cross_entropy(net(held), labels).item())
        accuracy = (net(data.x_test).argmax(1) == data.y_test).double().mean().item()
        assert found[seed]["ticket"][number, 0] == pytest.approx(accuracy, abs=2.5 / 360)
        assert found[seed]["ticket"][number, 2] == 4 * int(np.argmin(losses))
        if number == 0:
            for k, layer in enumerate(layers, start=1):
                np.testing.assert_allclose(
                    found[seed][f"dense_W{k}"], layer.weight.detach().numpy(), atol=2e-5
                )
    for k, layer in enumerate(layers, start=1):
        np.testing.assert_array_equal(found[seed][f"mask_W{k}"], layer.weight_mask.bool().numpy())
        np.testing.assert_allclose(
            found[seed][f"ticket_W{k}"], layer.weight.detach().numpy(), atol=2e-5
        )


def test_the_ticket_with_its_own_start_again_is_the_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs between a ticket and a fresh start is the start alone."""
    real = runs.drawn_elsewhere
    monkeypatch.setattr(runs, "drawn_elsewhere", lambda s, what: s if what == 1 else real(s, what))
    config = {**CONFIG, "arms": {"reinit": [1, 2], "signs": [2]}}
    run = runs.tickets(load("digits"), group=[{"seed": 3}], **config)
    np.testing.assert_array_equal(run["reinit"], run["ticket"][:, 1:])
    np.testing.assert_array_equal(run["signs"][:, 0], run["ticket"][:, 2])


def test_arms_have_the_tickets_counts_and_their_own_values() -> None:
    data, seeds = load("digits"), [3, 4]
    options = {"rate": 3e-3, "batch_size": 30, "steps": 3, "every": 3}
    task = runs._task(data, seeds, 1, 120, 40, options)
    start, fresh = (runs.starts_of({"widths": [20, 15]}, s, 64, 10) for s in (seeds, [8, 9]))
    shares = {"W1": 0.5, "W2": 0.5, "W3": 0.25}
    tickets = runs.iterative_pruning(start, task.train, rounds=2, shares=shares)
    others = runs._Others(task, start, fresh, tickets)
    others.prune_on(shares)
    masks = tickets[2].masks
    for arm in runs.ARMS:
        mask, values = others.made(arm, 2)
        for name, own in masks.items():
            assert torch.equal(mask[name].flatten(1).sum(1), own.flatten(1).sum(1)), arm
            same = torch.equal(mask[name], own)
            assert same == (arm in ("reinit", "signs", "resampled")), arm
            theirs = torch.equal(values[name], start.tensors[name])
            assert theirs == (arm not in ("reinit", "signs", "resampled")), arm
    signed = others.made("signs", 2)[1]["W2"]
    assert torch.equal(signed.abs(), fresh.tensors["W2"].abs())
    assert torch.equal(signed.sign(), start.tensors["W2"].sign())
    largest = others.made("start_mask", 2)[0]["W1"][0]
    size = start.tensors["W1"][0].abs()
    assert size[largest].min() >= size[~largest].max()
    for changed, message in (
        ({"arms": {"other": [1]}}, "arms must be one of"),
        ({"arms": {"reinit": [3]}}, r"arms\['reinit'\] must hold rounds from 1 to 2, got \[3\]"),
        ({"n_train": 1400}, "at most the 1437 images there are, got 1400 and 40"),
    ):
        with pytest.raises(ValueError, match=message):
            runs.tickets(data, group=[{"seed": 3}], **{**CONFIG, **changed})


def test_colour_images_are_averaged_and_rescaled() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3 * 8 * 8, generator=generator)
    data = Dataset("d", "d", x, torch.arange(40) % 10, x[:20], torch.arange(20) % 10, 10, "0")
    task = runs._task(data, [0, 1], 4, 20, 5, {})
    square = x[7].view(3, 8, 8)[2, 4:, :4].mean()
    assert task.x.shape == (40, 12)
    assert float(task.x.std()) == pytest.approx(1.0, rel=1e-5)
    assert float(task.x[7, 2 * 4 + 2] / task.x[0, 0]) == pytest.approx(
        float(square / x[0].view(3, 8, 8)[0, :4, :4].mean()), rel=1e-4
    )
    parts = torch.cat([task.subsets, task.held_out], 1)
    assert all(len(row.unique()) == 25 for row in parts)
    assert not torch.equal(parts[0], parts[1])


def test_ratios_and_degrees_by_another_route(found: dict[int, Arrays]) -> None:
    survivors = experiment.survivor_frame(found).set_index(["seed", "matrix"])
    degrees = experiment.degree_frame(found).set_index(["seed", "mask", "index"]).correlation
    spread = experiment.dispersion_frame(found).set_index(["seed", "mask", "matrix"])
    for seed, run in found.items():
        start = runs.starts_of({"widths": [20, 15]}, [seed], 64, 10).member(0)
        for name in experiment.WEIGHTS:
            kept, first = run[f"mask_{name}"], start[name].numpy()
            moved = np.abs(run[f"dense_{name}"] - first)
            for what, value in (("size", np.abs(first)), ("moved", moved)):
                ratio = value[kept].mean() / value[~kept].mean()
                assert survivors.loc[(seed, name), what] == pytest.approx(ratio, rel=1e-5)
        masks = experiment.masks_of(seed, run)
        assert masks["learned"]["W1"].shape == (20, int(run["varies"].sum()))
        images = load("digits").x_train
        constant = (images == images[:1]).all(0).numpy()
        assert not run["varies"][constant].any()
        for kind, own in masks.items():
            one, two = (own[n].numpy().astype(float) for n in ("W1", "W2"))
            r = np.corrcoef(one.sum(1), two.sum(0))[0, 1]
            assert degrees[seed, kind, "h1"] == pytest.approx(r)
            binomial = one.shape[1] * one.mean() * (1 - one.mean())
            expected = one.sum(1).var(ddof=1) / binomial
            assert spread.loc[(seed, kind, "W1"), "incoming"] == pytest.approx(expected)
            binomial = one.shape[0] * one.mean() * (1 - one.mean())
            expected = one.sum(0).var(ddof=1) / binomial
            assert spread.loc[(seed, kind, "W1"), "outgoing"] == pytest.approx(expected)


def test_units_that_all_keep_as_much_have_no_correlation(found: dict[int, Arrays]) -> None:
    run = copy.deepcopy(found[3])
    run["mask_W1"][:] = True
    frame = experiment.degree_frame({3: run}).set_index(["mask", "index"]).correlation
    assert frame["learned", "h1"] == frame["shuffled", "h1"] == 0.0
    assert frame["learned", "h2"] != 0.0


def test_a_convolutional_trial() -> None:
    """Every kind of tensor is pruned at its own rate, and zeros stay."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3 * 8 * 8, generator=generator)
    data = Dataset("d", "d", x, torch.arange(60) % 10, x[:20], torch.arange(20) % 10, 10, "0")
    config = {
        **CONFIG, "pool": 2, "n_train": 40, "n_validation": 20, "steps": 4,
        "network": {"widths": [12], "channels": [4, 6]},
        "shares": {"full": 0.5, "output": 0.25, "convolution": 0.3},
        "arms": {"reinit": [2], "start_mask": [1]},
    }  # fmt: skip
    run = runs.tickets(data, group=[{"seed": 3}, {"seed": 4}], **config)
    kept = {name: int(run[f"mask_{name}"][0].sum()) for name in ("K1", "K2", "W1", "W2")}
    assert kept == {"K1": 53, "K2": 106, "W1": 72, "W2": 68}
    assert run["sizes"].shape == (2, 2, 4)
    for name in kept:
        assert not run[f"ticket_{name}"][~run[f"mask_{name}"]].any()
    assert run["start_mask"].shape == (2, 1, 3)
    frame = experiment.accuracy_frame({3: {n: a[0] for n, a in run.items()}}, config["arms"])
    assert set(frame.arm) == {"ticket", "reinit", "start_mask"}


def planted(h: int, d: int, *, by_degrees: bool) -> np.ndarray:
    """A sparse mask with one spike: rows and columns of high degree, or two blocks."""
    random = np.random.default_rng(0)
    share = np.full((h, d), 0.1)
    if by_degrees:
        share *= np.outer(np.linspace(0.2, 1.8, h), np.linspace(0.2, 1.8, d))
    else:
        side = np.outer(np.where(np.arange(h) < h // 2, 1, -1), np.where(np.arange(d) % 2, 1, -1))
        share *= 1 + 0.9 * side
    return random.random((h, d)) < share


@pytest.mark.parametrize("by_degrees", [True, False])
def test_spikes_of_degrees_go_with_the_degrees(found: dict[int, Arrays], by_degrees: bool) -> None:
    run = copy.deepcopy(found[3])
    h, k, d = 120, 80, 150
    run["varies"] = np.ones(d, dtype=bool)
    run["mask_W1"] = planted(h, d, by_degrees=by_degrees)
    run["mask_W2"] = np.random.default_rng(1).random((k, h)) < 0.1
    run["mask_W3"] = np.random.default_rng(2).random((10, k)) < 0.3
    for which in ("ticket", "dense"):
        run[f"{which}_W1"] = np.random.default_rng(3).standard_normal((h, d))
        run[f"{which}_W2"] = np.random.default_rng(4).standard_normal((k, h))
    run["dense_W1"] += 1.0
    frame = experiment.spike_frame({3: run}).set_index(["mask", "matrix"])
    assert frame.loc[("learned", "W1"), "spikes"] >= 1
    assert (frame.loc[("learned", "W1"), "rest"] == 0) == by_degrees
    assert frame.loc[("shuffled", "W1"), "spikes"] == 0
    assert frame.loc[("learned", "W2"), "spikes"] == 0
    spectrum = experiment.shown_spectrum({3: run}, "W1", 50)
    bars = spectrum[spectrum.what != "law"]
    np.testing.assert_allclose(bars.groupby("what").density.sum() * bars.width.iloc[0], 1.0)
    top = bars[bars.density > 0].groupby("what").value.max()
    assert top["learned"] > 1.2 > 1.1 > top["shuffled"]


def test_frames_and_figures() -> None:
    given = {k: v for k, v in CONFIG.items() if k != "arms"}
    arms = CONFIG["arms"]
    trials = experiment.sweep_tickets(load("digits"), [3, 4, 5], group=2, arms=arms, **given)
    frame = experiment.accuracy_frame(trials, arms)
    assert len(frame) == 3 * (ROUNDS + 1 + 8 + 1)
    assert set(frame.arm) == {"ticket", "fine_tuned", *arms}
    assert frame[frame["round"] == 0].left.eq(1.0).all()
    one = experiment.by_seed(frame, "ticket", [0, 1])
    rows = frame[(frame.arm == "ticket") & (frame.seed == 4) & (frame["round"] < 2)]
    assert one[4] == pytest.approx(rows.accuracy.mean())
    apart = experiment.gap(frame, "ticket", "reinit", 2)
    assert apart[3] == pytest.approx(trials[3]["ticket"][2, 0] - trials[3]["reinit"][1, 0])
    shown = experiment.shown(frame, "accuracy")
    assert (shown.low <= shown["mean"]).all()
    starts = experiment.shown_starts(trials, 20)
    mass = starts.groupby(["matrix", "which"]).density.sum() * 8 / 20
    np.testing.assert_allclose(mass, 1.0)
    points = frame[["arm", "round", "accuracy"]]
    degrees = experiment.degree_frame(trials)
    figure = plots.ticket_panels(shown, points, starts, degrees)
    assert len(figure.axes) == 4
    low, high = figure.axes[0].get_xlim()
    assert low > high  # pruning goes to the right
    spectra = {name: experiment.shown_spectrum(trials, name, 30) for name in ("W1", "W2")}
    assert len(plots.mask_panels(experiment.shown(frame, "stopped_at"), spectra).axes) == 3
    plan = {**given, "network": {"widths": [8]}, "arms": {"reinit": [1]}, "group": 1}
    assert len(experiment.convolutional(load("digits"), [3], plan)) == ROUNDS + 2
    assert experiment.convolutional(load("digits"), [3], None) is None
    plain = {k: v for k, v in arms.items() if k != "continued"}
    without = {s: {k: v for k, v in t.items() if k != "fine_tuned"} for s, t in trials.items()}
    assert "fine_tuned" not in set(experiment.accuracy_frame(without, plain).arm)
