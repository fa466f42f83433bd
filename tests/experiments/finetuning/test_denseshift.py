"""Notebook 84: splits, training, measures, frames, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.experiments.finetuning import (
    denseshift,
    denseshift_nets,
    denseshift_runs,
    denseshift_transfer,
    plots_denseshift,
)
from rclib.nets.coded_stack import CodedStack
from rclib.nets.power_of_two import DenseShift, Float
from rclib.training.stacked_optimizers import Settings, Updates

TASK: dict[str, Any] = {
    "pool": 1, "classes": [0, 10], "n_train": 200, "n_validation": 60, "n_test": 80,
}  # fmt: skip
SETTINGS: dict[str, Any] = {"width": 8, "task": TASK, "steps": 20, "batch_size": 20}
MOVE: dict[str, Any] = {
    "width": 8, "base": {"task": {**TASK, "classes": [0, 5]}, "steps": 20, "batch_size": 20},
    "task": {**TASK, "classes": [5, 10], "n_train": 60}, "steps": 12, "batch_size": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def own_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(store))
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture(scope="module")
def narrow(digits: Dataset, store: Path) -> denseshift.Studied:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(store))
        patch.setenv("TQDM_DISABLE", "1")
        arms = denseshift.arms_of(3, more=True)
        return denseshift.studied(
            digits, arms, ["low", "Kaiming"], [0.01, 0.05], [900], [3, 8], SETTINGS
        )


def test_every_seed_has_its_own_split(digits: Dataset) -> None:
    images = denseshift_nets.images_of(digits, [3, 8], {**TASK, "classes": [5, 10]})
    for s in range(2):
        parts = [set(images.places[part][s].tolist()) for part in images.places]
        assert [len(part) for part in parts] == [200, 60, 80]
        assert len(set.union(*parts)) == 340
    assert set(images.y[images.places["train"]].unique().tolist()) == set(range(5))
    assert not torch.equal(images.places["test"][0], images.places["test"][1])
    with pytest.raises(ValueError, match="at most"):
        denseshift_nets.images_of(digits, [3], {**TASK, "n_test": 5000})


def test_real_weights_train_as_adam_and_autograd_do(digits: Dataset) -> None:
    """Three updates of the stack, and of torch."""
    images = denseshift_nets.images_of(digits, [3], TASK)
    nets = CodedStack.start(Float(), [64, 8, 8, 10], [3], [None])
    other = {n: t[0].clone().requires_grad_() for n, t in nets.tensors.items()}
    denseshift_nets.trained(nets, images, [3], rates=[0.01], steps=3, batch_size=200)
    adam = torch.optim.Adam(list(other.values()), lr=0.01)
    x, y = (part[0] for part in images.part("train"))
    for t in range(3):
        adam.param_groups[0]["lr"] = 0.01 * (1 + np.cos(np.pi * t / 3)) / 2
        h = x
        for layer in (1, 2):
            h = torch.nn.functional.batch_norm(
                h @ other[f"W{layer}.w"].T, None, None, other[f"gain{layer}"],
                other[f"shift{layer}"], True,
            ).relu()  # fmt: skip
        adam.zero_grad()
        cross_entropy(h @ other["W3"].T + other["bias"], y).backward()  # type: ignore[no-untyped-call]
        adam.step()
    for name, tensor in nets.tensors.items():
        same = torch.isclose(tensor[0], other[name], atol=1e-4)
        if name == "W1.w":  # a pixel that does not vary has a gradient of rounding alone
            same = same[:, x.std(0) > 0.1]
        assert float(same.double().mean()) > 0.97, name


def test_frozen_signs_and_followed_ones(digits: Dataset) -> None:
    images = denseshift_nets.images_of(digits, [3], TASK)
    nets = CodedStack.start(DenseShift(3), [64, 8, 8, 10], [3], [1e-3])
    before = [w.clone() for w in nets.net.weights]
    options: dict[str, Any] = {"rates": [0.05], "steps": 20, "batch_size": 20}
    found = denseshift_nets.trained(nets, images, [3], **options, frozen=["sign"])
    assert found.ever.tolist() == found.flips.tolist() == [0.0]
    assert torch.equal(torch.sign(before[0]), torch.sign(nets.net.weights[0]))
    assert not torch.equal(before[0].abs(), nets.net.weights[0].abs())
    nets = CodedStack.start(DenseShift(3), [64, 8, 8, 10], [3], [1e-3])
    found = denseshift_nets.trained(nets, images, [3], **options)
    flat = [torch.sign(w).flatten() for w in (*before[:2], *nets.net.weights[:2])]
    apart = float((torch.cat(flat[:2]) != torch.cat(flat[2:])).double().mean())
    assert 0 < apart <= found.ever[0] <= found.flips[0]
    assert found.curve.shape == (1, denseshift_nets.POINTS)


def test_measures_by_hand() -> None:
    w = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    root = (10 / 4) ** 0.5
    assert denseshift_nets.over_edge(w) == pytest.approx(3 / (root * 2 * 2**0.5))
    assert np.isnan(denseshift_nets.over_edge(torch.zeros(2, 3)))
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(9, 5, generator=generator), torch.randn(4, 9, generator=generator)
    means, sizes = denseshift_nets.coupling(one, two)
    assert means == pytest.approx(np.corrcoef(one.mean(1), two.mean(0))[0, 1], abs=1e-5)
    squares = one.square().mean(1), two.square().mean(0)
    assert sizes == pytest.approx(np.corrcoef(*squares)[0, 1], abs=1e-5)
    assert np.isnan(denseshift_nets.coupling(torch.ones(9, 5), two)[0])
    nets = CodedStack.start(DenseShift(2), [6, 4, 4, 3], [0], [1.0])
    nets.net.weights[0] = torch.tensor([1.0, -2.0]).repeat(1, 4, 3)
    nets.net.weights[1] = torch.full((1, 4, 4), 2.0)
    shares = denseshift_nets.level_shares(nets)[0]
    assert shares[:3] == pytest.approx([0, 12 / 40, 28 / 40])
    with pytest.raises(ValueError, match="code must be"):
        denseshift_nets.code_of({"kind": "DenseShift", "depth": 3})


def test_rate_and_start_are_one_number_to_a_latent() -> None:
    """A start and a rate k times as large: latents k times as large, the same weights."""
    code = DenseShift(3)
    ends = []
    for k in (1.0, 8.0):
        latents = {
            n: k * t for n, t in code.start((5, 4), 1.0, torch.Generator().manual_seed(0)).items()
        }
        stacked = {n: t[None] for n, t in latents.items()}
        updates = Updates(Settings("adam", lr=0.1 * k), stacked, 20)
        generator = torch.Generator().manual_seed(1)
        for t in range(20):
            gradient = torch.randn(1, 5, 4, generator=generator)
            amounts = updates.step(t, list(code.pull(stacked, gradient).values()))
            torch._foreach_sub_(list(stacked.values()), amounts)
        ends.append(stacked)
    for name in code.names:
        assert torch.allclose(8.0 * ends[0][name], ends[1][name], atol=1e-5)


def test_cells_and_frames(narrow: denseshift.Studied) -> None:
    tuning = narrow.tuning
    for arm, (std, rate) in narrow.cells.items():
        own = tuning[tuning.arm == arm].set_index(["std", "rate"]).validation
        assert own.idxmin() == (std, rate)
        assert ("one" in own.index.get_level_values(0)) == arm.startswith("one latent")
    table = denseshift.table(narrow).set_index("arm")
    assert table.loc["dense 3, signs fixed", "ever"] == 0
    assert bool(table.end.all())  # two rates are both ends
    minus = denseshift.difference(narrow.frame, "dense 3", "float", "train")
    assert list(minus.index) == [3, 8]
    bits = denseshift.bits_frame({8: narrow})
    assert sorted(set(bits.bits)) == [0, 1, 2, 3]
    assert len(bits) == 2 * 6
    shares = denseshift.share_frame(narrow, ["dense 3", "with zero 3"])
    assert shares.groupby(["arm", "when"])["share"].sum().to_numpy() == pytest.approx(1)
    start = shares[(shares.arm == "dense 3") & (shares.when == "start")].set_index("size")["share"]
    assert start.to_dict() == pytest.approx({"1": 0.5, "2": 0.25, "4": 0.125, "8": 0.125}, abs=0.06)
    gains = denseshift.gain_frame({8: narrow})
    assert set(gains.arm) == {"2 bits", "3 bits"}
    worst = tuning.assign(validation=np.nan)
    with pytest.raises(ValueError, match="without divergence"):
        denseshift.chosen_cells(worst)
    weights = denseshift.weight_frame(narrow)
    assert len(weights) == 2 * len(narrow.runs)


def test_grid_and_controls(digits: Dataset, narrow: denseshift.Studied, tmp_path: Path) -> None:
    arms = {"dense 3": denseshift.arms_of(3, more=False)["dense 3"]}
    cells = {"dense 3": [(std, rate) for std in denseshift.STARTS for rate in (0.01, 0.05)]}
    grid = denseshift.ends_frame(denseshift.run_cells(digits, arms, cells, [3, 8], SETTINGS))
    by_hand = grid[grid.seed == 3][["ever", "train"]].rank().corr().iloc[0, 1]
    assert denseshift.ranked(grid)[3] == pytest.approx(by_hand)
    gap = denseshift.at_rate(grid, "low", "one", 0.01)
    wide = grid[(grid.seed == 8) & (grid.rate == 0.01)].set_index("std").train
    assert gap[8] == pytest.approx(wide["low"] - wide["one"])
    assert len(denseshift.best_starts(grid, narrow.tuning, "dense 3")) == 2
    cloud = denseshift.freezing(narrow, grid[grid["std"] == "one"])
    assert (cloud.train < 2.29).all()
    assert "one" in set(cloud["std"])
    runs = denseshift.run_cells(
        digits, denseshift.CONTROLS,
        {name: [narrow.cells["dense 3"]] for name in denseshift.CONTROLS}, [3, 8], SETTINGS,
    )  # fmt: skip
    frame = pd.concat([denseshift.curves(runs), denseshift.curves(narrow.runs)])
    same = denseshift.curve_gap(frame, "times 4", "dense 3")
    other = denseshift.curve_gap(frame, "no norm, times 4", "no norm")
    assert (same < other / 5).all()
    gains = denseshift.gain_frame({8: narrow})
    by_start = grid.assign(arm=grid["std"])[["arm", "rate", "seed", "train"]]
    weights = denseshift.weight_frame(narrow)
    shown = weights[weights.arm.isin(["float", "dense 3"])]
    plots_denseshift.more_panels(gains, by_start, shown, denseshift.curves(runs)).savefig(
        tmp_path / "more.png"
    )


def test_networks_that_move(digits: Dataset, narrow: denseshift.Studied, tmp_path: Path) -> None:
    rates = {"base": [0.01, 0.05], "task": [0.001, 0.02]}
    moved, chosen = denseshift_transfer.transferred(digits, rates, [900], [3, 8], MOVE, 0.001)
    assert len(chosen) == 2 * len(denseshift_transfer.TRANSFER)
    assert set(chosen.base_rate) <= {0.01, 0.05}
    assert (moved.groupby(["arm", "moved", "seed"]).chosen.sum() == 1).all()
    found = denseshift_transfer.move_differences(moved, 0.001)
    assert all(len(values) == 2 for values in found.values())
    bits, cloud = denseshift.bits_frame({8: narrow}), denseshift.freezing(narrow, narrow.tuning)
    shares = denseshift.share_frame(narrow, ["dense 3", "with zero 3"])
    plots_denseshift.main_panels(bits, cloud, shares, moved).savefig(tmp_path / "main.png")


def test_a_moved_network_begins_with_what_was_pre_trained(digits: Dataset) -> None:
    """Without updates that move anything, its signs are those of pre-training."""
    config = denseshift_runs.TINY["transfer_runs"]
    task = {**TASK, "classes": [5, 10], "n_train": 60}
    group = [{"seed": 3, "rate": 0.0, "std": "low", "base_rate": 0.05, "moved": m} for m in (1, 0)]
    run = denseshift_runs.transfer_runs(
        digits, group=group, code=config["code"], width=8, base=MOVE["base"], task=task, steps=2,
        batch_size=20,
    )  # fmt: skip
    assert run["ever"].tolist() == [0.0, 0.0]
    assert run["end"][0, 0] != run["end"][1, 0]
