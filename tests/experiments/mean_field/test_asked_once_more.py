"""rclib.experiments.mean_field.asked_once_more and gains_as_vectors: against direct computation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from stored_runs import tiny, tiny_data

from rclib.data.images import load
from rclib.experiments.mean_field import asked_once_more as again
from rclib.experiments.mean_field import gains_as_vectors as gains
from rclib.experiments.mean_field import plots_once_more as plots
from rclib.experiments.mean_field.coordinates import coordinate_check
from rclib.experiments.mean_field.pretrained import TRAINED
from rclib.nets.init import Init
from rclib.nets.mlp import MLP
from rclib.rowcolumn.measure import chance_level
from rclib.training.classifier import train

UNIFORM = {"parametrization": "MF", "init": {"kind": "uniform"}}


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs once more"))


def test_slopes_along_the_steps() -> None:
    data = load("digits").subset(60, 30)
    frame = again.change_slopes(
        data, widths=[4, 16], seeds=[3, 1], steps=[1, 3], lr=0.1, batch_size=8
    )
    assert list(frame.columns) == ["step", "layer", "seed", "slope"]
    assert len(frame) == 2 * 2 * 3
    change = [
        coordinate_check(
            data, network={"width": n, **UNIFORM}, seed=1, optimizer="sgd", lr=0.1, steps=[1, 3],
            batch_size=8,
        )["change"][1, 2]
        for n in (4, 16)
    ]  # fmt: skip
    row = frame[(frame.seed == 1) & (frame.step == 3) & (frame.layer == 3)]
    assert float(row.slope.iloc[0]) == pytest.approx(np.log(change[1] / change[0]) / np.log(4))
    largest = again.largest_slopes(frame, 3)
    assert list(largest.index) == [3, 1]
    assert largest.index.name == "seed"
    assert largest[1] == frame[(frame.seed == 1) & (frame.step == 3)].slope.abs().max()
    with pytest.raises(ValueError, match=r"step must be one of \[1, 3\], got 2"):
        again.largest_slopes(frame, 2)


def test_networks_that_share_a_start_or_batches() -> None:
    data = tiny_data("mean_field.asked_once_more.trained_logits")
    config = tiny("mean_field.asked_once_more.trained_logits")
    model = MLP(64, 6, 10, parametrization="MF", seed=1)
    train(model, data, epochs=1, lr=0.1, batch_size=32, seed=2, progress=False)
    found = again.trained_logits(data, **config)
    with torch.no_grad():
        np.testing.assert_array_equal(found["logits"], model(data.x_test).numpy())
    assert found["test_loss"].shape == (2,)
    others = [{"start_seed": 2}, {"batch_seed": 1}]
    for other in others:
        logits = again.trained_logits(data, **{**config, **other})["logits"]
        assert not np.array_equal(found["logits"], logits)


def test_distances_by_kind() -> None:
    data = load("digits").subset(60, 30)
    options: dict[str, Any] = {"epochs": 1, "lr": 0.3, "batch_size": 20}
    trained_runs = again.trained_networks(
        data, source_widths=[4, 8], widest=12, seeds=[5, 7, 6], **options, **UNIFORM
    )
    frame = again.distances(trained_runs)
    assert frame.kind.value_counts().to_dict() == {
        again.SAME: 6, again.OTHER: 6, again.FLOOR_OFF: 6, again.FLOOR: 3, again.OTHER_FLOOR: 3,
    }  # fmt: skip
    assert set(frame[frame.kind.isin([again.FLOOR, again.OTHER_FLOOR])].width) == {12}

    def trained(width: int, start: int, batches: int) -> np.ndarray:
        model = MLP(64, width, 10, parametrization="MF", init=Init("uniform"), seed=start)
        train(model, data, **options, seed=batches, progress=False)
        with torch.no_grad():
            return model(data.x_test).double().numpy()

    f, a, b = trained(8, 62, 60), trained(12, 60, 60), trained(12, 61, 60)
    far, farther = trained(12, 50, 50), trained(12, 51, 50)  # 5 follows 6, the last one
    expected = {
        (again.SAME, 8): np.square(f - a).mean(),
        (again.OTHER, 8): np.square(f - far).mean(),
        # The same by its squares: <(f-a)(f-b)> = (|f-a|² + |f-b|² - |a-b|²) / 2.
        (again.FLOOR_OFF, 8): 0.5 * (np.square(f - a) + np.square(f - b) - np.square(a - b)).mean(),
        (again.FLOOR, 12): np.square(a - b).mean(),
        (again.OTHER_FLOOR, 12): np.square(a - farther).mean(),
    }
    of = frame[frame.seed == 6].set_index(["kind", "width"]).square
    for key, value in expected.items():
        assert of[key] == pytest.approx(value, rel=1e-6), key
    ratio = again.floor_ratio(frame)
    assert list(ratio.index) == [5, 7, 6]
    assert ratio[6] == pytest.approx(of[again.FLOOR, 12] / of[again.OTHER_FLOOR, 12])
    losses = again.end_losses(trained_runs)
    assert list(losses.columns) == ["width", "seed", "start", "end"]
    assert len(losses) == 3 * 4
    model = MLP(64, 8, 10, parametrization="MF", init=Init("uniform"), seed=62)
    with torch.no_grad():
        start = model(data.x_test)
    row = losses[(losses.seed == 6) & (losses.width == 8)].iloc[0]
    entropy = torch.nn.functional.cross_entropy
    assert row.start == pytest.approx(float(entropy(start, data.y_test)), rel=1e-5)
    assert row.end == pytest.approx(float(entropy(torch.from_numpy(f), data.y_test)), rel=1e-5)
    first = again.untrained_distances(
        data, source_widths=[4, 8], widest=12, seeds=[5, 7, 6], **UNIFORM
    )
    wide = MLP(64, 12, 10, parametrization="MF", init=Init("uniform"), seed=60)
    with torch.no_grad():
        apart = (start - wide(data.x_test)).double().square().mean()
    row = first[(first.seed == 6) & (first.width == 8)].iloc[0]
    assert row["kind"] == again.UNTRAINED
    assert row.square == pytest.approx(float(apart), rel=1e-6)
    with pytest.raises(ValueError, match="at least two seeds"):
        again.distances({key: run for key, run in trained_runs.items() if key[0] == 5})


def test_taking_the_floor_off_leaves_the_sources_own_error() -> None:
    """On numbers: a function plus noise of variance 1/N, the wide network's 1/100."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(5):
        wide = rng.normal(size=(2, 20_000)) / 10
        for width in (10, 40, 160):
            f = rng.normal(size=20_000) / np.sqrt(width)
            rows.append((again.SAME, width, seed, np.mean((f - wide[0]) ** 2)))
            rows.append((again.FLOOR_OFF, width, seed, np.mean((f - wide[0]) * (f - wide[1]))))
    frame = pd.DataFrame(rows, columns=["kind", "width", "seed", "square"])
    plain = again.exponents(frame, again.SAME)
    assert list(plain.index) == list(range(5))
    assert plain.index.name == "seed"
    law = [1 / n + 0.01 for n in (10, 40, 160)]
    assert plain.mean() == pytest.approx(
        np.polyfit(np.log([10, 40, 160]), np.log(law), 1)[0] / 2, abs=0.01
    )
    value, low, high = again.pooled(frame, again.FLOOR_OFF)
    assert value == pytest.approx(-0.5, abs=0.02)
    assert low < value < high
    with pytest.raises(ValueError, match="kind must be one of"):
        again.exponents(frame, again.OTHER)


@pytest.fixture
def smollm2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Llama of two blocks in SmolLM2's place; the two gains of block 0 agree, and in block 1 a
    gain is what an MLP matrix reads with."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=48, num_attention_heads=6, num_key_value_heads=2, intermediate_size=96,
        num_hidden_layers=2, vocab_size=60,
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight.copy_(torch.randn(48))
            layer.post_attention_layernorm.weight.copy_(torch.randn(48))
        first, second = model.model.layers
        first.post_attention_layernorm.weight.copy_(first.input_layernorm.weight + 0.1)
        first.post_attention_layernorm.weight[::2] *= 1.1
        second.mlp.up_proj.weight += 0.2 * second.post_attention_layernorm.weight
    folder = tmp_path / "smollm2"
    model.save_pretrained(folder)
    monkeypatch.setattr(
        "rclib.experiments.mean_field.pretrained.packaged_path", lambda name: folder
    )
    return model


def test_whose_the_largest_correlation_is(smollm2: Any) -> None:
    table = gains.gain_table("smollm2", [4, 2])
    stream = table[(table.set == "stream") & (table.state == TRAINED)]
    stream = stream.set_index(["pairs", "block"])
    assert "layernorm" in stream.loc[(gains.ANY, 0), "first"]
    assert "layernorm" in stream.loc[(gains.ANY, 0), "second"]
    of_gains = [
        layer.weight.detach().numpy()
        for layer in (
            smollm2.model.layers[0].input_layernorm,
            smollm2.model.layers[0].post_attention_layernorm,
        )
    ]
    assert stream.value[gains.ANY, 0] == pytest.approx(abs(np.corrcoef(*of_gains)[0, 1]), abs=1e-6)
    pair = {stream.loc[(gains.MATRIX, 1), "first"], stream.loc[(gains.MATRIX, 1), "second"]}
    assert pair == {"mlp.up_proj.R", "post_attention_layernorm.weight"}
    # Nine vectors, seven of them of matrices: 36 pairs, 35 without that of the gains, 21 of means.
    for pairs, count in ((gains.ANY, 36), (gains.MATRIX, 35), (gains.MEANS, 21)):
        assert stream.chance[pairs, 0] == chance_level(48, count)
    trained = gains.ratios(table, TRAINED, gains.ANY).set_index("block").ratio
    assert min(trained) > 1
    assert gains.shares_above(table, TRAINED, gains.ANY)[4] == 1.0
    assert gains.shares_above(table, TRAINED, gains.MATRIX)[4] == 0.5
    shuffled = gains.ratios(table, gains.MATRICES_PERMUTED, gains.ANY)
    assert set(shuffled.seed) == {4, 2}
    assert (shuffled[shuffled.block == 0].ratio == trained[0]).all()  # gains are as trained
    assert (shuffled[shuffled.block == 1].ratio < 1.2).all()
    nothing = gains.ratios(table, gains.ALL_PERMUTED, gains.ANY)
    assert nothing.ratio.max() < 1.3
    of_all = gains.shares_above(table, gains.ALL_PERMUTED, gains.ANY, stream=False)
    assert list(of_all.index) == [4, 2]
    assert of_all.max() < 0.4
    for found in (gains.ratios, gains.shares_above):
        with pytest.raises(ValueError, match="has no 'means alone' of 'matrices permuted'"):
            found(table, gains.MATRICES_PERMUTED, gains.MEANS)
    drawn = gains.all_ratios(table)
    assert list(drawn.kind.unique()) == [
        gains.MEANS, gains.ANY, gains.MATRIX, gains.MATRICES_PERMUTED,
    ]  # fmt: skip
    plots.gains_by_block(drawn).draw_without_rendering()


def test_figure_has_slopes_and_distances(tmp_path: Path) -> None:
    slopes = pd.DataFrame(
        [(t, layer, s, -0.5 / t + 0.01 * s) for t in (1, 10, 100) for layer in (1, 2, 3)
         for s in (0, 1)], columns=["step", "layer", "seed", "slope"],
    )  # fmt: skip
    rows = [
        (kind, n, s, (1 + 0.1 * s) / n)
        for kind in (again.SAME, again.OTHER, again.FLOOR_OFF)
        for n in (10, 20, 40)
        for s in (0, 1)
    ]
    rows += [(kind, 80, s, 0.01) for kind in (again.FLOOR, again.OTHER_FLOOR) for s in (0, 1)]
    squares = pd.DataFrame(rows, columns=["kind", "width", "seed", "square"])
    squares.loc[squares.width == 40, "square"] = -0.001  # a floor taken off may be below zero
    floors = {again.FLOOR: "two of 80, same", again.OTHER_FLOOR: "two of 80, other"}
    figure = plots.slopes_and_distances(slopes, squares, most=0.1, asked=100, floors=floors)
    left, right = figure.axes
    assert [panel.get_title(loc="left") for panel in (left, right)] == ["(a)", "(b)"]
    assert [line.get_label() for line in left.lines[:3]] == ["layer 1", "layer 2", "layer 3"]
    legend = right.get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [again.SAME, again.OTHER, again.FLOOR_OFF]
    figure.savefig(tmp_path / "figure.png")
