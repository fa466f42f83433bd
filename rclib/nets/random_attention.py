"""Attention with frozen random query-key matrices: its features and their kernels.

    x_0 (d,) query, x_1 ... x_N (d,) keys, x̃ = (x, 1)
    f(X) = Σ_m (1/N) Σ_i relu(x̃_0ᵀ W_m x̃_i) ⟨v_m, x̃_i⟩

Entries of W_m (d+1, d+1) are N(0, s²), s² = 1/4, and frozen (RFA); added to them may be a matrix
W_0 = diag(1, ..., 1, 0) (BRFA). Only v_m is trained. RFMLP is a network of two layers on all inputs
at once, Σ_m v_m relu(⟨w_m, u⟩), u = (x_0, ..., x_N, 1), of the same variance.

For infinitely many heads the features' products have closed forms. With unit vectors ‖x̃‖² = 2, a
score is N(0, 4 s²), two of them have the correlation c = ⟨x̃_0, x̃'_0⟩⟨x̃_i, x̃'_j⟩/4, and
E relu(a) relu(b) = A1(c) for standard normal a, b (Cho and Saul 2009):

    RFA      K(X, X') = N⁻² Σ_ij ⟨x̃_i, x̃'_j⟩ 4 s² A1(c_ij)
    RFMLP    K(X, X') = (N + 2) s² A1(⟨u, u'⟩ / (N + 2))

Source of the model: Fu, Guo, Bai and Mei (NeurIPS 2023); s and W_0 are chosen here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rclib.checks.arguments import count
from rclib.checks.arrays import Floats

__all__ = [
    "VARIANCE", "arc_cosine", "attention_features", "attention_kernel", "augmented", "bias",
    "concatenated", "head_features", "mlp_features", "mlp_kernel", "query_keys",
]  # fmt: skip

VARIANCE = 0.25  # s², of the entries of W_m and w_m
BLOCK = 50  # heads at a time


def arc_cosine(c: Floats) -> Floats:
    """A1(c) = (√(1 - c²) + (π - arccos c) c) / 2π: E relu(a) relu(b) for standard normal a and b of
    correlation c. A1(1) = 1/2, A1(0) = 1/2π, A1(-1) = 0."""
    c = np.clip(c, -1.0, 1.0)
    return np.asarray((np.sqrt(1 - c * c) + (np.pi - np.arccos(c)) * c) / (2 * np.pi))


def augmented(x: Floats) -> Floats:
    """(x, 1) for x (..., d): (..., d + 1)."""
    return np.asarray(np.concatenate([x, np.ones((*x.shape[:-1], 1), x.dtype)], -1))


def concatenated(x: Floats) -> Floats:
    """u = (x_0, ..., x_N, 1) for x (n, N + 1, d): (n, (N + 1) d + 1)."""
    return augmented(np.reshape(x, (len(x), -1)))


def bias(d: int) -> Floats:
    """W_0: the identity on the d coordinates, zero for the constant, (d + 1, d + 1)."""
    return np.asarray(np.diag([*np.ones(d), 0.0]))


def query_keys(seed: int, heads: int, d: int, *, biased: bool = False) -> Floats:
    """W_m of each head, (M, d + 1, d + 1); more heads begin with the fewer, biased ones have the
    noise of the others. Raises ValueError for heads and d below one."""
    heads, d = count("heads", heads), count("d", d)
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    noise = np.sqrt(VARIANCE) * generator.standard_normal((heads, d + 1, d + 1))
    return np.asarray(noise + bias(d)) if biased else noise


def attention_features(x: Floats, weights: Floats) -> Floats:
    """(1/N) Σ_i relu(x̃_0ᵀ W_m x̃_i) x̃_i for x (n, N + 1, d) and W (M, d + 1, d + 1):
    (n, M, d + 1), in the type of x."""
    both = augmented(x)
    query, keys = both[:, 0], both[:, 1:]
    heads, size, _ = weights.shape
    turned = query @ weights.transpose(1, 0, 2).reshape(size, heads * size).astype(x.dtype)
    scores = turned.reshape(len(x), heads, size) @ keys.transpose(0, 2, 1)
    return np.asarray(np.maximum(scores, 0) @ keys / keys.shape[1])


def head_features(x: Floats, weights: Floats, block: int = BLOCK) -> Iterator[Floats]:
    """`attention_features` of some heads at a time over √M, as matrices (n, heads (d + 1)): the
    products of all of them sum up to the kernel of M heads."""
    scale = x.dtype.type(1 / np.sqrt(len(weights)))
    for begin in range(0, len(weights), block):
        found = attention_features(x, weights[begin : begin + block])
        yield found.reshape(len(x), -1) * scale


def mlp_features(x: Floats, seed: int, width: int) -> Floats:
    """relu(⟨w_m, u⟩) / √width for x (n, N + 1, d): (n, width), in the type of x."""
    u = concatenated(x)
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    weights = np.sqrt(VARIANCE) * generator.standard_normal((width, u.shape[1]))
    return np.asarray(np.maximum(u @ weights.T.astype(x.dtype), 0) / np.sqrt(x.dtype.type(width)))


def attention_kernel(x: Floats, other: Floats) -> Floats:
    """RFA's kernel of infinitely many heads for unit vectors x (n, N + 1, d), other (n', N + 1, d):
    (n, n'), in their type."""
    first, second = augmented(x), augmented(other)
    queries = first[:, 0] @ second[:, 0].T / 4
    keys = first.shape[1] - 1
    total = np.zeros_like(queries)
    for i in range(1, keys + 1):
        for j in range(1, keys + 1):
            products = first[:, i] @ second[:, j].T
            total += products * arc_cosine(queries * products)
    return np.asarray(total * (4 * VARIANCE / keys**2))


def mlp_kernel(x: Floats, other: Floats) -> Floats:
    """RFMLP's kernel of infinite width for unit vectors, (n, n')."""
    first, second = concatenated(x), concatenated(other)
    squared = x.shape[1] + 1  # ‖u‖² = N + 2
    return np.asarray(squared * VARIANCE * arc_cosine(first @ second.T / squared))
