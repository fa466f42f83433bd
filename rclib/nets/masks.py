"""Masks over the weights of a stack: which entries of which tensors are kept.

    masks = full_masks(start.tensors, ["W1", "W2", "W3"])        # {name: (S, *shape) bool}
    masks = prune_layers(end.tensors, masks, {"W1": 0.2, "W2": 0.2, "W3": 0.1})
    same = largest(start.tensors, like=masks)      # the counts of `masks`, by size at the start
    moved = shuffled(masks, seeds=[0, 1, 2])       # the counts of `masks`, at random places

Every tensor has a first axis of members, as in `rclib.nets.stack`; a member's mask depends on its
own values alone. `rclib.training.stacked` trains under masks, `rclib.training.pruning` finds them.

Pruning drops the entries of smallest size among those that are still kept; of k kept ones it drops
round(share · k), rounded half to even, which is what `torch.nn.utils.prune` does. Of entries of
equal size the first in memory goes first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from rclib.checks.arguments import brief, number, seed_of

__all__ = [
    "Masks",
    "apply_masks",
    "full_masks",
    "largest",
    "prune_globally",
    "prune_layers",
    "resampled",
    "share_left",
    "shuffled",
    "with_signs",
]

Masks = dict[str, Tensor]


def full_masks(tensors: Mapping[str, Tensor], names: Collection[str]) -> Masks:
    """Masks that keep everything: {name: (S, *shape) bool}, of the tensors named.

    Raises ValueError for a name that is not there, or for no name.
    """
    _known("names", names, tensors)
    return {name: torch.ones_like(tensors[name], dtype=torch.bool) for name in names}


def prune_layers(
    values: Mapping[str, Tensor], masks: Masks, shares: float | Mapping[str, float]
) -> Masks:
    """Drop, in every tensor by itself, the given share of the entries that are still kept.

    values : name -> (S, *shape), whose size decides; more names than `masks` has are allowed.
    shares : in [0, 1), one for all or name -> share.

    Raises ValueError naming what does not fit, TypeError for what is no mask.
    """
    by_name = _shares(shares, masks)
    return {
        name: torch.stack(
            [
                _without_smallest(size, kept, round(by_name[name] * int(kept.sum())))
                for size, kept in zip(_sizes(name, values, mask), mask, strict=True)
            ]
        )
        for name, mask in _checked(masks).items()
    }


def prune_globally(values: Mapping[str, Tensor], masks: Masks, share: float) -> Masks:
    """Drop the given share of all entries that are still kept, over all tensors of a member.

    Arguments, errors as `prune_layers`; layers lose as much as their sizes say, so members may
    keep different numbers in one tensor.
    """
    share = _share("share", share)
    names, rows = list(_checked(masks)), []
    sizes = {name: _sizes(name, values, masks[name]) for name in names}
    lengths = [masks[name][0].numel() for name in names]
    for s in range(len(masks[names[0]])):
        kept = torch.cat([masks[name][s].flatten() for name in names])
        size = torch.cat([sizes[name][s].flatten() for name in names])
        rows.append(_without_smallest(size, kept, round(share * int(kept.sum()))).split(lengths))
    return {
        name: torch.stack([row[place] for row in rows]).view_as(masks[name])
        for place, name in enumerate(names)
    }


def largest(values: Mapping[str, Tensor], *, like: Masks) -> Masks:
    """Keep the largest entries of every tensor, as many in each as `like` keeps there.

    With values at the start this is pruning at iteration 0, with trained ones pruning in one shot.
    Raises ValueError naming what does not fit, TypeError for what is no mask.
    """
    return {
        name: torch.stack(
            [
                _without_smallest(size, torch.ones_like(kept), int((~kept).sum()))
                for size, kept in zip(_sizes(name, values, mask), mask, strict=True)
            ]
        )
        for name, mask in _checked(like).items()
    }


def shuffled(masks: Masks, seeds: Iterable[int]) -> Masks:
    """The same number of kept entries in every tensor, at uniformly drawn places.

    seeds : one a member; its places depend on this seed, the shapes and the counts alone.
    Raises ValueError for as many seeds as there are not members.
    """
    generators = _generators(seeds, _checked(masks))
    found = {}
    for name, mask in masks.items():
        rows = []
        for kept, generator in zip(mask, generators, strict=True):
            order = torch.randperm(kept.numel(), generator=generator).to(kept.device)
            rows.append(kept.flatten()[order].view_as(kept))
        found[name] = torch.stack(rows)
    return found


def resampled(start: Mapping[str, Tensor], masks: Masks, seeds: Iterable[int]) -> dict[str, Tensor]:
    """Every entry drawn anew, with replacement, from the kept entries of its own tensor.

    So a fresh start has the survivors' law, in place of that of all entries (Frankle and Carbin,
    appendix F.3). Only tensors with a mask are returned, (S, *shape). Raises ValueError naming what
    does not fit, and for a member of which nothing is kept in a tensor.
    """
    generators = _generators(seeds, _checked(masks))
    found = {}
    for name, mask in masks.items():
        _sizes(name, start, mask)
        rows = []
        for value, kept, generator in zip(start[name], mask, generators, strict=True):
            pool = value[kept]
            if len(pool) == 0:
                raise ValueError(f"masks[{name!r}] must keep an entry of every member")
            places = torch.randint(len(pool), (kept.numel(),), generator=generator)
            rows.append(pool[places.to(pool.device)].view_as(value))
        found[name] = torch.stack(rows)
    return found


def with_signs(sizes: Mapping[str, Tensor], signs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """|sizes| with the signs of `signs`, for every tensor of `signs`: where that is 0, so is it.

    Raises ValueError for a name that `sizes` lacks, or another shape there.
    """
    _known("signs", signs, sizes)
    for name, value in signs.items():
        if sizes[name].shape != value.shape:
            raise ValueError(
                f"sizes[{name!r}] must have shape {tuple(value.shape)} as its signs have, got "
                f"{tuple(sizes[name].shape)}"
            )
    return {name: sizes[name].abs() * value.sign() for name, value in signs.items()}


def apply_masks(tensors: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """All tensors, with zeros where a mask drops an entry. Raises ValueError as `prune_layers`."""
    for name, mask in _checked(masks).items():
        _shape(name, tensors, mask)
    return {
        name: value.masked_fill(~masks[name], 0.0) if name in masks else value
        for name, value in tensors.items()
    }


def share_left(masks: Masks, names: Collection[str] | None = None) -> Tensor:
    """P of every member, (S,) float64: kept entries over all, of the tensors named (None: all).

    Raises ValueError for a name that is not there.
    """
    _checked(masks)
    chosen = list(masks) if names is None else list(names)
    _known("names", chosen, masks)
    kept = sum(masks[name].flatten(1).sum(1).double() for name in chosen)
    total = sum(masks[name][0].numel() for name in chosen)
    assert isinstance(kept, Tensor)
    return kept / total


def _without_smallest(size: Tensor, kept: Tensor, drop: int) -> Tensor:
    """`kept` without the `drop` smallest of its entries."""
    # Entries that are gone already come first in the order, and are passed over.
    ranked = size.flatten().masked_fill(~kept.flatten(), -1.0).argsort(stable=True)
    gone = int((~kept).sum())
    out = kept.flatten().clone()
    out[ranked[gone : gone + drop]] = False
    return out.view_as(kept)


def _sizes(name: str, values: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    size = _shape(name, values, mask).abs()
    if not bool(torch.isfinite(size).all()):
        raise ValueError(f"values[{name!r}] must be finite, to be ranked")
    return size


def _shape(name: str, values: Mapping[str, Tensor], mask: Tensor) -> Tensor:
    if name not in values:
        raise ValueError(f"values must hold {name!r}, which has a mask; got {sorted(values)}")
    if values[name].shape != mask.shape:
        raise ValueError(
            f"values[{name!r}] must have the shape of its mask, {tuple(mask.shape)}, got "
            f"{tuple(values[name].shape)}"
        )
    return values[name].detach()


def _checked(masks: Masks) -> Masks:
    if not masks:
        raise ValueError("masks must hold at least one, got none")
    members = {}
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim < 2:
            raise TypeError(f"masks[{name!r}] must be a tensor (S, ...) of bool, got {brief(mask)}")
        members[name] = len(mask)
    if len(set(members.values())) > 1 or 0 in members.values():
        raise ValueError(f"masks must have one number of members, at least one, got {members}")
    return masks


def _known(argument: str, names: Collection[str], there: Mapping[str, Tensor]) -> None:
    if isinstance(names, str) or not names:
        raise ValueError(f"{argument} must be names, at least one, got {brief(names)}")
    unknown = sorted(set(names) - there.keys())
    if unknown:
        raise ValueError(f"{argument} must name tensors of {sorted(there)}, got {unknown[0]!r}")


def _shares(shares: float | Mapping[str, float], masks: Masks) -> dict[str, float]:
    if not isinstance(shares, Mapping):
        return dict.fromkeys(_checked(masks), _share("shares", shares))
    if shares.keys() != _checked(masks).keys():
        raise ValueError(f"shares must name {sorted(masks)}, got {sorted(shares)}")
    return {name: _share(f"shares[{name!r}]", share) for name, share in shares.items()}


def _share(name: str, value: float) -> float:
    value = number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value:g}")
    return value


def _generators(seeds: Iterable[int], masks: Masks) -> list[torch.Generator]:
    numbers = [seed_of(f"seeds[{s}]", seed) for s, seed in enumerate(seeds)]
    members = len(next(iter(masks.values())))
    if len(numbers) != members:
        raise ValueError(f"seeds must be {members}, one a member, got {len(numbers)}")
    return [torch.Generator().manual_seed(seed) for seed in numbers]
