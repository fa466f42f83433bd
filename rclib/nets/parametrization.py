"""SP, MF and μP: how each layer type scales with the width (paper A, Table 1).

A layer computes `multiplier · W h + B`. Entries of W start with standard deviation `init`
and are trained with learning rate `η · lr`. Each of the three is a power of the layer's
fan-in n and fan-out m; with equal hidden widths n = m = N the exponents of N are

    layer    | SP              | MF                | μP
             | mult init  lr   | mult init  lr     | mult init  lr
    input    |  0    0    0    |  0    0   +1 (0)  |  0    0   +1 (0)
    hidden   |  0   -1/2  0    | -1    0   +2 (0)  |  0  -1/2   0 (-1)
    output   |  0   -1/2  0    | -1    0   +1 (0)  | -1    0   +1 (0)
    bias     |  -    0    0    |  -    0   +1 (0)  |  -    0   +1 (0)

for SGD, with Adam's learning-rate exponent in brackets where it differs. The input fan-in d
does not grow; its factor 1/√d is in the multiplier (MF, μP) or in the initial scale (SP), so
a standardised input gives pre-activations of order one.

Sources: paper A, Table 1 (its content is not available to us; the exponents are derived and
checked numerically in notebook 10) and, for μP, the abc-parametrisations of Yang and Hu
(arXiv 2011.14522). MF differs from μP in one place: shifting the hidden layer's factors
between multiplier, scale and rate leaves the network unchanged, and puts MF at multiplier 1,
initial scale 1/N, where μP has 1/√N. The hidden layer's initial noise then vanishes with the
width, and what training adds stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rclib.checks.arguments import LARGEST, brief, choice, count, number

__all__ = [
    "LAYER_TYPES",
    "PARAMETRIZATIONS",
    "Parametrization",
    "Power",
    "Scaling",
    "first_step_exponents",
    "parametrization",
]

LAYER_TYPES = ("input", "hidden", "output", "bias", "output_bias")
OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class Power:
    """`fan_in ** fan_in_exponent · fan_out ** fan_out_exponent`."""

    fan_in_exponent: float = 0.0
    fan_out_exponent: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not abs(number(name, value)) <= 9:  # a fan of 2^53 to the 9th is a float still
                raise ValueError(f"{name} must lie in [-9, 9], got {value}")

    def __call__(self, fan_in: float, fan_out: float) -> float:
        """The factor of a tensor; ValueError for a fan that is not positive."""
        fan_in, fan_out = number("fan_in", fan_in), number("fan_out", fan_out)
        for name, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
            if not 0 < fan <= LARGEST:
                raise ValueError(f"{name} must be positive and at most 2^53, got {fan}")
        return float(fan_in**self.fan_in_exponent * fan_out**self.fan_out_exponent)


ONE = Power()


@dataclass(frozen=True)
class Scaling:
    """Multiplier, initial scale and learning-rate factors of one layer type."""

    multiplier: Power = ONE
    init: Power = ONE
    sgd: Power = ONE
    adam: Power = ONE

    def lr(self, optimizer: str) -> Power:
        """Learning-rate factor for `optimizer`: "sgd" or "adam", else ValueError."""
        choice("optimizer", optimizer, OPTIMIZERS)
        return self.sgd if optimizer == "sgd" else self.adam


@dataclass(frozen=True)
class Parametrization:
    """A named set of scalings, one per layer type."""

    name: str
    scalings: Mapping[str, Scaling]

    def __reduce__(self) -> tuple[type[Parametrization], tuple[str, dict[str, Scaling]]]:
        # A read-only mapping cannot be pickled or deep-copied as it is.
        return Parametrization, (self.name, dict(self.scalings))

    def __getitem__(self, layer_type: str) -> Scaling:
        if not isinstance(layer_type, str) or layer_type not in self.scalings:
            raise ValueError(f"layer type must be one of {LAYER_TYPES}, got {brief(layer_type)}")
        return self.scalings[layer_type]

    def exponents(self, layer_type: str) -> dict[str, float]:
        """Exponents of the width N for one layer type: multiplier, init, sgd, adam.

        The input layer's fan-in and the output layer's fan-out do not grow with N.
        """
        scaling = self[layer_type]
        grows_in = layer_type in ("hidden", "output")
        grows_out = layer_type in ("input", "hidden", "bias")
        return {
            field: power.fan_in_exponent * grows_in + power.fan_out_exponent * grows_out
            for field, power in vars(scaling).items()
        }


def _table(name: str, **scalings: Scaling) -> Parametrization:
    return Parametrization(name, MappingProxyType(scalings))


_OUT = Power(0.0, 1.0)
_IN = Power(1.0, 0.0)

PARAMETRIZATIONS: Mapping[str, Parametrization] = MappingProxyType(
    {
        "SP": _table(
            "SP",
            input=Scaling(init=Power(-0.5)),
            hidden=Scaling(init=Power(-0.5)),
            output=Scaling(init=Power(-0.5)),
            bias=Scaling(),
            output_bias=Scaling(),
        ),
        "MF": _table(
            "MF",
            input=Scaling(multiplier=Power(-0.5), sgd=_OUT),
            hidden=Scaling(multiplier=Power(-1.0), sgd=Power(1.0, 1.0)),
            output=Scaling(multiplier=Power(-1.0), sgd=_IN),
            bias=Scaling(sgd=_OUT),
            output_bias=Scaling(),
        ),
        "muP": _table(
            "muP",
            input=Scaling(multiplier=Power(-0.5), sgd=_OUT),
            # ΔW must be of order 1/N entrywise: SGD's gradient is that already (for equal
            # widths), Adam's normalised step is brought there by the factor 1/fan-in.
            hidden=Scaling(init=Power(-0.5), sgd=Power(-1.0, 1.0), adam=Power(-1.0)),
            output=Scaling(multiplier=Power(-1.0), sgd=_IN),
            bias=Scaling(sgd=_OUT),
            output_bias=Scaling(),
        ),
    }
)

_ALIASES = {"standard": "SP", "mf": "MF", "sp": "SP", "mup": "muP", "μp": "muP", "µp": "muP"}


def parametrization(name: str | Parametrization) -> Parametrization:
    """Look up "SP", "MF" or "muP" ("μP"); a `Parametrization` passes through.

    Raises ValueError for an unknown name.
    """
    if isinstance(name, Parametrization):
        return name
    key = _ALIASES.get(str(name).lower(), str(name))
    if key not in PARAMETRIZATIONS:
        raise ValueError(
            f"parametrization must be one of {', '.join(PARAMETRIZATIONS)}, got {brief(name)}"
        )
    return PARAMETRIZATIONS[key]


def first_step_exponents(name: str | Parametrization, depth: int, optimizer: str) -> list[float]:
    """Exponents of the width in the first update of each layer's pre-activation.

    For weights that start with zero mean, activations of order one and an error of order one at
    the output, with w_l the exponent of the entries of m_l W_l: the back-propagated error is
    N^w_L at the last hidden layer and gains w_l + 1/2 at each layer below (a sum over N
    independent terms). SGD then moves z_l by N^(2 mult + lr + error + 1), Adam, whose step does
    not depend on the size of the gradient, by N^(mult + lr + 1); the + 1 is the coherent sum
    over a fan-in that grows. Biases add N^(lr + error), and N^lr for Adam. Raises ValueError for
    a depth below 2 and for an unknown parametrisation or optimizer.
    """
    table = parametrization(name)
    if count("depth", depth) < 2:
        raise ValueError(f"depth must be at least 2, got {depth!r}")
    kinds = ["input", *["hidden"] * (depth - 2), "output"]
    choice("optimizer", optimizer, OPTIMIZERS)
    error = 0.0
    out: list[float] = []
    for layer in range(depth, 0, -1):
        own = table.exponents(kinds[layer - 1])
        bias = table.exponents("output_bias" if layer == depth else "bias")
        coherent = 0.0 if layer == 1 else 1.0
        rate = own["sgd" if optimizer == "sgd" else "adam"]
        bias_rate = bias["sgd" if optimizer == "sgd" else "adam"]
        if optimizer == "sgd":
            moves = (2 * own["multiplier"] + rate + error + coherent, bias_rate + error)
        else:
            moves = (own["multiplier"] + rate + coherent, bias_rate)
        out.append(max(moves))
        error += own["multiplier"] + own["init"] + (0.0 if layer == depth else 0.5)
    return out[::-1]
