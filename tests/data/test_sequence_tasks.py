"""data.sequence_tasks: every answer follows from what stands before it, and from nothing less."""

from __future__ import annotations

import math

import pytest
import torch

from rclib.data.sequence_tasks import DIGITS, LETTERS, TASKS, answers, sequences


@pytest.mark.parametrize("context", [7, 16, 31, 32])
def test_answers_to_copy_stand_half_a_sequence_back(context: int) -> None:
    both = sequences("copy", 50, context, seed=1)
    half = (context + 1) // 2
    x, y = both[:, :-1], both[:, 1:]
    at = answers("copy", context)
    assert torch.equal(y[:, at], x[:, at - half + 1])
    assert len(at) == half - 1
    assert set(both[:, : 2 * half].unique().tolist()) == set(range(97, 97 + LETTERS))


@pytest.mark.parametrize("context", [7, 16, 31, 63])
def test_answers_to_recall_follow_from_the_pairs(context: int) -> None:
    both = sequences("recall", 50, context, seed=2)
    pairs = (context + 1) // 4
    x, y = both[:, :-1], both[:, 1:]
    at = answers("recall", context)
    assert len(at) == pairs
    for row, target in zip(x.tolist(), y.tolist(), strict=True):
        known = dict(zip(row[: 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        assert len(known) == pairs
        for place in at.tolist():
            assert chr(target[place]).isdigit()
            assert known[row[place]] == target[place]
    queries = x[:, at]
    assert not torch.equal(queries, x[:, : 2 * pairs : 2])


def test_the_law_alone_gives_no_answer() -> None:
    """Frequencies of answers are flat: the best guess without looking back is log LETTERS or log
    DIGITS nats, up to the sample."""
    for task, size in zip(TASKS, (LETTERS, DIGITS), strict=True):
        both = sequences(task, 4000, 16, seed=3)
        found = both[:, 1:][:, answers(task, 16)].flatten()
        share = found.bincount()[found.unique()].double() / len(found)
        assert len(share) == size
        assert -float((share * share.log()).sum()) == pytest.approx(math.log(size), abs=0.002)


def test_seeds_and_errors() -> None:
    first = sequences("recall", 5, 16, seed=0)
    assert torch.equal(first, sequences("recall", 5, 16, seed=0))
    assert not torch.equal(first, sequences("recall", 5, 16, seed=1))
    with pytest.raises(ValueError, match=r"task must be one of .* got 'sort'"):
        answers("sort", 16)
    with pytest.raises(ValueError, match=r"context must be .*7.* got 6"):
        sequences("recall", 5, 6, seed=0)
    with pytest.raises(ValueError, match="context must be at most 66 for recall, got 67"):
        answers("recall", 67)
    with pytest.raises(ValueError, match="n must be"):
        sequences("copy", 0, 16, seed=0)
