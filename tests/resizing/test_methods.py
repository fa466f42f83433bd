"""resizing.methods and the experiment on it.

What each way to change the width keeps and draws anew.
"""

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
from torch import Tensor
from torch.nn import functional

from rclib.data.text import TextData
from rclib.experiments.mean_field import growth, growth_tables, plots_growth
from rclib.experiments.mean_field.growth import Arm, Plan, plan_of, run_plan
from rclib.experiments.mean_field.growth_tables import (
    after_step,
    byte_frequency_loss,
    final,
    lost_table,
    reached_at,
    savings_table,
)
from rclib.nets.gpt import GPT, build_gpt
from rclib.nets.init import Init
from rclib.resizing.methods import METHODS, change_width, copy_spread
from rclib.training.lm_loop import flops_per_token
from rclib.training.lm_recipe import Recipe, make_optimizer
from rclib.training.lm_state import adam_moments

mpl.use("Agg")

SMALL: dict[str, Any] = {"blocks": 2, "context": 7, "vocabulary": 11, "head_size": 4, "norm": "rms"}


def small(width: int = 8, *, seed: int = 3, **options: Any) -> GPT:
    """A network away from its start by outer products, as the ansatz has it, and a bit more."""
    model = GPT(width, seed=seed, **(SMALL | options)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


def tokens(n: int = 4) -> Tensor:
    return torch.randint(11, (n, 8), generator=torch.Generator().manual_seed(0))


def loss(model: GPT, x: Tensor) -> Tensor:
    return functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


def logits(model: GPT) -> Tensor:
    return model(tokens()[:, :-1]).detach()


@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
@pytest.mark.parametrize("method", ["duplication", "duplication, new entries"])
def test_duplication_keeps_the_function(method: str, name: str) -> None:
    model = small(parametrization=name)
    for width in (16, 24):
        grown = change_width(model, width, method=method, seed=2).model
        torch.testing.assert_close(logits(grown), logits(model), rtol=1e-10, atol=1e-12)


def test_new_entries_break_the_symmetry_of_copies_and_nothing_else_does() -> None:
    model, x = small(), tokens()
    spread = {}
    for method in METHODS[:5]:
        grown = change_width(model, 32, method=method, seed=0)
        assert grown.maps is not None
        assert copy_spread(grown.model, grown.maps) == 0.0  # a neuron variable: copied
        loss(grown.model, x).backward()
        with torch.no_grad():  # one step of gradient descent
            for p in grown.model.parameters():
                assert p.grad is not None
                p -= 100.0 * p.grad
        spread[method] = copy_spread(grown.model, grown.maps)
    assert spread["RC sampling"] < 1e-12
    assert spread["duplication"] < 1e-12
    for method in ("RC sampling, r1 = 1", "RC sampling, new entries", "duplication, new entries"):
        assert spread[method] > 1e-3


def test_copy_spread_by_hand() -> None:
    model = small(8, vocabulary=2)
    maps = {("embedding", 0): torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])}
    with torch.no_grad():
        model.get_parameter("embedding").fill_(1.0)
        model.get_parameter("embedding")[7] = torch.tensor([4.0, 5.0])
    rms = math.sqrt((14 + 16 + 25) / 16)
    assert copy_spread(model, maps) == pytest.approx(math.sqrt((9 + 16) / 2) / rms)
    assert math.isnan(copy_spread(model, {("embedding", 0): torch.arange(8)}))


@pytest.mark.parametrize("start", ["zero mean", "mean one"])
def test_new_entries_are_the_learned_part_and_a_new_start(start: str) -> None:
    law = Init("gaussian", mean=float(start == "mean one"), scale=2.0)
    model = small(init=law)
    old = build_gpt(model.options())
    grown = change_width(model, 32, method="RC sampling, new entries", seed=4)
    assert grown.maps is not None
    plain = change_width(model, 32, method="RC sampling", seed=4)
    for name in model.axes:
        new = grown.model.get_parameter(name).detach()
        if model.layer_type(name) != "hidden":
            assert torch.equal(new, plain.model.get_parameter(name).detach())
            continue
        learned = (model.get_parameter(name) - old.get_parameter(name).double()).detach()
        for axis in range(learned.ndim):
            if (name, axis) in grown.maps:
                learned = learned.index_select(axis, grown.maps[name, axis])
        noise = new - learned  # what is drawn anew: i.i.d. with the law of the start
        n = noise.numel()
        assert abs(float(noise.mean()) - law.mean) < 5 * 2.0 / math.sqrt(n)
        assert abs(float(noise.std()) - 2.0) < 5 * 2.0 / math.sqrt(2 * n)
        assert len(noise.flatten().unique()) == n
        again = noise.flatten()[:, None] == old.get_parameter(name).detach().double().flatten()
        assert not bool(again.any())  # no entry of the source's own start comes back


def test_noise_of_new_entries_vanishes_with_the_width() -> None:
    model = small(16)

    def error(width: int) -> float:
        draws = [
            change_width(model, width, method="RC sampling, new entries", seed=s).model
            for s in range(3)
        ]
        # Against the same neurons without the entries' noise, drawn at a large width.
        return float(
            torch.stack([(logits(d) - target).square().mean() for d in draws]).mean().sqrt()
        )

    learned = change_width(model, 16, method="duplication", seed=0).model
    start = build_gpt(model.options()).double()
    with torch.no_grad():
        for name in model.axes:
            if model.layer_type(name) == "hidden":
                maps = change_width(model, 16, method="duplication", seed=0).maps
                assert maps is not None
                own = start.get_parameter(name)
                for axis in range(own.ndim):
                    if (name, axis) in maps:
                        own = own.index_select(axis, maps[name, axis])
                learned.get_parameter(name).sub_(own)
    target = logits(learned)
    assert error(512) < 0.5 * error(64)


@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
def test_random_growth_keeps_what_old_neurons_send(name: str) -> None:
    model = small(parametrization=name)
    grown = change_width(model, 16, method="random growth", seed=5).model
    start = model.like(16, seed=5 + 1_000_003)
    for label in model.axes:
        old, new = model.get_parameter(label), grown.get_parameter(label)
        corner = tuple(slice(n) for n in old.shape)
        # m' W' = m W in the corner, the initial law elsewhere.
        ratio = 1.0
        if model.layer_type(label) in ("input", "hidden", "output"):
            ratio = model.multiplier(label) / grown.multiplier(label)
        torch.testing.assert_close(new[corner], ratio * old)
        rest = torch.ones_like(new, dtype=torch.bool)
        rest[corner] = False
        assert torch.equal(new[rest], start.get_parameter(label)[rest])
    with pytest.raises(ValueError, match="width must be at least the source's 8"):
        change_width(model, 4, method="random growth")


def test_random_growth_without_use_of_new_neurons_is_the_old_function() -> None:
    # Silence the new neurons: embeddings, incoming weights and biases zero. What is left is the
    # old network, but for the norm's mean over twice as many neurons.
    model = small()
    grown = change_width(model, 16, method="random growth", seed=0).model
    n = {"stream": 8, "mlp": 32, "head": 2}
    with torch.no_grad():
        for label, axes in model.axes.items():
            p = grown.get_parameter(label)
            for axis, index in enumerate(axes):
                size = n.get(index.partition(".")[0])
                if size is None or (axis == p.ndim - 1 and p.ndim > 1):
                    continue
                if label.rpartition(".")[2].startswith("gain"):
                    p /= math.sqrt(2.0)  # the mean over 16 is half of that over 8
                else:
                    p.index_fill_(axis, torch.arange(size, p.shape[axis]), 0.0)
    torch.testing.assert_close(logits(grown), logits(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_moments_are_moved_with_the_weights(method: str) -> None:
    model, x = small(), tokens()
    optimizer = make_optimizer(model, Recipe(steps=3, lr=0.01))
    for _ in range(3):
        optimizer.zero_grad()
        loss(model, x).backward()
        optimizer.step()
    moments = adam_moments(model, optimizer)
    grown = change_width(model, 16, method=method, moments=moments, seed=1)
    assert set(grown.moments) == set(moments)
    for label, tensor in grown.moments.items():
        kind, _, name = label.partition("/")
        if kind == "step":
            assert float(tensor) == 3.0
        else:
            assert tensor.shape == grown.model.get_parameter(name).shape
    assert change_width(model, 16, method=method, seed=1).moments == {}
    if method == "random growth":
        # Old weights have W' = 2 W (m' = m / 2), so their gradients are half of what they were.
        up = grown.moments["exp_avg/blocks.0.Wup"]
        torch.testing.assert_close(up[:32, :8], moments["exp_avg/blocks.0.Wup"] / 2)
        assert not up[32:].any()
        assert not up[:, 8:].any()
        square = grown.moments["exp_avg_sq/W"]
        torch.testing.assert_close(square[:, :8], moments["exp_avg_sq/W"] / 4)


def test_refusals() -> None:
    model = small()
    with pytest.raises(ValueError, match="method must be one of RC sampling"):
        change_width(model, 16, method="magic")
    with pytest.raises(ValueError, match="multiple of head_size"):
        change_width(model, 18)
    with pytest.raises(ValueError, match="moments must hold"):
        change_width(model, 16, moments={"exp_avg/embedding": torch.zeros(1)})


# The experiment.


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
    figure = plots_growth.growth_curves(frames, changes=[6], zoom_from=4)
    panel = figure.axes[0]
    lines = {line.get_label(): line for line in panel.get_lines()}
    drawn = np.asarray(lines["N = 16 from scratch"].get_xydata())
    expected = curves[curves.name == "N = 16 from scratch"][["step", "loss"]]
    np.testing.assert_allclose(drawn, expected.to_numpy())
    assert {"grown by RC sampling at 4", "grown by RC sampling at 6"} <= lines.keys()
    # Broken indices come from above the picture; all else from step 4 on lies in it.
    shrunk = figure.axes[1]
    rows = next(iter(list(frames.values())[1:]))
    rows = rows[(rows.step >= 4) & ~rows.name.str.contains("r1 = 1")]
    low, high = shrunk.get_ylim()
    assert low < rows.loss.min() <= rows.loss.max() < high
    after, gap, state = growth_tables.method_frames(curves, plan, at=6)
    panels = plots_growth.method_panels(after, gap, state, floor=4.0, source=3.0).axes
    for panel, count in zip(panels[:3], (len(METHODS), len(METHODS), 3), strict=True):
        assert len(panel.get_legend_handles_labels()[1]) == count
    saved = savings_table(curves, width=16)
    saved = saved[(saved.width == 16) | (saved["at"] == 0)]
    drawn_rows = plots_growth.saved_compute(saved).axes[0]
    labels = [t.get_text() for t in drawn_rows.get_yticklabels()]
    assert labels[-1] == "N = 8 from scratch"
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
        growth.resized_run(words(), **config)


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


def test_byte_frequency_loss_is_the_entropy_of_a_stationary_text() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    tokens = torch.multinomial(p, 100_000, replacement=True, generator=generator).to(torch.uint8)
    text = TextData("four", "four letters", tokens, 50_000, "four-v1")
    value = byte_frequency_loss(text, context=64, batches=20, batch_size=16)
    assert value == pytest.approx(1.75 * math.log(2), abs=0.02)
