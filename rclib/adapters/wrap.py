"""Methods on the matrices of a stack of networks.

    wrapped = adapt(base, {"layers.0.weight": LoRA(8), "layers.1.weight": LoRA(8)}, seeds=range(16))
    end, found = train_stack(wrapped.stack, batch, loss, frozen=wrapped.frozen, ...)
    wrapped.merged(end)["layers.0.weight"]      # (S, o, i), W′ of every member
    wrapped.trained_counts                      # of every member, "train" left out

Each member has parts of its own, named "layers.0.weight/A", and each may have a start of its own:
many seeds and rates are trained at once by `rclib.training.stacked.train_stack`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from rclib.adapters.method import Method, Parts
from rclib.checks.arguments import seed_of
from rclib.nets.stack import Stack

__all__ = ["Adapted", "Network", "Product", "adapt", "parts_of"]

Product = Callable[[str, Tensor], Tensor]
# ({name: tensor} without the adapted matrices, x, product) -> outputs; product(name, h) is
# h W′ᵀ (n, o) for a matrix that may be adapted.
Network = Callable[[Mapping[str, Tensor], Tensor, Product], Tensor]


def parts_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """{part: tensor} of the adapted matrix `name`, with the axes that `tensors` have."""
    start = f"{name}/"
    return {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}


@dataclass(frozen=True, eq=False)
class Adapted:
    """A stack with adapted matrices.

    stack : to be trained, with `frozen` names left alone. methods : name of a matrix -> method, of
    the first member where members differ. trained_counts (S,) : trained numbers of each member
    within the adapted matrices.
    """

    stack: Stack
    methods: dict[str, Method]
    frozen: frozenset[str]
    trained_counts: tuple[int, ...]

    def merged(self, now: Stack) -> dict[str, Tensor]:
        """{name: (S, ...)} with plain matrices, as the network had before it was adapted."""
        return torch.vmap(partial(_merged, self.methods))(now.tensors)

    def merged_stack(self, now: Stack, like: Stack) -> Stack:
        """The same as a stack with the function of `like`."""
        return replace(like, tensors=self.merged(now))


def _merged(methods: Mapping[str, Method], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = {name: t for name, t in tensors.items() if "/" not in name}
    return out | {name: method.merge(parts_of(tensors, name)) for name, method in methods.items()}


def adapt(
    start: Stack,
    methods: Mapping[str, Method | Sequence[Method]],
    *,
    seeds: Sequence[int],
    inputs: Mapping[str, Tensor] | None = None,
    network: Network | None = None,
    train: Collection[str] = (),
) -> Adapted:
    """A stack whose matrices `methods` names are taken apart.

    methods : name -> one method for all members, or S of equal `kin`, one a member.
    seeds : (S,), of what a method draws for each member; matrix number j of `methods` takes the
        seed of member s with 1009 j added, so that layers draw apart.
    inputs : name -> (S, n, i), what that matrix gets, for methods that look at it.
    network : the network with its matrix products left open, so that factored ones are not
        merged at every step; None merges and calls `start`'s function.
    train : names of other tensors that are trained (a new head); the rest is frozen.

    Raises ValueError naming the argument for names that are not there, numbers of seeds or inputs
    that do not fit, and what a method refuses.
    """
    names = list(start.tensors)
    for what, given in (("methods", methods), ("train", train), ("inputs", inputs or {})):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f"{what} must name tensors of {sorted(names)}, got {unknown[0]!r}")
    if set(train) & set(methods):
        raise ValueError(f"train must not name {min(set(train) & set(methods))!r}: it is adapted")
    numbers = [seed_of(f"seeds[{s}]", seed) for s, seed in enumerate(seeds)]
    if len(numbers) != len(start):
        raise ValueError(f"seeds must be {len(start)}, one a member, got {len(numbers)}")
    each = {name: _of_members(name, given, len(start)) for name, given in methods.items()}
    tensors = {name: t for name, t in start.tensors.items() if name not in methods}
    trained, counted = set(train), [0] * len(start)
    for j, (name, own) in enumerate(each.items()):
        weights = start.tensors[name]
        x = None if inputs is None else inputs.get(name)
        if x is not None and len(x) != len(start):
            raise ValueError(f"inputs[{name!r}] must have {len(start)} members, got {len(x)}")
        parts = [
            method.start(w, seed=seed + 1009 * j, inputs=None if x is None else x[s])
            for s, (method, w, seed) in enumerate(zip(own, weights, numbers, strict=True))
        ]
        tensors |= {f"{name}/{key}": torch.stack([p[key] for p in parts]) for key in parts[0]}
        trained |= {f"{name}/{key}" for key in own[0].trained}
        for s, method in enumerate(own):
            counted[s] += method.trained_count(weights.shape[1], weights.shape[2])
    first = {name: own[0] for name, own in each.items()}
    one = partial(_through, first, start.one, network)
    return Adapted(Stack(tensors, one), first, frozenset(set(tensors) - trained), tuple(counted))


def _of_members(name: str, given: Method | Sequence[Method], members: int) -> list[Method]:
    """One method a member. Raises ValueError for another number, and for methods not of a kin."""
    if isinstance(given, Method):
        return [given] * members
    own = list(given)
    if len(own) != members or any(method.kin != own[0].kin for method in own):
        raise ValueError(
            f"methods[{name!r}] must be one method or {members} of equal kin, got {len(own)}"
        )
    return own


def _through(
    methods: Mapping[str, Method],
    plain: Callable[[Mapping[str, Tensor], Tensor], Tensor],
    network: Network | None,
    tensors: Mapping[str, Tensor],
    x: Tensor,
) -> Tensor:
    if network is None:
        return plain(_merged(methods, tensors), x)

    def product(name: str, h: Tensor) -> Tensor:
        if name not in methods:
            return h @ tensors[name].T
        parts: Parts = parts_of(tensors, name)
        return methods[name].apply(parts, h)

    return network({name: t for name, t in tensors.items() if "/" not in name}, x, product)
