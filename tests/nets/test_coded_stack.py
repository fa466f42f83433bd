"""Stacks with coded weights, against plain torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import batch_norm, cross_entropy

from rclib.nets.coded_stack import CodedStack
from rclib.nets.power_of_two import DenseShift, Float

SIZES = [12, 7, 6, 4]


def data(members: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(members, 30, 12, generator=generator).to(dtype)
    return x, torch.randint(4, (members, 30), generator=generator)


def test_gradients_against_autograd() -> None:
    nets = CodedStack.start(Float(), SIZES, [0, 5], [0.1, None])
    x, y = data(2)
    found = dict(zip(nets.tensors, nets.gradients(x, y), strict=True))
    for s in range(2):
        t = {n: v[s].clone().requires_grad_() for n, v in nets.tensors.items()}
        h = x[s]
        for layer in (1, 2):
            h = batch_norm(
                h @ t[f"W{layer}.w"].T, None, None, t[f"gain{layer}"], t[f"shift{layer}"], True
            ).relu()
        loss = cross_entropy(h @ t["W3"].T + t["bias"], y[s])
        for name, want in zip(t, torch.autograd.grad(loss, list(t.values())), strict=True):
            assert torch.allclose(found[name][s], want, atol=1e-5), name


def test_latents_get_the_gradient_of_the_weight() -> None:
    code = DenseShift(3)
    nets = CodedStack.start(code, SIZES, [0, 5], [1e-3, 1.0])
    x, y = data(2)
    found = dict(zip(nets.tensors, nets.gradients(x, y), strict=True))
    of_net, _ = nets.net.gradients(x, y, ghost=30)
    for layer in (0, 1):
        pulled = code.pull(nets.latents[layer], of_net[layer])
        for name in code.names:
            assert torch.equal(found[f"W{layer + 1}.{name}"], pulled[name])
    assert torch.equal(found["bias"], of_net[-1])


def test_weights_times_four_change_nothing_under_batch_normalisation() -> None:
    """To first order in its ε, both outputs and gradients of latents."""
    x, y = data(2, torch.float64)
    both = []
    for scale in (1.0, 4.0):
        nets = CodedStack.start(DenseShift(3, scale=scale), SIZES, [0, 5], [1e-3, 1e-3])
        nets.latents = [{n: t.double() for n, t in own.items()} for own in nets.latents]
        net = nets.net
        net.weights = [w.double() for w in net.weights]
        net.gains, net.shifts = [g.double() for g in net.gains], [b.double() for b in net.shifts]
        net.bias = net.bias.double()
        nets.refresh()
        outputs = net.outputs(x, net.recomputed(x))
        both.append([outputs, *nets.gradients(x, y)])
    for one, four in zip(*both, strict=True):
        assert torch.allclose(one, four, atol=1e-5 * float(one.abs().max()))
    plain = [
        CodedStack.start(DenseShift(3, scale=scale), SIZES, [0], [1e-3], norm=False).net.outputs(
            x[:1].float()
        )
        for scale in (1.0, 4.0)
    ]
    assert not torch.allclose(plain[0], plain[1], rtol=0.1)


def test_starts_and_refresh() -> None:
    alone = CodedStack.start(DenseShift(2), SIZES, [5], [0.5])
    together = CodedStack.start(DenseShift(2), SIZES, [0, 5], [1e-3, 0.5])
    for name, tensor in alone.tensors.items():
        assert torch.equal(together.tensors[name][1], tensor[0]), name
    kaiming = CodedStack.start(Float(), [200, 300, 6, 4], [1], [None])
    assert float(kaiming.tensors["W1.w"].std()) == pytest.approx(0.1, rel=0.02)
    before = together.net.weights[0].clone()
    together.tensors["W1.sign"].neg_()
    assert torch.equal(together.net.weights[0], before)
    together.refresh()
    assert torch.equal(together.net.weights[0], -before)
    assert len(together) == 2
    with pytest.raises(ValueError, match="std must be one for each"):
        CodedStack.start(Float(), SIZES, [0, 1], [1.0])
