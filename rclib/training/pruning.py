"""Iterative magnitude pruning of a stack of networks, with resetting or rewinding.

    def train(start, masks):
        return train_stack(start, batches, cross_entropy, steps=1000, lr=1e-3, masks=masks)

    rounds = iterative_pruning(start, train, rounds=5, shares={"W1": 0.2, "W2": 0.2, "W3": 0.1})
    rounds[0].end                      # the dense networks, trained
    rounds[5].masks, rounds[5].end     # winning tickets: what is left after five prunings, trained

After each training the share of smallest weights among those still there is dropped, and the others
go back to their values in `start` (Frankle and Carbin 2019, Strategy 1). To rewind to step k
instead (Frankle et al. 2020), `start` is the dense stack after k steps and `train` takes the rest
of the batches. With `reset=False` they keep what they have learned while they are pruned
(Strategy 2). Running means of the optimiser begin at zero in every round.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from rclib.checks.arguments import choice, count, flag
from rclib.nets.masks import Masks, apply_masks, full_masks, prune_globally, prune_layers
from rclib.nets.stack import Stack

__all__ = ["SCOPES", "Round", "iterative_pruning"]

SCOPES = ("layer", "global")

Found = TypeVar("Found")


@dataclass(frozen=True)
class Round(Generic[Found]):
    """One training under a mask.

    masks : name -> (S, *shape) bool. start, end : before and after it, zero where the mask is.
    found : what `train` gave beside the trained stack.
    """

    masks: Masks
    start: Stack
    end: Stack
    found: Found


def iterative_pruning(
    start: Stack,
    train: Callable[[Stack, Masks], tuple[Stack, Found]],
    *,
    rounds: int,
    shares: float | Mapping[str, float],
    names: Collection[str] | None = None,
    scope: str = "layer",
    reset: bool = True,
) -> list[Round[Found]]:
    """Train, prune, reset, `rounds` times, and train what is left: rounds + 1 trainings.

    train : (masked start, masks) -> (trained stack, anything); it must keep pruned weights at zero,
        as `train_stack` with `masks` does.
    shares : of the surviving weights, dropped in each round, in [0, 1): one number, or for the
        scope "layer" a mapping from the names that are pruned.
    names : of the tensors that are pruned; None: those of `shares`, or all where it is a number.
    scope : "layer", every tensor by itself, or "global", all together.
    reset : False: survivors go on from their trained values.

    Raises ValueError naming the argument and its value, and for a `train` that moved pruned
    weights.
    """
    rounds, scope = count("rounds", rounds, 0), choice("scope", scope, SCOPES)
    flag("reset", reset)
    if names is None:
        names = list(shares) if isinstance(shares, Mapping) else list(start.tensors)
    if scope == "global" and isinstance(shares, Mapping):
        raise ValueError("shares must be one number where pruning is global, got a mapping")
    masks = full_masks(start.tensors, names)
    done: list[Round[Found]] = []
    values = start.tensors
    for number in range(rounds + 1):
        begin = replace(start, tensors=apply_masks(values, masks))
        end, found = train(begin, masks)
        _check_zeros(end, masks)
        done.append(Round(masks, begin, end, found))
        if number == rounds:
            break
        if isinstance(shares, Mapping) or scope == "layer":
            masks = prune_layers(end.tensors, masks, shares)
        else:
            masks = prune_globally(end.tensors, masks, shares)
        values = start.tensors if reset else end.tensors
    return done


def _check_zeros(end: Stack, masks: Masks) -> None:
    for name, mask in masks.items():
        if bool(end.tensors[name][~mask].ne(0).any()):
            raise ValueError(f"train must keep pruned weights at zero, {name!r} has others")
