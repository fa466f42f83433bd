"""rclib.analysis.pictures and charts: tiles, means and order against plain loops."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rclib.analysis import charts
from rclib.analysis import pictures as pictures_of
from rclib.analysis.pictures import LEVELS, Map, Picture, pictures
from rclib.checkpoints.opening import open_checkpoint
from rclib.inspection.matrix_plan import plan_matrices


def drawn(tensors: dict[str, torch.Tensor], edge: int) -> list[Picture]:
    with open_checkpoint(tensors) as checkpoint:
        plans, _ = plan_matrices(checkpoint.tensors)
        return [p for plan in plans for p in pictures(checkpoint, plan, edge)]


@pytest.mark.parametrize("chunk", [1 << 21, 70, 1])
def test_tiles_and_means_by_loops(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures_of, "CHUNK", chunk)
    w = torch.randn(23, 14, generator=torch.Generator().manual_seed(0)) + 0.5
    (found,) = drawn({"w": w}, 8)
    m = w.double().numpy()
    np.testing.assert_allclose(found.rows, m.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.columns, m.mean(0), rtol=1e-12)
    assert found.squares == pytest.approx((m**2).sum())
    z = np.array(
        [
            [
                (m[i : i + 3, j : j + 2].mean() - m.mean())
                * np.sqrt(m[i : i + 3, j : j + 2].size)
                / m.std()
                for j in range(0, 14, 2)
            ]
            for i in range(0, 23, 3)
        ]
    )
    end = max(3.0, np.quantile(np.abs(z), 0.98))
    assert found.plain.end == pytest.approx(end)
    assert found.plain.tile == (3, 2)
    np.testing.assert_array_equal(
        found.plain.levels, np.clip(np.round(z * LEVELS / end), -LEVELS, LEVELS)
    )
    even = m[::2, ::2][np.argsort(-m[::2, 1::2].sum(1), kind="stable")]
    even = even[:, np.argsort(-m[1::2, ::2].sum(0), kind="stable")]
    assert found.sorted is not None
    assert found.sorted.levels.shape == (6, 7)
    tile = (even[:2, 0].mean() - m.mean()) * np.sqrt(2) / m.std()
    assert found.sorted.tile == (2, 1)
    assert found.sorted.levels[0, 0] == np.clip(
        np.round(tile * LEVELS / found.sorted.end), -LEVELS, LEVELS
    )


def test_sorted_noise_stays_noise_and_structure_becomes_a_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(300, 200, generator=generator)
    row = torch.randn(300, 1, generator=generator)
    slopes = []
    for w in (noise, noise + 0.3 * row):
        (found,) = drawn({"w": w}, 50)
        assert found.sorted is not None
        levels = found.sorted.levels.astype(float) * found.sorted.end / LEVELS
        top, bottom = levels[:10].mean(), levels[-10:].mean()
        slopes.append((top - bottom) * np.sqrt(levels[:10].size / 2))
    assert abs(slopes[0]) < 4  # standard errors
    assert slopes[1] > 20
    # Why not by its own means: that draws a gradient into noise.
    order = torch.argsort(-noise.mean(1))
    own = noise[order].numpy()
    assert (own[:60].mean() - own[-60:].mean()) * np.sqrt(own[:60].size / 2) > 10


def test_transposed_storage_parts_and_experts() -> None:
    from rclib.families.layout import layout

    state = {f"h.0.{n}.weight": torch.randn(s) for n, s in
             {"attn.c_attn": (20, 60), "attn.c_proj": (20, 20), "mlp.c_fc": (20, 50),
              "mlp.c_proj": (50, 20)}.items()}  # fmt: skip
    described = layout(state, {"model_type": "gpt2", "n_head": 4})
    with open_checkpoint(state) as checkpoint:
        plans, _ = plan_matrices(checkpoint.tensors, described)
        found = {p.layer: p for plan in plans for p in pictures(checkpoint, plan, 100)}
    fused = state["h.0.attn.c_attn.weight"].double().numpy()
    np.testing.assert_allclose(
        found["h.0.attn.c_attn.weight:k"].rows, fused[:, 20:40].mean(0), rtol=1e-9
    )
    up = found["h.0.mlp.c_fc.weight"]
    assert (len(up.rows), len(up.columns)) == (50, 20)  # outputs first, whatever the storage
    assert up.plain.levels.shape == (50, 20)
    experts = drawn({"experts.w1": torch.randn(3, 12, 11)}, 9)
    assert [p.layer for p in experts] == [f"experts.w1[{i}]" for i in range(3)]


def test_matrices_without_a_picture_of_their_own() -> None:
    flat, bad = torch.ones(12, 11), torch.randn(12, 11)
    bad[0, 0] = float("inf")
    (found,) = drawn({"flat": flat, "bad": bad}, 5)
    assert found.layer == "flat"
    assert not found.plain.levels.any()
    assert found.sorted is None
    (thin,) = drawn({"thin": torch.randn(2, 30)}, 5)
    assert thin.sorted is None


def test_a_heat_map_has_its_colours_and_is_clear_at_the_mean() -> None:
    levels = np.array([[-LEVELS, 0, LEVELS], [-4, 4, 8]], dtype=np.int8)
    uri = charts.heat_map(Map(levels, 3.0, (1, 1)))
    assert uri.startswith("data:image/png;base64,")
    payload = base64.b64decode(uri.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(payload)).convert("RGBA"))
    assert tuple(pixels[0, 0]) == (*charts.BLUE, 255)
    assert pixels[0, 1, 3] == 0
    assert tuple(pixels[0, 2]) == (*charts.RED, 255)
    assert tuple(pixels[1, 1]) == (*charts.RED, round(255 * 4 / LEVELS))
    assert pixels[1, 2, 3] > pixels[1, 1, 3]


def points(svg: str, kind: str) -> list[tuple[float, float]]:
    found = re.search(rf'<path class="{kind}" d="M([^"]*?)Z?"', svg)
    assert found is not None, kind
    return [tuple(map(float, p.split())) for p in re.split("[LM]", found[1])]  # type: ignore[misc]


def test_the_power_law_is_drawn_through_its_own_counts() -> None:
    # Density of log10 λ of an exact power law from 1 on: (α - 1) ln 10 λ^(1 - α).
    left = np.arange(0.0, 2.0, 0.1)
    right, alpha = left + 0.1, 2.5
    density = (10 ** (-1.5 * left) - 10 ** (-1.5 * right)) / 0.1
    svg = charts.spectrum_chart(
        left, right, density, np.full(20, np.nan), edge=1.0, tail=(0.0, alpha, 1.0), label="x"
    )
    (x0, y0), (x1, y1) = points(svg, "power")
    bars = points(svg, "bars")
    heights = {round(x, 1): y for x, y in bars[:40]}
    middles = sorted(heights)
    for x in middles[2:-2:2]:
        along = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
        assert abs(along - heights[x]) < 6  # pixels of 150
    assert 'class="edge"' in svg
    assert 'class="law"' not in svg
    assert (
        charts.spectrum_chart(left, right, 0 * density, density, edge=None, tail=None, label="x")
        == ""
    )


def test_means_of_many_rows_are_drawn_as_their_range() -> None:
    values = np.random.default_rng(0).standard_normal(5000)
    svg = charts.means_chart([("weights", values, 0.0, 1.0)], "means")
    assert len(svg) < 10_000
    ys = [y for _, y in points(svg, "band weights")]
    assert min(ys) == pytest.approx(charts.TOP, abs=0.2)
    assert max(ys) == pytest.approx(charts.HEIGHT - charts.BOTTOM, abs=0.2)
    few = charts.means_chart([("weights", np.full(5, 2.0), 2.0, 0.0)], "means")
    assert len(points(few, "line weights")) == 5


def test_a_chart_over_blocks_leaves_gaps() -> None:
    x, y = np.arange(4.0), np.array([1.0, np.nan, 3.0, 2.0])
    svg = charts.blocks_chart([("line a", x, y), ("line a dotted", x, y + 1)], "what")
    assert svg.count("<circle") == 3
    assert re.search(r'<path class="line a" d="M[^"ML]*M', svg)
    assert charts.blocks_chart([("line a", x, y * np.nan)], "what") == ""


def test_no_text_of_a_model_is_in_a_drawing() -> None:
    source = Path(charts.__file__).read_text(encoding="utf-8")
    assert "layer" not in source
