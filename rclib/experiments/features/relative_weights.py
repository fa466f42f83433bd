"""Frames of notebook 74: weights of coders, networks resized by paper A's transfer, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.features.relative_nets import Coder
from rclib.experiments.features.relative_representations import Coders, pairs
from rclib.experiments.features.relative_runs import images, mean_field_runs, word_runs
from rclib.experiments.features.spaces import linear_map, procrustes, relative, retrieval
from rclib.nets.mlp import MLP
from rclib.resizing.mlp import resize, resize_maps
from rclib.rowcolumn.measure import chance_level, correlations, mean_vectors
from rclib.runs import sweep
from rclib.runs.stacked import sweep_stacked
from rclib.stats.slopes import slope

__all__ = ["distances", "inner_means", "law", "resized", "weights", "words"]


def _inner(coder: Coder) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """The encoder's last two matrices and their indices; they share that called h.

    After convolutions h is the channel, and the last matrix has an axis of places besides.
    """
    own = dict(coder.named_parameters())
    if not coder.shape.channels:
        return {"E1": own["E1"], "E": own["E"]}, {"E1": ("h", "x"), "E": ("z", "h")}
    kernel = f"K{len(coder.shape.channels)}"
    last = own["E"].view(coder.shape.latent, len(own[kernel]), -1)
    return {kernel: own[kernel], "E": last}, {kernel: ("h", "c", "a", "b"), "E": ("z", "h", "p")}


def inner_means(coder: Coder) -> tuple[float, int]:
    """Correlation of the two mean vectors over h of the encoder's last two tensors, and their
    length."""
    tensors, axes = _inner(coder)
    vectors = mean_vectors(tensors, axes)["h"]
    found = correlations({"h": vectors})
    return float(found.matrix[0, 1]), found.n


def _alike(a: Tensor, b: Tensor) -> float:
    """|correlation| of two tensors' entries."""
    return abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1]))


def weights(coders: Coders) -> pd.DataFrame:
    """seed, entries, means, inside, spectra: the encoder's last matrix E of one seed and another.

    entries : |correlation| of its entries. means : that of its means over latents, over its 95
    percent chance level. inside : |correlation| of these with the means of the tensor before,
    within one network, over its level. spectra : largest difference of the sorted eigenvalues of
    E Eᵀ over the largest of them.
    """
    rows = []
    last = [network.get_parameter("E").detach().double() for network in coders.ends]
    values = [torch.linalg.svdvals(e).square() for e in last]
    inside = [abs(c) / chance_level(n) for c, n in map(inner_means, coders.ends)]
    for i, j in pairs(len(last)):
        means = _alike(last[i].mean(0), last[j].mean(0)) / chance_level(last[i].shape[1])
        apart = (values[i] - values[j]).abs().max() / torch.maximum(values[i], values[j]).max()
        rows.append((coders.seeds[i], _alike(last[i], last[j]), means, inside[i], float(apart)))
    frame = pd.DataFrame(rows, columns=["seed", "entries", "means", "inside", "spectra"])
    return frame.groupby("seed", sort=False).mean().reset_index()


def _mean_field(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any], width: int
) -> list[MLP]:
    """Trained networks of a width."""
    configs = [{**settings, "width": width, "seed": seed} for seed in seeds]
    runs = sweep_stacked(
        mean_field_runs, configs, members=["seed"], data=data, description="mean-field networks"
    )
    inputs = data.x_train.shape[1] // int(settings["pool"]) ** 2
    shell = MLP(inputs, width, data.n_classes, depth=3)
    return [
        shell.like(width, {name: torch.from_numpy(value) for name, value in run.items()})
        for run in runs
    ]


def _last_hidden(model: MLP, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.forward_all(x)[1][-1]


def resized(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any], *, width: int,
    widths: Sequence[int], anchors: int, draws: int = 4, n_test: int = 360,
) -> pd.DataFrame:  # fmt: skip
    """seed, width, arm, distance, mrr, error: networks beside one trained at `width`.

    Spaces are last hidden layers. distance : root mean square difference of the relative codes of
    test images from the source's. mrr : images looked for by them. error : share of wrong classes.
    arms : "resized" (one index map for each hidden index), "known maps" (the source's own neurons
    picked by the map of the last hidden index, compared with the resized network), "broken maps"
    (r1 = 1, a map of its own for every tensor), means over `draws` of the maps; and "separate"
    (trained at that width from another seed).
    """
    x, x_test = images(data, int(settings["pool"]))
    points, first, y = x_test[:n_test], x[:anchors], data.y_test[:n_test]

    def spaces(model: MLP) -> tuple[Tensor, Tensor]:
        return _last_hidden(model, points), _last_hidden(model, first)

    rows: list[tuple[Any, ...]] = []
    sources = _mean_field(data, seeds, settings, width)
    others = [1000 + seed for seed in seeds]
    apart = {size: _mean_field(data, others, settings, size) for size in widths}
    for place, (seed, source) in enumerate(zip(seeds, sources, strict=True)):
        z, a = spaces(source)
        own = relative(z, a)
        for size in widths:
            model = apart[size][place]
            wrong = _wrong(model, points, y)
            rows.append((seed, size, "separate", *_apart(own, relative(*spaces(model))), wrong))
            for draw in range(100 * seed, 100 * seed + draws):
                for arm, rate in (("resized", 0.0), ("broken maps", 1.0)):
                    model = resize(source, size, random_rate=rate, seed=draw)
                    found, wrong = relative(*spaces(model)), _wrong(model, points, y)
                    rows.append((seed, size, arm, *_apart(own, found), wrong))
                    if arm == "resized":
                        picked = resize_maps(source, size, seed=draw)["W3", 1]
                        known = relative(z[:, picked], a[:, picked])
                        rows.append((seed, size, "known maps", *_apart(known, found), float("nan")))
    frame = pd.DataFrame(rows, columns=["seed", "width", "arm", "distance", "mrr", "error"])
    return frame.groupby(["seed", "width", "arm"], sort=False).mean().reset_index()


def distances(frame: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Distances of `resized`, one row a seed, one column a width."""
    return frame[frame.arm == arm].pivot(index="seed", columns="width", values="distance")


def law(frame: pd.DataFrame, arm: str) -> pd.Series:
    """Log-log slope of the distance against the width, by seed."""
    table = distances(frame, arm)
    found = {seed: slope(list(table.columns), list(row)) for seed, row in table.iterrows()}
    return pd.Series(found, name="slope").rename_axis("seed")


def _apart(one: Tensor, other: Tensor) -> tuple[float, float]:
    distance = float((one - other).double().square().mean().sqrt())
    return distance, retrieval(one, other).mrr


def _wrong(model: MLP, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) != y).double().mean())


def words(
    data: TextData, draws: Sequence[int], *, windows: Sequence[int], anchors: int, k: int = 10,
    **settings: int,
) -> pd.DataFrame:  # fmt: skip
    """seed, arm, mrr, cosine, jaccard: words of one embedding looked for in another.

    One is of the text's first half and the first window, the other of the second ones. draws :
    seeds of the anchors, drawn among the words; the other words are looked for. arms : as in
    `relative_representations.comparison`. settings : of `word_runs`.
    """
    configs = [{**settings, "half": half, "window": w} for half, w in enumerate(windows)]
    u, v = (
        torch.from_numpy(run["vectors"])
        for run in sweep.run(word_runs, configs, data=data, description="embeddings")
    )
    rows: list[tuple[Any, ...]] = []
    for seed in draws:
        order = torch.from_numpy(np.random.RandomState(seed).permutation(len(u)))
        chosen, rest = order[:anchors], order[anchors:]
        one, other = relative(u[rest], u[chosen]), relative(v[rest], v[chosen])
        mixed = one[:, torch.from_numpy(np.random.RandomState(seed).permutation(anchors))]
        for arm, a, b in (
            ("absolute", u[rest], v[rest]),
            ("relative", one, other),
            ("shuffled", mixed, other),
            ("Procrustes", procrustes(u[chosen], v[chosen])(u[rest]), v[rest]),
            ("linear", linear_map(u[chosen], v[chosen])(u[rest]), v[rest]),
        ):
            found = retrieval(a, b, k=k)
            rows.append((seed, arm, found.mrr, found.cosine, found.jaccard))
    return pd.DataFrame(rows, columns=["seed", "arm", "mrr", "cosine", "jaccard"])
