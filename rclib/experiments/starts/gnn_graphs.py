"""Graphs of notebook 54 with their features and classes, drawn or built from images.

    planted      planted partition: an edge between two nodes of one class has probability
                 p_in = C h g / n, of two classes p_out = C (1 - h) g / ((C - 1) n), for about g
                 neighbours of which a share h (the homophily) is of the own class
    preferential Barabási and Albert, `attached` edges a new node; classes drawn without regard
                 to the edges
    neighbours   an edge between an image and each of its `nearest` images (Euclidean, of the
                 features), without direction

Features: "gaussian", x = z + 0.3 μ_c with z standard normal and μ_c of the class, half of its
entries 1 and half -1 in a random order, so that the mean over features is noise alone; "words",
each of them one with probability 0.1 or zero, as bags of words; "images", principal components,
divided by one number so that their mean square is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import kneighbors_graph

from rclib.checks.arguments import choice
from rclib.checks.arrays import Floats
from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs

__all__ = ["FEATURES", "KINDS", "Graph", "components", "graph", "neighbours", "planted"]

KINDS = ("planted", "preferential", "neighbours")
FEATURES = ("gaussian", "words", "images")
SHIFT, FREQUENCY = 0.3, 0.1


@dataclass(frozen=True)
class Graph:
    """An undirected graph whose nodes have features and classes.

    adjacency : (n, n) zeros and ones, no loops. features : (n, d). labels : (n,) below `classes`.
    part : (n,) 0 for training, 1 for validation, 2 for test.
    """

    adjacency: Floats
    features: Floats
    labels: np.ndarray
    part: np.ndarray
    classes: int


def planted(labels: np.ndarray, degree: float, homophily: float, *, seed: int) -> Floats:
    """Adjacency (n, n) of a planted partition of about equal classes 0 ... C - 1.

    Raises ValueError for a homophily outside [0, 1] or a degree that asks for a probability above
    one.
    """
    n, classes = len(labels), int(labels.max()) + 1
    if not 0 <= homophily <= 1:
        raise ValueError(f"homophily must lie in [0, 1], got {homophily}")
    inside = classes * homophily * degree / n
    outside = classes * (1 - homophily) * degree / ((classes - 1) * n)
    if not 0 < max(inside, outside) <= 1:
        raise ValueError(f"degree must ask for probabilities up to 1, got {degree} for {n} nodes")
    random = np.random.default_rng(seed)
    chance = np.where(labels[:, None] == labels, inside, outside)
    upper = np.triu(random.random((n, n)) < chance, 1).astype(np.float64)
    return np.asarray(upper + upper.T)


def _preferential(n: int, attached: int, *, seed: int) -> Floats:
    """Barabási and Albert: every end of an edge is one lot in the draw of a new neighbour."""
    random = np.random.default_rng(seed)
    found = np.zeros((n, n))
    lots = list(range(attached))
    for node in range(attached, n):
        chosen: set[int] = set()
        while len(chosen) < attached:
            chosen.add(lots[int(random.integers(len(lots)))])
        for other in sorted(chosen):
            found[node, other] = found[other, node] = 1.0
            lots += [node, other]
    return found


def components(x: Floats, count: int) -> Floats:
    """The `count` leading principal components of x (n, d), of mean square one: (n, count)."""
    centred = x - x.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    del values
    found = centred @ vectors[:, ::-1][:, :count]
    return np.asarray(found / np.sqrt(np.mean(found**2)))


def neighbours(x: Floats, nearest: int) -> Floats:
    """Adjacency (n, n): i and j are joined if one is among the `nearest` of the other."""
    one = kneighbors_graph(x, nearest, include_self=False).toarray()
    return np.asarray(np.maximum(one, one.T))


def graph(
    data: Dataset | None, kind: str, features: str, *, seed: int, n: int, d: int = 64,
    classes: int = 3, degree: float = 8.0, homophily: float = 0.75, attached: int = 3,
    nearest: int = 8, pool: int = 1, labelled: float = 0.2,
) -> Graph:  # fmt: skip
    """A graph of n nodes. Everything is drawn from the seed, edges, features and parts apart.

    kind, features : one of KINDS and FEATURES; "images" and "neighbours" belong together and take
        n training images of `data`, others leave it and take `classes`. d : features of a node.
    pool : of images, see `pooled_inputs`. labelled : share for training; as many for validation.

    Raises ValueError for unknown kinds and features, and those that do not fit together.
    """
    choice("kind", kind, KINDS), choice("features", features, FEATURES)
    if (kind == "neighbours") != (features == "images"):
        raise ValueError(f"features must be images for neighbours alone, got {features} for {kind}")
    random = np.random.default_rng([seed, 1])
    part = np.full(n, 2)
    order = np.random.default_rng([seed, 2]).permutation(n)
    share = round(labelled * n)
    part[order[:share]], part[order[share : 2 * share]] = 0, 1
    if kind == "neighbours":
        if data is None:
            raise ValueError("data must be given for a graph of images, got None")
        taken = random.permutation(len(data.x_train))[:n]
        pixels = pooled_inputs(data, pool)[0].double().numpy()[taken]
        x = components(pixels, d)
        labels = data.y_train.numpy()[taken]
        return Graph(neighbours(x, nearest), x, labels, part, data.n_classes)
    labels = random.permutation(np.arange(n) % classes)
    if features == "gaussian":
        signs = np.where(np.arange(d) % 2, 1.0, -1.0)
        means = np.array([random.permutation(signs) for _ in range(classes)])
        x = random.standard_normal((n, d)) + SHIFT * means[labels]
    else:
        x = (random.random((n, d)) < FREQUENCY).astype(np.float64)
    if kind == "planted":
        return Graph(planted(labels, degree, homophily, seed=seed), x, labels, part, classes)
    return Graph(_preferential(n, attached, seed=seed), x, labels, part, classes)
