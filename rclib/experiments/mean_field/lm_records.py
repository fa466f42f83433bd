"""Records of language-model runs that were computed elsewhere, as committed data.

`records/figure_4_5` holds one file a run at the paper's widths. A record keeps what Figure 4.5
needs of the run: the means of Wdown and Wup, one a neuron of the stream (N) at every step kept and
one a neuron of the branch (4N) at the last, the validation losses, and the training loss as means
over windows of `WINDOW` steps; and in its metadata where it came from (`PROVENANCE`).

Means are float16: relative error at most 2^-11 (0.05 percent), against 3 percent or more that the
distance of two samples of 1024 neurons has by chance. Losses are not rounded.

`python -m rclib.experiments.mean_field.make_record` makes them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rclib.experiments.mean_field.lm_runs import Arrays, lm_configuration, means_of
from rclib.experiments.mean_field.width_collapse import Key, start_seed
from rclib.files.atomic import write_atomically

__all__ = [
    "FOLDER",
    "PAPER",
    "PROVENANCE",
    "WINDOW",
    "LMRun",
    "RecordError",
    "RecordedText",
    "expected_configuration",
    "fresh_repeats",
    "load_records",
    "provenance",
    "read_record",
    "record_name",
    "text_of",
    "write_record",
]

FORMAT = "rclib language-model record 1"
FOLDER = Path(__file__).parent / "records" / "figure_4_5"
WINDOW = 50
# What must stand in the metadata beside the configuration, each as text.
PROVENANCE = (
    "device", "torch", "precision", "compile", "text", "text_checksum", "ms_per_step", "computed",
    "note",
)  # fmt: skip
STREAM = {"Wdown": "C", "Wup": "R"}  # the axis with one mean a neuron of the stream
BRANCH = {"Wdown": "R", "Wup": "C"}
# Figure 4.5 at the paper's widths, as notebooks/paper/16_figure_4_5_row_means.yaml has it.
PAPER: Mapping[str, Any] = {
    "lr": 0.01,
    "steps": [4000, 12000, 20000, 32000],
    "blocks": 8,
    "context": 256,
    "batch_size": 16,
    "head_size": 64,
    "eval_batches": 16,
}


class RecordError(ValueError):
    """A record that is damaged, incomplete or of another configuration; names the file."""


@dataclass(frozen=True)
class LMRun:
    """A record. key : parametrisation, width, repeat. arrays : as `lm_runs.arrays_of` names them,
    `train_loss` aside (`train_loss_50`). origin : `PROVENANCE`."""

    key: Key
    configuration: dict[str, Any]
    arrays: Arrays
    origin: dict[str, str]


@dataclass(frozen=True)
class RecordedText:
    """The text that the runs of some records saw, where the text itself is not at hand."""

    description: str
    checksum: str

    def share_memory(self) -> Self:
        """Nothing to share."""
        return self


def expected_configuration(
    width: int, repeat: int, *, lr: float, steps: Sequence[int], **options: Any
) -> dict[str, Any]:
    """The configuration of a run of Figure 4.5, as `width_collapse.train_all` spells it."""
    return lm_configuration(
        parametrization="MF",
        width=width,
        lr=lr,
        seed=start_seed(width, repeat),
        data_seed=0,
        steps=steps[-1],
        start="paper",
        eval_steps=list(steps),
        mean_steps=[0, *steps],
        **options,
    )


def record_name(width: int, repeat: int) -> str:
    """File name of a record."""
    return f"w{width}_s{repeat}.safetensors"


def write_record(
    run: Arrays, configuration: Mapping[str, Any], origin: Mapping[str, str], folder: Path
) -> Path:
    """Write the record of a run (arrays as of `lm_runs.arrays_of`) and return its path.

    origin : every entry of `PROVENANCE`. Raises RecordError for one that is missing or names a
    folder of this machine, ValueError for a run without the means.
    """
    network, recipe = configuration["network"], configuration["recipe"]
    repeat, rest = divmod(network["seed"] - network["width"], start_seed(0, 1))
    path = folder / record_name(network["width"], repeat)
    if rest or set(origin) != set(PROVENANCE):
        raise RecordError(f"record {path.name} needs a start_seed and {', '.join(PROVENANCE)}")
    for name, text in origin.items():
        if re.search(r"(^|[\s'\"])[/\\~]\w", text):
            raise RecordError(f"record {path.name}: {name} names a folder of this machine")
    steps, blocks = recipe["mean_steps"], range(network["blocks"])
    if recipe["steps"] % WINDOW:
        raise RecordError(f"record {path.name}: steps must be a multiple of {WINDOW}")
    arrays: Arrays = {
        "eval_steps": run["eval_steps"].astype(np.int64),
        "eval_loss": run["eval_loss"].astype(np.float64),
        "train_loss_50": run["train_loss"].reshape(-1, WINDOW).mean(1, dtype=np.float64),
    }
    arrays["train_loss_50"] = arrays["train_loss_50"].astype(np.float32)
    for matrix, axis in STREAM.items():
        arrays[f"{matrix}.{axis}"] = np.array(
            [
                [means_of(run, f"blocks.{b}.{matrix}", step=s, axis=axis) for b in blocks]
                for s in steps
            ]
        ).astype(np.float16)
    for matrix, axis in BRANCH.items():
        arrays[f"{matrix}.{axis}"] = np.array(
            [means_of(run, f"blocks.{b}.{matrix}", step=steps[-1], axis=axis) for b in blocks]
        ).astype(np.float16)
    meta = dict(origin) | {"format": FORMAT, "configuration": json.dumps(dict(configuration))}
    meta["arrays_sha256"] = _digest(arrays)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(arrays, metadata=dict(sorted(meta.items()))))
    return path


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype} {value.shape} ".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def read_record(path: Path) -> LMRun:
    """A record, checked: format, checksum, shapes, finite numbers. RecordError otherwise."""
    try:
        with safe_open(path, framework="np") as handle:
            meta = dict(handle.metadata() or {})
            kept = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        if meta.get("format") != FORMAT:
            raise RecordError(f"{path.name} is no record: format is {meta.get('format')!r}")
        missing = [name for name in (*PROVENANCE, "arrays_sha256") if name not in meta]
        if missing:
            raise RecordError(f"record {path.name} lacks {', '.join(missing)}")
        if _digest(kept) != meta["arrays_sha256"]:
            raise RecordError(f"record {path.name} is damaged: its checksum is another")
        configuration: dict[str, Any] = json.loads(meta["configuration"])
        network, recipe = configuration["network"], configuration["recipe"]
        width, repeat = network["width"], (network["seed"] - network["width"]) // start_seed(0, 1)
        arrays = _unpacked(kept, recipe["mean_steps"], network["blocks"], width)
        key = (network["parametrization"], width, repeat)
    except RecordError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"record {path.name} cannot be read: {error!r}") from None
    if path.name != record_name(width, repeat):
        raise RecordError(f"record {path.name} holds N = {width}, repeat {repeat}")
    return LMRun(key, configuration, arrays, {name: meta[name] for name in PROVENANCE})


def _unpacked(kept: Arrays, steps: Sequence[int], blocks: int, width: int) -> Arrays:
    out: Arrays = {"diverged": np.array(-1)}
    out |= {name: kept[name] for name in ("eval_steps", "eval_loss", "train_loss_50")}
    for axes, shape in (
        (STREAM, (len(steps), blocks, width)),
        (BRANCH, (1, blocks, 4 * width)),
    ):
        for matrix, axis in axes.items():
            found = kept[f"{matrix}.{axis}"].astype(np.float32).reshape(shape)
            if not np.isfinite(found).all():
                raise ValueError(f"{matrix}.{axis} holds what is no number")
            for step, group in zip(steps[-len(found) :], found, strict=True):
                out |= {f"means/{step}/blocks.{b}.{matrix}.{axis}": v for b, v in enumerate(group)}
    return out


def load_records(folder: Path = FOLDER, **settings: Any) -> list[LMRun]:
    """All records of a folder, narrow ones first. settings : of `expected_configuration` (such as
    `PAPER`), which all must have. RecordError for one that has others, or another text."""
    found = [read_record(path) for path in folder.glob("*.safetensors")]
    found.sort(key=lambda run: run.key)
    for run in found:
        _, width, repeat = run.key
        expected = json.loads(json.dumps(expected_configuration(width, repeat, **settings)))
        for part in ("network", "recipe"):
            wrong = {
                name: run.configuration[part].get(name)
                for name in {**expected[part], **run.configuration[part]}
                if run.configuration[part].get(name) != expected[part].get(name)
            }
            if wrong:
                raise RecordError(
                    f"record {record_name(width, repeat)} has another {part}: {wrong}"
                )
    text_of(found)
    return found


def text_of(records: Sequence[LMRun]) -> RecordedText:
    """The text that all of them saw. RecordError if there is none, or more than one."""
    texts = {(run.origin["text"], run.origin["text_checksum"]) for run in records}
    if len(texts) != 1:
        raise RecordError(f"records must share one text, got {len(texts)}")
    return RecordedText(*texts.pop())


def fresh_repeats(
    records: Sequence[LMRun], known: Mapping[int, Sequence[int]]
) -> dict[int, list[int]]:
    """The repeats that were not looked at before: recorded ones by width, for the widths of
    `known`, without those that it names. {} without records."""
    if not records:
        return {}
    return {
        width: [r.key[2] for r in records if r.key[1] == width and r.key[2] not in seen]
        for width, seen in known.items()
    }


def provenance(records: Sequence[LMRun]) -> pd.DataFrame:
    """Where the records come from: width, repeat, device, torch, precision, ms_per_step, computed,
    note."""
    names = ("device", "torch", "precision", "ms_per_step", "computed", "note")
    rows = [
        {"width": run.key[1], "repeat": run.key[2], **{name: run.origin[name] for name in names}}
        for run in records
    ]
    return pd.DataFrame(rows)
