"""What RC sampling keeps of a trained matrix: spectrum, α, spikes, correlations and loss.

The middle matrix W2 of a 3-layer network of width N is resampled to M x M (paper A, Algorithm 1)
for targets M below and above N and random rates r1 from 0 to 1. The spectrum of the result is
predicted from the source's row-column part, the variance of what is left beside it and the numbers
of draws (`rclib.spectral.resampled`), and measured.

r1 is the share of new neurons whose source is drawn anew for every tensor (a working definition,
`rclib.rowcolumn.transfer`). Rows and columns of W2 run over different neurons, so their maps are
independent draws at every r1: the law of its spectrum does not depend on r1. What ties it to other
tensors does. As a measure of that, the share of its row variables that the last matrix explains:

    R² = 1 - |Y - proj Y|² / |Y|²,  adjusted for the numbers of neurons and outputs,

Y (M, k) the k leading left singular vectors of W2 times their singular values, projected onto the
columns of W3ᵀ (M, classes), all without means over the neurons. With a share 1 - r1 of pairs left
the covariance falls like 1 - r1 and R² like (1 - r1)².
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import svds
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.experiments.beyond import networks
from rclib.nets.mlp import MLP
from rclib.resizing.mlp import resize_maps
from rclib.rowcolumn.measure import correlations, largest_correlation, mean_vectors
from rclib.rowcolumn.transfer import IndexMaps, gather
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import marchenko_pastur
from rclib.spectral.resampled import (
    ResampledSpectrum,
    resampled_spectrum,
    weighted_matrix,
)
from rclib.spectral.spectra import esd

__all__ = ["TINY", "explained", "parts", "positive", "transfer_run"]

_SOURCE = {**networks.TINY["train_network"], "width": 24, "start": "zero mean"}
TINY = {
    "transfer_run": {
        "source": _SOURCE, "targets": [16, 30], "random_rates": [0.0, 1.0], "products": 2,
        "leading": 2,
    }
}  # fmt: skip


def parts(
    W: np.ndarray, start: np.ndarray, products: int
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], float]:
    """Row-column part of a trained matrix (m, n) and the variance of the entries beside it.

    The first is the leading `products` outer products (left (m, k), strengths (k,), right (n, k))
    of the matrix without what its start was beside a mean.
    """
    u, s, vt = np.linalg.svd(W - (start - start.mean()), full_matrices=False)
    k = products
    rest = W - (u[:, :k] * s[:k]) @ vt[:k]
    return (u[:, :k], s[:k], vt[:k].T), float(np.square(rest).mean())


def explained(W2: np.ndarray, W3: np.ndarray, leading: int) -> float:
    """R² of the module's docstring: W2 (M, M), W3 (classes, M). NaN for too few neurons."""
    centred = W2 - W2.mean()
    # A fixed vector to begin with: the same bits again.
    u, s, _ = svds(centred, k=leading, v0=np.ones(len(centred)))
    y, x = u * s, W3.T - W3.mean(1)
    y = y - y.mean(0)
    base, sizes, _ = np.linalg.svd(x, full_matrices=False)
    base = base[:, sizes > 1e-9 * sizes[0]]
    n, p = base.shape
    if n - p - 1 < 1:
        return float("nan")
    raw = float(np.square(base.T @ y).sum() / np.square(y).sum())
    return float(1 - (1 - raw) * (n - 1) / (n - p - 1))


def transfer_run(
    data: Dataset,
    *,
    source: Mapping[str, Any],
    targets: Sequence[int],
    random_rates: Sequence[float],
    products: int,
    leading: int,
) -> Arrays:
    """Stored run: one drawing of a `train_network` run to every target M and random rate r1.

    For T targets and R rates: values (T, R, N), eigenvalues of W2ᵀW2, ascending, with zeros in
    front where there are fewer than N; identity (T, R), the largest difference of the singular
    values from those of the weighted source, over the largest; rank, distinct (T, R), positive
    singular values and the smaller number of different rows or columns drawn; loss, tied, means
    (T, R), test loss, R² and the largest correlation of means within an index.
    Of the drawings at the first rate: scale (T,), the factor of the entries; predicted (T, N),
    like values; spikes, seen (T,), eigenvalues beyond the edge, predicted and seen; ks, ks_plain,
    ks_shape (T,), distance of the bulk to the prediction, to Marchenko-Pastur of the same shape and
    mean square with the zeros, and without them at the shape of the rows and columns drawn; x,
    below (T, p), the predicted bulk; untrained (T, N), eigenvalues of the start under the same map.
    Of the source: start_values, trained_values (N,), start_loss, own_loss, own_tied, own_means,
    aligned ().
    """
    model = networks.network_at(data, source, source["epochs"])
    names = ("parametrization", "start", "width", "seed")
    begin = networks.build(data, **{name: source[name] for name in names})
    W, W0 = (m.get_parameter("W2").detach().double().numpy() for m in (model, begin))
    products_, variance = parts(W, W0, products)
    drawn: list[dict[str, Any]] = []
    predicted: list[dict[str, Any]] = []
    for t, target in enumerate(targets):
        for r, rate in enumerate(random_rates):
            seed = 1000 * int(source["seed"]) + 10 * t + r
            maps = resize_maps(model, target, random_rate=rate, seed=seed)
            moved = model.like(target, _gathered(model, maps))
            draws, found = _drawn(model, W, maps)
            drawn.append({**found, **_network(moved, data, leading)})
            if r == 0:
                scale = _scale(model, target)
                law = resampled_spectrum(
                    products_, rows=draws[0], columns=draws[1], variance=variance, scale=scale
                )
                predicted.append(_predicted(law, scale, positive(found["values"]), draws, target))
                untrained = positive(scale**2 * esd(weighted_matrix(W0, *draws)))
                predicted[-1]["untrained"] = _filled(untrained, len(W))
    shape = (len(targets), len(random_rates))
    out = {
        name: np.stack([row[name] for row in drawn]).reshape(*shape, *np.shape(drawn[0][name]))
        for name in drawn[0]
    }
    out |= {name: np.stack([row[name] for row in predicted]) for name in predicted[0]}
    own = {f"own_{name}": value for name, value in _network(model, data, leading).items()}
    return {
        **out,
        **own,
        "aligned": np.asarray(_aligned(W0, products_)),
        "start_loss": np.asarray(_loss(begin, data)),
        "start_values": esd(W0),
        "trained_values": esd(W),
    }


def _aligned(start: np.ndarray, products: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """u S v for the leading outer product θ u vᵀ, S the start without mean in units of its standard
    deviation: of order one where the start is independent of them, as the prediction takes it."""
    u, _, v = products
    return float(abs(u[:, 0] @ (start - start.mean()) @ v[:, 0]) / start.std())


def _gathered(model: MLP, maps: IndexMaps) -> dict[str, torch.Tensor]:
    return gather(model.state_dict(), model.axes, maps, fan_in_exponents=model.fan_in_exponents())


def _scale(model: MLP, target: int) -> float:
    """The factor of the entries of W2."""
    return float((model.sizes[1] / target) ** (1.0 - model.fan_in_exponents().get("W2", 0.0)))


def _drawn(
    model: MLP, W: np.ndarray, maps: IndexMaps
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Numbers of draws of rows and columns, and the spectrum of the drawn matrix."""
    n, m = len(W), len(maps["W2", 0])
    draws = [np.bincount(maps["W2", axis].numpy(), minlength=n).astype(float) for axis in (0, 1)]
    big = gather(
        {"W2": torch.from_numpy(W)}, {"W2": model.axes["W2"]}, maps,
        fan_in_exponents=model.fan_in_exponents(),
    )["W2"].numpy()  # fmt: skip
    found = np.linalg.svd(big, compute_uv=False)
    weighted = np.linalg.svd(weighted_matrix(W, *draws), compute_uv=False) * _scale(model, m)
    size = max(m, n)
    both = [np.concatenate([s, np.zeros(size - s.size)]) for s in (found, weighted)]
    values = np.square(found[found > m * np.finfo(float).eps * found[0]])[::-1]
    return draws, {
        "values": _filled(values, n),
        "identity": np.abs(both[0] - both[1]).max() / found[0],
        "rank": np.asarray(values.size),
        "distinct": np.asarray(min(np.count_nonzero(d) for d in draws)),
    }


def _predicted(
    law: ResampledSpectrum,
    scale: float,
    values: np.ndarray,
    draws: Sequence[np.ndarray],
    target: int,
) -> dict[str, Any]:
    return {
        "scale": np.asarray(scale),
        "predicted": _filled(law.eigenvalues(), draws[0].size),
        "spikes": np.asarray(law.spikes.size),
        "seen": np.asarray((values > law.edge).sum()),
        **_distances(law, values, target, [int(np.count_nonzero(d)) for d in draws]),
        "x": law.x,
        "below": law.below,
    }


def _distances(
    law: ResampledSpectrum, values: np.ndarray, m: int, distinct: Sequence[int]
) -> dict[str, float]:
    """KS distances of the bulk to the prediction and to two Marchenko-Pastur laws."""
    bulk = values[: values.size - law.spikes.size]
    low, high = min(distinct), max(distinct)
    plain = marchenko_pastur(1.0, float(bulk.sum()) / m)
    shape = marchenko_pastur(low / high, float(bulk.sum()) / low)
    zeros = np.zeros(m - values.size)
    return {
        "ks": law.distance(values),
        "ks_plain": _ks(np.concatenate([zeros, bulk]), plain.cdf),
        "ks_shape": _ks(bulk, shape.cdf),
    }


def _ks(values: np.ndarray, cdf: Any) -> float:
    at, shares = cdf(values), np.arange(values.size + 1) / values.size
    # Ties (zeros) are one step.
    before, after = (np.searchsorted(values, values, side=side) for side in ("left", "right"))
    return float(max(np.abs(at - shares[before]).max(), np.abs(at - shares[after]).max()))


def _network(model: MLP, data: Dataset, leading: int) -> dict[str, Any]:
    state = model.state_dict()
    found = correlations(mean_vectors(state, model.axes), model.sizes[1])
    W2, W3 = (state[name].double().numpy() for name in ("W2", "W3"))
    return {
        "loss": np.asarray(_loss(model, data)),
        "tied": np.asarray(explained(W2, W3, leading)),
        "means": np.asarray(largest_correlation(found, within=True).value),
    }


@torch.no_grad()
def _loss(model: MLP, data: Dataset) -> float:
    return float(cross_entropy(model(data.x_test), data.y_test))


def positive(values: np.ndarray) -> np.ndarray:
    """Those of `values` that are, in their order."""
    return values[values > 0]


def _filled(values: np.ndarray, n: int) -> np.ndarray:
    """Ascending values with zeros in front, (n,)."""
    return np.concatenate([np.zeros(n - values.size), values])
