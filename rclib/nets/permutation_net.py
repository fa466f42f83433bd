"""Two-layer networks without biases that are trained on unit vectors, several at once.

    f(x) = s W2 φ(k^(-1/2) W1 x),    W1 (n, k), W2 (k, n)

with s = n^(-1/2) ("NTK": for wide networks the features stay) or s = 1/n ("MF", the mean-field
scaling, with the learning rate times n: features move at every width). Entries start as N(0, 1).

At the k unit vectors the hidden units hold the columns of φ(k^(-1/2) W1), so full-batch gradient
descent on half the squared error needs no inputs:

    R = f(E) - Y,    dW2 = s R Aᵀ,    dW1 = s k^(-1/2) (W2ᵀ R) φ'(k^(-1/2) W1)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rclib.checks.arguments import choice, count, number

__all__ = ["ACTIVATIONS", "SCALINGS", "Networks", "start", "train_all", "train_last"]

SCALINGS = ("NTK", "MF")
ACTIVATIONS = ("relu", "identity")


@dataclass(frozen=True)
class Networks:
    """S networks. W1 : (S, n, k); W2 : (S, k, n); both of one dtype."""

    W1: Tensor
    W2: Tensor
    scaling: str
    activation: str

    @property
    def factor(self) -> float:
        """s, of the outputs."""
        width = self.W1.shape[1]
        return 1 / math.sqrt(width) if self.scaling == "NTK" else 1 / width

    def hidden(self, x: Tensor) -> Tensor:
        """(S, T, n) hidden units at x (T, k)."""
        before = x @ self.W1.mT / math.sqrt(self.W1.shape[2])
        return before.relu() if self.activation == "relu" else before

    def __call__(self, x: Tensor) -> Tensor:
        """(S, T, k) outputs at x (T, k)."""
        return self.factor * self.hidden(x) @ self.W2.mT


def start(
    k: int,
    width: int,
    *,
    scaling: str = "NTK",
    activation: str = "relu",
    zero_last: bool = False,
    generators: Sequence[torch.Generator],
) -> Networks:
    """Networks at their start, float64, one a generator. zero_last : W2 = 0, so that f is 0.

    Raises ValueError for an unknown scaling or activation.
    """
    choice("scaling", scaling, SCALINGS)
    choice("activation", activation, ACTIVATIONS)
    shape, float64 = (count("width", width), count("k", k)), torch.float64
    first, last = [], []
    for g in generators:
        first.append(torch.randn(shape, generator=g, dtype=float64))
        last.append(torch.randn(shape[::-1], generator=g, dtype=float64))
    return Networks(torch.stack(first), torch.stack(last) * (not zero_last), scaling, activation)


def train_all(networks: Networks, targets: Tensor, *, rate: float, steps: int) -> Networks:
    """Gradient descent in all layers on pairs (e_i, column i of `targets` (k, k)).

    rate : positive; times the width in the scaling "MF". Raises ValueError for another.
    """
    if not number("rate", rate) > 0:
        raise ValueError(f"rate must be positive, got {rate}")
    W1, W2 = networks.W1.clone(), networks.W2.clone()
    _, width, k = W1.shape
    s, inner = networks.factor, 1 / math.sqrt(k)
    eta = rate * (width if networks.scaling == "MF" else 1)
    relu = networks.activation == "relu"
    for _ in range(count("steps", steps, 0)):
        A = W1.relu() * inner if relu else W1 * inner  # (S, n, k), column i at e_i
        R = s * W2 @ A - targets  # (S, k, k)
        dA = W2.mT @ R
        W2 -= (eta * s) * R @ A.mT
        W1 -= (eta * s * inner) * (dA * (W1 > 0) if relu else dA)
    return replace(networks, W1=W1, W2=W2)


def train_last(networks: Networks, targets: Tensor) -> Networks:
    """Where gradient descent in the last layer alone ends: the smallest change of W2 that gives
    the columns of `targets` (k, k) at the unit vectors. Raises torch's LinAlgError if the hidden
    units at the unit vectors are linearly dependent."""
    k = networks.W1.shape[2]
    A = networks.factor * networks.hidden(torch.eye(k, dtype=networks.W1.dtype))  # (S, k, n)
    R = targets - networks.W2 @ A.mT  # (S, k, k)
    change = torch.linalg.solve(A @ A.mT, R.mT).mT @ A
    return replace(networks, W2=networks.W2 + change)
