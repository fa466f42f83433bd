"""Training images held out in place of the test images, on which rates are chosen."""

from __future__ import annotations

from dataclasses import replace

import torch

from rclib.data.cifar10 import sha256_json
from rclib.data.images import Dataset

__all__ = ["held_out"]


def held_out(data: Dataset, n: int) -> Dataset:
    """The training images alone, n of them, drawn once, in place of the test images.

    Raises ValueError if that leaves no training image, or n is below one.
    """
    if not 1 <= n < len(data.y_train):
        raise ValueError(f"n must lie in 1 to {len(data.y_train) - 1}, got {n}")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(47))
    valid, train = order[:n], order[n:]
    return replace(
        data,
        description=f"{data.description}, {n:,} training images held out",
        x_train=data.x_train[train], y_train=data.y_train[train],
        x_test=data.x_train[valid], y_test=data.y_train[valid],
        checksum=sha256_json([data.checksum, "held out", n]),
    )  # fmt: skip
