"""Generated sequences for comparing sequence models, with the best possible accuracy where known.

Each generator gives x (n, L) of int64 symbols and y (n,) of int64 classes, the same for a seed.

- texture : bits of a two-state Markov chain, started fairly; the class is its flip rate.
- counting : independent bits; the class is the probability of a one. Nothing can be denoised.
- retrieval : two halves of independent bits, each with one of two probabilities of a one; the class
  says whether it is the same one, so that both halves have to be compared.
- list_operations : nested MAX, MIN, MED and SM (sum modulo 10) of digits in prefix form, padded at
  the end; the class is the value (after ListOps: Nangia and Bowman 2018; Tay and others 2021).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from rclib.checks.arguments import count, seed_of

__all__ = [
    "FLIPS",
    "ONES",
    "OPERATIONS",
    "counting",
    "counting_bayes",
    "flip_threshold",
    "list_operations",
    "list_value",
    "retrieval",
    "retrieval_bayes",
    "texture",
    "texture_bayes",
    "texture_loss",
    "texture_posterior",
]

Ints = NDArray[np.int64]
Sequences = tuple[Ints, Ints]

FLIPS = (0.15, 0.4)
ONES = (0.4, 0.6)
OPERATIONS = ("MAX", "MIN", "MED", "SM")  # symbols 10 to 13; 14 closes a list, 15 pads
CLOSE, PAD = 14, 15


def _begin(seed: int, n: int, length: int) -> np.random.Generator:
    count("n", n)
    count("length", length, 2)
    return np.random.default_rng(seed_of("seed", seed))


def texture(seed: int, n: int, length: int, flips: tuple[float, float] = FLIPS) -> Sequences:
    """Markov chains of bits, flipped at rate flips[y]. Raises ValueError for n or length."""
    generator = _begin(seed, n, length)
    y = generator.integers(0, 2, n)
    flipped = generator.random((n, length - 1)) < np.asarray(flips)[y, None]
    first = generator.integers(0, 2, (n, 1))
    return np.concatenate([first, (first + flipped.cumsum(1)) % 2], 1), y


def flip_threshold(length: int, flips: tuple[float, float] = FLIPS) -> float:
    """Number of flips below which the first class is the likelier one."""
    low, high = flips
    stay = math.log((1 - low) / (1 - high))
    return (length - 1) * stay / (math.log(high / low) + stay)


def texture_bayes(length: int, flips: tuple[float, float] = FLIPS) -> float:
    """Best possible accuracy: flips are binomial."""
    most = math.ceil(flip_threshold(length, flips)) - 1
    low, high = (binom.cdf(most, length - 1, flip) for flip in flips)
    return float(low + 1 - high) / 2


def texture_posterior(
    x: Ints, hidden: NDArray[np.bool_], flips: tuple[float, float] = FLIPS
) -> NDArray[np.float64]:
    """Probability (n, L) of a one at each position, given those of x (n, L) that are not hidden.

    Forward and backward messages of both chains (Rabiner 1989), mixed by the probabilities of the
    classes. A position that is seen has 0 or 1.
    """
    x, hidden = np.asarray(x), np.asarray(hidden, dtype=bool)
    n, length = x.shape
    seen = np.where(hidden[..., None], 1.0, np.eye(2)[x])  # (n, L, 2)
    ones, weights = [], []
    for flip in flips:
        step = np.array([[1 - flip, flip], [flip, 1 - flip]])
        ahead, behind = np.empty((2, n, length, 2))
        ahead[:, 0], behind[:, -1] = 0.5 * seen[:, 0], 1.0
        for t in range(1, length):
            ahead[:, t] = (ahead[:, t - 1] @ step) * seen[:, t]
            behind[:, -1 - t] = (behind[:, -t] * seen[:, -t]) @ step
        both = ahead * behind
        ones.append(both[..., 1])
        weights.append(both.sum(-1))  # the same at all positions
    return np.asarray(sum(ones) / sum(weights))


def texture_loss(
    length: int, share: float, flips: tuple[float, float] = FLIPS, *, n: int = 4000, seed: int = 0
) -> float:
    """Lowest possible mean cross-entropy (nats) at positions hidden with probability `share`: the
    entropy of `texture_posterior` there, over n sequences. Raises ValueError for n or length."""
    x, _ = texture(seed, n, length, flips)
    hidden = np.random.default_rng(seed + 1).random(x.shape) < share
    p = np.clip(texture_posterior(x, hidden, flips)[hidden], 1e-12, 1 - 1e-12)
    return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())


def counting(seed: int, n: int, length: int, ones: tuple[float, float] = ONES) -> Sequences:
    """Independent bits, one with probability ones[y]. Raises ValueError for n or length."""
    generator = _begin(seed, n, length)
    y = generator.integers(0, 2, n)
    return (generator.random((n, length)) < np.asarray(ones)[y, None]).astype(np.int64), y


def counting_bayes(length: int, ones: tuple[float, float] = ONES) -> float:
    """Best possible accuracy, half the sum over counts of the larger probability."""
    low, high = (binom.pmf(np.arange(length + 1), length, one) for one in ones)
    return float(np.maximum(low, high).sum()) / 2


def retrieval(seed: int, n: int, length: int, ones: tuple[float, float] = (0.2, 0.8)) -> Sequences:
    """Halves of independent bits; y = 1 if both have the same probability of a one.

    Raises ValueError for n, or a length that is not even.
    """
    generator = _begin(seed, n, length)
    if length % 2:
        raise ValueError(f"length must be even, got {length}")
    kinds = generator.integers(0, 2, (n, 2))
    p = np.repeat(np.asarray(ones)[kinds], length // 2, 1)
    x = (generator.random((n, length)) < p).astype(np.int64)
    return x, (kinds[:, 0] == kinds[:, 1]).astype(np.int64)


def retrieval_bayes(length: int, ones: tuple[float, float] = (0.2, 0.8)) -> float:
    """Best possible accuracy, by the counts of both halves."""
    half = length // 2
    p, q = (binom.pmf(np.arange(half + 1), half, one) for one in ones)
    same = (np.outer(p, p) + np.outer(q, q)) / 4
    other = (np.outer(p, q) + np.outer(q, p)) / 4
    return float(np.maximum(same, other).sum())


def list_value(symbols: Ints) -> int:
    """Value of a list in prefix form, padding left out. Raises ValueError for what is no list."""
    stack: list[list[int]] = [[]]
    for symbol in (int(one) for one in symbols if one != PAD):
        if 10 <= symbol < CLOSE:
            stack.append([symbol])
        elif symbol != CLOSE:
            stack[-1].append(symbol)
        elif len(stack) < 2 or len(stack[-1]) < 2:
            raise ValueError(f"symbols must close a list that has entries, got {symbols.tolist()}")
        else:
            kind, *digits = stack.pop()
            stack[-1].append(_apply(OPERATIONS[kind - 10], digits))
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError(f"symbols must be one closed list, got {symbols.tolist()}")
    return stack[0][0]


def _apply(operation: str, digits: list[int]) -> int:
    values: dict[str, Any] = {
        "MAX": max(digits), "MIN": min(digits), "SM": sum(digits) % 10,
        "MED": int(np.median(digits)),
    }  # fmt: skip
    return int(values[operation])


def list_operations(seed: int, n: int, length: int, depth: int = 2) -> Sequences:
    """Lists of 2 to 4 entries, nested up to `depth`, that fit into `length` symbols.

    Raises ValueError for n, depth, or a length that a list of one level does not fit into.
    """
    generator = _begin(seed, n, length)
    count("depth", depth)
    if length < 6:
        raise ValueError(f"length must be at least 6, for an operation of 4 digits, got {length}")

    def drawn(level: int) -> list[int]:
        found = [10 + int(generator.integers(4))]
        for _ in range(int(generator.integers(2, 5))):
            nested = level < depth and generator.random() < 0.35
            found += drawn(level + 1) if nested else [int(generator.integers(10))]
        return [*found, CLOSE]

    x = np.full((n, length), PAD, dtype=np.int64)
    for row in x:
        symbols = drawn(1)
        while len(symbols) > length:
            symbols = drawn(1)
        row[: len(symbols)] = symbols
    return x, np.array([list_value(row) for row in x])
