"""rclib.streaming.widen: every value of every narrow type, against torch's own conversion."""

from __future__ import annotations

import pytest
import torch

from rclib.streaming.widen import FLOATING, Widener

NARROW = [name for name in FLOATING if getattr(torch, name).itemsize <= 2]


@pytest.mark.parametrize("to", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NARROW)
def test_every_value_of_a_type(name: str, to: torch.dtype) -> None:
    dtype = getattr(torch, name)
    integer = torch.uint8 if dtype.itemsize == 1 else torch.uint16
    codes = torch.arange(256**dtype.itemsize).to(integer).view(dtype)
    widen = Widener(dtype, to, codes.numel())
    for shape in ((-1,), (16, -1)):
        expected = codes.view(shape).to(to)
        found = widen(codes.view(shape))
        assert found.dtype == to
        assert torch.equal(torch.isnan(found), torch.isnan(expected))
        assert torch.equal(torch.nan_to_num(found), torch.nan_to_num(expected))


def test_blocks_with_gaps_between_rows() -> None:
    for name in FLOATING:
        whole = torch.ones(6, 10).to(getattr(torch, name))
        block = whole[1:5, 2:7]
        found = Widener(whole.dtype, torch.float64, 20)(block)
        assert torch.equal(found, torch.ones(4, 5, dtype=torch.float64)), name


def test_memory_is_used_again() -> None:
    widen = Widener(torch.bfloat16, torch.float32, 8)
    first = widen(torch.ones(8, dtype=torch.bfloat16))
    second = widen(torch.zeros(4, dtype=torch.bfloat16))
    assert first.data_ptr() == second.data_ptr()
    assert not first[:4].any()
