"""plots.drawing: a figure is one call, kept as data, and drawn from what is kept."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rclib.plots import drawing, panels, saving, style
from rclib.plots.drawing import Drawing, drawing_of, read_drawing, redrawable


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    with plt.rc_context():
        style.use_style()
        yield
    plt.close("all")


@redrawable
def recorded(value: Any, *, label: str = "x") -> Figure:
    """Shows a value's text."""
    figure, panel = plt.subplots(figsize=(2, 1))
    panel.set_title(f"{type(value).__name__} {value!r}"[:30])
    panel.set_xlabel(label)
    figure.value = value  # type: ignore[attr-defined]
    return figure


def through(value: Any) -> Any:
    """What the function gets, after the figure's file was written and read."""
    kept = read_drawing(drawing_of(recorded(value)).to_bytes())
    return drawing._unpack(kept.arguments["value"])


@pytest.mark.parametrize(
    "value",
    [
        None, True, 7, -0.25, "μP", [1, [2.5, "a"]], (1, "b"), {"a": 1}, {1: "x", (2, 3): [4]}, {},
        float("inf"), {"=": "a key like our own"}, [{"x": (None, False)}],
    ],
)  # fmt: skip
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    found = through(value)
    assert found == value
    assert type(found) is type(value)


def test_numbers_have_six_digits_before_they_are_drawn() -> None:
    figure: Any = recorded(1 / 3)
    assert figure.value == 0.333333
    assert through(np.float32(0.1)) == 0.1
    assert through(123456789) == 123456789  # whole numbers are whole
    assert np.isnan(through(float("nan")))


def test_arrays_and_frames_come_back_with_their_kinds() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    np.testing.assert_array_equal(through(array), array)
    assert through(array > 2).dtype == bool
    frame = pd.DataFrame(
        {"n": [1, 2], "y": [0.5, np.nan], "name": ["a", None], 3: [True, False]}, index=[7, 9]
    )
    found = through(frame)
    assert list(found.columns) == ["n", "y", "name", 3]
    assert [found[c].dtype.kind for c in ("n", "y", 3)] == ["i", "f", "b"]
    assert found.y.isna().tolist() == [False, True]
    assert found.name.iloc[0] == "a"
    assert found.index.tolist() == [0, 1]
    assert through(frame.n).tolist() == [1, 2]
    empty = through(frame.iloc[:0])
    assert (list(empty.columns), len(empty)) == (list(frame.columns), 0)
    blocks = pd.DataFrame({"block": pd.array([1, None], dtype="Int64")})
    assert through(blocks).block.isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 1, 2], "i"),
        ([0, None, 2], "f"),
        ([0.5, float("nan")], "f"),
        ([True, False], "b"),
        (["a", None], "O"),
        ([1, "a"], "O"),
        ([None, None], "O"),
        ([], "O"),
    ],
)
def test_a_column_of_objects_is_written_again_as_it_was_read(values: list[Any], kind: str) -> None:
    """Two tables put together leave numbers in a column of objects."""
    frame = pd.DataFrame({"x": pd.Series(values, dtype=object), "y": range(len(values))})
    packed = drawing._pack(frame)
    assert packed["columns"][0]["kind"] == kind
    assert drawing._pack(drawing._unpack(packed)) == packed


def test_what_cannot_be_kept_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="recorded: argument 'value': object cannot be kept"):
        recorded(object())
    with pytest.raises(TypeError, match="argument 'value': an array of complex128"):
        recorded(np.array([1j]))
    named = pd.DataFrame({"x": [1, 2], "y": [3.0, 4.0]}).set_index("x")
    for labelled in (named, named.y):
        with pytest.raises(TypeError, match=r"an index \['x'\] cannot be kept"):
            recorded(labelled)
    with pytest.raises(TypeError, match=r"\*more cannot be kept by name"):

        @redrawable
        def many(*more: int) -> Figure:
            return Figure()


def law() -> Figure:
    frame = pd.DataFrame({"x": [1, 2, 4] * 2, "y": [1.0, 0.7, 0.5, 1.2, 0.8, 0.6], "name": "MF"})
    return panels.power_laws({"t": frame}, x={"t": "N"}, y={"t": "y"}, by="name")


def test_a_kept_figure_is_drawn_again_as_the_same_picture() -> None:
    figure = law()
    kept = read_drawing(drawing_of(figure).to_bytes())
    assert kept.function == "rclib.plots.panels:power_laws"
    assert saving.rendered(kept.draw(), "s") == saving.rendered(figure, "s")
    assert drawing_of(law()).to_bytes() == drawing_of(figure).to_bytes()


def test_of_functions_that_call_each_other_the_outer_one_is_kept() -> None:
    @redrawable
    def outer(title: str) -> Figure:
        figure = law()
        figure.suptitle(title)
        return figure

    assert drawing_of(outer("T")).function.endswith("outer")
    assert drawing_of(law()).function.endswith("power_laws")  # and is not, afterwards


def test_a_figure_of_no_function_or_changed_since_has_no_call() -> None:
    with pytest.raises(ValueError, match="no function decorated"):
        drawing_of(plt.figure())
    for change in (
        lambda panel: panel.set_xlabel("another"),
        lambda panel: panel.plot([1, 2], [3, 4]),
        lambda panel: panel.set_ylim(0, 9),
    ):
        figure = law()
        change(figure.axes[0])
        with pytest.raises(ValueError, match=r"changed after rclib\.plots\.panels:power_laws"):
            drawing_of(figure)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("os:system", {"command": "true"}, "none of rclib's functions"),
        ("rclib.nowhere:x", {}, "not there any more"),
        ("rclib.plots.panels:nothing", {}, "not there any more"),
        ("rclib.plots.panels:curves", {}, "does not draw figures of its own"),
        ("rclib.plots.panels:power_laws", {"other": 1}, "takes other arguments now"),
        ("rclib.plots.panels:power_laws", {"frames": {"=": "dict"}}, "not a kept drawing"),
        ("rclib.plots.panels:power_laws", {"frames": {"k": 1}}, "not a kept drawing"),
    ],
)
def test_calls_from_elsewhere_are_refused(function: str, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Drawing(function, arguments).draw()


def packed(text: str) -> bytes:
    return lzma.compress(text.encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"no xz", packed("{"), packed("[]"), packed('{"format": 2}'), packed("{}")[:-9],
        packed('{"format": 1, "function": 3, "stamp": "", "arguments": {}}'),
        packed('{"format": 1, "function": "f", "stamp": "", "arguments": []}'),
        packed(" " * (drawing.MAX_BYTES + 1)),
    ],
)  # fmt: skip
def test_files_that_hold_no_call_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a kept drawing"):
        read_drawing(payload)
