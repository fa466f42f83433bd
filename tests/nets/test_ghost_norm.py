"""nets.ghost_norm against torch's BatchNorm1d, chunk by chunk."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rclib.nets.ghost_norm import (
    ghosts_of,
    normalise,
    normalise_backward,
    running_after,
)


def layers(members: int, units: int) -> list[nn.BatchNorm1d]:
    """torch's layers with values of their own, one a member, in double precision."""
    torch.manual_seed(1)
    made = [nn.BatchNorm1d(units, dtype=torch.float64) for _ in range(members)]
    for layer in made:
        nn.init.uniform_(layer.weight, 0.5, 2.0)
        nn.init.normal_(layer.bias)
        nn.init.normal_(layer.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(layer.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return made


def stacked(tensors: list[Tensor]) -> Tensor:
    return torch.stack([t.detach().clone() for t in tensors])


@pytest.mark.parametrize(("rows", "ghost"), [(24, 8), (24, 24), (6, 2)])
def test_a_layer_is_that_of_torch_run_ghost_by_ghost(rows: int, ghost: int) -> None:
    members, units = 3, 5
    x = torch.randn(members, rows, units, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(members, rows, units, dtype=torch.float64)
    made = layers(members, units)
    gain, shift = stacked([m.weight for m in made]), stacked([m.bias for m in made])
    means = stacked([m.running_mean for m in made])  # type: ignore[misc]
    variances = stacked([m.running_var for m in made])  # type: ignore[misc]
    theirs = torch.stack(
        [
            torch.cat([layer(part) for part in one.split(ghost)])
            for layer, one in zip(made, x, strict=True)
        ]
    )
    (theirs * weights).sum().backward()

    found = normalise(x.detach(), ghost)
    ours = found.value * gain.unsqueeze(1) + shift.unsqueeze(1)
    torch.testing.assert_close(ours, theirs.detach())
    back, of_gain, of_shift = normalise_backward(weights, gain, found)
    torch.testing.assert_close(back, x.grad)
    torch.testing.assert_close(of_gain, torch.stack([m.weight.grad for m in made]))
    torch.testing.assert_close(of_shift, torch.stack([m.bias.grad for m in made]))
    mean, variance = (
        running_after(means, found.mean, 0.1),
        running_after(variances, found.unbiased, 0.1),
    )
    torch.testing.assert_close(mean, stacked([m.running_mean for m in made]))  # type: ignore[misc]
    torch.testing.assert_close(variance, stacked([m.running_var for m in made]))  # type: ignore[misc]


@pytest.mark.parametrize("momentum", [0.1, 0.01, 1.0])
def test_the_closed_form_is_the_loop(momentum: float) -> None:
    running = torch.randn(2, 4, dtype=torch.float64)
    values = torch.randn(2, 32, 4, dtype=torch.float64)
    looped = running
    for i in range(32):
        looped = (1 - momentum) * looped + momentum * values[:, i]
    torch.testing.assert_close(running_after(running, values, momentum), looped)


def test_one_ghost_is_the_plain_norm_and_more_are_not() -> None:
    x = torch.randn(2, 12, 3)
    plain = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(normalise(x, 12).value, plain)
    assert (normalise(x, 4).value - plain).abs().max() > 0.1


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="ghost must divide the batch of 10 rows, got 4"):
        normalise(torch.randn(1, 10, 2), 4)
    with pytest.raises(ValueError, match="ghost"):
        ghosts_of(10, 1)
    with pytest.raises(ValueError, match=r"x must have shape \(S, n, h\)"):
        normalise(torch.randn(10, 2), 2)
    with pytest.raises(ValueError, match=r"momentum must lie in \(0, 1\], got 0"):
        running_after(torch.zeros(1, 2), torch.zeros(1, 3, 2), 0.0)
    with pytest.raises(ValueError, match="values must be"):
        running_after(torch.zeros(1, 3), torch.zeros(1, 3, 2), 0.1)


def test_a_peer_gives_the_same() -> None:
    """The virtual batches of pytorch-tabnet (extra `compare`)."""
    peer = pytest.importorskip("pytorch_tabnet.tab_network").GBN(
        5, virtual_batch_size=8, momentum=0.1
    )
    x = torch.randn(24, 5)
    theirs = peer(x)
    found = normalise(x.unsqueeze(0), 8)
    torch.testing.assert_close(found.value[0], theirs.detach())
    zeros, ones = torch.zeros(1, 5), torch.ones(1, 5)
    torch.testing.assert_close(running_after(zeros, found.mean, 0.1)[0], peer.bn.running_mean)
    torch.testing.assert_close(running_after(ones, found.unbiased, 0.1)[0], peer.bn.running_var)
