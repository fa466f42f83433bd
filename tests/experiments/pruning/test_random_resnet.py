"""pruning.random_resnet: the network against a plain one, masks, training, frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rclib.data.images import load
from rclib.experiments.pruning import plots_random as plots
from rclib.experiments.pruning import random_claims as claims
from rclib.experiments.pruning import random_pruning as experiment
from rclib.experiments.pruning import random_resnet as residual
from rclib.nets.densities import erdos_renyi

SETTINGS: dict[str, Any] = {
    "pool": 1, "n": 60, "batch_size": 20, "steps": 4, "rate": 0.1, "decay": 5e-4,
}  # fmt: skip


class Block(nn.Module):
    """A basic block as it is written for CIFAR, with the shortcut of option A."""

    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, out, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out) for _ in range(2))
        self.stride, self.more = stride, out - inputs

    def forward(self, x: Tensor) -> Tensor:
        h = self.norms[1](self.two(torch.relu(self.norms[0](self.one(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        zeros = torch.zeros(len(x), self.more, *short.shape[2:])
        return torch.relu(h + torch.cat([short, zeros], 1))


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_network_is_the_plain_one(blocks: int) -> None:
    net = residual.ResNet(colours=3, channels=4, blocks=blocks, classes=5, seed=2)
    sizes = [4] * blocks + [8] * blocks + [16] * blocks
    strides = [2 if k in (blocks, 2 * blocks) else 1 for k in range(3 * blocks)]
    plain = [Block(a, b, s) for a, b, s in zip([4, *sizes[:-1]], sizes, strides, strict=True)]
    stem, norm = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name[0] in "GB":
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(p))))
        layers: list[tuple[nn.Conv2d, Any]] = [(stem, norm)]
        for block in plain:
            layers += [(block.one, block.norms[0]), (block.two, block.norms[1])]
        for k, (conv, bn) in enumerate(layers):
            conv.weight.copy_(net.get_parameter(f"K{k}"))
            bn.weight.copy_(net.get_parameter(f"G{k}"))
            bn.bias.copy_(net.get_parameter(f"B{k}"))
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    h = nn.Sequential(*plain)(torch.relu(norm(stem(x)))).mean((2, 3))
    torch.testing.assert_close(net(x), h @ net.W.T + net.B, atol=1e-5, rtol=1e-5)
    assert len(net.weights()) == 6 * blocks + 2
    wide = residual.ResNet(colours=3, channels=32, blocks=1, classes=5, seed=0)
    kernel = wide.get_parameter("K4").detach()
    assert float(kernel.var()) == pytest.approx(2 / (9 * 64), rel=0.1)
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_training_is_that_of_a_plain_loop_and_pruned_weights_stay_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, made = load("digits").subset(120, 60), []
    real = residual.ResNet

    class Kept(real):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(residual, "ResNet", Kept)
    config = {**SETTINGS, "seed": 3, "channels": 2, "blocks": 1}
    found = residual.residual_network(data, scheme="ER", density=0.3, **config)
    shapes = {name: tuple(p.shape) for name, p in made[0].weights().items()}
    wanted = erdos_renyi(shapes, 0.3)
    for p, kept, (name, share) in zip(
        made[0].weights().values(), found["kept"], wanted.items(), strict=True
    ):
        assert kept == round(share * math.prod(shapes[name]))
        assert int((p != 0).sum()) <= kept
    net = real(colours=1, channels=2, blocks=1, classes=10, seed=3)
    dense = residual.residual_network(data, scheme="dense", density=1.0, **config)
    x, y = data.x_train.view(-1, 1, 8, 8), data.y_train
    own = torch.randperm(120, generator=torch.Generator().manual_seed(3))[:60]
    order = torch.Generator().manual_seed(3)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    losses = []
    for step in range(4):
        if step % 3 == 0:
            places = own[torch.randperm(60, generator=order)]
        for group in sgd.param_groups:
            group["lr"] = 0.1 * (0.1 if step >= 2 else 1) * (0.1 if step >= 3 else 1)
        some = places[20 * (step % 3) : 20 * (step % 3) + 20]
        loss = cross_entropy(net(x[some]), y[some])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(float(loss.detach()))
    assert float(dense["loss"]) == pytest.approx(losses[-1], rel=1e-4)
    right = (net(data.x_test.view(-1, 1, 8, 8)).argmax(1) == data.y_test).double().mean()
    assert float(dense["accuracy"]) == pytest.approx(float(right))
    with pytest.raises(ValueError, match="scheme must be"):
        residual.residual_network(data, scheme="SNIP", density=0.3, **config)


def test_gaps_are_over_the_dense_network_of_the_seed_and_size() -> None:
    data = load("digits").subset(120, 60)
    plan = [
        {"channels": 2, "blocks": 1, "schemes": {"ER": [0.1]}},
        {"channels": 3, "blocks": 1, "schemes": {"ER": [0.1], "uniform": [0.1]}},
        {"channels": 3, "blocks": 2, "schemes": {"ER": [0.1]}},
    ]
    frame = residual.residual_frame(data, [0, 1, 2], plan, **SETTINGS)
    assert len(frame) == 7 * 3
    assert (frame[frame.scheme == "dense"].gap == 0).all()
    by = frame.set_index(["channels", "blocks", "scheme", "seed"]).accuracy
    gap = by[3, 1, "ER", 2] - by[3, 1, "dense", 2]
    own = frame[(frame.channels == 3) & (frame.blocks == 1) & (frame.seed == 2)]
    assert own[own.scheme == "ER"].gap.item() == gap
    assert own[own.scheme == "ER"].weights.item() == pytest.approx(
        0.1 * own[own.scheme == "dense"].weights.item(), abs=4
    )
    assert sorted(frame.layers.unique()) == [8, 14]
    found = claims.residual_values(frame)
    assert found["residual_width"][2] == pytest.approx(
        gap - (by[2, 1, "ER", 2] - by[2, 1, "dense", 2])
    )
    assert found["residual_erk"][1] == pytest.approx(by[3, 1, "ER", 1] - by[3, 1, "uniform", 1])
    deeper = by[3, 2, "ER", 0] - by[3, 2, "dense", 0]
    shallow = by[3, 1, "ER", 0] - by[3, 1, "dense", 0]
    assert found["residual_depth"][0] == pytest.approx(deeper - shallow)
    edges = experiment.starts_frame(64, [12] * 2, 10, [0.3, 0.1], [1, 2])
    gains = frame[["seed", "gap"]].rename(columns={"gap": "gain"}).iloc[:8].copy()
    gains["what"] = np.repeat(["accuracy", "ece", "attacked", "outside"], 2)
    assert len(plots.other_panels(edges, gains, frame).axes) == 3
