"""Adding repeats until a question is decided, at an error that is fixed beforehand.

Looking at a 95 percent interval after every new repeat, and stopping as soon as it decides, errs
far more often than in 5 percent of the cases. A group-sequential design looks at few numbers of
repeats, n = 5, 10, 20 and 40 here (`LOOKS`), each time at a level of its own. The levels spend the
error α as the spending function of Lan and DeMets that resembles Pocock's bounds says,

    spent(t) = α log(1 + (e - 1) t),    t = n / n_last,

and follow from it for a mean of independent normal values of known variance: with B a Brownian
motion and bounds b, the chance that |B| is first beyond its bound at look k is
spent(t_k) - spent(t_{k-1}). The same levels are used for Student's t with n - 1 degrees of
freedom, which moves the error from 5.0 to about 5.3 percent (a test simulates it). Where fewer
repeats are made than the last look asks for, less is spent.

Sources: Lan and DeMets, "Discrete sequential boundaries for clinical trials" (Biometrika 1983);
Jennison and Turnbull, "Group Sequential Methods" (2000), chapters 7 and 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
from scipy import optimize, special, stats

__all__ = ["ALPHA", "LOOKS", "Look", "follow", "interval", "levels", "repeated_p", "spent", "walk"]

LOOKS = (5, 10, 20, 40)
ALPHA = 0.05  # two-sided, over all looks together
_NODES = 161  # of a Gauss-Legendre rule between two bounds: the levels have ten digits


def spent(fraction: float, alpha: float = ALPHA) -> float:
    """The part of `alpha` that is spent up to a fraction of the last look's repeats.

    Raises ValueError for a fraction outside [0, 1] and an alpha outside (0, 1).
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie in [0, 1], got {fraction}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    return alpha * math.log(1 + (math.e - 1) * fraction)


def levels(looks: Sequence[int] = LOOKS, alpha: float = ALPHA) -> tuple[float, ...]:
    """Two-sided level of every look, for numbers of repeats that grow from look to look.

    Raises ValueError for looks that do not, or begin below 2, and an alpha outside (0, 1).
    """
    return _first_levels(looks, alpha, len(looks))


def _first_levels(looks: Sequence[int], alpha: float, number: int) -> tuple[float, ...]:
    """Levels of the first `number` of the looks."""
    ns = tuple(int(n) for n in looks)
    if not ns or ns[0] < 2 or any(b <= a for a, b in pairwise(ns)):
        raise ValueError(f"looks must be growing numbers of repeats from 2 on, got {list(looks)}")
    return _levels(ns, float(alpha), number)


@cache
def _rule() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights; finding them takes longer than what they are used for."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights


@cache
def _levels(looks: tuple[int, ...], alpha: float, number: int) -> tuple[float, ...]:
    nodes, weights = _rule()
    found: list[float] = []
    # Places of B at the last look, between its bounds, and their mass (density times weight).
    places, mass, before, paid = np.zeros(1), np.ones(1), 0.0, 0.0
    for n in looks[:number]:
        t = n / looks[-1]
        due, step = spent(t, alpha) - paid, math.sqrt(t - before)
        ends = 0.0, 12.0 * math.sqrt(t)
        bound = float(optimize.brentq(_beyond, *ends, (places, mass, step, due), xtol=1e-13))
        found.append(2 * float(special.ndtr(-bound / math.sqrt(t))))
        if len(found) == number:
            break
        new = bound * nodes
        kernel = np.exp(-(((new[:, None] - places) / step) ** 2) / 2) / math.sqrt(2 * math.pi)
        places, mass = new, bound * weights * (kernel @ mass) / step
        before, paid = t, spent(t, alpha)
    return tuple(found)


def _beyond(bound: float, places: np.ndarray, mass: np.ndarray, step: float, due: float) -> float:
    """Chance that the next step leads beyond ± bound, minus what is due."""
    tails = special.ndtr((places - bound) / step) + special.ndtr((-places - bound) / step)
    return float(mass @ tails) - due


def interval(values: Sequence[float], level: float) -> tuple[float, float, float]:
    """(mean, low, high): t-interval of the mean at a two-sided `level`; of width 0 for one value.

    Raises ValueError for no value, one that is not finite, and a level outside (0, 1).
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) == 0 or not np.isfinite(found).all():
        raise ValueError(f"values must be finite numbers, at least one, got {list(values)}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    mean, n = float(found.mean()), len(found)
    if n == 1:
        return mean, mean, mean
    quantile = float(stats.t.ppf(1 - level / 2, n - 1))
    half = quantile * float(found.std(ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Look:
    """Where a sequence of looks ended.

    number : of the look, from 1; 0 if there were not enough repeats for the first one.
    repeats : made up to this look. defined : those of them that have a value.
    level : two-sided, of this look. value, low, high : mean and adjusted interval.
    decided : whether it ended there, and not for want of repeats.
    """

    number: int
    repeats: int
    defined: int
    level: float
    value: float
    low: float
    high: float
    decided: bool


def walk(
    values: Sequence[float | None],
    decides: Callable[[float, float, int], bool],
    *,
    looks: Sequence[int] = LOOKS,
    alpha: float = ALPHA,
) -> Look:
    """Look at the first values, then at more, until one look decides.

    values : one a repeat, in the order in which repeats are made; None for a repeat that was made
        and has no value. What comes after the look that decides changes nothing.
    decides : (low, high, number of values) -> whether the adjusted interval answers the question.

    Raises ValueError if no repeat of those looked at has a value, and as `levels` and `interval`.
    """

    def at(number: int, n: int, level: float) -> Look | None:
        defined = [value for value in values[:n] if value is not None]
        # A look without any value decides nothing; the last one must have some.
        if not defined and n < last:
            return None
        return Look(number, n, len(defined), level, *interval(defined, level), decided=False)

    last = max([n for n in looks if n <= len(values)], default=len(values))
    return _walk(at, len(values), decides, levels(looks, alpha), looks)


def follow(
    estimate: Callable[[int, float], tuple[float, float, float]],
    repeats: int,
    decides: Callable[[float, float, int], bool],
    *,
    looks: Sequence[int] = LOOKS,
    alpha: float = ALPHA,
) -> Look:
    """`walk` for an estimate that is no mean of one value a repeat, e.g. a slope with a jackknife.

    estimate : (number n of repeats, two-sided level) -> value, low and high from the first n
        repeats alone. The design holds as far as the estimate's steps from look to look are those
        of a mean; a test simulates the jackknife of a statistic of pairs.
    repeats : how many were made.

    Raises ValueError for ends that are not finite or not in order, and as `levels`.
    """

    def at(number: int, n: int, level: float) -> Look:
        value, low, high = map(float, estimate(n, level))
        if not -math.inf < low <= value <= high < math.inf:
            raise ValueError(
                f"estimate must have finite ends in order, got {value} in [{low}, {high}] "
                f"from {n} repeats"
            )
        return Look(number, n, n, level, value, low, high, decided=False)

    return _walk(at, repeats, decides, levels(looks, alpha), looks)


def _walk(
    at: Callable[[int, int, float], Look | None],
    repeats: int,
    decides: Callable[[float, float, int], bool],
    of_look: Sequence[float],
    looks: Sequence[int],
) -> Look:
    """The first look that decides, or the last one. at : (its number, repeats, level) -> the look,
    None for one that decides nothing."""
    have = [n for n in looks if n <= repeats]
    found = None
    for number, n in enumerate(have, 1):
        found = at(number, n, of_look[number - 1])
        if found is not None and decides(found.low, found.high, found.defined):
            return replace(found, decided=True)
    if found is None:  # not a look yet: shown with the first one's level, decides nothing
        found = at(0, repeats, of_look[0])
    assert found is not None
    return found


def repeated_p(p: float, look: int, *, looks: Sequence[int] = LOOKS) -> float:
    """The smallest α at which a fixed-sample two-sided p at this look would have been beyond its
    bound: the repeated p-value, valid whatever made the looks end there.

    Raises ValueError for a p outside [0, 1] and a look that is none.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must lie in [0, 1], got {p}")
    if not 1 <= look <= len(looks):
        raise ValueError(f"look must lie in 1 to {len(looks)}, got {look}")

    def level(alpha: float) -> float:
        return _first_levels(looks, alpha, look)[-1]

    smallest, largest = 1e-12, 1 - 1e-9
    if p <= level(smallest):
        return smallest
    if p >= level(largest):
        return 1.0

    def over(log_alpha: float) -> float:
        return math.log(level(math.exp(log_alpha))) - math.log(p)

    ends = math.log(smallest), math.log(largest)
    return math.exp(float(optimize.brentq(over, *ends, xtol=1e-6)))
