"""An `MLP` at another width: paper A's transfer (`rclib.rowcolumn.transfer`) for our networks."""

from __future__ import annotations

import torch

from rclib.checks.arguments import seed_of
from rclib.nets.mlp import MLP
from rclib.rowcolumn.axes import index_sizes
from rclib.rowcolumn.transfer import IndexMaps, draw_index_maps, gather

__all__ = ["resize", "resize_maps"]


def resize_maps(
    model: MLP, width: int, *, random_rate: float = 0.0, replacement: bool = True, seed: int = 0
) -> IndexMaps:
    """The index maps that `resize` uses for these arguments.

    Raises as `draw_index_maps`, and TypeError for a model that is no `MLP`.
    """
    if not isinstance(model, MLP):
        raise TypeError(f"model must be an MLP, got {type(model).__name__}")
    return draw_index_maps(
        model.axes,
        index_sizes(model.axes, model.state_dict()),
        {f"h{i}": width for i in range(1, model.depth)},
        random_rate=random_rate,
        replacement=replacement,
        generator=torch.Generator().manual_seed(seed_of("seed", seed)),
    )


def resize(
    model: MLP,
    width: int,
    *,
    random_rate: float = 0.0,
    norm_rate: float = 1.0,
    replacement: bool = True,
    seed: int = 0,
) -> MLP:
    """`transfer` for an `MLP`: the network at another hidden width, sampled from this one."""
    maps = resize_maps(model, width, random_rate=random_rate, replacement=replacement, seed=seed)
    state = gather(
        model.state_dict(),
        model.axes,
        maps,
        norm_rate=norm_rate,
        fan_in_exponents=model.fan_in_exponents(),
    )
    return model.like(width, state)
