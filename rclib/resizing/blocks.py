"""Growth that puts trained networks as blocks into a wider one: random growth, recombination.

- `random_growth` : the source is the first block; every entry that touches a new neuron is drawn
  from the initial law of the new width. Entries of the old block are scaled so that old neurons
  send each other what they did (m' W' = m W). The usual baseline; it keeps nothing exactly, since
  new neurons send to old ones at once.
- `recombination`, after MixtureGrowth (Pham et al., WACV 2024, arXiv 2311.04251, and the authors'
  code): two networks of half the width, trained each for itself, are the diagonal blocks,

    W' = [[W_A, O_A], [O_B, W_B]]     (rows are outputs),

  first layers stacked, output matrices side by side, each halved so that the outputs are those of
  the two networks' mean (the authors leave the doubling to batch normalisation). In the paper a
  layer is a learned mixture Σ_k α_k T_k of templates and O another mixture of the same ones, with
  coefficients orthogonal to those learned. Networks that were not trained as mixtures have none;
  the two templates of a tensor here are its start W0 and what training added, so W has coefficients
  (1, 1) and the orthogonal mixture is O = W0 - (W - W0), which needs the sources' starts. O_A is
  made of A's templates, O_B of B's. Other fills: "zero" (the two networks beside each other,
  untouched by each other), "copy" (O = W, the paper's ablation), "random" (the initial law).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.resizing.copying import Network, growing, grown_sizes, kept_scale, sums

__all__ = ["FILLS", "random_growth", "recombination"]

FILLS = ("orthogonal", "copy", "zero", "random")


def random_growth(source: Network, start: Network) -> dict[str, Tensor]:
    """State of the network of `start`'s width: `source` in its corner, `start` elsewhere.

    Raises ValueError for a start that is not wider or differs in more than its width.
    """
    sizes = growing(source, start)
    state = {name: tensor.detach().clone() for name, tensor in start.state_dict().items()}
    for name, old in source.state_dict().items():
        corner = tuple(slice(n) for n in old.shape)
        state[name][corner] = old * kept_scale(source, name, sizes)
    return state


def recombination(
    first: Network,
    second: Network,
    start: Network,
    *,
    fill: str = "orthogonal",
    starts: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """State of the network of twice the width with both networks in it.

    first, second : of one width; start : of twice that. fill : of the blocks off the diagonal, one
    of `FILLS`. starts : state dicts of both before they were trained, for "orthogonal".

    With "zero" an MLP's outputs are the mean of the two networks'. A GPT's are not, since its norms
    run over both streams together.

    Raises ValueError for networks of unequal width, a start of another width than twice theirs,
    an unknown fill and missing starts.
    """
    choice("fill", fill, FILLS)
    sizes = growing(first, start)
    if grown_sizes(second, start) != sizes:
        raise ValueError("second must have the width of first")
    for index, (before, after) in sizes.items():
        if after != 2 * before:
            raise ValueError(f"start must be twice as wide: {index!r} has {before} and {after}")
    if fill == "orthogonal" and starts is None:
        raise ValueError("starts must be given for the fill 'orthogonal': they are its templates")
    states = first.state_dict(), second.state_dict()
    fresh, state = start.state_dict(), {}
    for name, axes in first.axes.items():
        a, b = (one[name].detach() for one in states)
        wide, summed = axes[0] in sizes, axes[-1] in sizes and sums(first, name)
        if summed:
            factor = kept_scale(first, name, sizes)
            a, b = a * factor, b * factor
        if wide and summed:
            rest = _filled(name, fill, (a, b), fresh[name], starts, kept_scale(first, name, sizes))
            rows = torch.cat([a, rest[0]], -1), torch.cat([rest[1], b], -1)
            state[name] = torch.cat(rows)
        elif wide:
            state[name] = torch.cat([a, b])
        elif summed:
            state[name] = torch.cat([a, b], -1) / 2
        else:
            state[name] = (a + b) / 2
    return state


def _filled(
    name: str,
    fill: str,
    blocks: tuple[Tensor, Tensor],
    fresh: Tensor,
    starts: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None,
    factor: float,
) -> tuple[Tensor, Tensor]:
    """Upper right and lower left block."""
    if fill == "zero":
        return torch.zeros_like(blocks[0]), torch.zeros_like(blocks[1])
    if fill == "copy":
        return blocks
    if fill == "random":
        rows, columns = blocks[0].shape[0], blocks[0].shape[-1]
        return fresh[:rows, ..., columns:], fresh[rows:, ..., :columns]
    assert starts is not None
    a, b = (2 * factor * s[name].to(w) - w for s, w in zip(starts, blocks, strict=True))
    return a, b
