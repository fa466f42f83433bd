"""`make fuzz`: thousands of changed files given to every reader, each with bounds.

A reader may read a changed file or refuse it by one of the product's own errors (one printable
line). Anything else is a fault: another error, a wrong shape, more than CPU_SECONDS of computing,
more than MEMORY of new memory, a process that dies or waits. What was changed is a function of
the seed, the reader and a number, so every fault can be made again:

    python tests/project/fuzz.py --only gguf --index 1234 --seed 0

Files that made a fault are kept in build/fuzz/. Exit code 0 if there was none, else 1; 1 as well
if the time was up before all were done.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":  # pytest knows these places
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import torch  # noqa: E402
from fuzz_targets import TARGETS, Target, fault  # noqa: E402

COUNT, SEED, SECONDS = 10_000, 0, 1800
CPU_SECONDS = 10.0  # of one file; the slowest takes a twentieth of it
WAIT = 60.0  # seconds after which a process that still has the same file is ended
MEMORY = 400 << 20  # bytes that one small file may need beyond what was there before
ADDRESSES = 4 << 30  # bytes of address space, so that no fault ends the machine


class HangError(BaseException):
    """Computing took too long; no reader catches this."""


@dataclass
class Found:
    """Counts of one run. faults : (reader, number, what was wrong)."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Files that were tried."""
        return self.read.total() + self.refused.total() + len(self.faults)


def changed(target: Target, seeds: Sequence[bytes], name: str, index: int, seed: int) -> bytes:
    """The file of a reader and number."""
    chance = random.Random(f"{seed}/{name}/{index}")
    return target.mutate(chance, seeds[index % len(seeds)])


def _stop(number: int, frame: FrameType | None) -> None:
    raise HangError


@contextlib.contextmanager
def _limited(cpu_seconds: float) -> Iterator[None]:
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def tried(target: Target, content: bytes, cpu_seconds: float = CPU_SECONDS) -> tuple[str, str]:
    """("read", ""), ("refused", the message) or ("fault", what was wrong) of one file."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _limited(cpu_seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.use(content, folder)
        kind, text = "read", ""
    except HangError:
        kind, text = "fault", f"it computed for more than {cpu_seconds:g} s"
    except Exception as error:
        text = fault(error)
        kind, text = ("fault", text) if text else ("refused", str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > MEMORY:
        kind, text = "fault", f"it took {grown >> 20} MiB of memory; {text}"
    return kind, text


Job = tuple[str, int]


def _work(jobs: Sequence[Job], seed: int, send: Connection, targets: Mapping[str, Target]) -> None:
    """Try files one after the other; says which before each, and what came out of it."""
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with open("/proc/self/statm", encoding="ascii") as pages:
        here = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + ADDRESSES, here + ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seeds: dict[str, list[bytes]] = {}
    warnings.simplefilter("ignore")  # zipfile's, where a name is there twice
    for name, index in jobs:
        target = targets[name]
        if name not in seeds:
            seeds[name] = target.seeds()
            with contextlib.suppress(Exception):  # what is imported and built once is no growth
                tried(target, seeds[name][0])
        send.send(None)
        send.send(tried(target, changed(target, seeds[name], name, index, seed)))
    send.close()


class _Worker:
    """A process with the files that it has still to try."""

    def __init__(
        self, jobs: Sequence[Job], seed: int, targets: Mapping[str, Target], found: Found
    ) -> None:
        self.jobs, self.seed, self.targets, self.found = list(jobs), seed, targets, found
        self._start()

    def _start(self) -> None:
        context: Any = multiprocessing.get_context("fork")
        self.receive, send = context.Pipe(duplex=False)
        given = (self.jobs, self.seed, send, self.targets)
        self.process = context.Process(target=_work, args=given, daemon=True)
        self.process.start()
        send.close()
        self.heard = time.monotonic()

    def look(self) -> bool:
        """Take in what the process has said; whether there is more to come."""
        try:
            while self.receive.poll():
                said = self.receive.recv()
                self.heard = time.monotonic()
                if said is not None:
                    self._count(*said)
        except EOFError:
            self.process.join()
            if not self.jobs:
                return False
            self._count("fault", f"the process died (exit code {self.process.exitcode})")
            self._again()
        if time.monotonic() - self.heard > WAIT:
            self.end()
            self._count("fault", f"no answer within {WAIT:g} s")
            self._again()
        return bool(self.jobs) or self.process.is_alive()

    def _again(self) -> None:
        if self.jobs:
            self._start()

    def _count(self, kind: str, text: str) -> None:
        name, index = self.jobs.pop(0)
        if kind == "fault":
            self.found.faults.append((name, index, text))
        else:
            (self.found.read if kind == "read" else self.found.refused)[name] += 1

    def end(self) -> None:
        """End the process, which this one started."""
        self.process.kill()
        self.process.join()


def fuzz(
    targets: Mapping[str, Target], count: int, *, seed: int, seconds: float, workers: int
) -> Found:
    """Try `count` files, as many of each reader, over worker processes."""
    jobs = [(name, i) for i in range(-(-count // len(targets))) for name in targets][:count]
    found = Found()
    begin = time.monotonic()
    running = [_Worker(jobs[i::workers], seed, targets, found) for i in range(workers)]
    try:
        while running and time.monotonic() - begin < seconds:
            running = [worker for worker in running if worker.look()]
            time.sleep(0.02)
    finally:
        for worker in running:
            worker.end()
    return found


def _keep(targets: Mapping[str, Target], found: Found, seed: int) -> None:
    """Files that made a fault."""
    folder = ROOT / "build" / "fuzz"
    for name, index, _ in found.faults:
        folder.mkdir(parents=True, exist_ok=True)
        content = changed(targets[name], targets[name].seeds(), name, index, seed)
        plain = "".join(c if c.isalnum() else "_" for c in name)
        (folder / f"{plain}-{seed}-{index}").write_bytes(content)


def table(found: Found, targets: Mapping[str, Target]) -> str:
    """Counts of every reader."""
    lines = [f"{'reader':18s} {'read':>7s} {'refused':>8s} {'faults':>7s}"]
    faults = Counter(name for name, _, _ in found.faults)
    for name in targets:
        counts = f"{found.read[name]:7d} {found.refused[name]:8d} {faults[name]:7d}"
        lines.append(f"{name:18s} {counts}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Change files and give them to every reader."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=main.__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=sorted(TARGETS), help="one reader")
    parser.add_argument("--index", type=int, help="one file, with the traceback")
    given = parser.parse_args(argv)
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    targets = {given.only: TARGETS[given.only]} if given.only else dict(TARGETS)
    for name in [name for name, target in targets.items() if not target.seeds()]:
        print(f"{name}: left out, the package that writes such files is not installed")
        del targets[name]
    if given.index is not None:
        return _once(next(iter(targets)), given.index, given.seed)
    begin = time.monotonic()
    found = fuzz(
        targets, given.count, seed=given.seed, seconds=given.seconds, workers=max(1, given.jobs)
    )
    print(table(found, targets))
    for name, index, text in found.faults[:40]:
        print(f"fault: --only {name!r} --index {index} --seed {given.seed}: {text}")
    _keep(targets, found, given.seed)
    print(
        f"{found.done} of {given.count} changed files, seed {given.seed}, "
        f"{time.monotonic() - begin:.0f} s: {found.read.total()} read, "
        f"{found.refused.total()} refused, {len(found.faults)} faults"
    )
    return 1 if found.faults or found.done < given.count else 0


def _once(name: str, index: int, seed: int) -> int:
    target = TARGETS[name]
    content = changed(target, target.seeds(), name, index, seed)
    print(f"{len(content)} bytes: {content[:300]!r}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            target.use(content, Path(folder))
        except Exception as error:
            traceback.print_exc()
            return 1 if fault(error) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
