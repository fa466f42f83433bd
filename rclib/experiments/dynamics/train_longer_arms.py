"""The regimes of notebook 63, by name."""

from __future__ import annotations

from collections.abc import Sequence

from rclib.training.regimes import Regime

__all__ = ["ladder", "update_arms", "walks"]


def ladder(small: Regime, k: int, *, longer: bool = True) -> dict[str, Regime]:
    """The paper's arms: each has one rule more than the one before. longer : whether the last,
    which takes k times the samples, is among them."""
    arms = {
        "SB": small,
        "LB": small.larger(k),
        "+LR": small.larger(k, root=True),
        "+GBN": small.larger(k, root=True, ghosts=True),
    }
    return arms | {"+RA": small.larger(k, root=True, ghosts=True, longer=True)} if longer else arms


def update_arms(small: Regime, k: int, at: Sequence[int]) -> dict[str, Regime]:
    """SB, + GBN and + RA, and for each number of updates n in `at`, with drops at the same shares
    of it: "SB, n", "LB, n" with all rules, and "LB alone, n" with SB's rate. Raises ValueError for
    drops between updates."""
    arms = {name: arm for name, arm in ladder(small, k).items() if name in ("SB", "+GBN", "+RA")}
    for n in at:
        drops = [d * n / small.updates for d in small.drops]
        if any(abs(d - round(d)) > 1e-6 for d in drops):
            raise ValueError(f"at must have the drops at whole updates, got {n} with {drops}")
        short = Regime(small.batch, small.ghost, small.rate, n, tuple(map(round, drops)))
        arms[f"SB, {n}"] = short
        arms[f"LB, {n}"] = short.larger(k, root=True, ghosts=True, longer=True)
        arms[f"LB alone, {n}"] = short.larger(k, longer=True)
    return arms


def walks(rate: float, batches: Sequence[int], updates: int) -> dict[str, Regime]:
    """Constant rates for batches that are multiples of the first: "plain", with its rate and
    normalised as a whole, and "root", the rate times the root of the multiple and in ghosts of the
    first batch's size."""
    first = Regime(batches[0], batches[0], rate, updates)
    arms = {f"{first.batch}, root": first}
    for batch in batches[1:]:
        for root in (True, False):
            name = f"{batch}, {'root' if root else 'plain'}"
            arms[name] = first.larger(batch // first.batch, root=root, ghosts=root, longer=True)
    return arms
