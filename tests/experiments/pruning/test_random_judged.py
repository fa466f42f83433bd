"""pruning.random_judged: GraSP's masks, an attack, images of another kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset, load
from rclib.experiments.pruning import random_judged as judged
from rclib.experiments.pruning import random_runs as stored
from rclib.training.saliency import grasp

CONFIG: dict[str, Any] = {
    "pool": 1, "n": 200, "network": {"widths": [20, 20]}, "rate": 1e-2, "batch_size": 50,
    "steps": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits").subset(300, 100)


def test_networks_are_those_of_the_other_run(data: Dataset) -> None:
    """What is trained is the same; only what is looked at differs."""
    group = [{"seed": 0}, {"seed": 1}]
    one = judged.judged_runs(data, group=group, scheme="ER", density=0.3, attack=0.1, **CONFIG)
    other = stored.random_pruning_runs(data, group=group, scheme="ER", density=0.3, **CONFIG)
    for name in ("accuracy", "nll", "ece", "kept", "sizes"):
        np.testing.assert_array_equal(one[name], other[name])


def test_grasp_keeps_its_lowest_scores(data: Dataset) -> None:
    start = stored.he_networks({"widths": [20, 20]}, [0, 1], 64, 10)
    batch = (data.x_train[None, :50].expand(2, -1, -1), data.y_train[None, :50].expand(2, -1))
    masks = judged._masks("GraSP", 0.2, start, [0, 1], batch)
    scores = grasp(start, *batch, cross_entropy, list(masks), own=True)
    flat, kept = (torch.cat([t[n][1].flatten() for n in masks]) for t in (scores, masks))
    assert int(kept.sum()) == round(0.2 * len(kept))
    assert float(flat[kept].max()) <= float(flat[~kept].min())
    shuffled = judged._masks("GraSP shuffled", 0.2, start, [0, 1], batch)
    for name, mask in masks.items():
        assert torch.equal(shuffled[name].flatten(1).sum(1), mask.flatten(1).sum(1))
    assert not torch.equal(shuffled["W2"], masks["W2"])
    with pytest.raises(ValueError, match="scheme must be"):
        judged._masks("SNIP", 0.2, start, [0, 1], batch)


def test_an_attack_moves_every_input_against_its_own_network(data: Dataset) -> None:
    nets = stored.he_networks({"widths": [20, 20]}, [0, 1], 64, 10)
    x, y = data.x_test, data.y_test
    found = judged._attacked(nets, x, y, 0.2)
    for s in range(2):
        inputs = x.clone().requires_grad_()
        cross_entropy(nets(inputs)[s], y).backward()
        assert inputs.grad is not None
        moved = x + 0.2 * inputs.grad.sign()
        right = (nets(moved)[s].argmax(-1) == y).double().mean()
        assert float(found[s]) == pytest.approx(float(right))
    plain = (nets(x).argmax(-1) == y).double().mean(1)
    assert torch.equal(judged._attacked(nets, x, y, 0.0), plain)
    trained = judged.judged_runs(
        data, group=[{"seed": 0}], scheme="dense", density=1.0, attack=0.5, **CONFIG
    )
    assert trained["attacked"][0] < trained["accuracy"][0]


def test_pairs_are_counted_by_hand() -> None:
    inside = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55]]).log()
    outside = torch.tensor([[0.5, 0.5], [0.3, 0.7]]).log()
    assert judged._above(inside, outside) == pytest.approx((2 + 1 + 1) / 6)
