"""Two texts as one: the first to pre-train on, the second to adapt to."""

from __future__ import annotations

from dataclasses import replace

import torch

from rclib.data.cifar10 import sha256_json
from rclib.data.text import TextData

__all__ = ["two_texts"]


def two_texts(source: TextData, target: TextData, most: int) -> TextData:
    """At most so many bytes of one text for pre-training and of another to adapt to, as one text
    whose training part is the first."""
    parts = [source.tokens[:most], target.tokens[:most]]
    name = f"{source.name} to {target.name}"
    checksum = sha256_json([source.checksum, target.checksum, most])
    size = sum(len(part) for part in parts) / 1e6
    return replace(
        source, name=name, description=f"{name} ({size:.2f} MB, bytes)", tokens=torch.cat(parts),
        n_train=len(parts[0]), checksum=checksum, path=None, origin=None,
    )  # fmt: skip
