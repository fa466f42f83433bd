"""rclib.inspection.matrix_spectra: every matrix of a checkpoint against numpy's singular values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rclib.checkpoints.opening import CheckpointError, open_checkpoint
from rclib.families.layout import Layout, layout
from rclib.inspection import matrix_spectra as spectra_of
from rclib.inspection.matrix_spectra import matrix_spectra
from rclib.inspection.side_by_side import limited
from rclib.inspection.spectrum import MatrixSpectrum, esd_histogram, spectra_table
from rclib.nets.gpt import GPT
from rclib.spectral.power_law import power_law
from rclib.spectral.spectra import stable_rank


def neox_state(seed: int = 0) -> tuple[dict[str, Tensor], Layout]:
    """One block of GPT-NeoX: 4 heads of 5 entries, fused inside every head."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "embed_in.weight": (60, 20), "layers.0.input_layernorm.weight": (20,),
        "layers.0.attention.query_key_value.weight": (60, 20),
        "layers.0.attention.query_key_value.bias": (60,),
        "layers.0.attention.dense.weight": (20, 20), "layers.0.mlp.dense_h_to_4h.weight": (80, 20),
    }  # fmt: skip
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return state, layout(state, {"model_type": "gpt_neox", "num_attention_heads": 4})


def measured(state: dict[str, Tensor], described: Layout) -> dict[str, MatrixSpectrum]:
    with open_checkpoint(state) as checkpoint:
        return {s.matrix: s for s in matrix_spectra(checkpoint, described)}


def test_every_matrix_and_part_by_singular_values() -> None:
    state, described = neox_state()
    found = measured(state, described)
    fused = state["layers.0.attention.query_key_value.weight"].view(4, 3, 5, 20)
    wanted = {
        "attention.query_key_value.q": fused[:, 0].reshape(20, 20),
        "attention.query_key_value.k": fused[:, 1].reshape(20, 20),
        "attention.query_key_value.v": fused[:, 2].reshape(20, 20),
        "attention.dense": state["layers.0.attention.dense.weight"],
        "mlp.dense_h_to_4h": state["layers.0.mlp.dense_h_to_4h.weight"],
        "embed_in": state["embed_in.weight"],  # outside the blocks: last
    }  # fmt: skip
    assert list(found) == list(wanted)  # no vectors, no biases
    for name, matrix in wanted.items():
        row = found[name]
        values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)[::-1] ** 2
        np.testing.assert_allclose(row.eigenvalues, values, rtol=1e-7)
        assert (row.outputs, row.inputs) == tuple(matrix.shape)
        assert row.alpha_hill == pytest.approx(power_law(values, "hill").alpha, rel=1e-6)
        ks = power_law(values, "ks")
        assert (row.alpha_ks, row.tail) == (pytest.approx(ks.alpha, rel=1e-6), ks.tail)
        half = 1.959964 * (ks.alpha - 1) / ks.tail**0.5
        assert row.alpha_ks_low == pytest.approx(ks.alpha - half, rel=1e-5)
        assert row.alpha_ks_high == pytest.approx(ks.alpha + half, rel=1e-5)
        hill = power_law(values, "hill")
        assert row.alpha_hill_high == pytest.approx(
            hill.alpha + 1.959964 * (hill.alpha - 1) / hill.tail**0.5, rel=1e-5
        )
        assert row.stable_rank == pytest.approx(stable_rank(values), rel=1e-6)
        assert row.largest == pytest.approx(values[-1], rel=1e-6)
    assert found["embed_in"].block is None
    assert found["attention.dense"].block == 0
    table = spectra_table(found.values())
    assert list(table.matrix) == list(wanted)
    assert table.block.isna().sum() == 1
    assert list(table["shape"])[:2] == ["20 x 20", "20 x 20"]
    parts = [s.layer for s in found.values()]
    assert parts[0] == "layers.0.attention.query_key_value.weight:q"
    assert parts[3] == "layers.0.attention.dense.weight"


def test_matrices_stored_inputs_first_and_with_three_axes() -> None:
    gpt2 = {"h.0.mlp.c_fc.weight": torch.randn(12, 30)}
    found = measured(gpt2, layout(gpt2, {"model_type": "gpt2"}))
    assert (found["mlp.c_fc"].outputs, found["mlp.c_fc"].inputs) == (30, 12)
    model = GPT(24, blocks=1, context=8, vocabulary=30, head_size=4, parametrization="SP")
    state = dict(model.state_dict())
    own = measured(state, layout(state))
    for name, matrix in model.matrices().items():
        values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)[::-1] ** 2
        row = own[name.removeprefix("blocks.0.")]
        assert (row.outputs, row.inputs) == tuple(matrix.shape)
        np.testing.assert_allclose(row.eigenvalues, values, rtol=1e-6, atol=1e-12)
    assert len(own) == len(model.matrices())


def test_tall_matrices_by_chunks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    state, described = neox_state()
    whole = measured(state, described)
    monkeypatch.setattr(spectra_of, "WHOLE", 100)
    chunked = measured(state, described)
    for name in ("embed_in", "mlp.dense_h_to_4h"):  # 60 x 20 and 80 x 20, 20 rows a chunk
        np.testing.assert_allclose(chunked[name].eigenvalues, whole[name].eigenvalues, rtol=1e-7)
        assert chunked[name].spikes == whole[name].spikes
        assert chunked[name].outputs == whole[name].outputs
    state["embed_in.weight"][59, 3] = float("inf")
    with pytest.raises(CheckpointError, match=r"'embed_in\.weight' holds NaN or infinity"):
        measured(state, described)


def test_planted_spikes_are_counted_and_noise_has_none() -> None:
    generator = torch.Generator().manual_seed(2)
    w = 0.02 * torch.randn(300, 200, generator=generator)
    noise = {"h.0.mlp.c_fc.weight": w}
    u = torch.linalg.qr(torch.randn(300, 2, generator=generator)).Q
    v = torch.linalg.qr(torch.randn(200, 2, generator=generator)).Q
    spiked = {"h.0.mlp.c_fc.weight": w + u @ torch.diag(torch.tensor([3.0, 2.0])) @ v.T}
    described = layout(noise, {"model_type": "gpt2"})
    assert measured(noise, described)["mlp.c_fc"].spikes == 0
    row = measured(spiked, described)["mlp.c_fc"]
    assert row.spikes == 2
    assert row.variance == pytest.approx(0.02**2, rel=0.03)
    assert row.edge == pytest.approx(0.02**2 * (300**0.5 + 200**0.5) ** 2, rel=0.03)
    bins = esd_histogram(row, bins=40)
    steps = bins.right - bins.left
    assert float((bins.density * steps).sum()) == pytest.approx(1.0)
    assert float((bins.law * steps).sum()) == pytest.approx(1.0, abs=0.02)
    inside = bins[bins.law > 0]
    assert np.abs((inside.density - inside.law) * (inside.right - inside.left)).sum() < 0.3


def test_matrices_without_an_exponent() -> None:
    state = {
        "h.0.mlp.c_fc.weight": torch.zeros(20, 30), "h.1.mlp.c_fc.weight": torch.randn(5, 30),
        "h.2.mlp.c_fc.weight": torch.eye(20), "h.3.mlp.c_fc.weight": torch.randn(1, 30),
    }  # fmt: skip
    rows: dict[str, Any] = {}
    for name, tensor in state.items():
        alone = {name: tensor}
        rows[name[2]] = measured(alone, layout(alone, {"model_type": "gpt2"})).get("mlp.c_fc")
    assert rows["3"] is None  # a single row is a vector
    assert (rows["0"].alpha_ks, rows["0"].spikes, rows["0"].stable_rank) == (None, None, 0.0)
    assert (rows["1"].spikes, rows["1"].over_edge, rows["1"].verdict) == (None, None, None)
    assert "no spikes: too few" in rows["1"].note
    assert esd_histogram(rows["1"]).law.isna().all()
    assert esd_histogram(rows["0"]).empty
    assert rows["1"].alpha_hill is None
    assert rows["1"].stable_rank > 1
    assert rows["2"].alpha_hill is None
    assert len(esd_histogram(rows["2"])) == 100


def test_weights_without_a_spectrum() -> None:
    state, described = neox_state()
    state["layers.0.attention.dense.weight"][0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"'layers\.0\.attention\.dense\.weight': W must be"):
        measured(state, described)
    state["layers.0.attention.dense.weight"] = torch.ones(20, 20, dtype=torch.int64)
    with open_checkpoint(state) as checkpoint:
        assert list(checkpoint.left_out) == ["layers.0.attention.dense.weight"]
    with pytest.raises(ValueError, match=r"no block 7, it has \[0\]"):
        list(matrix_spectra(open_checkpoint(state), described, blocks=[0, 7]))


def test_rows_come_block_by_block_whatever_the_file_does() -> None:
    """Files sort names (0, 1, 10, 2), and shards put any block first."""
    order = [10, 2, 0, 11, 1]
    state = {"head.weight": torch.randn(12, 11)}
    state |= {f"layers.{b}.fc.weight": torch.randn(12, 11) for b in order}
    with open_checkpoint(state) as checkpoint:
        found = [s.block for s in matrix_spectra(checkpoint)]
    assert found == [0, 1, 2, 10, 11, None]


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    generator = torch.Generator().manual_seed(4)
    state = {
        f"layers.{b}.fc.weight": torch.randn(60 + 7 * b, 50, generator=generator) for b in range(9)
    }
    state["layers.4.fc.weight"][0, 0] = float("nan")
    tables, failed = [], []
    with open_checkpoint(state) as checkpoint, limited(1):
        for workers in (1, 4):
            left: list[str] = []
            spectra = matrix_spectra(
                checkpoint, workers=workers, failed=lambda name, _, left=left: left.append(name)
            )
            tables.append(spectra_table(spectra))
            failed.append(left)
    assert tables[0].equals(tables[1])
    assert failed == [["layers.4.fc.weight"]] * 2
    assert list(tables[0].block) == [0, 1, 2, 3, 5, 6, 7, 8]
    with pytest.raises(CheckpointError, match=r"layers\.4"), open_checkpoint(state) as checkpoint:
        list(matrix_spectra(checkpoint, workers=2))
