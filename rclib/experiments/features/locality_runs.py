"""Stored runs of notebook 73: one network's training on one sample, at several learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rclib.checks.arguments import choice
from rclib.checks.arrays import Floats
from rclib.data.images import Dataset
from rclib.experiments.features.locality_nets import Nets, start, train
from rclib.experiments.features.locality_tasks import reference, samples
from rclib.runs.store import Arrays

__all__ = ["ARCHITECTURES", "MOMENTUM", "START", "TINY", "patch_run"]

ARCHITECTURES = ("CNN", "LCN", "FCN")
MOMENTUM, START = 0.9, 0.2
TINY: dict[str, dict[str, Any]] = {
    "patch_run": {
        "task": "rotated", "arch": "LCN", "units": 2, "seed": 0, "k": 4, "d": 3, "n": 12,
        "sigma": 0.3, "rates": [0.1, 1.0], "bias": [0.1, 0.3], "steps": 3, "at": [1, 3],
        "n_valid": 10, "n_test": 10,
    },
}  # fmt: skip


def patch_run(
    data: Dataset | None, *, task: str, arch: str, units: int, seed: int, k: int, d: int, n: int,
    sigma: float, rates: Sequence[float], bias: Sequence[float], steps: int, at: Sequence[int],
    n_valid: int, n_test: int,
) -> Arrays:  # fmt: skip
    """A stored run of one seed, which draws signal, samples and start.

    units : filters of a CNN (1) or LCN, hidden units of an FCN. rates : R of them; each filter of
    an LCN sees one m-th of the signal, so that its rate is m / 2 times as large. bias : b at the
    start, and its rate over that of the weights (0: it stays). at : steps at which accuracies are
    taken, T of them; the network of the best validation accuracy is chosen, the earliest and
    slowest of equal ones.

    valid, test (T, R) : accuracies. b (T, R). W (units, width) of the chosen one, chosen (2,) its
    places among T and R. reference (2,) : accuracy on the test samples of the Bayes and of the
    linear rule, of no length for images.
    """
    local = choice("arch", arch, ARCHITECTURES) != "FCN"
    shape: dict[str, Any] = {"seed": seed, "k": k, "d": d, "sigma": sigma}
    given = samples(data, task, "train", n=n, **shape)
    held = samples(data, task, "valid", n=n_valid, **shape)
    fresh = samples(data, task, "test", n=n_test, **shape)
    first = start(
        k=k, d=d, units=units, local=local, copies=len(rates), scale=START, b=bias[0], seed=seed
    )
    valid: list[Floats] = []
    test: list[Floats] = []
    biases: list[Floats] = []
    weights: list[Floats] = []

    def look(now: Nets) -> None:
        for into, part in ((valid, held), (test, fresh)):
            into.append((now(part.x) * part.y > 0).double().mean(1).numpy())
        biases.append(now.b.clone().numpy())
        weights.append(now.W.clone().numpy())

    faster = max(1.0, units / 2) if local else 1.0
    train(
        first, given.x, given.y, rates=[rate * faster for rate in rates],
        bias_rates=[rate * bias[1] for rate in rates], steps=steps, momentum=MOMENTUM, at=at,
        look=look,
    )  # fmt: skip
    place = np.unravel_index(np.argmax(valid), np.shape(valid))
    rules = () if fresh.scores is None else reference(fresh.scores, fresh.y.numpy(), sigma)
    return {
        "valid": np.array(valid), "test": np.array(test), "b": np.array(biases),
        "W": weights[int(place[0])][place[1]], "chosen": np.array(place),
        "reference": np.array(rules),
    }  # fmt: skip
