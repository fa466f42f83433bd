"""What `make figures` says while it runs: which notebooks run, which wait, elapsed and expected.

`make` sets two variables for the runners of one call: `RCLIB_TODO`, the notebooks it will run, and
`RCLIB_BEGIN`, when it began (seconds since 1970). A runner leaves a mark beside its output while
it runs, so that every runner can count the others. Without the variables nothing is printed.
Needs the standard library alone.
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


def _counts(profile: str) -> str:
    """ "2 running, 5 waiting" of the notebooks of this call."""
    begin, states = _begin(), {"done": 0, "running": 0}
    for name in _todo():
        for state, path in (("done", f"{name}.ipynb"), ("running", f".{name}.running")):
            try:
                if (_build(profile) / path).stat().st_mtime >= begin - 1:
                    states[state] += 1
                    break
            except OSError:
                continue
    waiting = len(_todo()) - states["done"] - states["running"]
    return f"{states['running']} running, {max(waiting, 0)} waiting"


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
