"""How much the numbers differ on another kind of processor: emulated by slower arithmetic kernels.

Run by hand (`make machines`). The quick profile runs twice, in copies with stores of their own:
once as it is, once with the kernels that PyTorch, MKL, oneDNN and OpenBLAS choose on an old
processor without wide vector instructions. They add in another order, so last digits differ,
and training makes more of it. Printed are, for every claim, both values and how their
difference compares with the claim's interval, and whether a verdict changes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import chaos

OLD_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",  # PyTorch's own kernels, without AVX
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",  # NumPy's and SciPy's
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX",
}


def claims(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(notebook, key) -> claim, of the quick profile's results."""
    found = {}
    for path in sorted((folder / "results" / "quick").glob("[0-9]*.json")):
        for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]:
            found[path.stem, claim["key"]] = claim
    return found


def main() -> int:
    """Run twice, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--notebooks", nargs="*", default=[], help="names; default all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rclib-machines-") as name:
        here, there = Path(name) / "here", Path(name) / "there"
        for folder, extra in ((here, {}), (there, OLD_PROCESSOR)):
            chaos.copy_to(folder, options.notebooks)
            chaos.whole_run(folder, 60 * options.minutes, **extra)
        first, second = claims(here), claims(there)
    ratios, changed, equal = [], 0, 0
    for key, claim in first.items():
        other = second[key]
        if claim["value"] is None or other["value"] is None:
            continue
        difference = abs(claim["value"] - other["value"])
        width = (claim["high"] - claim["low"]) / 2
        equal += difference == 0
        if width > 0:
            ratios.append(difference / width)
        moved = claim["verdict"] != other["verdict"]
        changed += moved
        share = f"{difference / width:9.1e}" if width > 0 else " " * 9
        mark = f"  {claim['verdict']} -> {other['verdict']}" if moved else ""
        print(
            f"{key[0][:2]} {key[1]:32s} {claim['value']:11.4g} {other['value']:11.4g} {share}{mark}"
        )
    print(
        f"{len(first)} claims: {equal} equal to the last digit, verdicts changed: {changed}; "
        f"difference over half-width of the interval: median {statistics.median(ratios):.1e}, "
        f"largest {max(ratios, default=math.nan):.1e}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
