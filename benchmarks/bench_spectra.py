"""Spectra of a whole transformer as ratios within one run: α of 36 matrices, two ways.

Compared with weightwatcher (extra `[compare]`): its `analyze()` gives eigenvalues, the α of the
Kolmogorov-Smirnov cut and stable rank of each layer; ours gives `esd`, α by Hill and by KS and
stable rank. Both work on the same `torch.nn.Linear` layers (6 blocks of query, key, value,
output, up, down), whose weights have heavy-tailed spectra. They take turns, round after round;
medians are printed, with the largest difference of α and the bare cost of the Gram matrices and
of LAPACK's symmetric eigenvalues, which ours cannot do without. Use an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import statistics
import sys
import time
import warnings

import numpy as np
import torch
from kept import Kept
from threadpoolctl import threadpool_limits
from torch import nn

from rclib.spectral.spectra import esd, power_law, stable_rank

BLOCKS = 6


def transformer(width: int, seed: int = 0) -> nn.Sequential:
    """36 linear layers: 4 of N x N and 2 of N x 4N in each of 6 blocks."""
    rng = np.random.default_rng(seed)
    layers = []
    for _ in range(BLOCKS):
        for h, d in [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]:
            # Columns of Pareto scales: a bulk with a heavy tail, at the cost of no SVD.
            w = rng.standard_normal((h, d)) * np.sqrt(rng.pareto(2.5, size=d) + 0.2)
            layer = nn.Linear(d, h, bias=False)
            layer.weight.data = torch.from_numpy(w.astype(np.float32)) / d**0.5
            layers.append(layer)
    return nn.Sequential(*layers)


def ours(model: nn.Sequential) -> list[float]:
    """α (KS) of every layer; Hill's and the stable rank are computed along with it."""
    alphas = []
    for layer in model:
        values = esd(layer.weight)
        power_law(values, "hill")
        stable_rank(values)
        alphas.append(power_law(values, "ks").alpha)
    return alphas


def peer(model: nn.Sequential) -> list[float]:
    """α of every layer by weightwatcher."""
    import weightwatcher

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = weightwatcher.WeightWatcher(model=model, log_level=logging.ERROR).analyze()
    return [float(a) for a in table.alpha]


def bare(model: nn.Sequential) -> list[float]:
    """Gram matrices and their eigenvalues alone, in float64."""
    for layer in model:
        w = layer.weight.detach().double().numpy()
        np.linalg.eigvalsh(w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T)
    return []


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true", help="for docs/speed.md")
    options = parser.parse_args()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import weightwatcher  # noqa: F401
    except ImportError:
        sys.exit("weightwatcher is not installed: pip install -e .[compare]")
    torch.set_num_threads(options.threads)
    kept = Kept("spectra", threads=options.threads, keeping=options.keep)
    model = transformer(options.width)
    ways = {"rclib": ours, "weightwatcher": peer, "Gram and eigenvalues": bare}
    times: dict[str, list[float]] = {name: [] for name in ways}
    alphas: dict[str, list[float]] = {}
    with threadpool_limits(limits=options.threads):
        for way in ways.values():
            way(transformer(32))  # warms up
        for _ in range(options.rounds):
            for name, way in ways.items():
                begin = time.perf_counter()
                alphas[name] = way(model)
                times[name].append(time.perf_counter() - begin)
    print(
        f"{len(model)} matrices, N = {options.width}, {options.threads} threads, "
        f"medians of {options.rounds} rounds"
    )
    mine = statistics.median(times["rclib"])
    for name, values in times.items():
        m = statistics.median(values)
        print(f"  {name:22s} {m:7.2f} s [{min(values):.2f}, {max(values):.2f}] {m / mine:5.2f} x")
    kept.add(f"{len(model)} matrices, N = {options.width}", times)
    kept.write()
    gap = np.abs(np.subtract(alphas["rclib"], alphas["weightwatcher"])).max()
    print(
        f"  α (KS) from {min(alphas['rclib']):.2f} to {max(alphas['rclib']):.2f}, "
        f"largest difference {gap:.1e}"
    )


if __name__ == "__main__":
    main()
