"""plots.panels: every function draws what it was given. The drawn lines and images are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes as Panel
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from rclib.experiments.mean_field import plots_networks
from rclib.plots import panels as plots
from rclib.plots import style


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    with mpl.rc_context():
        style.use_style()
        yield
    plt.close("all")


def close(found: object, wanted: object) -> None:
    """Figures are drawn from numbers of six digits (`rclib.plots.drawing`)."""
    first, second = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-9)


def long_frame(
    x: Sequence[float], names: Sequence[str], *, columns: tuple[str, ...], by: str, seeds: int = 3
) -> pd.DataFrame:
    """Random values: one row a value of x, a name and a seed, in no order."""
    random = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([x, names, range(seeds)], names=["x", by, "seed"])
    frame = index.to_frame(index=False)
    for column in columns:
        frame[column] = random.uniform(0.1, 2.0, len(frame))
    return frame.sample(frac=1, random_state=1).sort_values(by, kind="stable", ignore_index=True)


def panels_of(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """The panels in the order they were made, without colour bars."""
    figure.canvas.draw()
    return np.array(figure.axes[: rows * columns], dtype=object).reshape(rows, columns)


def line(panel: Panel, label: str) -> Line2D:
    (found,) = [drawn for drawn in panel.lines if drawn.get_label() == label]
    return found


def band(panel: Panel, number: int) -> np.ndarray:
    """(points, 3): x, lowest and highest value of the band that was drawn as `number`."""
    bands = [c for c in panel.collections if isinstance(c, PolyCollection)]
    points = pd.DataFrame(bands[number].get_paths()[0].vertices, columns=["x", "y"])
    return points.groupby("x").y.agg(["min", "max"]).reset_index().to_numpy()


def assert_shows(panel: Panel, frame: pd.DataFrame, *, x: str, y: str, by: str) -> None:
    """Every name has its line of means and its band from smallest to largest."""
    for number, name in enumerate(frame[by].unique()):
        chosen = frame[frame[by] == name]
        sizes = np.unique(chosen[x])
        values = [chosen.loc[chosen[x] == size, y].to_numpy() for size in sizes]
        drawn = line(panel, str(name))
        close(drawn.get_xdata(), sizes)
        close(drawn.get_ydata(), [v.mean() for v in values])
        want = [(size, v.min(), v.max()) for size, v in zip(sizes, values, strict=True)]
        close(band(panel, number), want)


def of_figure(figure: Figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


# --- curves --------------------------------------------------------------------------------


def test_curves_show_mean_and_range_and_differ_without_colour() -> None:
    names = [f"run {i}" for i in range(7)]
    frame = long_frame([1, 2, 4], names, columns=("y",), by="name")
    _, panel = plt.subplots()
    plots.curves(panel, frame, x="x", y="y", by="name")
    assert_shows(panel, frame, x="x", y="y", by="name")
    styles = {(d.get_linestyle(), d.get_marker()) for d in panel.lines}
    assert len(styles) == len(names)
    colours = {mpl.colors.to_hex(d.get_color()) for d in panel.lines}
    assert colours == {mpl.colors.to_hex(c) for c in style.colours()}


def test_curves_keep_the_order_of_the_data_and_can_leave_markers_out() -> None:
    frame = pd.DataFrame({"x": [1, 2] * 2, "y": [0.0, 1, 2, 3], "name": ["z", "z", "a", "a"]})
    _, panel = plt.subplots()
    plots.curves(panel, frame, x="x", y="y", by="name", markers=False)
    assert [d.get_label() for d in panel.lines] == ["z", "a"]
    assert {d.get_marker() for d in panel.lines} == {"None"}


# --- figures of lines ----------------------------------------------------------------------


def test_coordinate_check_has_a_panel_a_quantity_and_parametrisation() -> None:
    parts = []
    for quantity in ("update", "start"):
        for name in ("SP", "MF", "muP"):
            part = long_frame([64, 128, 256], ["hidden", "output"], columns=("rms",), by="layer")
            parts.append(
                part.assign(quantity=quantity, parametrization=name, rms=part.rms * len(parts))
            )
    frame = pd.concat(parts).rename(columns={"x": "width"})
    frame["rms"] += 0.1
    rows = {"start": "size at the start", "update": "size of the update"}
    figure = plots_networks.coordinate_panels(frame, rows=rows, columns=["MF", "SP"])
    panels = panels_of(figure, 2, 2)
    for i, (quantity, label) in enumerate(rows.items()):
        assert panels[i, 0].get_ylabel() == label
        for j, name in enumerate(("MF", "SP")):
            chosen = frame[(frame.quantity == quantity) & (frame.parametrization == name)]
            assert_shows(panels[i, j], chosen, x="width", y="rms", by="layer")
            assert (panels[i, j].get_xscale(), panels[i, j].get_yscale()) == ("log", "log")
        assert panels[i, 0].get_ylim() == panels[i, 1].get_ylim()
    assert [p.get_title() for p in panels[0]] == ["MF", "SP"]
    assert [p.get_xlabel() for p in panels.ravel()] == ["", "", "width N", "width N"]
    assert of_figure(figure) == ["hidden", "output"]


def test_shares_have_one_scale_from_zero_to_one() -> None:
    frame = long_frame([1, 2, 8], ["W(0)", "W(T)"], columns=("share",), by="matrix")
    frame = frame.rename(columns={"x": "k"})
    both = pd.concat([frame.assign(parametrization="SP"), frame.assign(parametrization="MF")])
    both.loc[both.parametrization == "MF", "share"] /= 2
    figure = plots_networks.share_panels(both, columns=["SP", "MF"])
    panels = panels_of(figure, 1, 2)[0]
    for panel, name in zip(panels, ("SP", "MF"), strict=True):
        chosen = both[both.parametrization == name]
        assert_shows(panel, chosen, x="k", y="share", by="matrix")
        assert panel.get_title() == name
        assert panel.get_xscale() == "log"
        assert panel.get_ylim() == panels[0].get_ylim()
        assert panel.get_ylim()[0] == 0
        assert panel.get_ylim()[1] >= 1
    assert panels[0].get_ylabel() == "share of the squared norm"
    assert of_figure(figure) == ["W(0)", "W(T)"]


def test_power_laws_draw_the_predicted_slope_through_the_first_mean() -> None:
    frames = {
        "loss": long_frame([2, 8, 32], ["MF", "SP"], columns=("y",), by="name"),
        "distance": long_frame([4, 8], ["MF"], columns=("y",), by="name"),
    }
    labels = {"loss": "loss label", "distance": "distance label"}
    sizes = {"loss": "width N", "distance": "depth"}
    figure = plots.power_laws(frames, x=sizes, y=labels, by="name", slopes={"loss": -0.5})
    panels = panels_of(figure, 1, 2)[0]
    for panel, (title, frame) in zip(panels, frames.items(), strict=True):
        assert_shows(panel, frame, x="x", y="y", by="name")
        assert (panel.get_xlabel(), panel.get_ylabel()) == (sizes[title], labels[title])
        assert (panel.get_title(), panel.get_xscale(), panel.get_yscale()) == (title, "log", "log")
    guide = line(panels[0], "slope −1/2")
    x, y = np.array(guide.get_xdata()), np.array(guide.get_ydata())
    close(np.diff(np.log(y)) / np.diff(np.log(x)), -0.5)
    first = frames["loss"][frames["loss"].x == 2].y
    assert y[0] == pytest.approx(np.mean(first), rel=1e-5)
    np.testing.assert_array_equal(x, [2, 8, 32])
    assert [t.get_text() for t in panels[1].texts] == ["MF"]  # at the end of its line
    assert {t.get_text() for t in panels[0].texts} == {"MF", "SP", "slope −1/2"}
    plots.power_laws(frames, x=sizes, y=labels, by="name")  # without any guide


def test_exponents_are_points_around_their_prediction() -> None:
    frame = long_frame([1, 10], ["h1", "h2"], columns=("exponent",), by="index")
    frame = frame.rename(columns={"x": "epoch"})
    both = pd.concat([frame.assign(bias="random"), frame.assign(bias="zero")])
    both.loc[both.bias == "zero", "exponent"] -= 1
    predicted = {"zero": -0.5, "random": 0.25}
    figure = plots_networks.exponents_by_index(both, predicted=predicted)
    panels = panels_of(figure, 1, 2)[0]
    for panel, (name, value) in zip(panels, predicted.items(), strict=True):
        assert panel.get_title() == name
        low, high = panel.get_ylim()
        assert (low + high) / 2 == pytest.approx(value)
        assert high - low == pytest.approx(panels[0].get_ylim()[1] - panels[0].get_ylim()[0])
        points = [d for d in panel.lines if d.get_marker() in style.MARKERS]
        for drawn, epoch in zip(points, (1, 10), strict=True):
            own = both[(both.bias == name) & (both.epoch == epoch)].groupby("index").exponent
            close(drawn.get_ydata(), own.mean()[list(dict.fromkeys(both["index"]))])
        (line,) = [d for d in panel.lines if d.get_label() == "predicted"]
        close(line.get_ydata(), [value, value])
    assert of_figure(figure) == ["predicted", "epoch 1", "epoch 10"]


@pytest.mark.parametrize("titles", [["one"], ["train", "grow", "shrink"], list("abcde")])
def test_transfer_panels_have_letters_and_marks(titles: list[str]) -> None:
    columns = {
        title: long_frame(
            [0, 1, 2],
            [f"{title} 1", f"{title} 2"],
            columns=("train_loss", "test_accuracy"),
            by="name",
        ).rename(columns={"x": "epoch"})
        for title in titles
    }
    figure = plots_networks.transfer_panels(columns, transfer_epoch=1, chance_accuracy=0.125)
    figure.canvas.draw()
    count = len(titles)
    by_column = [figure.axes[3 * j : 3 * j + 3] for j in range(count)]
    panels = np.array(by_column, dtype=object).T
    for ends, (title, frame) in zip(panels[2], columns.items(), strict=True):
        assert [t.get_text() for t in ends.get_yticklabels()] == [f"{title} 1", f"{title} 2"]
        last = frame[frame.epoch == 2].groupby("name").train_loss.mean()
        dots = [d for d in ends.lines if len(d.get_xdata()) == 1]
        close([float(d.get_xdata()[0]) for d in dots], last[[f"{title} 1", f"{title} 2"]])
    panels = panels[:2]
    for i, y in enumerate(("train_loss", "test_accuracy")):
        for j, (title, frame) in enumerate(columns.items()):
            panel = panels[i, j]
            assert_shows(panel, frame, x="epoch", y=y, by="name")
            letter = "abcdefghij"[i * len(titles) + j]
            assert panel.get_title() == f"({letter}) {title}"
            straight = [d for d in panel.lines if len(d.get_xdata()) == 2]
            upright = [d for d in straight if list(d.get_xdata()) == [1, 1]]
            level = [d for d in straight if list(d.get_ydata()) == [0.125, 0.125]]
            assert (len(upright), len(level)) == (int(j > 0), int(i == 1))
            assert len(straight) == len(upright) + len(level)
    assert panels[0, 0].get_ylabel() == "training loss (nats)"
    assert panels[1, 0].get_ylabel() == "test accuracy"
    for row in panels:
        assert len({p.get_ylim() for p in row}) == 1


# --- figures of matrices -------------------------------------------------------------------


def test_heat_maps_show_the_matrices_on_one_symmetric_scale() -> None:
    random = np.random.default_rng(0)
    maps = {
        row: {column: random.normal(size=(4, 6)) * 9 for column in ("start", "end", "sorted")}
        for row in ("SP", "MF")
    }
    figure = plots.heat_maps(maps, limit=2.5, label="a label")
    panels = panels_of(figure, 2, 3)
    for i, (row, columns) in enumerate(maps.items()):
        assert panels[i, 0].get_ylabel() == row
        for j, (column, matrix) in enumerate(columns.items()):
            (image,) = panels[i, j].images
            close(image.get_array(), matrix)
            assert image.get_clim() == (-2.5, 2.5)
            assert image.get_cmap().name == style.DIVERGING
            assert panels[0, j].get_title() == column
    (bar,) = figure.axes[6:]
    assert bar.get_ylim() == (-2.5, 2.5)
    assert bar.get_ylabel() == "a label"


def test_the_colour_of_zero_is_the_palest() -> None:
    colours = mpl.colormaps[style.DIVERGING](np.linspace(0, 1, 257))[:, :3]
    light = colours @ [0.2126, 0.7152, 0.0722]
    assert abs(int(light.argmax()) - 128) < 6
    assert light[0] == pytest.approx(light[-1], abs=0.15)  # both signs look equally strong


def test_correlation_matrices_frame_the_blocks_of_an_index() -> None:
    random = np.random.default_rng(0)
    given: dict[str, Any] = {}
    for title, indices in {
        "start": ["x", "h1", "h1", "h1"],
        "end": ["h1", "h1", "h2", "h2"],
    }.items():
        labels = [f"{title}{i}" for i in range(4)]
        given[title] = (labels, indices, np.corrcoef(random.normal(size=(4, 9))))
    figure = plots.correlation_matrices(given, chance=0.3)
    panels = panels_of(figure, 1, 2)[0]
    blocks = {"start": [(0, 1), (1, 3)], "end": [(0, 2), (2, 2)]}  # first place and size
    for panel, letter, (title, (labels, _, matrix)) in zip(
        panels, "ab", given.items(), strict=True
    ):
        (image,) = panel.images
        close(image.get_array(), matrix)
        assert image.get_clim() == (-1, 1)
        assert panel.get_title() == f"({letter}) {title}"
        for ticks in (panel.get_xticklabels(), panel.get_yticklabels()):
            assert [t.get_text() for t in ticks] == labels
        frames = [p for p in panel.patches if isinstance(p, Rectangle)]
        drawn = [(p.get_x() + 0.5, p.get_y() + 0.5, p.get_width(), p.get_height()) for p in frames]
        assert drawn == [(at, at, size, size) for at, size in blocks[title]]
    (bar,) = figure.axes[2:]
    marks = [list(d.get_ydata()) for d in bar.lines]
    assert sorted(m for m in marks if len(m) == 2) == [[-0.3, -0.3], [0.3, 0.3]]


def test_drawing_changes_nothing_that_was_given() -> None:
    frame = long_frame([1, 2], ["a", "b"], columns=("y",), by="name")
    matrix = np.random.default_rng(0).normal(size=(3, 3))
    before = frame.copy(), matrix.copy()
    plots.power_laws({"t": frame}, x={"t": ""}, y={"t": ""}, by="name", slopes={"t": 1.0})
    plots.heat_maps({"r": {"c": matrix}})
    plots.correlation_matrices({"t": (list("abc"), list("xyy"), matrix)}, chance=0.1)
    pd.testing.assert_frame_equal(frame, before[0])
    np.testing.assert_array_equal(matrix, before[1])
