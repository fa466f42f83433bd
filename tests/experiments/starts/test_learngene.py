"""starts.learngene*: tied networks, expansion, runs, costs and panels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset, load
from rclib.experiments.starts import learngene as experiment
from rclib.experiments.starts import learngene_nets as nets
from rclib.experiments.starts import learngene_runs as stored
from rclib.experiments.starts import plots_learngene as plots

SETTINGS: dict[str, Any] = {
    **{k: v for k, v in stored.TINY["learngene_runs"].items() if k != "group"},
    "n": 200, "steps": 30, "tune": 6, "whole": 20, "at": [0, 6], "teacher": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


def test_stages_are_kept_and_the_authors_list_is_one() -> None:
    assert nets.tied_order([3, 2]) == (0, 0, 0, 1, 1)
    authors = (3, 3, 4, 3, 3)
    assert nets.stage_of_layers(authors, 12) == (0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4)
    assert nets.stage_of_layers(authors, 16) == nets.tied_order(authors)
    for stages in (authors, (2, 2, 2, 2, 2), (1, 3)):
        for depth in range(1, 17):
            found = nets.stage_of_layers(stages, depth)
            assert len(found) == depth
            assert list(found) == sorted(found)
            if depth >= 2 * len(stages):
                assert set(found) == set(range(len(stages)))
    with pytest.raises(ValueError, match=r"stages\[1\] must"):
        nets.tied_order([2, 0])
    with pytest.raises(ValueError, match="depth must"):
        nets.stage_of_layers([2], 0)


def test_a_tied_gradient_is_the_sum_of_the_untied_ones() -> None:
    torch.manual_seed(0)
    tied = nets.Residual(7, 6, 9, 4, (0, 0, 1)).double()
    free = nets.Residual(7, 6, 9, 4, (0, 1, 2)).double()
    with torch.no_grad():
        for name, p in free.named_parameters():
            q = dict(tied.named_parameters())[name]
            p.copy_(q[torch.tensor([0, 0, 1])] if name in nets.PARTS else q)
    x, y = torch.randn(11, 7).double(), torch.randint(4, (11,))
    for model in (tied, free):
        cross_entropy(model(x), y).backward()
    assert torch.allclose(tied(x), free(x), rtol=1e-12)
    for name in nets.PARTS:
        one, three = (dict(m.named_parameters())[name].grad for m in (tied, free))
        assert one is not None
        assert three is not None
        assert torch.allclose(one[0], three[0] + three[1], atol=1e-12)
        assert torch.allclose(one[1], three[2], atol=1e-12)


def test_a_descendant_of_all_layers_is_the_tied_network() -> None:
    stages = [2, 1]
    source = nets.networks(7, 6, 9, 4, nets.tied_order(stages), [0, 1])
    shell = nets.networks(7, 6, 9, 4, range(3), [5, 6])
    same = nets.expanded(source, nets.stage_of_layers(stages, 3), shell)
    x = torch.randn(11, 7)
    assert torch.equal(same(x), source(x))
    # Copies, not the tensors themselves.
    same.tensors["w1"][:, 0] += 1
    assert not torch.equal(same.tensors["w1"][:, 0], same.tensors["w1"][:, 1])
    assert torch.equal(source(x), nets.networks(7, 6, 9, 4, (0, 0, 1), [0, 1])(x))
    stem = nets.expanded(source, (0, 0, 1), shell, blocks=False)
    assert torch.equal(stem.tensors["w1"], shell.tensors["w1"])
    assert torch.equal(stem.tensors["w_in"], source.tensors["w_in"])


def test_a_block_that_is_zero_can_be_repeated() -> None:
    source = nets.networks(7, 6, 9, 4, (0, 1), [0])
    source.tensors["w2"][:, 1] = 0
    x = torch.randn(5, 7)
    found = [
        nets.expanded(source, (0, *[1] * m), nets.networks(7, 6, 9, 4, range(1 + m), [1]))(x)
        for m in (1, 4)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], source(x))


def test_copies_of_one_stage_part_with_the_first_step() -> None:
    """Untied: layers of one block have gradients of their own."""
    source = nets.networks(7, 6, 9, 4, (0, 1), [0])
    own = nets.expanded(source, (0, 0, 1), nets.networks(7, 6, 9, 4, range(3), [1]))
    w1 = own.tensors["w1"].clone().requires_grad_()
    out = own.one({**own.member(0), "w1": w1[0]}, torch.randn(8, 7))
    cross_entropy(out, torch.arange(8) % 4).backward()
    assert w1.grad is not None
    assert torch.equal(w1[0, 0], w1[0, 1])
    after = (w1 - 0.1 * w1.grad)[0]
    assert float((after[0] - after[1]).detach().abs().max()) > 1e-6


def test_repeating_a_small_linear_layer_is_the_flow() -> None:
    """z + ε A z repeated 1/ε times tends to exp(A) z, error of order ε."""
    torch.manual_seed(1)
    a = 0.3 * torch.randn(4, 4).double()
    z = torch.randn(4).double()
    errors = []
    for m in (10, 20, 40):
        one = torch.eye(4).double() + a / m
        errors.append(
            float((torch.linalg.matrix_power(one, m) @ z - torch.matrix_exp(a) @ z).norm())
        )
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.2)


def test_runs_hold_what_they_say(data: Dataset) -> None:
    run = experiment.learngenes(data, [0, 1], SETTINGS)
    once = experiment.sources(run)
    assert list(once.columns) == ["tied", "plain", "single", "untied"]
    arms = experiment.by_arm(run, SETTINGS["at"])
    # At once a descendant of as many layers is the tied network.
    at_once = arms[(arms.arm == "SWS") & (arms.step == 0)].set_index("seed").accuracy
    assert at_once.tolist() == once.tied.tolist()
    assert (once.tied > 0.2).all()
    scratch = arms[(arms.arm == "scratch") & (arms.step == 0)].accuracy
    assert scratch.max() < 0.3
    gain = experiment.gain(arms, "SWS", "scratch", 0)
    assert (gain > 0).all()
    with pytest.raises(ValueError, match=r"step must be one of \[0, 6\], got 5"):
        experiment.gain(arms, "SWS", "scratch", 5)
    every = experiment.by_depth(run, SETTINGS["at"], 3, SETTINGS["depths"])
    assert set(every.depth) == {2, 3}
    curves = experiment.scratch_curves(run, 20, 3, SETTINGS["depths"])
    assert sorted(curves.step.unique()) == list(range(2, 21, 2))
    # The first updates of the long scratch are those of the tuned one.
    six = curves[(curves.depth == 3) & (curves.step == 6)].set_index("seed").accuracy
    assert six.tolist() == arms[(arms.arm == "scratch") & (arms.step == 6)].accuracy.tolist()
    costs = experiment.costs(every, curves, layers=3, steps=30, tune=6)
    assert (costs.sws == 3 * 30 + 5 * 6).all()
    weights = experiment.inside(run)
    assert weights.teacher.isna().all()
    assert (weights.kept <= 1).all()
    assert ((weights.same > 0.5) & (weights.same <= 1 + 1e-9)).all()
    overlaps = pd.DataFrame({"kind": ["a", "b"], "seed": [0, 0], "overlap": [0.9, 0.1]})
    assert len(plots.learngene_panels(arms, every, overlaps, tied=0.3).axes) == 3


def test_a_teacher_is_learned_from(data: Dataset) -> None:
    taught = experiment.learngenes(
        data, [0], {**SETTINGS, "teacher": {"dim": 8, "inner": 16, "steps": 1}}
    )
    # A teacher that knows nothing teaches nothing.
    assert float(experiment.inside(taught).teacher[0]) < 0.5
    alone = experiment.learngenes(data, [0], SETTINGS)
    assert experiment.sources(taught).tied[0] < experiment.sources(alone).tied[0]


def test_costs_are_counted_by_hand() -> None:
    depths = pd.DataFrame({
        "arm": ["SWS", "SWS"], "depth": [2, 4], "seed": [0, 0], "step": [5, 5],
        "accuracy": [0.5, 0.9],
    })  # fmt: skip
    scratch = pd.DataFrame({
        "depth": [2, 2, 4, 4], "seed": [0] * 4, "step": [10, 20, 10, 20],
        "accuracy": [0.4, 0.6, 0.5, 0.8],
    })  # fmt: skip
    found = experiment.costs(depths, scratch, layers=4, steps=7, tune=5).iloc[0]
    assert found.sws == 4 * 7 + (2 + 4) * 5
    assert found.scratch == pytest.approx(2 * 15 + 4 * 20)  # the second never gets there
    assert found.reached == 1
    assert found.ratio == pytest.approx(110 / 58)
    level = depths.assign(accuracy=[0.0, 0.4])
    assert experiment.costs(level, scratch, layers=4, steps=7, tune=5).scratch[0] == 4 * 8


def test_storage_is_what_modules_hold() -> None:
    def size(order: list[int]) -> int:
        return sum(p.numel() for p in nets.Residual(7, 6, 9, 4, order).parameters())

    found = experiment.storage([2, 3], stages=2, d=7, dim=6, inner=9, classes=4)
    assert found["every depth"] == size([0, 1]) + size([0, 1, 2])
    assert found["learngene"] == size([0, 1])
    assert found["ratio"] == pytest.approx(found["every depth"] / found["learngene"])


def test_overlaps_are_over_pairs_of_one_stage_and_of_others() -> None:
    source = nets.networks(7, 6, 9, 4, (0, 1), [0])
    shell = nets.networks(7, 6, 9, 4, range(3), [1])
    made = nets.expanded(source, (0, 0, 1), shell)
    same, different = stored._overlaps(made, torch.tensor([0, 0, 1]))[0].tolist()
    assert same == pytest.approx(1.0)
    vectors = [np.linalg.svd(source.tensors["w1"][0, b].numpy())[2][0] for b in (0, 1)]
    assert different == pytest.approx(abs(float(vectors[0] @ vectors[1])), abs=1e-5)
