"""Frames of notebook 47: claims of notebook 42 about random masks, with a rate for every arm.

There all fully connected networks have one rate of Adam. Here every kind of network has the rate of
the best accuracy on images that it was not trained on, over seeds that are used for nothing else;
what the claims are about is then measured at these rates and at the old one, on the same seeds. The
networks are notebook 42's stored runs (`random_runs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rclib.data.held_out import held_out
from rclib.data.images import Dataset
from rclib.experiments.pruning.random_pruning import gap, networks, value
from rclib.stats.grid import best_setting
from rclib.stats.sequential import interval

__all__ = [
    "CHOICES",
    "FINER",
    "QUESTIONS",
    "Asked",
    "Sizes",
    "answers",
    "arms_of",
    "asked",
    "asked_finer",
    "at_rates",
    "change_frame",
    "chosen_rates",
    "difference_frame",
    "finer_arms",
    "rate_curves",
    "rate_frame",
    "rate_gain",
    "rate_table",
]

CHOICES = ("own", "shared")  # every arm's own rate, or the one of notebook 42
QUESTIONS = (
    "width_closes", "matches_dense", "sparse_pays", "depth_closes", "er_over_uniform",
    "rescaling_helps", "calibrated",
)  # fmt: skip
# Those whose intervals end nearest to their criterion, asked once more with rates of a finer grid.
FINER = ("depth_closes", "er_over_uniform")
Arms = Mapping[str, Mapping[str, Any]]  # name -> width, layers, scheme, density


@dataclass(frozen=True)
class Sizes:
    """Of the networks: `wide`, `small` and `narrow` (the dense one with as many weights as a wide
    one keeps) have `layers` hidden layers; those of `depth_width` have `depths`, two numbers, and
    are masked to `depth_density`."""

    wide: int
    small: int
    narrow: int
    layers: int
    depth_width: int
    depths: tuple[int, int]
    depth_density: float


def arms_of(sizes: Sizes) -> dict[str, dict[str, Any]]:
    """The kinds of networks that the questions compare, the wide ones first."""
    wide = [("dense", 1.0), ("ER", 0.3), ("ER", 0.1), ("ER rescaled", 0.1), ("ER", 0.05),
            ("uniform", 0.05)]  # fmt: skip
    keys = [(sizes.wide, sizes.layers, *scheme) for scheme in wide]
    keys += [(sizes.small, sizes.layers, *scheme) for scheme in (("dense", 1.0), ("ER", 0.1))]
    keys += [(sizes.narrow, sizes.layers, "dense", 1.0)]
    keys += [
        (sizes.depth_width, depth, *scheme)
        for depth in sizes.depths
        for scheme in (("dense", 1.0), ("ER", sizes.depth_density))
    ]
    names = ("width", "layers", "scheme", "density")
    return {_name(*key): dict(zip(names, key, strict=True)) for key in keys}


def finer_arms(sizes: Sizes) -> dict[str, dict[str, Any]]:
    """Those of `arms_of` that the questions of `FINER` compare."""
    return {
        name: arm
        for name, arm in arms_of(sizes).items()
        if arm["density"] == 0.05
        or (arm["width"] == sizes.depth_width and arm["layers"] in sizes.depths)
    }


def _name(width: int, layers: int, scheme: str, density: float) -> str:
    kind = scheme if scheme == "dense" else f"{scheme} {density:g}"
    return f"{kind}, {layers} x {width}"


def rate_frame(
    data: Dataset, seeds: Sequence[int], arms: Arms, rates: Mapping[str, Sequence[float]],
    net: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """What `networks` has of every arm at its rates, with arm and rate.

    net : what the runs get besides, without a rate.
    """
    pairs = [(name, rate) for name in arms for rate in rates[name]]
    plan = [
        {"width": arms[name]["width"], "layers": arms[name]["layers"], "own": {"rate": rate},
         "schemes": {arms[name]["scheme"]: [arms[name]["density"]]}}
        for name, rate in pairs
    ]  # fmt: skip
    frame = networks(data, seeds, plan, net)
    frame["arm"] = [name for name, _ in pairs for _ in seeds]
    frame["rate"] = [rate for _, rate in pairs for _ in seeds]
    return frame


def chosen_rates(tuning: pd.DataFrame) -> dict[str, float]:
    """Arm -> the rate of its best mean accuracy, the smaller of equal ones.

    tuning : of `rate_frame`. Raises ValueError if an arm chooses its smallest or largest rate: the
    best may then lie beyond.
    """
    means = tuning.groupby(["arm", "rate"]).accuracy.mean()
    arms = dict.fromkeys(tuning.arm)
    return {name: best_setting(means[name], what=f"rates of {name!r}") for name in arms}


def at_rates(frame: pd.DataFrame, rates: Mapping[str, float]) -> pd.DataFrame:
    """The networks of every arm at its rate."""
    return frame[frame.rate == frame.arm.map(rates)].reset_index(drop=True)


def answers(
    frame: pd.DataFrame, sizes: Sizes, questions: Sequence[str] = QUESTIONS
) -> dict[str, pd.Series]:
    """What the claims of notebook 42 are about, by question and seed, as `random_claims` has it.

    frame : of networks with one rate an arm (`at_rates`). Raises ValueError where it lacks one that
    a question compares.
    """
    wide, layers = sizes.wide, sizes.layers
    deep, density = sizes.depth_width, sizes.depth_density

    def of(width: int, scheme: str, share: float, what: str = "accuracy") -> pd.Series:
        return value(frame, what, width, scheme, share, layers)

    def depth_gap(depth: int) -> pd.Series:
        return gap(frame, deep, "ER", density, depth)

    def wide_gap(share: float) -> pd.Series:
        return gap(frame, wide, "ER", share, layers)

    found: dict[str, Callable[[], pd.Series]] = {
        "width_closes": lambda: wide_gap(0.1) - gap(frame, sizes.small, "ER", 0.1, layers),
        "matches_dense": lambda: wide_gap(0.3),
        "sparse_pays": lambda: of(wide, "ER", 0.1) - of(sizes.narrow, "dense", 1.0),
        "depth_closes": lambda: depth_gap(sizes.depths[1]) - depth_gap(sizes.depths[0]),
        "er_over_uniform": lambda: of(wide, "ER", 0.05) - of(wide, "uniform", 0.05),
        "rescaling_helps": lambda: of(wide, "ER rescaled", 0.1) - of(wide, "ER", 0.1),
        "calibrated": lambda: of(wide, "ER", 0.3, "ece") - of(wide, "dense", 1.0, "ece"),
    }
    return {question: found[question]() for question in questions}


@dataclass(frozen=True, eq=False)
class Asked:
    """`tuning`, `rate_frame` on images held out; `rates`, choice -> arm -> rate; `frame`,
    `rate_frame` of the reported seeds on test images, at all of these rates; `questions`, those
    that its arms can answer."""

    sizes: Sizes
    tuning: pd.DataFrame
    rates: dict[str, dict[str, float]]
    frame: pd.DataFrame
    questions: tuple[str, ...] = QUESTIONS

    def networks(self, choice: str) -> pd.DataFrame:
        """The reported networks at the rates of a choice."""
        return at_rates(self.frame, self.rates[choice])

    def answers(self, choice: str) -> dict[str, pd.Series]:
        """`answers` at the rates of a choice."""
        return answers(self.networks(choice), self.sizes, self.questions)


def asked(
    data: Dataset, sizes: Sizes, rates: Sequence[float], shared: float, n_valid: int,
    tuning_seeds: Sequence[int], seeds: Sequence[int], net: Mapping[str, Any],
) -> Asked:  # fmt: skip
    """Rates by the tuning seeds, on n_valid training images held out; then the reported seeds.

    rates : the grid of all arms. shared : the rate of notebook 42. Raises ValueError if an arm
    chooses an end of the grid.
    """
    arms = arms_of(sizes)
    tuning = rate_frame(
        held_out(data, n_valid), tuning_seeds, arms, dict.fromkeys(arms, rates), net
    )
    own = chosen_rates(tuning)
    both = {name: sorted({own[name], shared}) for name in arms}
    frame = rate_frame(data, seeds, arms, both, net)
    return Asked(sizes, tuning, {"own": own, "shared": dict.fromkeys(arms, shared)}, frame)


def asked_finer(
    data: Dataset, sizes: Sizes, rates: Sequence[float], n_valid: int,
    tuning_seeds: Sequence[int], seeds: Sequence[int], net: Mapping[str, Any],
) -> Asked:  # fmt: skip
    """`asked` for the questions of `FINER` and their arms alone, with the one choice "own".

    Raises ValueError if an arm chooses an end of the grid.
    """
    arms = finer_arms(sizes)
    tuning = rate_frame(
        held_out(data, n_valid), tuning_seeds, arms, dict.fromkeys(arms, rates), net
    )
    own = chosen_rates(tuning)
    frame = rate_frame(data, seeds, arms, {name: [rate] for name, rate in own.items()}, net)
    return Asked(sizes, tuning, {"own": own}, frame, FINER)


def rate_gain(found: Asked) -> pd.Series:
    """Test accuracy at the arms' own rates minus that at the shared one, mean of all arms, by
    seed."""
    own, shared = (
        found.networks(choice).groupby("seed", sort=False).accuracy.mean() for choice in CHOICES
    )
    gain: pd.Series = own - shared
    return gain


def difference_frame(found: Asked) -> pd.DataFrame:
    """question, choice, seed, value: `answers` of every choice."""
    frames = [
        pd.DataFrame({"question": question, "choice": choice, "seed": own.index, "value": own})
        for choice in found.rates
        for question, own in found.answers(choice).items()
    ]
    return pd.concat(frames, ignore_index=True)


def change_frame(found: Asked) -> pd.DataFrame:
    """question, own, shared (means), change, low, high: what the own rates change, with its 95
    percent t-interval over seeds."""
    own, shared = (found.answers(choice) for choice in CHOICES)
    rows = [
        (question, own[question].mean(), shared[question].mean(),
         *interval((own[question] - shared[question]).tolist(), 0.05))
        for question in QUESTIONS
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["question", "own", "shared", "change", "low", "high"])


def rate_curves(found: Asked) -> pd.DataFrame:
    """arm, rate, valid, own: mean accuracy on images held out over the tuning seeds, and whether
    the arm chose the rate."""
    frame = found.tuning.groupby(["arm", "rate"], sort=False).accuracy.mean().reset_index()
    frame = frame.rename(columns={"accuracy": "valid"})
    frame["own"] = frame.rate == frame.arm.map(found.rates["own"])
    return frame


def rate_table(found: Asked) -> pd.DataFrame:
    """By arm: its rate, and accuracy and calibration error on test images at it and, where there is
    one, at the shared one, means over the reported seeds."""
    rows = pd.DataFrame({"rate": found.rates["own"]})
    for what in ("accuracy", "ece"):
        for choice in found.rates:
            over = found.networks(choice).groupby("arm")[what]
            rows[f"{what}, {choice} rate"] = over.mean()
    return rows.rename_axis("arm").reset_index()
