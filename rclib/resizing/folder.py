"""A checkpoint at another width, as a folder that `transformers` (or nanoGPT) loads.

    plan = resize_folder(checkpoint, layout, "grown", width=768)

Tensors are read, gathered and written a few rows at a time (`rclib.resizing.plan` says which); of
the source no more than `WHOLE` bytes and one row's length are held. The folder appears whole or not
at all, and is no older one's: config.json with the new sizes, safetensors files (an index if there
are several), the tokenizer's files, and resize.json, which holds what was drawn.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rclib.checkpoints.opening import Checkpoint, CheckpointError
from rclib.checkpoints.tensor_file import TensorInfo, brief_line
from rclib.checkpoints.writing import (
    SafetensorsWriter,
    resized,
    shard_names,
    split_into_shards,
)
from rclib.families.layout import Layout
from rclib.files.new_folder import new_folder
from rclib.resizing.plan import AxisPlan, ResizePlan, plan_resize
from rclib.resizing.sizes import new_config, resolve_sizes

__all__ = ["SHARD", "Resized", "resize_folder"]

SHARD = 5_000_000_000  # bytes a file, as transformers has it
WHOLE = 64 << 20  # a tensor up to this size is read at once
PIECE = 8 << 20  # bytes that are written at a time
FLOATS = ("float64", "float32", "float16", "bfloat16")
# Files of a model's folder that no size stands in.
COPIED = (
    "tokenizer*", "vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "*.tiktoken", "spiece.model", "sentencepiece*.model",
    "chat_template*", "generation_config.json", "LICENSE*",
)  # fmt: skip
MAX_COPY = 200_000_000


@dataclass(frozen=True, eq=False)
class Resized:
    """What was written. folder : where; plan : how; files : names in the folder; copied : those
    taken over as they are; beside : names in the source's folder that were not; nbytes : of all
    tensors."""

    folder: Path
    plan: ResizePlan
    files: tuple[str, ...]
    copied: tuple[str, ...]
    beside: tuple[str, ...]
    nbytes: int


def resize_folder(
    checkpoint: Checkpoint,
    layout: Layout,
    out: str | os.PathLike[str],
    *,
    width: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    mlp: int | None = None,
    method: str = "duplication",
    seed: int = 0,
    shard_bytes: int = SHARD,
    progress: Callable[[int], object] | None = None,
) -> Resized:
    """Write the checkpoint at another width into the new folder `out`.

    layout : of its tensors, every one described (`rclib.families.layout.layout`). width, heads,
    kv_heads, mlp : `rclib.resizing.sizes.resolve_sizes`. method : "duplication" or "rc"
    (`rclib.resizing.plan`). shard_bytes : most of a file. progress : called with the bytes written.
    The tokenizer's files are copied from the folder that the checkpoint lies in.

    Raises ValueError (FamilyError, CheckpointError among them), one line each, for sizes that do
    not fit, models that cannot be resized as folders, tensors that were left out or are no plain
    floating-point numbers, a folder that is not empty, and values that leave their type's range.
    """
    target = Path(out)
    sizes = resolve_sizes(
        layout, checkpoint.config, width=width, heads=heads, kv_heads=kv_heads, mlp=mlp
    )
    _whole_model(checkpoint, layout)
    plan = plan_resize(layout, sizes, method=method, seed=seed)
    config = new_config(layout, checkpoint.config or {}, sizes)
    infos = _infos(checkpoint, plan)
    shards = split_into_shards(infos, shard_bytes)
    _check_target(target, sum(info.nbytes for info in infos.values()))
    copied, beside = _beside(checkpoint.folder)
    with new_folder(target) as work:
        names = shard_names(len(shards))
        for file, shard in zip(names, shards, strict=True):
            with SafetensorsWriter(work / file, shard) as writer:
                for name in shard:
                    for piece in _pieces(checkpoint, plan, name):
                        writer.write(name, piece)
                        if progress is not None:
                            progress(piece.numel() * piece.element_size())
        files = [*names, *_texts(work, plan, config, checkpoint.source, names, shards)]
        if layout.family == "nanogpt":
            files.append(_nanogpt(work, names, config))
        for path in copied:
            shutil.copyfile(path, work / path.name)
        checkpoint.check_unchanged()
    own = tuple(p.name for p in copied)
    total = sum(info.nbytes for info in infos.values())
    return Resized(target, plan, (*files, *own), own, beside, total)


def _whole_model(checkpoint: Checkpoint, layout: Layout) -> None:
    """CheckpointError unless all of the model is there, in plain numbers."""
    for name, reason in checkpoint.left_out.items():
        raise CheckpointError(
            f"{checkpoint.source}: tensor {brief_line(name)} {reason}: a part of the model cannot "
            "be resized"
        )
    for name in layout.weights:
        dtype = checkpoint.tensors[name].dtype
        if dtype not in FLOATS:
            raise CheckpointError(
                f"{checkpoint.source}: tensor {brief_line(name)} holds {dtype}; resizing scales "
                f"entries, which needs one of {', '.join(FLOATS)}"
            )


def _check_target(target: Path, nbytes: int) -> None:
    """ValueError for a folder that is there and not empty, a file, and a disk that is full."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ValueError(f"out {str(target)!r} is no folder")
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"out {str(target)!r} is not empty; give a new folder")
    there = next(p for p in target.absolute().parents if p.is_dir())
    free = shutil.disk_usage(there).free
    if nbytes > free:
        raise ValueError(f"out {str(target)!r} needs {nbytes} bytes, the disk has {free} left")


def _infos(checkpoint: Checkpoint, plan: ResizePlan) -> dict[str, TensorInfo]:
    found = {}
    for name, info in checkpoint.tensors.items():
        described = name in plan.layout.weights
        shape = tuple(a.size for a in plan.axes(name)) if described else tuple(info.shape)
        found[name] = resized(info, shape)
    return found


def _pieces(checkpoint: Checkpoint, plan: ResizePlan, name: str) -> Any:
    """Rows of the new tensor from top to bottom, about `PIECE` bytes each."""
    info = checkpoint.tensors[name]
    if name not in plan.layout.weights or not info.shape:
        yield from (rows for _, rows in checkpoint.chunks(name, max_bytes=PIECE))
        return
    first, *others = plan.axes(name)
    whole = checkpoint.tensor(name) if info.nbytes <= WHOLE else None
    width = max(1, info.nbytes // max(1, info.shape[0]))
    wider = torch.Size([a.size for a in others]).numel() * info.nbytes // max(1, _count(info))
    step = max(1, PIECE // max(width, wider))
    for start in range(0, first.size, step):
        stop = min(start + step, first.size)
        rows = _rows(checkpoint, name, whole, first, start, stop)
        yield _moved(name, rows, first, others, start, stop)


def _count(info: TensorInfo) -> int:
    return torch.Size(info.shape).numel()


def _rows(
    checkpoint: Checkpoint, name: str, whole: Tensor | None, axis: AxisPlan, start: int, stop: int
) -> Tensor:
    """Source rows of the new rows start to stop, in their order."""
    if axis.source is None:
        if whole is not None:
            return whole[start:stop]
        return checkpoint.rows(name, start, stop)
    wanted = axis.source[start:stop]
    if whole is not None:
        return whole.index_select(0, wanted)
    places, back = torch.unique(wanted, return_inverse=True)
    # Rows that follow each other are read together.
    breaks = (torch.diff(places) != 1).nonzero().flatten() + 1
    runs = torch.tensor_split(places, breaks.tolist())
    read = [checkpoint.rows(name, int(run[0]), int(run[-1]) + 1).clone() for run in runs]
    return torch.cat(read).index_select(0, back)


def _moved(
    name: str, rows: Tensor, first: AxisPlan, others: list[AxisPlan], start: int, stop: int
) -> Tensor:
    """The rows gathered along their other axes, and rescaled."""
    out = rows
    for place, axis in enumerate(others, start=1):
        if axis.source is not None:
            out = out.index_select(place, axis.source)
    own = None if first.factor is None else first.factor[start:stop]
    factors = [own, *(axis.factor for axis in others)]
    if all(factor is None for factor in factors):
        return out
    scaled = out.double()  # one rounding, whatever the number of factors
    for place, factor in enumerate(factors):
        if factor is not None:
            scaled = scaled * factor.view(-1, *[1] * (out.ndim - 1 - place))
    new = scaled.to(out.dtype)
    if bool((torch.isfinite(out) & ~torch.isfinite(new)).any()):
        raise ValueError(f"{name!r} leaves the range of {out.dtype} when it is rescaled")
    return new


def _texts(
    work: Path,
    plan: ResizePlan,
    config: Mapping[str, Any],
    source: str,
    names: list[str],
    shards: list[dict[str, TensorInfo]],
) -> list[str]:
    """Write the JSON files; their names."""
    files: dict[str, Any] = {"config.json": config, "resize.json": _record(plan, source)}
    if len(names) > 1:
        where = {
            tensor: file for file, shard in zip(names, shards, strict=True) for tensor in shard
        }
        total = sum(info.nbytes for shard in shards for info in shard.values())
        files["model.safetensors.index.json"] = {
            "metadata": {"total_size": total}, "weight_map": where,
        }  # fmt: skip
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False)
        if name == "resize.json":  # thousands of places on a line, not on one each
            text = _dense(content)
        (work / name).write_text(text + "\n", encoding="utf-8")
    return list(files)


def _record(plan: ResizePlan, source: str) -> dict[str, Any]:
    return {
        "source": source,
        "family": plan.layout.family,
        "method": plan.method,
        "seed": plan.seed,
        "function_kept": plan.exact,
        "notes": list(plan.notes),
        "sizes": {index: list(pair) for index, pair in plan.sizes.items()},
        "multipliers": {
            name: list(found)
            for name in plan.layout.weights
            if (found := plan.multipliers(name)) is not None
        },
        "drawn": {index: places.tolist() for index, places in plan.maps.items()},
    }


def _dense(record: Mapping[str, Any]) -> str:
    lines = []
    for key, value in record.items():
        if isinstance(value, dict):
            inner = ",\n".join(
                f"  {json.dumps(k, ensure_ascii=False)}: {json.dumps(v)}" for k, v in value.items()
            )
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}" if inner else f' "{key}": {{}}')
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def _nanogpt(work: Path, names: list[str], config: Mapping[str, Any]) -> str:
    """ckpt.pt as nanoGPT's sample.py and train.py read it."""
    from safetensors.torch import load_file

    state = {name: tensor for file in names for name, tensor in load_file(work / file).items()}
    torch.save({"model": state, "model_args": config["model_args"]}, work / "ckpt.pt")
    return "ckpt.pt"


def _beside(source: Path | None) -> tuple[list[Path], tuple[str, ...]]:
    """(files to copy, names of other files that are no weights)."""
    if source is None or not (source / "config.json").is_file():  # no model's folder
        return [], ()
    found = sorted(p for p in source.iterdir() if p.is_file())
    copied = [
        p for p in found
        if any(p.match(pattern) for pattern in COPIED) and p.stat().st_size <= MAX_COPY
    ]  # fmt: skip
    weights = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".index.json")
    others = [p.name for p in found if p not in copied and not p.name.endswith(weights)]
    return copied, tuple(n for n in others if n != "config.json" and not n.startswith("."))
