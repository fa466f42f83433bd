"""The runs of notebook 60 with two matrices: every mode of a task while it is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.integrate import solve_ivp

from rclib.checks.arguments import choice
from rclib.experiments.dynamics.deep_linear_chains import orthogonal
from rclib.experiments.dynamics.deep_linear_theory import unbalanced_time
from rclib.rowcolumn.measure import row_column_share
from rclib.runs.source import Source
from rclib.runs.store import Arrays

__all__ = ["STARTS", "TINY", "UNBALANCE", "courses", "descended", "time_ratios", "tree"]

STARTS = ("decoupled", "random", "regression", "unbalanced")
TINY: dict[str, dict[str, Any]] = {
    "courses": {
        "seed": 0, "start": "random", "size": 0.1, "task": [2.0, 1.0], "width": 3, "common": True,
        "rate": 0.1, "steps": 4, "every": 2,
    }
}  # fmt: skip
UNBALANCE = 1000.0  # a0 over b0 of every mode at an unbalanced start


def tree(levels: int) -> np.ndarray:
    """Σ31 of 2^levels items with one property for each node of a binary tree, shared by the items
    below it, for inputs that are one-hot and whitened: (2^(levels + 1) - 1, 2^levels)."""
    items = 2**levels
    nodes = [np.repeat(np.eye(2**k), items // 2**k, axis=1) for k in range(levels + 1)]
    return np.asarray(np.concatenate(nodes) / np.sqrt(items))


def descended(
    first: np.ndarray, second: np.ndarray, error: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both matrices after one step of gradient descent; error : rate times Σ31 - W32 W21."""
    return first + second.T @ error, second + error @ first.T


def courses(
    data: Source | None,
    *,
    seed: int,
    start: str,
    size: float,
    task: Sequence[float] | int,
    width: int,
    common: bool,
    rate: float,
    steps: int,
    every: int,
) -> Arrays:
    """Stored run: a linear network of two matrices, or of one ("regression", from zero).

    task : strengths of the modes, along random directions of `width` inputs and outputs, or the
    levels of a `tree`. common : the first mode is along constant vectors, as what inputs and labels
    that are not centred have in common. size : start u0 of every mode ("decoupled" with a0 = b0,
    "unbalanced" with a0 = `UNBALANCE` b0) or standard deviation of the entries ("random").

    times (T,) in steps times rate, s (modes,), u (T, modes), eigenvalues (T, width) of W21ᵀ W21
    in descending order, means (T,), the variance of W21 that row and column means explain, less
    that of independent entries (both zero for "regression"), at step 0 and every `every`-th.
    """
    random = np.random.default_rng([seed, STARTS.index(choice("start", start, STARTS))])
    left, s, right, target = _task(random, task, width, common)
    first, second = _start(random, start, size, width, left, right)
    whole = np.zeros(target.shape)
    u, eigenvalues, means = [], [], []
    for step in range(steps + 1):
        if start != "regression":
            whole = second @ first
        if step % every == 0:
            u.append(np.einsum("ij,ij->j", left, whole @ right))
            values, mean = np.zeros(width), 0.0
            if start != "regression":
                values = np.linalg.eigvalsh(first @ first.T)[::-1]
                share = row_column_share(torch.from_numpy(first))
                mean = share.value - share.chance
            eigenvalues.append(values)
            means.append(mean)
        error = rate * (target - whole)
        if start == "regression":
            whole = whole + error
        else:
            first, second = descended(first, second, error)
    return {
        "times": rate * np.arange(0, steps + 1, every), "s": s, "u": np.array(u),
        "eigenvalues": np.array(eigenvalues), "means": np.array(means),
    }  # fmt: skip


def _task(
    random: np.random.Generator, task: Sequence[float] | int, width: int, common: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Left singular vectors, strengths, right ones, and Σ31."""
    if isinstance(task, int):
        target = tree(task)
        left, s, right = np.linalg.svd(target, full_matrices=False)
        return left, s, right.T, target
    s = np.array(task, dtype=float)
    left, right = (orthogonal(random, width)[:, : len(s)] for _ in range(2))
    if common:  # the other directions are turned until they are orthogonal to the constant one
        ones = np.ones((width, 1))
        left, right = (
            np.linalg.qr(np.concatenate([ones, d[:, 1:]], axis=1))[0] for d in (left, right)
        )
    return left, s, right, (left * s) @ right.T


def _start(
    random: np.random.Generator, start: str, size: float, width: int, left: np.ndarray,
    right: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """W21 and W32 of a start."""
    n3, n1 = len(left), len(right)
    first, second = size * random.standard_normal((width, n1)), np.zeros((n3, width))
    if start == "random":
        second = size * random.standard_normal((n3, width))
    elif start != "regression":
        hidden = orthogonal(random, width)[:, : left.shape[1]]
        ratio = UNBALANCE if start == "unbalanced" else 1.0
        first = np.sqrt(size * ratio) * hidden @ right.T
        second = np.sqrt(size / ratio) * left @ hidden.T
    return first, second


def time_ratios(seeds: Sequence[int], *, end: float) -> pd.DataFrame:
    """Unbalanced starts drawn for each seed (s in [0.5, 4], a0 and b0 in [0.02, 0.3]): time from
    a0 b0 to `end` s by integration (relative tolerance 1e-10), over the formula as printed and as
    derived. Columns seed, s, a0, b0, simulated, printed, derived."""
    rows = []
    for seed in seeds:
        random = np.random.default_rng([seed, 97])
        s, (a0, b0) = float(random.uniform(0.5, 4.0)), map(float, random.uniform(0.02, 0.3, 2))

        def motion(_: float, y: np.ndarray, s: float = s) -> list[float]:
            return [y[1] * (s - y[0] * y[1]), y[0] * (s - y[0] * y[1])]

        def there(_: float, y: np.ndarray, s: float = s) -> float:
            return float(y[0] * y[1] - end * s)

        there.terminal = True  # type: ignore[attr-defined]
        solved = solve_ivp(motion, (0, 1e3), [a0, b0], events=there, rtol=1e-10, atol=1e-12)
        time = float(solved.t_events[0][0])
        forms = [unbalanced_time(s=s, a0=a0, b0=b0, end=end * s, printed=p) for p in (True, False)]
        rows.append((seed, s, a0, b0, time, time / forms[0], time / forms[1]))
    columns = ["seed", "s", "a0", "b0", "simulated", "printed", "derived"]
    return pd.DataFrame(rows, columns=columns)
