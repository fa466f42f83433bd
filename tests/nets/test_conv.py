"""nets.conv against torch's modules, alone and stacked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rclib.nets.conv import ConvNet
from rclib.nets.stack import stack


def peer(own: ConvNet) -> nn.Sequential:
    parts: list[nn.Module] = []
    state = dict(own.named_parameters())
    for k in range(1, own.convolutions + 1):
        value = state[f"K{k}"]
        parts += [nn.Conv2d(value.shape[1], value.shape[0], 3, padding=1), nn.ReLU()]
        parts[-2].weight, parts[-2].bias = value, state[f"BK{k}"]
        parts += [] if k % 2 else [nn.MaxPool2d(2)]
    parts.append(nn.Flatten())
    for k in range(1, own.layers + 1):
        parts += [nn.Linear(1, 1), nn.ReLU()]
        parts[-2].weight, parts[-2].bias = state[f"W{k}"], state[f"B{k}"]
    return nn.Sequential(*parts[:-1])


@pytest.mark.parametrize(
    ("side", "channels", "widths", "colours"), [(8, [4, 6], [7], 3), (8, [2, 3, 4, 5], [], 1)]
)
def test_it_computes_what_torchs_modules_do(
    side: int, channels: list[int], widths: list[int], colours: int
) -> None:
    given: dict[str, Any] = {"side": side, "channels": channels, "widths": widths}
    nets = [ConvNet(**given, colours=colours, seed=s) for s in range(2)]
    x = torch.randn(5, colours * side**2, generator=torch.Generator().manual_seed(1))
    for net in nets:
        with torch.no_grad():
            net.BK1 += 0.1
    images = x.view(-1, colours, side, side)
    for net, row in zip(nets, stack(nets)(x), strict=True):
        torch.testing.assert_close(net(x), peer(net)(images))
        torch.testing.assert_close(row, net(x), rtol=1e-4, atol=1e-5)
    assert not torch.equal(nets[0].K1, nets[1].K1)
    again = ConvNet(**given, colours=colours, seed=1)
    assert torch.equal(again.K2, nets[1].K2)


def test_the_start_has_glorots_law() -> None:
    net = ConvNet(side=16, channels=[32, 64], widths=[100], seed=3)
    for name, variance in (("K2", 2 / (9 * 96)), ("W1", 2 / (64 * 64 + 100))):
        assert float(net.get_parameter(name).detach().var()) == pytest.approx(variance, rel=0.05)
    assert all(not p.any() for n, p in net.named_parameters() if n[0] == "B")


def test_what_does_not_fit_is_named() -> None:
    for options, message in (
        ({"channels": [4]}, "channels must be an even number"),
        ({"channels": []}, "channels must be an even number"),
        ({"channels": [2, 2, 2, 2]}, "side must be divisible by 4, got 6"),
        ({"widths": [0]}, "widths must"),
    ):
        with pytest.raises(ValueError, match=message):
            ConvNet(**{"side": 6, "channels": [2, 2], "widths": [3], **options})
    with pytest.raises(ValueError, match=r"x must have shape \(n, 108\), got"):
        ConvNet(side=6, channels=[2, 2], widths=[3])(torch.zeros(2, 36))
