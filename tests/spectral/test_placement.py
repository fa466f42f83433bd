"""Where an update is: by loops, by closed forms, by chance."""

from __future__ import annotations

import pytest
import torch

from rclib.spectral.placement import (
    block_energy,
    diagonal_energy,
    directions,
    mean_energies,
    place_distance,
    row_energy,
    spike_count,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (8, 8)])
def test_directions_are_complete_and_rebuild_the_matrix(shape: tuple[int, int]) -> None:
    weight = drawn(*shape)
    base = directions(weight)
    for side in (base.left, base.right):
        assert torch.allclose(side.T @ side, torch.eye(len(side), dtype=torch.float64), atol=1e-10)
    core = base.left.T @ weight @ base.right
    assert torch.allclose(torch.diagonal(core), base.values)
    core.diagonal().zero_()
    assert float(core.abs().max()) < 1e-10


def test_blocks_by_loops_and_sum_to_one() -> None:
    weight, update = drawn(8, 12), drawn(8, 12, seed=1)
    base = directions(weight)
    found = block_energy(update, base, 4)
    total = float(update.square().sum())
    for a in range(4):
        for b in range(4):
            energy = sum(
                float(base.left[:, j] @ update @ base.right[:, k]) ** 2
                for j in range(2 * a, 2 * a + 2)
                for k in range(3 * b, 3 * b + 3)
            )
            assert float(found[a, b]) == pytest.approx(energy / total)
    assert float(found.sum()) == pytest.approx(1.0)
    assert float(block_energy(weight, base, 4).diagonal()[0]) < 1
    assert diagonal_energy(weight, base) == pytest.approx(1.0)


def test_independent_entries_are_everywhere() -> None:
    weight = drawn(64, 96)
    base = directions(weight)
    draws = [drawn(64, 96, seed=s) for s in range(1, 21)]
    mean = torch.stack([block_energy(d, base, 4) for d in draws]).mean(0)
    assert torch.allclose(mean, torch.full((4, 4), 1 / 16, dtype=torch.float64), rtol=0.06)
    diagonal = sum(diagonal_energy(d, base) for d in draws) / 20
    assert diagonal == pytest.approx(64 / (64 * 96), rel=0.2)
    rows, columns = (sum(m[k] for m in map(mean_energies, draws)) / 20 for k in (0, 1))
    assert rows == pytest.approx(1 / 96, rel=0.2)
    assert columns == pytest.approx(1 / 64, rel=0.2)
    assert sum(map(spike_count, draws)) / 20 < 1


def test_means_rows_and_spikes_that_are_known() -> None:
    rows = drawn(6, 1).expand(6, 10)
    assert mean_energies(rows)[0] == pytest.approx(1.0)
    assert mean_energies(rows.T)[1] == pytest.approx(1.0)
    basis = torch.linalg.qr(drawn(10, 4, seed=2))[0]
    assert row_energy(drawn(6, 4, seed=3) @ basis.T, basis) == pytest.approx(1.0)
    assert row_energy(torch.ones(1, 10), torch.eye(10)[:, :3]) == pytest.approx(0.3)
    left, right = (torch.linalg.qr(drawn(n, 3, seed=n))[0] for n in (40, 60))
    assert spike_count(left @ right.T) == 3


def test_distances() -> None:
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert place_distance(one, other) == 1.0
    assert place_distance(one, one) == 0.0
    assert place_distance(one, (one + other) / 2) == 0.5


def test_what_is_refused() -> None:
    base = directions(drawn(8, 12))
    with pytest.raises(ValueError, match="must not be zero"):
        block_energy(torch.zeros(8, 12), base, 4)
    with pytest.raises(ValueError, match="blocks must divide"):
        block_energy(drawn(8, 12), base, 3)
    with pytest.raises(ValueError, match="update must have shape"):
        diagonal_energy(drawn(12, 8), base)
    with pytest.raises(ValueError, match="weight must be a floating matrix"):
        directions(torch.ones(3))
    with pytest.raises(ValueError, match="finite"):
        directions(torch.full((2, 2), float("nan")))
    with pytest.raises(ValueError, match="one shape"):
        place_distance(torch.ones(2, 2), torch.ones(2, 3))
