"""training.losses: the cross-entropy written out against torch's own, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from rclib.training.losses import log_loss, under_vmap


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    out = 3 * torch.randn(4, 33, 7, generator=generator)
    return out, torch.randint(7, (4, 33), generator=generator)


def test_loss_and_gradients_have_the_bits_of_torchs() -> None:
    out, y = batch()
    taken = []
    for loss in (cross_entropy, log_loss):
        leaf = out.clone().requires_grad_()
        total = torch.vmap(loss)(leaf.tanh(), y)
        (first,) = torch.autograd.grad(total.sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        taken.append((total.detach(), first.detach(), second))
    for own, known in zip(taken[1], taken[0], strict=True):
        assert torch.equal(own, known)


def test_other_losses_and_targets_are_left_to_torch() -> None:
    assert under_vmap(mse_loss) is mse_loss
    out, y = batch()
    taken = torch.vmap(under_vmap(cross_entropy))
    assert torch.equal(taken(out, y), torch.vmap(log_loss)(out, y))
    shares = torch.softmax(out.flip(2), 2)  # targets that are shares of all classes
    assert taken(out, shares) == pytest.approx(
        torch.stack([cross_entropy(a, b) for a, b in zip(out, shares, strict=True)])
    )
    images = out[:, :, :, None]  # classes on the second axis of three
    assert torch.equal(
        taken(images, y[:, :, None]), torch.vmap(cross_entropy)(images, y[:, :, None])
    )
