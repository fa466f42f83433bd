"""Llamas in GGUF files: what `transformers` computes with them after the way there and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import pytest
import torch
import transformers
from torch import Tensor

from rclib.__main__ import main
from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.gguf_llama import as_llama
from rclib.checkpoints.opening import open_checkpoint

HEADS, KV, SIZE = 6, 2, 8
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def model(**options: Any) -> Any:
    config = {
        "hidden_size": 48, "num_attention_heads": HEADS, "num_key_value_heads": KV,
        "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 40,
        "max_position_embeddings": 32, "rope_theta": 500.0, "rms_norm_eps": 1e-3,
    }  # fmt: skip
    torch.manual_seed(0)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config | options))
    for parameter in made.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return made.float().eval()


def permuted(weight: Tensor, heads: int) -> Tensor:
    """As llama.cpp's converter has it."""
    shape = (heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return weight.reshape(shape).swapaxes(1, 2).reshape(weight.shape)


def written(path: Path, source: Any, **more: Any) -> Path:
    writer = gguf.GGUFWriter(str(path), "llama")
    c = source.config
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(500.0)
    writer.add_rope_dimension_count(more.get("turned", SIZE))
    writer.add_key_length(SIZE)
    writer.add_bos_token_id(1)
    if "scaling" in more:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    for name, tensor in source.state_dict().items():
        short = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight":
                 "output.weight", "model.norm.weight": "output_norm.weight"}.get(name)  # fmt: skip
        if short == "output.weight" and c.tie_word_embeddings:
            continue
        if short is None:
            _, _, block, rest = name.split(".", 3)
            stem, end = rest.rsplit(".", 1)
            short = f"blk.{block}.{NAMES[stem]}.{end}"
            if NAMES[stem] in ("attn_q", "attn_k"):
                tensor = permuted(tensor, HEADS if NAMES[stem] == "attn_q" else KV)
        kind = gguf.GGMLQuantizationType.Q8_0
        if more.get("quantised") and tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            writer.add_tensor(short, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(short, tensor.numpy())
    for name in more.get("extra", ()):
        writer.add_tensor(name, torch.ones(4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(made: Any) -> Tensor:
    tokens = torch.randint(40, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: Tensor = made(tokens).logits
    return found


@pytest.mark.parametrize("options", [{}, {"tie_word_embeddings": True}, {"attention_bias": True}])
def test_a_llama_and_its_duplicate_compute_the_same(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = model(**options)
    path = written(tmp_path / "m.gguf", source)
    with open_checkpoint(str(path)) as checkpoint:
        found = as_llama(checkpoint)
        state = source.state_dict()
        if options.get("tie_word_embeddings"):
            del state["lm_head.weight"]
        assert found.tensors.keys() == state.keys()
        assert all(torch.equal(found.tensor(name), t) for name, t in state.items())
        name = "model.layers.1.self_attn.q_proj.weight"
        for start, stop in ((0, 1), (47, 49), (100, 1500), (7, 7), (2303, 2304)):
            part = state[name].flatten()[start:stop]
            assert torch.equal(found.entries(name, start, stop), part)
            buffer = torch.empty(1 << 16, dtype=torch.uint8)
            assert torch.equal(found.view(name, start, stop, buffer), part)
    assert main(["resize", str(path), "--out", str(tmp_path / "b"), "--width", "72"]) == 0
    assert "the function is kept" in capsys.readouterr().out
    grown = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "b")
    before = logits(source)
    assert grown.config.hidden_size == 72
    assert float((logits(grown) - before).abs().max() / before.abs().max()) < 1e-5


def test_quantised_weights_are_those_of_the_file(tmp_path: Path) -> None:
    source = model(hidden_size=96, num_attention_heads=HEADS, head_dim=SIZE)
    path = written(tmp_path / "m.gguf", source, quantised=True)
    name = "model.layers.0.self_attn.k_proj.weight"
    with open_checkpoint(str(path)) as checkpoint:
        found = as_llama(checkpoint).tensor(name)
    wanted = source.state_dict()[name]
    assert found.dtype == torch.float32
    assert 0 < float((found - wanted).abs().max()) < 0.02 * float(wanted.abs().max())


def test_other_models_and_positions_are_refused(tmp_path: Path) -> None:
    source = model()
    for more, message in (
        ({"scaling": True}, r"rotary positions are rescaled \(llama.rope.scaling.type\)"),
        ({"extra": ["rope_freqs.weight"]}, r"are rescaled \(rope_freqs.weight\)"),
        ({"turned": 4}, "turn a part of each head"),
        ({"extra": ["blk.0.attn_sinks.weight"]}, "'blk.0.attn_sinks.weight' is none of a Llama's"),
        ({"extra": ["per_layer.weight"]}, "'per_layer.weight' is none of a Llama's"),
    ):
        path = written(tmp_path / f"{len(message)}.gguf", source, **more)
        with (
            open_checkpoint(str(path)) as checkpoint,
            pytest.raises(CheckpointError, match=message),
        ):
            as_llama(checkpoint)
    with (
        open_checkpoint({"x": torch.ones(2)}) as checkpoint,
        pytest.raises(CheckpointError, match="no Llama in a GGUF file"),
    ):
        as_llama(checkpoint)
