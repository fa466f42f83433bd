"""language.triplane*: readers, fits, spectra and frames of notebook 95 against other routes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.shapes import KINDS, draw_shapes
from rclib.experiments.language import plots_triplane as plots
from rclib.experiments.language import triplane_fields as frames
from rclib.experiments.language import triplane_readers as readers
from rclib.experiments.language import triplane_runs as runs
from rclib.nets.triplane import start_fields
from rclib.rowcolumn.measure import leading_share

TINY = runs.TINY["field_run"]
ARMS = {
    "own": list(runs.ARMS),
    "shared": ["set", "flat", "flat, shuffled", "decoder", "network", "network, shuffled"],
}
SETTINGS = {k: v for k, v in TINY.items() if k not in ("seed", "shared", "target", "arms", "stops")}


# --- readers -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["set", "transformer"])
def test_sets_do_not_see_the_order_of_tokens(kind: str) -> None:
    torch.manual_seed(0)
    net = readers.build(kind, 5, 8).eval()
    x = torch.randn(7, 6, 5)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    with torch.no_grad():
        torch.testing.assert_close(net(x[:, order]), net(x), atol=1e-5, rtol=0)
        # They see more than single tokens' presence in common: another token, another answer.
        assert (net(x.roll(1, 0)) - net(x)).abs().max() > 1e-3


def test_a_flat_reader_does() -> None:
    torch.manual_seed(0)
    net = readers.build("flat", 30, 8).eval()
    x = torch.randn(7, 6, 5)
    with torch.no_grad():
        moved = net(x[:, [3, 1, 5, 0, 2, 4]].flatten(1)) - net(x.flatten(1))
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("kind", readers.READERS)
def test_readers_learn_what_is_there_and_nothing_else(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(120) % len(KINDS)
    centres = torch.randn(len(KINDS), 3, 8, generator=g)
    x = centres[y] + 0.3 * torch.randn(120, 3, 8, generator=g)
    noise = torch.randn(120, 3, 8, generator=g)
    if kind == "flat":
        x, noise = x.flatten(1), noise.flatten(1)
    folds = torch.arange(120) // 6 % 2
    reader = readers.Reader(width=16, epochs=40, lr=0.01, folds=folds, n_folds=2)
    assert readers.accuracy(kind, x, y, reader, seed=0) > 0.9
    assert readers.accuracy(kind, noise, y, reader, seed=0) < 0.4


def test_an_unknown_reader_is_named() -> None:
    with pytest.raises(ValueError, match="kind"):
        readers.build("forest", 3, 4)


# --- fits ----------------------------------------------------------------------------------


def fitted(target: str, channels: int) -> tuple[float, float]:
    """Mean intersection over union before and after a short fit."""
    g = torch.Generator().manual_seed(0)
    shapes = draw_shapes(2, g)
    points = 2 * torch.rand(1000, 3, generator=g) - 1
    start = start_fields(12, hidden=[16, 16], channels=channels, R=8, generator=g)
    end = runs.fit(start, shapes, points=128, steps=60, lr=0.01, target=target, generator=g)[-1]
    return tuple(float(runs.iou(f, shapes, points).mean()) for f in (start, end))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("target", "channels"), [("occupancy", 4), ("occupancy", 0), ("distance", 4)]
)
def test_fits_fit(target: str, channels: int) -> None:
    before, after = fitted(target, channels)
    assert after > 0.55
    assert after > before + 0.3


def test_a_fit_leaves_its_start_and_stops_on_the_way() -> None:
    g = torch.Generator().manual_seed(0)
    shapes = draw_shapes(1, g)
    start = start_fields(6, hidden=[4], channels=2, R=4, generator=g)
    assert start.planes is not None
    before = start.planes.clone()
    options: dict[str, Any] = {"points": 16, "lr": 0.01, "target": "occupancy"}
    found = runs.fit(start, shapes, steps=3, stops=[1], generator=g, **options)
    assert torch.equal(start.planes, before)
    assert len(found) == 2
    assert found[0].planes is not None
    assert found[1].planes is not None
    assert not torch.equal(found[0].planes, found[1].planes)
    assert not any(t.requires_grad for t in found[0].tensors)
    with pytest.raises(ValueError, match="target"):
        runs.fit(start, shapes, steps=1, generator=g, **{**options, "target": "colour"})


def test_fields_are_fitted_each_alone() -> None:
    """The gradients of one field do not reach another: the first of two has the tensors it has
    when the second one starts elsewhere."""
    g = torch.Generator().manual_seed(0)
    shapes = draw_shapes(1, g)
    start = start_fields(6, hidden=[4], channels=2, R=4, generator=g)
    other = replace(start, weights=tuple(torch.cat([W[:1], W[1:].flip(0)]) for W in start.weights))
    ends = [
        runs.fit(f, shapes, points=16, steps=5, lr=0.01, target="occupancy",
                 generator=torch.Generator().manual_seed(1))[-1]
        for f in (start, other)
    ]  # fmt: skip
    torch.testing.assert_close(ends[0].weights[0][0], ends[1].weights[0][0])
    assert not torch.allclose(ends[0].weights[0][1], ends[1].weights[0][1])


def test_union_of_what_is_known() -> None:
    """A field that says inside everywhere has the shape's share of the points."""
    shapes = draw_shapes(1, torch.Generator().manual_seed(0))
    points = 2 * torch.rand(5000, 3, generator=torch.Generator().manual_seed(1)) - 1
    start = start_fields(6, hidden=[4], generator=torch.Generator().manual_seed(2))
    full = replace(
        start, weights=tuple(torch.zeros_like(W) for W in start.weights),
        biases=tuple(torch.ones_like(b) for b in start.biases),
    )  # fmt: skip
    expected = (shapes.levels(points) > 0).float().mean(1)
    torch.testing.assert_close(runs.iou(full, shapes, points), expected)


def test_another_network_is_that_of_the_last_shape_of_the_kind() -> None:
    """Each field by itself: its planes, and the network of the shape one turn of kinds before."""
    g = torch.Generator().manual_seed(0)
    fields = start_fields(12, hidden=[4], channels=2, R=4, plane_sd=1.0, generator=g)
    points = 2 * torch.rand(30, 3, generator=g) - 1
    found = runs._other_network(fields)(points)
    assert fields.planes is not None
    kinds = draw_shapes(2, g).kind
    for place in range(12):
        other = (place - 6) % 12
        assert kinds[other] == kinds[place]
        one = replace(
            fields, planes=fields.planes[[place]],
            weights=tuple(W[[other]] for W in fields.weights),
            biases=tuple(b[[other]] for b in fields.biases),
        )  # fmt: skip
        torch.testing.assert_close(found[place], one(points)[0])
    # Networks that are one at the start are no others.
    shared = start_fields(12, hidden=[4], channels=2, R=4, shared=True, generator=g)
    torch.testing.assert_close(runs._other_network(shared)(points), shared(points))


# --- spectra and correlations --------------------------------------------------------------


def test_shares_are_those_of_the_library_and_of_noise() -> None:
    planes = torch.randn(40, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    shares = runs.top_shares(planes)
    Z = planes[3].flatten(2).flatten(0, 1)
    share = leading_share(Z - Z.mean(1, keepdim=True), 1)
    assert float(shares[3]) == pytest.approx(share.value)
    assert float(shares.mean()) == pytest.approx(0.155, abs=0.01)
    same = planes[:, :1, :1].expand(-1, 3, 4, -1, -1)
    torch.testing.assert_close(runs.top_shares(same), torch.ones(40, dtype=torch.float64))


def test_correlations_are_found_where_they_are() -> None:
    g = torch.Generator().manual_seed(0)
    own = start_fields(60, hidden=[16, 16], channels=4, R=8, plane_sd=1.0, generator=g)
    assert own.planes is not None
    assert float(runs.rc_over_chance(own).max()) < 1.5
    written = torch.randn(60, 1, 4, 1, 1, generator=g).expand(60, 3, 4, 8, 8)
    hidden, channels = runs.rc_over_chance(replace(own, planes=own.planes + written)).tolist()
    assert hidden < 1.5
    assert channels > 5
    rows = torch.randn(60, 16, generator=g)
    first, second = own.weights[0] + rows[:, :, None], own.weights[1] + rows[:, None, :]
    both = replace(own, weights=(first, second, own.weights[2]))
    assert float(runs.rc_over_chance(both)[0]) > 5


# --- runs and frames -----------------------------------------------------------------------


def test_a_run_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="arms"):
        runs.field_run(None, **{**TINY, "arms": ["sets"]})
    with pytest.raises(ValueError, match="drawn"):
        frames.field_runs([0], {"drawn": ["set"]}, [], SETTINGS)


def test_frames_hold_what_the_runs_say() -> None:
    seeds = [0, 1]
    found = frames.field_runs(seeds, ARMS, TINY["stops"], SETTINGS)
    run = found["own", 1]
    assert run["pictures"].shape == (2, 3, 2, 4, 4)
    assert not np.allclose(run["pictures"][0], run["pictures"][1])
    assert run["numbers"].tolist() == [3 * 2 * 16, 4 * 16 + 5]
    assert 0 <= run["moved"][0] < 1e-4 < run["moved"][1]
    again = runs.field_run(None, **{**TINY, "seed": 1})
    np.testing.assert_array_equal(again["accuracy"], run["accuracy"])

    read = frames.read_frame(found, ARMS)
    assert len(read) == 2 * (len(ARMS["own"]) + len(ARMS["shared"]))
    assert read.query("start == 'own' and seed == 1 and arm == 'spatial'").accuracy.item() == (
        pytest.approx(float(run["accuracy"][list(runs.ARMS).index("spatial")]))
    )
    quality = frames.quality_frame(found)
    share = frames.share_frame(found)
    assert share.groupby(["start", "seed"]).share.mean()["own", 1] == pytest.approx(
        quality.set_index(["start", "seed"]).share["own", 1]
    )
    stopped = frames.stop_frame(found, TINY["stops"], 2)
    assert stopped.step.tolist() == [1, 2, 1, 2]
    far = frames.field_runs(seeds, {"own": ["set", "flat"]}, [], SETTINGS, target="distance")
    distance = frames.read_frame(far, {"own": ["set", "flat"]})
    found_values = frames.values(read, quality, share, stopped, distance)
    assert len(found_values) == 25
    for key, by_seed in found_values.items():
        assert by_seed.index.tolist() == seeds, key
        assert by_seed.index.name == "seed"
        assert np.isfinite(by_seed).all(), key
    chosen = read.set_index(["start", "arm", "seed"]).accuracy
    assert found_values["set_shared"][1] == pytest.approx(
        chosen["shared", "set", 1] - chosen["shared", "flat", 1]
    )
    assert frames.over_seeds(read, ["start", "arm"]).accuracy.between(0, 1).all()


def test_figures_are_drawn() -> None:
    seeds = [0, 1]
    found = frames.field_runs(seeds, ARMS, TINY["stops"], SETTINGS)
    read = frames.read_frame(found, ARMS)
    pictures = frames.picture_frame(found["own", 0])
    assert (
        pictures["value"]
        .abs()
        .groupby([pictures.fit, pictures.plane, pictures.channel])
        .max()
        .eq(1)
        .all()
    )
    figure = plots.reader_panels(read, pictures)
    assert len(figure.axes) == 2 * 2 * 2 + 1
    correlations = pd.DataFrame({"seed": [0, 1], "name": ["a", "b"], "value": [0.5, 9.0]})
    stopped, share = frames.stop_frame(found, [1], 2), frames.share_frame(found)
    figure = plots.channel_panels(stopped, share, correlations, chance=0.15)
    assert [panel.get_title()[:3] for panel in figure.axes] == ["(a)", "(b)", "(c)"]
