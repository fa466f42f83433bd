"""What `make figures` says while it runs: which notebooks run, which wait, elapsed and expected.

`make` sets variables for the runners of one call: `RCLIB_TODO`, the notebooks it will run,
`RCLIB_JOBS`, how many side by side, and `RCLIB_BEGIN`, when it began (seconds since 1970). A runner
leaves a mark beside its output while it runs, so that every runner can count the others. Without
the variables nothing is printed.

How long a notebook takes depends on whether its training runs are in the store. So each execution
keeps which runs it asked for (`rclib.study.study.Study.close` notes them), and the next call looks
which of them would be found now. Needs the standard library alone while there is nothing to run.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.command import command
from rclib.files.terminal import Parser, note, report
from rclib.study.results import duration
from rclib.study.session import ASKED_VARIABLE

__all__ = ["expected", "foresee", "main", "plan", "running"]

EVERY = 60.0  # seconds between two signs of life of a long notebook
LEAST = 2.0  # seconds that a notebook takes whose runs are all found


def _build(profile: str) -> Path:
    return paths.project_root() / "build" / profile


def _todo() -> list[str]:
    return os.environ.get("RCLIB_TODO", "").split()


def _begin() -> float:
    try:
        return float(os.environ.get("RCLIB_BEGIN", ""))
    except ValueError:
        return 0.0


def _note(name: str, profile: str) -> dict[str, Any]:
    """What is known of a notebook's last execution here: `seconds` it took, `drawing`, what of it
    did not go into runs, and `runs`, file below the store -> seconds."""
    try:
        known = json.loads((_build(profile) / f".{name}.seconds").read_text(encoding="utf-8"))
        if not isinstance(known, dict):  # of an older version: the seconds alone
            return {"seconds": float(known)}
        runs = {str(path): float(seconds) for path, seconds in known["runs"].items()}
        return {
            "seconds": float(known["seconds"]),
            "drawing": float(known["drawing"]),
            "runs": runs,
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def expected(name: str, profile: str) -> float | None:
    """Seconds that a notebook will take; None if it never ran. ValueError for an unknown profile.

    What `main` has foreseen for this call; else what it took last time here; else, where nothing
    is stored yet, what its results say that it and its runs took where they were made.
    """
    results = paths.results_dir(profile) / f"{name}.json"
    if name in (foreseen := _foreseen(profile)):
        return foreseen[name]
    if known := _note(name, profile):
        return float(known["seconds"])
    for path in (results.parent / "times" / results.name, results):  # older ones hold their times
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            seconds, cores = float(record["seconds"]), float(record.get("core_seconds") or 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        # The seconds alone are short where the runs were found by then.
        return max(seconds, cores / _workers())
    return None


def _foreseen(profile: str) -> dict[str, float]:
    """What `main` wrote at the beginning of this call; empty outside of one."""
    path = _build(profile) / ".forecast.json"
    try:
        if path.stat().st_mtime < _begin() - 1 or not _begin():
            return {}
        return {str(k): float(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def foresee(names: Sequence[str], profile: str) -> dict[str, float]:
    """Seconds that notebooks will take, of those that ran here: drawing, and the runs that the
    store does not have any more or that the code has changed since."""
    notes = {name: note for name in names if "runs" in (note := _note(name, profile))}
    files = {path for note in notes.values() for path in note["runs"]}
    lost: set[str] = set()
    if files:
        from rclib.runs.cache import missing  # torch: a second, and only where runs are in question

        lost = missing(files)
    return {
        name: note["drawing"]
        + sum(s for path, s in note["runs"].items() if path in lost) / _workers()
        for name, note in notes.items()
    }


def plan(profile: str, *, jobs: int) -> str:
    """The line that `make figures` begins with: how many notebooks and about how long."""
    names = _todo()
    if not names:
        return f"== {profile} profile: every notebook is up to date"
    known = [seconds for seconds in (expected(name, profile) for name in names) if seconds]
    line = f"== {profile} profile: {len(names)} notebooks to run, {jobs} at a time"
    if known:
        about = max(max(known), sum(known) / jobs)
        line += f"; about {duration(about)}"
        if len(known) < len(names):
            line += f" ({len(names) - len(known)} never ran here)"
    return line


def _states(profile: str) -> dict[str, str]:
    """ "done" or "running" for the notebooks of this call that began; the others wait."""
    begin, states = _begin(), {}
    for name in _todo():
        for state, path in (("done", f"{name}.ipynb"), ("running", f".{name}.running")):
            try:
                if (_build(profile) / path).stat().st_mtime >= begin - 1:
                    states[name] = state
                    break
            except OSError:
                continue
    return states


def _counts(profile: str) -> str:
    """ "3 of 12 done, 2 running, about 40 s left" of the notebooks of this call.

    What is left is estimated by the number of notebooks side by side; notebooks that never ran
    here count with the mean of the others.
    """
    names, states = _todo(), _states(profile)
    done = [name for name in names if states.get(name) == "done"]
    running = [name for name in names if states.get(name) == "running"]
    text = f"{len(done)} of {len(names)} done, {len(running)} running"
    known = {name: s for name in names if (s := expected(name, profile))}
    if known:
        mean = sum(known.values()) / len(known)
        ages = {name: time.time() - _began(profile, name) for name in running}
        left = [
            max(0.0, known.get(name, mean) - ages.get(name, 0.0))
            for name in names
            if name not in done
        ]
        text += f", about {duration(max(max(left, default=0.0), sum(left) / _jobs()))} left"
    return text


def _began(profile: str, name: str) -> float:
    try:
        return (_build(profile) / f".{name}.running").stat().st_mtime
    except OSError:
        return time.time()


def _jobs() -> int:
    return _count("RCLIB_JOBS")


def _workers() -> int:
    return _count("RCLIB_WORKERS")


def _count(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() and int(text) > 0 else 1


def _say(name: str, text: str, profile: str) -> None:
    elapsed = duration(max(0.0, time.time() - _begin()))
    report(f"[{elapsed:>8s}] {name}: {text}; {_counts(profile)}", flush=True)


@contextmanager
def running(name: str, profile: str, *, every: float = EVERY) -> Iterator[None]:
    """Says that a notebook begins, and from time to time that it still runs; keeps how long it
    took when it ends well. Says nothing outside `make figures`.

    every : seconds between two signs of life.
    """
    if name not in _todo():
        yield
        return
    folder = _build(profile)
    folder.mkdir(parents=True, exist_ok=True)
    mark, over = folder / f".{name}.running", threading.Event()
    asked = folder / f".{name}.{os.getpid()}.asked"
    begin, last = time.monotonic(), expected(name, profile)
    about = f"about {duration(last)}" if last else "never ran here"

    def live() -> None:
        while not over.wait(every):
            _say(name, f"running for {duration(time.monotonic() - begin)}, {about}", profile)

    mark.touch()
    began = mark.stat().st_mtime
    _say(name, f"begins, {about}", profile)
    threading.Thread(target=live, daemon=True).start()
    before = os.environ.get(ASKED_VARIABLE)
    os.environ[ASKED_VARIABLE] = str(asked)  # the kernel inherits it
    try:
        yield
        note = _took(time.monotonic() - begin, asked, began)
        (folder / f".{name}.seconds").write_text(json.dumps(note) + "\n", encoding="utf-8")
    finally:
        over.set()
        mark.unlink(missing_ok=True)
        asked.unlink(missing_ok=True)
        os.environ.pop(ASKED_VARIABLE)
        if before is not None:
            os.environ[ASKED_VARIABLE] = before


def _took(seconds: float, asked: Path, began: float) -> dict[str, Any]:
    """What is kept of an execution: of `seconds`, those that did not go into runs computed since
    `began`, and all runs that the notebook asked for."""
    try:
        runs = {str(k): float(v) for k, v in json.loads(asked.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        runs = {}  # a notebook without a study
    computed = 0.0
    for path, one in runs.items():
        try:
            computed += one if (paths.cache_dir() / path).stat().st_mtime >= began - 1 else 0.0
        except OSError:  # removed meanwhile
            continue
    # Runs are timed by themselves, so with many short ones more may be left than there is.
    drawing = max(seconds - computed / _workers(), min(seconds, LEAST))
    return {"seconds": round(seconds, 1), "drawing": round(drawing, 1), "runs": runs}


@command(failed=2)
def main(argv: Sequence[str] | None = None) -> int:
    """Print what `make figures` is about to do."""
    parser = Parser(prog="python -m rclib.execution.progress", description=main.__doc__)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args(argv)
    try:
        paths.results_dir(arguments.profile)  # known?
        if names := _todo():
            forecast = _build(arguments.profile) / ".forecast.json"
            forecast.parent.mkdir(parents=True, exist_ok=True)
            forecast.write_text(json.dumps(foresee(names, arguments.profile)), encoding="utf-8")
        report(plan(arguments.profile, jobs=max(1, arguments.jobs)), flush=True)
    except ValueError as error:
        note(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
