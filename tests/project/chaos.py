"""`make figures` killed again and again must end with the results of a run that was left alone.

Run by hand (`make chaos`); the quick profile, in two copies of the tracked files:

1. an uninterrupted `make figures`, which also tells how long a run takes;
2. in the other copy, `make figures` killed with SIGKILL (its whole process group) at random
   moments and started again, then once more without a kill.

Compared are all results and figures, byte for byte (times have files of their own). A finished
training run counts as lost if its file in the store, seen after a kill, is not the same file at
the end: it was removed, or computed again. Bounded in the number of kills and in time.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy_to(folder: Path, notebooks: list[str]) -> Path:
    """The tracked files, and the environment by link; only some notebooks if any are named."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = Path(name)
        left_out = path.parts[0] in ("figures", "results", "tests") or (
            path.suffix == ".ipynb" and notebooks and path.stem not in notebooks
        )
        if not left_out and (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def start(folder: Path, token: str, **extra: str) -> subprocess.Popen[bytes]:
    """`make figures` in a process group of its own, with the copy's own library and store.

    extra: environment variables.
    """
    outside = {
        k: v for k, v in os.environ.items() if not k.startswith(("RCLIB_", "MAKE", "MFLAGS"))
    }
    environment = outside | {"PYTHONPATH": str(folder), "RCLIB_CHAOS": token, "TQDM_DISABLE": "1"}
    environment |= extra
    with open(folder / "make.log", "ab") as log:
        return subprocess.Popen(
            ["make", "figures"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for_orphans(token: str) -> None:
    """Kernels have a session of their own and end by themselves when they miss their parent."""
    mark, deadline = f"RCLIB_CHAOS={token}".encode(), time.monotonic() + 60
    while time.monotonic() < deadline:
        if not any(mark in _environment(p) for p in Path("/proc").glob("[0-9]*")):
            return
        time.sleep(0.2)
    sys.exit("processes of a killed run are still there after a minute")


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def stored(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished runs in the store: name -> (inode, time of writing)."""
    found = {}
    for path in (folder / ".cache" / "runs").rglob("*.safetensors"):
        if "unfinished" not in path.parts:
            about = path.stat()
            found[str(path.relative_to(folder))] = (about.st_ino, about.st_mtime_ns)
    return found


def outcome(folder: Path) -> dict[str, bytes]:
    """Results and figures of the quick profile, without the times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for kind in ("results", "figures")
        for path in sorted((folder / kind / "quick").rglob("*"))
        if path.is_file() and path.parent.name != "times"
    }


def whole_run(folder: Path, seconds: float, **extra: str) -> float:
    """`make figures` to its end; its duration. Ends the program if it fails or takes too long."""
    begin = time.monotonic()
    process = start(folder, folder.name, **extra)
    try:
        status = process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        sys.exit(f"make figures did not end in {seconds:.0f} s; see {folder / 'make.log'}")
    if status:
        log = (folder / "make.log").read_text(encoding="utf-8", errors="replace")
        sys.exit(f"make figures failed:\n{log[-2000:]}")
    return time.monotonic() - begin


def main() -> int:
    """Kill, resume, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=40.0, help="limit for everything")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--notebooks", nargs="*", default=[], help="names; default all")
    options = parser.parse_args()
    if not Path("/proc/self/environ").is_file():
        sys.exit("this check needs Linux: it looks for left-over processes in /proc")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    moments = random.Random(seed)
    deadline = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="rclib-chaos-") as name:
        calm, rough = Path(name) / "calm", Path(name) / "rough"
        copy_to(calm, options.notebooks)
        copy_to(rough, options.notebooks)
        duration = whole_run(calm, deadline - time.monotonic())
        expected = outcome(calm)
        print(f"uninterrupted: {duration:.0f} s, {len(expected)} files; seed {seed}", flush=True)
        killed, lost = 0, 0
        seen: dict[str, tuple[int, int]] = {}
        while killed < options.kills and time.monotonic() < deadline - 2 * duration:
            # Shorter than a run, or the kills would come after its end.
            delay = moments.uniform(0.5, duration / 4)
            process = start(rough, rough.name)
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                wait_for_orphans(rough.name)
                now = stored(rough)
                changed = [run for run, file in seen.items() if now.get(run) != file]
                lost += len(changed)
                seen = now
                print(f"kill {killed:2d} after {delay:5.1f} s, {len(seen)} runs kept", flush=True)
            else:  # it had come to its end: begin anew with the drawing alone
                shutil.rmtree(rough / "build", ignore_errors=True)
        whole_run(rough, deadline - time.monotonic())
        now = stored(rough)
        lost += sum(now.get(run) != file for run, file in seen.items())
        damaged = len(list((rough / ".cache").rglob("*.damaged")))
        found = outcome(rough)
        different = sorted(k for k in expected | found if expected.get(k) != found.get(k))
        for path in different:
            print(f"different: {path}")
        print(
            f"killed {killed}, resumed {killed}, lost = {lost}, damaged = {damaged}, "
            f"files that differ = {len(different)} of {len(expected)}"
        )
        enough = killed >= options.kills
        if not enough:
            print(f"only {killed} of {options.kills} kills in {options.minutes:g} minutes")
        return int(bool(lost or damaged or different or not expected or not enough))


if __name__ == "__main__":
    sys.exit(main())
