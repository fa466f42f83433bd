"""A small deterministic household: put objects into receptacles.

A scene has `ENTITIES` = 8 entities in random order, 5 of `OBJECTS` = 20 classes of objects and 3 of
`RECEPTACLES` = 10 classes of receptacles, and one hand. Names are whole numbers: objects 0 ... 19,
receptacles 20 ... 29. A goal is one to three pairs of an object and its receptacle. An action is a
verb and an entity:

- grab: the empty hand takes an object that lies around or in an open receptacle;
- open: a closed receptacle is open from then on;
- put: what is in the hand goes into an open receptacle.

All else changes nothing. A goal is reached once each of its pairs has been inside at the same time.
The history holds pairs of the goal in the order in which they were completed, two at most.

All episodes are moved at once: tensors have a first axis of n episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rclib.checks.arguments import count, seed_of

__all__ = [
    "ENTITIES",
    "MOST_STEPS",
    "NAMES",
    "OBJECTS",
    "PAIRS",
    "RECEPTACLES",
    "STATES",
    "VERBS",
    "Episodes",
    "demonstrations",
    "draw_episodes",
    "held_out_pairs",
    "replay",
]

OBJECTS, RECEPTACLES = 20, 10
NAMES = OBJECTS + RECEPTACLES
SHOWN, STANDING = 5, 3  # objects and receptacles of a scene
ENTITIES = SHOWN + STANDING
PAIRS = 3  # of a goal, at most
HISTORY = 2  # completed pairs that are remembered
VERBS = ("grab", "open", "put")
STATES = ("lying", "in the hand", "inside", "closed", "open")
MOST_STEPS = 11


@dataclass
class Episodes:
    """n episodes as they stand; changed in place by `step`.

    names (n, 8): of the entities. inside (n, 8): entity that an object is in, or -1. held (n,):
    entity in the hand, or -1. closed (n, 8) bool. goal (n, 3, 2): names of object and receptacle,
    or -1. history (n, 2, 2): completed pairs, or -1. completed (n, 3) bool. reached (n,) bool.
    """

    names: Tensor
    inside: Tensor
    held: Tensor
    closed: Tensor
    goal: Tensor
    history: Tensor
    completed: Tensor
    reached: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def copy(self) -> Episodes:
        """The same, to be moved apart from these."""
        return Episodes(*(t.clone() for t in vars(self).values()))

    def states(self) -> Tensor:
        """(n, 8) places in `STATES`."""
        is_object = self.names < OBJECTS
        in_hand = torch.arange(ENTITIES) == self.held[:, None]
        of_objects = torch.where(in_hand, 1, torch.where(self.inside >= 0, 2, 0))
        return torch.where(is_object, of_objects, torch.where(self.closed, 3, 4))

    def places(self) -> Tensor:
        """(n, 3, 2) entities that the goal's names stand for, -1 for none."""
        match = (self.names[:, None, None, :] == self.goal[..., None]) & (self.goal[..., None] >= 0)
        return torch.where(match.any(-1), match.long().argmax(-1), -1)

    def step(self, action: Tensor) -> Tensor:
        """Acts: action (n, 2) of verb and entity. Returns (n,) bool, whether anything changed."""
        rows = torch.arange(len(self))
        verb, at = action[:, 0], action[:, 1]
        is_object = self.names[rows, at] < OBJECTS
        shut = self.closed[rows, at]
        within = self.inside[rows, at]
        barred = (within >= 0) & self.closed[rows, within.clamp_min(0)]
        grab = (verb == 0) & is_object & (self.held < 0) & ~barred
        opened = (verb == 1) & ~is_object & shut
        put = (verb == 2) & ~is_object & ~shut & (self.held >= 0)
        self.inside[rows[grab], at[grab]] = -1
        self.closed[rows[opened], at[opened]] = False
        self.inside[rows[put], self.held[put]] = at[put]
        self.held = torch.where(grab, at, torch.where(put, -1, self.held))
        self._look()
        return grab | opened | put

    def _look(self) -> None:
        """Notes what is completed by now."""
        places = self.places()
        there, given = places[..., 0], self.goal[..., 0] >= 0
        now = self.inside.gather(1, there.clamp_min(0))
        done = given & (there >= 0) & (now == places[..., 1])
        for k in range(PAIRS):
            new = done[:, k] & ~self.completed[:, k]
            number = (self.history[..., 0] >= 0).sum(1)
            fits = new & (number < HISTORY)
            self.history[fits, number[fits]] = self.goal[fits, k]
        self.completed |= done
        self.reached |= (done | ~given).all(1)

    def expert(self) -> Tensor:
        """(n, 2) verb and entity that bring the first unfinished pair further: grab its object;
        with it in the hand open its receptacle if it is closed, else put."""
        places, rows = self.places(), torch.arange(len(self))
        now = self.inside.gather(1, places[..., 0].clamp_min(0))
        unfinished = (self.goal[..., 0] >= 0) & (now != places[..., 1])
        place = places[rows, unfinished.long().argmax(1)]
        holding = (self.held == place[:, 0]) & (self.held >= 0)
        shut = self.closed[rows, place[:, 1]]
        verb = torch.where(holding, torch.where(shut, 1, 2), 0)
        return torch.stack([verb, torch.where(holding, place[:, 1], place[:, 0])], 1)


def held_out_pairs(each: int, seed: int) -> Tensor:
    """(20, 10) bool: pairs that training goals never have, so many receptacles an object.

    Raises ValueError for more than leave one.
    """
    if count("each", each, 0) >= RECEPTACLES:
        raise ValueError(f"each must be less than {RECEPTACLES}, got {each}")
    generator = torch.Generator().manual_seed(seed_of("seed", seed))
    return torch.rand(OBJECTS, RECEPTACLES, generator=generator).argsort(1) < each


def draw_episodes(n: int, pairs: Tensor, sizes: Sequence[int], seed: int) -> Episodes:
    """n episodes at their start, goals of as many pairs as one of `sizes`, all of them allowed.

    pairs : (20, 10) bool. Objects of a goal are different, and each receptacle is closed with
    probability 1/2. Raises ValueError for sizes beyond 1 ... 3 and an object without a pair.
    """
    if not sizes or any(not 1 <= k <= PAIRS for k in sizes):
        raise ValueError(f"sizes must be from 1 to {PAIRS}, got {list(sizes)}")
    if not bool(pairs.any(1).all()):
        raise ValueError("pairs must leave each object a receptacle")
    random = np.random.default_rng(seed_of("seed", seed))
    allowed = [np.flatnonzero(row) for row in pairs.numpy()]
    names = np.empty((count("n", n), ENTITIES), dtype=np.int64)
    goal = np.full((n, PAIRS, 2), -1)
    for e in range(n):
        objects = random.permutation(OBJECTS)[:SHOWN]
        number = sizes[int(random.integers(len(sizes)))]
        wanted = [allowed[o][random.integers(len(allowed[o]))] for o in objects[:number]]
        goal[e, :number] = np.stack([objects[:number], OBJECTS + np.array(wanted)], 1)
        others = [r for r in random.permutation(RECEPTACLES) if r not in wanted]
        standing = [*dict.fromkeys(wanted), *others][:STANDING]
        names[e] = random.permutation(np.concatenate([objects, OBJECTS + np.array(standing)]))
    shut = random.random((n, ENTITIES)) < 0.5
    at = torch.from_numpy(names)
    return Episodes(
        names=at, inside=torch.full_like(at, -1), held=torch.full((n,), -1),
        closed=torch.from_numpy(shut) & (at >= OBJECTS), goal=torch.from_numpy(goal),
        history=torch.full((n, HISTORY, 2), -1), completed=torch.zeros(n, PAIRS, dtype=torch.bool),
        reached=torch.zeros(n, dtype=torch.bool),
    )  # fmt: skip


def replay(episodes: Episodes) -> Tensor:
    """(n,) steps that the expert needs, `MOST_STEPS` + 1 where it does not get there."""
    now, steps = episodes.copy(), torch.full((len(episodes),), MOST_STEPS + 1)
    for t in range(1, MOST_STEPS + 1):
        now.step(now.expert())
        steps = torch.where(now.reached & (steps > MOST_STEPS), t, steps)
    return steps


def demonstrations(episodes: Episodes) -> tuple[list[Episodes], list[Tensor], list[Tensor]]:
    """What the expert sees and does, step by step: the episodes before the step, the actions (n, 2)
    and which episodes still go on (n,) bool; until all are done."""
    now = episodes.copy()
    seen: list[Episodes] = []
    done: list[Tensor] = []
    going: list[Tensor] = []
    while not bool(now.reached.all()) and len(seen) < MOST_STEPS:
        seen.append(now.copy())
        done.append(now.expert())
        going.append(~now.reached)
        now.step(done[-1])
    return seen, done, going
