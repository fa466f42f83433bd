"""rclib.experiments.mean_field.asked_again: against the library's steps, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stored_runs import tiny, tiny_data
from torch.nn.functional import cross_entropy

from rclib.data.images import load
from rclib.experiments.mean_field import asked_again, figure_4_3
from rclib.experiments.mean_field.lm_runs import (
    lm_configuration,
    losses_at,
    restore_gpt,
    train_gpt,
)
from rclib.experiments.mean_field.mlp_runs import restore
from rclib.resizing import mlp
from rclib.resizing.methods import change_width
from rclib.training.lm_loop import evaluate_lm

NETWORK: dict[str, Any] = {"lr": 0.01, "context": 8, "batch_size": 2, "eval_batches": 2}


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs asked again"))


@pytest.fixture(scope="module")
def text() -> Any:
    return tiny_data("mean_field.asked_again.resized_losses")


def test_losses_right_after_a_change_of_width(text: Any) -> None:
    config = tiny("mean_field.asked_again.resized_losses")
    methods = ["RC sampling", "duplication"]
    found = asked_again.resized_losses(text, **{**config, "methods": methods, "draws": 2})
    run = train_gpt(text, **config["source"])
    assert found["source_loss"] == losses_at(run, [2])[0]
    model, _ = restore_gpt(run, config["source"]["network"], step=2)
    for draw in (0, 1):
        moved = change_width(model, 32, method="RC sampling", seed=10_000 * draw).model
        loss = evaluate_lm(moved, text, context=8, batch_size=2)
        assert found["loss"][0, draw] == pytest.approx(loss, abs=1e-12)
    np.testing.assert_allclose(found["loss"][1], found["source_loss"], atol=1e-5)
    assert found["loss"][0, 0] != found["loss"][0, 1]


def test_lost_is_the_share_of_what_was_learned(text: Any) -> None:
    frame = asked_again.lost_frame(
        text, width=16, to_width=32, step=2, methods=["duplication", asked_again.BROKEN], draws=2,
        seeds=[5, 3], floor=6.0, **NETWORK,
    )  # fmt: skip
    assert list(frame.columns) == ["name", "width", "seed", "draw", "source_loss", "loss", "lost"]
    assert len(frame) == 2 * 2 * 2
    lost = (frame.loss - frame.source_loss) / (6.0 - frame.source_loss)
    np.testing.assert_allclose(frame.lost, lost)
    by_seed = asked_again.lost_by_seed(frame, "duplication")
    assert list(by_seed.index) == [5, 3]
    np.testing.assert_allclose(by_seed, 0.0, atol=1e-4)
    broken = asked_again.lost_by_seed(frame, asked_again.BROKEN)
    rows = frame[(frame.name == asked_again.BROKEN) & (frame.seed == 5)]
    assert broken[5] == pytest.approx(rows.lost.mean())
    with pytest.raises(ValueError, match=r"name must be one of .*, got 'other'"):
        asked_again.lost_by_seed(frame, "other")


def test_networks_train_on_beside_small_ones(text: Any) -> None:
    methods = ["RC sampling", "duplication"]
    ends = asked_again.trained_on(
        text, width=16, to_width=32, small=16, step=2, last=4, methods=methods, seeds=[1, 0],
        **NETWORK,
    )  # fmt: skip
    assert ends.index.name == "seed"
    assert list(ends.index) == [1, 0]
    assert list(ends.columns) == ["small", *methods]
    scratch = train_gpt(
        text, **lm_configuration(width=16, seed=0, steps=4, eval_steps=[4], **NETWORK)
    )
    assert ends.small[0] == pytest.approx(losses_at(scratch, [4])[0])
    np.testing.assert_allclose(ends.duplication, ends.small, atol=1e-4)  # copies stay copies
    assert (ends["RC sampling"] != ends.small).all()
    shrunk = asked_again.trained_on(
        text, width=32, to_width=16, small=16, step=2, last=4, methods=methods[:1], seeds=[0],
        **NETWORK,
    )  # fmt: skip
    assert shrunk.small[0] == ends.small[0]
    assert np.isfinite(shrunk["RC sampling"][0])


def test_gaps_and_their_exponent() -> None:
    few = load("digits").subset(120, 40)
    options = {"lr": 0.3, "batch_size": 40, "parametrization": "MF"}
    frame = asked_again.gap_frame(
        few, source_widths=[4, 6], target_widths=[3, 8], transfer_epoch=1, draws=2, seeds=[2, 7],
        **options,
    )  # fmt: skip
    assert len(frame) == 2 * 2 * 2
    config = figure_4_3.source(width=6, seed=7, epochs=1, transfer_epoch=1, **options)
    model, run = restore(few, config, 1)
    moved = [mlp.resize(model, 8, random_rate=0.0, norm_rate=1.0, seed=draw) for draw in (0, 1)]
    losses = [cross_entropy(one(few.x_test), few.y_test).item() for one in moved]
    row = frame[(frame.source == 6) & (frame.target == 8) & (frame.seed == 7)]
    assert float(row.gap.iloc[0]) == pytest.approx(np.mean(losses) - run["test_loss"][1], abs=1e-6)

    law = pd.DataFrame(
        [(n, t, s, (1 + 0.1 * s) / t) for n in (1, 2) for t in (10, 20, 40) for s in (4, 5, 6)],
        columns=["source", "target", "seed", "gap"],
    )
    law.loc[law.seed == 6, "gap"] *= law.target  # a last seed without any fall
    value, low, high = asked_again.exponent_at(law, [4, 5, 6])(2, 0.01)
    assert [value, low, high] == pytest.approx([-1, -1, -1])
    wide, narrow = (asked_again.exponent_at(law, [4, 5, 6])(3, level) for level in (0.01, 0.2))
    assert wide[0] == narrow[0] > -1
    assert wide[1] < narrow[1] < narrow[0] < narrow[2] < wide[2]
    with pytest.raises(ValueError, match=r"frame has no seeds \[9\]"):
        asked_again.exponent_at(law, [4, 9])


def test_values_of_questions_are_rows() -> None:
    values = {"a": pd.Series([1.0, 2.0], index=[3, 4]), "b": pd.Series([5.0], index=[3])}
    frame = asked_again.values_frame(values, ["≤ 0.5", "≥ 0"])
    assert list(frame.question) == ["a", "a", "b"]
    assert list(frame.seed) == [3, 4, 3]
    assert list(frame.criterion) == ["≤ 0.5", "≤ 0.5", "≥ 0"]


def test_figure_draws_every_question(tmp_path: Path) -> None:
    from rclib.experiments.mean_field import plots_again

    gaps = pd.DataFrame(
        [(n, t, s, (1.0 + s) / t if t < 40 else -0.01) for n in (1, 2) for t in (10, 20, 40)
         for s in (0, 1)], columns=["source", "target", "seed", "gap"],
    )  # fmt: skip
    values = asked_again.values_frame(
        {"a": pd.Series([1.0, 2.0]), "b": pd.Series([5.0])}, ["≤ 1", "≥ 6"]
    )
    figure = plots_again.asked_again(gaps, values)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["(a)", "(b)", "(c)"]
    assert [panel.get_xlabel() for panel in figure.axes] == ["target width", "a", "b"]
    assert [panel.get_title(loc="right") for panel in figure.axes] == ["", "≤ 1", "≥ 6"]
    assert list(figure.axes[2].lines[-1].get_ydata()) == [6, 6]
    from_ten = figure.axes[0].lines[0]
    assert list(from_ten.get_xdata()) == [10, 20]  # the mean at 40 is negative
    figure.savefig(tmp_path / "asked_again.png")
