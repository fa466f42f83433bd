"""A Llama in a GGUF file under the names, and in the order, that `transformers` knows.

llama.cpp's converter exchanges the rows of query and key within each head, so that the two entries
that a rotary position turns together lie side by side:

    gguf[head, j, p] = transformers[head, p, j]        p = 0, 1; j = 0 ... size / 2 - 1

Here they are put back. Quantised weights come as the float32 that they mean. The configuration is
written from the file's metadata. Source: `permute` in llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.gguf_file import METADATA
from rclib.checkpoints.opening import Checkpoint
from rclib.checkpoints.tensor_file import TensorInfo, brief_line

__all__ = ["as_llama", "is_gguf_llama"]

_BLOCK = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def is_gguf_llama(checkpoint: Checkpoint) -> bool:
    """Whether it came from a GGUF file of the architecture "llama" (Llama, Mistral, SmolLM2)."""
    return (checkpoint.config or {}).get("model_type") == "gguf-llama"


def as_llama(checkpoint: Checkpoint) -> Checkpoint:
    """The same weights under transformers' names; reads from the other one, which stays open.

    Raises CheckpointError for what is no Llama of GGUF, for tensors that have no such name, for
    weights that were left out, and for positions that a plain Llama does not have.
    """
    config, where = checkpoint.config or {}, checkpoint.source
    if not is_gguf_llama(checkpoint):
        raise CheckpointError(f"{where}: no Llama in a GGUF file")
    for name, reason in checkpoint.left_out.items():
        raise CheckpointError(f"{where}: tensor {brief_line(name)} {reason}")
    said: Mapping[str, Any] = config.get(METADATA, {})
    scaled = [k for k in said if k.startswith("llama.rope.scaling") and said[k] != "none"]
    extra = next((n for n in checkpoint.tensors if n.startswith("rope_f")), None)
    if scaled or extra:
        raise CheckpointError(
            f"{where}: its rotary positions are rescaled ({extra or scaled[0]}), which is not "
            "translated"
        )
    made = _config(config, said, where)
    names = {name: _name(name, where) for name in checkpoint.tensors}
    if "token_embd.weight" in checkpoint.tensors:
        made["vocab_size"] = checkpoint.tensors["token_embd.weight"].shape[0]
    for part in ("attn", "ffn"):
        biased = any(re.match(rf"blk\.[0-9]+\.{part}_.*\.bias", name) for name in names)
        made["attention_bias" if part == "attn" else "mlp_bias"] = biased
    reader = _Renamed(checkpoint, names, made["head_dim"])
    about: dict[str, Any] = {"notes": checkpoint.notes, "folder": checkpoint.folder}
    return Checkpoint(where, [reader], made, **about, files=checkpoint.files)


def _name(name: str, where: str) -> str:
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    found = re.fullmatch(r"blk\.([0-9]+)\.(\w+)\.(weight|bias)", name)
    if found is None or found[2] not in _BLOCK:
        raise CheckpointError(f"{where}: tensor {brief_line(name)} is none of a Llama's")
    return f"model.layers.{found[1]}.{_BLOCK[found[2]]}.{found[3]}"


def _config(config: Mapping[str, Any], said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """config.json of transformers. Raises CheckpointError for sizes that are missing."""
    try:
        heads, width = config["num_attention_heads"], config["hidden_size"]
        made = {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": width,
            "intermediate_size": config["intermediate_size"],
            "num_hidden_layers": config["num_hidden_layers"],
            "num_attention_heads": heads,
            "num_key_value_heads": config["num_key_value_heads"],
            "head_dim": said.get("llama.attention.key_length", width // heads),
            "max_position_embeddings": said["llama.context_length"],
            "rms_norm_eps": said["llama.attention.layer_norm_rms_epsilon"],
        }
    except KeyError as error:
        raise CheckpointError(f"{where}: its metadata lack {error.args[0]}") from None
    if said.get("llama.rope.dimension_count", made["head_dim"]) != made["head_dim"]:
        raise CheckpointError(f"{where}: positions turn a part of each head, unlike a Llama's")
    made |= {
        "rope_theta": said.get("llama.rope.freq_base", 10000.0),
        "hidden_act": "silu",
        "tie_word_embeddings": config["tie_word_embeddings"],
    }
    for key, name in (("bos", "bos_token_id"), ("eos", "eos_token_id")):
        if type(said.get(f"tokenizer.ggml.{key}_token_id")) is int:
            made[name] = said[f"tokenizer.ggml.{key}_token_id"]
    return made


class _Renamed:
    """Tensors under other names, rows of query and key in the other order."""

    def __init__(self, checkpoint: Checkpoint, names: Mapping[str, str], size: int) -> None:
        self._from = checkpoint
        self._old = {new: old for old, new in names.items()}
        self._size = size
        self.tensors: Mapping[str, TensorInfo] = {
            new: checkpoint.tensors[old] for old, new in names.items()
        }
        for name, info in self.tensors.items():
            if self._turned(name) and (size % 2 or info.shape[0] % size):
                raise CheckpointError(
                    f"{checkpoint.source}: {brief_line(name)} of shape {info.shape} has no heads "
                    f"of {size} rows"
                )

    def _turned(self, name: str) -> bool:
        return ".q_proj." in name or ".k_proj." in name

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """Entries start to stop, in `buffer` if that helps."""
        if not self._turned(name):
            return self._from.entries(self._old[name], start, stop, buffer)
        shape, size = self.tensors[name].shape, self._size
        width = math.prod(shape[1:]) * size  # entries of a head
        first, last = start // width, -(-stop // width)
        heads = self._from.entries(self._old[name], first * width, last * width)
        back = heads.view(last - first, size // 2, 2, -1).transpose(1, 2).reshape(-1)
        return back[start - first * width : stop - first * width]

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """The same as `read`."""
        if not self._turned(name):
            return self._from.view(self._old[name], start, stop, buffer)
        return self.read(name, start, stop, buffer)

    def close(self) -> None:
        """The checkpoint that it reads from is its owner's."""
