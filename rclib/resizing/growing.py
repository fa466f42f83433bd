"""One table of the ways to grow and to shrink a network without training it.

    given = Given(source, start, seed=0)
    wide = start.like(start.width, GROWTH["LEMON"].make(given))

Every method gets the same: a trained network, and one at the new width as it starts. What a method
draws, it draws from that start (its laws, its scales) or with the seed. `second`, `starts` and `x`
are for the methods that need another trained network, the sources' own starts or data.

A method that `keeps` the function does so whatever the weights are, to rounding, for a whole
multiple of the width; `rclib.resizing.copying` says what is kept beyond that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.resizing.blocks import random_growth, recombination
from rclib.resizing.copying import Network, advanced, grown_sizes, lossless, net2net
from rclib.resizing.selecting import selection, truncation
from rclib.rowcolumn.axes import index_sizes
from rclib.rowcolumn.transfer import draw_index_maps, gather

__all__ = ["GROWTH", "SHRINKING", "Given", "Method", "rc_sampling"]

NOISE = 0.01  # of Net2Net's copies, in standard deviations of a tensor; the paper says "small"

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Given:
    """What a method may use.

    source : the trained network; start : one of the new width, untrained. seed : of what is drawn.
    second : another trained network of the source's width; starts : state dicts of both before
    training; x : inputs (n, d) of an MLP or tokens (n, T) of a GPT, of the training data.
    """

    source: Network
    start: Network
    seed: int = 0
    second: Network | None = None
    starts: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None
    x: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """make : `Given` -> state of the network at the new width; origin : where it is described.

    keeps : whether the function of the source is kept exactly. sources : trained networks it
    needs, which is what their training costs.
    """

    make: Callable[[Given], State]
    origin: str
    keeps: bool = False
    sources: int = 1


def rc_sampling(source: Network, start: Network, *, seed: int = 0) -> State:
    """Paper A's Algorithm 1 with r1 = 0: neurons drawn with replacement, one map an index.

    Raises ValueError for a start that differs in more than its width.
    """
    grown_sizes(source, start)
    maps = draw_index_maps(
        source.axes,
        index_sizes(source.axes, source.state_dict()),
        {index: after for index, (_, after) in grown_sizes(source, start).items()},
        generator=torch.Generator().manual_seed(seed),
    )
    return gather(
        source.state_dict(), source.axes, maps, fan_in_exponents=source.fan_in_exponents()
    )


def _recombined(fill: str) -> Callable[[Given], State]:
    def make(given: Given) -> State:
        if given.second is None:
            raise ValueError("second must be a trained network for a recombination, got None")
        return recombination(
            given.source, given.second, given.start, fill=fill, starts=given.starts
        )

    return make


def _selected(scaled: bool) -> Callable[[Given], State]:
    def make(given: Given) -> State:
        if given.x is None:
            raise ValueError("x must hold inputs for a selection by activations, got None")
        return selection(given.source, given.start, given.x, scaled=scaled)

    return make


_PAPER_A = "arXiv 2408.08681, Algorithm 1"
_MIXTURE = "after arXiv 2311.04251"
_MINITRON = "arXiv 2407.14679, section 2.2"

GROWTH: Mapping[str, Method] = {
    "RC sampling": Method(lambda g: rc_sampling(g.source, g.start, seed=g.seed), _PAPER_A),
    "Net2Net": Method(
        lambda g: net2net(g.source, g.start, noise=NOISE, seed=g.seed), "arXiv 1511.05641"
    ),
    "FPI": Method(
        lambda g: net2net(g.source, g.start, seed=g.seed), "arXiv 2110.07143, 3.3.1", keeps=True
    ),
    "AKI": Method(lambda g: advanced(g.source, g.start, seed=g.seed), "arXiv 2110.07143, 3.3.2"),
    "LEMON": Method(lambda g: lossless(g.source, g.start), "arXiv 2310.07999", keeps=True),
    "recombination": Method(_recombined("orthogonal"), _MIXTURE, sources=2),
    "recombination, zero": Method(_recombined("zero"), _MIXTURE, sources=2),
    "recombination, random": Method(_recombined("random"), _MIXTURE, sources=2),
    "random growth": Method(lambda g: random_growth(g.source, g.start), "the usual baseline"),
}

SHRINKING: Mapping[str, Method] = {
    "RC sampling": Method(lambda g: rc_sampling(g.source, g.start, seed=g.seed), _PAPER_A),
    "truncation": Method(lambda g: truncation(g.source, g.start), "the usual baseline"),
    "selection": Method(_selected(False), _MINITRON),
    "selection, scaled": Method(_selected(True), _MINITRON),
}
