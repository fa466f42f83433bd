"""Frames of notebook 85: fine-tuning over a line that carries one byte a machine and round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
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

__all__ = [
    "alignment_frame",
    "arms_of",
    "best_rates",
    "curves",
    "end_table",
    "ends",
    "last",
    "machines_frame",
    "panels",
    "rising",
    "runs_of",
    "sent_bytes",
    "slope_ratio",
    "text_frame",
]

Arms = Mapping[str, Mapping[str, Any]]
Runs = Mapping[str, Sequence[Arrays]]
PLAN = ("machines", "samples", "rounds", "rate", "epsilon", "batch")
INPUTS = 64  # pixels of an image of digits


def arms_of(
    plan: Mapping[str, Any], machines: Sequence[int], rates: Mapping[str, float],
    epsilons: Sequence[float], *, most: int, per_machine: float, old_rate: float,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Arms by name, each what is other than in `plan` (`machines`, rate, rounds, ... of a run).

    machines : numbers of them, whose rate is `per_machine` times their number, of up to `most`.
    rates : the best ones of "float", "sign" and "gradients". old_rate : another for gradients.
    """
    rate, rounds = plan["rate"], plan["rounds"]
    arms: dict[str, dict[str, Any]] = {
        f"M = {m}": {"machines": m, "rate": per_machine * min(m, most)} for m in machines
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
        found[code] = rates[int(np.nanargmin(losses))] if losses else rates[0]
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


def sent_bytes(code: str, plan: Mapping[str, Any], d: int) -> float:
    """Bytes that all machines send in one round, for d weights: an eighth of the bits, though a
    message that ends within a byte takes all of it."""
    bits = 32 * d if code == GRADIENTS else code_of(code).bits * plan["samples"]
    return float(bits * plan["machines"] / 8)


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


def ends(frame: pd.DataFrame, what: str) -> dict[str, pd.Series]:
    """`last` of every arm."""
    return {str(arm): last(frame, arm, what) for arm in frame.arm.unique()}


def end_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds after the last round, by arm."""
    over = {what: pd.DataFrame(ends(frame, what)).mean() for what in ("loss", "accuracy", "sent")}
    return pd.DataFrame(over).rename_axis("arm").reset_index().round(4)


def panels(
    frame: pd.DataFrame, along: pd.DataFrame, machines: Sequence[int], best: Sequence[str],
    epsilons: Sequence[float],
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Frames of the first figure (`plots_one_byte.byte_panels`). best : arms of numbers and of
    gradients that go along."""
    numbers = {f"M = {m}": m for m in machines} | {best[1]: 0}
    by_number = frame[frame.arm.isin(numbers)]
    codes = [best[1], "float", "9 bits", "byte", "4 bits", "sign"]
    by_code = pd.concat([frame[frame.arm == code] for code in codes])
    shown = ["float", "byte", "4 bits", "sign", "sign, best rate", *best]
    shown += ["shared directions", "wrong directions", "iid", "class", "iid, slow", "class, slow"]
    shown += ["iid, long", "class, long", *(f"ε = {epsilon:g}" for epsilon in epsilons)]
    found = [last(frame, arm).rename("accuracy").reset_index().assign(arm=arm) for arm in shown]
    by_number = by_number.assign(number=by_number.arm.map(numbers))
    return {
        "machines": by_number[["arm", "number", "seed", "round", "loss"]],
        "bytes_sent": by_code[["arm", "seed", "sent", "loss"]],
        "estimates": along[["N", "seed", "own", "shared", "law"]],
        "ends": pd.concat(found, ignore_index=True),
    }


def rising(frame: pd.DataFrame, machines: Sequence[int], at: int) -> dict[int, pd.Series]:
    """Training loss before round `at` of every number of machines after the first, minus that of
    the number before it, by seed."""
    losses = {m: last(frame, f"M = {m}", "loss", at) for m in machines}
    return {m: losses[m] - losses[fewer] for fewer, m in pairwise(machines)}


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
