"""Frames of notebook 85: fine-tuning over a line that carries one byte a machine and round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning import one_byte_nets as nets
from rclib.experiments.finetuning.one_byte_codes import code_of
from rclib.experiments.finetuning.one_byte_runs import (
    GRADIENTS,
    alignment_run,
    machines_run,
    tune_run,
)
from rclib.experiments.finetuning.one_byte_text import text_run
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import marchenko_pastur, outliers
from rclib.spectral.spectra import esd, stable_rank

__all__ = [
    "alignment_frame",
    "arms_of",
    "best_rates",
    "curves",
    "eigenvalue_frame",
    "last",
    "machines_frame",
    "noise_density",
    "of_weights",
    "rising",
    "runs_of",
    "sent_bytes",
    "slope_ratio",
    "text_frame",
    "weights_frame",
]

Arms = Mapping[str, Mapping[str, Any]]
Runs = Mapping[str, Sequence[Arrays]]
PLAN = ("machines", "samples", "rounds", "rate", "epsilon", "batch")
INPUTS = 64  # pixels of an image of digits


def arms_of(
    plan: Mapping[str, Any], machines: Sequence[int], rates: Mapping[str, float],
    epsilons: Sequence[float], *, most: int, old_rate: float,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Arms by name, each what is other than in `plan` (`machines`, rate, rounds, ... of a run).

    machines : numbers of them; their rates grow in proportion up to `most` machines, from that of
    `plan` at plan's number. rates : the best ones of "float", "sign" and "gradients". old_rate :
    another one for gradients.
    """
    crew, rate, rounds = plan["machines"], plan["rate"], plan["rounds"]
    arms: dict[str, dict[str, Any]] = {
        f"M = {m}": {"machines": m, "rate": rate * min(m, most) / crew} for m in machines
    }
    arms |= {name: {"code": name} for name in ("float", "9 bits", "byte", "4 bits", "sign")}
    for code in ("float", "sign", GRADIENTS):
        arms[f"{code}, best rate"] = {"code": code, "rate": rates[code]}
    arms[f"{GRADIENTS}, old rate"] = {"code": GRADIENTS, "rate": old_rate}
    arms |= {f"{how} directions": {"directions": how} for how in ("wrong", "shared")}
    for share in ("iid", "class"):
        arms[share] = {"share": share}
        arms[f"{share}, slow"] = {"share": share, "rate": rate / 3}
        arms[f"{share}, long"] = {"share": share, "rate": rate / 3, "rounds": 2 * rounds}
    return arms | {f"ε = {epsilon:g}": {"epsilon": epsilon} for epsilon in epsilons}


def runs_of(
    data: Dataset, seeds: Sequence[int], arms: Arms, settings: Mapping[str, Any]
) -> dict[str, list[Arrays]]:
    """Runs of every arm, one a seed. settings : net, plan and at of `tune_run`."""
    configs = [_config(arm, seed, settings) for arm in arms.values() for seed in seeds]
    found = sweep.run(tune_run, configs, data=data, description="fine-tuning")
    n = len(seeds)
    return {name: found[i * n : (i + 1) * n] for i, name in enumerate(arms)}


def _config(arm: Mapping[str, Any], seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    plan = {**settings["plan"], **{key: arm[key] for key in PLAN if key in arm}}
    own: dict[str, Any] = {"code": "float", "share": "all", "directions": "own"}
    own |= {key: value for key, value in arm.items() if key not in PLAN}
    return {**settings, **own, "plan": plan, "seed": seed}


def best_rates(
    data: Dataset, seeds: Sequence[int], grids: Mapping[str, Sequence[float]],
    settings: Mapping[str, Any],
) -> dict[str, float]:  # fmt: skip
    """Rate of each code with the smallest mean training loss after the last round, on seeds that
    are for this alone. A grid of one rate is not run."""
    found = {}
    for code, rates in grids.items():
        arms = {f"{rate:g}": {"code": code, "rate": rate} for rate in rates}
        runs = runs_of(data, seeds, arms, settings) if len(rates) > 1 else {}
        losses = [np.mean([run["loss"][-1] for run in own]) for own in runs.values()]
        found[code] = rates[int(np.argmin(losses))] if losses else rates[0]
    return found


def curves(
    runs: Runs, arms: Arms, seeds: Sequence[int], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """arm, seed, round, loss (training), accuracy (test), sent: bytes that all machines have sent
    before this round; with a gradient's weights as float32 where gradients are sent."""
    frames = []
    for name, own in runs.items():
        config = _config(arms[name], 0, settings)
        plan = config["plan"]
        at = [*sorted({*settings["at"]} - {plan["rounds"]}), plan["rounds"]]
        at = [t for t in at if t <= plan["rounds"]]
        for seed, run in zip(seeds, own, strict=True):
            each = sent_bytes(config["code"], plan, len(run["start"]))
            frame = pd.DataFrame({"round": at, "loss": run["loss"], "accuracy": run["accuracy"]})
            frames.append(frame.assign(arm=name, seed=seed, sent=each * frame["round"]))
    return pd.concat(frames, ignore_index=True)


def sent_bytes(code: str, plan: Mapping[str, Any], d: int) -> int:
    """Bytes that all machines send in one round, for d weights."""
    if code == GRADIENTS:
        return 4 * d * int(plan["machines"])
    return code_of(code).length(plan["samples"]) * int(plan["machines"])


def last(frame: pd.DataFrame, arm: str, what: str = "accuracy", at: int | None = None) -> pd.Series:
    """A column of `curves` by seed, before round `at` or after the last one.

    Raises ValueError for an arm or a round that is not there.
    """
    own = frame[frame.arm == arm]
    own = own[own["round"] == (own["round"].max() if at is None else at)]
    if own.empty:
        raise ValueError(f"arm and round must be of the runs, got {arm!r}, {at}")
    found: pd.Series = own.set_index("seed")[what]
    return found


def rising(frame: pd.DataFrame, machines: Sequence[int], at: int) -> dict[int, pd.Series]:
    """Training loss before round `at` of every number of machines after the first, minus that of
    the number before it, by seed."""
    losses = {m: last(frame, f"M = {m}", "loss", at) for m in machines}
    pairs = zip(machines, machines[1:], strict=False)
    return {m: losses[m] - losses[fewer] for fewer, m in pairs}


def slope_ratio(runs: Runs, one: str, other: str, seeds: Sequence[int]) -> pd.Series:
    """Root mean square over rounds of what was sent, of one arm over another, by seed."""
    rms = [[np.sqrt(np.mean(run["size"] ** 2)) for run in runs[arm]] for arm in (one, other)]
    index = pd.Index(list(seeds), name="seed")
    return pd.Series(np.array(rms[0]) / np.array(rms[1]), index=index)


# --- machines ---------------------------------------------------------------------------------


def machines_frame(
    data: Dataset, seed: int, kinds: Mapping[str, int], settings: Mapping[str, Any], *, where: str,
    lost: Sequence[int],
) -> pd.DataFrame:  # fmt: skip
    """One row a machine and kind of message: kind, machine, joined (rounds replayed), up, down and
    log (bytes), apart (largest difference of its weights to those of the first machine),
    one_process, late, backwards (the same to the run in one process, to who comes after the end,
    and to who takes the numbers in the opposite order), rounds, weights.

    kinds : code -> samples of a machine a round. settings : net and plan.
    """
    rows = []
    for code, samples in kinds.items():
        own = {"net": settings["net"], "plan": {**settings["plan"], "samples": samples}}
        own |= {"seed": seed, "code": code, "share": "iid"}
        far = {**own, "where": where, "lost": list(lost)}
        (run,) = sweep.run(machines_run, [far], data=data, description="machines")
        near = {**own, "directions": "own", "at": [0]}
        (one,) = sweep.run(tune_run, [near], data=data, description="one process")
        for machine, end in enumerate(run["ends"]):
            row: dict[str, Any] = {"kind": code, "machine": machine, "samples": samples}
            row |= {key: int(run[key][machine]) for key in ("joined", "up", "down")}
            row["log"] = int(run["caught"][machine])
            others = {"apart": run["ends"][0], "one_process": one["end"]}
            others |= {key: run[key] for key in ("late", "backwards")}
            row |= {key: float(np.abs(end - other).max()) for key, other in others.items()}
            rows.append({**row, "rounds": own["plan"]["rounds"], "weights": len(end)})
    return pd.DataFrame(rows)


# --- estimates --------------------------------------------------------------------------------


def alignment_frame(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """N, seed, own and shared (E⟨ĝ, g⟩² / E|ĝ|²|g|²), law = (N + 2) / (N + d + 1), ratio of own to
    the law. settings : net, counts, draws, epsilon of `alignment_run`."""
    configs = [{**settings, "seed": seed} for seed in seeds]
    found = sweep.run(alignment_run, configs, data=data, description="estimates")
    hidden = settings["net"]["hidden"]
    d = hidden * (INPUTS + 1 + nets.CLASSES) + nets.CLASSES
    rows = []
    for seed, run in zip(seeds, found, strict=True):
        for place, n in enumerate(settings["counts"]):
            own, shared = (float(run[k][place, 0] / run[k][place, 1]) for k in ("own", "shared"))
            law = (n + 2) / (n + d + 1)
            rows.append((n, seed, own, shared, law, own / law))
    return pd.DataFrame(rows, columns=["N", "seed", "own", "shared", "law", "ratio"])


# --- weights ----------------------------------------------------------------------------------


def weights_frame(runs: Runs, names: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """One row an arm and seed, of the change Δ of the weights: rank (stable rank of ΔW1 over that
    of Gaussian matrices of its shape), spikes (eigenvalues of ΔW1ᵀΔW1 beyond the noise), means
    (correlation over neurons of row means of ΔW1 and column means of ΔW2), columns (root mean
    square of these column means over that of ΔW2), norms (correlation of squared norms of rows and
    columns), distance (|Δ| / |θ| of W1)."""
    rows = []
    for name in names:
        for seed, run in zip(seeds, runs[name], strict=True):
            first, _, second, _ = nets.parts(
                run["end"].astype(float) - run["start"].astype(float), INPUTS
            )
            start = nets.parts(run["start"], INPUTS)[0]
            size = np.sqrt(np.mean(second**2))
            rows.append({
                "arm": name, "seed": seed,
                "rank": stable_rank(first) / _gaussian_rank(first.shape),
                "spikes": outliers(esd(first), rows=len(first)).count,
                "means": _correlation(first.mean(1), second.mean(0)),
                "columns": float(np.sqrt(np.mean(second.mean(0) ** 2)) / size),
                "norms": _correlation((first**2).sum(1), (second**2).sum(0)),
                "distance": float(np.linalg.norm(first) / np.linalg.norm(start)),
            })  # fmt: skip
    return pd.DataFrame(rows)


@cache
def _gaussian_rank(shape: tuple[int, int], draws: int = 200) -> float:
    draw = np.random.default_rng(0)
    return float(np.mean([stable_rank(draw.standard_normal(shape)) for _ in range(draws)]))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def of_weights(frame: pd.DataFrame, arm: str, what: str) -> pd.Series:
    """A column of `weights_frame` by seed."""
    found: pd.Series = frame[frame.arm == arm].set_index("seed")[what]
    return found


def eigenvalue_frame(runs: Runs, names: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """arm, seed, eigenvalue: those of ΔW1ᵀΔW1 that are not zero, over h times the variance of the
    entries of ΔW1 (h, d)."""
    frames = []
    for name in names:
        for seed, run in zip(seeds, runs[name], strict=True):
            change = nets.parts(run["end"].astype(float) - run["start"].astype(float), INPUTS)[0]
            values = esd(change)
            values = values[values > 0] / (len(change) * np.mean(change**2))
            frames.append(pd.DataFrame({"arm": name, "seed": seed, "eigenvalue": values}))
    return pd.concat(frames, ignore_index=True)


def noise_density(hidden: int, points: int = 200) -> pd.DataFrame:
    """x, density of the positive eigenvalues of a Gaussian matrix (hidden, 64) in these units."""
    law = marchenko_pastur(INPUTS / hidden)
    x = np.linspace(law.lower, law.upper, points)
    return pd.DataFrame({"x": x, "density": law.density(x) / (1 - law.atom)})


# --- text -------------------------------------------------------------------------------------


def text_frame(
    data: TextData, seeds: Sequence[int], rates: Mapping[str, float], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """arm (code), seed, round, loss on held-out text. rates : code -> rate. settings : net, before,
    plan, every, windows of `text_run`."""
    frames = []
    for code, rate in rates.items():
        plan = {**settings["plan"], "rate": rate}
        configs = [{**settings, "plan": plan, "code": code, "seed": seed} for seed in seeds]
        at = [*range(0, plan["rounds"], settings["every"]), plan["rounds"]]
        for seed, run in zip(
            seeds, sweep.run(text_run, configs, data=data, description="text"), strict=True
        ):
            own = pd.DataFrame({"round": at, "loss": run["loss"]})
            frames.append(own.assign(arm=code, seed=seed))
    return pd.concat(frames, ignore_index=True)
