"""What an experiment may be run on."""

from __future__ import annotations

from typing import Protocol, Self

__all__ = ["Source"]


class Source(Protocol):
    """What an experiment may be run on: a `Dataset` or an `rclib.data.text.TextData`.

    description : what a caption prints. checksum : sha256 (hex) of what it holds, which stored
    runs are found by.
    """

    @property
    def description(self) -> str:
        """What a caption prints."""

    @property
    def checksum(self) -> str:
        """sha256 (hex) of what it holds."""

    def share_memory(self) -> Self:
        """Put what is large in shared memory, for worker processes."""
