"""Stored runs of notebook 91: policies that gather their own data, without an expert.

In each round a policy explores, half of its actions at random; what it did is cut into pieces, and
it is cloned on all pieces so far. With relabelling each piece that ends with an object in a
receptacle gets this pair as its goal; without, pieces are kept whose pair was the goal.

Source: Li and others, arXiv 2202.01771, section 4 (active data gathering).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rclib.checks.arguments import flag
from rclib.data.household import (
    ENTITIES,
    MOST_STEPS,
    PAIRS,
    VERBS,
    Episodes,
    draw_episodes,
    held_out_pairs,
)
from rclib.data.text import TextData
from rclib.experiments.language import decision_texts as texts
from rclib.experiments.language.decision_inputs import TOKENS, actions, inputs, outputs, success
from rclib.experiments.language.decision_runs import cloned, start_of
from rclib.nets.pointer_policy import policy
from rclib.nets.stack import Stack
from rclib.runs.store import Arrays

__all__ = ["GATHERED", "TINY", "Played", "explore", "gathering_runs", "pieces"]

GATHERED = ("one pair, in distribution", "one pair, novel", "two pairs, novel")
TINY: dict[str, dict[str, Any]] = {
    "gathering_runs": {
        "group": [{"seed": 0}, {"seed": 3}], "arm": "LM", "relabel": True,
        "net": {"width": 8, "blocks": 2, "head_size": 4, "context": 20},
        "language": {"marks": [2], "default": 2, "batch_size": 2, "rate": 0.003},
        "gathering": {"rounds": 2, "episodes": 6, "steps": 2, "random": 0.5, "batch": 4,
                      "rate": 0.003, "each": 3, "n_test": 5},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Played:
    """What was done in n episodes: before each step the episodes, the actions (n, 2) and whether
    they changed anything (n,); at the end the episodes."""

    before: list[Episodes]
    action: list[Tensor]
    changed: list[Tensor]
    end: Episodes


def explore(
    now: Stack, episodes: Sequence[Episodes], share: float, seeds: Sequence[int]
) -> list[Played]:
    """Plays the episodes of each member, an action at random with probability `share`, else the
    likeliest one; a random action is any verb with any entity."""
    play = [Played([], [], [], e.copy()) for e in episodes]
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(MOST_STEPS):
        x = torch.stack([inputs(p.end) for p in play])
        for p, likely, g in zip(play, actions(outputs(now, x)), streams, strict=True):
            n = len(p.end)
            drawn = torch.stack([
                torch.randint(len(VERBS), (n,), generator=g),
                torch.randint(ENTITIES, (n,), generator=g),
            ], 1)  # fmt: skip
            action = torch.where(torch.rand(n, 1, generator=g) < share, drawn, likely)
            p.before.append(p.end.copy())
            p.action.append(action)
            p.changed.append(p.end.step(action))
    return play


def pieces(played: Played, allowed: Tensor, *, relabel: bool) -> tuple[Tensor, Tensor]:
    """Inputs (N, 18, 4) and actions (N, 2) of the pieces of episodes that have a goal of one pair.

    A piece begins where an object is grabbed, ends where it is put into a receptacle that it was
    not in, holds what changed anything in between, and has this pair as its goal. allowed :
    (20, 10) bool, pairs that may be goals. relabel : keep all, else those whose pair was the goal.
    """
    steps: list[tuple[list[int], list[tuple[int, int]]]] = [([], []) for _ in played.action]
    whole = torch.cat([torch.stack(played.action), torch.stack(played.changed)[..., None]], -1)
    for e in range(len(played.end)):
        names, goal = played.end.names[e].tolist(), played.end.goal[e, 0].tolist()
        grabbed, since, was = -1, 0, -1
        for t, (verb, at, changed) in enumerate(whole[:, e].tolist()):
            if not changed:
                continue
            if verb == 0:
                grabbed, since, was = at, t, int(played.before[t].inside[e, at])
            elif verb == 2 and at != was:
                pair = names[grabbed], names[at]
                if pair == tuple(goal) or (relabel and allowed[pair[0], pair[1] - 20]):
                    for k in range(since, t + 1):
                        if whole[k, e, 2]:
                            steps[k][0].append(e)
                            steps[k][1].append(pair)
    xs, ys = [torch.zeros(0, TOKENS, 4, dtype=torch.long)], [torch.zeros(0, 2, dtype=torch.long)]
    for t, (rows, pairs) in enumerate(steps):
        if not rows:
            continue
        own = Episodes(*(tensor[rows] for tensor in vars(played.before[t]).values()))
        own.goal = torch.full((len(rows), PAIRS, 2), -1)
        own.goal[:, 0] = torch.tensor(pairs)
        own.history = torch.full_like(own.history, -1)
        xs.append(inputs(own))
        ys.append(played.action[t][rows])
    return torch.cat(xs), torch.cat(ys)


def gathering_runs(
    data: TextData, *, group: Sequence[Mapping[str, Any]], arm: str, relabel: bool,
    net: Mapping[str, Any], language: Mapping[str, Any], gathering: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: rounds of exploring, cutting and cloning.

    arm : of `decision_runs.ARMS`, but not the MLP. relabel : see `pieces`. gathering : rounds,
    episodes and steps of cloning of each, random (share of actions), batch, rate, each (held-out
    receptacles an object), n_test. Goals have one pair, none of the held-out ones.

    Returns with a first axis of members: end (3,), success on `GATHERED`; explored and examples
    (rounds,), share of goals reached while exploring, and steps to clone so far. Adam starts anew
    in each round. Raises ValueError for an unknown arm.
    """
    seeds, flagged = [int(member["seed"]) for member in group], flag("relabel", relabel)
    one = partial(policy, texts.shell(net), ENTITIES)
    now = Stack(start_of(data, arm, seeds, net, language), one)
    out = [held_out_pairs(gathering["each"], seed) for seed in seeds]
    kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in seeds]
    explored, examples = [], []
    for number in range(int(gathering["rounds"])):
        episodes = [
            draw_episodes(gathering["episodes"], ~pairs, (1,), 1000 * seed + 20 + number)
            for pairs, seed in zip(out, seeds, strict=True)
        ]
        played = explore(
            now, episodes, gathering["random"], [1000 * seed + 60 + number for seed in seeds]
        )
        for own, p, pairs in zip(kept, played, out, strict=True):
            own.append(pieces(p, ~pairs, relabel=flagged))
        every = [(torch.cat([x for x, _ in own]), torch.cat([y for _, y in own])) for own in kept]
        now, _ = cloned(
            now, every, gathering, place=number + 1, steps=int(gathering["steps"]), record={},
            at=(), seeds=seeds,
        )  # fmt: skip
        explored.append(torch.stack([p.end.reached.double().mean() for p in played]))
        examples.append(torch.tensor([len(x) for x, _ in every]))
    found = []
    for k, (novel, size) in enumerate(((False, 1), (True, 1), (True, 2))):
        tests = [
            draw_episodes(gathering["n_test"], pairs if novel else ~pairs, (size,),
                          1000 * seed + 100 + k)
            for pairs, seed in zip(out, seeds, strict=True)
        ]  # fmt: skip
        found.append(success(now, tests, "sequence", seeds))
    return {
        "end": torch.stack(found, 1).numpy(), "explored": torch.stack(explored, 1).numpy(),
        "examples": torch.stack(examples, 1).numpy(),
    }  # fmt: skip
