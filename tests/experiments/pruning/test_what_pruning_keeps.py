"""pruning.what_pruning_keeps: counts, masks and contrasts against plain routes."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset, load
from rclib.experiments.pruning import keeps_masks as masks_of
from rclib.experiments.pruning import keeps_runs as runs
from rclib.experiments.pruning import lottery_runs, plots_keeps
from rclib.experiments.pruning import what_pruning_keeps as experiment
from rclib.nets.densities import random_masks
from rclib.nets.masks import Masks, apply_masks, prune_layers
from rclib.nets.stack import Stack

TINY = runs.TINY["ways_to_keep"]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits").subset(60, 40)


@pytest.fixture(scope="module")
def found(digits: Dataset) -> pd.DataFrame:
    shared = {k: v for k, v in TINY.items() if k != "group"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", "")
        patch.setenv("TQDM_DISABLE", "1")
        return experiment.keep_frame(digits, [0, 3], group=2, **shared)


def made(digits: Dataset) -> tuple[Masks, Stack, dict[str, Masks], torch.Tensor, torch.Tensor]:
    start = lottery_runs.starts_of({"widths": [12, 8]}, [0, 3], 64, 10)
    names = lottery_runs.weights_of(start)
    full = {name: torch.ones_like(start.tensors[name], dtype=torch.bool) for name in names}
    ticket = prune_layers(start.tensors, full, 0.7)
    x, y = digits.x_train[:20].expand(2, 20, 64), digits.y_train[:20].expand(2, 20)
    found = masks_of.masks_like(ticket, start, start, x, y, [0, 3], n_masks=4)
    return ticket, start, found, x, y


def test_every_arm_keeps_as_many_weights(found: pd.DataFrame) -> None:
    kept = found.pivot_table(index="seed", columns="arm", values="kept")
    equal = kept.drop(columns=["dense", "units", "units_fresh"])
    assert equal.nunique(axis=1).tolist() == [1, 1]
    count = equal.iloc[0, 0]
    assert (kept["units"] <= count).all()
    assert (kept["units"] > 0.9 * count).all()
    assert (kept["dense"] == 64 * 12 + 12 * 8 + 80).all()
    # Layer by layer where the ticket's counts are asked for.
    for column in ("density_1", "density_2", "density_3"):
        own = found[found["mask"].isin(["ticket", "shuffled", "one_shot", "start_mask"])]
        assert own.groupby("seed")[column].nunique().tolist() == [1, 1]


def test_masks_are_drawn_apart_and_chosen_by_the_loss(digits: Dataset) -> None:
    ticket, start, found, x, y = made(digits)
    count = [sum(int(mask[s].sum()) for mask in ticket.values()) for s in range(2)]
    for kind, masks in found.items():
        own = [sum(int(mask[s].sum()) for mask in masks.values()) for s in range(2)]
        assert own == count or kind == "units"
    assert not torch.equal(found["er"]["W1"], found["er_again"]["W1"])
    ends = [torch.cat([found[k][n][0].flatten() for n in ticket]) for k in
            ("grasp", "grasp_other_end")]  # fmt: skip
    assert not bool((ends[0] & ends[1]).any())

    def loss(masks: Masks, s: int) -> float:
        tensors = apply_masks(start.tensors, masks)
        return float(cross_entropy(start.each(tensors, x)[s], y[s]))

    shapes = {name: mask.shape[1:] for name, mask in ticket.items()}
    for s, seed in enumerate((0, 3)):
        densities = {name: float(mask[s].double().mean()) for name, mask in found["er"].items()}
        each = []
        for k in range(4):
            drawn = lottery_runs.drawn_elsewhere(seed, 100 + k)
            each.append(loss(random_masks(shapes, densities, [drawn, drawn]), s))
        assert loss(found["searched"], s) == pytest.approx(min(each), abs=1e-6)


def test_units_are_whole_and_the_largest(digits: Dataset) -> None:
    _, start, found, _, _ = made(digits)
    masks, tensors = found["units"], start.tensors
    one, two = (tensors[name].abs().sum(2) for name in ("W1", "W2"))
    for s in range(2):
        first, second = masks["W1"][s].any(1), masks["W2"][s].any(1)
        assert bool(masks["W1"][s][first].all())
        torch.testing.assert_close(masks["W2"][s], second[:, None] & first[None])
        torch.testing.assert_close(masks["W3"][s], second.expand(10, 8))
        for norms, kept in ((one[s], first), (two[s], second)):
            assert norms[kept].min() > norms[~kept].max()


def test_kept_units_use_the_count() -> None:
    for count in (300, 500, 2000):
        one, two = masks_of.kept_units([64, 40, 20, 10], count)
        weights = 64 * one + one * two + 10 * two
        assert weights <= count
        best = max(
            64 * a + a * b + 10 * b
            for a, b in itertools.product(range(1, 41), range(1, 21))
            if 64 * a + a * b + 10 * b <= count and abs(b - a / 2) <= 1
        )
        assert weights >= 0.93 * best


def test_counts_fit_or_are_refused() -> None:
    shapes = {"W1": (5, 7), "W2": (3, 5)}
    densities = masks_of.with_count(shapes, {"W1": 0.41, "W2": 0.37}, 21)
    counts = [densities["W1"] * 35, densities["W2"] * 15]
    assert counts == pytest.approx([15, 6])
    with pytest.raises(ValueError, match="count must fit"):
        masks_of.with_count(shapes, {"W1": 0.5, "W2": 0.5}, 200)
    small = load("digits").subset(40, 20)
    with pytest.raises(ValueError, match="n_train must be at most 40"):
        runs.ways_to_keep(small, **(TINY | {"n_train": 50}))


def test_parts_differ_in_one_thing() -> None:
    for part, (first, second) in experiment.CONTRASTS.items():
        (mask, values), (other, others) = runs.ARMS[first], runs.ARMS[second]
        if part in ("values", "signs alone", "sizes alone"):
            assert mask == other
            assert values != others
        else:  # a random place has no value of its own, so that fresh and starting ones are alike
            assert mask != other
            assert values == others or part == "positions"


def test_tables_by_hand(found: pd.DataFrame) -> None:
    table = experiment.arm_table(found).set_index("arm")
    own, other = (experiment.column(found, arm) for arm in ("ticket", "er"))
    assert table.loc["ticket", "mean"] == pytest.approx((own - other).mean())
    assert table.loc["er", ["mean", "low", "high"]].tolist() == [0.0, 0.0, 0.0]
    parts = experiment.contrast_table(found).set_index("part")
    expected = (own - experiment.column(found, "ticket_fresh")).mean()
    assert parts.loc["values", "mean"] == pytest.approx(expected)
    link = experiment.link_table(found).set_index(["mask", "measure"])
    degrees = experiment.column(found, "ticket", "degrees")
    shuffled = experiment.column(found, "ticket", "shuffled")
    assert link.loc[("ticket", "degrees"), "mean"] == pytest.approx((degrees - shuffled).mean())
    assert link.loc[("dense", "spikes"), "mean"] == 0
    with pytest.raises(ValueError, match="arm must be of"):
        experiment.column(found, "other")
    with pytest.raises(ValueError, match="part must be of"):
        experiment.contrast(found, "other")


def test_degrees_of_known_masks() -> None:
    """Units with all their weights, or none, in and out: correlation one."""
    keep = torch.tensor([True, True, False, False])
    masks = {"W1": keep[:, None].expand(4, 6), "W2": keep.expand(3, 4)}
    assert runs._degrees(masks) == pytest.approx(1.0)
    full = {"W1": torch.ones(4, 6, dtype=torch.bool), "W2": torch.ones(3, 4, dtype=torch.bool)}
    assert runs._degrees(full) == 0.0
    random = np.random.default_rng(0)
    noise = torch.from_numpy(random.standard_normal((60, 80)))
    assert runs._spikes(noise) == 0
    assert runs._spikes(noise + 1.0) == 1
    assert runs._spikes(torch.zeros(5, 5)) == 0


def test_figure_has_a_line_for_every_arm(found: pd.DataFrame) -> None:
    tables = (experiment.arm_table(found), experiment.contrast_table(found))
    figure = plots_keeps.keep_panels(*tables, experiment.link_table(found))
    named = [arm for group in plots_keeps.GROUPS.values() for arm in group]
    assert sorted([*named, "dense"]) == sorted(runs.ARMS)
    assert len(figure.axes[0].get_yticks()) == len(named)
    assert len(figure.axes) == 4
    plt.close(figure)
