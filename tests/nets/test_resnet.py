"""nets.resnet: against torch's own modules, and what BatchNorm keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from rclib.nets.resnet import ResNet, batch_norm_parameters
from rclib.nets.stack import stack
from rclib.training.stacked import epoch_batches, train_stack

SMALL: dict[str, Any] = {"side": 8, "depth": 2, "width": 4, "colours": 3}


def images(n: int = 12) -> Tensor:
    return torch.randn(n, 192, generator=torch.Generator().manual_seed(0))


def test_parameters_of_batch_norm_are_counted() -> None:
    assert batch_norm_parameters(2, 16) == 1120  # ResNet-14
    assert batch_norm_parameters(18, 16) == 8288  # ResNet-110
    for depth, width in ((1, 3), (2, 4)):
        model = ResNet(side=8, depth=depth, width=width)
        found = sum(
            p.numel() for name, p in model.named_parameters() if name.endswith(("_gain", "_shift"))
        )
        assert found == batch_norm_parameters(depth, width)


class Peer(nn.Module):
    """The same network out of torch's modules."""

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        self.model, self.parts = model, nn.ModuleDict()
        for name, p in model.named_parameters():
            if name.endswith("_K"):
                out, into, k, _ = p.shape
                base = name.removesuffix("_K")
                stride = 2 if base in ("1_0_1", "2_0_1", "1_0_short", "2_0_short") else 1
                conv = nn.Conv2d(into, out, k, stride, padding=k // 2, bias=False)
                norm = nn.BatchNorm2d(out)
                values = dict(model.named_parameters())
                with torch.no_grad():
                    conv.weight.copy_(p)
                    norm.weight.copy_(values[f"{base}_gain"])
                    norm.bias.copy_(values[f"{base}_shift"])
                self.parts[base] = nn.Sequential(conv, norm)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.parts["stem"](x.view(-1, 3, 8, 8)))
        for s in range(3):
            for b in range(self.model.depth):
                inner = self.parts[f"{s}_{b}_2"](torch.relu(self.parts[f"{s}_{b}_1"](h)))
                short = f"{s}_{b}_short"
                h = torch.relu(inner + (self.parts[short](h) if short in self.parts else h))
        values = dict(self.model.named_parameters())
        out: Tensor = nn.AdaptiveAvgPool2d(1)(h).flatten(1) @ values["out_W"].T + values["out_B"]
        return out


def test_the_network_is_that_of_torchs_modules() -> None:
    model = ResNet(**SMALL, seed=3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("_shift"):
                p.normal_(generator=torch.Generator().manual_seed(len(name)))
    peer, x = Peer(model), images()
    assert torch.allclose(model(x), peer(x), atol=1e-5)
    assert model(x).std() > 0


def test_the_start_has_its_variances() -> None:
    model = ResNet(side=8, depth=1, width=64, seed=1)
    p = {name: t.detach() for name, t in model.named_parameters()}
    assert float(p["1_0_2_K"].std()) == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)
    assert float(p["out_W"].std()) == pytest.approx(math.sqrt(2 / 256), rel=0.05)
    assert 0 <= float(p["2_0_1_gain"].min()) < 0.05 < 0.95 < float(p["2_0_1_gain"].max()) <= 1
    assert not p["2_0_1_shift"].any()
    ones = dict(ResNet(**SMALL, gain="one").named_parameters())
    assert torch.equal(ones["stem_gain"], torch.ones(4))
    assert dict(ResNet(**SMALL, shared=True).named_parameters())["stem_gain"].shape == (1,)


def test_two_weights_a_channel_leave_the_function_as_it_is() -> None:
    plain, split = ResNet(**SMALL, seed=5), ResNet(**SMALL, seed=5, two_each=True)
    x = images()
    assert torch.allclose(plain(x), split(x), atol=1e-6)
    chosen = split.chosen()
    whole = dict(plain.named_parameters())
    parts = dict(split.named_parameters())
    for name, mask in chosen.items():
        base = name.removesuffix("_V")
        assert (mask.flatten(1).sum(1) == 2).all()
        assert torch.equal(parts[f"{base}_K"] + parts[name], whole[f"{base}_K"])
        assert not (parts[f"{base}_K"] * mask).any()
    assert plain.chosen() == {}


def test_batch_norm_has_the_mean_and_size_that_it_says() -> None:
    model = ResNet(side=8, depth=1, width=4, seed=2)
    x = images(30)
    p = {name: t.detach() for name, t in model.named_parameters()}
    z = torch.conv2d(x.view(-1, 3, 8, 8), p["stem_K"], padding=1)
    deviation = model.deviations(p, x)["stem"]
    expected = z.transpose(0, 1).flatten(1).std(1, correction=0)
    assert torch.allclose(deviation, expected, rtol=1e-3)


def test_the_scale_of_a_convolution_does_not_matter() -> None:
    model, x = ResNet(**SMALL, seed=4), images()
    p = dict(model.named_parameters())
    grown = {**p, "1_0_1_K": 7 * p["1_0_1_K"]}
    turned = {**p, "1_0_1_K": -p["1_0_1_K"], "1_0_1_gain": -p["1_0_1_gain"]}
    for other in (grown, turned):
        assert torch.allclose(functional_call(model, other, (x,)), model(x), atol=2e-3)


def test_a_block_whose_last_gains_are_zero_is_the_identity() -> None:
    model, x = ResNet(**SMALL, seed=6), images()
    p = dict(model.named_parameters())
    off = {**p, "0_1_2_gain": torch.zeros(4), "0_1_2_shift": torch.zeros(4)}
    changed = {**off, "0_1_1_K": torch.randn(4, 4, 3, 3)}
    assert torch.allclose(
        functional_call(model, off, (x,)), functional_call(model, changed, (x,)), atol=1e-6
    )
    assert not torch.allclose(functional_call(model, off, (x,)), model(x), atol=1e-3)


def test_a_stack_is_its_members() -> None:
    models = [ResNet(**SMALL, seed=s) for s in (0, 1, 2)]
    x = images()
    found = stack(models)(x)
    for s, model in enumerate(models):
        assert torch.allclose(found[s], model(x), atol=1e-5)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(n, 192\), got \(2, 191\)"):
        ResNet(**SMALL)(torch.zeros(2, 191))
    with pytest.raises(ValueError, match="gain must be"):
        ResNet(**SMALL, gain="two")
    with pytest.raises(ValueError, match="width must"):
        ResNet(side=8, depth=1, width=0)


def test_training_one_by_one_gives_the_bits_of_vmap() -> None:
    models = [ResNet(side=8, depth=1, width=4, colours=1, seed=s) for s in range(2)]
    for model in models:
        ends = []
        for one_by_one in (False, True):
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(24, 64, generator=generator)
            y = torch.randint(10, (24,), generator=generator)
            end, found = train_stack(
                stack([model]), epoch_batches(x, y, batch_size=8, seeds=[0]), cross_entropy,
                steps=4, lr=0.1, optimizer="momentum", one_by_one=one_by_one,
            )  # fmt: skip
            ends.append((end.tensors, found["loss"]))
        for name, value in ends[0][0].items():
            assert torch.equal(value, ends[1][0][name]), name
        torch.testing.assert_close(ends[0][1], ends[1][1])
