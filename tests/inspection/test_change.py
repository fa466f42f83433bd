"""rclib.inspection.change: the difference of two checkpoints as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rclib.checkpoints.opening import CheckpointError, open_checkpoint
from rclib.inspection import matrix_spectra as spectra_of
from rclib.inspection.change import Change
from rclib.inspection.matrix_spectra import matrix_spectra


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def change(after: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> Change:
    return Change(open_checkpoint(after), open_checkpoint(before), owns=True)


def test_entries_and_spectra_are_those_of_the_difference() -> None:
    before = {"a.weight": noise(30, 20), "qkv.in_proj_weight": noise(48, 16, seed=1)}
    moved = {name: t + 0.1 * noise(*t.shape, seed=5) for name, t in before.items()}
    after = {f"module.{name}": t for name, t in moved.items()}  # a wrapper was put around it
    with change(after, before) as found:
        assert list(found.tensors) == list(after)
        for name, tensor in before.items():
            expected = (moved[name].double() - tensor.double()).float()
            torch.testing.assert_close(found.tensor(f"module.{name}"), expected, rtol=0, atol=0)
        spectra = {s.matrix: s for s in matrix_spectra(found)}
    assert [m.rpartition(".")[2] for m in spectra] == ["a", "q", "k", "v"]
    a = (moved["a.weight"].double() - before["a.weight"].double()).numpy()
    values = np.linalg.svd(a, compute_uv=False)[::-1] ** 2
    (row,) = [s for s in spectra.values() if (s.outputs, s.inputs) == (30, 20)]
    np.testing.assert_allclose(row.eigenvalues, values, rtol=1e-7)
    with pytest.raises(CheckpointError, match="closed"):
        found.after.info("module.a.weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_of_the_weights_is_no_rank_of_their_change(dtype: torch.dtype) -> None:
    """A merged adapter of rank 3: W and W + UV are rounded, and so is what lies between them."""
    w, u, v = noise(60, 50), noise(60, 3, seed=1), noise(3, 50, seed=2)
    before = {"w": w.to(dtype)}
    after = {"w": (before["w"].double() + u.double() @ v.double()).to(dtype)}
    with change(after, before) as found:
        (row,) = matrix_spectra(found)
    assert row.rank == 3
    assert "rank 3 of 50" in row.note
    # A full change of the same size has full rank, and keeps it.
    full = {"w": (before["w"].double() + 0.5 * noise(60, 50, seed=3).double()).to(dtype)}
    with change(full, before) as found:
        (row,) = matrix_spectra(found)
    assert row.rank == 50


def test_a_small_step_of_float32_from_exact_bfloat16_counts() -> None:
    before = {"w": noise(60, 50).bfloat16()}
    step = 1e-4 * noise(60, 50, seed=1)
    with change({"w": before["w"].float() + step}, before) as found:
        (row,) = matrix_spectra(found)
    assert row.rank == 50
    assert row.largest == pytest.approx(float(torch.linalg.matrix_norm(step, 2)) ** 2, rel=0.01)


def test_no_change_has_no_numbers() -> None:
    state = {"w": noise(30, 20)}
    with change(dict(state), dict(state)) as found:
        (row,) = matrix_spectra(found)
    assert (row.rank, row.alpha_hill, row.spikes, row.stable_rank) == (0, None, None, 0.0)


def test_tall_changes_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"wte.weight": noise(90, 20)}
    after = {"wte.weight": before["wte.weight"] + noise(90, 20, seed=1)}
    with change(after, before) as found:
        (whole,) = matrix_spectra(found)
        monkeypatch.setattr(spectra_of, "WHOLE", 100)
        (chunked,) = matrix_spectra(found)
    np.testing.assert_allclose(chunked.eigenvalues, whole.eigenvalues, rtol=1e-5)
    assert chunked.rank == whole.rank == 20


def test_what_the_two_do_not_share_is_named() -> None:
    before = {"a": noise(12, 10), "b": noise(12, 10), "old": noise(3, 3)}
    after = {"a": noise(12, 10), "b": noise(14, 10), "new": noise(4, 4)}
    with change(after, before) as found:
        assert list(found.tensors) == ["a"]
        assert "has shape (12, 10) in state dict" in found.left_out["b"]
        assert "is not in state dict" in found.left_out["new"]
    with pytest.raises(CheckpointError, match="share no tensor of one name and shape"):
        change({"x": noise(3, 3)}, before)
