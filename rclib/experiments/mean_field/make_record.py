"""Train a run of Figure 4.5 at the paper's configuration and write its record.

    python -m rclib.experiments.mean_field.make_record --width 1024 --seed 4

needs a large GPU (about 4 minutes at N = 1024 on an H200) and the text in the data folder
($RCLIB_DATA); stopped, it goes on where it was. `--arrays FILE` takes a run made before instead:
a safetensors file of the arrays of `lm_runs.arrays_of` with `config`, `device`, `torch`,
`precision`, `compile`, `text` (checksum) and `times` ([step, milliseconds], ...) in its metadata.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors import safe_open

from rclib.data.text import named_text
from rclib.experiments.mean_field.lm_records import (
    FOLDER,
    PAPER,
    expected_configuration,
    write_record,
)
from rclib.experiments.mean_field.lm_runs import Arrays, train_gpt
from rclib.files.command import command
from rclib.files.terminal import Parser, note, report
from rclib.runs import store

__all__ = ["main"]


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Write one record of Figure 4.5."""
    parser = Parser(
        prog="python -m rclib.experiments.mean_field.make_record", description=main.__doc__
    )
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0, help="number of the repeat")
    parser.add_argument("--text", default="proposals.txt.xz", help="a file of the data folder")
    parser.add_argument("--arrays", type=Path, help="a finished run instead of training one")
    parser.add_argument("--computed", help="day, default today", metavar="YYYY-MM-DD")
    parser.add_argument("--note", default="", help="what else should be known of the run")
    parser.add_argument("--into", type=Path, default=FOLDER)
    given = parser.parse_args(argv)
    try:
        text = named_text(given.text)
        if given.arrays:
            run, configuration, origin = _finished(given.arrays)
            if origin["text_checksum"] != text.checksum:
                raise ValueError(f"{given.arrays.name} was trained on another text")
        else:
            configuration = expected_configuration(given.width, given.seed, **PAPER)
            run, origin = _trained(configuration, text)
        origin |= {"text": text.description, "note": given.note}
        origin["computed"] = given.computed or datetime.date.today().isoformat()
        path = write_record(run, configuration, origin, given.into)
    except (ValueError, OSError, KeyError) as error:
        note(f"error: {error}")
        return 1
    report(str(path))
    return 0


def _trained(configuration: dict[str, Any], text: Any) -> tuple[Arrays, dict[str, str]]:
    if not torch.cuda.is_available():
        raise ValueError("this configuration needs a GPU; --arrays takes a run made elsewhere")
    begin = time.monotonic()
    run = store.fetch(train_gpt, configuration, data=text)
    spent = (time.monotonic() - begin) / configuration["recipe"]["steps"]
    return run, {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "precision": "torch.bfloat16",
        "compile": "reduce-overhead",
        "text_checksum": text.checksum,
        "ms_per_step": f"{1e3 * spent:.2f}",  # the start with its compilation included
    }


def _finished(path: Path) -> tuple[Arrays, dict[str, Any], dict[str, str]]:
    with safe_open(path, framework="np") as handle:
        meta = dict(handle.metadata() or {})
        run = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    origin = {name: meta[name] for name in ("device", "torch", "precision", "compile")}
    origin["text_checksum"] = meta["text"]
    origin["ms_per_step"] = f"{median(ms for _, ms in json.loads(meta['times'])):.2f}"
    return run, json.loads(meta["config"]), origin


if __name__ == "__main__":
    sys.exit(main())
