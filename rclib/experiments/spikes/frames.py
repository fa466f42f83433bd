"""What the notebooks on paper B share: runs of the student and one row of numbers a step.

A run is a configuration of `rclib.experiments.spikes.teacher_runs.run`. `steps_frame` puts what the
runs recorded into one long table and adds what the eigenvalues say of the bulk:

    threshold        the Marchenko-Pastur edge plus 4 Tracy-Widom scales, the variance taken
                     from the median eigenvalue (`rclib.spectral.random_matrix.outliers`)
    spikes           number of eigenvalues above it
    top              largest eigenvalue, over the threshold
    law_distance     Kolmogorov-Smirnov distance of the upper half of the eigenvalues to the
                     upper half of the Marchenko-Pastur law of that variance
    tail_ratio       distance of the same half to its fitted power law (the Hill cut), over
                     law_distance: below 1 the power law describes it better

Source: paper B, "Quantities"; the last two are this project's measure of "heavy-tailed"
(`rclib.spectral.heavy_tails`).

Losses and KTA are there twice (`rclib.teacher.evaluation`): by the equations under their names,
and as the authors' released code evaluates them with `_released` behind. `evaluated` gives one of
the two under the plain names, for whatever works on a loss.

The student is odd in x, and softplus(z) = z/2 + log(2 cosh(z/2)), odd plus even. `Floors`
holds the test losses that follow from this alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rclib.experiments.spikes import teacher_runs
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.spectral.heavy_tails import tail_shape
from rclib.spectral.random_matrix import outliers

__all__ = [
    "CHAOTIC_ADAM",
    "EVALUATIONS",
    "Bulk",
    "Floors",
    "Samples",
    "bulk",
    "drawn_samples",
    "evaluated",
    "expand",
    "floors",
    "machine_dependent",
    "steps_frame",
    "train_all",
]

# Evaluation -> what a caption or an axis calls it.
EVALUATIONS = {"equations": "as in the equations", "released": "as released"}
LOSSES = ("train_loss", "test_loss", "test_loss_clean", "kta")
RELEASED = tuple(f"{name}_released" for name in LOSSES)
# From this rate on Adam's runs are chaotic: on processors that add in another order the losses
# after ten steps differ in the first digits (`rclib.execution.reruns` measures it).
CHAOTIC_ADAM = 10.0
SCALARS = (
    *LOSSES,
    *RELEASED,
    "alignment",
    "alpha_hill",
    "alpha_hill_error",
    "alpha_ks",
    "alpha_ks_error",
    "tail_ks",
)


@dataclass(frozen=True)
class Samples:
    """What a caption says of drawn data; stands where other notebooks have a data set."""

    description: str
    checksum: None = None


def drawn_samples(
    *, seeds: Sequence[int], d: int, h: int, n: int, noise: float, n_test: int
) -> Samples:
    """Description of the teacher's samples."""
    which = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    sizes = f"d = {d}, h = {h}, n = {n}, {n_test:,} test points"
    return Samples(f"drawn from the teacher ({sizes}, label noise {noise:g}, {which})")


@dataclass(frozen=True)
class Floors:
    """Expected test losses, labels with noise.

    odd: of the best odd function, z/2. zero: of the prediction 0, that is E[y²].
    """

    odd: float
    zero: float


def floors(noise: float) -> Floors:
    """`Floors` of the teacher softplus(z) + ρ ξ, z ~ N(0, 1), by Gauss-Hermite quadrature."""
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    even = np.logaddexp(z / 2, -z / 2)
    odd = float(weight @ even**2 / weight.sum()) + noise**2
    return Floors(odd=odd, zero=odd + 0.25)


def expand(base: Mapping[str, Any], **axes: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination of the axes' values, each with `base`; the first axis varies slowest.

    Name the seed first: runs of one seed in a row share what depends on the start alone.
    """
    names = list(axes)
    return [{**base, **dict(zip(names, values, strict=True))} for values in product(*axes.values())]


def train_all(configs: Sequence[Mapping[str, Any]]) -> list[Arrays]:
    """The records of all configurations, from the store or computed."""
    return sweep.run(teacher_runs.student_run, configs, description="student runs")


def evaluated(frame: pd.DataFrame, evaluation: str) -> pd.DataFrame:
    """The frame with losses and KTA of one evaluation under their plain names.

    Those of the other are left out. Raises ValueError for an evaluation that is none.
    """
    if evaluation not in EVALUATIONS:
        raise ValueError(f"evaluation must be one of {list(EVALUATIONS)}, got {evaluation!r}")
    if evaluation == "equations":
        return frame.drop(columns=list(RELEASED))
    plain = dict(zip(RELEASED, LOSSES, strict=True))
    return frame.drop(columns=list(LOSSES)).rename(columns=plain)


def machine_dependent(frame: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are single values that another processor would not repeat: Adam from
    `CHAOTIC_ADAM` on, after more than the first step. Columns used: optimizer, rate, step."""
    return (frame.optimizer == "adam") & (frame.rate >= CHAOTIC_ADAM) & (frame.step > 1)


@dataclass(frozen=True)
class Bulk:
    """Numbers of the module's docstring for one spectrum; `top` is λ_max / threshold."""

    threshold: float
    spikes: int
    top: float
    law_distance: float
    tail_ratio: float


def bulk(eigenvalues: NDArray[np.float64], *, rows: int) -> Bulk:
    """`Bulk` of the eigenvalues (d,) of W^T W, W (rows, d).

    Raises ValueError as `rclib.spectral.random_matrix.outliers` and
    `rclib.spectral.power_law.power_law` do.
    """
    found = outliers(eigenvalues, rows=rows)
    tail = tail_shape(eigenvalues, rows=rows, variance=found.variance)
    return Bulk(
        threshold=found.threshold,
        spikes=found.count,
        top=float(np.max(eigenvalues)) / found.threshold,
        law_distance=tail.law_distance,
        tail_ratio=tail.tail_ratio,
    )


def steps_frame(
    configs: Iterable[Mapping[str, Any]], runs: Iterable[Arrays], *, keys: Sequence[str]
) -> pd.DataFrame:
    """One row a run and recorded step.

    keys : names of the configuration that tell the runs apart. Columns: keys, `step`,
    `finite` (false from the step where a run diverged), the recorded scalars, and where the
    spectrum was recorded the fields of `Bulk`.
    """
    rows = []
    for config, run in zip(configs, runs, strict=True):
        diverged = int(run["diverged_at"][0])
        for i, step in enumerate(run["steps"]):
            finite = diverged < 0 or int(step) < diverged
            row = {key: config[key] for key in keys} | {"step": int(step), "finite": finite}
            row |= {name: float(run[name][i]) for name in SCALARS if name in run}
            if "eigenvalues" in run and finite:
                row |= asdict(bulk(run["eigenvalues"][i], rows=int(config["h"])))
            rows.append(row)
    return pd.DataFrame(rows)
