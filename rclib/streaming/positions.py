"""Positions along an axis of a matrix that a block of rows or columns stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Block", "Places", "marks_of", "places_of"]

Block = slice | Sequence[int] | Tensor
# Positions along an axis, as NumPy takes them, and how many they are.
Places = tuple[slice | NDArray[np.int64], int]


def places_of(blocks: Mapping[str, Block], size: int, where: str) -> dict[str, Places]:
    """Positions of each block, checked: at least one, inside the axis, none twice.

    Raises ValueError, beginning with `where`, for a block of another kind.
    """
    if not blocks:
        raise ValueError(f"{where}: at least one is needed")
    found: dict[str, Places] = {}
    for label, block in blocks.items():
        if isinstance(block, slice):
            count = len(range(*block.indices(size)))
            if not count or max(block.start or 0, block.stop or 0) > size:
                raise ValueError(f"{where}: {label!r} is not inside {size} positions: {block}")
            found[label] = block, count
            continue
        places = np.asarray(block)
        if places.ndim != 1 or not len(places) or places.dtype.kind not in "iu":
            raise ValueError(f"{where}: {label!r} must be a slice or a list of positions")
        if not 0 <= places.min() <= places.max() < size or len(np.unique(places)) != len(places):
            raise ValueError(f"{where}: {label!r} must name positions below {size} once each")
        found[label] = places.astype(np.int64), len(places)
    return found


def marks_of(places: Mapping[str, Places], size: int) -> Tensor | None:
    """(blocks, size) of zeros and ones; None for one block of everything."""
    if len(places) == 1 and next(iter(places.values()))[1] == size:
        return None
    marks = np.zeros((len(places), size))
    for row, (positions, _) in zip(marks, places.values(), strict=True):
        row[positions] = 1.0
    return torch.from_numpy(marks)
