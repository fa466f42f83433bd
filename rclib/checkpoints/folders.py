"""Folders of models that are something else than weights to read, named with the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.tensor_file import brief_line

__all__ = ["LORA", "cache_snapshot", "explained", "sorted_names"]

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
MAX_FOLDERS = 1000  # below the folder that are looked into
_EXPORT = "export the model as safetensors (save_pretrained of transformers writes them)"
LORA = (
    "a LoRA adapter: its matrices are factors of changes; merge it into its base model first "
    "(merge_and_unload of peft, then save_pretrained) and pass that"
)


def sorted_names(folder: Path) -> list[str]:
    """Names in a folder. Raises CheckpointError if it cannot be read."""
    try:
        return sorted(p.name for p in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}") from None


def cache_snapshot(folder: Path) -> Path:
    """The one snapshot of a model in the hub's cache (models--owner--name), else the folder.

    Raises CheckpointError if there are several and none is the cache's main one.
    """
    snapshots = folder / "snapshots"
    if not folder.name.startswith("models--") or not snapshots.is_dir():
        return folder
    found = sorted_names(snapshots)
    main = folder / "refs" / "main"
    if len(found) != 1 and main.is_file() and main.stat().st_size < 200:
        commit = main.read_text("utf-8", errors="replace").strip()
        found = [commit] if commit in found else found
    if len(found) != 1:
        raise CheckpointError(
            f"{folder}: {len(found)} snapshots of a model in the hub's cache; pass one of them: "
            f"{brief_line([f'snapshots/{name}' for name in found], 200)}"
        )
    return snapshots / found[0]


def explained(folder: Path, names: Sequence[str]) -> None:
    """Raise CheckpointError for a folder without weights of a format that is read, if it can be
    told what it is instead."""
    has = set(names)
    if "adapter_config.json" in has or any(n.startswith("adapter_model.") for n in names):
        raise CheckpointError(f"{folder}: {LORA}")
    if any(n.endswith(".distcp") for n in names):
        raise CheckpointError(f"{folder}: {_sharded(folder)}")
    if "zero_to_fp32.py" in has or any("zero_pp_rank" in n for n in names):
        raise CheckpointError(
            f"{folder}: shards of DeepSpeed's ZeRO; join them: python zero_to_fp32.py . OUT"
        )
    if any(n.endswith(_WEIGHTS) for n in names):
        return
    _foreign(folder, names)
    below = _folders_with(folder, names, _WEIGHTS)
    shards = [] if below else _folders_with(folder, names, (".distcp",))
    if shards:
        raise CheckpointError(f"{folder / shards[0]}: {_sharded(folder / shards[0])}")
    if below:
        raise CheckpointError(
            f"{folder}: no weights in the folder itself, but in {', '.join(below)}; pass one of "
            f"them, such as {folder / below[0]}"
        )


def _sharded(folder: Path) -> str:
    return (
        "shards of torch.distributed.checkpoint; join them: python -m "
        f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pt"
    )


def _foreign(folder: Path, names: Sequence[str]) -> None:
    kinds = (
        (r"tf_model\.h5|.*\.keras|.*\.h5", "TensorFlow or Keras"),
        (r"saved_model\.pb|.*\.ckpt.*\.index|model\.ckpt-.*", "TensorFlow"),
        (r"flax_model.*\.msgpack", "Flax"),
        (r".*\.onnx", "ONNX"),
    )
    for pattern, kind in kinds:
        found = next((n for n in names if re.fullmatch(pattern, n[:200])), None)
        if found is not None:
            raise CheckpointError(f"{folder}: weights of {kind} ({brief_line(found)}); {_EXPORT}")


def _folders_with(folder: Path, names: Sequence[str], endings: tuple[str, ...]) -> list[str]:
    found = []
    for name in names[:MAX_FOLDERS]:
        below = folder / name
        if below.is_dir() and not name.startswith("."):
            try:
                has = any(p.name.endswith(endings) for p in below.iterdir())
            except OSError:
                continue
            if has:
                found.append(brief_line(name, 60)[1:-1])
    return found[:12]
