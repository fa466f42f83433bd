"""Notebook 76's tasks, layers and frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm, spearmanr
from sklearn.linear_model import Ridge

from rclib.data.images import Dataset, load
from rclib.experiments.features import feature_runs as runs
from rclib.experiments.features import feature_tasks as tasks
from rclib.experiments.features import what_features_have as frames
from rclib.nets.random_attention import attention_features

SHARED = {"n": 60, "n_test": 80, "features": [6, 18], "rate": 0.01, "steps": 5}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def frame(data: Dataset) -> pd.DataFrame:
    return frames.excess_frame(data, [3, 4], **SHARED)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_task_is_drawn_by_its_seed_and_has_its_constant_risk(name: str, data: Dataset) -> None:
    one, again, other = (tasks.task_of(name, seed, 50, 300, data) for seed in (1, 1, 2))
    for part in ("x", "y", "fresh", "wanted"):
        np.testing.assert_array_equal(getattr(one, part), getattr(again, part))
        assert not np.array_equal(getattr(one, part), getattr(other, part))
    assert len(one.x) == len(one.y) == 50
    assert len(one.fresh) == len(one.wanted) == 300
    # What a constant loses, by measuring it.
    best = np.broadcast_to(one.wanted.mean(0), one.wanted.shape)
    if one.error == "square":
        assert tasks.risk(best, one.wanted, "square") == pytest.approx(one.constant, rel=0.05)
    else:
        rng = np.random.default_rng(0)
        guess = rng.standard_normal(one.wanted.shape)
        assert tasks.risk(guess, one.wanted, one.error) == pytest.approx(one.constant, abs=0.07)
    assert tasks.risk(one.wanted, one.wanted, one.error) == 0
    assert one.oracle < one.constant


def test_rules_of_the_tasks() -> None:
    line = tasks.task_of("line", 0, 20, 10)
    np.testing.assert_allclose(line.y, np.sin(4 * np.pi * line.x))
    bits = tasks.task_of("permutation", 0, 20, 10)
    order = [int(np.flatnonzero((row == bits.x.T).all(1))[0]) for row in bits.y.T]
    assert sorted(order) == list(range(tasks.BITS))
    np.testing.assert_array_equal(bits.fresh[:, order], bits.wanted)
    colour = tasks.task_of("colour", 0, 400, 400)
    # One channel is empty. The colour agrees with the label in 85 of 100, then in 10.
    for x, y, share in ((colour.x, colour.y, 0.85), (colour.fresh, colour.wanted, 0.1)):
        on = np.abs(x).sum(2) > 0
        assert (on.sum(1) == 1).all()
        assert float((on[:, 1] == (y[:, 0] > 0)).mean()) == pytest.approx(share, abs=0.01)


def test_the_oracle_of_patches_is_between_its_neighbours() -> None:
    """Worse than who knows the patch, better than the best linear rule, in closed form."""
    found = np.mean([tasks.task_of("patches", s, 10, 4000).oracle for s in range(4)])
    known, linear = (norm.cdf(-1 / tasks.NOISE / count**0.5) for count in (1, tasks.PATCHES))
    assert known < found < linear


def test_layers_are_what_they_say(data: Dataset) -> None:
    attention = tasks.task_of("attention", 0, 12, 10)
    layer = runs.layer_of(attention, "fitting", 30, 5)
    x = layer.prepared(torch.from_numpy(attention.x).float())
    wanted = attention_features(attention.x, layer.weights.double().numpy())
    assert layer.weights.shape == (3, 9, 9)  # 3 heads of 9 features
    np.testing.assert_allclose(
        layer.of(layer.weights, layer.biases, x).numpy(),
        wanted.reshape(12, -1),
        rtol=1e-4,
        atol=1e-5,
    )
    patches = tasks.task_of("patches", 0, 12, 10)
    layer = runs.layer_of(patches, "fitting", 7, 5)
    turned = torch.from_numpy(patches.x[:, ::-1].copy()).float()
    first, second = (
        layer.of(layer.weights, layer.biases, x)
        for x in (torch.from_numpy(patches.x).float(), turned)
    )
    torch.testing.assert_close(first, second)  # the place of a patch does not matter
    colour = tasks.task_of("colour", 0, 12, 10)
    layer = runs.layer_of(colour, "fitting", 7, 5)
    swapped = torch.from_numpy(colour.x[:, ::-1].copy()).float()
    straight = torch.from_numpy(colour.x).float()
    assert torch.equal(layer.prepared(straight), layer.prepared(swapped))
    for name in tasks.TASKS:  # more features begin with the fewer
        task = tasks.task_of(name, 0, 12, 10, data)
        few, many = (runs.layer_of(task, "dense", number, 5) for number in (4, 9))
        assert torch.equal(few.weights, many.weights[:4])
    wide = runs.layer_of(patches, "dense", 4000, 1)
    x = wide.prepared(torch.from_numpy(patches.x).float())
    assert float((x @ wide.weights.T).square().mean()) == pytest.approx(1, rel=0.1)


def test_heads_are_ridge_regression() -> None:
    rng = np.random.default_rng(2)
    features, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 2))
    path, middle, mean = runs._heads(features, y)
    scale = float(np.square(features - features.mean(0)).mean())
    for place, eta in enumerate(runs.PENALTIES):
        peer = Ridge(alpha=40 * eta * scale, solver="svd").fit(features, y)
        found = (features - middle) @ path[place] + mean
        np.testing.assert_allclose(found, peer.predict(features), rtol=1e-6, atol=1e-8)


def test_training_begins_at_the_drawn_layer_and_fits(data: Dataset) -> None:
    task = tasks.task_of("images", 0, 60, 10, data)
    layer = runs.layer_of(task, "dense", 12, 0)
    x, y = (torch.from_numpy(part).float() for part in (task.x, task.y))
    kept = runs._moments(layer, x, y, 0.01, 50)
    assert len(kept) == runs.MOMENTS + 1
    assert torch.equal(kept[0][0], layer.weights)
    errors = [
        float(runs._held_out(layer.of(*own, x).double().numpy(), task.y, 20).min()) for own in kept
    ]
    assert errors[-1] < errors[0]


def test_learned_features_are_never_worse_where_they_are_chosen(data: Dataset) -> None:
    """The start is among what is chosen from, so no updates are drawn features."""
    own = {"task": "images", "kind": "dense", "seed": 1, **SHARED}
    still = runs.feature_run(data, learned=True, **{**own, "rate": 0.0})
    drawn = runs.feature_run(data, learned=False, **own)
    for name in drawn:
        np.testing.assert_array_equal(still[name], drawn[name])


def test_excess_and_the_count_of_features(frame: pd.DataFrame, data: Dataset) -> None:
    assert set(frame.task) == set(tasks.TASKS)
    assert len(frame) == 2 * 2 * (2 * len(tasks.TASKS) + 2 * len(frames.FITTING))
    task = tasks.task_of("colour", 4, 60, 80)
    risk = frames.by_seed(frame, "colour", "drawn", "risk")[4]
    excess = frames.by_seed(frame, "colour", "drawn")[4]
    assert excess == pytest.approx((risk - task.oracle) / (task.constant - task.oracle))
    heads = frame[(frame.task == "attention") & frame.arm.str.endswith("fitting")]
    assert sorted(set(heads["count"])) == [9, 18]
    assert set(frame[frame.arm == "drawn"]["count"]) == {6, 18}


def test_nothing_is_learned_from_shuffled_outputs(data: Dataset) -> None:
    """Not a single run but the mean, over many fresh samples: drawn features."""
    shared = {**SHARED, "n": 300, "n_test": 1000, "features": [8]}
    own = {"task": "patches", "kind": "dense", "learned": False}
    found = [runs.feature_run(None, seed=s, shuffled=True, **own, **shared)["excess"][0]
             for s in range(8)]  # fmt: skip
    right = [runs.feature_run(None, seed=s, **own, **shared)["excess"][0] for s in range(8)]
    assert float(np.mean(found)) == pytest.approx(1, abs=0.1)
    assert float(np.mean(right)) < 0.9


def test_decades_gains_and_what_tells(frame: pd.DataFrame) -> None:
    few = frames.decades(frame, "learned", "drawn", tasks=["line", "images"], features=6)
    wanted = []
    for task in ("line", "images"):
        one, two = (frames.by_seed(frame, task, arm, features=6)[3] for arm in ("learned", "drawn"))
        wanted.append(np.log10(max(one, frames.LEAST) / max(two, frames.LEAST)))
    assert few[3] == pytest.approx(np.mean(wanted))
    many = frames.decades(frame, "learned", "drawn", tasks=["line", "images"])
    closes = frames.gap_closes(frame, tasks=["line", "images"])
    pd.testing.assert_series_equal(closes, many - few, check_names=False)
    gained = frames.gains(frame)
    own = gained[(gained.seed == 3)].dropna(subset=["beyond"])
    found = frames.tells(gained, "beyond")
    assert found[3] == pytest.approx(spearmanr(own.gain, own.beyond)[0])
    table = frames.excess_table(frame)
    assert (table.low <= table["mean"]).all()
    assert len(frames.weights_table(gained)) == len(tasks.TASKS) + len(frames.FITTING)


def test_instruments_see_a_spike_and_rows() -> None:
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(80, 30, generator=g)
    beyond, means = runs._instruments(noise)
    assert 0.8 < beyond < 1.1
    assert 0.5 < means < 1.6
    wide = runs._instruments(noise.T)
    assert wide == pytest.approx((beyond, means))
    rows = noise + 2 * torch.randn(80, 1, generator=g)
    assert runs._instruments(rows)[0] > 5
    assert runs._instruments(rows)[1] > 5
    assert all(np.isnan(runs._instruments(noise[:, :3])))


def test_errors_name_the_argument(frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="name must be one of"):
        tasks.task_of("sound", 0, 10, 10)
    with pytest.raises(ValueError, match="data must hold the 10 images"):
        tasks.task_of("images", 0, 10, 10)
    with pytest.raises(ValueError, match="error must be one of"):
        tasks.risk(np.zeros((2, 1)), np.zeros((2, 1)), "hinge")
    with pytest.raises(ValueError, match="kind must be 'dense' for 'permutation'"):
        runs.layer_of(tasks.task_of("permutation", 0, 10, 10), "fitting", 4, 0)
    with pytest.raises(ValueError, match="need one row a seed for"):
        frames.by_seed(frame, "line", "learned", features=7)
