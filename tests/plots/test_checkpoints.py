"""rclib.plots.checkpoints: the drawn lines, images and bars are read back."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes as Panel
from matplotlib.lines import Line2D

from rclib.plots import checkpoints as plots_checkpoints
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


def solid(panel: Panel) -> list[Line2D]:
    """Lines of data: those with a marker."""
    return [line for line in panel.lines if line.get_marker() not in ("None", None, "")]


def rows(sources: list[str], sets: list[str], blocks: int, seeds: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [sources, sets, [*range(blocks), None], range(seeds)],
        names=["source", "set", "block", "seed"],
    )
    frame = index.to_frame(index=False)
    frame["block"] = frame.block.astype("Int64")
    frame["value"], frame["chance"] = random.uniform(size=(2, len(frame)))
    return frame


def test_largest_correlations_draws_mean_range_and_chance_of_every_source() -> None:
    frame = rows(["a", "b"], ["stream", "heads"], blocks=4, seeds=3)
    figure = plots_checkpoints.largest_correlations(frame)
    figure.canvas.draw()
    *shown, key = [p for p in figure.axes if p.get_visible()]
    assert [p.get_title() for p in shown] == ["stream", "heads"]
    for panel in shown:
        own = frame[(frame.set == panel.get_title()) & frame.block.notna()]
        for line, source in zip(solid(panel), ["a", "b"], strict=True):
            wanted = own[own.source == source].groupby("block").value.mean()
            np.testing.assert_allclose(line.get_xdata(), [0, 1, 2, 3], atol=0.2)  # side by side
            close(line.get_ydata(), wanted)
        dotted = [
            line for line in panel.lines if line.get_linestyle() == ":" and len(line.get_xdata())
        ]
        chance = own[own.source == "a"].groupby("block").chance.mean()
        assert any(np.allclose(line.get_ydata(), chance, rtol=1e-5) for line in dotted)
    box = key.get_legend()
    assert box is not None
    assert [text.get_text() for text in box.get_texts()] == ["chance, 95 %", "a", "b"]


def test_sources_of_one_parametrisation_have_its_colour_and_none_hides_another() -> None:
    frame = rows(["MF, step 0", "MF, step 9", "SP, step 9"], ["stream"], blocks=2)
    panel = plots_checkpoints.largest_correlations(frame).axes[0]
    first, second, other = solid(panel)
    assert first.get_color() == second.get_color() == style.colour(style.FIXED["MF"])
    assert other.get_color() == style.colour(style.FIXED["SP"])
    assert first.get_markerfacecolor() == "white"
    assert len({float(line.get_xdata()[0]) for line in solid(panel)}) == 3  # type: ignore[index]


def test_axes_reach_a_little_above_what_is_drawn() -> None:
    frame = rows(["a"], ["stream"], blocks=3)
    small = frame.assign(value=frame.value * 0.1, chance=0.05)
    panel = plots_checkpoints.largest_correlations(small).axes[0]
    top = small[small.block.notna()].value.max()
    assert panel.get_ylim() == pytest.approx((0.0, 1.15 * top), rel=1e-4)


def test_no_spikes_at_all_have_an_axis_from_zero_to_one() -> None:
    frame = rows(["q"], ["_"], blocks=3).rename(columns={"source": "matrix"}).assign(spikes=0)
    panel = plots_checkpoints.spectra_over_blocks(frame, rows={"spikes": "n"}).axes[0]
    assert panel.get_ylim() == (0.0, 1.0)


def test_largest_correlations_leaves_out_sets_that_a_source_lacks() -> None:
    frame = rows(["a", "b"], ["stream"], blocks=2)
    more = rows(["b"], ["query heads"], blocks=2)
    figure = plots_checkpoints.largest_correlations(pd.concat([frame, more]))
    assert [len(solid(p)) for p in figure.axes if p.axison] == [2, 1]


def test_largest_by_vector_draws_one_line_a_vector() -> None:
    frame = rows(["x.C", "y.R"], ["stream", "heads"], blocks=3).rename(columns={"source": "vector"})
    figure = plots_checkpoints.largest_by_vector(frame, frame[frame.vector == "x.C"])
    for panel, name in zip(figure.axes, ["stream", "heads"], strict=True):
        assert panel.get_title() == name
        for line in solid(panel):
            own = frame[(frame.set == name) & (frame.vector == line.get_label())]
            close(line.get_ydata(), own[own.block.notna()].value)
        assert len(solid(panel)) == 2


def test_block_heat_maps_show_the_matrix_and_mark_what_chance_does_not_explain() -> None:
    matrix = np.array([[1.0, 0.5, -0.9], [0.5, 1.0, 0.1], [-0.9, 0.1, 1.0]])
    small = np.array([[1.0, 0.2], [0.2, 1.0]])
    figure = plots_checkpoints.block_heat_maps(
        {"stream": (["a", "b", "c"], matrix, 0.4), "heads": (["q", "k"], small, 0.9)}, title="T"
    )
    first, second = figure.axes[:2]
    close(first.images[0].get_array(), matrix)
    assert first.images[0].get_clim() == (-1, 1)
    marked = {(int(x), int(y)) for x, y in zip(*first.lines[0].get_data(), strict=True)}
    assert marked == {(0, 1), (1, 0), (0, 2), (2, 0)}
    assert len(second.lines[0].get_xdata()) == 0
    assert [t.get_text() for t in first.get_yticklabels()] == ["a", "b", "c"]


def test_p_values_are_steps_over_the_diagonal() -> None:
    frame = pd.DataFrame({"group": ["a", "a", "b"], "p": [0.1, 0.7, 0.4], "share": [0.5, 1.0, 1.0]})
    panel = plots_checkpoints.p_values(frame).axes[0]
    close(panel.lines[0].get_xdata(), [0.1, 0.7])
    close(panel.lines[0].get_ydata(), [0.5, 1.0])
    assert [line.get_label() for line in panel.lines] == ["a", "b", "chance"]


def test_spectra_over_blocks_draws_one_line_a_matrix() -> None:
    frame = rows(["q", "k"], ["_"], blocks=3).rename(columns={"source": "matrix"})
    frame["spikes"] = 2 * frame.value
    figure = plots_checkpoints.spectra_over_blocks(frame, rows={"value": "α", "spikes": "n"})
    first, second = [p for p in figure.axes if p.get_visible()]
    assert (first.get_ylabel(), second.get_ylabel()) == ("α", "n")
    own = frame[(frame.matrix == "k") & frame.block.notna()]
    close(solid(first)[1].get_ydata(), own.value)
    close(solid(second)[1].get_ydata(), own.spikes)


def test_eigenvalue_histograms_draw_bars_and_law() -> None:
    edges = np.linspace(-2, 1, 6)
    bins = pd.DataFrame({"left": edges[:-1], "right": edges[1:], "density": [0, 1, 2, 1, 0.5]})
    bins["law"] = [0.1, 1.1, 1.9, 0.9, 0.0]
    frame = pd.concat(
        [bins.assign(matrix=m, block=b) for m, b in (("q", 0), ("k", 0), ("q", 1), ("q", None))]
    )
    figure = plots_checkpoints.eigenvalue_histograms(frame)
    visible = [p for p in figure.axes if p.get_visible()]
    assert [p.get_title() for p in visible] == [
        "q, block 0", "q, block 1", "q, outside the blocks", "k, block 0",
    ]  # fmt: skip
    bars, law = visible[0].patches
    close(bars.get_data().values, bins.density)  # type: ignore[attr-defined]
    close(law.get_data().values, bins.law)  # type: ignore[attr-defined]
    close(bars.get_data().edges, edges)  # type: ignore[attr-defined]
