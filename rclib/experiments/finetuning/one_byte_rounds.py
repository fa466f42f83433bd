"""One round of notebook 85: differences of two losses along random directions, and the update.

Every machine has the same weights θ (d numbers). In round t machine m draws for its j-th sample
z_tmj ~ N(0, I), which anybody can draw again, from (seed, t, m, j) alone, and a batch of its own
images, and sends one number,

    g_tmj = [L(θ + ε z; batch) - L(θ - ε z; batch)] / (2 ε),    the slope of the loss along z.

All machines then take the same step, in the same order, N = number of all samples of the round:

    θ ← θ - (rate / N) Σ_mj ĝ_tmj z_tmj,    ĝ: what arrives of g (`one_byte_codes`).

The authors divide by √N: their rate is √N times smaller than the one here for the same step. They
add ε z to the weights in place and take it away again, which leaves rounding behind; here θ ± ε z
are new vectors. It needs numpy alone.

Sources: arXiv 2306.10015 and the authors' app.py; the update is that of MeZO, arXiv 2305.17333.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rclib.experiments.finetuning import one_byte_nets as nets

__all__ = [
    "DIRECTIONS",
    "SHARES",
    "Plan",
    "batches",
    "direction",
    "directions",
    "mean_gradient",
    "measured",
    "replay",
    "shares",
    "slopes",
    "step",
]

Array = np.ndarray[Any, np.dtype[Any]]
DIRECTIONS = ("own", "shared", "wrong")
SHARES = ("all", "iid", "class")
WRONG = 1 << 20  # added to the number of the round: seeds that nobody has used


@dataclass(frozen=True)
class Plan:
    """What all machines agree on before they begin.

    seed : of directions and batches. machines, samples : M machines, each with k samples a round.
    rounds; rate : on the mean over the N = M k samples; epsilon, batch : see above.
    code : how numbers travel. directions : "own", a direction a sample; "shared", one a round for
    all; "wrong", those who update draw from other seeds than those who measured.
    """

    seed: int
    machines: int
    samples: int
    rounds: int
    rate: float
    epsilon: float
    batch: int
    code: str
    directions: str = "own"

    def __post_init__(self) -> None:
        if self.directions not in DIRECTIONS:
            known = ", ".join(DIRECTIONS)
            raise ValueError(f"directions must be one of {known}, got {self.directions!r}")
        for name in ("machines", "samples", "rounds", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def places(self) -> list[tuple[int, int]]:
        """(machine, sample) of all N samples of a round, in the order of the updates."""
        return [(m, j) for m in range(self.machines) for j in range(self.samples)]


def direction(plan: Plan, t: int, machine: int, sample: int, d: int) -> Array:
    """z of one sample of round t, (d,) float32: of its own generator, so that it depends neither on
    what was drawn before nor on who draws it."""
    place = [t, 0, 0] if plan.directions == "shared" else [t, machine, sample]
    generator = np.random.default_rng([plan.seed, 2, *place])
    return generator.standard_normal(d, np.float32)


def directions(plan: Plan, t: int, machine: int, d: int) -> Array:
    """Those of all samples of a machine, (k, d)."""
    return np.stack([direction(plan, t, machine, j, d) for j in range(plan.samples)])


def batches(plan: Plan, machine: int, n: int) -> Array:
    """Places among a machine's n images of all its batches, (rounds, k, batch), drawn with
    replacement; nobody else needs them."""
    draw = np.random.default_rng([plan.seed, 3, machine])
    return draw.integers(n, size=(plan.rounds, plan.samples, plan.batch))


def slopes(theta: Array, z: Array, epsilon: float, loss: Callable[[Array], Array]) -> Array:
    """[L(θ + ε z) - L(θ - ε z)] / (2 ε) for directions z (n, d), (n,) float64.

    loss : weights (2, n, d) -> losses (2, n), the same batch for both of a sample.
    """
    away = np.float32(epsilon) * z
    above, below = loss(np.stack([theta + away, theta - away])).astype(np.float64)
    found: Array = (above - below) / (2 * epsilon)
    return found


def measured(plan: Plan, theta: Array, z: Array, x: Array, y: Array) -> Array:
    """Slopes (n,) of samples with directions z (n, d) and batches x (n, batch, ...), y."""
    return slopes(theta, z, plan.epsilon, lambda at: nets.loss(at, x, y))


def mean_gradient(theta: Array, x: Array, y: Array) -> Array:
    """In place of slopes: the gradient by backpropagation on a machine's batches x (k, batch, d),
    (d,) float32."""
    return nets.gradient(theta, x.reshape(-1, x.shape[-1]), y.ravel())


def step(
    plan: Plan, t: int, theta: Array, arrived: Sequence[float] | Array,
    drawn: Sequence[Array] | Array = (), *, backwards: bool = False,
) -> None:  # fmt: skip
    """Update θ in place by the numbers that arrived in round t, one a sample, in their order, on
    which the bits of a sum of float32 depend; `backwards` : the last one first. drawn : the
    directions, if they are there already."""
    at = t + WRONG if plan.directions == "wrong" else t
    share = plan.rate / len(plan.places)
    terms = list(enumerate(zip(plan.places, arrived, strict=True)))
    for place, ((machine, j), number) in reversed(terms) if backwards else terms:
        z = drawn[place] if len(drawn) else direction(plan, at, machine, j, len(theta))
        theta -= np.float32(share * float(number)) * z


def replay(plan: Plan, start: Array, log: Iterable[Sequence[float] | Array]) -> Array:
    """Weights of a machine that has only the start and what arrived in each round."""
    theta = start.copy()
    for t, arrived in enumerate(log):
        step(plan, t, theta, arrived)
    return theta


def shares(y: Array, machines: int, how: str) -> list[Array]:
    """Places of the images that each machine holds. "all": everybody all; "iid": as many each, in
    the order in which they come; "class": one class each, and machines of one class share it out.

    Raises ValueError for another word, or more machines than images (of a class).
    """
    if how not in SHARES:
        raise ValueError(f"shares must be one of {', '.join(SHARES)}, got {how!r}")
    everything = np.arange(len(y))
    if how == "all":
        return [everything] * machines
    if how == "iid":
        found = [everything[m::machines] for m in range(machines)]
    else:
        found = []
        for m in range(machines):
            kind, rank = m % nets.CLASSES, m // nets.CLASSES
            holders = len(range(kind, machines, nets.CLASSES))
            found.append(everything[y == kind][rank::holders])
    if min(len(own) for own in found) == 0:
        raise ValueError(f"machines must be fewer than images, got {machines} for {len(y)} images")
    return found
