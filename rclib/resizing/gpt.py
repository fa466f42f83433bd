"""Transfer of a `GPT`, and of Adam's running means, between widths (paper A, Algorithm 1).

One index map for each growing index (`stream`, `head.<l>` in whole heads, `mlp.<l>`) moves the
weights as in `rclib.rowcolumn.transfer`. Adam's means live on the same axes; they are gathered by
the same maps and take the factor s = g'/g by which gradients change with the width. For a network
whose function is kept, with multiplier fan-in^-a and output axis of size M → M',

    s = (n / n')^a · M / M'        (M = M' where the output axis does not grow)

since the weight's own share of the pre-activation is fan-in^-a, and the error of each of M
neurons shrinks as the next layer sums over more of them. exp_avg takes s, exp_avg_sq s².
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rclib.nets.gpt import GPT
from rclib.rowcolumn.axes import index_sizes
from rclib.rowcolumn.transfer import IndexMaps, draw_index_maps, gather

__all__ = ["gpt_maps", "gradient_factors", "move_gpt", "move_moments", "resize_gpt"]


def gpt_maps(
    model: GPT, width: int, *, random_rate: float = 0.0, replacement: bool = True, seed: int = 0
) -> IndexMaps:
    """Index maps from `model` to another width; see `rclib.rowcolumn.transfer.draw_index_maps`."""
    return draw_index_maps(
        model.axes,
        index_sizes(model.axes, model.state_dict()),
        model.index_sizes(width),
        random_rate=random_rate,
        replacement=replacement,
        generator=torch.Generator().manual_seed(int(seed)),
    )


def move_gpt(model: GPT, width: int, maps: IndexMaps, *, norm_rate: float = 1.0) -> GPT:
    """The network at another width, its tensors gathered by `maps`.

    `norm_rate` multiplies every tensor that is moved, the norms' gains among them.
    """
    state = gather(
        model.state_dict(),
        model.axes,
        maps,
        norm_rate=norm_rate,
        fan_in_exponents=model.fan_in_exponents(),
    )
    return model.like(width, state)


def resize_gpt(
    model: GPT,
    width: int,
    *,
    random_rate: float = 0.0,
    norm_rate: float = 1.0,
    replacement: bool = True,
    seed: int = 0,
) -> GPT:
    """The network grown or shrunk by RC sampling, without training (paper A, Algorithm 1).

    random_rate, norm_rate, replacement : as in `rclib.rowcolumn.transfer`. Growing by a whole
    factor with replacement=False keeps the function exactly. Raises ValueError for a width that the
    head size does not divide.
    """
    maps = gpt_maps(model, width, random_rate=random_rate, replacement=replacement, seed=seed)
    return move_gpt(model, width, maps, norm_rate=norm_rate)


def gradient_factors(model: GPT, width: int) -> dict[str, float]:
    """s of the module's docstring for every parameter, by name."""
    other = model.index_sizes(width)
    own = index_sizes(model.axes, model.state_dict())
    exponents = model.fan_in_exponents()
    factors = {}
    for name, axes in model.axes.items():
        ratio = {i: own[i] / other.get(i, own[i]) for i in axes}
        fan_in = 1.0
        if name in exponents:
            fan_in, axes = ratio[axes[-1]], axes[:-1]
        fan_out = 1.0
        for index in axes:
            fan_out *= ratio[index]
        factors[name] = fan_in ** exponents.get(name, 0.0) * fan_out
    return factors


def move_moments(
    model: GPT, moments: Mapping[str, Tensor], width: int, maps: IndexMaps
) -> dict[str, Tensor]:
    """Adam's means for the network that `maps` make (`rclib.training.lm_state.adam_moments`).

    Raises ValueError when a mean is missing.
    """
    factors = gradient_factors(model, width)
    out: dict[str, Tensor] = {}
    for key, power in (("exp_avg", 1), ("exp_avg_sq", 2)):
        missing = [name for name in model.axes if f"{key}/{name}" not in moments]
        if missing:
            raise ValueError(f"moments must hold {key} of {missing}")
        tensors = {name: moments[f"{key}/{name}"] for name in model.axes}
        # a = 1 for every tensor: copied as they are, the factor comes here.
        plain = gather(tensors, model.axes, maps, fan_in_exponents=dict.fromkeys(model.axes, 1.0))
        out |= {f"{key}/{name}": factors[name] ** power * t for name, t in plain.items()}
    return out | {f"step/{name}": moments[f"step/{name}"].clone() for name in model.axes}
