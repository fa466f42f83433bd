"""docs/recomputed.md, from values.json, population.json and results/paper."""

from __future__ import annotations

from typing import Any

import drawn_claims
import recompute

HEAD = """# Ten claims, recomputed without the library

Written by `python tests/recomputed/recompute.py --page`; do not edit.

Everything in [replication.md](../replication.md) is computed by one library. Does what it says hang
on an error of that library? Ten claims, drawn at random, were computed again by short scripts that
do not import it: NumPy, SciPy, scikit-learn and PyTorch alone, other random numbers, and another
route where there is one (gradients of autograd for written ones, `torch.optim` for our optimisers,
simulated noise for equations of random matrices). They are in `tests/recomputed`, one a claim.
"""

DRAW = """
## How they were drawn

The rule was committed before the draw. The population is every claim of `results/paper` whose
interval has a width, controls included: {n:,} of them at the time (`population.json`). One random
order of the claims of each of the nine series, and one of all claims, come from
`random.Random({seed})`, in this sequence. The first claim of each order is taken; passed over are
those of notebooks that read the long text, which few readers have, and those of which three seeds
would cost more than {most:.0f} core-seconds (core-seconds of the whole notebook, times 3, over the
repeats of the claim). Nothing was passed over because of what it says or because it is hard to
write.

Passed over ({passed}): {names}.
"""

TABLE = """
## What came out

A claim *agrees* if the 95 percent t-interval of the new seeds overlaps the stored interval, and
neither says "reproduced" where the other says "not reproduced". *Apart* is sharper: the distance of
the two values in standard errors of their difference, above two in about one case of twenty if both
measure the same. Stored intervals are often [adjusted for looking again](verdicts.md), hence wider.

| claim | quantity | criterion | stored | recomputed | apart | agrees |
|---|---|---|---|---|---|---|
"""

LIMITS = """
Recomputing all took {minutes:.0f} core-minutes. Those of notebooks 10, 32, 44 and 82 need CIFAR-10,
as the [paper profile](install.md) does.

## What this does not say

- The scripts were written from the words of notebooks, parameters and papers. What these leave open
  was read in the library, so that an odd choice there is repeated here: the spread of the starting
  weights, the fall of the rate, what counts as a spike, where a flow stops. What would be found is
  an error in carrying a definition out, not a definition that is wrong.
- Not every error would show. Networks of notebook 72 that stop at a residual of 0.1 in place of
  0.0001 no longer agree, with five seeds; a rate of 0.5 d in place of 2 d in notebook 24 agrees as
  before, since an exponent does not know the factor. Nothing was planted in the other eight.
- Intervals are over seeds, and some are wide: agreement says little where *stored* and *recomputed*
  both straddle the criterion.
- Ten are few. If one claim in four were wrong enough to show, ten drawn ones would still all agree
  in one case of twenty. Claims of costly notebooks could not be drawn.
"""


def number(value: float) -> str:
    """Three figures."""
    return f"{value:.3g}".replace("-", "−")


def cell(value: float, low: float, high: float, verdict: str, repeats: int) -> str:
    """A value with its interval, verdict and number of seeds."""
    return f"{number(value)} [{number(low)}, {number(high)}], {verdict}, n = {repeats}"


def row(drawn: str, values: list[float]) -> list[str]:
    """One line of the table."""
    claim: dict[str, Any] = recompute.stored(drawn)
    mean, low, high = recompute.interval(values)
    script = recompute.script_of(drawn)
    notebook = drawn.split("/")[0]
    return [
        f"[{notebook}](../notebooks/{notebook}.ipynb): {claim['statement']}"
        f" ([`{script}`](../tests/recomputed/{script}.py))",
        claim["quantity"],
        claim["criterion"],
        cell(claim["value"], claim["low"], claim["high"], claim["verdict"], claim["repeats"]),
        cell(mean, low, high, recompute.verdict(claim, low, high), len(values)),
        f"{recompute.apart(claim, values):.2f}",
        "yes" if recompute.agrees(claim, values) else "**no**",
    ]


def page() -> str:
    """The whole text."""
    members, found = recompute.load("population.json"), recompute.load("values.json")
    draw = drawn_claims.draw(members)
    over = ", ".join(f"{name} ({why})" for name, why in draw["passed_over"].items())
    lines = []
    for drawn in draw["taken"]:
        own = found.get(recompute.script_of(drawn))
        if own:
            cells = [one.replace("|", "\\|") for one in row(drawn, own["values"])]
            lines.append("| " + " | ".join(cells) + " |")
    minutes = sum(own["core_seconds"] for own in found.values()) / 60
    return (
        HEAD
        + TABLE
        + "\n".join(lines)
        + "\n"
        + LIMITS.format(minutes=minutes, n=len(members))
        + DRAW.format(
            n=len(members), seed=drawn_claims.SEED, most=drawn_claims.MOST,
            passed=len(draw["passed_over"]), names=over,
        )
    )  # fmt: skip
