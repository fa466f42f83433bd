"""training.saliency: derivatives against finite differences, identities, masks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.training import saliency as s

NAMES = ["W1", "W2", "W3"]


def nets(members: int = 2, activation: str = "tanh") -> Stack:
    models = [
        MLP(5, [6, 4], 3, parametrization="SP", activation=activation, seed=k).double()
        for k in range(members)
    ]
    return stack(models)


def batch(members: int = 2) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(members, 9, 5, generator=g).double(), torch.randint(
        3, (members, 9), generator=g
    )


def gradient(found: Stack, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    leaves = {n: found.tensors[n].clone().requires_grad_() for n in NAMES}
    out = found.each({**found.tensors, **leaves}, x)
    total = sum(cross_entropy(o, t) for o, t in zip(out, y, strict=True))
    grads = torch.autograd.grad(total, list(leaves.values()))  # type: ignore[arg-type]
    return dict(zip(NAMES, grads, strict=True))


def test_snip_is_weight_times_gradient() -> None:
    found, (x, y) = nets(), batch()
    scores = s.snip(found, x, y, cross_entropy, NAMES, own=True)
    own = gradient(found, x, y)
    for name in NAMES:
        assert torch.allclose(scores[name], (found.tensors[name] * own[name]).abs())
    # Shared data: as each member with the same.
    shared = s.snip(found, x[0], y[0], cross_entropy, NAMES)
    assert torch.allclose(shared["W2"][0], scores["W2"][0])


def test_grasp_is_the_hessian_by_finite_differences() -> None:
    found, (x, y) = nets(), batch()
    scores = s.grasp(found, x, y, cross_entropy, NAMES, own=True)
    g = gradient(found, x, y)
    eps = 1e-5
    ends = []
    for sign in (1, -1):
        moved = {n: t + sign * eps * g[n] if n in g else t for n, t in found.tensors.items()}
        ends.append(gradient(replace(found, tensors=moved), x, y))
    for name in NAMES:
        hg = (ends[0][name] - ends[1][name]) / (2 * eps)
        assert torch.allclose(scores[name], -found.tensors[name] * hg, atol=1e-8)
    # θᵀHg = gᵀHθ, since H is symmetric.
    ends = []
    for sign in (1, -1):
        moved = {n: t * (1 + sign * eps) if n in g else t for n, t in found.tensors.items()}
        ends.append(gradient(replace(found, tensors=moved), x, y))
    for k in range(2):
        left = -sum(float(scores[n][k].sum()) for n in NAMES)
        right = sum(
            float((g[n][k] * (ends[0][n][k] - ends[1][n][k])).sum()) / (2 * eps) for n in NAMES
        )
        assert left == pytest.approx(right, rel=1e-5)


def test_members_do_not_touch_each_other() -> None:
    both, (x, y) = nets(), batch()
    one = Stack({n: t[:1] for n, t in both.tensors.items()}, both.one)
    for function in (s.snip, s.grasp):
        together = function(both, x, y, cross_entropy, NAMES, own=True)
        alone = function(one, x[:1], y[:1], cross_entropy, NAMES, own=True)
        assert torch.allclose(together["W1"][:1], alone["W1"])


def test_synflow_conserves_its_sum_over_layers() -> None:
    """Without biases, every layer's scores add up to R (Tanaka et al., Theorem 1)."""
    models = [
        MLP(5, [6, 4], 3, parametrization="SP", activation="relu", bias="none", seed=k)
        for k in range(2)
    ]
    found = stack(models)
    scores = s.synflow(found, (5,), NAMES)
    sums = [scores[name].flatten(1).sum(1) for name in NAMES]
    assert torch.allclose(sums[0], sums[1], rtol=1e-4)
    assert torch.allclose(sums[0], sums[2], rtol=1e-4)
    positive = {n: t.abs() for n, t in found.tensors.items()}
    assert torch.allclose(found.each(positive, torch.ones(2, 1, 5)).sum((1, 2)), sums[0], rtol=1e-4)
    assert all((score >= 0).all() for score in scores.values())


def test_the_highest_scores_are_kept_over_all_layers() -> None:
    scores = {"a": torch.tensor([[[3.0, 1.0]]]), "b": torch.tensor([[[2.0, 0.5], [2.0, 9.0]]])}
    masks = s.keep_highest(scores, 0.5)
    assert masks["a"].tolist() == [[[True, False]]]
    assert masks["b"].tolist() == [[[True, False], [False, True]]]
    with pytest.raises(ValueError, match=r"density must lie in \(0, 1\], got 0"):
        s.keep_highest(scores, 0)


def test_names_that_are_not_there_are_refused() -> None:
    x, y = batch()
    with pytest.raises(ValueError, match=r"names must be of .*, got \['W9'\]"):
        s.snip(nets(), x, y, cross_entropy, ["W9"], own=True)
    with pytest.raises(ValueError, match="got none"):
        s.synflow(nets(), (5,), [])
    with pytest.raises(ValueError, match="x must have a first axis of 2 members"):
        s.grasp(nets(), x[:1], y[:1], cross_entropy, NAMES, own=True)
