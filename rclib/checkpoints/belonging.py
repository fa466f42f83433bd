"""Which tensors of a checkpoint's files are its weights: what its index says, and what is none."""

from __future__ import annotations

from pathlib import Path

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.folders import LORA
from rclib.checkpoints.readers import Chosen, FileReader, Reader
from rclib.checkpoints.tensor_file import brief_line

__all__ = ["check_names", "named_by_index", "without_empty"]


def check_names(source: str, readers: list[Reader]) -> None:
    """CheckpointError for a tensor in two files, and for factors instead of weights."""
    seen: set[str] = set()
    for reader in readers:
        for name in reader.tensors:
            if name in seen:
                raise CheckpointError(f"{source}: tensor {brief_line(name)} is in two of its files")
            seen.add(name)
    factors = [name for name in seen if ".lora_A" in name or ".lora_B" in name]
    if factors and 2 * len(factors) >= len(seen):
        raise CheckpointError(f"{source}: {LORA}")


def without_empty(source: str, readers: list[Reader], left_out: dict[str, str]) -> list[Reader]:
    """The readers without parameters of shape (0,), which is what ZeRO-3 leaves of a sharded one.

    CheckpointError where they are more than a few.
    """
    names = {n for r in readers for n, i in r.tensors.items() if i.shape == (0,)}
    names = {n for n in names if n.endswith(("weight", "bias"))}
    if not names:
        return readers
    reason = (
        "is empty: what DeepSpeed's ZeRO-3 leaves of weights that are saved without gathering "
        "them (zero_to_fp32.py joins its shards; stage3_gather_16bit_weights_on_model_save)"
    )
    total = sum(len(reader.tensors) for reader in readers)
    if 10 * len(names) >= total:
        raise CheckpointError(
            f"{source}: {len(names)} of {total} tensors are empty; tensor "
            f"{brief_line(min(names))} {reason}"
        )
    left_out |= dict.fromkeys(sorted(names), reason)
    return [Chosen(r, r.tensors.keys() - names) for r in readers]


def named_by_index(
    path: Path, reader: FileReader, expected: frozenset[str], notes: list[str]
) -> Reader:
    """The tensors that the index puts into a file; the others are left out, with a note.

    Raises CheckpointError for one that is not there.
    """
    for name in sorted(expected - set(reader.tensors) - set(reader.left_out)):
        raise CheckpointError(
            f"{path}: lacks tensor {brief_line(name)}, which the index puts there"
        )
    extra = [name for name in reader.tensors if name not in expected]
    if not extra:
        return reader
    notes.append(f"{path.name}: left out what the index does not name: {brief_line(extra, 200)}")
    return Chosen(reader, expected)
