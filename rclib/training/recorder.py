"""What a training loop keeps of a run: the loss of every step, and measurements at chosen steps.

`Losses` and `Recorder` say when something is due and hold what came; what is measured, and what
happens when a loss is no number, is each loop's own. Step t stands for "after t updates".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

__all__ = ["Losses", "Recorder", "chosen_steps"]


def chosen_steps(name: str, steps: Iterable[int], last: int) -> list[int]:
    """Steps in ascending order, each once. Raises ValueError for one outside of 0 ... last."""
    steps = list(steps)
    for t in steps:
        if isinstance(t, bool) or int(t) != t or not 0 <= t <= last:
            raise ValueError(f"{name} must hold steps from 0 to {last}, got {t!r}")
    return sorted({int(t) for t in steps})


class Losses:
    """The loss of every step of a run, on the device; nothing waits for it until it is looked at.

    values : (last - first, *members), the loss of step t in row t - first.
    looked : up to this step `bad` has found the losses finite. Set both when a run goes on.
    """

    def __init__(
        self,
        first: int,
        last: int,
        *,
        members: tuple[int, ...] = (),
        fill: float = 0.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.first = self.looked = first
        self.values = torch.full(
            (last - first, *members), fill, dtype=dtype or torch.get_default_dtype(), device=device
        )

    def until(self, step: int) -> Tensor:
        """A view of the losses before a step, (step - first, *members)."""
        return self.values[: step - self.first]

    def bad(self, step: int) -> tuple[int, float] | None:
        """The first step since the last look whose loss is NaN or infinite, and that loss.

        None if all before `step` are finite; the next look then starts there. Waits for the device.
        """
        recent = self.values[self.looked - self.first : step - self.first]
        found = torch.nonzero(~torch.isfinite(recent))
        if len(found):
            at = int(found[0, 0])
            return self.looked + at, float(recent[tuple(found[0].tolist())])
        self.looked = step
        return None


class Recorder:
    """Measurements of a run, each by name at steps of its own.

    at : name -> steps at which it is due.

    A value is kept as it is, by step (`keep`, `values`), or becomes one row of an array with a
    row for each of its steps (`write`, `arrays`). Rows never written, since the run ended before
    them, are NaN, and zero in whole numbers.
    """

    def __init__(self, at: Mapping[str, Collection[int]]) -> None:
        self._rows = {
            name: {step: row for row, step in enumerate(sorted(set(steps)))}
            for name, steps in at.items()
        }
        self.values: dict[str, dict[int, Any]] = {name: {} for name in at}
        self.arrays: dict[str, Any] = {}

    def due(self, name: str, step: int) -> bool:
        """Whether a name is to be measured at a step."""
        return step in self._rows[name]

    def steps(self, name: str) -> list[int]:
        """The steps of a name, ascending."""
        return list(self._rows[name])

    def keep(self, name: str, step: int, value: Any) -> None:
        """Keep a value by its step; the caller must not change it afterwards."""
        self.values[name][step] = value

    def reserve(self, name: str, key: str, shape: Sequence[int], dtype: DTypeLike) -> None:
        """A NumPy array (steps of the name, *shape) for `write`, in the order of the calls."""
        whole = np.issubdtype(dtype, np.integer)
        array: NDArray[Any] = np.full(
            (len(self._rows[name]), *shape), 0 if whole else np.nan, dtype=dtype
        )
        self.arrays[key] = array

    def write(self, name: str, step: int, key: str, value: Any) -> None:
        """Copy a value into the row of a step.

        Without `reserve`, the first value, a tensor, says the rows' shape, dtype and device.
        """
        if key not in self.arrays:
            fill = float("nan") if value.is_floating_point() else 0
            self.arrays[key] = torch.full(
                (len(self._rows[name]), *value.shape), fill, dtype=value.dtype, device=value.device
            )
        self.arrays[key][self._rows[name][step]] = value
