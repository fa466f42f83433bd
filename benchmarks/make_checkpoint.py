"""Write a checkpoint of random bfloat16 weights in Llama-3.1-8B's shapes: 16 GB in four shards.

    python benchmarks/make_checkpoint.py DIR                # 8.03 billion weights, 16 GB
    python benchmarks/make_checkpoint.py DIR --scale 0.25   # all widths a quarter: 1 GB

The same seed gives the same bytes. Memory stays small, since a tensor is drawn and written in
pieces; the index is written last, so that a directory with an index is whole. Where the disk is
too small it says so and stops without an error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import zlib
from pathlib import Path

import torch

SHARDS = 4
PIECE = 1 << 22
INDEX = "model.safetensors.index.json"
Shapes = dict[str, tuple[int, ...]]


def shapes(scale: float, layers: int) -> Shapes:
    """Names and shapes of Llama-3.1-8B's tensors, its widths times `scale` (multiples of 64)."""

    def width(n: int) -> int:
        return max(1, round(n * scale / 64)) * 64

    hidden, mlp, values, vocabulary = (width(n) for n in (4096, 14336, 1024, 128256))
    found: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for k in range(layers):
        block = f"model.layers.{k}"
        found |= {
            f"{block}.self_attn.q_proj.weight": (hidden, hidden),
            f"{block}.self_attn.k_proj.weight": (values, hidden),
            f"{block}.self_attn.v_proj.weight": (values, hidden),
            f"{block}.self_attn.o_proj.weight": (hidden, hidden),
            f"{block}.mlp.gate_proj.weight": (mlp, hidden),
            f"{block}.mlp.up_proj.weight": (mlp, hidden),
            f"{block}.mlp.down_proj.weight": (hidden, mlp),
            f"{block}.input_layernorm.weight": (hidden,),
            f"{block}.post_attention_layernorm.weight": (hidden,),
        }
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def config(table: Shapes, layers: int) -> dict[str, object]:
    """What config.json says of a Llama of these shapes."""
    vocabulary, hidden = table["lm_head.weight"]
    values = table["model.layers.0.self_attn.k_proj.weight"][0]
    heads = max(1, hidden // 128)
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": table["model.layers.0.mlp.up_proj.weight"][0],
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, values * heads // hidden),
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "torch_dtype": "bfloat16",
    }


def split(table: Shapes) -> list[Shapes]:
    """The tensors in order, in up to four shards of about the same size."""
    total = sum(math.prod(shape) for shape in table.values())
    shards: list[Shapes] = [{} for _ in range(SHARDS)]
    done = 0
    for name, shape in table.items():
        size = math.prod(shape)
        shards[(done + size // 2) * SHARDS // total][name] = shape  # where its middle falls
        done += size
    return [shard for shard in shards if shard]


def write_shard(path: Path, table: Shapes, *, seed: int) -> None:
    """Write one safetensors file, whole or not at all."""
    header, stop = {}, 0
    for name, shape in table.items():
        start, stop = stop, stop + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, stop]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, shape in table.items():
                generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
                left = math.prod(shape)
                while left:
                    piece = torch.randn(min(left, PIECE), generator=generator).mul_(0.02)
                    file.write(piece.bfloat16().view(torch.uint8).numpy().data)
                    left -= len(piece)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make(folder: Path, *, scale: float = 1.0, layers: int = 32, seed: int = 0) -> bool:
    """Write the checkpoint unless it is there; False, with a line of why, if the disk is full."""
    table = shapes(scale, layers)
    whole = json.dumps({"seed": seed} | config(table, layers), indent=1)
    if (folder / INDEX).is_file() and (folder / "config.json").read_text("utf-8") == whole:
        return True
    folder.mkdir(parents=True, exist_ok=True)
    size = 2 * sum(math.prod(shape) for shape in table.values())
    free = shutil.disk_usage(folder).free
    if free < 1.1 * size:
        print(f"skipped: {folder} needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        return False
    (folder / INDEX).unlink(missing_ok=True)
    placed: dict[str, str] = {}
    parts = split(table)
    for k, part in enumerate(parts):
        name = f"model-{k + 1:05d}-of-{len(parts):05d}.safetensors"
        write_shard(folder / name, part, seed=seed)
        placed |= dict.fromkeys(part, name)
    (folder / "config.json").write_text(whole, encoding="utf-8")
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return True


def main() -> None:
    """Parse the options and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all widths")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if make(options.folder, scale=options.scale, layers=options.layers, seed=options.seed):
        sizes = [p.stat().st_size for p in options.folder.glob("*.safetensors")]
        print(f"{options.folder}: {sum(sizes) / 1e9:.2f} GB in {len(sizes)} shards")


if __name__ == "__main__":
    main()
