"""Distances between two samples of numbers, and what sampling alone would give.

With empirical distribution functions F and G of samples of n and m values,

    Wasserstein           ∫ |F(t) - G(t)| dt      (in units of the values)
    Kolmogorov-Smirnov    max_t |F(t) - G(t)|     (a number in [0, 1])

Both are positive for two samples of one law, of order √(1/n + 1/m). So a distance means
something only beside a *floor*: here that of two samples from either side. With the mean
distances d_aa and d_bb inside two groups of samples,

    floor = √((d_aa² + d_bb²) / 2),

which is the expected distance between the groups, up to higher orders, when all samples come
from one law: √(1/n + 1/m) is the root mean square of √(2/n) and √(2/m).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import stats

__all__ = [
    "DISTANCES",
    "Distance",
    "Interval",
    "Kept",
    "PairDistances",
    "bootstrap_interval",
    "borrowed_interval",
    "floor",
    "jackknife",
    "kolmogorov_smirnov",
    "pair_distances",
    "sampling_distance",
    "wasserstein",
]

Distance = Callable[[np.ndarray, np.ndarray], float]
Kept = Mapping[int, Sequence[int]]  # numbers of the samples to use, by group


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 percent interval."""

    value: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high


def wasserstein(x: np.ndarray, y: np.ndarray) -> float:
    """∫ |F - G| dt of samples x (n,) and y (m,); ValueError for an empty or non-finite one."""
    gaps, lengths = _gaps(x, y)
    return float(gaps[:-1] @ lengths)


def kolmogorov_smirnov(x: np.ndarray, y: np.ndarray) -> float:
    """max |F - G| of samples x (n,) and y (m,); ValueError for an empty or non-finite one."""
    return float(_gaps(x, y)[0].max())


DISTANCES: Mapping[str, Distance] = MappingProxyType(
    {"Wasserstein": wasserstein, "Kolmogorov-Smirnov": kolmogorov_smirnov}
)


def _gaps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|F - G| right of every value of either sample, and the lengths between these values."""
    a, b = (np.sort(_sample(name, v)) for name, v in (("x", x), ("y", y)))
    both = np.sort(np.concatenate([a, b]))
    f = np.searchsorted(a, both, side="right") / len(a)
    g = np.searchsorted(b, both, side="right") / len(b)
    return np.abs(f - g), np.diff(both)


def _sample(name: str, values: np.ndarray) -> np.ndarray:
    out = np.asarray(values, dtype=np.float64)
    if out.ndim != 1 or len(out) == 0 or not np.isfinite(out).all():
        raise ValueError(
            f"{name} must be a list of finite numbers, got shape {out.shape} with "
            f"{int((~np.isfinite(out)).sum())} that are not finite"
        )
    return out


def floor(inside_a: Sequence[float], inside_b: Sequence[float]) -> float:
    """√((d_aa² + d_bb²) / 2) from the distances inside two groups; see the module's docstring.

    Raises ValueError for a group without distances (it has only one sample).
    """
    if len(inside_a) == 0 or len(inside_b) == 0:
        raise ValueError("a floor needs two samples or more on either side")
    return math.sqrt((float(np.mean(inside_a)) ** 2 + float(np.mean(inside_b)) ** 2) / 2)


def bootstrap_interval(
    x: np.ndarray, y: np.ndarray, distance: Distance, *, draws: int = 500, seed: int = 0
) -> Interval:
    """A distance with its pivotal bootstrap interval [2 d - q97.5, 2 d - q2.5], from 0 on.

    Both samples are drawn anew with replacement; q are quantiles of the distances of the draws.
    Drawing anew adds sampling noise, which makes every distance larger; the pivotal interval
    takes that off again, where the plain one would never reach down to 0.
    Raises ValueError for fewer than two draws.
    """
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}")
    a, b = _sample("x", x), _sample("y", y)
    value = distance(a, b)
    drawn = _of_draws(a, b, (len(a), len(b)), distance, draws, np.random.default_rng(seed))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, max(0.0, 2 * value - float(high)), max(0.0, 2 * value - float(low)))


def sampling_distance(
    pool: np.ndarray, n: int, m: int, distance: Distance, *, draws: int = 100, seed: int = 0
) -> float:
    """Mean distance of two samples of n and m independent values from the law of `pool`.

    Raises ValueError for sizes or draws below 1.
    """
    if min(n, m, draws) < 1:
        raise ValueError(f"n, m and draws must be positive, got {n}, {m} and {draws}")
    values = _sample("pool", pool)
    generator = np.random.default_rng(seed)
    return float(np.mean(_of_draws(values, values, (n, m), distance, draws, generator)))


def _of_draws(
    a: np.ndarray,
    b: np.ndarray,
    sizes: tuple[int, int],
    distance: Distance,
    draws: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Distances (draws,) of samples of these sizes drawn with replacement from a and from b."""
    places = [[generator.integers(0, len(v), k) for v, k in zip((a, b), sizes, strict=True)]
              for _ in range(draws)]  # fmt: skip
    if distance not in (wasserstein, kolmogorov_smirnov):
        return np.array([distance(a[i], b[j]) for i, j in places])
    # Both empirical distribution functions are steps at values of a and b, which are sorted once:
    # counted there, no draw has to be sorted.
    both, at = np.unique(np.concatenate([a, b]), return_inverse=True)
    gap = np.zeros((draws, len(both)))
    for sign, ranks, found in (
        (1.0, at[: len(a)], np.array([i for i, _ in places])),
        (-1.0, at[len(a) :], np.array([j for _, j in places])),
    ):
        cells = ranks[found] + len(both) * np.arange(draws)[:, None]
        counts = np.bincount(cells.ravel(), minlength=gap.size).reshape(gap.shape)
        gap += sign * (counts.cumsum(1) / found.shape[1])
    np.abs(gap, out=gap)
    return gap.max(1) if distance is kolmogorov_smirnov else gap[:, :-1] @ np.diff(both)


def jackknife(
    statistic: Callable[[Kept], float],
    sizes: Mapping[int, int],
    *,
    positive: bool = False,
    level: float = 0.05,
) -> Interval:
    """A statistic of several groups of runs with its jackknife interval, of 95 percent by default.

    sizes : number of runs of each group. statistic : takes the numbers (from 0) of the runs to use,
    by group. With θ from all and θ_k from all but run k of a group of R, every group adds
    (R - 1)/R Σ_k (θ_k - mean θ_k)² to the variance, and R - 1 degrees of freedom to the t-interval
    around θ. Runs of different groups are independent, so each is left out alone. Right for ratios
    and slopes made of distances between pairs of runs, which are not independent of each other.
    positive : take it for log θ, so that the ends are positive, as those of a distance or a ratio
    of distances should be. level : two-sided, the chance of a value outside.

    Raises ValueError for a group of fewer than two runs, for a positive statistic that is not and
    a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    if not sizes or min(sizes.values()) < 2:
        raise ValueError(f"sizes must be at least 2, got {dict(sizes)}")
    if positive:
        inner = jackknife(lambda kept: _log(statistic(kept)), sizes, level=level)
        return Interval(*(math.exp(end) for end in (inner.value, inner.low, inner.high)))
    value = statistic({group: range(size) for group, size in sizes.items()})
    half = _t(sizes, level) * math.sqrt(sum(_variances(statistic, sizes).values()))
    return Interval(value, value - half, value + half)


def borrowed_interval(
    statistic: Callable[[Kept], float], sizes: Mapping[int, int], chosen: Kept
) -> Interval:
    """A statistic of the runs `chosen` with the spread of a run taken from all of them.

    For groups too small to leave a run out. The variance that `jackknife` finds for a group of R
    runs is taken R / r times for its r chosen ones, the degrees of freedom are those of all runs.
    Of distances between pairs this keeps the part of first order: a little short for two runs.

    Raises ValueError for sizes below 3 and a group without two chosen runs.
    """
    if not sizes or min(sizes.values()) < 3:
        raise ValueError(f"sizes must be at least 3, got {dict(sizes)}")
    if any(len(set(chosen.get(group, ()))) < 2 for group in sizes):
        raise ValueError(f"every group needs two chosen runs, got {dict(chosen)}")
    variance = sum(
        part * sizes[group] / len(chosen[group])
        for group, part in _variances(statistic, sizes).items()
    )
    value = statistic(chosen)
    half = _t(sizes) * math.sqrt(variance)
    return Interval(value, value - half, value + half)


def _variances(statistic: Callable[[Kept], float], sizes: Mapping[int, int]) -> dict[int, float]:
    """What each group adds to the jackknife variance."""
    whole: dict[int, Sequence[int]] = {group: range(size) for group, size in sizes.items()}
    found = {}
    for group, size in sizes.items():
        without = [
            statistic({**whole, group: [i for i in range(size) if i != k]}) for k in range(size)
        ]
        found[group] = (size - 1) * float(np.var(without))
    return found


def _t(sizes: Mapping[int, int], level: float = 0.05) -> float:
    return float(stats.t.ppf(1 - level / 2, sum(sizes.values()) - len(sizes)))


def _log(value: float) -> float:
    if not value > 0:
        raise ValueError(f"statistic must be positive, got {value}")
    return math.log(value)


@dataclass(frozen=True)
class PairDistances:
    """Distances between all samples of several groups, e.g. the runs at several widths.

    values : {(a, b): (samples of a, samples of b)} for all ordered pairs of groups. Every method
    takes `kept`, the numbers of the samples to use of each group; default all.
    """

    values: Mapping[tuple[int, int], np.ndarray]

    def between(self, a: int, b: int, kept: Kept | None = None) -> float:
        """Mean distance of a sample of a from a sample of b."""
        return float(self._chosen(a, b, kept).mean())

    def inside(self, a: int, kept: Kept | None = None) -> np.ndarray:
        """Distances of all pairs of samples of one group."""
        chosen = self._chosen(a, a, kept)
        return chosen[np.triu_indices(len(chosen), 1)]

    def floor(self, a: int, b: int, kept: Kept | None = None) -> float:
        """What the distance between would be if both groups had one law (`floor`)."""
        return floor(self.inside(a, kept).tolist(), self.inside(b, kept).tolist())

    def ratio(self, a: int, b: int, kept: Kept | None = None) -> float:
        """Distance between two groups over its floor: about 1 if both have one law."""
        return self.between(a, b, kept) / self.floor(a, b, kept)

    def _chosen(self, a: int, b: int, kept: Kept | None) -> np.ndarray:
        if (a, b) not in self.values:
            raise ValueError(f"groups are {sorted({g for g, _ in self.values})}, got {a} and {b}")
        whole = self.values[a, b]
        return whole if kept is None else whole[np.ix_(list(kept[a]), list(kept[b]))]


def pair_distances(groups: Mapping[int, Sequence[np.ndarray]], distance: Distance) -> PairDistances:
    """All distances between samples; groups : {name of the group: its samples}."""
    values: dict[tuple[int, int], np.ndarray] = {}
    for a, left in groups.items():
        for b, right in groups.items():
            if (b, a) in values:
                values[a, b] = values[b, a].T
            elif a == b:
                values[a, b] = _inside(left, distance)
            else:
                values[a, b] = np.array([[distance(x, y) for y in right] for x in left])
    return PairDistances(values)


def _inside(samples: Sequence[np.ndarray], distance: Distance) -> np.ndarray:
    """Distances between all samples of one group, each pair once: both orders have the same."""
    out = np.zeros((len(samples), len(samples)))
    for i, x in enumerate(samples):
        for j in range(i):
            out[i, j] = out[j, i] = distance(x, samples[j])
    return out
