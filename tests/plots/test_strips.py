"""rclib.plots.strips: every value has a dot, every group its bar."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from rclib.plots.strips import strips
from rclib.plots.style import colour

GROUPS = {"a": [1.0, 2.0, 9.0], "b": [5.0]}


@pytest.fixture
def panel() -> Iterator[Axes]:
    figure, panel = plt.subplots()
    yield panel
    plt.close(figure)


def bars(panel: Axes) -> list[float]:
    lines = [line for line in panel.collections if isinstance(line, LineCollection)]
    return [float(line.get_segments()[0][0, 1]) for line in lines]


def test_dots_and_bars_are_the_values_and_their_middles(panel: Axes) -> None:
    strips(panel, GROUPS)
    for place, (dots, values) in enumerate(zip(panel.lines, GROUPS.values(), strict=True)):
        assert list(dots.get_ydata()) == values
        assert np.mean(np.asarray(dots.get_xdata(), float)) == pytest.approx(place)
        assert dots.get_color() == colour(place)
    assert bars(panel) == [4.0, 5.0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["a", "b"]


def test_medians_in_one_colour(panel: Axes) -> None:
    strips(panel, GROUPS, middle="median", alike=True)
    assert bars(panel) == [2.0, 5.0]
    assert {line.get_color() for line in panel.lines} == {colour(0)}


def test_what_cannot_be_drawn_is_named(panel: Axes) -> None:
    with pytest.raises(ValueError, match="middle must be 'mean' or 'median', got 'mode'"):
        strips(panel, GROUPS, middle="mode")
    with pytest.raises(ValueError, match="groups: 'none' has no values"):
        strips(panel, {"none": []})
