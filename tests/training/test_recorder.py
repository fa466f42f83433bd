"""training.recorder: which steps, what is kept of them and as what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rclib.training.recorder import Losses, Recorder, chosen_steps


def test_steps_are_sorted_and_taken_once() -> None:
    assert chosen_steps("at", [5, 0, np.int64(3), 5], 5) == [0, 3, 5]
    assert chosen_steps("at", range(3), 7) == [0, 1, 2]
    assert chosen_steps("at", [], 7) == []
    assert chosen_steps("at", iter([2, 1]), 2) == [1, 2]  # what can be read once alone


@pytest.mark.parametrize("wrong", [-1, 6, 2.5, True])
def test_steps_outside_of_the_run_are_named(wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"at must hold steps from 0 to 5, got {wrong!r}"):
        chosen_steps("at", [1, wrong], 5)  # type: ignore[list-item]


def test_losses_are_looked_at_from_where_the_last_look_ended() -> None:
    losses = Losses(10, 20)
    assert losses.values.tolist() == [0.0] * 10
    losses.values[:4] = torch.tensor([1.0, 2.0, 3.0, math.inf])
    assert losses.bad(13) is None
    assert losses.looked == 13
    assert losses.bad(20) == (13, math.inf)
    assert losses.looked == 13  # seen again by the next look
    losses.values[3] = 4.0
    losses.values[1] = math.nan  # before the last look: not looked at again
    assert losses.bad(14) is None
    assert losses.until(14).tolist()[2:] == [3.0, 4.0]


def test_losses_of_members() -> None:
    losses = Losses(0, 3, members=(2,), fill=math.nan, dtype=torch.float64)
    assert (losses.values.shape, losses.values.dtype) == ((3, 2), torch.float64)
    losses.values[:2] = 1.0
    assert losses.bad(2) is None
    losses.values[2] = torch.tensor([1.0, -math.inf])
    assert losses.bad(3) == (2, -math.inf)


def test_values_are_kept_at_the_steps_of_their_name() -> None:
    kept = Recorder({"means": [7, 0, 7], "snapshots": ()})
    assert kept.steps("means") == [0, 7]
    assert [t for t in range(9) if kept.due("means", t)] == [0, 7]
    assert not any(kept.due("snapshots", t) for t in range(9))
    kept.keep("means", 7, {"W1": 3.0})
    assert kept.values == {"means": {7: {"W1": 3.0}}, "snapshots": {}}
    with pytest.raises(KeyError, match="losses"):
        kept.due("losses", 0)


def test_rows_never_written_are_nan_or_zero() -> None:
    kept = Recorder({"state": [0, 2, 5]})
    kept.reserve("state", "alpha", (), np.float64)
    kept.reserve("state", "weights", (2,), np.dtype(np.float32))
    kept.reserve("state", "counts", (2,), np.int64)
    assert list(kept.arrays) == ["alpha", "weights", "counts"]
    row = np.array([3, 4])
    kept.write("state", 2, "counts", row)
    kept.write("state", 2, "alpha", 1.5)
    row[:] = 9  # a copy was taken
    assert kept.arrays["counts"].tolist() == [[0, 0], [3, 4], [0, 0]]
    np.testing.assert_array_equal(kept.arrays["alpha"], [np.nan, 1.5, np.nan])
    assert kept.arrays["weights"].dtype == np.float32
    assert np.isnan(kept.arrays["weights"]).all()
    with pytest.raises(KeyError, match="3"):
        kept.write("state", 3, "alpha", 1.0)


def test_a_first_tensor_says_what_the_rows_are() -> None:
    kept = Recorder({"w": [4, 1]})
    value = torch.tensor([1.0, 2.0], dtype=torch.float64)
    kept.write("w", 4, "w", value)
    kept.write("w", 1, "place", torch.tensor([5]))
    value.zero_()  # a copy was taken
    assert kept.arrays["w"].dtype == torch.float64
    assert kept.arrays["w"][1].tolist() == [1.0, 2.0]
    assert bool(kept.arrays["w"][0].isnan().all())
    assert kept.arrays["place"].tolist() == [[5], [0]]
