"""Figure 4.4's experiment: tables of runs and checkpoints, and sources that are out of reach."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from rclib.data.text import named_text
from rclib.experiments.mean_field import figure_4_4
from rclib.experiments.mean_field.lm_runs import restore_gpt
from rclib.rowcolumn.measure import chance_level

VARIANTS = {
    "MF": {"parametrization": "MF", "lr": 0.03, "start": "mean one"},
    "SP": {"parametrization": "SP", "lr": 0.003, "start": "zero mean"},
}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> figure_4_4.Runs:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "cache"))
    data = named_text("python")
    found, losses = figure_4_4.train_all(
        data, variants=VARIANTS, seeds=[0, 1], snapshots=[2, 4], width=16, blocks=2, context=8,
        batch_size=2, head_size=4, bias="constant",
    )  # fmt: skip
    assert list(losses.step) == [0, 2, 4] * 4
    assert losses.loss.notna().all()
    return found


@pytest.mark.slow
def test_tables_of_trained_and_untrained_models(runs: figure_4_4.Runs) -> None:
    assert set(runs) == {(v, s) for v in VARIANTS for s in (0, 1)}
    table = figure_4_4.trained_table(runs)
    assert len(table) == 4 * 3 * (2 * 5 + 2) - 4  # the output matrix starts at zero: no vector
    one = table[(table.variant == "MF") & (table.seed == 1) & (table.step == 4)]
    row = one[(one.block == 1) & (one.set == "stream")].iloc[0]
    # The same by numpy, from the run's own tensors.
    config, run = runs["MF", 1]
    model, _ = restore_gpt(run, config["network"], step=4)
    state = model.state_dict()
    w = {n.removeprefix("blocks.1."): t.double().numpy() for n, t in state.items()}
    vectors = {
        "Wq.R": w["Wq"].mean((0, 1)), "Wk.R": w["Wk"].mean((0, 1)), "Wv.R": w["Wv"].mean((0, 1)),
        "Wo.C": w["Wo"].mean((1, 2)), "Wup.R": w["Wup"].mean(0), "Wdown.C": w["Wdown"].mean(1),
    }  # fmt: skip
    matrix = np.abs(np.corrcoef(np.stack(list(vectors.values()))) - np.eye(6))
    assert row.value == pytest.approx(matrix.max(), abs=1e-6)
    assert {row["first"], row["second"]} <= set(vectors)
    assert row.chance == chance_level(16, 15)

    fresh = figure_4_4.untrained_table(runs, count=3)
    assert list(fresh.seed.unique()) == [10_000, 10_001, 10_002]
    assert len(fresh) == 3 * (2 * 5 + 2)
    assert fresh.value.nunique() == len(fresh)

    matrices = figure_4_4.block_matrices(runs, variant="MF", seed=1, step=4, block=1)
    labels, found, level = matrices["stream"]
    assert sorted(labels) == sorted(vectors)
    assert np.abs(found - np.eye(6)).max() == pytest.approx(row.value)
    assert level == row.chance


def test_summaries_of_a_table_by_hand() -> None:
    table = pd.DataFrame(
        {
            "seed": [0, 0, 0, 1, 1, 1],
            "block": pd.array([0, 1, None, 0, 1, 1], dtype="Int64"),
            "set": ["stream", "stream", "stream", "stream", "stream", "heads"],
            "value": [0.8, 0.3, 0.1, 0.2, 0.4, 0.9],
            "chance": [0.4, 0.2, 0.2, 0.4, 0.2, 0.95],
            "p_value": [0.01, 0.02, 0.9, 0.5, 0.001, 0.06],
        }
    )
    assert figure_4_4.over_chance(table[table.seed == 0]) == pytest.approx(1.5)
    assert figure_4_4.over_chance(table) == pytest.approx(0.5)
    assert list(figure_4_4.shares_above(table)) == pytest.approx([2 / 3, 1 / 3])
    curve = figure_4_4.p_value_curve({"all": table, "few": table[:2]})
    few = curve[curve.group == "few"]
    assert list(few.p) == [0.01, 0.02]
    assert list(few.share) == [0.5, 1.0]
    with pytest.raises(ValueError, match="no block with the set 'heads'"):
        figure_4_4.over_chance(table[:3], name="heads")


def test_sources_that_can_be_read_and_those_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    good = tmp_path / "good"
    good.mkdir()
    generator = torch.Generator().manual_seed(0)
    shapes = {"wte.weight": (30, 16)}
    shapes |= {f"h.{b}.mlp.c_fc.weight": (16, 40) for b in (0, 1)}
    shapes |= {f"h.{b}.mlp.c_proj.weight": (40, 16) for b in (0, 1)}
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(state, good / "model.safetensors")
    (good / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    strange = tmp_path / "strange.safetensors"
    save_file({"net.w": torch.ones(3, 3)}, strange)
    sources = [str(good), str(tmp_path / "missing.safetensors"), str(strange)]
    tables, reasons = figure_4_4.measure_sources(sources)
    assert list(tables) == [str(good)]
    assert figure_4_4.over_chance(tables[str(good)]) > 0
    assert list(reasons) == sources[1:]
    assert "missing.safetensors" in reasons[sources[1]]
    assert "net.w" in reasons[sources[2]]
