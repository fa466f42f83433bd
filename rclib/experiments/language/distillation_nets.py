"""Stacked networks of notebook 94, d-h-K with one ReLU layer, and gradients that can be unrolled.

A network is a vector θ (P,) of W1 (h, d), b1 (h,), W2 (K, h), b2 (K,) in this order; B of them
stand in rows. The gradient of the cross-entropy is written out, so that many steps of descent are
an ordinary program that is differentiated once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rclib.rowcolumn.measure import leading_shares, mean_vectors, row_column_share

__all__ = [
    "Shape",
    "accuracy",
    "descend",
    "drawn",
    "gradient",
    "input_gradient",
    "leading",
    "logits",
    "mean_statistics",
    "noise",
    "parts",
    "statistics",
]


@dataclass(frozen=True)
class Shape:
    """Inputs d, hidden units h, classes K."""

    d: int
    h: int
    K: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Numbers of entries of W1, b1, W2, b2."""
        return self.h * self.d, self.h, self.K * self.h, self.K


def parts(theta: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W1 (B, h, d), b1 (B, h), W2 (B, K, h), b2 (B, K) of θ (B, P), as views.

    Raises ValueError if P is not that of the shape.
    """
    if theta.shape[-1] != sum(shape.sizes):
        raise ValueError(f"theta must have {sum(shape.sizes)} columns, got {theta.shape[-1]}")
    W1, b1, W2, b2 = theta.split(shape.sizes, -1)
    return W1.unflatten(-1, (shape.h, shape.d)), b1, W2.unflatten(-1, (shape.K, shape.h)), b2


def drawn(n: int, shape: Shape, generator: torch.Generator) -> Tensor:
    """n starts θ (n, P): W1 of variance 2 / d, W2 of variance 1 / h, no biases."""
    W1 = torch.randn(n, shape.sizes[0], generator=generator) * (2 / shape.d) ** 0.5
    W2 = torch.randn(n, shape.sizes[2], generator=generator) * (1 / shape.h) ** 0.5
    return torch.cat([W1, torch.zeros(n, shape.h), W2, torch.zeros(n, shape.K)], 1)


def _forward(theta: Tensor, x: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    W1, b1, W2, b2 = parts(theta, shape)
    h = (x @ W1.mT + b1.unsqueeze(1)).relu()
    return h, W2, h @ W2.mT + b2.unsqueeze(1)


def logits(theta: Tensor, x: Tensor, shape: Shape) -> Tensor:
    """Outputs (B, n, K) for x (n, d) of all networks or (B, n, d) of their own."""
    return _forward(theta, x, shape)[2]


def accuracy(theta: Tensor, x: Tensor, y: Tensor, shape: Shape) -> Tensor:
    """Share of right answers (B,) on x (n, d) with labels y (n,)."""
    return (logits(theta, x, shape).argmax(-1) == y).float().mean(-1)


def gradient(theta: Tensor, x: Tensor, onehot: Tensor, shape: Shape) -> Tensor:
    """Gradient (B, P) of the mean cross-entropy of x (B, n, d) or (n, d) with targets (B, n, K) or
    (n, K). Itself differentiable, in θ and in x."""
    h, W2, z = _forward(theta, x, shape)
    delta = (z.softmax(-1) - onehot) / z.shape[1]
    back = (delta @ W2) * (h > 0)
    pieces = (back.mT @ x, back.sum(1), delta.mT @ h, delta.sum(1))
    return torch.cat([pieces[0].flatten(1), pieces[1], pieces[2].flatten(1), pieces[3]], 1)


def input_gradient(theta: Tensor, x: Tensor, shape: Shape) -> Tensor:
    """∇_x Σ_c logit_c(x) (B, n, d) for x (n, d)."""
    W1, b1, W2, _ = parts(theta, shape)
    on = (x @ W1.mT + b1.unsqueeze(1) > 0).to(theta.dtype)
    return (on * W2.sum(1, keepdim=True)) @ W1


def descend(
    theta: Tensor, x: Tensor, onehot: Tensor, rates: Tensor, n_steps: int, shape: Shape,
    *, factor: Tensor | float = 1.0, kept: Sequence[int] = (),
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """θ after n_steps of gradient descent on x (B, n, d), and after each number of steps `kept`.

    rates (B,) : step sizes. factor (B,) : of the loss.
    """
    size = (rates * factor).unsqueeze(1)
    passed = []
    for step in range(1, n_steps + 1):
        theta = theta - size * gradient(theta, x, onehot, shape)
        if step in kept:
            passed.append(theta)
    return theta, passed


def statistics(theta: Tensor, start: Tensor, images: Tensor, shape: Shape) -> list[float]:
    """Of one network (P,) and its start: correlations over hidden units of the row means of W1 with
    the column means of W2, of W1 with b1, of W2 with b1; the share of the variance of ΔW1
    in its row and column means; of ‖ΔW1‖² in its K leading directions, and in the span of the
    images (n, d)."""
    W1, b1, W2, _ = (part[0] for part in parts(theta.unsqueeze(0), shape))
    tensors = {"W1": W1, "b1": b1, "W2": W2}
    axes = {"W1": ("h", "x"), "b1": ("h",), "W2": ("y", "h")}
    vectors = mean_vectors(tensors, axes)["h"]
    table = np.corrcoef(np.stack([vector.numpy() for vector in vectors.values()]))
    change = _change(theta, start, shape)
    basis = torch.linalg.qr(images.double().T)[0]
    spanned = (change @ basis).square().sum() / change.square().sum()
    return [
        *(float(table[i, j]) for i, j in ((0, 2), (0, 1), (1, 2))),
        row_column_share(change).value, leading(theta, start, shape), float(spanned),
    ]  # fmt: skip


def leading(theta: Tensor, start: Tensor, shape: Shape) -> float:
    """Of one network (P,) and its start: the share of ‖ΔW1‖² in its K leading directions."""
    change = _change(theta, start, shape)
    return float(leading_shares(change)[min(shape.K, *change.shape) - 1])


def _change(theta: Tensor, start: Tensor, shape: Shape) -> Tensor:
    """ΔW1 (h, d), float64."""
    end, begun = (parts(t.unsqueeze(0), shape)[0][0] for t in (theta, start))
    return (end - begun).double()


def noise(theta: Tensor, shape: Shape, generator: torch.Generator) -> Tensor:
    """d (B, P) : for each tensor normal entries, about half of them set to 0, of norm 1."""
    drawn = torch.randn(theta.shape[1], generator=generator)
    drawn = drawn * (torch.rand(theta.shape[1], generator=generator) < 0.5)
    unit = [piece / piece.norm().clamp_min(1e-12) for piece in drawn.split(shape.sizes)]
    return torch.cat(unit).expand_as(theta)


def mean_statistics(theta: Tensor, start: Tensor, images: Tensor, shape: Shape) -> list[float]:
    """Means over networks (n, P)."""
    rows = [statistics(*pair, images, shape) for pair in zip(theta, start, strict=True)]
    return [float(value) for value in np.mean(rows, axis=0)]
