"""How one number travels in notebook 85: as float32, as a power of e in few bits, as its sign.

A logarithmic code keeps the sign and p = round(steps · ln|g|), clipped to [lowest, highest], and is
read as ± exp(p / steps). In the middle of its range the factor between what is read and what was
sent is at most exp(1 / (2 steps)). Numbers whose p is below the lowest are read as that power, zero
as zero.

    9 bits   16 steps a factor of e, |p| ≤ 127: 255 powers, two signs and zero are 511 symbols. The
             authors' released code calls it one byte (`one_byte`), which it cannot be.
    byte     8 steps, |p| ≤ 63: 254 signed powers, and zero.
    4 bits   one power of two a step: the sign and 2^-4 ... 2^3; zero is read as +2^-4.
    sign     one bit, read as ± 1.

Machines of this module send whole bytes: symbols are packed, most significant bit first, into as
few bytes as hold them. It needs numpy alone, as do `one_byte_nets` and `one_byte_machines`, so that
a process of another machine starts fast.

Source: Zelikman et al. (2023), arXiv 2306.10015, and their code, app.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CODES", "FLOAT", "Code", "code_of"]

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Code:
    """A code for one number.

    bits : of a symbol. steps : a factor of e has so many powers; 0 for the float, which is sent as
    it is. lowest, highest : of the powers p. zero : whether zero has a symbol of its own.
    """

    bits: int
    steps: float = 0.0
    lowest: int = 0
    highest: int = 0
    zero: bool = True

    @property
    def powers(self) -> int:
        """Number of powers of one sign."""
        return self.highest - self.lowest + 1

    def symbols(self, values: Sequence[float] | Floats) -> Any:
        """Whole numbers from 0 below 2^bits, (n,) int64. Raises ValueError for what is not
        finite."""
        given = np.asarray(values, dtype=np.float64)
        if not np.isfinite(given).all():
            raise ValueError(f"values must be finite, got {given.tolist()}")
        if self.steps == 0:
            return given.astype(np.float32).view(np.uint32).astype(np.int64)
        size = np.abs(given)
        with np.errstate(divide="ignore"):  # zero has -inf, and is set below
            power = np.clip(np.rint(self.steps * np.log(size)), self.lowest, self.highest)
        symbol = (power - self.lowest).astype(np.int64) + self.powers * (given < 0)
        return np.where(size == 0, 2 * self.powers, symbol) if self.zero else symbol

    def values(self, symbols: Any) -> Floats:
        """What the symbols are read as, (n,) float64."""
        given = np.asarray(symbols, dtype=np.int64)
        if self.steps == 0:
            return given.astype(np.uint32).view(np.float32).astype(np.float64)
        size = np.exp((given % self.powers + self.lowest) / self.steps)
        read = np.where(given // self.powers == 1, -size, size)
        return np.where(given == 2 * self.powers, 0.0, read) if self.zero else read

    def packed(self, symbols: Any) -> bytes:
        """Symbols in `length` bytes, the first bit first; the last byte is filled up with zeros."""
        places = np.arange(self.bits - 1, -1, -1)
        bits = (np.asarray(symbols, dtype=np.int64)[:, None] >> places) & 1
        return np.packbits(bits.astype(np.uint8).ravel()).tobytes()

    def unpacked(self, message: bytes, count: int) -> Any:
        """The `count` symbols of a message. Raises ValueError for one of another length."""
        if len(message) != self.length(count):
            raise ValueError(f"message must have {self.length(count)} bytes, got {len(message)}")
        bits = np.unpackbits(np.frombuffer(message, np.uint8))[: count * self.bits]
        return bits.reshape(count, self.bits) @ (1 << np.arange(self.bits - 1, -1, -1))

    def length(self, count: int) -> int:
        """Bytes of a message of so many symbols."""
        return -(-count * self.bits // 8)

    def read(self, values: Sequence[float] | Floats) -> Floats:
        """What arrives of numbers that are sent."""
        return self.values(self.symbols(values))


FLOAT = Code(32)
CODES = {
    "float": FLOAT,
    "9 bits": Code(9, 16.0, -127, 127),
    "byte": Code(8, 8.0, -63, 63),
    "4 bits": Code(4, 1 / math.log(2), -4, 3, zero=False),
    "sign": Code(1, 1.0, 0, 0, zero=False),
}


def code_of(name: str) -> Code:
    """A code by its name. Raises ValueError for a name that is none."""
    if name not in CODES:
        raise ValueError(f"code must be one of {', '.join(CODES)}, got {name!r}")
    return CODES[name]
