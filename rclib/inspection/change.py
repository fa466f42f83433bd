"""The change between two checkpoints of one model, W after - W before, as a checkpoint of its own.

Tensors are those of one name and shape in both; names may differ by what wrappers add
(`rclib.checkpoints.names`). What the two do not share is listed. Nothing is kept in memory: a
difference is made when it is read.

Entries that are stored with a relative precision eps are known up to eps |W|, and so is their
difference, however small: a change below that is rounding (`Change.known`). Of two precisions the
finer one counts, since training in float32 may have begun from exact bfloat16 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.names import shorter_names
from rclib.checkpoints.opening import Checkpoint, TensorInfo
from rclib.checkpoints.tensor_file import brief_line
from rclib.spectral.rounding import Precision, precision

__all__ = ["Change"]


class Change(Checkpoint):
    """after - before, tensor by tensor.

    after, before : the checkpoints, which stay open when it is closed, unless it `owns` them;
    partner : {name in after: name in before}.
    Raises CheckpointError if no floating tensor has a partner.
    """

    def __init__(self, after: Checkpoint, before: Checkpoint, *, owns: bool = False) -> None:
        self.after, self.before, self._owns = after, before, owns
        names = _partners(after.tensors, before.tensors)
        infos: dict[str, TensorInfo] = {}
        left: dict[str, str] = {}
        for name, info in after.tensors.items():
            if "float" not in info.dtype:
                continue
            other = before.tensors[names[name]] if name in names else None
            if other is None:
                left[name] = f"is not in {before.source}"
            elif tuple(other.shape) != tuple(info.shape):
                left[name] = f"has shape {tuple(other.shape)} in {before.source}"
            elif "float" in other.dtype:
                wide = "float64" in (info.dtype, other.dtype)
                size = math.prod(info.shape) * (8 if wide else 4)
                infos[name] = TensorInfo(info.shape, "float64" if wide else "float32", size)
        if not infos:
            first = next((f": {brief_line(n)} {why}" for n, why in left.items()), "")
            raise CheckpointError(
                f"{after.source} and {before.source} share no tensor of one name and shape{first}"
            )
        self.partner: Mapping[str, str] = {name: names[name] for name in infos}
        title = f"{after.source} minus {before.source}"
        super().__init__(title, [_Difference(self, infos)], after.config, left_out=left)

    def check_unchanged(self) -> None:
        """As that of the two, which is asked of both."""
        self.after.check_unchanged()
        self.before.check_unchanged()

    def close(self) -> None:
        """No more reading; the two are closed if they are its own."""
        super().close()
        if self._owns:
            self.after.close()
            self.before.close()

    def known(self, name: str, after: Tensor, before: Tensor) -> Precision:
        """How precisely the difference of two matrices (h, d) is known."""
        first, second = precision(after), precision(before)
        size = math.hypot(first.rms, second.rms)
        return Precision(min(first.eps, second.eps), size, first.shape)


def _partners(after: Mapping[str, object], before: Mapping[str, object]) -> dict[str, str]:
    """{name in after: name in before}: the same one, or the same without wrappers' words."""
    plain: dict[str, list[str]] = {}
    for name in before:
        plain.setdefault(shorter_names(name)[-1], []).append(name)
    found = {}
    for name in after:
        same = plain.get(shorter_names(name)[-1], [])
        if name in before:
            found[name] = name
        elif len(same) == 1:
            found[name] = same[0]
    return found


class _Difference:
    """The reader behind a `Change`."""

    def __init__(self, change: Change, infos: Mapping[str, TensorInfo]) -> None:
        self.change, self.tensors = change, infos

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """Entries of the difference; the buffer is not used."""
        dtype = getattr(torch, self.tensors[name].dtype)
        after = self.change.after.entries(name, start, stop).double()
        before = self.change.before.entries(self.change.partner[name], start, stop)
        difference: Tensor = (after - before.double()).to(dtype)
        return difference

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """The same as `read`."""
        return self.read(name, start, stop, buffer)

    def close(self) -> None:
        """The two checkpoints are closed by who opened them."""
