"""First matrices of notebook 64's networks: of those that happen to compute a function, and of
those that were trained on one until they know it by heart.

A network has four inputs, so W1ᵀ W1 has four eigenvalues. What "outside of the start" means is read
off networks that were only drawn: above the largest eigenvalue of 99 in 100 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp

from rclib.experiments.dynamics.universality_lens import TARGETS
from rclib.experiments.dynamics.universality_runs import (
    _descend,
    _networks,
    _outputs,
    _packed,
    bits_of,
)
from rclib.rowcolumn.measure import row_column_share
from rclib.runs import sweep
from rclib.runs.source import Source
from rclib.runs.store import Arrays

__all__ = [
    "TINY",
    "network_spectra",
    "spectrum_distance",
    "spectrum_values",
    "trained_frame",
    "trained_spectra",
]

TINY: dict[str, dict[str, Any]] = {
    "network_spectra": {"seed": 0, "hidden": 4, "nets": 50, "targets": [0, 65535]},
    "trained_spectra": {
        "seed": 0, "target": 65534, "hidden": 4, "nets": 3, "rate": 0.02, "steps": 4,
    },
}  # fmt: skip
DRAWN = 4000  # networks whose largest eigenvalues say where the start ends


def network_spectra(
    data: Source | None, *, seed: int, hidden: int, nets: int, targets: Sequence[int]
) -> Arrays:
    """Stored run: eigenvalues of W1ᵀ W1 (4 a network) of all random networks, and of those that
    compute one of the targets: "all" (nets, 4) and the packed target as name."""
    random = np.random.default_rng([seed, hidden, 2])
    some = _networks(random, hidden, nets, scaled=True)
    values = np.linalg.eigvalsh(np.swapaxes(some[0], 1, 2) @ some[0])
    computed = _packed(_outputs(some))
    return {"all": values} | {str(t): values[computed == t] for t in targets}


def trained_spectra(
    data: Source | None, *, seed: int, target: int, hidden: int, nets: int, rate: float, steps: int
) -> Arrays:
    """Stored run: networks (4, hidden, 1), drawn from the prior and trained by gradient descent of
    the log-loss on the target's 16 values, without noise and without the prior's decay.

    solved (nets,) : whether it computes the target. beyond (nets,) : eigenvalues of W1ᵀ W1 above
    the largest of 99 in 100 drawn networks. share, start (nets,) : variance of W1 that row and
    column means explain, less that of independent entries, after and before.
    """
    random = np.random.default_rng([seed, hidden, 3])
    drawn = _networks(random, hidden, DRAWN, scaled=True)[0].astype(float)
    edge = float(np.quantile(_eigenvalues(drawn)[:, -1], 0.99))
    start = [w.astype(float) for w in _networks(random, hidden, nets, scaled=True)]
    values = bits_of([target])[0].astype(float)
    state = [w.copy() for w in start]
    state = _descend(random, state, values, 1 - values, rate, steps, noisy=False, decay=0.0)
    return {
        "solved": _packed(_outputs(tuple(state))) == target,
        "beyond": (_eigenvalues(state[0]) > edge).sum(1),
        "share": _over_chance(state[0]),
        "start": _over_chance(start[0]),
    }


def _eigenvalues(first: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(np.swapaxes(first, 1, 2) @ first)


def _over_chance(first: np.ndarray) -> np.ndarray:
    shares = [row_column_share(torch.from_numpy(w)) for w in first]
    return np.array([share.value - share.chance for share in shares])


def spectrum_distance(seeds: Sequence[int], names: Sequence[str], **shared: Any) -> pd.DataFrame:
    """KS distance of the eigenvalues of W1ᵀ W1 of networks that compute a target from those of all
    networks: seed, target, found (networks), distance (NaN below ten networks)."""
    configs = [{"seed": seed, "targets": [TARGETS[n] for n in names], **shared} for seed in seeds]
    rows = []
    for config, run in zip(configs, sweep.run(network_spectra, configs), strict=True):
        for name in names:
            own = run[str(TARGETS[name])]
            far = np.nan
            if len(own) >= 10:
                far = float(ks_2samp(own.ravel(), run["all"].ravel()).statistic)
            rows.append((config["seed"], name, len(own), far))
    return pd.DataFrame(rows, columns=["seed", "target", "found", "distance"])


def trained_frame(seeds: Sequence[int], names: Sequence[str], **shared: Any) -> pd.DataFrame:
    """Means of `trained_spectra` over the networks that compute their target: seed, target, solved
    (share of the networks), beyond, share, start. Raises ValueError where none does."""
    configs = [
        (name, {"seed": seed, "target": TARGETS[name], **shared}) for name in names
        for seed in seeds
    ]  # fmt: skip
    runs = sweep.run(
        trained_spectra, [config for _, config in configs], description="trained networks"
    )
    rows = []
    for (name, config), run in zip(configs, runs, strict=True):
        own = run["solved"]
        if not own.any():
            raise ValueError(f"no network of seed {config['seed']} has learned {name!r}")
        means = [float(run[column][own].mean()) for column in ("beyond", "share", "start")]
        rows.append((config["seed"], name, float(own.mean()), *means))
    return pd.DataFrame(rows, columns=["seed", "target", "solved", "beyond", "share", "start"])


def spectrum_values(spectra: pd.DataFrame, trained: pd.DataFrame) -> dict[str, pd.Series]:
    """What the claims on first matrices are about, by seed. spectra, trained : those frames, with
    "constant" in both, "majority" and "parity" in the latter."""
    far = spectra.pivot(index="seed", columns="target", values="distance")
    beyond, share = (
        trained.pivot(index="seed", columns="target", values=name) for name in ("beyond", "share")
    )
    return {
        "simple_keep_spectrum": far.constant,
        "parity_has_spikes": beyond.parity,
        "constant_has_none": beyond.constant,
        "parity_not_in_rows": share.parity,
        "majority_in_rows": share.majority,
    }
