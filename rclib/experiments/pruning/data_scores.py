"""Scores of training examples, and the subsets that they choose.

Paul, Ganguli and Dziugaite (arXiv 2107.07075). With p the softmax of the outputs f (K,) and y the
label, one-hot,

    EL2N = ‖p - y‖              GraNd = ‖∇_w ℓ(f(x), y)‖,        ℓ the cross-entropy,

each averaged over networks that differ in start and order of batches. Norms are averaged, not
gradients: E ‖g‖ is not ‖E g‖. For a ReLU network with layers h_l = relu(W_l h_{l-1} + b_l), the
squared gradient norm needs no gradient of the weights,

    ‖g‖² = Σ_l ‖δ_l‖² (‖h_{l-1}‖² + 1),   δ_L = p - y,   δ_{l-1} = (W_lᵀ δ_l) · 1[h_{l-1} > 0],

the one being that of the bias. `Forgetting` counts, as Toneva et al. (arXiv 1812.05159) do, how
often an example that was right when it was last seen is wrong when it is seen again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from rclib.checks.arguments import count, number

__all__ = [
    "Forgetting",
    "activations",
    "auc",
    "el2n",
    "grand",
    "rank_correlation",
    "split_half",
    "window",
    "wrong_labels",
]


def el2n(outputs: Tensor, labels: Tensor) -> Tensor:
    """‖softmax(outputs) - one-hot(labels)‖ of every example.

    outputs : (..., n, K). labels : (..., n), whole numbers below K. Returns (..., n), between 0
    and √2; at uniform probabilities √(1 - 1/K) for all.
    """
    return _error(outputs, labels).square().sum(-1).sqrt()


def _error(outputs: Tensor, labels: Tensor) -> Tensor:
    """δ_L = p - y, (..., n, K): the gradient of the cross-entropy in the outputs."""
    return outputs.softmax(-1) - torch.nn.functional.one_hot(labels, outputs.shape[-1])


def activations(tensors: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """x, the activations of every hidden layer and the outputs, of S ReLU networks at once.

    tensors : W1 (S, N_1, d), B1 (S, N_1), W2, ... (`rclib.nets.mlp.MLP` under SP). x : (n, d) or
    (S, n, d). Returns (S, n, N_l) for each l. Raises ValueError for a layer without its bias or
    its matrix.
    """
    depth = sum(name.startswith("W") for name in tensors)
    wanted = {f"{kind}{layer}" for layer in range(1, depth + 1) for kind in "WB"}
    if set(tensors) != wanted or not wanted:
        raise ValueError(f"tensors must be W1, B1, ... of every layer, got {sorted(tensors)}")
    hidden = [x.expand(len(tensors["W1"]), *x.shape[-2:])]
    for layer in range(1, depth + 1):
        weight, bias = tensors[f"W{layer}"], tensors[f"B{layer}"]
        before = torch.baddbmm(bias.unsqueeze(1), hidden[-1], weight.transpose(1, 2))
        hidden.append(torch.relu(before) if layer < depth else before)
    return hidden


def grand(tensors: Mapping[str, Tensor], hidden: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Norm of the gradient of every example's cross-entropy, of S networks, exactly.

    tensors, hidden : as `activations` takes and returns them. labels : (S, n). Returns (S, n).
    """
    delta = _error(hidden[-1], labels)
    total = torch.zeros_like(delta[..., 0])
    for layer in range(len(hidden) - 1, 0, -1):
        below = hidden[layer - 1]
        total += delta.square().sum(-1) * (below.square().sum(-1) + 1.0)
        if layer > 1:
            delta = torch.bmm(delta, tensors[f"W{layer}"]) * (below > 0)
    return total.sqrt()


class Forgetting:
    """Counts of forgetting events of n examples, for S networks.

    `see` is called with each batch, before the update that it makes. `events` (S, n) : how often a
    right example was wrong the next time. An example that was never right gets the number of times
    that it was seen, the most that could have been counted (infinity in the authors' code, which no
    average over networks survives).
    """

    def __init__(self, members: int, n: int) -> None:
        shape = count("members", members), count("n", n)
        self._last = torch.zeros(shape, dtype=torch.bool)
        self._ever = torch.zeros(shape, dtype=torch.bool)
        self._seen = torch.zeros(shape)
        self._events = torch.zeros(shape)

    def see(self, places: Tensor, right: Tensor) -> None:
        """places : (S, b), which examples, none twice. right : (S, b), whether the outputs are."""
        forgotten = self._last.gather(1, places) & ~right
        self._events.scatter_add_(1, places, forgotten.float())
        self._seen.scatter_add_(1, places, torch.ones(places.shape))
        self._last.scatter_(1, places, right)
        self._ever.scatter_(1, places, self._ever.gather(1, places) | right)

    @property
    def events(self) -> Tensor:
        """(S, n) float32."""
        return torch.where(self._ever, self._events, self._seen)


def wrong_labels(
    labels: np.ndarray, share: float, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is replaced by one of the others, uniformly, and which they are.

    Every chosen label is wrong. (The authors permute labels among the chosen examples, so that
    about 1/K of them keep theirs.) Returns (n,) of whole numbers and (n,) of bool. Raises
    ValueError for a share outside [0, 1].
    """
    if not 0 <= number("share", share) <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    random = np.random.default_rng([seed, 45])
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[random.permutation(len(labels))[: round(share * len(labels))]] = True
    shifts = random.integers(1, classes, len(labels))
    return np.where(wrong, (labels + shifts) % classes, labels), wrong


def window(
    scores: np.ndarray, share: float, offset: float, labels: np.ndarray | None = None
) -> np.ndarray:
    """Places of the examples whose scores stand from the share `offset` of the ascending order up
    to `offset + share`: the highest ones at offset = 1 - share, the lowest at 0.

    scores : (n,). labels : (n,), to take the window within every class, as many examples in all
    (by largest remainder). Returns round(share · n) places, ascending. Equal scores stand in the
    order of their places. Raises ValueError for a share
    that is not in (0, 1], or a window that leaves [0, 1].
    """
    share, offset = number("share", share), number("offset", offset)
    if not 0 < share <= 1 or not -1e-9 <= offset <= 1 - share + 1e-9:
        raise ValueError(f"share and offset must be a window in [0, 1], got {share} and {offset}")
    groups = [np.arange(len(scores))]
    if labels is not None:
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    kept = []
    for group, size in zip(groups, _quotas([len(g) for g in groups], share), strict=True):
        first = min(round(offset * len(group)), len(group) - size)
        kept.append(group[np.argsort(scores[group], kind="stable")[first : first + size]])
    return np.sort(np.concatenate(kept))


def _quotas(sizes: Sequence[int], share: float) -> list[int]:
    """That share of every size, by largest remainder: in all round(share · their sum)."""
    exact = share * np.array(sizes)
    taken = np.floor(exact + 1e-9).astype(int)
    left = round(share * sum(sizes)) - int(taken.sum())
    taken[np.argsort(taken - exact, kind="stable")[:left]] += 1
    return [int(size) for size in taken]


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive example has the higher score, ties half. Raises ValueError if there
    are no positive examples, or no others."""
    positive = np.asarray(positive, dtype=bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        raise ValueError(f"positive must hold both kinds, got {n} of {n + m}")
    ranks = stats.rankdata(scores)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of two scores (n,); 0 where one of them is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(stats.spearmanr(a, b).statistic)


def split_half(scores: np.ndarray) -> float:
    """Spearman's correlation of the means over two halves of the networks, scores (nets, n).
    Raises ValueError for fewer than two networks."""
    half = len(scores) // 2
    if half == 0:
        raise ValueError(f"scores must be of at least two networks, got {len(scores)}")
    return rank_correlation(scores[:half].mean(0), scores[half : 2 * half].mean(0))
