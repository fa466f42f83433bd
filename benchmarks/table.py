"""docs/speed.md from what the benchmarks kept: `python benchmarks/table.py`.

Ratios are taken round by round and their median is shown with the lowest and the highest, so that
a machine that changes its pace in between changes both of a pair. `targets.yaml` says what was
asked for, and why a target is missed where it is.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import scale
import yaml

from rclib.files.atomic import write_atomically

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "speed.md"
HEAD = """# Speed

Made by `python benchmarks/table.py` from `benchmarks/measured/`, which the benchmarks write
(`python benchmarks/bench_NAME.py --keep`, or `make bench KEEP=1`, on a machine that does nothing
else). All ways of a setting take turns in one run; ratios are medians over the rounds, with the
lowest and the highest in brackets. What each way is stands at the top of its benchmark.
"""


class Ratio(NamedTuple):
    """Median, lowest and highest over the rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def ratio(over: list[float], under: list[float]) -> Ratio:
    """Of two ways, round by round; where one has fewer rounds, over the other's median."""
    if len(over) == len(under):
        found = [a / b for a, b in zip(over, under, strict=True)]
    elif len(over) < len(under):
        found = [a / statistics.median(under) for a in over]
    else:
        found = [statistics.median(over) / b for b in under]
    return Ratio(statistics.median(found), min(found), max(found))


def measured(folder: Path = HERE / "measured") -> dict[str, dict[str, Any]]:
    """The kept files by the name of their benchmark."""
    files = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def ways_of(kept: dict[str, Any], setting: str) -> dict[str, list[float]]:
    """The ways of a setting. Raises ValueError naming those that are there."""
    for entry in kept["settings"]:
        if entry["setting"] == setting:
            ways: dict[str, list[float]] = entry["ways"]
            return ways
    there = [entry["setting"] for entry in kept["settings"]]
    raise ValueError(f"setting: no {setting!r} in {kept['benchmark']}; there are {there}")


def met(value: Ratio, target: dict[str, Any]) -> bool:
    """Whether the median keeps the bound."""
    if "at_least" in target:
        return value.median >= target["at_least"]
    return bool(value.median <= target["at_most"])


def target_rows(files: dict[str, dict[str, Any]], targets: list[dict[str, Any]]) -> list[str]:
    """One row a target; raises ValueError where one is missed without a reason, or met with one."""
    rows = []
    for target in targets:
        ways = ways_of(files[target["benchmark"]], target["setting"])
        value = ratio(ways[target["over"]], ways[target["under"]])
        asked = (
            f"at least {target['at_least']}"
            if "at_least" in target
            else f"at most {target['at_most']}"
        )
        reached, why = met(value, target), target.get("why", "")
        if reached == bool(why):
            state = "met, but has" if reached else "missed, and has no"
            raise ValueError(f"targets: {target['what']!r} is {state} reason (measured {value})")
        rows.append(
            f"| {target['what']} | {asked} | {value} | {'yes' if reached else f'no: {why}'} |"
        )
    return rows


def page(files: dict[str, dict[str, Any]], targets: list[dict[str, Any]]) -> str:
    """The whole page as Markdown."""
    lines = [HEAD, "## What was asked for", ""]
    lines += ["| what | asked | measured | met |", "|---|---|---|---|"]
    lines += target_rows(files, targets)
    lines += ["", "## All measurements", ""]
    for kept in files.values():
        lines += [
            f"### {kept['benchmark']}",
            "",
            f"{kept['processor']}, {kept['cores']} cores, {kept['threads']} "
            f"{'thread' if kept['threads'] == 1 else 'threads'}, torch {kept['torch']}, "
            f"{kept['date']}; load before it {kept['load_before']}.",
            "",
            "| setting | way | median | against the first way |",
            "|---|---|---|---|",
        ]
        for entry in kept["settings"]:
            base = next(iter(entry["ways"].values()))
            for place, (way, numbers) in enumerate(entry["ways"].items()):
                against = "1" if not place else str(ratio(numbers, base))
                lines.append(
                    f"| {'' if place else entry['setting']} | {way} | "
                    f"{statistics.median(numbers):.3g} {entry['unit']} | {against} |"
                )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def overhead(files: dict[str, dict[str, Any]]) -> float:
    """Seconds that a run on one worker of a cluster takes beyond the run itself."""
    ways = files["sweep"]["settings"][0]["ways"]
    spent = statistics.median(ways["Dask, 1 worker"]) - statistics.median(ways["bare loop"])
    return max(spent, 0.0) / 1e3


def whole(targets: list[dict[str, Any]]) -> str:
    """The page from the kept files and, where sweeps were measured, the committed results."""
    files = measured()
    text = page(files, targets)
    if "sweep" not in files:
        return text
    works = scale.works(HERE.parent / "results" / "paper")
    return text + "\n" + scale.lines(works, overhead(files))


def main() -> None:
    """Write the page."""
    targets = yaml.safe_load((HERE / "targets.yaml").read_text(encoding="utf-8"))
    write_atomically(PAGE, whole(targets).encode())


if __name__ == "__main__":
    main()
