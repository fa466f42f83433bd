"""Row and column means of a whole checkpoint, as ratios within one run.

Compared with
(a) the limit: one process that reads the same files from the page cache and adds up their bytes
    as float32 words, which is the cheapest thing to do with every byte (mapped, and by reads
    into a buffer; the faster of the two is the limit);
(b) the usual way: safetensors.torch.load_file, then .mean(0) and .mean(1) of every matrix, as
    loaded and in float32.
rclib goes once through its compiled loop (numba, as large checkpoints do by themselves; compiling
is timed by itself) and once through the tiles that need nothing but torch.
The ways take turns, round after round, and medians are printed. Peak memory is that of a process
that does nothing else. Then growing parts of the checkpoint: does the cost grow in proportion to
the number of weights?

By default a checkpoint of 1 GB is made and thrown away; --full makes the 16 GB of Llama-3.1-8B.
Use an idle machine with more free memory than the checkpoint has bytes.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from kept import Kept
from make_checkpoint import make
from safetensors.torch import load_file

from rclib.checkpoints.opening import open_checkpoint
from rclib.streaming.compiled import available, kernel
from rclib.streaming.means import Blocks, stream_means

WINDOW = 8 << 20


def means(
    folder: Path,
    threads: int,
    *,
    squares: bool = False,
    share: float = 1.0,
    fast: bool = available(),
) -> int:
    """Row and column means of the first tensors, a share of all weights; number of weights."""
    count = 0
    with open_checkpoint(folder) as checkpoint:
        requests, left = {}, share * checkpoint.nbytes
        for name, info in checkpoint.tensors.items():
            if left > 0:
                requests[name] = Blocks()
                left -= info.nbytes
        asked = stream_means(checkpoint, requests, squares=squares, workers=threads, compiled=fast)
        for _, found in asked:
            count += found["", ""].count
    return count


def files(folder: Path) -> list[Path]:
    """The shards of a checkpoint."""
    return sorted(folder.glob("*.safetensors"))


def mapped_sum(folder: Path) -> None:
    """Every byte of the files, mapped and summed as float32 with torch's threads."""
    for path in files(folder):
        words = np.memmap(path, dtype=np.float32, mode="c", shape=path.stat().st_size // 4)
        torch.from_numpy(words).sum()


def buffered_sum(folder: Path) -> None:
    """Every byte of the files, read into one buffer and summed as float32."""
    buffer = torch.empty(WINDOW, dtype=torch.uint8)
    view, words = memoryview(buffer.numpy()), buffer.view(torch.float32)
    for path in files(folder):
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(view):
                words[: got // 4].sum()


def usual(folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """load_file, and the means of every matrix."""
    for path in files(folder):
        for tensor in load_file(path).values():
            if tensor.ndim == 2:
                whole = tensor if dtype is None else tensor.to(dtype)
                whole.mean(0)
                whole.mean(1)


WAYS: dict[str, Callable[[Path, int], object]] = {
    "rclib, row and column means": means,
    "rclib, mean squares too": lambda folder, threads: means(folder, threads, squares=True),
    "rclib, tiles": lambda folder, threads: means(folder, threads, fast=False),
    "rclib, tiles, mean squares too": lambda folder, threads: means(
        folder, threads, squares=True, fast=False
    ),
    "read and sum, mapped (a)": lambda folder, _: mapped_sum(folder),
    "read and sum, buffer (a)": lambda folder, _: buffered_sum(folder),
    "load_file, .mean (b)": lambda folder, _: usual(folder),
    "load_file, .float().mean (b)": lambda folder, _: usual(folder, dtype=torch.float32),
}
OURS = next(iter(WAYS))
SHARES = (0.25, 0.4, 0.5, 0.6, 1.0)


def peak_memory() -> int:
    """Largest resident memory of this process so far, mapped pages included, in bytes."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_of(way: str, folder: Path, threads: int) -> float:
    """Peak resident memory in GB of a process that goes one way."""
    done = subprocess.run(
        [sys.executable, __file__, "--only", way, str(folder), "--threads", str(threads)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) / 1e9


def compare(folder: Path, rounds: int, threads: int, slow_rounds: int, kept: Kept) -> None:
    """Print and keep the table of rates."""
    size = sum(path.stat().st_size for path in files(folder)) / 1e9
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(rounds + 1):
        for way, run in WAYS.items():
            if "(b)" in way and not 1 <= turn <= slow_rounds:
                continue
            begin = time.perf_counter()
            run(folder, threads)
            if turn:  # the first round fills the page cache
                times[way].append(time.perf_counter() - begin)
    medians = {way: statistics.median(seconds) for way, seconds in times.items() if seconds}
    limit = min(seconds for way, seconds in medians.items() if "(a)" in way)
    print(
        f"{size:.2f} GB bfloat16, {threads} threads, median of {rounds} rounds [range], "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    for way, median in medians.items():
        low, high = size / max(times[way]), size / min(times[way])
        print(
            f"  {way:30s} {size / median:6.2f} GB/s [{low:.2f}, {high:.2f}]"
            f"  {limit / median:5.2f} of (a)  {medians[OURS] / median:6.3f} x rclib"
        )
    kept.add(f"{size:.1f} GB of bfloat16", {way: found for way, found in times.items() if found})
    peaks = {way: peak_of(way, folder, threads) for way in (OURS, "load_file, .mean (b)")}
    for way, peak in peaks.items():
        print(f"  peak memory, {way:30s} {peak:6.3f} GB")
    kept.add(
        f"{size:.1f} GB of bfloat16, peak memory",
        {way: [peak] for way, peak in peaks.items()},
        unit="GB",
    )


def line(
    folder: Path, rounds: int, threads: int
) -> tuple[list[tuple[int, float]], tuple[float, float]]:
    """(weights, seconds) of parts, and the fitted line: seconds for nothing, seconds a weight."""
    seconds: dict[float, list[float]] = {share: [] for share in SHARES}
    counts = {}
    for turn in range(rounds + 1):
        for share in SHARES:
            begin = time.perf_counter()
            counts[share] = means(folder, threads, share=share)
            if turn:
                seconds[share].append(time.perf_counter() - begin)
    points = [(counts[share], statistics.median(seconds[share])) for share in SHARES]
    x, y = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    # Relative residuals are made small, so that the small parts count as well.
    design = np.stack([1 / y, x / y], axis=1)
    (start, slope), *_ = np.linalg.lstsq(design, np.ones(len(y)), rcond=None)
    print(f"cost = {start * 1e3:.1f} ms + {slope * 1e9:.3f} s per billion weights")
    for n, median in points:
        off = median / (start + slope * n) - 1
        print(f"  {n / 1e6:8.1f} million weights {median:8.4f} s  {off:+6.1%} off the line")
    return points, (float(start), float(slope))


def save(
    folder: Path, points: list[tuple[int, float]], fit: tuple[float, float], threads: int
) -> None:
    """CSV and PNG of the line."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "checkpoints_line.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("weights", "seconds"), *points])
    figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    x = np.array([0, *(n for n, _ in points)])
    axes.plot(x / 1e9, fit[0] + fit[1] * x, color="0.6", label="fitted line")
    axes.plot([n / 1e9 for n, _ in points], [s for _, s in points], "o", label="measured")
    axes.set(xlabel="weights (billions)", ylabel=f"seconds ({threads} threads)")
    axes.legend()
    figure.savefig(folder / "checkpoints_line.png", dpi=150)


def main() -> None:
    """Parse the options, make the checkpoints, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the 16 GB of Llama-3.1-8B")
    parser.add_argument("--scale", type=float, default=0.5, help="factor of all widths")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the checkpoint there")
    parser.add_argument("--out", type=Path, help="folder for the line's CSV and PNG")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds of the usual way")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", nargs=2, metavar=("WAY", "DIR"), help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help="for docs/speed.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        WAYS[options.only[0]](Path(options.only[1]), options.threads)
        print(peak_memory())
        return
    if available():
        begin = time.perf_counter()
        kernel(torch.bfloat16, False)(
            np.zeros((2, 2), np.uint16),
            np.zeros(2, np.int64),
            np.array([[0, 2, 0]]),
            *(np.zeros(shape) for shape in ((2, 2), (2, 2), (2, 2))),
        )
        print(
            f"compiling the loop for bfloat16: {time.perf_counter() - begin:.1f} s, once a process"
        )
    with tempfile.TemporaryDirectory(prefix="rclib-bench-") as temporary:
        folder = options.folder or Path(temporary)
        full = {"scale": 1.0, "layers": 32}
        shape = full if options.full else {"scale": options.scale, "layers": options.layers}
        if not make(folder, **shape):
            return
        kept = Kept("checkpoints", threads=options.threads, keeping=options.keep)
        compare(folder, options.rounds, options.threads, options.slow_rounds, kept)
        kept.write()
        points, fit = line(folder, options.rounds, options.threads)
        if options.out:
            save(options.out, points, fit, options.threads)


if __name__ == "__main__":
    main()
