"""streaming.tiles: windows cover a matrix once, and sums of any window are those of float64."""

from __future__ import annotations

import pytest
import torch

from rclib.checkpoints.opening import open_checkpoint
from rclib.streaming import tiles
from rclib.streaming.tiles import Selection, Tiler, Window, windows


@pytest.mark.parametrize("shape", [(7, 5), (1, 3000), (3000, 1), (900, 3), (5, 1200), (1, 1)])
@pytest.mark.parametrize("itemsize", [1, 2, 8])
def test_windows_cover_every_entry_once_in_order(
    shape: tuple[int, int], itemsize: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "WINDOW", 1024)
    seen: list[int] = []
    for w in windows(*shape, itemsize):
        assert (w.left, w.right) == (0, shape[1]) or w.bottom == w.top + 1  # one piece of bytes
        assert (w.bottom - w.top) * (w.right - w.left) * itemsize <= 1024
        block = torch.arange(shape[0] * shape[1]).view(shape)[w.top : w.bottom, w.left : w.right]
        seen += block.flatten().tolist()
    assert seen == list(range(shape[0] * shape[1]))


@pytest.mark.parametrize("window", [Window(0, 40, 0, 9000), Window(3, 4, 100, 8900)])
@pytest.mark.parametrize("squares", [False, True])
def test_sums_of_a_window(window: Window, squares: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(40, 9000, generator=generator).bfloat16()
    checkpoint = open_checkpoint({"w": w})
    part = w[window.top : window.bottom, window.left : window.right].double()
    rows = (torch.rand(3, 40, generator=generator) < 0.5).double()
    columns = (torch.rand(9000, 2, generator=generator) < 0.5).double()
    marks = rows[:, window.top : window.bottom], columns[window.left : window.right]
    for selection in (
        Selection(),
        Selection(rows, columns),
        Selection(rows),
        Selection(None, columns),
    ):
        a = torch.ones(1, len(part)).double() if selection.rows is None else marks[0]
        b = torch.ones(part.shape[1], 1).double() if selection.columns is None else marks[1]
        found = Tiler().sums(checkpoint, "w", (40, 9000), window, selection, squares=squares)
        assert found.window == window
        torch.testing.assert_close(found.rows, part @ b, rtol=0, atol=2e-4)
        torch.testing.assert_close(found.columns, a @ part, rtol=0, atol=2e-5)
        if squares:
            torch.testing.assert_close(found.squares, a @ part.square() @ b, rtol=2e-6, atol=0)
        else:
            assert found.squares is None
