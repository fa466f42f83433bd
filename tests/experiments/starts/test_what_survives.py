"""Notebook 57's starts and its three numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset, load
from rclib.experiments.starts import survives_runs as stored
from rclib.experiments.starts import what_survives as experiment
from rclib.experiments.starts.mixtures import forward_plain, scratch

SIZES = (64, 12, 10)
OPTIONS = {
    "pool": 1, "n": 60, "width": 12, "rank": 2, "batch_size": 20, "rate": 1e-3, "before": 4,
    "steps": 6, "moments": [0, 3, 6],
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits").subset(300, 60)


@pytest.fixture(scope="module")
def task(data: Dataset) -> stored._Task:
    halves = torch.arange(120).view(1, 120)
    return stored._Task(
        data.x_train.float(), data.y_train, (7,), halves[:, :60], halves[:, 60:], 20, 1e-3
    )


def test_starts_differ_in_the_middle_matrix_alone(task: stored._Task) -> None:
    states = stored._before_training(task, SIZES, 2)
    plain = states["plain"][0]
    for name in ("heavy", "uniform", "orthogonal", "large", "small", "rank", "aligned"):
        state = states[name][0]
        assert not torch.equal(state["W2"], plain["W2"])
        assert all(torch.equal(state[n], plain[n]) for n in plain if n != "W2")
    norm = float(plain["W2"].norm())
    for name in ("orthogonal", "rank", "aligned"):
        assert float(states[name][0]["W2"].norm()) == pytest.approx(norm, rel=1e-5)
    for name in ("rank", "aligned"):
        assert int(torch.linalg.matrix_rank(states[name][0]["W2"], rtol=1e-4)) == 2
    q = states["orthogonal"][0]["W2"]
    torch.testing.assert_close(q @ q.T, torch.eye(12) * norm**2 / 12, rtol=1e-4, atol=1e-4)


def test_xavier_has_its_variances() -> None:
    """Over many seeds; 2 / (fan-in + fan-out) in every matrix."""
    x = torch.zeros(4, 64)
    seeds = tuple(range(60))
    rows = torch.arange(4).repeat(60, 1)
    task = stored._Task(x, torch.zeros(4, dtype=torch.long), seeds, rows, rows, 2, 1e-3)
    states = stored._before_training(task, SIZES, 1)["Xavier"]
    for name, fans in (("W1", 64 + 12), ("W2", 12 + 12), ("W3", 12 + 10)):
        drawn = torch.stack([state[name] for state in states])
        count = drawn.numel()
        assert float(drawn.var()) * fans / 2 == pytest.approx(1.0, abs=5 * (2 / count) ** 0.5)


def test_the_aligned_start_goes_down(task: stored._Task) -> None:
    """Its directions are those of the gradient: a small step along them lowers the loss by the
    part of the gradient that they hold."""
    state = scratch(SIZES, norm=False, seed=7)
    x, y = task.x[task.after[0]], task.y[task.after[0]]
    step = 1e-3
    aligned = stored._before_training(task, SIZES, 2)["aligned"][0]["W2"].double()
    exact = {name: tensor.double() for name, tensor in state.items()}
    direction = aligned / aligned.norm()
    losses = [
        float(
            cross_entropy(
                forward_plain({**exact, "W2": exact["W2"] + t * direction}, x.double()), y
            )
        )
        for t in (-step, step)
    ]
    slope = (losses[1] - losses[0]) / (2 * step)
    gradient = stored._gradient(state, x, y).double()
    leading = torch.linalg.svdvals(gradient)[:2]
    assert slope == pytest.approx(-float(leading.norm()), rel=1e-3)


def test_the_tied_network_is_one_of_three_hidden_layers() -> None:
    state = scratch(SIZES, norm=False, seed=1)
    state = {name: t + 0.1 if name[0] == "b" else t for name, t in state.items()}
    layers: list[torch.nn.Module] = []
    for name in ("1", "2", "2", "3"):
        layer = torch.nn.Linear(*reversed(state[f"W{name}"].shape))
        layer.load_state_dict({"weight": state[f"W{name}"], "bias": state[f"b{name}"]})
        layers += [layer, torch.nn.ReLU()]
    x = torch.randn(5, 64)
    torch.testing.assert_close(
        stored.forward_tied(state, x), torch.nn.Sequential(*layers[:-1])(x), rtol=1e-5, atol=1e-5
    )


def test_runs_hold_what_they_say(data: Dataset) -> None:
    run = stored.survives_runs(data, group=[{"seed": 1}], **OPTIONS)
    names = list(stored.STARTS)
    at = {name: place for place, name in enumerate(names)}
    assert run["loss"].shape == (1, len(names), 3)
    assert run["moved"][0, at["gains"]] == 0
    assert run["start"][0, at["gains"]] == 1
    assert all(run["moved"][0, at[name]] > 0 for name in names if name != "gains")
    assert run["products"][0, at["rank"]] >= run["start"][0, at["rank"]] - 1e-9
    state = scratch((64, 12, 10), norm=False, seed=1)
    expected = cross_entropy(forward_plain(state, data.x_test.float()).double(), data.y_test)
    assert run["loss"][0, at["plain"], 0] == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ValueError, match="n must be at most half of 300 images, got 200"):
        stored.survives_runs(data, group=[{"seed": 1}], **{**OPTIONS, "n": 200})


def test_the_shuffled_start_has_the_entries_of_the_trained_one(task: stored._Task) -> None:
    states = stored._trained_before(task, SIZES, 3)
    first, mixed = states["trained"][0], states["shuffled"][0]
    assert torch.equal(first["W2"].flatten().sort().values, mixed["W2"].flatten().sort().values)
    assert not torch.equal(first["W2"], mixed["W2"])
    assert all(torch.equal(first[n], mixed[n]) for n in first if n != "W2")
    assert {state["W2"].shape for [state] in states.values()} == {(12, 12)}


def test_frames_say_what_the_runs_hold(data: Dataset) -> None:
    frame = experiment.survival_frame(data, [1, 2, 3], group=2, **OPTIONS)
    curves = experiment.curve_frame(data, [1, 2, 3], group=2, **OPTIONS)
    own = curves[(curves.seed == 2)].pivot(index="step", columns="of", values="loss")
    difference = (own["plain"] - own["small"]).to_numpy()
    lead = np.trapezoid(difference, own.index.to_numpy()) / 6
    row = frame[(frame.seed == 2) & (frame.of == "small")].iloc[0]
    assert row.lead == pytest.approx(lead)
    assert row.gained == pytest.approx((difference[-1] - difference[0]) / 6)
    assert experiment.column(frame, "plain", "lead").abs().max() == 0
    assert experiment.column(frame, "normed", "lead").abs().max() == 0
    found = experiment.rank_correlations(frame, "share", "lead")
    rows = frame[(frame.seed == 3) & frame.of.isin(experiment.UNTRAINED)]
    assert found[3] == pytest.approx(stats.spearmanr(rows.share, rows.lead).statistic)
    with pytest.raises(ValueError, match=r"of must be one of .* got 'none'"):
        experiment.column(frame, "none", "lead")
    table = experiment.survival_table({"ReLU": frame})
    mean = table[(table.of == "large") & (table.measure == "moved")]["mean"].iloc[0]
    assert mean == pytest.approx(experiment.column(frame, "large", "moved").mean())


def test_sines_are_told_as_the_others() -> None:
    settings = {
        "n": 64, "width": 8, "layers": 3, "rate": 1e-3, "steps": 4, "moments": [0, 2, 4],
    }  # fmt: skip
    frame = experiment.sine_frame([0, 1], [0.6, 0.9], settings)
    assert list(frame.of) == ["SIREN", "SIREN", "WINNER", "WINNER"]
    assert (experiment.column(frame, "SIREN", "lead") == 0).all()
    assert frame.share.between(0, 1).all()
    assert isinstance(experiment.against(frame, "WINNER", "SIREN", "share"), pd.Series)
