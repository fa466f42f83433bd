"""nets.units: which units are kept, and that slices and masks are one network."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from rclib.nets.masks import apply_masks, share_left
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.nets.units import (
    drawn_units,
    l1_norms,
    largest_units,
    largest_units_together,
    rescaled,
    slice_units,
    unit_masks,
)
from rclib.rowcolumn.axes import mlp_axes

AXES = mlp_axes(3)
SIZES = [64, 100, 50, 10]


def networks(widths: list[int], seeds: range = range(3)) -> Stack:
    return stack(
        [MLP(64, widths, 10, parametrization="SP", activation="relu", seed=seed) for seed in seeds]
    )


def test_slices_and_masks_are_one_network() -> None:
    large = networks([100, 50])
    kept = largest_units(l1_norms(large.tensors, AXES), {"h1": 30, "h2": 7})
    small = replace(networks([30, 7]), tensors=slice_units(large.tensors, AXES, kept))
    masks = unit_masks(large.tensors, AXES, kept)
    masked = replace(large, tensors=apply_masks(large.tensors, masks))
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(small(x), masked(x), atol=1e-6, rtol=0)
    # Members keep units of their own, and those of largest norm, in their order.
    for s in range(3):
        sizes = large.tensors["W1"][s].abs().sum(1)
        places = sizes.topk(30).indices.sort().values
        assert torch.equal(small.tensors["W1"][s], large.tensors["W1"][s][places])
        assert torch.equal(small.tensors["B1"][s], large.tensors["B1"][s][places])
        assert torch.equal(kept["h1"][s].nonzero()[:, 0], places)
        columns = kept["h2"][s].nonzero()[:, 0]
        assert torch.equal(small.tensors["W2"][s], large.tensors["W2"][s][columns][:, places])


def test_a_unit_that_nothing_reads_can_go() -> None:
    large = networks([100, 50], range(1))
    tensors = {name: tensor.clone() for name, tensor in large.tensors.items()}
    tensors["W2"][0, :, 17] = 0.0
    kept = {"h1": torch.ones(1, 100, dtype=torch.bool)}
    kept["h1"][0, 17] = False
    small = replace(networks([99, 50], range(1)), tensors=slice_units(tensors, AXES, kept))
    x = torch.randn(20, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(small(x), replace(large, tensors=tensors)(x), atol=1e-6, rtol=0)


def test_multiplications_by_hand() -> None:
    """64-100-50-10 cut to 64-50-25-10: 11,900 products and 4,700."""
    large = networks([100, 50])
    kept = largest_units(l1_norms(large.tensors, AXES), {"h1": 50, "h2": 25})
    masks = unit_masks(large.tensors, AXES, kept)
    left = share_left(masks, ["W1", "W2", "W3"])
    assert left.tolist() == pytest.approx([4700 / 11900] * 3)
    assert sum(a * b for a, b in pairwise(SIZES)) == 11900


def test_torch_pruning_keeps_the_same_units() -> None:
    prune = pytest.importorskip("torch_pruning")
    large = networks([100, 50], range(2))
    kept = largest_units(l1_norms(large.tensors, AXES), {"h1": 50, "h2": 25})
    small = slice_units(large.tensors, AXES, kept)
    for s in range(2):
        layers = [nn.Linear(a, b) for a, b in pairwise(SIZES)]
        for k, layer in enumerate(layers, start=1):
            layer.weight.data.copy_(large.tensors[f"W{k}"][s])
            layer.bias.data.copy_(large.tensors[f"B{k}"][s])
        net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        # Of what leads to a unit alone ("first" of a group), not divided by a layer's mean; of both
        # layers before one is pruned, so that the second one's rows are whole.
        importance = prune.importance.MagnitudeImportance(
            p=1, group_reduction="first", normalizer=None
        )
        graph = prune.DependencyGraph().build_dependency(net, torch.zeros(1, 64))
        out = prune.prune_linear_out_channels
        weak = []
        for layer in layers[:2]:
            group = graph.get_pruning_group(layer, out, idxs=list(range(layer.out_features)))
            weak.append(importance(group).argsort()[: layer.out_features // 2].tolist())
        for layer, idxs in zip(layers[:2], weak, strict=True):
            graph.get_pruning_group(layer, out, idxs=idxs).prune()
        for k, layer in enumerate(layers, start=1):
            assert torch.equal(layer.weight.data, small[f"W{k}"][s]), k
            assert torch.equal(layer.bias.data, small[f"B{k}"][s]), k


def test_filters_are_units_too() -> None:
    """By the axes of a convolution; the masked and the sliced network agree."""
    g = torch.Generator().manual_seed(0)
    axes = {"K1": ("c1", "x", "a", "b"), "S1": ("c1",), "K2": ("c2", "c1", "a", "b"),
            "W": ("y", "c2")}  # fmt: skip
    shapes = {"K1": (6, 3, 3, 3), "S1": (6,), "K2": (8, 6, 3, 3), "W": (10, 8)}
    tensors = {name: torch.randn(2, *shape, generator=g) for name, shape in shapes.items()}
    norms = l1_norms(tensors, axes)
    assert {index: tuple(n.shape) for index, n in norms.items()} == {"c1": (2, 6), "c2": (2, 8)}
    assert float(norms["c2"][1, 3]) == pytest.approx(float(tensors["K2"][1, 3].abs().sum()))
    kept = largest_units(norms, {"c1": 4, "c2": 3})
    small = slice_units(tensors, axes, kept)
    masked = apply_masks(tensors, unit_masks(tensors, axes, kept))
    x = torch.randn(5, 3, 8, 8, generator=g)

    def outputs(own: dict[str, Tensor], s: int) -> Tensor:
        h = torch.relu(conv2d(x, own["K1"][s], padding=1) + own["S1"][s].view(-1, 1, 1))
        h = torch.relu(conv2d(h, own["K2"][s], padding=1))
        return linear(h.mean((2, 3)), own["W"][s])

    for s in range(2):
        torch.testing.assert_close(outputs(small, s), outputs(masked, s), atol=1e-5, rtol=0)


def test_units_over_all_layers_together() -> None:
    scores = {
        "h1": torch.tensor([[9.0, 8.0, 7.0], [0.1, 0.2, 0.3]]),
        "h2": torch.tensor([[1.0, 2.0], [5.0, 6.0]]),
    }
    kept = largest_units_together(scores, 3)
    # The first member would keep three of h1 alone, but one of each index stays.
    assert kept["h1"].tolist() == [[True, True, False], [False, False, True]]
    assert kept["h2"].tolist() == [[False, True], [True, True]]
    for number in (1, 6, 0):
        with pytest.raises(ValueError, match="number must be"):
            largest_units_together(scores, number)
    with pytest.raises(ValueError, match="number must be"):
        largest_units_together({}, 1)


def test_drawn_units_have_the_counts_and_depend_on_their_seed() -> None:
    like = largest_units({"h1": torch.rand(3, 40), "h2": torch.rand(3, 20)}, {"h1": 10, "h2": 5})
    drawn = drawn_units(like, [1, 2, 1])
    assert {index: d.sum(1).tolist() for index, d in drawn.items()} == {
        "h1": [10] * 3, "h2": [5] * 3,
    }  # fmt: skip
    alone = drawn_units({index: row[1:2] for index, row in like.items()}, [2])
    assert all(torch.equal(alone[index][0], drawn[index][1]) for index in like)
    many = torch.stack([drawn_units(like, [3 * s, 3 * s + 1, 3 * s + 2])["h1"] for s in range(200)])
    assert float((many.double().mean((0, 1)) - 0.25).abs().max()) < 0.08
    with pytest.raises(ValueError, match="seeds must be 3"):
        drawn_units(like, [1])


def test_rescaled_keeps_the_variance_into_a_unit() -> None:
    large = networks([100, 50])
    mask = torch.rand(3, 50, 100, generator=torch.Generator().manual_seed(0)) < 0.2
    found = rescaled(large.tensors, {"W2": mask})
    factor = (5000 / mask.flatten(1).sum(1)).sqrt()
    for s in range(3):
        torch.testing.assert_close(
            found["W2"][s], large.tensors["W2"][s] * float(factor[s]), rtol=1e-6, atol=0
        )
    assert found["W1"] is large.tensors["W1"]
    with pytest.raises(ValueError, match=r"masks\['W2'\] must keep an entry"):
        rescaled(large.tensors, {"W2": mask & False})
    for name, other in (("W2", mask[:, 1:]), ("W9", mask)):
        with pytest.raises(ValueError, match="must have a tensor of its shape"):
            rescaled(large.tensors, {name: other})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": {"h1": 0, "h2": 5}}, r"keep\['h1'\] must be a positive integer, got 0"),
        ({"keep": {"h1": 101, "h2": 5}}, r"keep\['h1'\] must be from 1 to 100, got 101"),
        ({"keep": {"h3": 1}}, "scores must hold 'h3'"),
        ({"scores": {"h1": torch.full((3, 100), torch.nan)}}, r"scores\['h1'\] must be finite"),
        ({"kept": {"h1": torch.ones(3, 99, dtype=torch.bool)}}, r"kept\['h1'\] must be bool"),
        ({"kept": {"h9": torch.ones(3, 99, dtype=torch.bool)}}, r"kept\['h9'\] must be bool"),
        ({"kept": {"h1": torch.ones(3, 100)}}, r"kept\['h1'\] must be bool"),
        ({"kept": {"h1": torch.eye(3, 100).bool() | torch.eye(1, 100).bool()}}, "as many units"),
        ({"kept": {"h1": torch.zeros(3, 100, dtype=torch.bool)}}, "as many units"),
        ({"axes": {"W7": ("a", "b")}}, "tensors must hold 'W7'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    tensors, axes = networks([100, 50]).tensors, change.get("axes", AXES)

    def cut() -> None:
        scores = change.get("scores") or l1_norms(tensors, axes)
        kept = change.get("kept") or largest_units(scores, change.get("keep", {"h1": 5}))
        slice_units(tensors, axes, kept)

    with pytest.raises(ValueError, match=message):
        cut()


def test_a_unit_that_two_tensors_lead_to_has_no_one_norm() -> None:
    tensors = {"A": torch.ones(1, 4, 3), "B": torch.ones(1, 4, 3), "C": torch.ones(1, 2, 4)}
    axes = {"A": ("h", "x"), "B": ("h", "x"), "C": ("y", "h")}
    with pytest.raises(ValueError, match="leads to 'h', got a second, 'B'"):
        l1_norms(tensors, axes)
