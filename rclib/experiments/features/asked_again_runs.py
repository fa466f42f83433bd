"""Stored run of notebook 77: a trained sigmoid network, with all of its weights.

The training is notebook 70's (`bandlimited_runs.trained`), on the points of its seed and from its
start in the band; there only correlations were kept. Source: Li, Sonoda, Cao, Wang and Liang
(ICML 2023) for the start; that the hidden weights are trained is not theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from rclib.experiments.features.bandlimited_runs import draws, points, target, trained
from rclib.runs.store import Arrays

__all__ = ["TINY", "weights_run"]

TINY: dict[str, dict[str, Any]] = {
    "weights_run": {
        "seed": 0, "lam": 1.0, "width": 6, "frequency": 1, "rate": 0.03, "steps": 3, "n": 30,
        "n_test": 20,
    },
}  # fmt: skip


def weights_run(
    data: None, *, seed: int, lam: float, width: int, frequency: float, rate: float, steps: int,
    n: int, n_test: int,
) -> Arrays:  # fmt: skip
    """Stored run of a seed: a network of L = width units trained from the band λ, c from zero.

    start (2, L) : a and b before. end (3, L) : a, b and c after. error () : relative error of the
    trained network on fresh points, c as trained.
    """
    x, fresh = points(seed, 3, n, 1), points(seed, 4, n_test, 1)
    y, wanted = target(x, frequency), target(fresh, frequency)
    a, b = draws(seed, width, 1)
    end, _ = trained(x, y, [lam * a, lam * b, np.zeros(width)], rate=rate, steps=steps)
    found = expit(fresh @ end[0].T + end[1]) @ end[2]
    error = np.sqrt(np.square(found - wanted).sum() / np.square(wanted).sum())
    return {
        "start": np.stack([lam * a[:, 0], lam * b]), "end": np.stack([end[0][:, 0], *end[1:]]),
        "error": np.array(error),
    }  # fmt: skip
