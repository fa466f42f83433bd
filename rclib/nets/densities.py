"""Layer by layer, how many weights random pruning keeps.

    shapes = {"W1": (128, 64), "W2": (128, 128), "W3": (10, 128)}
    densities = erdos_renyi(shapes, 0.1)             # {name: d_l}, Σ d_l n_l = 0.1 Σ n_l
    masks = random_masks(shapes, densities, seeds=[0, 1, 2])

Shapes are (out, in) of matrices or (out, in, height, width) of convolutions. Densities d_l are
shares of a layer's n_l weights; D is that of all of them. Of each layer round(d_l n_l) weights are
kept, at uniformly drawn places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from rclib.checks.arguments import brief, count, number, seed_of
from rclib.nets.masks import Masks

__all__ = ["densities_of", "erdos_renyi", "random_masks", "scaled", "uniform", "uniform_plus"]

Shapes = Mapping[str, Sequence[int]]
LAST = 0.2  # the least density of the last layer in `uniform_plus`


def uniform(shapes: Shapes, density: float) -> dict[str, float]:
    """d_l = D. Raises ValueError unless 0 < D <= 1, and for shapes that are none."""
    density = _density(density)
    return dict.fromkeys(_sizes(shapes), density)


def uniform_plus(shapes: Shapes, density: float) -> dict[str, float]:
    """The first layer dense, the last at least 20 percent, the others equal, D in all.

    Source: arXiv 2202.02643 after Gale, Elsen, Hooker 2019. The authors' code misses D: it divides
    what is left by all weights, or by none; here D is met. Raises ValueError where the first and
    last layer alone hold more than D, and as `uniform`.
    """
    density, sizes = _density(density), _sizes(shapes)
    first, last = next(iter(sizes)), list(sizes)[-1]
    found = dict.fromkeys(sizes, density)
    if len(sizes) == 1 or density == 1:
        return found
    total = sum(sizes.values())
    found[first], found[last] = 1.0, max(LAST, density)
    left = density * total - found[first] * sizes[first] - found[last] * sizes[last]
    inner = total - sizes[first] - sizes[last]
    if left < 0 or (inner == 0 and left > 0.5):
        raise ValueError(
            f"density must leave room for a dense first layer and {found[last]:g} of the last, "
            f"got {density:g}"
        )
    return {n: d if n in (first, last) else left / inner for n, d in found.items()}


def erdos_renyi(shapes: Shapes, density: float) -> dict[str, float]:
    """d_l in proportion to (n_out + n_in) / (n_out n_in), with kernels' sides in both (ERK).

    The factor solves Σ d_l n_l = D Σ n_l; layers that would exceed one become dense, and the
    others share what is left, until none exceeds one. Sources: Mocanu et al. 2018 (ER), Evci et
    al. 2020 (ER-kernel), arXiv 2202.02643. Raises ValueError as `uniform`.
    """
    density = _density(density)
    raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    return scaled(shapes, raw, density)


def scaled(shapes: Shapes, raw: Mapping[str, float], density: float) -> dict[str, float]:
    """d_l in proportion to `raw`, D in all, none above one; as `erdos_renyi` solves it.

    Raises ValueError for a raw value that is not positive or missing, and as `uniform`.
    """
    density, sizes = _density(density), _sizes(shapes)
    for name in sizes:
        value = raw.get(name)
        if value is None or not (math.isfinite(value) and value > 0):
            raise ValueError(f"raw[{name!r}] must be positive and finite, got {value!r}")
    dense: set[str] = set()
    while len(dense) < len(sizes):
        free = [name for name in sizes if name not in dense]
        left = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        factor = left / sum(raw[name] * sizes[name] for name in free)
        over = [name for name in free if factor * raw[name] > 1]
        if not over:
            return {name: 1.0 if name in dense else factor * raw[name] for name in sizes}
        # One at a time, the largest: an other one may fit after it.
        dense.add(max(over, key=lambda name: raw[name]))
    return dict.fromkeys(sizes, 1.0)


def densities_of(masks: Masks) -> list[dict[str, float]]:
    """Share of the weights that each member's mask keeps, by layer: one mapping a member."""
    members = len(next(iter(masks.values())))
    return [
        {name: float(mask[s].double().mean()) for name, mask in masks.items()}
        for s in range(members)
    ]


def random_masks(
    shapes: Shapes,
    densities: Mapping[str, float] | Sequence[Mapping[str, float]],
    seeds: Iterable[int],
) -> Masks:
    """{name: (S, *shape) bool} with round(d_l n_l) entries of each layer at drawn places.

    densities : one mapping for all, or one a member. seeds : one a member; its places depend on
    its seed, the shapes and the counts alone. Raises ValueError for densities outside of [0, 1],
    names that are not those of `shapes`, and numbers of members that differ.
    """
    sizes, numbers = _sizes(shapes), [seed_of(f"seeds[{s}]", x) for s, x in enumerate(seeds)]
    each = [densities] * len(numbers) if isinstance(densities, Mapping) else list(densities)
    if not numbers or len(each) != len(numbers):
        raise ValueError(
            f"densities must be one mapping or {len(numbers)}, one a seed, got {len(each)}"
        )
    found: dict[str, list[torch.Tensor]] = {name: [] for name in sizes}
    for own, seed in zip(each, numbers, strict=True):
        if own.keys() != sizes.keys():
            raise ValueError(f"densities must name {list(sizes)}, got {brief(sorted(own))}")
        generator = torch.Generator().manual_seed(seed)
        for name, size in sizes.items():
            d = number(f"densities[{name!r}]", own[name])
            if not 0 <= d <= 1 + 1e-12:
                raise ValueError(f"densities[{name!r}] must lie in [0, 1], got {d:g}")
            mask = torch.zeros(size, dtype=torch.bool)
            mask[torch.randperm(size, generator=generator)[: round(d * size)]] = True
            found[name].append(mask.view(*shapes[name]))
    return {name: torch.stack(rows) for name, rows in found.items()}


def _density(density: float) -> float:
    density = number("density", density)
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], got {density:g}")
    return density


def _sizes(shapes: Shapes) -> dict[str, int]:
    if not shapes:
        raise ValueError("shapes must name at least one layer, got none")
    for name, shape in shapes.items():
        if len(shape) < 2:
            raise ValueError(f"shapes[{name!r}] must have two axes or more, got {tuple(shape)}")
        for size in shape:
            count(f"shapes[{name!r}]", size)
    return {name: math.prod(shape) for name, shape in shapes.items()}
