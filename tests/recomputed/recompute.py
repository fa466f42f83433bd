"""Recompute drawn claims without `rclib`, and write docs/recomputed.md.

    python tests/recomputed/recompute.py                    # all, with values of their own seeds
    python tests/recomputed/recompute.py claim_72_mean_off  # those named; the others keep theirs
    python tests/recomputed/recompute.py --draw             # draw again from results/paper
    python tests/recomputed/recompute.py --page             # the page alone

Values go to values.json, one a seed, and the population that was drawn from to population.json;
each file is written whole or not at all. A claim agrees if the t-interval of its new values
overlaps the stored interval and the two verdicts do not contradict each other.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import drawn_claims
import numpy as np
from scipy import stats

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "recomputed.md"
PACKAGES = ("numpy", "scikit-learn", "scipy", "torch")


def load(name: str) -> Any:
    """A JSON file of this folder."""
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as part:
        part.write(text)
    os.chmod(part.name, 0o644)
    os.replace(part.name, path)


def script_of(drawn: str) -> str:
    """The module of a drawn claim, "52_rich_lazy_rank/norm_is_lazy" -> "claim_52_norm_is_lazy"."""
    notebook, key = drawn.split("/")
    return f"claim_{notebook.split('_')[0]}_{key}"


def stored(drawn: str) -> dict[str, Any]:
    """The claim as results/paper has it."""
    notebook, key = drawn.split("/")
    record = json.loads((ROOT / f"results/paper/{notebook}.json").read_text(encoding="utf-8"))
    (claim,) = [one for one in record["claims"] if one["key"] == key]
    found: dict[str, Any] = claim
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 percent t-interval."""
    mean = float(np.mean(values))
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return mean, mean - float(half), mean + float(half)


def verdict(claim: dict[str, Any], low: float, high: float) -> str:
    """Of an interval, by the claim's criterion."""
    least = -np.inf if claim["criterion_low"] is None else claim["criterion_low"]
    most = np.inf if claim["criterion_high"] is None else claim["criterion_high"]
    if least <= low and high <= most:
        return "reproduced"
    return "not reproduced" if high < least or low > most else "undecided"


def agrees(claim: dict[str, Any], values: Sequence[float]) -> bool:
    """Whether intervals overlap and verdicts do not contradict each other."""
    _, low, high = interval(values)
    both = {claim["verdict"], verdict(claim, low, high)}
    return (
        low <= claim["high"] and claim["low"] <= high and both != {"reproduced", "not reproduced"}
    )


def apart(claim: dict[str, Any], values: Sequence[float]) -> float:
    """Distance of both values in standard errors of their difference; the stored interval is a
    t-interval over seeds at the claim's own level."""
    level = claim["level"] or 0.05
    spread = stats.t.ppf(1 - level / 2, claim["repeats"] - 1)
    error = (claim["high"] - claim["low"]) / 2 / spread
    return float(abs(np.mean(values) - claim["value"]) / np.hypot(error, stats.sem(values)))


def recompute(names: Sequence[str]) -> None:
    """Run scripts with their own seeds; every one that is done is in values.json."""
    for name in names:
        begin = time.process_time()
        module = importlib.import_module(name)
        values = module.main()
        seconds = time.process_time() - begin
        old = load("values.json") if (HERE / "values.json").is_file() else {}
        old[name] = {
            "seeds": list(module.SEEDS), "values": values, "core_seconds": round(seconds, 1),
            "python": platform.python_version(), **{p: version(p) for p in PACKAGES},
        }  # fmt: skip
        write(HERE / "values.json", json.dumps(dict(sorted(old.items())), indent=1) + "\n")
        print(name, *(f"{v:.4g}" for v in interval(values)), f"{seconds:.0f} s", flush=True)


def main(words: Sequence[str]) -> None:
    """As the module says."""
    if list(words) == ["--draw"]:
        members = drawn_claims.population(ROOT / "results" / "paper")
        rows = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(members.items())]
        write(HERE / "population.json", "{\n" + ",\n".join(rows) + "\n}\n")
        print(*drawn_claims.draw(members)["taken"], sep="\n")
        return
    if list(words) != ["--page"]:
        taken = drawn_claims.draw(load("population.json"))["taken"]
        recompute(list(words) or [script_of(one) for one in taken])
    from recomputed_page import page

    write(PAGE, page())


if __name__ == "__main__":
    main(sys.argv[1:])
