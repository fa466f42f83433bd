"""The law of the gap fitted to the grid of `law_of_the_gap`, and what follows from it.

    E L(N → M) = L∞ + a / N + b / M [+ e N / M],    E L(N) = L* + c / N;

the floor is (L∞ - L*) over the progress L(t = 0) - L*. Whether a width's networks agree at all:
`seed_distance`, the mean squared difference of two seeds' outputs, f + k / N with a floor f where
what one seed learned is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from rclib.stats.two_sample import Interval, Kept, jackknife

__all__ = [
    "fitted",
    "floor_share",
    "gaps",
    "jackknifed",
    "law",
    "lost",
    "lost_from",
    "noise",
    "practical",
    "seed_distance",
    "table",
]


def law(frame: pd.DataFrame, *, start: int, ratio: bool = False) -> pd.Series:
    """Least squares of the law to one arm and epoch: widths of at least `start`, means over seeds.

    ratio : with a further term e · N / M, for noise of the start that a drawing repeats.
    Returns limit (L∞), a, b, e, native_limit (L*), c, explained (share of the variance between the
    cells of the grid that the fit explains), floor, the (L∞ - L*) / (start loss - L*), and gap, the
    gap of the widest source and target over the loss of the target. Raises ValueError for fewer
    than three widths to fit.
    """
    part = frame[(start <= frame.N) & (start <= frame.M)]
    cells = part.groupby(["N", "M"]).moved.mean().reset_index()
    natives = part.groupby("N").native.mean()
    if len(natives) < 3:
        raise ValueError(f"start must leave at least three widths, got {start}")
    n, m, loss = (cells[c].to_numpy(float) for c in ("N", "M", "moved"))
    terms = [np.ones_like(n), 1 / n, 1 / m, *([n / m] if ratio else [])]
    (limit, a, b, *e), left = _least_squares(terms, loss)
    widths = natives.index.to_numpy(float)
    (own, c), _ = _least_squares([np.ones_like(widths), 1 / widths], natives.to_numpy())
    begin = float(part.start.mean())
    widest = float(natives.iloc[-1])
    corner = cells[(cells.N.max() == cells.N) & (cells.M.max() == cells.M)].moved.item()
    return pd.Series(
        {
            "limit": limit,
            "a": a,
            "b": b,
            "e": e[0] if e else 0.0,
            "native_limit": own,
            "c": c,
            "explained": 1 - left / float(np.square(loss - loss.mean()).sum()),
            "floor": (limit - own) / (begin - own),
            "gap": (corner - widest) / widest,
        }
    )


def _least_squares(columns: list[np.ndarray], y: np.ndarray) -> tuple[list[float], float]:
    design = np.stack(columns, 1)
    found = np.linalg.lstsq(design, y, rcond=None)[0]
    return [float(v) for v in found], float(np.square(y - design @ found).sum())


def jackknifed(frame: pd.DataFrame, statistic: Callable[[pd.DataFrame], float]) -> Interval:
    """A statistic of all seeds with its 95 percent interval, a jackknife over seeds.

    Raises ValueError for fewer than two seeds.
    """
    seeds = sorted(frame.seed.unique())

    def of(kept: Kept) -> float:
        return statistic(frame[frame.seed.isin([seeds[place] for place in kept[0]])])

    return jackknife(of, {0: len(seeds)})


def fitted(frame: pd.DataFrame, what: str, *, start: int, ratio: bool = False) -> Interval:
    """One number of `law` with its jackknife interval over seeds."""
    return jackknifed(frame, lambda part: float(law(part, start=start, ratio=ratio)[what]))


def table(frame: pd.DataFrame, *, start: int) -> pd.DataFrame:
    """`law` of every arm and epoch, with the floor's interval: floor_low and floor_high beside."""
    rows = []
    for (arm, epoch), part in frame.groupby(["arm", "epoch"], sort=False):
        ends = fitted(part, "floor", start=start)
        rows.append(
            {
                "arm": arm,
                "epoch": epoch,
                **law(part, start=start),
                "floor_low": ends.low,
                "floor_high": ends.high,
            }
        )
    return pd.DataFrame(rows)


def lost_from(frame: pd.DataFrame, width: int) -> pd.Series:
    """Share of the progress of the widest networks that is lost by a transfer to their width from
    `width`, by seed."""
    part = frame[frame.M.max() == frame.M]
    own = part[part.N.max() == part.N].set_index("seed")
    moved = part[width == part.N].set_index("seed").moved
    return (moved - own.native) / (own.start - own.native)


def noise(frame: pd.DataFrame) -> pd.DataFrame:
    """The noise of the drawing at the widest target, by arm, N, seed and epoch.

    Columns: arm, N, seed, epoch, measured (M · distance), predicted (κ), ratio.
    """
    part = frame[frame.M.max() == frame.M]
    found = part[["arm", "N", "seed", "epoch"]].copy()
    found["measured"] = part.M * part.distance
    found["predicted"] = part.constant
    found["ratio"] = found.measured / found.predicted
    return found.reset_index(drop=True)


def seed_distance(
    outputs: Mapping[tuple[str, int, int], np.ndarray],
    *,
    arm: str,
    widths: Sequence[int],
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Mean squared difference of two seeds' outputs: columns arm, N, first, second, distance."""
    rows = []
    for n in widths:
        for s, t in combinations(seeds, 2):
            difference = outputs[arm, n, s] - outputs[arm, n, t]
            rows.append((arm, n, s, t, float(np.square(difference).mean())))
    return pd.DataFrame(rows, columns=["arm", "N", "first", "second", "distance"])


def floor_share(distances: pd.DataFrame, seeds: Sequence[int], *, start: int) -> Interval:
    """Floor f of distance = f + k / N over the mean distance at the first width, `start`.

    Fitted with equal relative errors to all widths of at least `start`; the interval is a jackknife
    over seeds. Raises ValueError for fewer than three seeds.
    """
    if len(seeds) < 3:
        raise ValueError(f"seeds must be at least three, got {list(seeds)}")

    def share(kept: Kept) -> float:
        chosen = [seeds[place] for place in kept[0]]
        part = distances[distances["first"].isin(chosen) & distances["second"].isin(chosen)]
        mean = part[start <= part.N].groupby("N").distance.mean()
        n, y = mean.index.to_numpy(float), mean.to_numpy()
        (f, _), _ = _least_squares([1 / y, 1 / (n * y)], np.ones_like(y))
        return f / float(y[0])

    return jackknife(share, {0: len(seeds)})


def gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """The gap (L(N → M) - L(M)) / L(M) of means over seeds: columns arm, epoch, N, M, gap."""
    keys = ["arm", "epoch"]
    natives = frame.groupby([*keys, "N"], sort=False).native.mean().rename("own").reset_index()
    moved = frame.groupby([*keys, "N", "M"], sort=False).moved.mean().reset_index()
    both = moved.merge(natives.rename(columns={"N": "M"}), on=[*keys, "M"])
    both["gap"] = both.moved / both.own - 1
    return both[[*keys, "N", "M", "gap"]]


def practical(frame: pd.DataFrame, *, within: float) -> pd.DataFrame:
    """How wide must the source be: the narrowest N from which on the gap is below `within`.

    The gap is (L(N → M) - L(M)) / L(M), of means over seeds. Columns: arm, epoch, M, N (missing
    where no width of the grid does), gap (at the widest source).
    """
    rows = []
    for (arm, epoch, m), part in gaps(frame).groupby(["arm", "epoch", "M"], sort=False):
        gap = part.set_index("N").gap.sort_index()
        bad = gap.index[gap > within]
        good = gap.index if bad.empty else gap.index[gap.index > bad.max()]
        rows.append((arm, epoch, int(m), int(good.min()) if len(good) else None, gap.iloc[-1]))
    found = pd.DataFrame(rows, columns=["arm", "epoch", "M", "N", "gap"])
    return found.astype({"N": "Int64"})


def lost(frame: pd.DataFrame, column: str) -> pd.Series:
    """(`column` - native) / (start - native) at the widest source and target, by seed.

    With "moved" the share of the progress that a transfer loses, with "broken" the same at r1 = 1.
    """
    part = frame[(frame.N.max() == frame.N) & (frame.M.max() == frame.M)].set_index("seed")
    return (part[column] - part.native) / (part.start - part.native)
