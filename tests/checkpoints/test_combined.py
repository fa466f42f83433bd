"""Weights in parts: against the formats' own arithmetic, torch's own modules, and by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from rclib.checkpoints.opening import Checkpoint, CheckpointError, open_checkpoint
from rclib.inspection.matrix_spectra import matrix_spectra

State = dict[str, Tensor]


def opened(folder: Path, state: State, **quantisation: Any) -> Checkpoint:
    save_file({n: t.contiguous() for n, t in state.items()}, folder / "model.safetensors")
    config = {"model_type": "own", "quantization_config": quantisation}
    (folder / "config.json").write_text(json.dumps(config if quantisation else {}))
    return open_checkpoint(folder)


def packed(codes: Tensor, bits: int, along: int, order: tuple[int, ...] | None = None) -> Tensor:
    """Codes into int32 words by loops, the lowest bits first."""
    codes = codes.long().movedim(along, 0)
    count = 32 // bits
    order = order or tuple(range(count))
    words = torch.zeros(len(codes) // count, *codes.shape[1:], dtype=torch.int64)
    for i, word in enumerate(words):
        for place, which in enumerate(order):
            word |= codes[i * count + which] << (bits * place)
    words = torch.where(words >= 2**31, words - 2**32, words)
    return words.to(torch.int32).movedim(0, along)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_gptq(tmp_path: Path, bits: int, form: str, shuffled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, outputs, size = 64, 32, 16
    q = torch.randint(2**bits, (inputs, outputs), generator=generator)
    offset = 1 if form == "gptq" else 0
    z = torch.randint(2**bits - 1, (inputs // size, outputs), generator=generator)
    scales = torch.rand(inputs // size, outputs, generator=generator).half()
    groups = torch.arange(inputs) // size
    if shuffled:  # act order
        groups = groups[torch.randperm(inputs, generator=generator)]
    wanted = torch.stack(
        [scales[groups[i]].float() * (q[i] - z[groups[i]] - offset) for i in range(inputs)], 1
    )
    state = {
        "l.qweight": packed(q, bits, 0), "l.qzeros": packed(z, bits, 1), "l.scales": scales,
        "l.g_idx": groups.int(), "l.bias": torch.zeros(outputs).half(),
    }  # fmt: skip
    with opened(tmp_path, state, quant_method="gptq", bits=bits, checkpoint_format=form) as found:
        assert set(found.tensors) == {"l.bias", "l.weight"}
        torch.testing.assert_close(found.tensor("l.weight"), wanted)
        assert torch.equal(found.entries("l.weight", 70, 200), wanted.flatten()[70:200])
        assert f"(gptq, {bits} bits)" in found.notes[-1]


def test_awq(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, outputs, size = 64, 32, 16
    q = torch.randint(16, (inputs, outputs), generator=generator)
    z = torch.randint(16, (inputs // size, outputs), generator=generator)
    scales = torch.rand(inputs // size, outputs, generator=generator).half()
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    state = {
        "l.qweight": packed(q, 4, 1, order), "l.qzeros": packed(z, 4, 1, order), "l.scales": scales,
    }  # fmt: skip
    groups = torch.arange(inputs) // size
    wanted = (scales.float()[groups] * (q - z[groups])).T
    with opened(tmp_path, state, quant_method="awq", bits=4, version="gemm") as found:
        torch.testing.assert_close(found.tensor("l.weight"), wanted)
    with pytest.raises(CheckpointError, match=r"'l.qweight', which holds codes of awq, version g"):
        opened(tmp_path, state, quant_method="awq", bits=4, version="gemv")


SCALES: dict[str, tuple[str, tuple[int, ...], tuple[int, int] | None]] = {
    "tensor": ("l.weight_scale", (), None),
    "one": ("l.weight_scale", (1,), None),
    "rows": ("l.weight_scale", (192, 1), None),
    "blocks": ("l.weight_scale_inv", (2, 3), (128, 128)),
    "small blocks": ("l.weight_scale_inv", (6, 9), (32, 32)),
}


@pytest.mark.parametrize("case", SCALES)
def test_fp8_with_scales(tmp_path: Path, case: str) -> None:
    name, shape, block = SCALES[case]
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(192, 288, generator=generator).to(torch.float8_e4m3fn)
    scales = torch.rand(shape, generator=generator) + 0.5
    wanted = codes.float() * (scales if block is None else 1.0)
    if block is not None:
        for i in range(192):
            for j in range(0, 288, block[1]):
                wanted[i, j : j + block[1]] *= scales[i // block[0], j // block[1]]
    about = {} if block is None else {"weight_block_size": list(block)}
    state = {"l.weight": codes, name: scales, "l.input_scale": torch.ones(())}
    with opened(tmp_path, state, quant_method="fp8", **about) as found:
        assert list(found.tensors) == ["l.weight"]
        torch.testing.assert_close(found.tensor("l.weight"), wanted)
        assert torch.equal(found.entries("l.weight", 1000, 40000), wanted.flatten()[1000:40000])


def test_fp8_of_stacked_experts_and_without_scales(tmp_path: Path) -> None:
    codes = torch.randn(3, 256, 128).to(torch.float8_e4m3fn)
    scales = torch.rand(3, 2, 1) + 0.5
    state = {"e.weight": codes, "e.weight_scale_inv": scales}
    with opened(tmp_path, state, quant_method="fp8", weight_block_size=[128, 128]) as found:
        wanted = codes.float() * scales.repeat_interleave(128, 1)
        torch.testing.assert_close(found.tensor("e.weight"), wanted)
    plain = {"l.weight": codes[0]}
    with opened(tmp_path, plain) as found:  # numbers of eight bits, nothing more
        assert torch.equal(found.tensor("l.weight").float(), codes[0].float())
    with pytest.raises(CheckpointError, match=r"codes of 8 bits \(fp8\) without their scales"):
        opened(tmp_path, plain, quant_method="fp8")
    odd = plain | {"l.weight_scale": torch.ones(7, 3)}
    with pytest.raises(CheckpointError, match=r"with scales of shape \(7, 3\), not read"):
        opened(tmp_path, odd)


def test_bitsandbytes_8_bits(tmp_path: Path) -> None:
    w = torch.randn(20, 30)
    absmax = w.abs().amax(1)
    codes = (w / absmax[:, None] * 127).round().to(torch.int8)
    state = {"l.weight": codes, "l.SCB": absmax}
    state["l.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    with opened(tmp_path, state, quant_method="bitsandbytes") as found:
        assert list(found.tensors) == ["l.weight"]
        assert (found.tensor("l.weight") - w).abs().max() <= absmax.max() / 254 + 1e-6


@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_4_bits(tmp_path: Path, nested: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shape, size = (24, 80), 64
    table = torch.sort(torch.randn(16, generator=generator)).values
    codes = torch.randint(16, shape, generator=generator)
    flat = codes.flatten()
    absmax = torch.rand(math.prod(shape) // size, generator=generator)
    about: dict[str, Any] = {"quant_type": "nf4", "blocksize": size, "shape": list(shape)}
    state: State = {"l.weight": (flat[0::2] * 16 + flat[1::2]).to(torch.uint8)[:, None]}
    state["l.weight.quant_map"] = table
    if nested:
        inner = torch.rand(256, generator=generator)
        outer = torch.rand(1, generator=generator)
        places = torch.randint(256, absmax.shape, generator=generator)
        absmax = inner[places] * outer + 0.25
        about |= {"nested_blocksize": 256, "nested_offset": 0.25}
        state |= {"l.weight.absmax": places.to(torch.uint8), "l.weight.nested_absmax": outer,
                  "l.weight.nested_quant_map": inner}  # fmt: skip
    else:
        state["l.weight.absmax"] = absmax
    wanted = torch.tensor(
        [float(table[c]) * float(absmax[i // size]) for i, c in enumerate(flat.tolist())]
    ).view(shape)
    text = torch.tensor(list(json.dumps(about).encode()), dtype=torch.uint8)
    state["l.weight.quant_state.bitsandbytes__nf4"] = text
    with opened(tmp_path, state, quant_method="bitsandbytes") as found:
        assert list(found.tensors) == ["l.weight"]
        torch.testing.assert_close(found.tensor("l.weight"), wanted)


def test_mxfp4_as_transformers_has_it(tmp_path: Path) -> None:
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = torch.randint(256, (3, 10, 2, 16)).to(torch.uint8)
    scales = torch.randint(120, 134, (3, 10, 2)).to(torch.uint8)
    wanted = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    state = {"mlp.experts.down_proj_blocks": blocks, "mlp.experts.down_proj_scales": scales}
    with opened(tmp_path, state, quant_method="mxfp4") as found:
        torch.testing.assert_close(found.tensor("mlp.experts.down_proj"), wanted)
        assert [s.kind for s in matrix_spectra(found)] == [f"expert {i} of 3" for i in range(3)]


@pytest.mark.parametrize("kind", ["linear", "convolution", "transposed"])
def test_pruning_and_norms_of_torch(kind: str) -> None:
    make = {
        "linear": lambda: nn.Linear(6, 5), "convolution": lambda: nn.Conv2d(4, 6, 3),
        "transposed": lambda: nn.ConvTranspose2d(4, 6, 3),
    }[kind]  # fmt: skip
    torch.manual_seed(0)
    for how, wrap in {
        "pruned": lambda m: prune.random_unstructured(m, "weight", 0.4),
        "weight_norm": parametrizations.weight_norm,
        "old weight_norm": nn.utils.weight_norm,
        "all": lambda m: parametrizations.weight_norm(m, dim=None),
        "dim 1": lambda m: parametrizations.weight_norm(m, dim=1),
        "spectral_norm": parametrizations.spectral_norm,
        "old spectral_norm": nn.utils.spectral_norm,
    }.items():
        with pytest.warns(FutureWarning) if how == "old weight_norm" else _nothing():
            module = wrap(make())
        x = torch.randn(2, 6) if kind == "linear" else torch.randn(2, 4, 5, 5)
        with torch.no_grad():
            module(x)
            module.eval()(x)
            wanted = module.weight.detach().clone()
            with open_checkpoint(module) as found:
                assert set(found.tensors) == {"bias", "weight"}, how
                torch.testing.assert_close(found.tensor("weight"), wanted, msg=how)


class _nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.T


UNREAD: dict[str, tuple[State, str]] = {
    "compressed-tensors": (
        {"l.weight_packed": torch.ones(8, 4, dtype=torch.int32),
         "l.weight_scale": torch.ones(8, 2), "l.weight_shape": torch.tensor([8, 32])},
        "l.weight_packed",
    ),
    "hqq": ({"l.W_q": torch.ones(8, 4, dtype=torch.uint8), "l.scale": torch.ones(8, 2)}, "l.W_q"),
    "gptq": ({"l.qweight": torch.ones(8, 4, dtype=torch.int32)}, "l.qweight"),
    "eetq": ({"l.weight": torch.ones(8, 4, dtype=torch.int8), "l.scales": torch.ones(8, 3)},
             "l.weight"),
    "exl2": ({"l.q_weight": torch.ones(8, 4, dtype=torch.int32),
              "l.q_scale": torch.ones(8, 3, dtype=torch.int32)}, "l.q_weight"),
}  # fmt: skip


@pytest.mark.parametrize("method", UNREAD)
def test_what_is_not_read_is_left_out_by_name(tmp_path: Path, method: str) -> None:
    parts, name = UNREAD[method]
    with opened(tmp_path, {**parts, "head.weight": torch.randn(9, 7)}, quant_method=method) as c:
        assert list(c.tensors) == ["head.weight"]
        assert set(c.left_out) >= set(parts) - {"l.weight_shape"}
        assert method in c.left_out[name]
        assert [s.layer for s in matrix_spectra(c)] == ["head.weight"]


def test_other_parametrisations_are_named() -> None:
    module = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    parametrize.register_parametrization(module[0], "weight", Symmetric())
    with open_checkpoint(module) as found:
        assert set(found.tensors) == {"0.bias", "1.weight", "1.bias"}
        (reason,) = found.left_out.values()
        assert reason == "is parametrised by a class that the file does not hold"


def test_names_that_only_look_like_parts() -> None:
    state = {
        "a.weight_g": torch.randn(3, 1),
        "b.weight": torch.randn(3, 4),
        "b.weight_orig": torch.ones(3, 4),
    }
    with open_checkpoint(state) as found:
        assert list(found.tensors) == list(state)
        assert not found.left_out
