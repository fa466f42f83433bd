"""pruning.layer_lottery: scores of blocks by identities, tickets, claims and panels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset, load
from rclib.experiments.pruning import layer_lottery as experiment
from rclib.experiments.pruning import layer_runs as runs
from rclib.experiments.pruning import plots_layers as plots
from rclib.nets.residual import residual_stack
from rclib.training.saliency import grasp, signed, snip

NET: dict[str, Any] = {
    "pool": 1, "width": 8, "inner": 6, "blocks": 3, "norm": False, "conv": False, "n_score": 30,
    "batch_size": 20, "steps": 6, "rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits").subset(80, 40)


def test_signed_scores_of_a_block_are_the_derivative_of_its_scale(digits: Dataset) -> None:
    """Σ θ g over V is dL/dc for a block scaled by c, at c = 1."""
    start = residual_stack(inputs=64, width=8, inner=6, blocks=3, classes=10, seeds=[0])
    start = replace(start, tensors={n: t.double() for n, t in start.tensors.items()})
    x, y = digits.x_train[:30].double(), digits.y_train[:30]
    found = signed(start, x, y, cross_entropy, ["V"], own=False)["V"].sum((2, 3))
    scale = torch.ones(1, 3, 1, 1, dtype=torch.double, requires_grad=True)
    outputs = start.each({**start.tensors, "V": scale * start.tensors["V"]}, x[None])
    (slope,) = torch.autograd.grad(cross_entropy(outputs[0], y), scale)
    assert torch.allclose(found, slope.view(1, 3))


def test_permuted_blocks_that_see_one_input_have_permuted_scores(digits: Dataset) -> None:
    start = residual_stack(inputs=64, width=8, inner=6, blocks=3, classes=10, seeds=[0])
    tensors = {n: t.double() for n, t in start.tensors.items()}
    tensors["V"] = 1e-4 * tensors["V"]
    order = [2, 0, 1]
    moved = tensors | {name: tensors[name][:, order] for name in "UbV"}
    x, y = digits.x_train[:30].double(), digits.y_train[:30]
    # Not GraSP: along g the matrices V grow, so that it feels the order even in this limit.
    for score in (signed, snip):
        one, other = (
            score(replace(start, tensors=t), x, y, cross_entropy, ["U", "V"], own=False)
            for t in (tensors, moved)
        )
        for name in "UV":
            own = one[name][:, order]
            assert torch.allclose(other[name], own, rtol=1e-3, atol=1e-3 * float(own.abs().max()))


def test_removing_what_grasp_removes_raises_the_norm_of_the_gradient(digits: Dataset) -> None:
    """To first order gᵀg / 2 changes by -θᵀHg: its sign decides which end goes."""
    start = residual_stack(inputs=64, width=8, inner=6, blocks=3, classes=10, seeds=[0])
    start = replace(start, tensors={n: t.double() for n, t in start.tensors.items()})
    x, y = digits.x_train[:30].double(), digits.y_train[:30]
    score = grasp(start, x, y, cross_entropy, ["V"], own=False)["V"]

    def half_norm(v: torch.Tensor) -> float:
        leaf = v.clone().requires_grad_()
        out = start.each({**start.tensors, "V": leaf}, x[None])
        (g,) = torch.autograd.grad(cross_entropy(out[0], y), leaf)
        return float(g.square().sum() / 2)

    v, eps = start.tensors["V"], 1e-4
    for block in range(3):
        less = v.clone()
        less[:, block] *= 1 - eps
        change = (half_norm(less) - half_norm(v)) / eps
        assert change == pytest.approx(float(score[0, block].sum()), rel=1e-2, abs=1e-5)


def test_scores_and_the_criteria_made_of_them(digits: Dataset) -> None:
    found = runs.block_scores(digits, group=[{"seed": 0}, {"seed": 2}], net=NET)
    assert np.allclose(found["GraSP"], -found["anti-GraSP"])
    assert (found["SNIP"] >= np.abs(found["signed"])).all()
    assert (found["KL"] >= 0).all()
    assert found["zeroed"].max() < 1e-5
    order = runs.random_blocks(2, 3)
    assert experiment.kept_blocks(found["random"][1], 1) == sorted(order[:2])
    # Nothing is left after the last cut: as all blocks at zero.
    assert found["cut"].shape == (2, 3)
    assert experiment.kept_blocks(np.array([0.3, -1.0, 2.0, 0.3]), 2) == [2, 3]


def test_units_are_scored_by_all_of_their_weights() -> None:
    u, b, v = torch.rand(1, 2, 3, 4), torch.rand(1, 2, 3), torch.rand(1, 2, 4, 3)
    found = runs.unit_scores({"U": u, "b": b, "v": v, "V": v})
    assert float(found[0, 1, 2]) == pytest.approx(
        float(u[0, 1, 2].sum() + b[0, 1, 2] + v[0, 1, :, 2].sum())
    )


def test_frames_claims_and_panels(digits: Dataset) -> None:
    criteria = ["GraSP", "SNIP", "random"]
    plan = [{"removed": 1, "criteria": criteria, "units": ["random", "GraSP"]},
            {"removed": 2, "criteria": criteria, "units": ["random", "GraSP"]}]  # fmt: skip
    seeds = [0, 1, 2]
    frame = experiment.ticket_frame(digits, seeds, plan, group=4, **NET)
    scores = experiment.scores_of(digits, seeds, group=4, **NET)
    assert (frame[frame.arm == "dense"].gap == 0).all()
    # A ticket with every block is the dense network, bit for bit.
    kept = {"seed": 1, "kept": [0, 1, 2]}
    again = runs.tickets(digits, group=[kept], removed=0, units="", left=6, net=NET)
    dense = frame[(frame.arm == "dense") & (frame.seed == 1)].iloc[0]
    assert float(again["accuracy"][0]) == dense.accuracy
    assert float(again["moved"][0]) == dense.moved
    units = frame[(frame.arm == "units") & (frame.removed == 1)].cost.iloc[0]
    assert units == frame[(frame.arm == "layers") & (frame.removed == 1)].cost.iloc[0]
    linear = frame[frame.arm == "linear"]
    assert linear.moved.isna().all()
    assert linear.lost.mean() == pytest.approx(1.0)
    found = experiment.claim_values(frame, scores, pooled=[1, 1, 2], most=2, blocks=3)
    by = frame.set_index(["arm", "criterion", "removed", "seed"])
    own = by.accuracy["layers", "GraSP", 2, 1] - by.accuracy["dense", "random", 0, 1]
    assert found["wins_many"][1] == pytest.approx(own)
    pooled = [
        by.accuracy["layers", "SNIP", p, 2] - by.accuracy["layers", "random", p, 2]
        for p in (1, 1, 2)
    ]
    assert found["snip_is_random"][2] == pytest.approx(np.mean(pooled))
    assert "kl_is_random" not in found
    cut = experiment.cut_frame(frame, scores)
    one = cut[(cut.removed == 1) & (cut.seed == 2)].gap.item()
    assert found["cut_trained"][2] == pytest.approx(one)
    conv = experiment.conv_values(frame, 1)
    assert conv["conv_wins"][0] == found["wins_few"][0]
    assert experiment.conv_values(None, 1) == {}
    with pytest.raises(ValueError, match="layers by 'KL', 1 removed: not run"):
        experiment.value(frame, "gap", "KL", 1)
    with pytest.raises(ValueError, match=r"criteria must be of .*, got 'L1'"):
        experiment.ticket_frame(digits, [0], [{"removed": 1, "criteria": ["L1"]}], group=1, **NET)
    with pytest.raises(ValueError, match="kept must be 2 blocks of every member"):
        runs.tickets(digits, group=[kept], removed=1, units="", left=6, net=NET)
    times = experiment.time_ratios(digits, [0], [1, 2], members=2, repeats=1, **NET)
    assert (times[["layers", "units"]] > 0).all(axis=None)
    table, speeds = experiment.gap_table(frame), experiment.speed_frame(frame, times)
    assert set(speeds.kind) == {"counted", "layers", "units"}
    assert len(plots.layer_panels(table, speeds).axes) == 3
    inside = experiment.inside_frame(frame)
    assert (inside[inside.removed == 0].moved == 1).all()
    assert len(plots.inside_panels(inside, cut, table).axes) == 4
    assert len(plots.inside_panels(inside, cut, table.head(0)).axes) == 3
    plt.close("all")


def test_convolutions_are_trained_by_the_same_runs() -> None:
    x = torch.randn(48, 48, generator=torch.Generator().manual_seed(0))
    data = Dataset(
        "cifar10", "c", x, torch.arange(48) % 3, x[:20], torch.arange(20) % 3, 3, "0" * 64
    )
    o = NET | {"conv": True, "steps": 2}
    group = [{"seed": 0, "kept": [0, 1]}, {"seed": 5, "kept": [0, 2]}]
    found = runs.tickets(data, group=group, removed=1, units="", left=6, net=o)
    assert found["cost"][0] == 16 * 9 * (3 * 8 + 2 * 2 * 8 * 6) + 24
    assert np.isfinite(found["spikes"]).all()
