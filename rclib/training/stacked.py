"""One training loop for a stack of networks (`rclib.nets.stack`).

    start = stack([MLP(64, 32, 10, seed=s) for s in range(8)])
    end, found = train_stack(
        start,
        epoch_batches(x, y, batch_size=32, seeds=range(8)),
        torch.nn.functional.cross_entropy,
        steps=1000,
        lr=[0.01, 0.03, 0.1, 0.3] * 2,          # arms may differ in rate,
        optimizer="adam",
        masks={"W1": keep},                     # in mask, in start, seed and data
        record={"norm": lambda s: s.tensors["W1"].square().sum((1, 2)).sqrt()},
        at=range(0, 1001, 100),
    )
    found["loss"], found["norm"]                # (1000, 8), (11, 8)

Members do not touch each other: one whose loss overflows turns NaN alone, and the bits of a member
do not depend on the others (under the conditions that `rclib.nets.stack` names).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rclib.checks.arguments import brief, count, seed_of
from rclib.nets.stack import Stack, has_members, mapped
from rclib.training import stacked_backprop
from rclib.training.losses import under_vmap
from rclib.training.recorder import Losses, Recorder, chosen_steps
from rclib.training.stacked_optimizers import Schedule, Settings, Updates, by_member

__all__ = ["epoch_batches", "epoch_orders", "train_stack"]

Batch = Callable[[int], tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Written = Callable[[Mapping[str, Tensor], Tensor, Tensor], tuple[Tensor, Mapping[str, Tensor]]]
Stop = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


def train_stack(
    start: Stack,
    batch: Batch,
    loss: Loss,
    *,
    steps: int,
    lr: float | Sequence[float] | Tensor,
    optimizer: str = "sgd",
    momentum: float | Sequence[float] | Tensor = 0.9,
    betas: tuple[Any, Any] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float | Sequence[float] | Tensor = 0.0,
    factors: Mapping[str, float] | None = None,
    lr_schedule: Schedule | None = None,
    frozen: Collection[str] = (),
    masks: Mapping[str, Tensor] | None = None,
    stop: float | Sequence[float] | Tensor | Stop | None = None,
    record: Mapping[str, Callable[[Stack], Tensor]] | None = None,
    at: Iterable[int] = (),
    own: str | None = None,
    one_by_one: bool = False,
    written: Written | None = None,
) -> tuple[Stack, dict[str, Tensor]]:
    """Train S networks at once; `start` is left as it is.

    batch : step (from 0) -> x (S, n, ...) or shared (n, ...), y (S, n, ...) or shared (n, ...).
    loss : (output of one network (n, ...), y (n, ...)) -> (), e.g. `cross_entropy`.
    lr : η, one for all or (S,), as `momentum` (μ of "momentum"), `betas` and `weight_decay`.
    optimizer : "sgd", "momentum", "adam" (decay within the gradient), "adamw" (decoupled), each
        the rule of torch.optim; betas and eps of the last two.
    factors : name -> factor of the rate for that tensor (`MLP.lr_factors`), 1 for others.
    lr_schedule : factor of the rate at each step, (steps,), (steps, S) or step -> number or (S,).
    frozen : names of tensors that are not trained.
    masks : name -> (S, *shape) or (*shape,) of zeros and ones; entries at zero are zero from the
        start and stay so, whatever else happens.
    stop : a target, one or (S,): a member whose loss at a step is at most that makes no further
        update. Or (losses (t + 1, S), {name: recorded rows so far}) -> (S,) bool, asked at each
        step t before its update.
    record, at : name -> (Stack -> (S, ...)), measured after t updates for each t of `at`, 0 to
        `steps`. The stack's tensors must not be changed or kept: rows are copied.
    own : which of "x" and "y" have a first axis of members: "", "x", "y" or "xy". None: x if it
        has three axes, not if it has two, and y by its length; refused where that does not say.
    one_by_one : take losses member by member and not under `torch.vmap`, which convolutions of
        few channels lose by; the bits are then those of other calls with it alone.
    written : (tensors by name, x, y), all with an axis of members -> losses (S,), {name: gradient
        (S, *shape)}; asked in place of autograd after the first step, which checks it. Known
        for an `MLP` and cross-entropy (`rclib.training.stacked_backprop`).

    Returns the trained stack and {name: (R, S, ...) for R steps}, with "loss" (steps, S), the
    loss of each step's batch before its update, NaN after a member's stop, and with `stop`
    "stopped_at" (S,): the updates that each member made.

    Raises ValueError naming the argument and its value, TypeError for what is no tensor.
    """
    steps, members = count("steps", steps, 0), len(start)
    if own is not None and own not in ("", "x", "y", "xy"):
        raise ValueError(f"own must be '', 'x', 'y' or 'xy', got {brief(own)}")
    record = dict(record or {})
    taken = record.keys() & {"loss", "stopped_at"}
    if taken:
        raise ValueError(f"record must not be named {min(taken)!r}: that is recorded anyway")
    known = start.tensors.keys()
    for name, names in (("frozen", frozen), ("masks", masks or ()), ("factors", factors or ())):
        unknown = sorted(set(names) - known) if not isinstance(names, str) else [names]
        if unknown:
            raise ValueError(f"{name} must name tensors of {sorted(known)}, got {unknown[0]!r}")
    if known <= set(frozen):
        raise ValueError(f"frozen must leave a tensor to train, got all of {sorted(known)}")

    tensors = {name: tensor.detach().clone() for name, tensor in start.tensors.items()}
    outside = {name: _outside(name, mask, tensors) for name, mask in (masks or {}).items()}
    for name, where in outside.items():
        tensors[name].masked_fill_(where, 0.0)
    now = replace(start, tensors=tensors)
    trained = {name: tensor for name, tensor in tensors.items() if name not in frozen}
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in trained.items()}
    settings = Settings(optimizer, lr, momentum, betas, eps, weight_decay, factors, lr_schedule)
    updates = Updates(settings, trained, steps)
    kept = Recorder(dict.fromkeys(record, chosen_steps("at", at, steps)))
    first = next(iter(tensors.values()))
    losses = Losses(
        0, steps, members=(members,), fill=math.nan, dtype=first.dtype, device=first.device
    )
    stopping = _Stopping(stop, members, steps, first) if stop is not None else None
    places = _Places(own, members)
    taken_as = loss if one_by_one else under_vmap(loss)
    alone = lambda tensors, x, y: taken_as(start.one(tensors, x), y)  # noqa: E731
    each = _one_by_one(alone, members) if one_by_one else mapped(alone, tensors)
    inputs = {**tensors, **leaves}  # the leaves share the memory of what is trained
    columns, sources = list(trained.values()), list(leaves.values())
    known_layers = None if written else stacked_backprop.layers_of(start.one, loss)
    masked = [(list(trained).index(n), where) for n, where in outside.items() if n in trained]

    for t in range(steps + 1):
        _measure(kept, record, t, now)
        if t == steps or (stopping is not None and stopping.all_stopped):
            continue  # what is due later is measured on what does not move any more
        x, y = places(*batch(t))
        gradients: Sequence[Tensor]
        if written is not None and t > 0:  # the first step checks what it gets
            with torch.no_grad():
                found, by_name = written(tensors, x, y)
            gradients = [by_name[name] for name in trained]
        elif known_layers is not None and t > 0 and y.ndim == 2:
            found, by_name = stacked_backprop.gradients(known_layers, tensors, x, y)
            gradients = [by_name[name] for name in trained]
        else:
            found = each(inputs, x, y)
            if t == 0 and found.shape != (members,):
                raise ValueError(f"loss must give one number, got shape {tuple(found.shape[1:])}")
            if t == 0:
                _check_used(found, leaves)
            # The members' losses share nothing, so the gradient of their sum holds each one's own.
            gradients = torch.autograd.grad(found.sum(), sources)
            if written is not None:
                right = dict(zip(trained, gradients, strict=True))
                _check_written(written(tensors, x, y), found, right)
        losses.values[t] = found.detach()
        if stopping is not None:
            stopping.look(t, losses, kept)
        amounts = updates.step(t, gradients)
        for place, where in masked:
            amounts[place].masked_fill_(where, 0.0)
        if stopping is not None and stopping.any_stopped:
            for amount in amounts:
                amount.masked_fill_(stopping.stopped.view(-1, *(1,) * (amount.ndim - 1)), 0.0)
        torch._foreach_sub_(columns, amounts)

    out = {"loss": losses.values, **{name: kept.arrays[name] for name in kept.arrays}}
    if stopping is not None:
        out["stopped_at"] = stopping.stopped_at
    return now, out


def _check_written(
    given: tuple[Tensor, Mapping[str, Tensor]], losses: Tensor, gradients: Mapping[str, Tensor]
) -> None:
    """Raises ValueError for a written loss or gradient that is not autograd's but for rounding."""
    for name, own, right in [("loss", given[0], losses.detach())] + [
        (f"gradient of {name}", given[1][name], right) for name, right in gradients.items()
    ]:
        most = float(right.abs().max())
        if own.shape != right.shape or not torch.allclose(own, right, 1e-3, 1e-3 * most, True):
            raise ValueError(f"written gives another {name} than autograd takes of the loss")


def _one_by_one(alone: Callable[..., Tensor], members: int) -> Callable[..., Tensor]:
    """What `torch.vmap` gives of a function of (tensors by name, x, y), member by member."""

    def each(tensors: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        parts = {name: tensor.unbind() for name, tensor in tensors.items()}
        return torch.stack([
            alone({name: part[s] for name, part in parts.items()}, x[s], y[s])
            for s in range(members)
        ])  # fmt: skip

    return each


def _outside(name: str, mask: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Where a mask is zero, (S, *shape)."""
    tensor = tensors[name]
    if not isinstance(mask, Tensor):
        raise TypeError(f"masks[{name!r}] must be a tensor, got {type(mask).__name__}")
    if mask.shape not in (tensor.shape, tensor.shape[1:]):
        raise ValueError(
            f"masks[{name!r}] must have shape {tuple(tensor.shape)} or {tuple(tensor.shape[1:])}, "
            f"got {tuple(mask.shape)}"
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(f"masks[{name!r}] must hold zeros and ones, got other values")
    return (mask.to(tensor.device) == 0).expand(tensor.shape)


def _measure(
    kept: Recorder, record: Mapping[str, Callable[[Stack], Tensor]], t: int, now: Stack
) -> None:
    for name, measure in record.items():
        if not kept.due(name, t):
            continue
        with torch.no_grad():
            value = measure(now)
        if not isinstance(value, Tensor) or value.shape[:1] != (len(now),):
            raise ValueError(
                f"record[{name!r}] must give a tensor ({len(now)}, ...), got {brief(value)}"
            )
        kept.write(name, t, name, value)


def _check_used(found: Tensor, leaves: Mapping[str, Tensor]) -> None:
    """ValueError naming a tensor that the loss does not depend on."""
    if not found.requires_grad:
        raise ValueError("loss must depend on a tensor that is trained; it depends on none")
    grads = torch.autograd.grad(
        found.sum(), list(leaves.values()), retain_graph=True, allow_unused=True
    )
    for name, grad in zip(leaves, grads, strict=True):
        if grad is None:
            raise ValueError(f"frozen must name {name!r}: the loss does not depend on it")


class _Places:
    """Gives every member its x and y: as they come, or one and the same for all, not copied."""

    def __init__(self, own: str | None, members: int) -> None:
        self.own, self.members = own, members
        self.shapes: tuple[torch.Size, torch.Size] | None = None
        self.x = self.y = False  # whether they have an axis of members

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if (x.shape, y.shape) != self.shapes:
            self._look(x, y)
            self.shapes = (x.shape, y.shape)
        x = x if self.x else x.expand(self.members, *x.shape)
        return x, y if self.y else y.expand(self.members, *y.shape)

    def _look(self, x: Tensor, y: Tensor) -> None:
        own, members = self.own, self.members
        self.x = has_members("x", x, members, None if own is None else "x" in own)
        if not isinstance(y, Tensor):
            raise TypeError(f"y must be a torch tensor, got {type(y).__name__}")
        n = x.shape[1] if self.x else x.shape[0]
        theirs, shared = y.shape[:2] == (members, n), y.shape[:1] == (n,)
        if own is not None:
            theirs, shared = theirs and "y" in own, shared and "y" not in own
        if not theirs and not shared:
            raise ValueError(
                f"y must have shape ({n}, ...) or ({members}, {n}, ...) as x of shape "
                f"{tuple(x.shape)} and own = {own!r} say, got {tuple(y.shape)}"
            )
        if theirs and shared:
            raise ValueError(
                f"own must say whether y of shape {tuple(y.shape)} has an axis of members: "
                f"S = n = {n}"
            )
        self.y = theirs


class _Stopping:
    """Which members have stopped, and after how many updates."""

    def __init__(self, stop: Any, members: int, steps: int, like: Tensor) -> None:
        self.rule: Stop | None = stop if callable(stop) and not isinstance(stop, Tensor) else None
        if self.rule is None:
            target = torch.from_numpy(by_member("stop", stop, members))
            self.target = target.to(like.dtype).to(like.device)
        self.stopped = torch.zeros(members, dtype=torch.bool, device=like.device)
        self.stopped_at = torch.full((members,), steps, device=like.device)
        self.any_stopped = self.all_stopped = False

    def look(self, t: int, losses: Losses, kept: Recorder) -> None:
        """Note who stops before update t; losses of those who had stopped before turn NaN."""
        row = losses.values[t]
        if self.any_stopped:
            row[self.stopped] = math.nan
        if self.rule is None:
            wanted = row <= self.target
        else:
            rows = {
                name: array[: sum(s <= t for s in kept.steps(name))]
                for name, array in kept.arrays.items()
            }
            wanted = self.rule(losses.until(t + 1), rows)
            if not isinstance(wanted, Tensor) or wanted.shape != row.shape:
                raise ValueError(
                    f"stop must give a tensor ({len(row)},) of bool, got {brief(wanted)}"
                )
            wanted = wanted.bool()
        new = wanted & ~self.stopped
        if bool(new.any()):
            self.stopped_at[new] = t
            self.stopped |= new
            self.any_stopped, self.all_stopped = True, bool(self.stopped.all())


def epoch_orders(n: int, batch_size: int | None, seeds: Iterable[int]) -> Callable[[int], Tensor]:
    """step -> (S, b) indices below n: every member goes through the data in an order of its own.

    The order of a member is a function of its seed alone, a permutation an epoch, the same as
    `rclib.training.classifier.train` takes with that seed; the last batch of an epoch may be
    shorter. batch_size: None for all n. Raises ValueError naming the argument.
    """
    n, size = count("n", n), count("batch_size", n if batch_size is None else batch_size)
    numbers = [seed_of(f"seeds[{s}]", seed) for s, seed in enumerate(seeds)]
    if not numbers:
        raise ValueError("seeds must hold at least one seed, got none")
    a_epoch = math.ceil(n / size)
    generators: list[torch.Generator] = []
    order, epoch = torch.empty(0), -1

    def at(step: int) -> Tensor:
        nonlocal generators, order, epoch
        wanted, place = divmod(step, a_epoch)
        if wanted < epoch or not generators:
            generators, epoch = [torch.Generator().manual_seed(s) for s in numbers], -1
        while epoch < wanted:
            order = torch.stack([torch.randperm(n, generator=g) for g in generators])
            epoch += 1
        return order[:, place * size : (place + 1) * size]

    return at


def epoch_batches(
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int | None,
    seeds: Iterable[int],
    subsets: Tensor | None = None,
) -> Batch:
    """Batches for `train_stack` out of x (n, ...) and y (n, ...): step -> (S, b, ...), (S, b, ...).

    batch_size, seeds : as in `epoch_orders`. None gives all data at once, in their own order:
        x and y themselves, or each member's subset.
    subsets : (S, k) whole numbers, the points that each member has; None for all.

    Raises ValueError naming the argument and its value.
    """
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"x and y must be equally long and not empty, got {len(x)} and {len(y)}")
    seeds = list(seeds)
    if subsets is not None:
        if subsets.ndim != 2 or len(subsets) != len(seeds) or subsets.is_floating_point():
            raise ValueError(
                f"subsets must be whole numbers ({len(seeds)}, k), got {brief(subsets)}"
            )
        bad = subsets[(subsets < 0) | (subsets >= len(x))]
        if len(bad):
            raise ValueError(f"subsets must hold places below {len(x)}, got {int(bad[0])}")
        subsets = subsets.to(x.device)
    if batch_size is None:
        whole = (x, y) if subsets is None else (x[subsets], y[subsets])
        return lambda step: whole
    of = epoch_orders(len(x) if subsets is None else subsets.shape[1], batch_size, seeds)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        places = of(step).to(x.device)
        if subsets is not None:
            places = subsets.gather(1, places)
        return x[places], y[places]

    return batch
