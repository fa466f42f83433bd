"""starts.gnn_graphs: drawn graphs and graphs of images, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from rclib.data.images import load
from rclib.experiments.starts import gnn_graphs as graphs


def test_a_planted_partition_has_its_degree_and_homophily() -> None:
    labels = np.arange(600) % 3
    a = graphs.planted(labels, 8.0, 0.75, seed=3)
    assert np.array_equal(a, a.T)
    assert not a.diagonal().any()
    assert set(np.unique(a)) == {0.0, 1.0}
    same = labels[:, None] == labels
    assert a.sum() / 600 == pytest.approx(8.0, rel=0.05)
    assert a[same].sum() / a.sum() == pytest.approx(0.75, abs=0.03)
    # The probabilities that 300 nodes in three classes then have: 0.06 within, 0.01 between.
    small = np.arange(300) % 3
    drawn = [graphs.planted(small, 8.0, 0.75, seed=s) for s in range(30)]
    inside = (small[:, None] == small) & ~np.eye(300, dtype=bool)
    assert np.mean([d[inside].mean() for d in drawn]) == pytest.approx(0.06, rel=0.03)
    outside = small[:, None] != small
    assert np.mean([d[outside].mean() for d in drawn]) == pytest.approx(0.01, rel=0.03)
    with pytest.raises(ValueError, match=r"homophily must lie in \[0, 1\], got 1.5"):
        graphs.planted(labels, 8.0, 1.5, seed=0)
    with pytest.raises(ValueError, match="degree must ask for probabilities up to 1, got 500"):
        graphs.planted(labels, 500.0, 0.9, seed=0)


def test_preferential_attachment_counts_its_edges_and_has_hubs() -> None:
    a = graphs.graph(None, "preferential", "words", seed=1, n=300, attached=3).adjacency
    assert np.array_equal(a, a.T)
    assert a.sum() / 2 == 3 * (300 - 3)
    degree = a.sum(1)
    assert degree[3:].min() >= 3
    assert degree.max() > 5 * degree.mean()  # even attachment would stay far below
    planted = graphs.graph(None, "planted", "words", seed=1, n=300, degree=6.0).adjacency
    assert planted.sum(1).max() < 5 * planted.sum(1).mean()


def test_neighbours_are_the_nearest_by_brute_force() -> None:
    x = np.random.default_rng(0).standard_normal((40, 5))
    far = np.sum((x[:, None] - x) ** 2, axis=2) + 1e9 * np.eye(40)
    expected = np.zeros((40, 40))
    for i, row in enumerate(far):
        expected[i, np.argsort(row)[:4]] = 1
    assert np.array_equal(graphs.neighbours(x, 4), np.maximum(expected, expected.T))


def test_components_are_those_of_a_peer() -> None:
    x = np.random.default_rng(1).standard_normal((50, 8)) * np.arange(1, 9)
    found = graphs.components(x, 3)
    peer = PCA(3).fit_transform(x)
    assert np.mean(found**2) == pytest.approx(1.0)
    for one, other in zip(found.T, peer.T, strict=True):
        assert abs(np.corrcoef(one, other)[0, 1]) == pytest.approx(1.0)
    ratio = np.linalg.norm(found, axis=0) / np.linalg.norm(peer, axis=0)
    assert ratio == pytest.approx([ratio[0]] * 3)  # one number for all


def test_features_of_a_class_cancel_over_its_units_and_words_do_not() -> None:
    own = graphs.graph(None, "planted", "gaussian", seed=4, n=3000)
    means = np.array([own.features[own.labels == c].mean(0) for c in range(3)])
    assert np.abs(means).mean() == pytest.approx(0.3, abs=0.03)
    # A node's mean over 64 features is noise alone, of variance 1/64.
    assert own.features.mean(1).std() == pytest.approx(1 / 8, rel=0.05)
    assert np.abs([own.features.mean(1)[own.labels == c].mean() for c in range(3)]).max() < 0.02
    words = graphs.graph(None, "planted", "words", seed=4, n=3000).features
    assert set(np.unique(words)) == {0.0, 1.0}
    assert words.mean() == pytest.approx(0.1, abs=0.01)


def test_a_seed_draws_the_same_parts_and_another_others() -> None:
    one, same, other = (graphs.graph(None, "planted", "gaussian", seed=s, n=100) for s in (5, 5, 6))
    for name in ("adjacency", "features", "labels", "part"):
        assert np.array_equal(getattr(one, name), getattr(same, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    assert np.bincount(one.part).tolist() == [20, 20, 60]
    assert np.bincount(one.labels).tolist() == [34, 33, 33]


def test_images_are_joined_to_similar_ones() -> None:
    data = load("digits")
    own = graphs.graph(data, "neighbours", "images", seed=0, n=200, nearest=5)
    assert own.classes == 10
    assert own.features.shape == (200, 64)
    ends = np.argwhere(own.adjacency)
    alike = np.mean(own.labels[ends[:, 0]] == own.labels[ends[:, 1]])
    assert alike > 0.7  # a tenth by chance
    assert own.adjacency.sum(1).min() >= 5


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="kind must be"):
        graphs.graph(None, "ring", "words", seed=0, n=10)
    with pytest.raises(ValueError, match="features must be"):
        graphs.graph(None, "planted", "sounds", seed=0, n=10)
    with pytest.raises(ValueError, match="images for neighbours alone, got words for neighbours"):
        graphs.graph(None, "neighbours", "words", seed=0, n=10)
    with pytest.raises(ValueError, match="data must be given"):
        graphs.graph(None, "neighbours", "images", seed=0, n=10)
