"""Whole units of a stack of networks: which are kept, and the smaller networks that they make.

    axes = mlp_axes(3)                                   # {"W1": ("h1", "x"), "B1": ("h1",), ...}
    kept = largest_units(l1_norms(end.tensors, axes), {"h1": 50, "h2": 25})
    small = slice_units(end.tensors, axes, kept)         # {name: (S, *smaller)}
    masks = unit_masks(end.tensors, axes, kept)          # the same network, its size unchanged

Tensors have a first axis of members, as in `rclib.nets.stack`; an axes table
(`rclib.rowcolumn.axes`) names the others, so that the same functions serve matrices and
convolutions. A unit is a value of an index: of an index "h1" it owns a row of W1, an entry of B1
and a column of W2. Scores are those of filter pruning by the L1 norm (Li et al. 2017,
arXiv 1608.08710): the sum of the sizes of the weights that lead to the unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from rclib.checks.arguments import count, seed_of
from rclib.nets.masks import Masks
from rclib.rowcolumn.axes import Axes, index_sizes

__all__ = [
    "Units",
    "drawn_units",
    "l1_norms",
    "largest_units",
    "largest_units_together",
    "rescaled",
    "slice_units",
    "unit_masks",
]

Units = dict[str, Tensor]  # index -> (S, N) bool, as `masks` for whole units


def l1_norms(tensors: Mapping[str, Tensor], axes: Axes) -> dict[str, Tensor]:
    """Sum of |w| over the weights that lead to a unit: index -> (S, N), for every
    index that one tensor leads to and another reads; so not for classes, and not for inputs.

    Raises ValueError if tensors and table do not fit, and for an index that two tensors lead to.
    """
    _sizes(tensors, axes)
    read = {index for names in axes.values() for index in names[1:]}
    found: dict[str, Tensor] = {}
    for name, names in axes.items():
        if len(names) > 1 and names[0] in read:
            if names[0] in found:
                raise ValueError(
                    f"axes must have one tensor that leads to {names[0]!r}, got a second, {name!r}"
                )
            found[names[0]] = tensors[name].detach().abs().flatten(2).sum(2)
    return found


def largest_units(scores: Mapping[str, Tensor], keep: Mapping[str, int]) -> Units:
    """The units of largest score, `keep[index]` of every index: index -> (S, N) bool.

    Of equal scores the first unit stays. Raises ValueError for an index without a score, and for
    numbers that are not from 1 to N.
    """
    found = {}
    for index, number in keep.items():
        score = _score(index, scores)
        _check_number(index, number, score.shape[1])
        order = score.argsort(dim=1, descending=True, stable=True)[:, :number]
        found[index] = torch.zeros_like(score, dtype=torch.bool).scatter_(1, order, True)
    return found


def largest_units_together(scores: Mapping[str, Tensor], number: int) -> Units:
    """The `number` units of largest score over all indices together, at least one of each.

    So the widths are found and differ by member, as in network slimming (Liu et al. 2017). Raises
    ValueError for a number that is less than the indices or more than the units.
    """
    sizes = [score.shape[1] for score in scores.values()]
    if not sizes or not len(sizes) <= count("number", number) <= sum(sizes):
        raise ValueError(f"number must be from {len(sizes)} to {sum(sizes)}, got {number}")
    # What every index keeps anyway comes first, whatever its score.
    best = largest_units(scores, dict.fromkeys(scores, 1))
    joined = torch.cat([_score(index, scores) for index in scores], 1)
    joined = joined.masked_fill(torch.cat([best[index] for index in scores], 1), torch.inf)
    order = joined.argsort(dim=1, descending=True, stable=True)[:, :number]
    kept = torch.zeros_like(joined, dtype=torch.bool).scatter_(1, order, True)
    return dict(zip(scores, kept.split(sizes, dim=1), strict=True))


def drawn_units(like: Units, seeds: Iterable[int]) -> Units:
    """As many units of every index as `like` keeps, drawn uniformly; by the seed of each member.

    Raises ValueError for as many seeds as there are not members.
    """
    generators = [torch.Generator().manual_seed(seed_of("seeds", seed)) for seed in seeds]
    members = len(next(iter(like.values())))
    if len(generators) != members:
        raise ValueError(f"seeds must be {members}, one a member, got {len(generators)}")
    return {
        index: torch.stack(
            [
                row[torch.randperm(len(row), generator=generator)]
                for row, generator in zip(kept, generators, strict=True)
            ]
        )
        for index, kept in like.items()
    }


def slice_units(tensors: Mapping[str, Tensor], axes: Axes, kept: Units) -> dict[str, Tensor]:
    """Tensors of the networks that have the kept units alone, in their order: (S, *smaller).

    Raises ValueError if tensors, table and units do not fit, or if members keep different numbers
    of an index, which no stack holds (`unit_masks` does).
    """
    places: dict[str, Tensor] = {}
    for index, chosen in _fitting(tensors, axes, kept).items():
        numbers = chosen.sum(1)
        if int(numbers.min()) != int(numbers.max()) or int(numbers[0]) == 0:
            raise ValueError(
                f"kept[{index!r}] must be as many units of every member, at least one, got from "
                f"{int(numbers.min())} to {int(numbers.max())}"
            )
        places[index] = chosen.nonzero()[:, 1].view(len(chosen), -1)
    found = {}
    for name, names in axes.items():
        value = tensors[name].detach()
        for axis, index in enumerate(names, start=1):
            if index in places:
                at = places[index]
                shape = [len(at), *(1,) * (value.ndim - 1)]
                shape[axis] = at.shape[1]
                wide = list(value.shape)
                wide[axis] = at.shape[1]
                value = value.gather(axis, at.view(shape).expand(wide))
        found[name] = value.contiguous()
    return found


def unit_masks(tensors: Mapping[str, Tensor], axes: Axes, kept: Units) -> Masks:
    """Masks (S, *shape) that keep what belongs to kept units alone: with them a network computes
    what the sliced one does. Raises ValueError if tensors, table and units do not fit."""
    chosen = _fitting(tensors, axes, kept)
    masks = {}
    for name, names in axes.items():
        mask = torch.ones_like(tensors[name], dtype=torch.bool)
        for axis, index in enumerate(names, start=1):
            if index in chosen:
                shape = [len(mask), *(1,) * (mask.ndim - 1)]
                shape[axis] = mask.shape[axis]
                mask = mask & chosen[index].view(shape)
        masks[name] = mask
    return masks


def rescaled(tensors: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """All tensors, those with a mask times (entries / kept entries)^(1/2), by member.

    A start with variance c / fan then has variance c / (kept fan), on average over a layer, as
    Liu et al. (2019) start what is trained in a mask from scratch. Raises ValueError for a mask of
    another shape, and where a member keeps nothing of a tensor.
    """
    found = dict(tensors)
    for name, mask in masks.items():
        if name not in tensors or tensors[name].shape != mask.shape:
            raise ValueError(
                f"masks[{name!r}] must have a tensor of its shape, {tuple(mask.shape)}, got "
                f"{tuple(tensors[name].shape) if name in tensors else 'none'}"
            )
        kept = mask.flatten(1).sum(1)
        if int(kept.min()) == 0:
            raise ValueError(f"masks[{name!r}] must keep an entry of every member")
        factor = (mask[0].numel() / kept.double()).sqrt().to(tensors[name].dtype)
        found[name] = tensors[name] * factor.view(-1, *(1,) * (mask.ndim - 1))
    return found


def _score(index: str, scores: Mapping[str, Tensor]) -> Tensor:
    if index not in scores:
        raise ValueError(f"scores must hold {index!r}, of which units are kept; got {list(scores)}")
    score = scores[index]
    if score.ndim != 2 or not bool(torch.isfinite(score).all()):
        raise ValueError(
            f"scores[{index!r}] must be finite, (members, units), got {tuple(score.shape)}"
        )
    return score


def _check_number(index: str, number: int, most: int) -> None:
    if not 1 <= count(f"keep[{index!r}]", number) <= most:
        raise ValueError(f"keep[{index!r}] must be from 1 to {most}, got {number}")


def _sizes(tensors: Mapping[str, Tensor], axes: Axes) -> dict[str, int]:
    """Units of every index; every tensor has a first axis of members besides."""
    missing = sorted(axes.keys() - tensors.keys())
    if missing:
        raise ValueError(f"tensors must hold {missing[0]!r} of the axes table")
    return index_sizes(axes, {name: tensors[name][0] for name in axes})


def _fitting(tensors: Mapping[str, Tensor], axes: Axes, kept: Units) -> Units:
    sizes = _sizes(tensors, axes)
    members = len(tensors[next(iter(axes))])
    for index, chosen in kept.items():
        wanted = (members, sizes.get(index, 0))
        if chosen.dtype != torch.bool or tuple(chosen.shape) != wanted or wanted[1] == 0:
            raise ValueError(
                f"kept[{index!r}] must be bool of shape {wanted}, an index of the axes table, got "
                f"{chosen.dtype} of {tuple(chosen.shape)}"
            )
    return kept
