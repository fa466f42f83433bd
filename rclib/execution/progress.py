"""What `make figures` says while it runs: which notebooks run, which wait, elapsed and expected.

`make` sets variables for the runners of one call: `RCLIB_TODO`, the notebooks it will run,
`RCLIB_JOBS`, how many side by side, and `RCLIB_BEGIN`, when it began (seconds since 1970). A runner
leaves a mark beside its output while it runs, so that every runner can count the others. Without
the variables nothing is printed. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rclib import paths
from rclib.files.command import command
from rclib.study.results import duration

__all__ = ["expected", "main", "plan", "running"]

EVERY = 60.0  # seconds between two signs of life of a long notebook


def _build(profile: str) -> Path:
    return paths.project_root() / "build" / profile


def _todo() -> list[str]:
    return os.environ.get("RCLIB_TODO", "").split()


def _begin() -> float:
    try:
        return float(os.environ.get("RCLIB_BEGIN", ""))
    except ValueError:
        return 0.0


def expected(name: str, profile: str) -> float | None:
    """Seconds that a notebook took last time: here, else where its results were made; None if
    it never ran. ValueError for an unknown profile."""
    results = paths.results_dir(profile) / f"{name}.json"
    times = results.parent / "times" / results.name
    try:
        return float((_build(profile) / f".{name}.seconds").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    for path in (times, results):  # older results hold their times themselves
        try:
            return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def plan(profile: str, *, jobs: int) -> str:
    """The line that `make figures` begins with: how many notebooks and about how long."""
    names = _todo()
    if not names:
        return f"== {profile} profile: every notebook is up to date"
    known = [seconds for seconds in (expected(name, profile) for name in names) if seconds]
    line = f"== {profile} profile: {len(names)} notebooks to run, {jobs} at a time"
    if known:
        about = max(max(known), sum(known) / jobs)
        line += f"; about {duration(about)} by last time's times"
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

    What is left is estimated from last time's times, by the number of notebooks side by side;
    notebooks that never ran here count with the mean of the others.
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
    text = os.environ.get("RCLIB_JOBS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else 1


def _say(name: str, text: str, profile: str) -> None:
    elapsed = duration(max(0.0, time.time() - _begin()))
    print(f"[{elapsed:>8s}] {name}: {text}; {_counts(profile)}", flush=True)


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
    begin, last = time.monotonic(), expected(name, profile)
    about = f"took {duration(last)} last time" if last else "never ran here"

    def live() -> None:
        while not over.wait(every):
            _say(name, f"running for {duration(time.monotonic() - begin)}, {about}", profile)

    mark.touch()
    _say(name, f"begins, {about}", profile)
    threading.Thread(target=live, daemon=True).start()
    try:
        yield
        seconds = time.monotonic() - begin
        (folder / f".{name}.seconds").write_text(f"{seconds:.1f}\n", encoding="utf-8")
    finally:
        over.set()
        mark.unlink(missing_ok=True)


@command(failed=2)
def main(argv: Sequence[str] | None = None) -> int:
    """Print what `make figures` is about to do."""
    parser = argparse.ArgumentParser(
        prog="python -m rclib.execution.progress", description=main.__doc__
    )
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args(argv)
    try:
        print(plan(arguments.profile, jobs=max(1, arguments.jobs)), flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
