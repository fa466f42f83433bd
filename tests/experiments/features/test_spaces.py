"""features.spaces: relative codes, retrieval and maps, against other routes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from rclib.experiments.features.spaces import (
    cka,
    explained,
    linear_map,
    procrustes,
    relative,
    retrieval,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def turn(d: int, seed: int = 9) -> Tensor:
    return torch.linalg.qr(drawn(d, d, seed=seed))[0]


def test_a_relative_code_is_cosines() -> None:
    z, a = drawn(7, 3), drawn(5, 3, seed=1)
    r = relative(z, a)
    by_hand = float(z[2] @ a[4] / (z[2].norm() * a[4].norm()))
    assert float(r[2, 4]) == pytest.approx(by_hand, abs=1e-12)
    assert float(r.abs().max()) <= 1 + 1e-12
    assert relative(a, a).diagonal().tolist() == pytest.approx([1.0] * 5)
    assert int(torch.linalg.matrix_rank(relative(drawn(40, 3), drawn(20, 3, seed=2)))) == 3


def test_orthonormal_anchors_give_the_turned_direction() -> None:
    z, q = drawn(7, 4), turn(4)
    assert torch.allclose(relative(z, q), z @ q.T / z.norm(dim=1, keepdim=True))


def test_rotation_and_scale_do_not_matter_and_translation_does() -> None:
    z, a, q = drawn(7, 3), drawn(5, 3, seed=1), turn(3)
    assert torch.allclose(relative(10 * z @ q, 10 * a @ q), relative(z, a))
    assert not torch.allclose(relative(z + 1, a + 1), relative(z, a), atol=0.1)
    sheared = torch.diag(torch.tensor([1.0, 3.0, 9.0], dtype=torch.double))
    assert not torch.allclose(relative(z @ sheared, a @ sheared), relative(z, a), atol=0.1)


def test_retrieval_by_hand() -> None:
    """Three directions in the plane; the second row's partner comes second."""
    v = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    u = torch.tensor([[1.0, 0.1], [1.0, 0.5], [-1.0, 0.0]])
    found = retrieval(u, v, k=1)
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1) / 3)
    cosines = [1 / 1.01**0.5, 0.5 / 1.25**0.5, 1.0]
    assert found.cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.jaccard == pytest.approx(2 / 3)  # the second row's neighbour is the first


def test_ties_count_against_the_partner() -> None:
    same = torch.ones(4, 2)
    assert retrieval(same, same, k=1).mrr == pytest.approx(1 / 4)
    assert retrieval(drawn(9, 5), drawn(9, 5), k=3).mrr == 1.0


def test_jaccard_is_of_sets() -> None:
    u, v = drawn(12, 3), drawn(12, 3, seed=4)
    unit = [np.asarray(s / s.norm(dim=1, keepdim=True)) for s in (u, v)]
    shares = []
    for row, own in zip(unit[0], unit[1], strict=True):
        one, other = (set(np.argsort(-(unit[1] @ x))[:4]) for x in (row, own))
        shares.append(len(one & other) / len(one | other))
    assert retrieval(u, v, k=4).jaccard == pytest.approx(np.mean(shares))


def test_retrieval_refuses() -> None:
    with pytest.raises(ValueError, match="one shape"):
        retrieval(drawn(4, 2), drawn(4, 3))
    with pytest.raises(ValueError, match="k must be at most the 4 rows, got 5"):
        retrieval(drawn(4, 2), drawn(4, 2), k=5)


def test_procrustes_is_scipys_and_undoes_what_it_can() -> None:
    a, b = drawn(30, 4), drawn(30, 4, seed=3)
    q, size = orthogonal_procrustes(a - a.mean(0), b - b.mean(0))
    scale = size / float((a - a.mean(0)).square().sum())
    expected = scale * (np.asarray(a - a.mean(0)) @ q) + np.asarray(b.mean(0))
    assert np.allclose(procrustes(a, b)(a), expected)
    moved = 3 * a @ turn(4) + 2
    assert torch.allclose(procrustes(a[:6], moved[:6])(a), moved)


def test_procrustes_between_sizes() -> None:
    """Into a larger space nothing is lost; out of it what lies in the common directions stays."""
    a = drawn(30, 3)
    wide = a @ turn(5)[:3]
    assert torch.allclose(procrustes(a, wide)(a), wide)
    assert torch.allclose(procrustes(wide, a)(wide), a)


def test_a_linear_map_is_least_squares() -> None:
    a, b = drawn(30, 4), drawn(30, 3, seed=3)
    ones = torch.ones(30, 1, dtype=torch.double)
    best = torch.linalg.lstsq(torch.cat([a, ones], 1), b).solution
    assert torch.allclose(linear_map(a, b)(a), torch.cat([a, ones], 1) @ best)
    # Fewer anchors than latents: they are met, and the map is finite.
    few = linear_map(a[:3], b[:3])
    assert torch.allclose(few(a[:3]), b[:3])
    with pytest.raises(ValueError, match="equally many rows"):
        linear_map(a, b[:9])


def test_explained_and_cka() -> None:
    a = drawn(30, 4)
    assert explained(a, a) == 1.0
    assert explained(a.mean(0).expand_as(a), a) == pytest.approx(0.0)
    assert cka(a, 5 * a @ turn(4) + 1) == pytest.approx(1.0)
    assert cka(a, drawn(30, 4, seed=8)) < 0.5
    # The closed form of kernels: trace of centred products over their norms.
    b = drawn(30, 2, seed=5)
    h = torch.eye(30, dtype=torch.double) - 1 / 30
    k, m = h @ a @ a.T @ h, h @ b @ b.T @ h
    assert cka(a, b) == pytest.approx(float((k * m).sum() / (k.norm() * m.norm())))
