"""How far the verdicts depend on the seeds: every notebook again with other seeds.

`python -m rclib.execution.stability --profile quick --repeats 10` (`make seeds`) runs each notebook
with the seeds that its parameters cell declares shifted by 0, 1000, 2000, ... and writes
`results/stability/<profile>/<notebook>.json`: for each claim, how often each verdict came out. The
closing scoreboard, the overview and README say from this file how much a verdict depends on the
seeds.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.command import command
from rclib.files.terminal import Parser, note, report
from rclib.study.parameters import whole_seeds
from rclib.study.seeds import load_stability, moving_verdicts, stability_path, tallies

__all__ = ["main", "run_seed_sets", "shifted"]

STEP = 1000


def shifted(parameters: Mapping[str, Any], names: Collection[str], by: int) -> dict[str, Any]:
    """The parameters of these names, which hold seeds, moved by `by`.

    Raises ValueError for one that holds anything but whole numbers.
    """
    moved: dict[str, Any] = {}
    for name in names:
        value = parameters[name]
        values = [seed + by for seed in whole_seeds(name, value)]
        moved[name] = values if isinstance(value, list) else values[0]
    return moved


def _one(name: str, profile: str, by: int) -> list[dict[str, Any]]:
    """The claims of one notebook with its seeds moved by `by`; nothing of it is kept."""
    from rclib.execution import runner

    with tempfile.TemporaryDirectory(prefix="rclib-seeds-") as folder:
        os.environ["RCLIB_OUT"] = folder
        cell = runner.parameters_of(name)
        parameters = {**cell.values, **runner.profile_parameters(name, profile)}
        overrides = shifted(parameters, cell.seeds, by)
        runner.execute_looks(name, profile=profile, overrides=overrides, folder=Path(folder))
        results = paths.results_dir(profile) / f"{name}.json"
        claims: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))["claims"]
        return claims


def run_seed_sets(
    profile: str, repeats: int, jobs: int, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Every notebook `repeats` times; yields the record of each as soon as it is complete."""
    # Here, so that the scoreboard, which needs none of it, stays quick.
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = {
            pool.submit(_one, name, profile, STEP * i): (name, i)
            for name in names
            for i in range(repeats)
        }
        for n, future in enumerate(as_completed(futures), 1):
            name, i = futures[future]
            found[name, i] = future.result()
            report(f"{n:3d} of {len(futures)}  {name}, seeds + {STEP * i}", flush=True)
            runs = [found[name, j] for j in range(repeats) if (name, j) in found]
            if len(runs) == repeats and runs[0]:
                yield {
                    "notebook": name,
                    "profile": profile,
                    "repeats": repeats,
                    "step": STEP,
                    "claims": tallies(runs),
                }


@command(kept="notebooks that were complete are kept")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the notebooks with other seeds and write how often each verdict comes out."""
    from rclib.execution import kernels, runner
    from rclib.files.atomic import write_atomically

    parser = Parser(prog="python -m rclib.execution.stability", description=main.__doc__)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("names", nargs="*", help="notebooks; default all but the overview")
    arguments = parser.parse_args(argv)
    try:
        for name in ("repeats", "jobs"):
            if getattr(arguments, name) < 1:
                raise ValueError(f"--{name} must be positive, got {getattr(arguments, name)}")
        known = [n for n in runner.profile_names(arguments.profile) if not n.startswith("00")]
        unknown = sorted(set(arguments.names) - set(known))
        if unknown:
            raise ValueError(f"no notebook {unknown[0]!r}; there are {', '.join(known)}")
        names = arguments.names or known
        for name in names:
            runner.check_seeds(name)
        with kernels.serving():
            for record in run_seed_sets(
                arguments.profile, arguments.repeats, arguments.jobs, names
            ):
                text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
                path = stability_path(arguments.profile, record["notebook"])
                write_atomically(path, text.encode())
        found = load_stability(arguments.profile)
    except (runner.RunError, ValueError, OSError) as error:
        note(f"error: {error}")
        return 1
    if found:
        report(moving_verdicts(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
