"""The error of everything that reads a checkpoint."""

from __future__ import annotations

__all__ = ["CheckpointError", "printable"]


def printable(text: str) -> str:
    """The text with what is not printable in it escaped: names come from strangers."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: one printable line that names file, tensor or value."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))
