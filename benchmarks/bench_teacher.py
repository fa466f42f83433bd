"""Paper B's sweep (all quantities at every step) as ratios within one run.

Compared with
(a) the bare matrix products that it cannot do without, same shapes, types and threads: forward
    and gradient of every step, and at every recorded one the features, the Gram matrices of the
    refits of both evaluations (as in the equations, as released) and that of W;
(a+) the same and the factorisations that these need as well: the eigenvalues of the d x d Gram
    matrix (LAPACK, float64) and the Cholesky factors of both refits (float32);
(b) the usual way: autograd, torch.optim, full singular value decompositions, a matrix inverse,
    the n x n kernel, a Python loop over the cuts of the KS scan.
(a), (a+) and the library take turns, round after round, and medians are printed; (b) is slow, so it
runs `--usual` runs (default one) of ten steps, scaled to the number of runs. Use an otherwise
idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from kept import Kept
from scipy.linalg import cho_factor
from threadpoolctl import threadpool_limits

from rclib.teacher.evaluation import EVALUATIONS
from rclib.teacher.problem import Problem, make_problem
from rclib.teacher.record import train_student

RIDGE = 0.01
Sizes = dict[str, int]


def library(sizes: Sizes, optimizers: list[str], rates: list[float], steps: int) -> None:
    """All runs of one repeat."""
    problem = make_problem(0, **sizes)
    for name in optimizers:
        for rate in rates:
            train_student(
                problem, optimizer=name, rate=rate, steps=steps, ridge=RIDGE, keep_diverged=True
            )


def bare_products(sizes: Sizes, runs: int, steps: int, *, factorise: bool = False) -> None:
    """The matrix products of these runs, and the factorisations if asked for.

    Loss and gradient at the start are shared by all runs.
    """
    n, d, h, n_test = (sizes[k] for k in ("n", "d", "h", "n_test"))
    rng = np.random.default_rng(0)
    X, W, H = (rng.standard_normal(s, dtype=np.float32) for s in ((n, d), (h, d), (n, h)))
    X_all = rng.standard_normal((n + n_test, d), dtype=np.float32)
    double = W.astype(np.float64)
    for _ in range(1 + runs * (steps - 1)):
        _ = X @ W.T
        _ = H.T @ X
    for _ in range(1 + runs * steps):
        _ = X_all @ W.T  # the released evaluation scales this product
        for _ in EVALUATIONS:
            system = H.T @ H
            if factorise:
                system[np.diag_indices_from(system)] += n
                cho_factor(system.T, lower=True, overwrite_a=True, check_finite=False)
        gram = double.T @ double
        if factorise:
            np.linalg.eigvalsh(gram)


def usual_run(problem: Problem, optimizer: str, rate: float, steps: int) -> None:
    """One run as one would write it at first."""
    W = torch.tensor(problem.W0, requires_grad=True)
    X, y, a, X_fresh, y_fresh, X_test, y_test = (
        torch.tensor(getattr(problem, name))
        for name in ("X", "y", "a", "X_fresh", "y_fresh", "X_test", "y_test")
    )
    beta = torch.tensor(problem.beta)
    h, d = W.shape
    kind = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
    descent = kind([W], lr=rate)
    for step in range(steps + 1):
        with torch.no_grad():
            for V in (W, W / d**0.5):  # as in the equations, and as released
                Z, Z_test = (torch.tanh(x @ V.T / d**0.5) / h**0.5 for x in (X_fresh, X_test))
                inverse = torch.linalg.inv(Z.T @ Z + RIDGE * len(y) / h * torch.eye(h))
                refit = inverse @ Z.T @ y_fresh
                _ = ((Z @ refit - y_fresh) ** 2).mean(), ((Z_test @ refit - y_test) ** 2).mean()
                K, target = Z @ Z.T, torch.outer(y_fresh, y_fresh)
                _ = (K * target).sum() / (K.norm() * target.norm())
            _, sigma, vt = torch.linalg.svd(W, full_matrices=False)
            _ = (vt[0] @ beta).abs()
            usual_alpha(sigma.double().numpy()[::-1] ** 2)
        if step < steps:
            descent.zero_grad()
            ((torch.tanh(X @ W.T / d**0.5) @ a / h**0.5 - y) ** 2).mean().backward()
            descent.step()


def usual_alpha(values: np.ndarray) -> float:
    """α of the KS cut, one cut after the other."""
    best, alpha = np.inf, np.nan
    for k in range(values.size - 1):
        tail = values[k:]
        fitted = 1 + tail.size / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** (1 - fitted)
        distance = np.abs(model - np.arange(tail.size) / tail.size).max()
        if distance < best:
            best, alpha = distance, fitted
    return float(alpha)


def seconds(way: Callable[[], None]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", type=int, default=1000)
    parser.add_argument("--h", type=int, default=1500)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 1.0, 1000.0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--usual", type=int, default=1, help="runs of the usual way; 0 for none")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true", help="for docs/speed.md")
    options = parser.parse_args()
    kept = Kept("teacher", threads=options.threads, keeping=options.keep)
    torch.set_num_threads(options.threads)
    sizes = {"d": options.d, "h": options.h, "n": options.n, "n_test": 200}
    optimizers = ["gd", "adam"]
    runs = len(optimizers) * len(options.rates)
    ways: dict[str, Callable[[], None]] = {
        "rclib": lambda: library(sizes, optimizers, options.rates, options.steps),
        "bare matrix products (a)": lambda: bare_products(sizes, runs, options.steps),
        "... and factorised (a+)": lambda: bare_products(
            sizes, runs, options.steps, factorise=True
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with threadpool_limits(limits=options.threads):
        small = {"d": 64, "h": 96, "n": 128, "n_test": 200}
        library(small, optimizers, [1.0], 2)  # warms up: imports, threads
        usual_run(make_problem(0, **small), "adam", 1.0, 1)
        for _ in range(options.rounds):
            for name, way in ways.items():
                times[name].append(seconds(way))
        if options.usual:
            problem = make_problem(0, **sizes)
            usual = [
                seconds(lambda: usual_run(problem, "adam", 1.0, options.steps)) * runs
                for _ in range(options.usual)
            ]
            times["the usual way (b)"] = usual
    ours, bare, _ = (statistics.median(times[name]) for name in ways)
    print(
        f"d = {options.d}, h = {options.h}, n = {options.n}: {runs} runs of {options.steps} steps, "
        f"{options.threads} threads, {options.rounds} rounds"
    )
    for name, values in times.items():
        m = statistics.median(values)
        spread = f"[{min(values):.2f}, {max(values):.2f}]"
        ratios = f"{m / ours:6.2f} x rclib {m / bare:7.2f} x bare"
        print(f"  {name:26s} {m:8.2f} s {spread:18s} {ratios}")
    kept.add(f"d = {options.d}, {runs} runs of {options.steps} steps", times)
    kept.write()


if __name__ == "__main__":
    main()
