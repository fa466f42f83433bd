"""Aggregation matrices of graph networks, and the variances of their weights at the start.

H^l = relu(Â H^{l-1} W_l), W_l (m_{l-1}, m_l), the last layer linear, no biases. With A the
adjacency with a loop at every node and D its row sums, Â is A ("sum"), D⁻¹ A ("mean") or
D^{-1/2} A D^{-1/2} ("symmetric"). Virgo (Li et al., ICML 2023, arXiv 2312.02622) counts the paths
of the graph at hand:

    forward    F_l = ‖Â^l x̄‖², x̄ (n,) the mean of the features of every node:
               v_1 = 2 / m_0, v_l = (2 / m) F_{l-1} / F_l
    backward   B_j = ‖Âʲ 1‖²: the last layer n / ((C - 1) B_1), the one that is j-th from the end
               (2 / m) B_{j-1} / B_j
    virgo      the harmonic mean of both; "virgo mean" is the plain one

for n nodes, m hidden units, C classes. The rules are those of the authors' code (utils.py of
LspongebobJH/virgo_icml2023), which sums paths of the *symmetric* aggregation for every network,
also for those that sum or average; here the caller names the matrix, so that both can be compared.
The code leaves open the transpose in the backward rule, which only "mean" would need; as there, Â
is used. Kaiming is 2 / fan in ("kaiming out": 2 / fan out), Xavier 2 / (fan in + fan out). Weights
are drawn uniform on ±√(3 v).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rclib.checks.arguments import choice, count
from rclib.checks.arrays import Floats, real_array

__all__ = ["AGGREGATIONS", "RULES", "aggregation", "path_sums", "start_variances"]

AGGREGATIONS = ("sum", "mean", "symmetric")
RULES = ("xavier", "kaiming", "kaiming out", "forward", "backward", "virgo", "virgo mean")


def aggregation(adjacency: Any, kind: str) -> Floats:
    """Â (n, n) of an undirected graph, a loop added at every node.

    adjacency : (n, n), symmetric, no negative entry, zero diagonal; entries may be weights.
    kind : one of AGGREGATIONS. Raises ValueError for other kinds and other adjacencies.
    """
    choice("kind", kind, AGGREGATIONS)
    a = real_array("adjacency", adjacency)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not a.size:
        raise ValueError(f"adjacency must be square, got shape {a.shape}")
    if (a < 0).any() or not np.array_equal(a, a.T) or a.diagonal().any():
        raise ValueError("adjacency must be symmetric, without loops and negative entries")
    looped = a + np.eye(len(a))
    degree = looped.sum(1)
    if kind == "mean":
        return np.asarray(looped / degree[:, None])
    if kind == "symmetric":
        root = np.sqrt(degree)
        return np.asarray(looped / root[:, None] / root)
    return np.asarray(looped)


def path_sums(matrix: Any, vector: Any, depth: int) -> Floats:
    """log ‖matrix^l vector‖² for l = 1 ... depth, (depth,); logarithms, so that no depth overflows.

    matrix : (n, n). vector : (n,). Raises ValueError for other shapes, or if a product is zero.
    """
    a, x = real_array("matrix", matrix), real_array("vector", vector)
    if a.ndim != 2 or x.ndim != 1 or a.shape != (len(x), len(x)):
        raise ValueError(f"matrix and vector do not fit: shapes {a.shape} and {x.shape}")
    found, log = [], 0.0
    for place in range(1, count("depth", depth) + 1):
        x = a @ x
        norm = float(np.linalg.norm(x))
        if not norm:
            raise ValueError(f"vector is zero after {place} aggregations: no rule is defined")
        x, log = x / norm, log + 2 * float(np.log(norm))
        found.append(log)
    return np.array(found)


def start_variances(
    rule: str, matrix: Any, features: Any, *, layers: int, width: int, classes: int
) -> Floats:
    """Variances v_l of the weights of all layers, (layers,), by the rule of the module's text.

    rule : one of RULES. matrix : Â (n, n), whose paths count; Xavier and Kaiming do not use it.
    features : (n, m_0). Raises ValueError for unknown rules, fewer than two layers or classes.
    """
    choice("rule", rule, RULES)
    for name, value, least in (("layers", layers, 2), ("width", width, 1), ("classes", classes, 2)):
        count(name, value, least)
    x = real_array("features", features)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"features must be a matrix with entries, got shape {x.shape}")
    into = np.array([x.shape[1]] + [width] * (layers - 1), dtype=np.float64)
    out = np.array([width] * (layers - 1) + [classes], dtype=np.float64)
    if rule in ("kaiming", "kaiming out"):
        return np.asarray(2 / (into if rule == "kaiming" else out))
    if rule == "xavier":
        return np.asarray(2 / (into + out))
    if rule in ("virgo", "virgo mean"):
        shared: dict[str, Any] = {"layers": layers, "width": width, "classes": classes}
        one, other = (start_variances(r, matrix, x, **shared) for r in ("forward", "backward"))
        return np.asarray(2 / (1 / one + 1 / other) if rule == "virgo" else (one + other) / 2)
    vector = x.mean(1) if rule == "forward" else np.ones(len(x))
    logs = path_sums(matrix, vector, layers)
    hidden = 2 / width * np.exp(-np.diff(logs))
    if rule == "forward":
        return np.concatenate([[2 / x.shape[1]], hidden])
    last = len(x) / ((classes - 1) * np.exp(logs[0]))
    return np.concatenate([[last], hidden])[::-1].copy()
