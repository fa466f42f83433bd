"""Two tasks of bytes that need attention and no knowledge of a language: copying and recall.

A sequence has `context` + 1 bytes, inputs and, one byte on, targets, as `rclib.data.text` has them;
only some targets can be known from what stands before, and `answers` says which.

- copy: h random letters, then the same again (h = (context + 1) // 2). From the second letter of
  the repetition on, each target stands h places back.
- recall: p = (context + 1) // 4 pairs of a letter and a digit, no letter twice; then the letters
  again in another order, each followed by its digit: the digits are the answers.

What a network without attention can know is the letter's or the digit's law, log `LETTERS` and
log `DIGITS` nats.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rclib.checks.arguments import choice, count, seed_of

__all__ = ["DIGITS", "LETTERS", "TASKS", "answers", "sequences"]

TASKS = ("copy", "recall")
LETTERS = 16  # a ... p
DIGITS = 10
_A, _ZERO = ord("a"), ord("0")


def _parts(task: str, context: int) -> int:
    """Letters of the first half, or pairs."""
    choice("task", task, TASKS)
    least = 3 if task == "copy" else 7
    context = count("context", context, least)
    parts = (context + 1) // (2 if task == "copy" else 4)
    if task == "recall" and parts > LETTERS:
        raise ValueError(f"context must be at most {4 * LETTERS + 2} for recall, got {context}")
    return parts


def answers(task: str, context: int) -> Tensor:
    """(k,) int64: places of the targets (0 ... context - 1) that can be known.

    Raises ValueError for another task and a context too short, or too long for recall.
    """
    parts = _parts(task, context)
    if task == "copy":
        return torch.arange(parts, 2 * parts - 1)
    return torch.arange(2 * parts, 4 * parts, 2)


def sequences(task: str, n: int, context: int, *, seed: int) -> Tensor:
    """(n, context + 1) int64 bytes, a function of the arguments alone; what is left over at the
    end is filled with spaces. Raises ValueError as `answers`, and for n below 1."""
    parts, n = _parts(task, context), count("n", n, 1)
    random = torch.Generator().manual_seed(seed_of("seed", seed))
    if task == "copy":
        letters = torch.randint(LETTERS, (n, parts), generator=random) + _A
        both = torch.cat([letters, letters], dim=1)
    else:
        order = torch.rand(n, LETTERS, generator=random).argsort(1)[:, :parts]
        digits = torch.randint(DIGITS, (n, parts), generator=random)
        again = torch.rand(n, parts, generator=random).argsort(1)
        halves = [
            torch.stack([letters + _A, values + _ZERO], dim=2).flatten(1)
            for letters, values in (
                (order, digits),
                (order.gather(1, again), digits.gather(1, again)),
            )
        ]
        both = torch.cat(halves, dim=1)
    out = torch.full((n, context + 1), ord(" "))
    out[:, : both.shape[1]] = both
    return out
