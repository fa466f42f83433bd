"""Inputs and rollouts of notebook 91: episodes as sequences, played by policies of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rclib.checks.arguments import choice
from rclib.data.household import (
    ENTITIES,
    MOST_STEPS,
    VERBS,
    Episodes,
    demonstrations,
)
from rclib.nets.pointer_policy import PADDING
from rclib.nets.stack import Stack

__all__ = [
    "ORDERS",
    "TOKENS",
    "WORDS",
    "actions",
    "cloning_loss",
    "expert_steps",
    "inputs",
    "outputs",
    "shortened",
    "success",
]

WORDS = 10  # places of goal and history; the entities follow
TOKENS = WORDS + ENTITIES
ORDERS = ("sequence", "fixed", "anew")


def inputs(episodes: Episodes, order: str = "sequence", seed: int = 0) -> Tensor:
    """(n, 18, 4) tokens of `rclib.nets.pointer_policy`: goal, history, entities, padding last.

    order : "sequence"; "fixed": one random order of the places, by seed; "anew": another order for
    each input. Positions are those of the order. Raises ValueError for another order.
    """
    choice("order", order, ORDERS)
    n = len(episodes)
    words = torch.cat([episodes.goal.flatten(1), episodes.history.flatten(1)], 1)
    name = torch.cat([words, episodes.names], 1)
    state = torch.cat([torch.full_like(words, -1), episodes.states()], 1)
    numbers = torch.cat([torch.full((WORDS,), -1), torch.arange(ENTITIES)])
    entity = torch.where(name < 0, PADDING, numbers)
    random = torch.Generator().manual_seed(seed)
    if order == "sequence":
        place = torch.arange(TOKENS).expand(n, -1)
    elif order == "fixed":
        place = torch.randperm(TOKENS, generator=random).expand(n, -1)
    else:
        place = torch.rand(n, TOKENS, generator=random).argsort(1)
    tokens = torch.stack([name.clamp_min(0), place, state, entity], -1)
    sorting = (place + TOKENS * (entity == PADDING)).argsort(1)
    return tokens.gather(1, sorting[..., None].expand_as(tokens))


def shortened(x: Tensor) -> Tensor:
    """Inputs (..., n, T, 4) without the last places where all have padding, which no token sees."""
    seen = (x[..., 3] != PADDING).flatten(0, -2).any(0)
    return x[..., : max(1, int(seen.sum())), :]


def _drawn(order: str, seed: int, step: int) -> int:
    return seed if order == "fixed" else 1009 * seed + step


def expert_steps(episodes: Episodes, order: str, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs (N, 18, 4) and the expert's actions (N, 2) of all steps of the episodes."""
    seen, done, going = demonstrations(episodes)
    x = [
        inputs(e, order, _drawn(order, seed, t))[on]
        for t, (e, on) in enumerate(zip(seen, going, strict=True))
    ]
    return torch.cat(x), torch.cat([a[on] for a, on in zip(done, going, strict=True)])


def cloning_loss(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of verb and entity, mean over n actions y (n, 3); the third column is the
    weight, 0 for what is there to fill up. Source: Li and others, section 3.3."""
    weight = y[:, 2].to(out.dtype)
    verbs, places = (torch.log_softmax(part, -1) for part in out.split([len(VERBS), ENTITIES], -1))
    own = verbs.gather(1, y[:, :1]).squeeze(1) + places.gather(1, y[:, 1:2]).squeeze(1)
    return -(own * weight).sum() / weight.sum().clamp_min(1.0)


def actions(logits: Tensor) -> Tensor:
    """(..., 2) the likeliest verb and entity of logits (..., 11)."""
    verbs, places = logits.split([len(VERBS), ENTITIES], -1)
    return torch.stack([verbs.argmax(-1), places.argmax(-1)], -1)


def outputs(now: Stack, x: Tensor) -> Tensor:
    """Logits (S, n, 11) of inputs (S, n, 18, 4) without gradients."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # others run member by member in a stack
        return now(shortened(x), own=True)


def success(now: Stack, episodes: Sequence[Episodes], order: str, seeds: Sequence[int]) -> Tensor:
    """(S,) share of episodes in which each policy reaches its goal within `MOST_STEPS` steps."""
    play = [e.copy() for e in episodes]
    for t in range(MOST_STEPS):
        x = torch.stack([
            inputs(e, order, _drawn(order, s, t)) for e, s in zip(play, seeds, strict=True)
        ])  # fmt: skip
        for e, action in zip(play, actions(outputs(now, x)), strict=True):
            e.step(action)
    return torch.stack([e.reached.double().mean() for e in play])
