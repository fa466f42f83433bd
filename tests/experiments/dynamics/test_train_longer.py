"""dynamics.train_longer: runs against plain torch, the regimes of the arms, frames and figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from rclib.data.images import load
from rclib.experiments.dynamics import plots_train_longer as plots
from rclib.experiments.dynamics import train_longer as experiment
from rclib.experiments.dynamics import train_longer_arms as named
from rclib.experiments.dynamics import train_longer_runs as runs
from rclib.nets.normed_stack import NormedStack
from rclib.training.classifier import DivergedError
from rclib.training.regimes import Regime
from rclib.training.stacked import epoch_orders

DIGITS = load("digits")
SHARED: dict[str, Any] = {"sizes": [12, 11], "n_train": 64, "n_test": 50, "pool": 1}
SMALL = Regime.of_epochs(batch=8, rate=0.05, epochs=2, n=64)


def reference(seed: int, regime: Regime) -> tuple[nn.Sequential, dict[str, float]]:
    """The authors' loop with torch's modules: chunks one after the other, gradients averaged,
    clipped, one step of SGD."""
    x, y, x_test, y_test = runs.split(DIGITS, seed=seed, n_train=64, n_test=50, pool=1)
    start = NormedStack.start([64, 12, 11, 10], [seed])
    parts: list[nn.Module] = []
    for place, w in enumerate(start.weights):
        linear = nn.Linear(w.shape[2], w.shape[1], bias=place == 2)
        linear.weight.data.copy_(w[0])
        parts.append(linear)
        if place < 2:
            parts += [nn.BatchNorm1d(w.shape[1]), nn.ReLU()]
    parts[-1].bias.data.zero_()  # type: ignore[union-attr,operator]
    net = nn.Sequential(*parts)
    sgd = torch.optim.SGD(net.parameters(), lr=regime.rate, momentum=0.9, weight_decay=5e-4)
    orders = epoch_orders(64, regime.batch, [seed])
    k = regime.batch // regime.ghost
    for step in range(regime.updates):
        for group in sgd.param_groups:
            group["lr"] = regime.rate * 0.1 ** sum(step >= d for d in regime.drops)
        sgd.zero_grad()
        places = orders(step)[0]
        for part, labels in zip(x[places].chunk(k), y[places].chunk(k), strict=True):
            nn.functional.cross_entropy(net(part), labels).backward()
        for p in net.parameters():
            assert p.grad is not None
            p.grad /= k
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        sgd.step()
    net.eval()
    moved = [
        (a.weight.detach() - b[0]).square().sum()  # type: ignore[operator]
        for a, b in zip([m for m in net if isinstance(m, nn.Linear)], start.weights, strict=True)
    ]
    accuracy = (net(x_test).argmax(1) == y_test).double().mean()
    return net, {"accuracy": float(accuracy), "distance": float(sum(moved)) ** 0.5}


@pytest.mark.parametrize("ghost", [8, 32])
def test_a_run_is_the_authors_loop(ghost: int) -> None:
    regime = Regime(32, ghost, 0.3, 6, (3, 5))
    at = {"at": [0, 6], "norm": True}
    found = runs.regime_run(
        DIGITS, group=[{"seed": 4}, {"seed": 9}], **regime.plain(), **at, **SHARED
    )
    for place, seed in enumerate((4, 9)):
        net, expected = reference(seed, regime)
        assert found["distance"][place, 1] == pytest.approx(expected["distance"], rel=1e-4)
        assert found["accuracy"][place, 1] == pytest.approx(expected["accuracy"], abs=0.021)
        first = net[0].weight.detach().double()
        top = torch.linalg.svdvals(first)[0].square()
        assert found["values1"][place].max() == pytest.approx(float(top), rel=1e-4)
    assert (found["distance"][:, 0] == 0).all()
    assert found["values1"].shape == (2, 64)
    assert found["share"].shape == (2, 2)


def test_a_split_has_no_image_twice_and_is_standardised() -> None:
    x, y, x_test, y_test = runs.split(DIGITS, seed=1, n_train=1024, n_test=773, pool=1)
    assert (len(x), len(x_test)) == (1024, 773)
    assert len(y) + len(y_test) == len(DIGITS.y_train) + len(DIGITS.y_test)
    both = torch.cat([x, x_test])
    assert len(torch.unique(both, dim=0)) == len(both)
    assert x.mean(0).abs().max() < 1e-4
    assert 0.9 < float(x.std(0, correction=0).max()) <= 1.0
    other = runs.split(DIGITS, seed=2, n_train=1024, n_test=773, pool=1)
    assert not torch.equal(x, other[0])
    with pytest.raises(ValueError, match="n_train"):
        runs.split(DIGITS, seed=1, n_train=1437, n_test=361, pool=1)


def test_a_few_test_images_of_a_sorted_set_show_all_its_classes() -> None:
    order = DIGITS.y_test.argsort(stable=True)
    ordered = replace(DIGITS, x_test=DIGITS.x_test[order], y_test=DIGITS.y_test[order])
    few = runs.split(ordered, seed=1, n_train=64, n_test=100, pool=1)[3]
    assert few.bincount().min() >= 7  # of 10 or so
    every = runs.split(ordered, seed=1, n_train=64, n_test=len(order), pool=1)[3]
    assert torch.equal(every, ordered.y_test)


def test_pooled_pixels_are_means_of_squares() -> None:
    x = torch.arange(2 * 3 * 16.0).view(2, 48)
    pooled = runs._pooled(x, 2)
    assert pooled.shape == (2, 12)
    assert pooled[0, 0] == x[0, [0, 1, 4, 5]].mean()
    assert runs._pooled(torch.randn(2, 16), 4).shape == (2, 1)


def test_a_run_that_overflows_and_a_batch_that_does_not_fit_are_errors() -> None:
    wild = {**Regime(16, 16, 1e30, 3).plain(), "at": [0], "norm": False, **SHARED}
    with pytest.raises(DivergedError, match="seed 5 are not finite at step"):
        runs.regime_run(DIGITS, group=[{"seed": 5}], **wild)
    with pytest.raises(ValueError, match="batch must divide the 64 training images, got 48"):
        runs.regime_run(DIGITS, group=[{"seed": 5}], **{**wild, "batch": 48})


def test_arms() -> None:
    arms = named.ladder(SMALL, 4)
    assert list(arms) == ["SB", "LB", "+LR", "+GBN", "+RA"]
    assert {arms[name].samples for name in ("SB", "LB", "+LR", "+GBN")} == {128}
    assert arms["+RA"] == Regime(32, 8, 0.1, 16, (8, 12))
    assert list(named.ladder(SMALL, 4, longer=False)) == ["SB", "LB", "+LR", "+GBN"]
    of_updates = named.update_arms(SMALL, 4, [8])
    assert of_updates["SB, 8"] == Regime(8, 8, 0.05, 8, (4, 6))
    assert of_updates["LB, 8"] == Regime(32, 8, 0.1, 8, (4, 6))
    assert of_updates["LB alone, 8"] == Regime(32, 32, 0.05, 8, (4, 6))
    with pytest.raises(ValueError, match="at must have the drops at whole updates, got 6"):
        named.update_arms(SMALL, 4, [6])
    walks = named.walks(0.1, [8, 32], 20)
    assert walks["32, root"] == Regime(32, 8, 0.2, 20)
    assert walks["32, plain"] == Regime(32, 32, 0.1, 20)


def test_without_a_norm_ghosts_change_nothing_and_with_it_they_do() -> None:
    few = Regime(32, 8, 0.05, 4)
    assert experiment.identity_gap(DIGITS, [0, 1], few, norm=False, **SHARED) == 0.0
    assert experiment.identity_gap(DIGITS, [0, 1], few, norm=True, **SHARED) > 1e-3


def synthetic(name: str, distance: Any, seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    times = np.array([0, 1, 2, 3, 4, 8, 16, 32, 64, 100, 128])
    frames = [
        pd.DataFrame({"arm": name, "seed": s, "updates": times, "distance": distance(times)})
        for s in seeds
    ]
    return pd.concat(frames, ignore_index=True)


def test_the_fits_know_their_laws() -> None:
    with np.errstate(divide="ignore"):
        logs = synthetic("log", lambda t: np.where(t >= 4, 2 * np.log(t) - 1, 0.0))
    fits = experiment.log_fits(logs, "log")
    assert fits.r2.min() == pytest.approx(1.0)
    assert fits.slope.to_numpy() == pytest.approx(2.0)
    assert (fits["log"] == fits.r2 - fits[["root", "power"]].max(axis=1).clip(lower=0.98)).all()
    assert (fits["log"] > 0).all()
    roots = synthetic("root", lambda t: 1 + 0.5 * np.sqrt(t))
    assert experiment.log_fits(roots, "root").root.min() == pytest.approx(1.0)
    powers = synthetic("power", lambda t: 3.0 * t**0.4)
    found = experiment.log_fits(powers, "power")
    assert found.power.min() == pytest.approx(1.0)
    assert (found["log"] < 0).all()
    both = pd.concat([powers, synthetic("double", lambda t: 6.0 * t**0.4)])
    assert experiment.apart(both, "double", "power").to_numpy() == pytest.approx(np.log(2))
    assert experiment.slope_ratio(both, "double", "power").to_numpy() == pytest.approx(2.0)


def test_frames_and_figures() -> None:
    arms = {**named.update_arms(SMALL, 4, [8]), **named.ladder(SMALL, 4)}
    ends, curves = experiment.regime_frames(DIGITS, [0, 1, 2], arms, **SHARED)
    assert len(ends) == 3 * len(arms)
    assert (ends.seconds > 0).all()
    assert ends.loc[ends.arm == "+RA", "epochs"].eq(8.0).all()
    last = curves.groupby(["arm", "seed"], sort=False).last().reset_index()
    assert (last.accuracy.to_numpy() == ends.accuracy.to_numpy()).all()
    paired = experiment.difference(ends, "+RA", "SB")
    by_seed = ends.set_index(["arm", "seed"]).accuracy
    assert paired[2] == by_seed["+RA", 2] - by_seed["SB", 2]
    ratio = experiment.eigenvalue_ratio(ends, "+RA", "SB")
    assert (ratio > 0).all()
    equal = experiment.equal_frame(ends, [8], 16)
    assert equal.groupby(["updates", "arm"]).size().to_dict() == {
        (8, "all rules"): 3, (8, "alone"): 3, (16, "all rules"): 3,
    }  # fmt: skip
    steps = experiment.steps(ends, ["accuracy"]).set_index("step")
    assert steps.loc["+RA - SB", "mean"] == pytest.approx(paired.mean())
    assert list(steps.index) == ["LB - SB", "+LR - LB", "+GBN - +LR", "+RA - +GBN", "+RA - SB"]
    table = experiment.arm_table(ends, ["accuracy"])
    assert table.set_index("arm").samples["+RA"] == 512
    walked = experiment.regime_frames(DIGITS, [0, 1], named.walks(0.05, [8, 32], 16), **SHARED)[1]
    walk = experiment.shown_walks(walked)
    assert set(walk.batch) == {8, 32}
    assert walk.updates.min() == 1
    rungs_only = ends[ends.arm.isin(list(named.ladder(SMALL, 4)))]
    rungs = experiment.intervals(rungs_only, ["accuracy", "recomputed"])
    spectra = experiment.intervals(rungs_only, ["alpha", "leading"])
    shown = experiment.shown_curves(curves[curves.arm.isin(["SB", "+GBN", "+RA"])])
    figure = plots.longer_panels(rungs, shown, walk, spectra)
    assert len(figure.axes) == 6
    means = experiment.equal_means(equal)
    assert means.set_index(["updates", "arm"]).loc[(16, "all rules"), "mean"] == paired.mean()
    assert len(plots.updates_panel(equal, means, 0.005).axes) == 1
