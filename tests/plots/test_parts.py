"""plots.parts: reference lines say what they are, and axes have numbers."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rclib.plots import parts, style


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    with plt.rc_context():
        style.use_style()
        yield
    plt.close("all")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.5, "−0.5"), (0, "0"), (1000.0, "1000"), (0.0001, "0.0001"), (1e6, "$10^{6}$"),
        (1.2e6, r"$1.2\times10^{6}$"), (3e-7, r"$3\times10^{-7}$"), (99999.0, r"$10^{5}$"),
        (0.30000000004, "0.3"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_are_typeset(value: float, text: str) -> None:
    assert parts.number(value) == text


@pytest.mark.parametrize(
    ("power", "text"),
    [
        (-0.5, "slope −1/2"),
        (1.5, "slope 3/2"),
        (0.0, "slope 0"),
        (-1, "slope −1"),
        (0.3, "slope 0.3"),
    ],
)
def test_slopes_have_names(power: float, text: str) -> None:
    assert parts.power_text(power) == text


@pytest.mark.parametrize(
    "limits", [(0.06, 0.2), (1e-4, 30.0), (0.9, 1.2), (3.0, 8e3), (2e-6, 9e-5), (1e-9, 1e9)]
)
def test_logarithmic_axes_have_two_to_eight_numbers_none_twice(limits: tuple[float, float]) -> None:
    figure, panel = plt.subplots(figsize=(2.4, 1.9))
    panel.plot([1, 2], limits)
    parts.log_axis(panel, "y")
    panel.set_ylim(*limits)
    figure.canvas.draw()
    low, high = limits
    seen = [
        label.get_text()
        for place, label in zip(panel.get_yticks(), panel.get_yticklabels(), strict=True)
        if low <= place <= high
    ]
    assert 2 <= len(seen) <= 8
    assert len(set(seen)) == len(seen)
    assert not [t for t in panel.yaxis.get_minorticklabels() if t.get_text()]


def test_few_sizes_are_named_themselves() -> None:
    _, panel = plt.subplots()
    parts.size_axis(panel, [48, 96, 192])
    assert [t.get_text() for t in panel.get_xticklabels()] == ["48", "96", "192"]
    parts.size_axis(panel, [1024, 2048, 0.12345])  # whole numbers are not rounded
    assert [t.get_text() for t in panel.get_xticklabels()] == ["0.123", "1024", "2048"]
    parts.size_axis(panel, list(range(1, 30)), "y")
    assert panel.get_yscale() == "log"


def test_a_level_has_its_name_where_no_line_runs() -> None:
    _, panel = plt.subplots(figsize=(3, 2))
    panel.plot(np.linspace(0, 1, 50), np.where(np.linspace(0, 1, 50) > 0.5, 1.05, 5.0))
    panel.set_ylim(0, 6)
    parts.level(panel, 1.0, "chance")
    (text,) = panel.texts
    assert text.get_text() == "chance"
    assert text.get_va() == "top"  # the curve runs just above the line there
    parts.level(panel, 2.0, "")
    assert len(panel.texts) == 1


def test_a_level_has_its_name_where_no_error_bar_stands() -> None:
    figure, panel = plt.subplots(figsize=(6, 2))
    panel.errorbar([0.0, 5.0, 9.9], [1.0] * 3, yerr=0.8, fmt="o")
    panel.set_ylim(0, 2)
    parts.level(panel, 1.0, "law")
    figure.canvas.draw()
    box = panel.texts[0].get_window_extent()
    bars = [panel.transData.transform((x, 1.1))[0] for x in (0.0, 5.0, 9.9)]
    assert not [bar for bar in bars if box.x0 < bar < box.x1]


def test_a_level_keeps_its_name_beside_it_when_the_range_changes() -> None:
    figure, panel = plt.subplots(figsize=(3, 2))
    panel.plot([0, 1], [0.6, 0.8])
    parts.level(panel, 1.0, "exact")
    panel.set_ylim(0.5, 3.0)
    figure.canvas.draw()
    box = panel.texts[0].get_window_extent()
    line = panel.transData.transform((0.5, 1.0))[1]
    assert min(abs(box.y0 - line), abs(box.y1 - line)) < 0.03 * panel.bbox.height


def test_a_corner_is_chosen_by_the_range_that_is_shown() -> None:
    _, panel = plt.subplots()
    panel.plot([0, 100], [0, 100])  # far from the 0 to 1 that axes begin with
    parts.write_into(panel, "a line of words")
    (text,) = panel.texts
    assert (text.get_ha(), text.get_va()) in {("right", "bottom"), ("left", "top")}


def test_markers_alone_cover_nothing_between_them() -> None:
    _, panel = plt.subplots()
    panel.plot([0, 10, 10, 0], [0, 0, 10, 10], "o")  # a line would run along the right
    panel.set(xlim=(-5, 15), ylim=(-1, 11))
    parts.level(panel, 5.0, "words")
    assert panel.texts[0].get_position()[0] == 0
    assert panel.texts[0].xy == (0.99, 5.0)


def test_a_slope_is_named_beside_its_line_and_off_the_others() -> None:
    figure, panel = plt.subplots(figsize=(4, 3))
    sizes = np.array([50.0, 100.0, 500.0, 1000.0])
    panel.plot(sizes, 1.1 * (sizes / 50) ** -0.5)
    panel.set(xscale="log", yscale="log", ylim=(0.05, 2.0))
    parts.guide(panel, list(sizes), 1.0, -0.5)
    figure.canvas.draw()
    box = panel.texts[0].get_window_extent()
    for line in panel.lines:
        x, y = np.log(line.get_xdata()), np.log(line.get_ydata())
        fine = np.linspace(x[0], x[-1], 200)
        points = panel.transData.transform(np.exp(np.stack([fine, np.interp(fine, x, y)], axis=1)))
        assert not box.count_contains(points)
    parts.guide(panel, [70.0], 0.5, -0.5)  # one size alone: no line to stand beside
    assert len(panel.texts) == 2


def test_a_name_in_a_full_panel_goes_to_a_corner() -> None:
    _, panel = plt.subplots()
    panel.plot([0, 1], [0, 1])
    parts.write_into(panel, "note")
    assert panel.texts[0].get_position()[1] in (0.02, 0.98)
    assert panel.texts[0].get_ha() == "right"
    assert panel.texts[0].get_va() == "bottom"


def test_moments_are_named_along_their_line() -> None:
    _, panel = plt.subplots()
    parts.moment(panel, 3.0, "transfer")
    parts.moment(panel, 4.0, "")
    assert [t.get_text() for t in panel.texts] == ["transfer"]
    assert [list(line.get_xdata()) for line in panel.lines] == [[3.0, 3.0], [4.0, 4.0]]


def test_a_moment_is_named_where_no_line_runs() -> None:
    figure, panel = plt.subplots(figsize=(3, 2))
    panel.plot([0.0, 3.0, 3.2, 6.0], [9.0, 9.0, 1.0, 1.0])  # above on the left, below on the right
    panel.set_ylim(0, 10)
    parts.moment(panel, 3.1, "here")
    figure.canvas.draw()
    (text,) = panel.texts
    assert (text.get_ha(), text.get_va()) in {("left", "top"), ("right", "bottom")}


def test_where_one_number_is_a_power_of_ten_all_are() -> None:
    _, panel = plt.subplots()
    parts.log_axis(panel, "y")
    written = panel.yaxis.get_major_formatter().format_ticks
    assert written([0.001, 0.0001, 1e-5]) == ["$10^{-3}$", "$10^{-4}$", "$10^{-5}$"]
    assert written([0.01, 0.1, 1, 3]) == ["0.01", "0.1", "1", "3"]
    assert written([3.0, 1.0, 1e-5]) == ["3", "$10^{0}$", "$10^{-5}$"]


def test_letters_leave_the_size_of_a_title() -> None:
    figure, panels = plt.subplots(1, 2)
    panels[0].set_title("one", fontsize=5)
    panels[1].set_title("two")
    parts.letters(figure)
    assert [p.get_title() for p in panels] == ["(a) one", "(b) two"]
    assert panels[0].title.get_fontsize() == 5


def test_a_guide_has_its_slope() -> None:
    _, panel = plt.subplots()
    parts.guide(panel, [8, 2], 3.0, -0.5)
    x, y = panel.lines[0].get_data()
    assert list(x) == [2, 8]
    np.testing.assert_allclose(y, [3.0, 1.5])
    assert panel.texts[0].get_text() == "slope −1/2"


def test_lines_have_their_names_at_their_ends_none_upon_another() -> None:
    figure, panel = plt.subplots(figsize=(3, 2))
    for name, end in (("a", 1.0), ("b", 1.01), ("c", 1.02), ("far", 5.0)):
        panel.plot([0, 1], [0, end], label=name)
    parts.guide(panel, [1, 2], 1.0, 1.0)
    panel.plot([0, 1], [np.nan, np.nan], label="nothing")
    panel.set_ylim(0, 6)
    parts.direct_labels(panel, {"a": "first"})
    figure.canvas.draw()
    labels = [t for t in panel.texts if not t.get_text().startswith("slope")]
    assert [t.get_text() for t in labels] == ["first", "b", "c", "far"]
    boxes = [t.get_window_extent() for t in labels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert labels[0].get_color() == panel.lines[0].get_color()
    parts.direct_labels(plt.subplots()[1])  # no lines: nothing to name


def test_panels_get_letters() -> None:
    figure, panels = plt.subplots(1, 3)
    panels[0].set_title("one")
    panels[2].set_title("two")
    parts.letters(figure)
    assert [p.get_title() for p in panels] == ["(a) one", "", "(b) two"]


def test_error_bars_are_students_intervals() -> None:
    values = np.random.default_rng(0).standard_normal(6)
    frame = pd.DataFrame({"arm": ["b"] * 5 + ["a"], "value": values})
    found = parts.half_widths(frame.groupby("arm").value)
    low, high = stats.t.interval(0.95, 4, values[:5].mean(), stats.sem(values[:5]))
    assert found["b"] == pytest.approx((high - low) / 2)
    assert found["a"] == 0.0
    assert found["b"] / (1.96 * stats.sem(values[:5])) == pytest.approx(1.42, abs=0.01)
    with pytest.raises(ValueError, match="values must be finite"):
        parts.half_widths(frame.assign(value=np.nan).groupby("arm").value)
