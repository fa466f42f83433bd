"""Many small networks of one shape as one: S networks, a leading axis of S on every tensor.

    stacked = stack([MLP(20, 50, 10, seed=s) for s in range(16)])
    stacked(x)                 # (S, n, c), for x (n, d) shared or (S, n, d) each its own
    stacked.tensors["W1"]      # (S, 50, 20)
    stacked.member(3)          # {name: tensor}, a state dict of one network

For tiny networks nearly all the time of a step is spent between the products; a stack spends it
once for all S. `rclib.training.stacked` trains a stack.

Every product is done member by member within one call (`torch.bmm`), also for inputs that all
share, so that on a CPU a member's numbers depend neither on S nor on its place (with MKL on some
processors only under `MKL_CBWR=AUTO`, which the Makefile sets: else the last bits of a product
depend on where its matrices begin in memory). That holds bit for
bit as far as torch's elementwise functions do not care where a number stands. Those that round
once (sums, products, roots, relu) and tanh, exp and log do not; softplus, sigmoid, silu, elu and
gelu do: their last few numbers of a whole tensor come from other code than the rest. With those,
the bits are a member's own where its share of each such tensor (n times the width) is a multiple
of 32. A stack of one with a matrix of one row or column, whose products are with vectors, is
computed twice at once (`mapped`): alone they are taken by other code. A stack has the bits of other
stacks, not of the plain module, whose products are others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rclib.checks.arguments import brief, flag

__all__ = ["Stack", "has_members", "mapped", "stack", "with_vectors"]


@dataclass(frozen=True)
class Stack:
    """S networks of one shape.

    tensors : name -> (S, *shape of one), all on one device and of one real floating dtype.
    one : ({name: (*shape,)}, x (n, ...)) -> (n, ...), the function of one network.

    Raises ValueError naming the tensor that does not fit, TypeError for what is no tensor.
    """

    tensors: dict[str, Tensor]
    one: Callable[[Mapping[str, Tensor], Tensor], Tensor]

    def __post_init__(self) -> None:
        if not self.tensors:
            raise ValueError("tensors must hold at least one tensor, got none")
        first: Tensor | None = None
        for name, tensor in self.tensors.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(f"tensors: {name!r} is a {type(tensor).__name__}, not a tensor")
            if not tensor.is_floating_point() or tensor.layout != torch.strided:
                raise ValueError(
                    f"tensors: {name!r} must be dense and floating, got {tensor.dtype}, "
                    f"{tensor.layout}"
                )
            first = tensor if first is None else first
            if tensor.ndim == 0 or len(tensor) == 0 or len(tensor) != len(first):
                raise ValueError(
                    f"tensors: {name!r} must have a first axis of members, as long as the others' "
                    f"and not empty, got shape {tuple(tensor.shape)}"
                )
            if (tensor.dtype, tensor.device) != (first.dtype, first.device):
                raise ValueError(
                    f"tensors: {name!r} is {tensor.dtype} on {tensor.device}, the first one "
                    f"{first.dtype} on {first.device}"
                )

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __call__(self, x: Tensor, *, own: bool | None = None) -> Tensor:
        """Outputs (S, n, ...) of all networks.

        x : (n, ...) shared by all, or (S, n, ...).
        own : whether x has a first axis of members. None: if it has three axes, not if it has
            two; other numbers of axes (images, tokens) must say.

        Raises ValueError for x of a wrong first axis, or of axes that do not say.
        """
        if has_members("x", x, len(self), own):
            return self.each(self.tensors, x)
        return self.each(self.tensors, x.expand(len(self), *x.shape))

    def each(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """`one` for every member: of tensors (S, *shape) and x (S, n, ...)."""
        return mapped(self.one, tensors)(dict(tensors), x)

    def member(self, s: int) -> dict[str, Tensor]:
        """{name: (*shape,)}, views of one network's tensors. Raises IndexError beyond the last."""
        return {name: tensor[s] for name, tensor in self.tensors.items()}


def with_vectors(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors (S, *shape) are those of one member and a matrix has one row or column."""
    return any(len(t) == 1 and t.ndim == 3 and 1 in t.shape[1:] for t in tensors.values())


def mapped(one: Callable[..., Tensor], tensors: Mapping[str, Tensor]) -> Callable[..., Tensor]:
    """`torch.vmap(one)`, for functions of ({name: (*shape,)}, x, ...) and tensors like these.

    One member `with_vectors` goes beside a copy of itself, which no gradient flows to. For a
    matrix and a vector, `torch.bmm` takes one pair by other code than several, and on some
    processors the last bits differ.
    """
    each = torch.vmap(one)
    if not with_vectors(tensors):
        return each

    def beside_a_copy(given: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
        both = {name: torch.cat([t, t.detach()]) for name, t in given.items()}
        out: Tensor = each(both, *(torch.cat([x, x]) for x in inputs))
        return out[:1]

    return beside_a_copy


def has_members(name: str, value: Tensor, members: int, own: bool | None) -> bool:
    """Whether an input has a first axis of members; see `Stack.__call__` for `own`.

    Raises TypeError naming the argument for what is no tensor, ValueError if `own` is None and
    the number of axes does not say, or if there should be that axis and it has another length.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}")
    if own is None and value.ndim not in (2, 3):
        raise ValueError(
            f"own must say whether {name} of {value.ndim} axes has one of members, got None"
        )
    found = value.ndim == 3 if own is None else flag("own", own)
    if found and (value.ndim == 0 or len(value) != members):
        raise ValueError(
            f"{name} must have a first axis of {members} members, got shape {tuple(value.shape)}"
        )
    return found


def stack(models: Sequence[nn.Module]) -> Stack:
    """One stack of modules that differ in their parameters' values alone.

    Member s starts as models[s], bit for bit; they are copied and left as they are.

    Raises TypeError for what is no module; ValueError, naming the place, if there are none, if
    two differ in anything but values, if one has no parameters or has buffers. BatchNorm keeps
    its running statistics in buffers: build it with `track_running_stats=False` (statistics of
    the batch always), or freeze it into weights. Modules that draw random numbers (dropout in
    training) are refused too: their draws would depend on S.
    """
    models = list(models)
    if not models:
        raise ValueError("models must hold at least one module, got none")
    for s, model in enumerate(models):
        if not isinstance(model, nn.Module):
            raise TypeError(f"models[{s}] must be a torch module, got {type(model).__name__}")
        _check_parts(s, model)
        if s:
            _check_alike(s, models[0], model)
    states = [dict(model.named_parameters()) for model in models]
    if not states[0]:
        raise ValueError(f"models[0], a {type(models[0]).__name__}, has no parameters")
    tensors = {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
    # A copy, so that what the caller does with models[0] later changes nothing here; without
    # values, but with its ties between parameters, which moving to another device would cut.
    shell = copy.deepcopy(models[0])
    for p in shell.parameters():
        p.data = p.data.new_empty(0)
    tied = len(list(shell.named_parameters(remove_duplicate=False))) > len(tensors)
    return Stack(tensors, partial(functional_call, shell, tie_weights=tied))


def _check_parts(s: int, model: nn.Module) -> None:
    buffers = [name for name, _ in model.named_buffers()]
    if buffers:
        raise ValueError(
            f"models[{s}] has buffers, which a stack does not carry: {', '.join(buffers[:4])}"
            f"{', ...' if len(buffers) > 4 else ''} (BatchNorm: track_running_stats=False)"
        )
    for name, part in model.named_modules():
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.training and part.p:
            raise ValueError(
                f"models[{s}] draws random numbers in {name or 'itself'} "
                f"({type(part).__name__}, p = {part.p}); call eval() or leave it out"
            )


def _check_alike(s: int, first: nn.Module, other: nn.Module) -> None:
    """ValueError unless two modules differ in nothing but the values of parameters."""
    parts, others = dict(first.named_modules()), dict(other.named_modules())
    if parts.keys() != others.keys():
        name = min(parts.keys() ^ others.keys())
        raise ValueError(f"models[{s}] and models[0] differ: only one has a part {name!r}")
    for name in parts:
        a, b = _description(parts[name]), _description(others[name])
        for key in a | b:
            if key not in a or key not in b or a[key] != b[key]:
                raise ValueError(
                    f"models[{s}] and models[0] differ in {f'{name}.{key}' if name else key}: "
                    f"{brief(b.get(key, 'absent'))} and {brief(a.get(key, 'absent'))}"
                )


def _description(part: nn.Module) -> dict[str, Any]:
    """What the function of a module depends on beside its values, as far as it says so."""
    plain = (bool, int, float, str, tuple, type(None))
    found: dict[str, Any] = {
        key: value
        for key, value in vars(part).items()
        if not key.startswith("_") and (isinstance(value, plain) or is_dataclass(value))
    }
    for name, p in part.named_parameters(recurse=False):
        found[name] = f"{tuple(p.shape)}, {p.dtype}, {p.device}"
    return {"type": type(part).__qualname__, **found}
