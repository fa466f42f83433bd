"""Energies of hidden units on group tasks, their maxima in closed form, and the leaked gradient.

Tian (arXiv 2509.21519). A group H of M elements; inputs x = (e_g, e_h), labels the product g h, all
n = M² pairs or some of them. A hidden unit w = (u, v) on the unit sphere climbs

    E(w) = ½ |Ỹᵀ σ(X w)|²,      ∇E = Xᵀ D ỸỸᵀ σ(X w),      Ỹ = (I - 11ᵀ/n) Y,  D = diag σ'(X w).

With σ = x² and all pairs, Ỹᵀ σ is 2 (u * v), the convolution over the group, less its mean: squares
of u and v alone fall equally upon every class. By Plancherel, with û(k) of the irrep k,

    E = (2/M) Σ over k not trivial of d_k |û(k) v̂(k)|²,   |u|² = (1/M) Σ d_k |û(k)|².

For the cyclic group (unitary FFT) E = 2M Σ |û_k|² |v̂_k|². A maximum has one irrep, |u|² = |v|² = ½
and matrices of rank one that fit, |û v̂| = |û| |v̂|. So E is

    M / (2 d_k)   for a real irrep,
    M / (4 d_k)   for a pair of complex ones, which share the norm,
    M / (4 d_k)   for a quaternionic one, whose matrices have every singular value twice.

The paper prints M/(8 d_k) and M/(16 d_k): in the proof of its Theorem 2 the square (u + v)² is
expanded with u v in place of 2 u v, and E is quadratic in that. It has no third case.

The top layer at its ridge solution sends G = η (F̃F̃ᵀ + ηI)⁻¹ ỸỸᵀF̃ (F̃ᵀF̃ + ηI)⁻¹ to the hidden one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product as pairs_of

import numpy as np
from numpy.typing import NDArray

from rclib.checks.arguments import choice

__all__ = [
    "ACTIVATIONS",
    "Component",
    "ascend",
    "closed_energy",
    "components",
    "energies",
    "gradients",
    "group_table",
    "inputs_of",
    "powers",
    "ridge_gradient",
    "targets_of",
]

Floats = NDArray[np.float64]
Table = NDArray[np.int64]
ACTIVATIONS: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "square": (np.square, lambda x: 2.0 * x),
    "relu": (lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(float)),
}


def group_table(name: str) -> Table:
    """Multiplication table (M, M) of a group: "Z11", "D5" (of order 10), "S3", "Q8", or products as
    "S3xZ3". Element 0 is the identity. Raises ValueError for another name."""
    parts = [_one_table(name, part) for part in name.split("x")]
    table = parts[0]
    for other in parts[1:]:
        m = len(other)
        table = (table[:, None, :, None] * m + other[None, :, None, :]).reshape(len(table) * m, -1)
    return table


def _one_table(name: str, part: str) -> Table:
    kind, digits = part[:1], part[1:]
    if part == "Q8":  # 1 i j k, then their negatives
        unit = np.array([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
        sign = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]])
        signs = np.arange(8) // 4
        first, second = np.ix_(np.arange(8) % 4, np.arange(8) % 4)
        return np.asarray(
            unit[first, second] + 4 * ((sign[first, second] + signs[:, None] + signs[None]) % 2)
        )
    if part == "S3":
        kind, digits = "D", "3"
    if kind not in ("Z", "D") or not digits.isdecimal() or int(digits) < 2:
        raise ValueError(f"group must be Zn, Dn (n from 2), S3, Q8 or a product, got {name!r}")
    n = int(digits)
    if kind == "Z":
        return np.add.outer(np.arange(n), np.arange(n)) % n
    turn, flip = np.arange(2 * n) % n, np.arange(2 * n) // n
    turned = (turn[:, None] + np.where(flip[:, None] == 1, -1, 1) * turn[None]) % n
    return np.asarray(turned + n * ((flip[:, None] + flip[None]) % 2))


@dataclass(frozen=True)
class Component:
    """The part of R^M that belongs to one real irrep, or to a pair of complex ones.

    projection : (M, M). degree : d_k, complex. kind : "trivial", "real", "complex" or
    "quaternionic". energy : at the maxima with this component alone; 0 for the trivial one.
    """

    projection: Floats
    degree: int
    kind: str
    energy: float


def components(table: Table) -> list[Component]:
    """All of them, the trivial one first, then by rising degree.

    Sums over conjugacy classes commute with the whole group and are a number on each irrep; a
    generic symmetric combination of them has the components as eigenspaces. An eigenspace of
    dimension d² is an irrep that is its own conjugate, one of 2 d² a pair; the Frobenius-Schur
    indicator, the mean of χ(g²), tells real from quaternionic.
    """
    m = len(table)
    left = np.zeros((m, m, m))  # R_g e_h = e_gh
    left[np.arange(m)[:, None], table, np.arange(m)[None]] = 1.0
    inverse = np.argmin(table, axis=1)  # element 0 is the identity
    random, mixed = np.random.default_rng(0), np.zeros((m, m))
    seen = np.zeros(m, dtype=bool)
    for g in range(m):
        if not seen[g]:
            members = np.unique(table[table[np.arange(m), g], inverse])
            seen[members] = True
            mixed += random.standard_normal() * left[members].sum(0)
    values, basis = np.linalg.eigh(mixed + mixed.T)
    squares = np.diagonal(table)
    found = []
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > 1e-8 * np.abs(values).max())
    for vectors in np.split(basis, starts[1:], axis=1):
        projection, size = vectors @ vectors.T, vectors.shape[1]
        own = round(size**0.5) ** 2 == size
        degree = round((size if own else size / 2) ** 0.5)
        indicator = np.einsum("gab,ab->", left[squares], projection) / (degree * m)
        kind = "complex" if not own else "real" if indicator > 0 else "quaternionic"
        if np.allclose(projection, 1.0 / m):
            kind = "trivial"
        energy = {"trivial": 0.0, "real": m / (2 * degree)}.get(kind, m / (4 * degree))
        found.append(Component(projection, degree, kind, energy))
    return sorted(found, key=lambda one: (one.kind != "trivial", one.degree, one.kind))


def inputs_of(table: Table) -> tuple[Floats, NDArray[np.int64]]:
    """All pairs: inputs (M², 2M), two one-hot blocks, and labels (M²,)."""
    m = len(table)
    first, second = np.array(list(pairs_of(range(m), repeat=2))).T
    return np.concatenate([np.eye(m)[first], np.eye(m)[second]], axis=1), table.ravel()


def targets_of(labels: NDArray[np.int64], classes: int) -> Floats:
    """Ỹ: one-hot labels (n, classes), each column less its mean over the samples."""
    y = np.eye(classes)[labels]
    return np.asarray(y - y.mean(0))


def energies(w: Floats, x: Floats, y: Floats, activation: str = "square") -> Floats:
    """E of units (s, 2M) on inputs (n, 2M) and targets (n, c), (s,)."""
    act, _ = ACTIVATIONS[choice("activation", activation, ACTIVATIONS)]
    return np.asarray(0.5 * np.square(act(w @ x.T) @ y).sum(1))


def gradients(w: Floats, x: Floats, y: Floats, activation: str = "square") -> Floats:
    """Xᵀ D Y Yᵀ σ(X w) of each unit, (s, 2M)."""
    act, slope = ACTIVATIONS[choice("activation", activation, ACTIVATIONS)]
    before = w @ x.T
    return np.asarray(((act(before) @ y) @ y.T * slope(before)) @ x)


def powers(w: Floats, parts: list[Component]) -> Floats:
    """Share of |u|² + |v|² of units (s, 2M) in each component, (s, parts)."""
    m = len(parts[0].projection)
    halves = w.reshape(len(w), 2, m)
    found = [np.square(halves @ one.projection).sum((1, 2)) for one in parts]
    return np.asarray(np.stack(found, 1) / np.square(w).sum(1, keepdims=True))


def ascend(
    w: Floats, x: Floats, y: Floats, *, steps: int, rate: float, activation: str = "square",
    rule: str = "gradient",
) -> Floats:  # fmt: skip
    """Units after projected ascent of their energies: a step along the gradient, then norm one.

    rule : "gradient", each unit for itself, by `rate`; or "muon": the gradients of all units as one
        matrix (s, 2M) are replaced by U Vᵀ of their singular value decomposition, and the rate
        falls linearly to zero.
    """
    choice("rule", rule, ("gradient", "muon"))
    for step in range(steps):
        move = gradients(w, x, y, activation)
        if rule == "muon":
            u, _, v = np.linalg.svd(move, full_matrices=False)
            move = (u @ v) * (1.0 - step / steps)
        w = w + rate * move
        w = w / np.linalg.norm(w, axis=1, keepdims=True)
    return w


def closed_energy(w: Floats) -> Floats:
    """E of units (s, 2M) on all pairs of the cyclic group, σ = x²: 2M Σ over k > 0 of |û|²|v̂|²."""
    m = w.shape[1] // 2
    hat = np.square(np.abs(np.fft.fft(w.reshape(-1, 2, m), norm="ortho")))[:, :, 1:]
    return np.asarray(2.0 * m * (hat[:, 0] * hat[:, 1]).sum(1))


def ridge_gradient(features: Floats, y: Floats, decay: float) -> Floats:
    """What reaches the features (n, K) from a top layer at its ridge solution of penalty `decay`:
    η (F̃F̃ᵀ + ηI)⁻¹ ỸỸᵀF̃ (F̃ᵀF̃ + ηI)⁻¹, (n, K). Both must be centred."""
    n, k = features.shape
    rows = np.linalg.solve(features @ features.T + decay * np.eye(n), y)
    columns = np.linalg.solve(features.T @ features + decay * np.eye(k), features.T @ y)
    return np.asarray(decay * rows @ columns.T)
