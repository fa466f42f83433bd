"""Exact conversion of narrow floating types to float32 (or float64), block by block.

The means of a bfloat16 matrix are limited by this conversion, so it works on blocks that stay
in a core's cache. torch converts float16 and bfloat16 at the speed of the cache; it takes the
8-bit types one by one, so for the two that checkpoints use their bits are shifted into place:

    float8_e5m2 is the upper half of a float16;
    float8_e4m3fn, its seven lower bits moved up by seven, is a float16 that is 2^8 times too
    small, since the exponents are biased by 7 and 15.

The rarer 8-bit types go through a table of their 256 values. Every value of these types is a
float32, so nothing is rounded.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["FLOATING", "Widener"]

FLOATING = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)


class Widener:
    """Converts blocks of one type with memory that it keeps; one for each thread.

    dtype : type of the blocks; to : float32 or float64; entries : largest block.
    """

    def __init__(self, dtype: torch.dtype, to: torch.dtype, entries: int) -> None:
        self._out = torch.empty(entries, dtype=to)
        self._last = self._out  # as the last block was shaped, which the next mostly is too
        self._dtype = dtype
        if dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            self._half = torch.empty(entries, dtype=torch.int16)
        elif dtype.itemsize == 1:
            codes = torch.arange(256, dtype=torch.uint8)
            self._table = codes.view(dtype).to(to).numpy()

    def __call__(self, block: Tensor) -> Tensor:
        """The block's values, same shape; valid until the next call."""
        if self._last.shape != block.shape:
            self._last = self._out[: block.numel()].view(block.shape)
        out = self._last
        if self._dtype.itemsize > 1:
            return out.copy_(block)
        if self._dtype == torch.float8_e5m2:
            half = self._half[: block.numel()].view(block.shape).copy_(block.view(torch.int8))
            return out.copy_(half.bitwise_left_shift_(8).view(torch.float16))
        if self._dtype == torch.float8_e4m3fn:
            return self._e4m3fn(block, out)
        codes = block.view(torch.uint8).numpy()
        np.take(self._table, codes, out=out.numpy(), mode="clip")
        return out

    def _e4m3fn(self, block: Tensor, out: Tensor) -> Tensor:
        half = self._half[: block.numel()].view(block.shape)
        # Sign extension puts the sign into bits 15 and 14 after the shift; bit 14 is cleared.
        half.copy_(block.view(torch.int8)).bitwise_left_shift_(7).bitwise_and_(-0x4001)
        out.copy_(half.view(torch.float16)).mul_(256.0)
        # The one code that is no number (but for its sign) has no counterpart in float16.
        codes = block.view(torch.uint8) & 0x7F
        if codes.numel() and int(codes.amax()) == 0x7F:
            out.masked_fill_(codes == 0x7F, torch.nan)
        return out
