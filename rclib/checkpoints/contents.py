"""What a file is, by its first bytes: which reader opens it, or what it is instead and the remedy.

Endings say little: torch.save writes the same into .pt, .pth, .pth.tar, .ckpt, .bin and .pkl.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.tensor_file import brief_line, open_regular

__all__ = ["GGUF", "PICKLE", "SAFETENSORS", "kind_of"]

SAFETENSORS, PICKLE, GGUF = "safetensors", "pickle", "gguf"

_HEAD = 512
_EXPORT = "export the model as safetensors (save_pretrained of transformers writes them)"
_UNPACK = "unpack it first"

# What begins like this is something else: (first bytes, what it is, the remedy).
_OTHER = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights", "run `git lfs pull`"),
    (b"\x89HDF", "weights of Keras or TensorFlow (HDF5)", _EXPORT),
    (b"\x93NUMPY", "one numpy array", "pass {name: array} as torch.save or safetensors write it"),
    (b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstandard", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"lmgg", "of the format GGML before GGUF", "convert it anew by llama.cpp"),
    (b"fmgg", "of the format GGML before GGUF", "convert it anew by llama.cpp"),
    (b"tjgg", "of the format GGML before GGUF", "convert it anew by llama.cpp"),
    (b"RIFF", "no checkpoint", "pass the weights"),
)
# Of what an ending says about contents without a mark of their own.
_ENDINGS = (
    (".onnx", "an ONNX graph", "pass the weights it was exported from"),
    (".pb", "a TensorFlow graph", _EXPORT),
    (".h5", "weights of Keras or TensorFlow", _EXPORT),
    (".msgpack", "weights of Flax", _EXPORT),
    (".tflite", "a TensorFlow Lite graph", _EXPORT),
    (".index", "the index of a TensorFlow checkpoint", _EXPORT),
    (
        ".distcp",
        "one shard of torch.distributed.checkpoint",
        "join the folder's: python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
        "FOLDER model.pt",
    ),
)
_ONNX = re.compile(rb"\x08[\x01-\x0f]\x12[\x01-\x40]")  # ir_version, then producer_name


def kind_of(path: Path) -> str:
    """SAFETENSORS, PICKLE or GGUF.

    Raises CheckpointError (one line) saying what the file is instead and what to do.
    """
    handle = open_regular(path)
    try:
        head, size = os.pread(handle, _HEAD, 0), os.fstat(handle).st_size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)
    if not size:
        raise CheckpointError(f"{path}: is empty: a download that was broken off, or damaged")
    for mark, what, remedy in _OTHER:
        if head.startswith(mark):
            raise CheckpointError(f"{path}: {what}; {remedy}")
    if head.startswith(b"GGUF"):
        return GGUF
    if _safetensors(head, size):
        return SAFETENSORS
    if path.name.endswith(".safetensors"):
        # Its reader says what is wrong with the header, unless it is plainly something else.
        if head.startswith(b"PK") or _pickle(head):
            return PICKLE
        if _is_text(head):
            raise CheckpointError(f"{path}: {_otherwise(head)}")
        return SAFETENSORS
    for ending, what, remedy in _ENDINGS:
        if path.name.endswith(ending):
            raise CheckpointError(f"{path}: {what}; {remedy}")
    if head.startswith(b"PK") or _pickle(head):
        return PICKLE
    raise CheckpointError(f"{path}: {_otherwise(head)}")


def _safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= size - 8


def _pickle(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def _is_text(head: bytes) -> bool:
    """A page, JSON or a message in place of the file; headers begin with a length."""
    return len(head) >= 8 and all(b in b"\t\n\r" or 32 <= b < 127 for b in head[:64])


def _otherwise(head: bytes) -> str:
    text = head.lstrip()[:20].lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the weights; download the file itself (log in if it is gated)"
    if text.startswith(b"{"):
        return "a JSON file, not the weights; pass the folder that it is in, or the weights' file"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if _ONNX.match(head):
        return "an ONNX graph; pass the weights it was exported from"
    if _is_text(head):
        return f"a text, not the weights: it begins {brief_line(head[:40])}; download the file anew"
    return (
        "no checkpoint of a format that is read (safetensors, torch.save, GGUF), or damaged: it "
        f"starts with {brief_line(head[:8])}"
    )
