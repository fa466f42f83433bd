"""One training run of paper B's student, with chosen quantities at chosen steps.

    record = train(make_problem(0), optimizer="adam", rate=1.0, steps=10)
    record["test_loss"]        # (R,), one value a recorded step

Step t means W_t, after t updates; step 0 is the start. What depends on the start alone is
measured once for a `Problem`, whatever the number of runs on it. Training is in the dtype of
the problem, spectra in float64.

Sources: paper B, "Quantities" and "Experiments".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rclib.spectral import power_law, spectra
from rclib.teacher.evaluation import EVALUATIONS, evaluate_both
from rclib.teacher.problem import Problem
from rclib.training.descent import make_descent, step_rates
from rclib.training.recorder import Recorder, chosen_steps

__all__ = ["QUANTITIES", "STANDARD", "Divergence", "Record", "train_student"]

STANDARD = ("losses", "alignment", "spectrum", "power_law")
QUANTITIES = (*STANDARD, "weights", "weight_histogram", "updates", "overlaps")
_OF_UPDATES = ("updates", "overlaps")
_BINS = 100
_LOSSES = ("train_loss", "test_loss", "test_loss_clean", "kta")
# How the arrays of an evaluation end.
_ENDINGS = dict(zip(EVALUATIONS, ("", "_released"), strict=True))

Array = NDArray[Any]
Factors = tuple[NDArray[np.float64], NDArray[np.float64]]


class Divergence(FloatingPointError):
    """Weights or predictions are not finite any more.

    step: number of updates after which this showed. rate: of the last of them.
    """

    def __init__(self, step: int, rate: float, what: str) -> None:
        super().__init__(f"{what} after step {step}, learning rate {rate:g}")
        self.step, self.rate, self.what = step, rate, what

    def __reduce__(self) -> tuple[Any, ...]:  # so that a worker process can hand it over
        return type(self), (self.step, self.rate, self.what)


@dataclass(frozen=True)
class Record:
    """One run of T updates, R recorded steps of which U are followed by an update.

    optimizer: "gd" or "adam".
    rates: learning rate of each update, (T,).
    batch_loss: training-batch MSE of the student before each update, (T,).
    steps: recorded steps, ascending, (R,).
    update_steps: the recorded steps below T, (U,).
    diverged_at: step at which the run stopped being finite, or -1. Rows of that step and
        later ones are NaN (zero in whole-number arrays), as are directions of an update
        that is exactly zero.
    values: by quantity,
        losses            train_loss, test_loss, test_loss_clean, kta: as in
                          the equations; the same with _released: as released  (R,)
        alignment         alignment                                            (R,)
        spectrum          eigenvalues, of W^T W, ascending                     (R, d)
        power_law         alpha_x, alpha_x_error, xmin_x, distance_x, tail_x,
                          x in hill, ks                                        (R,)
        weights           weights, in the dtype of training                    (R, h, d)
        weight_histogram  weight_counts (R, 100), weight_edges (R, 101)
        updates           update_eigenvalues, of M^T M                         (U, d)
                          update_alignment, of M with β                        (U,)
        overlaps          overlap_left_before, overlap_right_before (W_t with M_t),
                          overlap_left_after, overlap_right_after (W_{t+1} with M_t),
                          leading k directions of each                         (U, k, k)
    """

    optimizer: str
    rates: NDArray[np.float64]
    batch_loss: NDArray[np.float64]
    steps: NDArray[np.int64]
    update_steps: NDArray[np.int64]
    diverged_at: int
    values: Mapping[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.values[name]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the optimiser's name as one flat table of numeric arrays."""
        return {
            "rates": self.rates,
            "batch_loss": self.batch_loss,
            "steps": self.steps,
            "update_steps": self.update_steps,
            "diverged_at": np.array([self.diverged_at]),
            **self.values,
        }


def train_student(
    problem: Problem,
    *,
    optimizer: str,
    rate: float | Sequence[float],
    steps: int = 10,
    gamma: float = 1.0,
    every: int = 1,
    ridge: float = 0.01,
    record_at: Sequence[int] | None = None,
    losses_at: Sequence[int] | None = None,
    quantities: Sequence[str] = STANDARD,
    overlap_top: int = 50,
    keep_diverged: bool = False,
) -> Record:
    """Train W for `steps` updates and record.

    rate, gamma, every: as in `rclib.training.descent.step_rates`; a sequence is any other schedule.
    record_at: steps to record; None records 0 .. steps.
    losses_at: the recorded steps at which "losses" are measured, NaN at the others; None: all.
    quantities: names out of QUANTITIES.
    overlap_top: leading directions kept by "overlaps" (at most min(h, d)).
    keep_diverged: end a diverged run early and return its record, instead of raising.

    Raises ValueError for bad arguments and Divergence, which names step and rate.
    """
    rates = step_rates(rate, steps, gamma=gamma, every=every)
    recorded = chosen_steps(
        "record_at", range(steps + 1) if record_at is None else record_at, steps
    )
    with_losses = set(recorded)
    if losses_at is not None:
        with_losses &= set(chosen_steps("losses_at", losses_at, steps))
    names = tuple(quantities)
    unknown = [name for name in names if name not in QUANTITIES]
    if unknown:
        raise ValueError(f"quantities must be out of {QUANTITIES}, got {unknown[0]!r}")
    if isinstance(overlap_top, bool) or not isinstance(overlap_top, int) or overlap_top < 1:
        raise ValueError(f"overlap_top must be a positive integer, got {overlap_top!r}")

    h, d = problem.W0.shape
    k = min(overlap_top, h, d)
    update_steps = [t for t in recorded if t < steps]
    kept = Recorder({"state": recorded, "update": update_steps})
    for name in names:
        at = "update" if name in _OF_UPDATES else "state"
        for key, (shape, kind) in _rows(name, h, d, k, problem.W0.dtype).items():
            kept.reserve(at, key, shape, kind)

    batch_loss = np.full(steps, np.nan)
    diverged_at = -1
    factors: dict[int, Factors] = {}  # singular vectors of W by step
    descent = make_descent(optimizer)
    W, t = problem.W0, 0
    try:
        # Overflow on the way to a divergence is looked for below, not warned of.
        with np.errstate(over="ignore", invalid="ignore"):
            for t in range(steps + 1):
                if not np.isfinite(W).all():
                    raise FloatingPointError("weights are not finite")
                if kept.due("state", t):
                    due = names if t in with_losses else _without_losses(names)
                    for key, value in _state(problem, W, due, ridge, at_start=t == 0):
                        kept.write("state", t, key, value)
                if t == steps:
                    break
                batch_loss[t], gradient = problem.loss_and_gradient(W) if t else problem.first_step
                if not np.isfinite(batch_loss[t]):
                    raise FloatingPointError("predictions are not finite")
                M = descent.update(gradient, float(rates[t]))
                following = W + M
                if kept.due("update", t) and np.isfinite(following).all():
                    for key, value in _update(problem, W, M, following, t, names, k, factors):
                        kept.write("update", t, key, value)
                W = following
    except FloatingPointError as error:
        if not keep_diverged:
            last = float(rates[t - 1]) if t else float("nan")
            raise Divergence(t, last, str(error)) from None
        diverged_at = t
    return Record(
        optimizer=optimizer,
        rates=rates,
        batch_loss=batch_loss,
        steps=np.array(recorded, dtype=np.int64),
        update_steps=np.array(update_steps, dtype=np.int64),
        diverged_at=diverged_at,
        values=kept.arrays,
    )


def _rows(
    quantity: str, h: int, d: int, k: int, dtype: np.dtype[Any]
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of one recorded row of each array of a quantity."""
    real = np.float64
    if quantity == "losses":
        return {f"{key}{end}": ((), real) for end in _ENDINGS.values() for key in _LOSSES}
    if quantity == "power_law":
        names = ("alpha_{}", "alpha_{}_error", "xmin_{}", "distance_{}", "tail_{}")
        return {
            name.format(method): ((), np.int64 if name == "tail_{}" else real)
            for method in power_law.METHODS
            for name in names
        }
    sides = [f"overlap_{side}_{when}" for when in ("before", "after") for side in ("left", "right")]
    others: dict[str, dict[str, tuple[tuple[int, ...], Any]]] = {
        "alignment": {"alignment": ((), real)},
        "spectrum": {"eigenvalues": ((d,), real)},
        "weights": {"weights": ((h, d), dtype)},
        "weight_histogram": {
            "weight_counts": ((_BINS,), np.int64),
            "weight_edges": ((_BINS + 1,), real),
        },
        "updates": {"update_eigenvalues": ((d,), real), "update_alignment": ((), real)},
        "overlaps": dict.fromkeys(sides, ((k, k), real)),
    }
    return others[quantity]


def _without_losses(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name != "losses")


def _state(
    problem: Problem, W: Array, names: Sequence[str], ridge: float, *, at_start: bool
) -> Iterator[tuple[str, Any]]:
    """Values of one row of the quantities of W_t, by array."""
    # What is measured at W0 is kept with the problem: it is the same for every run on it.
    memory = problem.start if at_start else {}
    if "losses" in names:
        if ("losses", ridge) not in memory:
            memory["losses", ridge] = evaluate_both(problem, W, ridge=ridge)
        for way, found in memory["losses", ridge].items():
            yield from ((f"{key}{_ENDINGS[way]}", value) for key, value in vars(found).items())
    if {"alignment", "spectrum", "power_law"}.intersection(names):
        if "spectrum" not in memory:
            memory["spectrum"] = spectra.spectrum(W)
        of_w: spectra.Spectrum = memory["spectrum"]
        if "alignment" in names:
            yield "alignment", spectra.vector_alignment(of_w.v1, problem.beta)
        if "spectrum" in names:
            yield "eigenvalues", of_w.eigenvalues
        if "power_law" in names:
            for method in power_law.METHODS:
                fit = power_law.power_law(of_w.eigenvalues, method)
                yield f"alpha_{method}", fit.alpha
                yield f"alpha_{method}_error", fit.standard_error
                yield f"xmin_{method}", fit.xmin
                yield f"distance_{method}", fit.distance
                yield f"tail_{method}", fit.tail
    if "weights" in names:
        yield "weights", W
    if "weight_histogram" in names:
        counts, edges = np.histogram(W, bins=_BINS)
        yield "weight_counts", counts
        yield "weight_edges", edges


def _update(
    problem: Problem,
    W: Array,
    M: Array,
    following: Array,
    t: int,
    names: Sequence[str],
    k: int,
    factors: dict[int, Factors],
) -> Iterator[tuple[str, Any]]:
    """Values of one row of the quantities of the update M_t, by array.

    M is the update before it is added: in float32, W_{t+1} - W_t would lose the digits of a
    small update to those of W.
    """
    if "updates" in names:
        if M.any():
            found = spectra.spectrum(M)
            yield "update_eigenvalues", found.eigenvalues
            yield "update_alignment", spectra.vector_alignment(found.v1, problem.beta)
        else:
            yield "update_eigenvalues", 0.0
    if "overlaps" in names and M.any():
        before = factors[t] if t in factors else spectra.singular_vectors(W, top=k)
        after = spectra.singular_vectors(following, top=k)
        factors.clear()
        factors[t + 1] = after  # W_{t+1} is the next step's W_t
        of_update = spectra.singular_vectors(M, top=k)
        for when, of_weights in (("before", before), ("after", after)):
            left, right = spectra.vector_overlaps(of_weights, of_update)
            yield f"overlap_left_{when}", left
            yield f"overlap_right_{when}", right
