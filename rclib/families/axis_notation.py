"""One line a tensor: which indices its axes run over, fused tensors included.

`rclib.rowcolumn.axes` names one index an axis. A checkpoint's axis is often more than one index:
rows of a query matrix run over (head, dimension), and a fused matrix holds query, key and value in
one. The notation, axes in the order in which they are stored:

    stream                                  one axis, one index
    (head qk)                               a product of indices, the slowest first
    [q: head qk | k: head qk | v: head vo]  an axis cut into named parts, one after another
    (head [q: qk | k: qk | v: vo])          the same cut inside every head
    mlp <- stream                           a matrix stored (outputs, inputs), y = W x
    stream -> mlp                           stored the other way round, y = x W
    vocab stream                            no arrow: nothing is summed (look-up tables, gains)

A tensor is cut into pieces, each with one axis an index: then the axes table of the pieces is an
`rclib.rowcolumn.axes.Axes` and `rclib.rowcolumn.transfer` works on it as it does on any network.
The arrow says which axes are the fan-in and, whatever the storage, which are rows (outputs) and
columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Axis",
    "NotationError",
    "TensorAxes",
    "UnknownSizesError",
    "cut",
    "join",
    "parse",
    "solve_sizes",
]


class NotationError(ValueError):
    """A line that does not follow the notation, or sizes that do not fit it.

    tensor : whose shape it is that does not fit, None where there is none.
    """

    tensor: str | None = None


def _misfit(tensor: str, message: str) -> NotationError:
    error = NotationError(message)
    error.tensor = tensor
    return error


class UnknownSizesError(NotationError):
    """Indices whose sizes the shapes do not tell; `indices` names them."""

    def __init__(self, indices: Sequence[str]) -> None:
        self.indices = tuple(indices)
        super().__init__(f"sizes of {', '.join(indices)} cannot be told from the shapes")


@dataclass(frozen=True)
class Axis:
    """One stored axis: leading indices, then at most one cut into named parts.

    lead : indices, the slowest first. parts : (label, indices) in order; empty when not cut.
    """

    lead: tuple[str, ...]
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def indices(self, part: str = "") -> tuple[str, ...]:
        """The indices of the axis in one part, in order."""
        return self.lead + (dict(self.parts)[part] if self.parts else ())

    def names(self) -> tuple[str, ...]:
        """Every index of the axis, once each."""
        return tuple(dict.fromkeys((*self.lead, *(n for _, p in self.parts for n in p))))

    def size(self, sizes: Mapping[str, int]) -> int:
        """Entries along the axis."""
        return math.prod(sizes[i] for i in self.lead) * self._inner(sizes)

    def _inner(self, sizes: Mapping[str, int]) -> int:
        if not self.parts:
            return 1
        return sum(math.prod(sizes[i] for i in names) for _, names in self.parts)


@dataclass(frozen=True)
class TensorAxes:
    """The axes of one tensor in stored order; `inputs` are the positions of its fan-in.

    arrow : whether the line had one. Without it no axis is summed over.
    """

    axes: tuple[Axis, ...]
    inputs: tuple[int, ...] = ()
    arrow: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the pieces; one empty label when the tensor is not cut."""
        for axis in self.axes:
            if axis.parts:
                return tuple(label for label, _ in axis.parts)
        return ("",)

    def indices(self, label: str = "") -> tuple[str, ...]:
        """Indices of a piece, one an axis of what `cut` returns."""
        return tuple(i for axis in self.axes for i in axis.indices(label))

    def side(self, position: int) -> str:
        """ "C" for rows (outputs), "R" for columns (inputs), "" for tensors of one axis.

        The vector of an axis is the mean over the others; `.C` and `.R` are the paper's names
        for those of rows and of columns. Without an arrow the first axis counts as the rows.
        """
        if len(self.axes) == 1:
            return ""
        if self.arrow:
            return "R" if position in self.inputs else "C"
        return "C" if position == 0 else "R"


_NAME = r"[A-Za-z_]\w*(?:\.(?:\d+|\{\w+\}))*"
_TOKEN = re.compile(rf"\s*(<-|->|[()\[\]|:]|{_NAME})")


def parse(text: str) -> TensorAxes:
    """Read one line of the notation (module docstring).

    Raises NotationError with the line and the place of the fault.
    """
    if not isinstance(text, str):
        raise NotationError(f"axes must be text like 'mlp <- stream', got {type(text).__name__}")
    return _Parser(text).tensor()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise NotationError(f"axes {text!r}: cannot read {text[at:].strip()!r}")
            self.tokens.append(found[1])
            at = found.end()
        self.at = 0

    def fail(self, wanted: str) -> NotationError:
        got = repr(self.tokens[self.at]) if self.at < len(self.tokens) else "the end"
        return NotationError(f"axes {self.text!r}: expected {wanted}, got {got}")

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise self.fail(repr(wanted))
        self.at += 1

    def names(self) -> tuple[str, ...]:
        first = self.at
        while re.fullmatch(_NAME, self.peek()):
            self.at += 1
        return tuple(self.tokens[first : self.at])

    def cut(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        self.take("[")
        parts: list[tuple[str, tuple[str, ...]]] = []
        while True:
            label = self.peek()
            if not re.fullmatch(r"[A-Za-z_]\w*", label):
                raise self.fail("the label of a part")
            self.at += 1
            self.take(":")
            names = self.names()
            if not names:
                raise self.fail("an index")
            parts.append((label, names))
            if self.peek() != "|":
                break
            self.at += 1
        self.take("]")
        if len(dict(parts)) != len(parts):
            raise NotationError(f"axes {self.text!r}: two parts have one label")
        return tuple(parts)

    def axis(self) -> Axis:
        if self.peek() == "[":
            return Axis((), self.cut())
        if self.peek() == "(":
            self.at += 1
            lead = self.names()
            parts = self.cut() if self.peek() == "[" else ()
            self.take(")")
            if not lead and not parts:
                raise NotationError(f"axes {self.text!r}: an axis without an index")
            return Axis(lead, parts)
        if not re.fullmatch(_NAME, self.peek()):
            raise self.fail("an index")
        self.at += 1
        return Axis((self.tokens[self.at - 1],))

    def tensor(self) -> TensorAxes:
        axes: list[Axis] = []
        arrow, split = "", 0
        while self.at < len(self.tokens):
            if self.peek() in ("<-", "->"):
                if arrow or not axes:
                    raise self.fail("an axis")
                arrow, split = self.peek(), len(axes)
                self.at += 1
            axes.append(self.axis())
        if not axes:
            raise NotationError(f"axes {self.text!r}: expected an index, got the end")
        if sum(bool(axis.parts) for axis in axes) > 1:
            raise NotationError(f"axes {self.text!r}: more than one axis is cut")
        places = tuple(range(len(axes)))
        inputs = {"<-": places[split:], "->": places[:split], "": ()}[arrow]
        return TensorAxes(tuple(axes), inputs, bool(arrow))


def solve_sizes(
    tensors: Mapping[str, TensorAxes],
    shapes: Mapping[str, Sequence[int]],
    known: Mapping[str, int],
) -> dict[str, int]:
    """Sizes of all indices from the shapes and from what is known beforehand.

    Every stored axis is an equation, (product of its indices) = (its length); one with a single
    unknown gives that unknown, until nothing is left. Raises NotationError when a shape
    contradicts its axes, naming tensor, shape and sizes, and UnknownSizesError for indices that
    stay unknown.
    """
    sizes = dict(known)
    equations: list[tuple[str, Axis, int]] = []
    for name, axes in tensors.items():
        shape = tuple(shapes[name])
        if len(shape) != len(axes.axes):
            raise _misfit(
                name, f"tensor {name!r} has shape {shape}, its axes table has {len(axes.axes)} axes"
            )
        equations += [(name, a, n) for a, n in zip(axes.axes, shape, strict=True)]
    while equations:
        left = []
        for name, axis, length in equations:
            unknown = [i for i in axis.names() if i not in sizes]
            if len(unknown) == 1 and (value := _solve(axis, length, unknown[0], sizes)) is not None:
                sizes[unknown.pop()] = value
            if unknown:
                left.append((name, axis, length))
            elif axis.size(sizes) != length:
                given = ", ".join(f"{i} = {sizes[i] or '?'}" for i in axis.names())
                raise _misfit(
                    name,
                    f"tensor {name!r} of shape {tuple(shapes[name])}: an axis of {length} does "
                    f"not fit its indices ({given})",
                )
        if len(left) == len(equations):
            missing = sorted({i for _, a, _ in left for i in a.names() if i not in sizes})
            raise UnknownSizesError(missing)
        equations = left
    return sizes


def _solve(axis: Axis, length: int, unknown: str, sizes: Mapping[str, int]) -> int | None:
    """The one unknown index's size: 0 if no whole positive one fits, None if the equation is not
    linear in it (the index occurs twice in one product)."""
    at_one = axis.size({**sizes, unknown: 1})
    slope = axis.size({**sizes, unknown: 2}) - at_one
    if slope <= 0 or axis.size({**sizes, unknown: 3}) != at_one + 2 * slope:
        return None
    value, rest = divmod(length - at_one, slope)
    return 1 + value if rest == 0 and value >= 0 else 0


def cut(tensor: Tensor, axes: TensorAxes, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The pieces of a tensor, {label: view with one axis an index}; no copy is made.

    Raises NotationError when the shape is not what axes and sizes say.
    """
    wanted = tuple(axis.size(sizes) for axis in axes.axes)
    if tuple(tensor.shape) != wanted:
        raise NotationError(f"tensor has shape {tuple(tensor.shape)}, its axes say {wanted}")
    pieces: dict[str, Tensor] = {}
    for label in axes.labels:
        view = tensor
        for position in reversed(range(len(axes.axes))):  # the last first: earlier ones stay put
            axis = axes.axes[position]
            split = [sizes[i] for i in axis.lead]
            if not axis.parts:
                view = view.unflatten(position, split)
                continue
            lengths = {name: math.prod(sizes[i] for i in inner) for name, inner in axis.parts}
            view = view.unflatten(position, [*split, sum(lengths.values())])
            before = list(lengths).index(label)
            start = sum(list(lengths.values())[:before])
            inner = position + len(split)
            view = view.narrow(inner, start, lengths[label])
            view = view.unflatten(inner, [sizes[i] for i in dict(axis.parts)[label]])
        pieces[label] = view
    return pieces


def join(pieces: Mapping[str, Tensor], axes: TensorAxes) -> Tensor:
    """The tensor again from its pieces, whose sizes may have changed; inverse of `cut`."""
    flat = []
    for label in axes.labels:
        view = pieces[label]
        counts = [len(axis.indices(label)) for axis in axes.axes]
        for position in reversed(range(len(axes.axes))):
            axis, start = axes.axes[position], sum(counts[:position])
            first = start + (len(axis.lead) if axis.parts else 0)  # leading ones wait for the cat
            view = view.flatten(first, start + counts[position] - 1)
        flat.append(view)
    for position, axis in enumerate(axes.axes):
        if axis.parts:
            inner = position + len(axis.lead)
            return torch.cat(flat, dim=inner).flatten(position, inner)
    return flat[0]
