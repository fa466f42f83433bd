"""nets.masks against torch.nn.utils.prune, and what masks owe."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from rclib.nets import masks as m

SHAPES = {"W1": (7, 5), "W2": (4, 7), "K": (3, 2, 3, 3)}
S = 3


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(S, *shape, generator=generator) for n, shape in SHAPES.items()}


def modules(values: dict[str, Tensor], s: int) -> dict[str, nn.Module]:
    found = {}
    for name, value in values.items():
        module = nn.Module()
        module.weight = nn.Parameter(value[s].clone())
        found[name] = module
    return found


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_are_those_of_torch_round_after_round(scope: str) -> None:
    """Each round ranks other values; torch keeps its masks of the rounds before."""
    shares = {"W1": 0.3, "W2": 0.15, "K": 0.5}
    masks = m.full_masks(tensors(), SHAPES)
    peers = [modules(tensors(), s) for s in range(S)]
    for seed in range(4):
        values = tensors(seed)
        if scope == "layer":
            masks = m.prune_layers(values, masks, shares)
        else:
            masks = m.prune_globally(values, masks, 0.3)
        for s, own in enumerate(peers):
            given = {(own[n], "weight"): values[n][s] for n in SHAPES}
            if scope == "global":
                prune.global_unstructured(
                    list(given), prune.L1Unstructured, importance_scores=given, amount=0.3
                )
            for n in SHAPES if scope == "layer" else ():
                prune.l1_unstructured(own[n], "weight", shares[n], importance_scores=values[n][s])
            for n in SHAPES:
                assert torch.equal(own[n].weight_mask.bool(), masks[n][s]), (n, seed)
    assert bool((m.share_left(masks) < 0.5).all())


def test_no_pruned_entry_is_larger_than_a_kept_one() -> None:
    values = tensors(5)
    before = m.prune_layers(tensors(1), m.full_masks(values, ["W1", "K"]), 0.4)
    after = m.prune_layers(values, before, 0.4)
    for name, mask in after.items():
        assert bool((before[name] | ~mask).all())  # nothing comes back
        for s in range(S):
            dropped = values[name][s].abs()[before[name][s] & ~mask[s]]
            assert dropped.max() <= values[name][s].abs()[mask[s]].min()
            assert len(dropped) == round(0.4 * int(before[name][s].sum()))


def test_of_equal_sizes_the_first_goes_first_and_zeros_of_before_are_not_counted() -> None:
    ones = {"W": torch.ones(2, 2, 4)}
    masks = m.full_masks(ones, ["W"])
    masks["W"][:, 0, 0] = False
    found = m.prune_layers({"W": torch.ones(2, 2, 4).masked_fill(~masks["W"], 0)}, masks, 0.3)
    assert found["W"].flatten(1).int().tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]] * 2
    assert m.prune_layers(ones, masks, 0.0)["W"].equal(masks["W"])


def test_global_pruning_looks_over_all_tensors() -> None:
    values = {"a": torch.tensor([[1.0, 2, 3, 4]]), "b": torch.tensor([[10.0, 20, 30, 0.5]])}
    found = m.prune_globally(values, m.full_masks(values, values), 0.5)
    assert found["a"].int().tolist() == [[0, 0, 0, 1]]
    assert found["b"].int().tolist() == [[1, 1, 1, 0]]


def test_members_do_not_touch_each_other() -> None:
    values = tensors(3)
    for make in (
        lambda v, k: m.prune_layers(v, m.full_masks(v, SHAPES), 0.3),
        lambda v, k: m.prune_globally(v, m.full_masks(v, SHAPES), 0.3),
        lambda v, k: m.shuffled(m.prune_globally(v, m.full_masks(v, SHAPES), 0.3), k),
        lambda v, k: m.resampled(v, m.prune_globally(v, m.full_masks(v, SHAPES), 0.3), k),
    ):
        whole = make(values, [4, 5, 6])
        for s in range(S):
            alone = make({n: v[s : s + 1] for n, v in values.items()}, [4 + s])
            for name in SHAPES:
                assert torch.equal(whole[name][s], alone[name][0])


def test_permuted_units_have_the_permuted_mask() -> None:
    values = tensors(2)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    moved = {"W1": values["W1"][:, order], "W2": values["W2"][:, :, order]}
    one, two = (m.prune_layers(v, m.full_masks(v, ["W1", "W2"]), 0.6) for v in (values, moved))
    assert torch.equal(one["W1"][:, order], two["W1"])
    assert torch.equal(one["W2"][:, :, order], two["W2"])


def test_largest_has_the_counts_of_another_mask() -> None:
    values = tensors(4)
    like = m.prune_globally(tensors(9), m.full_masks(values, SHAPES), 0.7)
    found = m.largest(values, like=like)
    for name, mask in found.items():
        assert mask.flatten(1).sum(1).tolist() == like[name].flatten(1).sum(1).tolist()
        for s in range(S):
            kept = values[name][s].abs()[mask[s]]
            best = values[name][s].abs().flatten().sort(descending=True).values
            assert torch.equal(kept.sort(descending=True).values, best[: len(kept)])


def test_shuffled_masks_have_their_counts_and_every_place_as_often() -> None:
    masks = {"W": torch.zeros(400, 3, 4, dtype=torch.bool)}
    masks["W"][:, 0, :3] = True
    found = m.shuffled(masks, range(400))["W"]
    assert found.flatten(1).sum(1).eq(3).all()
    assert (found.double().mean(0) - 0.25).abs().max() < 4 * (0.25 * 0.75 / 400) ** 0.5
    again = m.shuffled(masks, range(400))["W"]
    assert torch.equal(found, again)


def test_resampled_values_are_the_survivors() -> None:
    values = tensors(6)
    masks = m.prune_layers(values, m.full_masks(values, ["W1"]), 0.8)
    found = m.resampled(values, masks, [1, 2, 3])
    assert list(found) == ["W1"]
    for s in range(S):
        survivors = values["W1"][s][masks["W1"][s]]
        assert torch.isin(found["W1"][s], survivors).all()
        assert found["W1"][s].unique().numel() > 3
    none = {"W1": torch.zeros(S, 7, 5, dtype=torch.bool)}
    with pytest.raises(ValueError, match="must keep an entry"):
        m.resampled(values, none, [1, 2, 3])


def test_signs_and_applied_masks() -> None:
    one, two = tensors(1), tensors(2)
    two["W1"][0, 0, 0] = 0.0
    found = m.with_signs(one, {"W1": two["W1"]})
    assert torch.equal(found["W1"].sign(), two["W1"].sign())
    nonzero = two["W1"] != 0
    assert torch.equal(found["W1"].abs()[nonzero], one["W1"].abs()[nonzero])
    masks = {"W1": two["W1"] > 0}
    held = copy.deepcopy(one)
    applied = m.apply_masks(one, masks)
    assert torch.equal(applied["W1"], one["W1"] * masks["W1"])
    assert applied["K"] is one["K"]
    assert all(torch.equal(one[n], held[n]) for n in one)


def test_share_left_is_the_product_of_rounded_counts() -> None:
    values = tensors()
    masks = m.full_masks(values, ["W1"])
    counts = [35]
    for _ in range(5):
        masks = m.prune_layers(values, masks, 0.2)
        counts.append(counts[-1] - round(0.2 * counts[-1]))
    assert all(a > b for a, b in pairwise(counts))
    assert m.share_left(masks).tolist() == [counts[-1] / 35] * S
    both = {**masks, **m.full_masks(values, ["W2"])}
    assert m.share_left(both, ["W2"]).tolist() == [1.0] * S
    assert m.share_left(both).tolist() == pytest.approx([(counts[-1] + 28) / 63] * S)


VALUES = tensors()
FULL = m.full_masks(VALUES, ["W1"])
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: m.full_masks(VALUES, []), ValueError, "names must be names, at least one"),
    (lambda: m.full_masks(VALUES, "W1"), ValueError, "names must be names"),
    (lambda: m.full_masks(VALUES, ["x"]), ValueError, "must name tensors of .* got 'x'"),
    (lambda: m.prune_layers(VALUES, {}, 0.1), ValueError, "at least one, got none"),
    (lambda: m.prune_layers(VALUES, FULL, 1.0), ValueError, r"shares must lie in \[0, 1\), got 1"),
    (lambda: m.prune_layers(VALUES, FULL, {"W2": 0.1}), ValueError, r"shares must name \['W1'\]"),
    (lambda: m.prune_layers(VALUES, FULL, {"W1": -1}), ValueError, r"shares\['W1'\] must lie"),
    (lambda: m.prune_globally(VALUES, FULL, float("nan")), ValueError, "share must"),
    (lambda: m.prune_layers({}, FULL, 0.1), ValueError, "values must hold 'W1'"),
    (lambda: m.prune_layers({"W1": torch.ones(S, 7)}, FULL, 0.1), ValueError, "shape of its mask"),
    (
        lambda: m.prune_layers({"W1": VALUES["W1"] * float("nan")}, FULL, 0.1),
        ValueError,
        r"values\['W1'\] must be finite",
    ),
    (lambda: m.share_left({"W1": VALUES["W1"]}), TypeError, "of bool"),
    (
        lambda: m.share_left({"a": FULL["W1"], "b": FULL["W1"][:1]}),
        ValueError,
        "one number of members",
    ),
    (lambda: m.shuffled(FULL, [1]), ValueError, "seeds must be 3, one a member, got 1"),
    (lambda: m.with_signs({}, VALUES), ValueError, "signs must name"),
    (
        lambda: m.with_signs({"W1": torch.ones(2)}, {"W1": VALUES["W1"]}),
        ValueError,
        r"sizes\['W1'\] must have shape",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_what_does_not_fit_is_named(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
