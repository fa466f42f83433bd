"""Figure 4.4 on pretrained models: on small ones of the same kinds, put where the packages lie."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from matplotlib import pyplot as plt

from rclib.checkpoints.opening import open_checkpoint
from rclib.data.packaged_models import PACKAGED
from rclib.experiments.mean_field import plots_pretrained, pretrained, pretrained_growth
from rclib.families.layout import layout

N = 32


@pytest.fixture
def minilm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A BERT of two blocks; in block 1 a column mean of the MLP's first matrix is written back."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=N, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48,
        vocab_size=50, max_position_embeddings=16,
    )  # fmt: skip
    model: Any = transformers.BertModel(config)
    layer = model.encoder.layer[1]
    variable = torch.randn(N)
    with torch.no_grad():
        layer.intermediate.dense.weight += 0.1 * variable
        layer.output.dense.weight -= 0.1 * variable[:, None]
    folder = tmp_path / PACKAGED["minilm"].module
    folder.mkdir()
    (folder / "__init__.py").touch()
    model.save_pretrained(folder / "model")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    return model


def test_what_is_installed(minilm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del minilm
    here = sys.path[0]
    monkeypatch.setattr(sys, "path", [here])
    there, reasons = pretrained.installed(["smollm2", "minilm"])
    assert there == ["minilm"]
    assert "make models" in reasons["smollm2"]


def test_states(minilm: Any) -> None:
    with pretrained.opened("minilm") as (checkpoint, described):
        trained, permuted, fresh = (
            pretrained.state_of(checkpoint, described, state) for state in pretrained.STATES
        )
        assert trained.keys() == permuted.keys() == fresh.keys()
        assert not any("embeddings" in name or "pooler" in name for name in trained)
        for name, tensor in trained.items():
            assert torch.equal(tensor, minilm.state_dict()[name])
            if tensor.ndim == 1:
                assert torch.equal(tensor, permuted[name])
                assert torch.equal(tensor, fresh[name])
                continue
            assert not torch.equal(tensor, permuted[name])
            assert torch.equal(tensor.flatten().sort()[0], permuted[name].flatten().sort()[0])
            assert fresh[name].std() == pytest.approx(1.0, abs=0.15)
        with pytest.raises(ValueError, match="state must be one of trained"):
            pretrained.state_of(checkpoint, described, "random")


def test_tables_find_the_planted_structure_and_the_controls_lose_it(minilm: Any) -> None:
    table = pretrained.correlation_table(["minilm"], [0, 1, 2])
    ratios = pretrained.stream_ratios(table, "minilm")
    assert ratios[1] > 1.5 > ratios[0]
    w = {n: t.double().numpy() for n, t in minilm.state_dict().items() if ".1." in n}
    up = w["encoder.layer.1.intermediate.dense.weight"].mean(0)
    down = w["encoder.layer.1.output.dense.weight"].mean(1)
    row = table[(table.state == "trained") & (table.set == "stream") & (table.block == 1)].iloc[0]
    assert row.value == pytest.approx(abs(np.corrcoef(up, down)[0, 1]), abs=1e-6)
    assert {row["first"], row["second"]} == {"intermediate.dense.R", "output.dense.C"}
    for state in (pretrained.PERMUTED, pretrained.FRESH):
        assert max(pretrained.stream_ratios(table, "minilm", state)) < 1.4
        shares = pretrained.shares_above(table, state)
        assert list(shares.index) == [0, 1, 2]
        assert shares.mean() < 0.2
    controls = pretrained.control_table(["minilm"], [0, 1, 2])
    of_seeds = table[table.state.isin(controls.state)].reset_index(drop=True)
    pd.testing.assert_frame_equal(controls, of_seeds)
    with pytest.raises(ValueError, match="has no blocks of 'smollm2'"):
        pretrained.stream_ratios(table, "smollm2")
    kept = pretrained.over_seeds(table).set_index(["state", "block", "set"])
    assert len(kept) == len(table.groupby(["state", "block", "set"]))
    of = table[(table.state == "own initialisation") & (table.block == 1) & (table.set == "heads")]
    one = kept.loc["own initialisation", 1, "heads"]
    assert (one.value, one.low, one.high) == (of.value.median(), of.value.min(), of.value.max())
    assert one.low < one.value < one.high
    assert one.chance == of.chance.iloc[0]

    structure = pretrained.structure_table(["minilm"], seed=0)
    assert len(structure) == 3 * 2 * 6
    own = structure[(structure.block == 1) & (structure.matrix == "intermediate.dense")]
    by_state = own.set_index("state").share_over_chance
    assert by_state["trained"] > 3 > max(by_state[s] for s in pretrained.STATES[1:])
    for figure in (
        plots_pretrained.correlations_by_block(table, sets=["stream", "heads"]),
        plots_pretrained.structure_by_block(structure, rows={"share_over_chance": "share"}),
    ):
        figure.draw_without_rendering()
        plt.close(figure)


class Tokens:
    """A text whose held-out part is given."""

    def __init__(self, text: str) -> None:
        self.name = "given"
        self.validation = torch.tensor(list(text.encode()), dtype=torch.uint8)


def test_losses_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small Llama in SmolLM2's place: duplication keeps the loss, RC sampling does not."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=24, num_attention_heads=6, num_key_value_heads=2, intermediate_size=36,
        num_hidden_layers=2, vocab_size=60, tie_word_embeddings=True,
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "m")

    @contextmanager
    def opened(name: str) -> Iterator[Any]:
        with open_checkpoint(str(tmp_path / "m")) as checkpoint:
            yield checkpoint, layout(checkpoint.tensors, checkpoint.config)

    tokens = torch.randint(60, (3, 20), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(pretrained_growth, "opened", opened)
    monkeypatch.setattr(pretrained_growth, "token_windows", lambda *_, **__: tokens)
    settings = [
        {"how": "same", "method": "duplication", "seed": 0, "width": 36},
        *({"how": "rc", "method": "rc", "seed": s, "width": 36} for s in (4, 5)),
    ]
    data: Any = Tokens("")
    table = pretrained_growth.perplexity_table(data, settings, windows=3, context=20)
    with torch.no_grad():
        wanted = [float(model(w[None], labels=w[None]).loss) for w in tokens]
    assert table.loss[0] == pytest.approx(np.mean(wanted), abs=1e-5)
    assert table.perplexity[0] == pytest.approx(np.exp(np.mean(wanted)), rel=1e-5)
    assert list(table.width) == [24, 36, 36, 36]
    assert abs(pretrained_growth.differences(table, "same")[0]) < 1e-5
    rc = pretrained_growth.differences(table, "rc")
    assert list(rc.index) == [4, 5]
    assert min(abs(rc)) > 1e-3
    with pytest.raises(ValueError, match="the table has no row 'x'"):
        pretrained_growth.differences(table, "x")
    figure = plots_pretrained.perplexities(table[1:], levels={"before": 60.0})
    figure.draw_without_rendering()
    plt.close(figure)


def test_settings_are_sizes_that_fit() -> None:
    settings = pretrained_growth.resize_settings([7, 8])
    frame = pd.DataFrame(settings)
    assert frame.groupby("how").seed.count().to_dict() == {
        how: 1 if how.endswith("duplication") else 2 for how, _, _ in pretrained_growth.SETTINGS
    }
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.slow
def test_windows_of_the_real_tokenizer() -> None:
    there, reasons = pretrained.installed(["smollm2"])
    if not there:
        pytest.skip(reasons["smollm2"])
    text = "The weights of a network are sampled from one measure over its neurons. " * 30
    data: Any = Tokens(text)
    found = pretrained_growth.token_windows(data, windows=3, context=40)
    assert tuple(found.shape) == (3, 40)
    assert len(set(found.flatten().tolist())) > 10
    with pytest.raises(ValueError, match=r"'given' has \d+ tokens, 40000 are needed"):
        pretrained_growth.token_windows(data, windows=400, context=100)
