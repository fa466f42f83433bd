"""Are the spikes of a trained matrix its row-column structure, and is the heavy tail?

Two systems: the middle matrix of the 3-layer network (`networks`), and paper B's student
(`rclib.teacher`). A trained W is split as W(0) + part + rest (`rclib.spectral.split`), the part by
truncated SVD of the change and by regression on variables of the neurons:

    network   row neuron      1, bias, weights to the outputs, mean of its row of W(0)
              column neuron   1, bias, mean activation in every class, mean of its column of W(0)
              all at the start; bias, weights and activations after training as well
    student   row neuron      1, its frozen a, its u = <W(0)_i, β>, and a u, a u²
              column          1, β, Xᵀy, Xᵀf with f the student's outputs at the start

Both give one record of measures (`split_measures`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.checks.arrays import Floats
from rclib.data.images import Dataset
from rclib.experiments.beyond import networks
from rclib.experiments.beyond.split_frames import run_row
from rclib.experiments.beyond.split_measures import MATRICES, measures
from rclib.nets.mlp import MLP
from rclib.nets.parametrization import parametrization as lookup
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.runs.threads import one_thread
from rclib.teacher.evaluation import EVALUATIONS, evaluate_both
from rclib.teacher.problem import Problem, make_problem, student
from rclib.teacher.record import train_student
from rclib.training.classifier import evaluate

__all__ = ["TINY", "frame", "split_network", "split_student"]

TINY = {
    "split_network": {
        "source": {**networks.TINY["train_network"], "width": 40}, "products": 2, "ranks": [1, 4],
    },
    "split_student": {
        "seed": 0, "optimizer": "gd", "rate": 10.0, "steps": 2, "d": 24, "h": 36, "n": 50,
        "n_test": 20, "noise": 0.3, "products": 2, "ranks": [1, 4],
    },
}  # fmt: skip


def split_network(
    data: Dataset, *, source: Mapping[str, Any], products: int, ranks: Sequence[int]
) -> Arrays:
    """Stored run: `measures` of W2 of a `train_network` run that kept all, and losses (1, 5), the
    test loss of the network with each of the `MATRICES` in the place of W2."""
    before, after = (networks.network_at(data, source, e) for e in (0, source["epochs"]))
    rows, columns = _neuron_variables(data, before, after)
    start, W = (_float(model.get_parameter("W2")) for model in (before, after))
    width = source["width"]
    arrays, matrices = measures(
        W,
        start,
        variance=lookup(source["parametrization"])["hidden"].init(width, width) ** 2,
        rows=rows,
        columns=columns,
        early=(3 + data.n_classes, 3 + data.n_classes),
        products=products,
        ranks=ranks,
        seed=source["seed"],
    )
    losses = []
    for name in MATRICES:
        with torch.no_grad():
            after.get_parameter("W2").copy_(torch.from_numpy(matrices[name]))
        losses.append(evaluate(after, data.x_test, data.y_test)[0])
    return arrays | {"losses": np.array([losses])}


def _neuron_variables(data: Dataset, before: MLP, after: MLP) -> tuple[Floats, Floats]:
    """Variables (N, p) of the row neurons and (N, q) of the column neurons, those of the start
    first; the module's docstring lists them."""
    start = _float(before.get_parameter("W2"))
    ones = np.ones(len(start))
    rows, columns = [ones, start.mean(1)], [ones, start.mean(0)]
    for model in (before, after):
        state = model.state_dict()
        rows += [_float(state["B2"]), *_float(state["W3"])]
        multiplier = model.parametrization["input"].multiplier(data.x_train.shape[1], len(start))
        active = torch.tanh(multiplier * data.x_train @ state["W1"].T + state["B1"])
        columns.append(_float(state["B1"]))
        columns += [_float(active[data.y_train == c].mean(0)) for c in range(data.n_classes)]
    return np.stack(rows, 1), np.stack(columns, 1)


def split_student(
    data: None,
    *,
    seed: int,
    optimizer: str,
    rate: float,
    steps: int,
    d: int,
    h: int,
    n: int,
    n_test: int,
    noise: float,
    products: int,
    ranks: Sequence[int],
) -> Arrays:
    """Stored run: `measures` of paper B's student after `steps` steps, and losses (2, 5), the test
    loss with the last layer refitted, by each of `EVALUATIONS`, of each of the `MATRICES`.

    Raises `Divergence` for a rate at which it does not stay finite.
    """
    with one_thread():
        problem = make_problem(seed, d=d, h=h, n=n, n_test=n_test, noise=noise)
        record = train_student(
            problem, optimizer=optimizer, rate=rate, steps=steps, record_at=[steps],
            quantities=["weights"],
        )  # fmt: skip
        rows, columns = _student_variables(problem)
        arrays, matrices = measures(
            record["weights"][0].astype(np.float64),
            problem.W0.astype(np.float64),
            variance=1.0,
            rows=rows,
            columns=columns,
            early=(rows.shape[1], columns.shape[1]),
            products=products,
            ranks=ranks,
            seed=seed,
        )
        losses = [evaluate_both(problem, matrices[m].astype(np.float32)) for m in MATRICES]
    return arrays | {
        "losses": np.array([[one[way].test_loss for one in losses] for way in EVALUATIONS])
    }


def _student_variables(problem: Problem) -> tuple[Floats, Floats]:
    a, beta = problem.a.astype(np.float64), problem.beta.astype(np.float64)
    u = problem.W0 @ beta
    f = student(problem.W0, problem.a, problem.X)
    columns = [np.ones(len(beta)), beta, problem.X.T @ problem.y, problem.X.T @ f]
    return np.stack([np.ones(len(a)), a, u, a * u, a * u**2], 1), np.stack(columns, 1)


def _float(tensor: torch.Tensor) -> Floats:
    return tensor.detach().numpy().astype(np.float64)


def frame(
    data: Dataset,
    *,
    network: Mapping[str, Any],
    rates: Mapping[str, Sequence[float]],
    products: int,
    ranks: Sequence[int],
    student: Mapping[str, Any],
    student_rates: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
) -> tuple[pd.DataFrame, dict[tuple[str, float, int], Arrays]]:
    """One row a trained matrix, and its arrays by (arm, rate, seed).

    network : the rest of `networks.configuration`; rates : parametrisation -> learning rates.
    student : the rest of `split_student`; student_rates : optimiser -> learning rates.
    Columns: arm, rate, seed, the shares `kept`, `kept_variables`, `kept_start`, `kept_shuffled`,
    the numbers `predicted`, `found`, `owned`, `independent`, `place_error` and
    `independent_error`, the largest |place / predicted - 1| of a detached product in W and with an
    independent start, `overlap_error`, the largest difference of an overlap there, `alpha_hill_x`,
    `alpha_ks_x`, `tail_ratio_x`, `loss_x` (and `loss_released_x`) with x of `MATRICES`,
    `alpha_k`, α (Hill) without the k leading products, for k of `ranks`, and `alpha_hill_noise`,
    of noise of this shape.
    """
    keys = [(name, rate, seed) for name in rates for rate in rates[name] for seed in seeds]
    sources = [
        networks.configuration(
            parametrization=name, start="zero mean", seed=seed, lr=rate, keep=["*"],
            snapshots=[0, network["epochs"]], **network,
        )
        for name, rate, seed in keys
    ]  # fmt: skip
    networks.train_all(data, sources)
    runs = sweep.run(
        split_network,
        [{"source": source, "products": products, "ranks": list(ranks)} for source in sources],
        data=data,
        description="splits",
        needs=networks.source_needed,
    )
    others = [(o, r, seed) for o in student_rates for r in student_rates[o] for seed in seeds]
    runs += sweep.run(
        split_student,
        [
            {"seed": s, "optimizer": o, "rate": r, "ranks": list(ranks), **student}
            for o, r, s in others
        ],
        description="students",
    )
    sizes = [(network["width"],) * 2] * len(keys) + [(student["h"], student["d"])] * len(others)
    found = {
        (str(arm), float(rate), int(seed)): run
        for (arm, rate, seed), run in zip(keys + others, runs, strict=True)
    }
    rows = [
        run_row(key, run, size, ranks)
        for (key, run), size in zip(found.items(), sizes, strict=True)
    ]
    return pd.DataFrame(rows), found
