"""mean_field.growth, growth_runs, growth_tables: a plan's runs, its tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.text import TextData
from rclib.experiments.mean_field import growth, growth_runs, growth_tables, plots_growth
from rclib.experiments.mean_field.growth import Arm, Plan, plan_of, run_plan
from rclib.experiments.mean_field.growth_tables import (
    after_step,
    byte_frequency_loss,
    final,
    lost_table,
    reached_at,
    savings_table,
)
from rclib.nets.gpt import build_gpt
from rclib.resizing.methods import METHODS
from rclib.training.lm_loop import flops_per_token

mpl.use("Agg")


def words() -> TextData:
    generator = torch.Generator().manual_seed(0)
    vocabulary = torch.randint(97, 105, (64, 6), generator=generator, dtype=torch.uint8)
    order = torch.randint(64, (400,), generator=generator)
    tokens = torch.cat([vocabulary, torch.full((64, 1), 32, dtype=torch.uint8)], 1)[order].flatten()
    return TextData("words", "64 made-up words", tokens, 2000, "words-v1")


def tiny(**changes: Any) -> Plan:
    options = {
        "small": 8, "large": 16, "steps": 12, "small_steps": 16, "grow_steps": [4, 6],
        "compare_step": 6, "state_steps": 2, "every": 3, "first": [0, 1], "seeds": [0],
        "lr": 0.05, "batch_size": 2, "eval_batches": 2, "blocks": 1, "context": 8,
        "head_size": 4, "warmup": 2, "positions": "rotary",
    }  # fmt: skip
    return plan_of(**(options | changes))  # type: ignore[arg-type]


def test_plan() -> None:
    plan = tiny()
    assert plan.evaluations(4, 12, [5]) == [4, 5, 6, 9, 12]
    assert [a.at for a in plan.arms if a.name == "RC sampling" and a.width == 16] == [4, 6]
    assert [a.name for a in plan.arms if not a.moments] == [
        "RC sampling, Adam anew", "RC sampling, Adam anew, warm-up",
    ]  # fmt: skip
    native = plan.native(8, 0)
    assert native["recipe"]["snapshot_steps"] == [4, 6]
    assert native["recipe"]["steps"] == 16
    assert plan.native(16, 0)["recipe"]["snapshot_steps"] == [6]
    for bad, message in (
        ({"small": 16}, "small must be below large"),
        ({"small_steps": 3}, "small_steps must be at least"),
        ({"grow_steps": [13]}, "0 < at <= last <= steps"),
        ({"grow_steps": [0]}, "0 < at <= last <= steps"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(**bad)
    with pytest.raises(ValueError, match="arms must go to width"):
        Plan(8, 16, 4, 4, 1, (0,), (0,), (Arm(12, "duplication", 1, 2),), {})


Ran = tuple[Plan, pd.DataFrame, pd.DataFrame, Path]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A plan, what it found, and the store, which stays in use."""
    cache = tmp_path_factory.mktemp("growth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(cache))
        patch.setenv("RCLIB_WORKERS", "1")
        patch.setenv("TQDM_DISABLE", "1")
        plan = tiny()
        yield plan, *run_plan(words(), plan), cache


def test_runs_of_a_plan(ran: Ran) -> None:
    plan, curves, copies, cache = ran
    assert list(curves.columns) == growth.COLUMNS
    assert np.isfinite(curves.loss).all()
    rc = curves[(curves.name == "RC sampling") & (curves.width == 16)]
    assert sorted(rc[rc["at"] == 4].step) == [4, 5, 6, 9, 12]
    # Compute: 4 steps of the small network, 8 of the large one, by the library's own count.
    tokens = 2 * 8
    per = {n: tokens * flops_per_token(build_gpt(plan.native(n, 0)["network"])) for n in (8, 16)}
    end = rc[(rc["at"] == 4) & (rc.step == 12)]
    assert float(end.flops.iloc[0]) == pytest.approx(4 * per[8] + 8 * per[16])
    # Exact duplication follows the small network (test_gpt_transfer), here in float32.
    scratch = curves[(curves.name == "N = 8 from scratch")].set_index("step").loss
    twin = curves[(curves.method == "duplication") & (curves.width == 16)].set_index("step").loss
    assert twin[12] == pytest.approx(scratch[12], abs=1e-3)
    assert twin[6] == pytest.approx(scratch[6], abs=1e-5)
    spread = copies.set_index(["width", "method", "at", "moments"]).copy_spread
    assert spread[16, "duplication", 6, True] < 1e-3
    assert spread[16, "RC sampling, new entries", 6, True] > 1e-3
    assert math.isnan(spread[16, "random growth", 6, True])
    # A second time everything is found in the store.
    stored = sorted(cache.rglob("*.safetensors"))
    pd.testing.assert_frame_equal(run_plan(words(), plan)[0], curves)
    assert sorted(cache.rglob("*.safetensors")) == stored
    assert not list((cache / "unfinished").glob("*"))


def test_tables_of_a_plan(ran: Ran) -> None:
    plan, curves, _, _ = ran
    lost = lost_table(curves, floor=3.0)
    assert not lost.duplicated(["name", "width", "at", "seed"]).any()
    row = lost[(lost.name == "duplication") & (lost.width == 16)]
    assert abs(float(row.lost.iloc[0])) < 1e-4
    saved = savings_table(curves, width=16)
    assert not saved.duplicated(["name", "width", "at", "seed"]).any()
    by = saved.set_index(["name", "width", "at"])
    for width in (8, 16):  # a grown and a shrunk network of one name
        rows = curves[(curves.name == "duplication") & (curves.width == width)]
        assert float(by.final["duplication", width, 6]) == float(final(rows).iloc[0])
        assert float(by.spent["duplication", width, 6]) == pytest.approx(
            rows.flops.max() / curves[curves.name == "N = 16 from scratch"].flops.max()
        )
    native = saved[saved.name == "N = 16 from scratch"].iloc[0]
    assert native.gap == 0.0
    assert native.share <= 1.0
    assert native.spent == pytest.approx(1.0)
    frames = growth_tables.growth_frames(curves, plan)
    assert [int(f.step.max()) for f in frames.values()] == [12, 12]
    after, gap, state = growth_tables.method_frames(curves, plan, at=6)
    assert list(after.name.unique()) == list(METHODS)
    assert set(after.since) == {0, 1}
    assert set(gap.step) == {6, 9, 12}
    assert len(state.name.unique()) == 3


def test_figures_of_a_plan(ran: Ran) -> None:
    plan, curves, _, _ = ran
    frames = growth_tables.growth_frames(curves, plan)
    figure = plots_growth.growth_curves(frames, changes=[[4, 6], [6]], zoom_from=4)
    panel = figure.axes[0]
    lines = {line.get_label(): line for line in panel.get_lines()}
    drawn = np.asarray(lines["N = 16 from scratch"].get_xydata())
    expected = curves[curves.name == "N = 16 from scratch"][["step", "loss"]]
    np.testing.assert_allclose(drawn, expected.to_numpy(), rtol=1e-5)
    upright = [d for d in panel.get_lines() if len(set(d.get_xdata())) == 1]
    assert [float(d.get_xdata()[0]) for d in upright] == [4.0, 6.0]
    # A shrunk network's own operations begin with the change, its source's are the source's.
    shrinking = list(frames.values())[1]
    small = shrinking[~shrinking.name.str.contains("scratch")]
    assert (small.groupby(["name", "seed"]).own.min() == 0).all()
    assert (small.own < small.flops).all()
    assert {"grown by RC sampling at 4", "grown by RC sampling at 6"} <= lines.keys()
    # Broken indices come from above the picture; all else from step 4 on lies in it.
    shrunk = figure.axes[1]
    rows = next(iter(list(frames.values())[1:]))
    rows = rows[(rows.step >= 4) & ~rows.name.str.contains("r1 = 1")]
    low, high = shrunk.get_ylim()
    assert low < rows.loss.min() <= rows.loss.max() < high
    after, gap, state = growth_tables.method_frames(curves, plan, at=6)
    panels = plots_growth.method_panels(after, gap, state, floor=4.0, source=3.0).axes
    for panel, count in zip(panels[:2], (len(METHODS), 3), strict=True):
        assert len(panel.get_legend_handles_labels()[1]) == count
    assert len(panels[2:]) == len(METHODS)  # later: a panel each
    saved = savings_table(curves, width=16)
    saved = saved[(saved.width == 16) | (saved["at"] == 0)]
    notes = {"N = 8 from scratch": "twice as long"}
    figure = plots_growth.saved_compute(saved, large="N = 16 from scratch", notes=notes)
    drawn_rows = figure.axes[0]
    labels = [t.get_text() for t in drawn_rows.get_yticklabels()]
    assert labels[-1] == "N = 8 from scratch\n(twice as long)"
    assert "RC sampling, at 4" in labels
    missing = saved[saved.saved.isna()].groupby(["name", "at"]).ngroups
    assert len(drawn_rows.texts) == missing
    plt.close("all")


def test_the_source_must_have_kept_adams_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    config = tiny().resized(Arm(16, "duplication", 6, 7), 0)
    config["source"]["recipe"]["snapshot_moments"] = False
    with pytest.raises(ValueError, match="kept no Adam means"):
        growth_runs.resized_run(words(), **config)


def test_reached_at() -> None:
    assert reached_at([1, 2, 3], [5.0, 4.0, 2.0], 3.0) == pytest.approx(2.5)
    assert reached_at([1, 2, 3], [5.0, 4.0, 2.0], 5.0) == 1.0
    assert math.isnan(reached_at([1, 2], [5.0, 4.0], 3.9))


def test_savings_by_hand() -> None:
    def rows(name: str, method: str, at: int, values: dict[int, tuple[float, float]]) -> list[Any]:
        head = (name, 16, method, True, at, 0)
        return [(*head, step, value, flops) for step, (value, flops) in values.items()]

    scratch = rows("scratch", "from scratch", 0, {0: (4, 0), 5: (3, 50), 10: (2, 100)})
    grown = rows("grown", "RC sampling", 5, {5: (2.5, 10), 10: (1.5, 60)})
    table = savings_table(pd.DataFrame(scratch + grown, columns=growth.COLUMNS), width=16)
    table = table.set_index("name")
    assert table.share["scratch"] == 1.0
    assert table.share["grown"] == pytest.approx(0.35)  # half way between 10 and 60
    assert table.saved["grown"] == pytest.approx(0.65)
    assert table.gap["grown"] == -0.5
    assert table.spent["grown"] == 0.6


def test_losses_at_a_step() -> None:
    frame = pd.DataFrame(
        {"name": "a", "seed": [0, 1, 0, 1], "step": [1, 1, 2, 2], "loss": [4, 3, 2, 1]}
    )
    assert after_step(frame, 1).to_dict() == {0: 4, 1: 3}
    assert final(frame).to_dict() == {0: 2, 1: 1}
    with pytest.raises(ValueError, match="step must have been evaluated"):
        after_step(frame, 3)
    with pytest.raises(ValueError, match="one run a seed"):
        final(pd.concat([frame, frame.assign(name="b")]))


def test_rows_of_one_run_and_ends_by_name() -> None:
    frame = pd.concat(
        pd.DataFrame(
            {"name": name, "width": width, "at": at, "seed": [0, 1], "step": 5, "loss": [x, x + 1]}
        )
        for name, width, at, x in (("a", 16, 3, 1.0), ("b", 16, 3, 2.0), ("a", 8, 3, 4.0))
    )
    assert growth_tables.chosen(frame, "a", width=8, at=3).loss.to_dict() == {0: 4, 1: 5}
    found = growth_tables.ends(frame, 5, width=16, at=3)
    assert {name: list(loss) for name, loss in found.items()} == {"a": [1, 2], "b": [2, 3]}
    short = frame.assign(name="short", step=4)
    assert list(growth_tables.ends(pd.concat([short, frame]), 5, width=16, at=3)) == ["a", "b"]
    with pytest.raises(
        ValueError, match="no run of width 16 from step 3 was evaluated after step 7"
    ):
        growth_tables.ends(frame, 7, width=16, at=3)
    with pytest.raises(ValueError, match="frame has no 'b' of width 8 from step 3"):
        growth_tables.chosen(frame, "b", width=8, at=3)


def test_byte_frequency_loss_is_the_entropy_of_a_stationary_text() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    tokens = torch.multinomial(p, 100_000, replacement=True, generator=generator).to(torch.uint8)
    text = TextData("four", "four letters", tokens, 50_000, "four-v1")
    value = byte_frequency_loss(text, context=64, batches=20, batch_size=16)
    assert value == pytest.approx(1.75 * math.log(2), abs=0.02)
