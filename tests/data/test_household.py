"""data.household: the expert, a world by hand, and what training goals must not hold."""

from __future__ import annotations

import pytest
import torch

from rclib.data import household as world

ALL = torch.ones(world.OBJECTS, world.RECEPTACLES, dtype=torch.bool)


def one(goal: list[tuple[int, int]]) -> world.Episodes:
    """Objects 0 ... 4 at 0 ... 4, receptacles 20, 21, 22 at 5, 6, 7, the first one closed."""
    names = torch.tensor([[0, 1, 2, 3, 4, 20, 21, 22]])
    pairs = torch.full((1, 3, 2), -1)
    for k, pair in enumerate(goal):
        pairs[0, k] = torch.tensor(pair)
    return world.Episodes(
        names=names, inside=torch.full_like(names, -1), held=torch.tensor([-1]),
        closed=names == 20, goal=pairs, history=torch.full((1, 2, 2), -1),
        completed=torch.zeros(1, 3, dtype=torch.bool), reached=torch.zeros(1, dtype=torch.bool),
    )  # fmt: skip


def act(episodes: world.Episodes, verb: str, entity: int) -> bool:
    action = torch.tensor([[world.VERBS.index(verb), entity]])
    return bool(episodes.step(action))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_expert_reaches_every_goal_in_time(size: int) -> None:
    episodes = world.draw_episodes(300, ALL, (size,), 4)
    steps = world.replay(episodes)
    assert int(steps.max()) <= 3 * size
    assert int(steps.min()) >= 2 * size  # grab and put
    seen, done, going = world.demonstrations(episodes)
    assert torch.equal(torch.stack(going).sum(0), steps)
    assert len(seen) == len(done) == int(steps.max())
    assert not bool(episodes.reached.any())  # left as they are


def test_against_a_world_by_hand() -> None:
    e = one([(1, 20), (2, 22)])
    assert not act(e, "put", 6)  # the hand is empty
    assert not act(e, "grab", 5)  # a receptacle
    assert not act(e, "open", 6)  # open already
    assert not act(e, "open", 1)  # an object
    assert act(e, "grab", 1)
    assert not act(e, "grab", 2)  # the hand is full
    assert not act(e, "put", 5)  # closed
    assert not act(e, "put", 0)  # an object
    assert e.states()[0].tolist() == [0, 1, 0, 0, 0, 3, 4, 4]
    assert e.expert().tolist() == [[1, 5]]
    assert act(e, "open", 5)
    assert e.expert().tolist() == [[2, 5]]
    assert act(e, "put", 5)
    assert e.history[0].tolist() == [[1, 20], [-1, -1]]
    assert e.completed[0].tolist() == [True, False, False]
    assert e.states()[0].tolist() == [0, 2, 0, 0, 0, 4, 4, 4]
    assert e.expert().tolist() == [[0, 2]]
    assert act(e, "grab", 2)
    assert act(e, "put", 7)
    assert bool(e.reached)
    assert e.history[0].tolist() == [[1, 20], [2, 22]]
    assert act(e, "grab", 2)  # out of an open receptacle
    assert bool(e.reached)
    assert int(e.inside[0, 2]) == -1


def test_what_is_in_a_closed_receptacle_cannot_be_grabbed() -> None:
    e = one([(1, 20)])
    e.inside[0, 1] = 5
    assert not act(e, "grab", 1)
    assert act(e, "open", 5)
    assert act(e, "grab", 1)


def test_random_actions_hardly_reach_two_pairs() -> None:
    e = world.draw_episodes(2000, ALL, (2,), 1)
    random = torch.Generator().manual_seed(0)
    for _ in range(world.MOST_STEPS):
        verbs = torch.randint(len(world.VERBS), (len(e),), generator=random)
        places = torch.randint(world.ENTITIES, (len(e),), generator=random)
        e.step(torch.stack([verbs, places], 1))
    assert float(e.reached.double().mean()) < 0.005


def test_training_goals_have_no_held_out_pair() -> None:
    out = world.held_out_pairs(3, 5)
    assert out.sum(1).tolist() == [3] * world.OBJECTS
    assert not torch.equal(out, world.held_out_pairs(3, 6))
    for pairs in (out, ~out):
        e = world.draw_episodes(200, pairs, (1, 2, 3), 2)
        given = e.goal[e.goal[..., 0] >= 0]
        assert bool(pairs[given[:, 0], given[:, 1] - world.OBJECTS].all())
        assert ((e.goal[..., 0] >= 0).sum(1)).unique().tolist() == [1, 2, 3]
        objects = (e.names < world.OBJECTS).sum(1)
        assert objects.unique().tolist() == [world.SHOWN]
        assert all(len(set(row)) == world.ENTITIES for row in e.names.tolist())
        assert bool((e.places()[e.goal >= 0] >= 0).all())  # what a goal names is in the scene
        assert not bool(e.closed[e.names < world.OBJECTS].any())
    again = world.draw_episodes(200, out, (1,), 2)
    assert torch.equal(again.names, world.draw_episodes(200, out, (1,), 2).names)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"each must be less than 10, got 10"):
        world.held_out_pairs(10, 0)
    with pytest.raises(ValueError, match=r"sizes must be from 1 to 3, got \[4\]"):
        world.draw_episodes(2, ALL, [4], 0)
    with pytest.raises(ValueError, match="pairs must leave each object a receptacle"):
        world.draw_episodes(2, ~ALL, [1], 0)
