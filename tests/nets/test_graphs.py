"""nets.graphs: aggregation against networkx, and starts against closed forms and Monte Carlo."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

from rclib.nets.graphs import RULES, aggregation, path_sums, start_variances

SHARED: dict[str, Any] = {"layers": 5, "width": 16, "classes": 4}


def _graph(n: int = 40) -> np.ndarray:
    return np.asarray(nx.to_numpy_array(nx.barabasi_albert_graph(n, 3, seed=0)))


def test_aggregations_are_those_of_networkx_and_of_their_names() -> None:
    a = _graph()
    looped = nx.from_numpy_array(a + np.eye(len(a)))
    # Of a graph with loops networkx takes row sums of its matrix, which have a loop once.
    expected = np.eye(len(a)) - nx.normalized_laplacian_matrix(looped).toarray()
    assert np.allclose(aggregation(a, "symmetric"), expected)
    assert np.allclose(aggregation(a, "mean").sum(1), 1)
    h = np.random.default_rng(0).standard_normal((len(a), 3))
    near = [np.append(np.flatnonzero(row), v) for v, row in enumerate(a)]
    assert np.allclose(aggregation(a, "sum") @ h, [h[i].sum(0) for i in near])
    assert np.allclose(aggregation(a, "mean") @ h, [h[i].mean(0) for i in near])


def test_path_sums_of_a_star_by_hand() -> None:
    """Centre and k leaves, loops: c' = c + k l, l' = c + l; from ones with k = 3."""
    star = np.zeros((4, 4))
    star[0, 1:] = star[1:, 0] = 1
    found = np.exp(path_sums(aggregation(star, "sum"), np.ones(4), 2))
    assert found == pytest.approx([16 + 3 * 4, 10**2 + 3 * 36])


def test_path_sums_do_not_overflow() -> None:
    logs = path_sums(aggregation(np.ones((50, 50)) - np.eye(50), "sum"), np.ones(50), 400)
    assert logs == pytest.approx(np.log(50) * (2 * np.arange(1, 401) + 1))


@pytest.mark.parametrize("kind", ["symmetric", "mean"])
def test_on_a_regular_graph_with_even_features_virgo_knows_no_graph(kind: str) -> None:
    a = nx.to_numpy_array(nx.random_regular_graph(4, 30, seed=1))
    matrix, x = aggregation(a, kind), np.ones((30, 7))
    kaiming = start_variances("kaiming", matrix, x, **SHARED)
    assert start_variances("forward", matrix, x, **SHARED) == pytest.approx(kaiming, rel=1e-9)
    expected = [2 / 16] * 4 + [1 / 3]
    assert start_variances("backward", matrix, x, **SHARED) == pytest.approx(expected, rel=1e-9)


def test_without_edges_virgo_forward_is_kaiming() -> None:
    x = np.random.default_rng(2).standard_normal((30, 7))
    matrix = aggregation(np.zeros((30, 30)), "sum")
    kaiming = start_variances("kaiming", matrix, x, **SHARED)
    assert start_variances("forward", matrix, x, **SHARED) == pytest.approx(kaiming, rel=1e-9)
    edges = aggregation(_graph(30), "sum")  # the control that must differ
    assert start_variances("forward", edges, x, **SHARED)[-1] < 0.1 * kaiming[-1]


def test_rules_by_direct_powers_and_the_harmonic_mean() -> None:
    x = np.random.default_rng(3).random((40, 6))
    matrix = aggregation(_graph(), "sum")
    power = [np.linalg.matrix_power(matrix, j) for j in range(6)]
    f = [np.sum((p @ x.mean(1)) ** 2) for p in power]
    b = [np.sum((p @ np.ones(40)) ** 2) for p in power]
    forward = [2 / 6] + [2 / 16 * f[j - 1] / f[j] for j in range(2, 6)]
    backward = [2 / 16 * b[j - 1] / b[j] for j in range(5, 1, -1)] + [40 / (3 * b[1])]
    assert start_variances("forward", matrix, x, **SHARED) == pytest.approx(forward)
    assert start_variances("backward", matrix, x, **SHARED) == pytest.approx(backward)
    harmonic = [2 * p * q / (p + q) for p, q in zip(forward, backward, strict=True)]
    assert start_variances("virgo", matrix, x, **SHARED) == pytest.approx(harmonic)
    plain = [(p + q) / 2 for p, q in zip(forward, backward, strict=True)]
    assert start_variances("virgo mean", matrix, x, **SHARED) == pytest.approx(plain)
    out = [2 / 16] * 4 + [2 / 4]
    assert start_variances("kaiming out", matrix, x, **SHARED) == pytest.approx(out)
    xavier = [2 / 22, 2 / 32, 2 / 32, 2 / 32, 2 / 20]
    assert start_variances("xavier", matrix, x, **SHARED) == pytest.approx(xavier)


@pytest.mark.parametrize("rule", RULES)
def test_names_of_nodes_do_not_matter(rule: str) -> None:
    a, x = _graph(), np.random.default_rng(4).standard_normal((40, 6))
    order = np.random.default_rng(5).permutation(40)
    one = start_variances(rule, aggregation(a, "symmetric"), x, **SHARED)
    moved = aggregation(a[order][:, order], "symmetric")
    assert start_variances(rule, moved, x[order], **SHARED) == pytest.approx(one, rel=1e-9)


def test_mean_squares_of_linear_networks_follow_the_identity() -> None:
    """E ‖h_v^L‖² / m = Π (m_{l-1} v_l) [Â^L X Xᵀ Â^Lᵀ]_vv / m_0, and half of it after one relu."""
    random = np.random.default_rng(6)
    x = random.standard_normal((40, 6))
    matrix = aggregation(_graph(), "symmetric")
    v = start_variances("kaiming", matrix, x, layers=3, width=32, classes=2)[:2]
    draws = 3000
    w1, w2 = (
        random.uniform(-1, 1, (draws, rows, 32)) * np.sqrt(3 * each)
        for rows, each in zip((6, 32), v, strict=True)
    )
    first = matrix @ (x @ w1)
    found = np.mean((matrix @ (first @ w2)) ** 2, axis=(0, 2))
    spread = np.sum((matrix @ matrix @ x) ** 2, 1) / 6
    assert found == pytest.approx(6 * v[0] * 32 * v[1] * spread, rel=0.1)
    once = np.mean(np.maximum(first, 0) ** 2, axis=(0, 2))
    assert once == pytest.approx(v[0] * np.sum((matrix @ x) ** 2, 1) / 2, rel=0.1)


def test_what_is_refused() -> None:
    eye, x = np.eye(3), np.ones((3, 2))
    with pytest.raises(ValueError, match="kind must be"):
        aggregation(np.zeros((3, 3)), "max")
    for wrong in (eye, -(1 - eye), np.triu(1 - eye)):
        with pytest.raises(ValueError, match="adjacency must be symmetric"):
            aggregation(wrong, "sum")
    with pytest.raises(ValueError, match="adjacency must be square"):
        aggregation(np.zeros((3, 2)), "sum")
    with pytest.raises(ValueError, match="do not fit"):
        path_sums(eye, np.ones(2), 1)
    with pytest.raises(ValueError, match="zero after 1 aggregations"):
        start_variances("forward", eye, 0 * x, **SHARED)
    with pytest.raises(ValueError, match="rule must be"):
        start_variances("plain", eye, x, **SHARED)
    with pytest.raises(ValueError, match="features must be a matrix"):
        start_variances("xavier", eye, x[0], **SHARED)
    with pytest.raises(ValueError, match="layers must be"):
        start_variances("xavier", eye, x, layers=1, width=2, classes=2)
