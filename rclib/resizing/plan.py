"""What another width of a checkpoint means: sizes, index maps and the factors of every entry.

A plan is drawn before anything is read. Each index whose size changes gets one map from its new
neurons to those of the source; every stored axis of every tensor then has one list of source
places and, where it must, one factor an entry:

    new[a, b, ...] = old[p0[a], p1[b], ...] * f0[a] * f1[b] * ...

Two methods. *RC sampling* (paper A, Algorithm 1): neurons are drawn independently with
replacement, what a matrix sums over is scaled by (inputs before) / (inputs after).
*Duplication* (Net2WiderNet: Chen, Goodfellow and Shlens, arXiv 1511.05641): the source's neurons
stay in their places, copies follow, every one equally often or once more, and each of c copies
sends 1/c of what the original sent. Shrinking by it keeps a random subset and scales like RC
sampling; nothing can keep the function then.

Duplication keeps the function exactly (to rounding) of

- MLP neurons and heads, for any numbers: nothing but sums runs over them. Query heads stay with
  their key-value head. The size of a head is never changed: rotary positions turn its entries in
  pairs, and the scale of attention depends on it.
- the stream under RMSNorm, for any numbers: a copy of a channel that has c of them carries
  s = √(N' / (N c)) of it, so that the mean of squares over N' entries is the one over N, and the
  gains that follow are divided by s.
- the stream under LayerNorm, if every channel has as many copies as the others (N' = k N): mean
  and variance are then those of the source. Otherwise the copies count twice in both, which no
  gain can undo: mean and variance ask for s c = N'/N and s² c = N'/N, so s = 1. The plan says so.

Where embedding and output matrix are one tensor, the matrix's factors go to the gain and bias in
front of it (the last hidden state is scaled with them).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.families.axis_notation import Axis
from rclib.families.layout import FamilyError, Layout, Tied, Weight, base
from rclib.resizing.checkpoint import checkpoint_maps
from rclib.resizing.sizes import Sizes

__all__ = ["METHODS", "AxisPlan", "ResizePlan", "plan_resize"]

METHODS = ("duplication", "rc")
STREAM = "stream"


@dataclass(frozen=True)
class AxisPlan:
    """One stored axis. size : its new length; source : (size,) int64 places of the old one, None
    where nothing changes; factor : (size,) float64, None where all are one."""

    size: int
    source: Tensor | None = None
    factor: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ResizePlan:
    """How a checkpoint becomes one of another width.

    layout : of the source; sizes : index without block -> (before, after), those that change;
    maps : index -> (after,) sources; inputs, outputs : index -> (after,) factors of an entry that
    is summed over, and of one that is written; tied : whose output matrix is the embedding;
    exact : whether the function is kept; notes : lines that say why, or why not.
    """

    layout: Layout
    method: str
    seed: int
    sizes: Mapping[str, tuple[int, int]]
    maps: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    tied: Tied | None
    exact: bool
    notes: tuple[str, ...]

    def axes(self, name: str) -> tuple[AxisPlan, ...]:
        """The axes of one described tensor."""
        weight = self.layout.weights[name]
        return tuple(
            self._axis(axis, self._factors(weight, position))
            for position, axis in enumerate(weight.axes.axes)
        )

    def multipliers(self, name: str) -> tuple[float, float] | None:
        """Smallest and largest factor of a tensor's entries; None where all are copied."""
        factors = [a.factor for a in self.axes(name) if a.factor is not None]
        if not factors:
            return None
        low, high = (math.prod(float(end(f)) for f in factors) for end in (torch.min, torch.max))
        return low, high

    def _factors(self, weight: Weight, position: int) -> Mapping[str, Tensor]:
        """Factors by index for one axis of a tensor."""
        tied, name = self.tied, weight.name
        gain = _is_gain(weight)
        if tied is not None and name in tied.scaled:
            factor = self.inputs.get(STREAM)
            if factor is None:
                return {}
            scale = self.outputs.get(STREAM)
            return {STREAM: factor if scale is None or not gain else factor / scale**2}
        if tied is not None and name == tied.head:
            # The embedding itself, whose rows are written into the stream.
            return {i: f for i, f in self.outputs.items() if i == STREAM}
        if gain:
            return {i: 1.0 / f for i, f in self.outputs.items()}
        return self.inputs if position in weight.axes.inputs else self.outputs

    def _axis(self, axis: Axis, factors: Mapping[str, Tensor]) -> AxisPlan:
        sizes = {i: self.layout.sizes[i] for i in axis.names()}
        if not any(i in self.maps for i in axis.names()):
            return AxisPlan(axis.size(sizes))
        lead, scale = self._product(axis.lead, factors)
        if not axis.parts:
            return _plan(lead, scale)
        found, scales, before = [], [], 0
        for _, names in axis.parts:
            places, factor = self._product(names, factors)
            found.append(places + before)
            scales.append(factor)
            before += math.prod(sizes[i] for i in names)
        inner, factor = torch.cat(found), torch.cat(scales)
        return _plan(
            (lead[:, None] * before + inner).flatten(), (scale[:, None] * factor).flatten()
        )

    def _product(
        self, names: tuple[str, ...], factors: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Places and factors along a product of indices, the first one slowest."""
        places, scale = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.float64)
        for index in names:
            size = self.layout.sizes[index]
            own = self.maps.get(index, torch.arange(size))
            factor = factors.get(index, torch.ones(len(own), dtype=torch.float64))
            places = (places[:, None] * size + own).flatten()
            scale = (scale[:, None] * factor).flatten()
        return places, scale


def _plan(source: Tensor, factor: Tensor) -> AxisPlan:
    return AxisPlan(len(source), source, None if bool((factor == 1.0).all()) else factor)


def _is_gain(weight: Weight) -> bool:
    """Whether a vector over the stream multiplies it; biases are added to it."""
    axes = weight.axes.axes
    return len(axes) == 1 and axes[0].names() == (STREAM,) and weight.name.endswith(".weight")


def plan_resize(layout: Layout, sizes: Sizes, *, method: str, seed: int = 0) -> ResizePlan:
    """Draw a plan; nothing is read.

    layout : of the checkpoint, every tensor described. sizes : of
    `rclib.resizing.sizes.resolve_sizes`. method : one of `METHODS`. seed : draws everything.

    Raises ValueError for an unknown method or when nothing changes, FamilyError for indices that
    may not be resized.
    """
    choice("method", method, METHODS)
    target = {i: after for i, (before, after) in sizes.changed.items() if before != after}
    if not target:
        raise ValueError("nothing to resize: the model has these sizes already")
    drawn = checkpoint_maps(layout, target, replacement=method == "rc", seed=seed)
    maps: dict[str, Tensor] = {}
    for (piece, axis), places in drawn.items():
        maps.setdefault(layout.axes[piece][axis], places)
    if method == "duplication":
        generator = torch.Generator().manual_seed(int(seed))
        maps = {i: _in_place(layout.sizes[i], len(p), generator) for i, p in maps.items()}
    inputs, outputs, notes, exact = {}, {}, [], method == "duplication"
    if method == "rc":
        notes.append("RC sampling: the function is kept in the mean over draws, not by each one")
    for index, places in maps.items():
        before, after = layout.sizes[index], len(places)
        counts = torch.bincount(places, minlength=before)
        if method == "duplication" and after > before:
            inputs[index] = 1.0 / counts[places].double()
        else:
            inputs[index] = torch.full((after,), before / after, dtype=torch.float64)
            exact = False
        if index != STREAM or method == "rc" or after < before or after % before == 0:
            continue
        if sizes.norm == "rms":
            outputs[index] = torch.sqrt(after / (before * counts[places].double()))
            continue
        exact = False
        notes.append(
            f"the function is not kept: {after} is no multiple of {before}, so {after % before} "
            f"channels of the stream count {-(-after // before)} times in LayerNorm's mean and "
            f"variance and the others {after // before} times"
        )
    notes += _shrunk(sizes, method)
    return ResizePlan(
        layout, method, int(seed), {i: sizes.changed[i] for i in target}, maps, inputs, outputs,
        _tied(layout), exact, tuple(notes),
    )  # fmt: skip


def _shrunk(sizes: Sizes, method: str) -> list[str]:
    smaller = [i for i, (before, after) in sizes.changed.items() if after < before]
    if not smaller or method == "rc":
        return []
    return [f"the function is not kept: a random subset of {', '.join(smaller)} is left"]


def _in_place(before: int, after: int, generator: torch.Generator) -> Tensor:
    """The source's neurons in their order, then copies; of fewer a subset in order."""
    some = torch.randperm(before, generator=generator)[: after % before].sort().values
    return torch.cat([torch.arange(before).repeat(after // before), some])


def _tied(layout: Layout) -> Tied | None:
    """The tied pair if the model's configuration says that there is one."""
    tied = layout.tied
    if tied is None or not tied.tied or tied.embedding is None:
        return None
    for name in (tied.embedding, tied.head):
        axes = layout.weights[name].axes.axes if name is not None else ()
        if axes and {base(i) for axis in axes for i in axis.names()} != {"vocab", STREAM}:
            raise FamilyError(f"{name}: a tied matrix must run over vocab and stream alone")
    return tied
