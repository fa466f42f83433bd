"""rclib.inspection.matrix_correlations against numpy, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from rclib.checkpoints.opening import open_checkpoint
from rclib.families.layout import layout
from rclib.inspection.block_correlations import block_correlations
from rclib.inspection.matrix_correlations import matrix_correlations
from rclib.rowcolumn.measure import chance_level


def test_every_matrix_by_its_own_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    n, heads, hidden = 24, 4, 36
    shapes = {
        "attn.c_attn": (n, 3 * n), "attn.c_proj": (n, n), "mlp.c_fc": (n, hidden),
        "mlp.c_proj": (hidden, n),
    }  # fmt: skip
    state = {
        f"h.0.{name}.weight": torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    # Stored inputs first: rows of c_proj read the hidden neurons that columns of c_fc write.
    state["h.0.mlp.c_proj.weight"] += 2 * state["h.0.mlp.c_fc.weight"].mean(0)[:, None]
    described = layout(state, {"model_type": "gpt2", "n_head": heads})
    with open_checkpoint(state) as checkpoint:
        blocks = block_correlations(checkpoint, described)
    found = matrix_correlations(blocks, described)
    assert set(found) == {
        *(f"h.0.attn.c_attn.weight:{part}" for part in "qkv"),
        *(f"h.0.{name}.weight" for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")),
    }
    w = {name: state[f"h.0.{name}.weight"].double().numpy() for name in shapes}
    row = found["h.0.mlp.c_fc.weight"]
    assert (row.set, row.n) == ("MLP hidden", hidden)
    assert {row.first, row.second} == {"mlp.c_fc.C", "mlp.c_proj.R"}
    r, p = stats.pearsonr(w["mlp.c_fc"].mean(0), w["mlp.c_proj"].mean(1))
    assert row.correlation == pytest.approx(r, abs=1e-6)
    # Its row means pair with c_proj's in the hidden set; its column means with five in the stream.
    assert row.pairs == 1 + 5
    assert row.p_value == pytest.approx(1 - (1 - p) ** 6, rel=1e-4)
    assert row.chance == pytest.approx(chance_level(hidden, 6))
    assert row.expected < row.chance
    q = found["h.0.attn.c_attn.weight:q"]
    assert "attn.c_attn.q." in q.first + q.second


def test_noise_gives_p_values_that_are_spread_evenly() -> None:
    found = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        state = {
            f"h.0.mlp.{name}.weight": torch.randn(shape, generator=generator)
            for name, shape in (("c_fc", (20, 48)), ("c_proj", (48, 20)))
        }
        described = layout(state, {"model_type": "gpt2"})
        with open_checkpoint(state) as checkpoint:
            rows = matrix_correlations(block_correlations(checkpoint, described), described)
        found.append(rows["h.0.mlp.c_fc.weight"].p_value)
    assert stats.kstest(found, "uniform").pvalue > 0.001
    assert np.mean(np.array(found) < 0.05) < 0.25
