"""language.alf_lb and the balancing modules: what runs of notebook 93 return, by other routes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.text import TextData
from rclib.experiments.language import alf_lb, balancing_lm, balancing_runs, plots_alf_lb
from rclib.training.load_balancing import dual

RULES: dict[str, dict[str, Any]] = {
    "none": {"kind": "sign", "u": 0.0},
    "sign 0.001": {"kind": "sign", "u": 0.001},
    "sign 0.01": {"kind": "sign", "u": 0.01},
    "load 0.3/n": {"kind": "load", "u": 0.3, "power": 1},
    "load 0.1": {"kind": "load", "u": 0.1},
    "load 0.01": {"kind": "load", "u": 0.01},
    "wrong loads": {"kind": "sign", "u": 0.01, "shifted": True},
}
FIXED = {"T": 64, "E": 4, "K": 2, "steps": 400, "n_flat": 400}
STEPS: dict[str, dict[str, Any]] = {
    "3/n": {"kind": "tokens", "u": 3.0, "power": 1},
    "0.3/n": {"kind": "tokens", "u": 0.3, "power": 1},
    "0.3/√n": {"kind": "tokens", "u": 0.3, "power": 0.5},
    "sign 0.01": {"kind": "sign", "u": 0.01},
}
FRESH = {"T": 32, "E": 4, "K": 2, "n_tokens": 200, "steps": 200, "every": 10, "n_best": 300}
ARMS: dict[str, dict[str, Any]] = {
    "none": {},
    "auxiliary loss": {"alpha": 0.05},
    "sign": {"kind": "sign", "u": 0.02},
    "u/n": {"kind": "tokens", "u": 0.1, "power": 1},
}
MODEL: dict[str, Any] = {
    "network": {"width": 16, "blocks": 2, "context": 16, "head_size": 8},
    "experts": {"E": 6, "hidden": 4, "K": 2}, "steps": 40, "batch_size": 4, "lr": 0.01, "n_eval": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def text() -> TextData:
    raw = torch.frombuffer(
        bytearray(b"to be or not to be, that is the question\n" * 40), dtype=torch.uint8
    )
    return TextData("lines", "lines", raw, len(raw) - 400, "1" * 64)


def test_affinities_are_what_they_are_called() -> None:
    random = np.random.default_rng(0)
    soft = balancing_runs.affinities(random, "softmax", T=50, E=4)
    np.testing.assert_allclose(soft.sum(0), 1)
    flat = balancing_runs.affinities(random, "sigmoid", T=20_000, E=4, offsets=0.0)
    np.testing.assert_allclose(np.log(flat / (1 - flat)).std(1), 1, atol=0.03)
    np.testing.assert_allclose(flat.mean(1), 0.5, atol=0.01)
    with pytest.raises(ValueError, match=r"score must be one of .*, got 'other'"):
        balancing_runs.affinities(random, "other", T=5, E=4)


@pytest.fixture(scope="module")
def fixed() -> Any:
    return balancing_runs.fixed_runs(
        None, seed=3, score="sigmoid", rules=list(RULES.values()), **FIXED
    )


def test_one_batch_for_ever(fixed: Any) -> None:
    place = {name: r for r, name in enumerate(RULES)}
    assert fixed["error"].max() < 1e-9
    assert fixed["fractional"] == 0
    assert fixed["gap"].min() > -1e-9
    assert fixed["gap"][place["load 0.3/n"], -1] < 1e-3
    assert np.ptp(fixed["violation"][place["none"]]) == 0
    # Steps that follow the excess keep the sum of the shifts, signs do not.
    drift = np.abs(fixed["drift"])
    assert drift[[place[name] for name in ("load 0.3/n", "load 0.1", "load 0.01")]].max() < 1e-12
    assert drift[place["sign 0.01"]] > 1e-3
    # What rises is what the gap shows.
    for name in ("sign 0.01", "load 0.1"):
        up = np.diff(fixed["gap"][place[name]]) > 1e-10
        np.testing.assert_array_equal(up, fixed["rise"][place[name], :-1] > 0)
    right, wrong = place["sign 0.01"], place["wrong loads"]
    assert fixed["kinds"][right][~alf_lb.ALLOWED].sum() == 0
    assert fixed["kinds"][wrong][~alf_lb.ALLOWED].sum() > 0
    np.testing.assert_allclose(fixed["kinds"].sum((1, 2)), fixed["ranked"].sum((1, 2)))
    assert np.tril(fixed["ranked"][right]).sum() == 0


def test_the_loads_without_shifts(fixed: Any) -> None:
    gamma = balancing_runs.affinities(np.random.default_rng([3, 0]), "sigmoid", T=64, E=4)
    expected = np.bincount(np.argsort(-gamma, axis=0)[:2].ravel(), minlength=4)
    np.testing.assert_array_equal(fixed["loads"], expected)
    value, loads, _ = dual(gamma, np.asarray(fixed["shifts"][3]), 2)
    assert value == pytest.approx(fixed["value"], abs=1e-3)
    assert loads.max() == 32


def test_regret_is_the_sum_of_gaps_at_every_iteration() -> None:
    """Evaluated everywhere against held in between; and the first gap is that of p = 0."""
    given: dict[str, Any] = {"seed": 1, "score": "sigmoid", "rules": list(STEPS.values()), **FRESH}
    held = balancing_runs.fresh_runs(None, **given)
    all_of_them = balancing_runs.fresh_runs(None, **{**given, "every": 1})
    np.testing.assert_array_equal(all_of_them["at"], np.arange(1, 201))
    np.testing.assert_allclose(held["regret"][:, -1], all_of_them["regret"][:, -1], rtol=0.15)
    gaps = np.diff(all_of_them["regret"], prepend=0, axis=1)
    assert gaps.min() > -1e-6
    np.testing.assert_allclose(gaps[:, 0], gaps[0, 0])
    assert balancing_runs.evaluated(50, 15) == [*range(30), 30, 45]


def test_frames_and_values_of_affinities() -> None:
    frame = alf_lb.fixed_frame([0, 1], RULES, **FIXED)
    assert len(frame) == 2 * 2 * len(RULES)
    found = alf_lb.fixed_values(frame)
    assert {len(by_seed) for by_seed in found.values()} == {2}
    assert (found["preference"] == 0).all()
    assert (found["identity"] < 1e-9).all()
    assert (found["unbalanced"] > found["balanced"]).all()
    assert (found["shifts_rank"] < 0).all()
    curves = alf_lb.curve_frame([0, 1], RULES, "sigmoid", **FIXED)
    run = balancing_runs.fixed_runs(
        None, seed=0, score="sigmoid", rules=list(RULES.values()), **FIXED
    )
    own = curves[(curves.seed == 0) & (curves.rule == "load 0.1")]
    counts = np.diff(own.iteration, prepend=0)
    assert float(own.violation @ counts) == pytest.approx(run["violation"][4].sum())
    shares = alf_lb.swap_shares([0, 1], RULES, "sign 0.001", "sigmoid", **FIXED)
    assert shares.sum() == pytest.approx(1)
    fresh = alf_lb.fresh_frame([0, 1], STEPS, **FRESH)
    values = alf_lb.fresh_values(fresh)
    assert all(np.isfinite(by_seed).all() for by_seed in values.values())
    plots_alf_lb.affinity_panels(curves, shares, fresh)


def test_thinned_keeps_both_ends() -> None:
    frame = pd.DataFrame({"at": np.arange(1, 1001), "rule": "3/n"})
    kept = alf_lb.thinned(frame, "at", 10)["at"]
    assert kept.iloc[0] == 1
    assert kept.iloc[-1] == 1000
    assert 8 <= len(kept) <= 11
    assert np.ptp(np.diff(np.log(kept.to_numpy()))[2:]) < 0.2


def test_growth_of_known_regrets() -> None:
    """Regrets log n, √n, n: 1, √2 and 2 per doubling."""
    at = np.geomspace(1, 4096, 200)
    shapes = {"3/n": np.log(at), "0.3/n": at**0.5, "0.3/√n": at**0.5, "sign 0.01": at}
    frame = pd.concat([
        pd.DataFrame({"seed": seed, "rule": rule, "at": at, "regret": regret})
        for rule, regret in shapes.items() for seed in (0, 1)
    ])  # fmt: skip
    found = alf_lb.fresh_values(frame)
    assert found["regret_log"].to_numpy() == pytest.approx(12 / 10, abs=1e-3)
    assert found["regret_root"].to_numpy() == pytest.approx(2**0.5, abs=1e-3)
    assert found["regret_short"].to_numpy() == pytest.approx(2**0.5, abs=1e-3)
    assert found["regret_sign"].to_numpy() == pytest.approx(2, abs=1e-3)


def test_a_language_model(text: TextData) -> None:
    runs = {
        arm: balancing_lm.expert_runs(text, seed=0, balancing=balancing, **MODEL)
        for arm, balancing in ARMS.items()
    }
    tokens = 2 * 4 * 16 * 2
    for run in runs.values():
        np.testing.assert_array_equal(run["used"].sum(1), tokens)
        np.testing.assert_array_equal(run["plain"].sum(1), tokens)
        np.testing.assert_array_equal(run["violation"][0], runs["none"]["violation"][0])
    for arm in ("none", "auxiliary loss"):
        assert not runs[arm]["shifts"].any()
        np.testing.assert_array_equal(runs[arm]["used"], runs[arm]["plain"])
    assert runs["sign"]["violation"][-10:].mean() < runs["none"]["violation"][-10:].mean()
    # Every step moves every shift by u or, at the share that is due, by nothing.
    moved = runs["sign"]["shifts"] / 0.02
    np.testing.assert_allclose(moved, moved.round(), atol=1e-4)
    frame = alf_lb.model_frame(text, [0, 1], ARMS, **MODEL)
    assert len(frame) == 2 * 4 * 2
    found = alf_lb.model_values(frame)
    assert all(np.isfinite(by_seed).all() for by_seed in found.values())
    curves = alf_lb.model_curves(text, [0, 1], ARMS, **MODEL)
    own = curves[(curves.seed == 0) & (curves.arm == "sign")]
    counts = np.diff(own.step, prepend=0)
    mean = runs["sign"]["violation"].mean()
    assert float(own.violation @ counts) / 40 == pytest.approx(mean)
    means = alf_lb.arm_means(frame)
    assert (means[means.arm == "none"]["loss gap"] == 0).all()
    spectrum = plots_alf_lb.model_panels(curves, means, floor=0.3).axes[3]
    low, high = spectrum.get_ylim()  # no point reaches the words at the top
    assert means.top.max() < high - 0.08 * (high - low)


def test_a_frame_without_an_arm_is_refused(text: TextData) -> None:
    frame = alf_lb.model_frame(text, [0], {"none": {}}, **{**MODEL, "steps": 2})
    with pytest.raises(ValueError, match=r"frame must hold \{'arm': 'sign'\}"):
        alf_lb.model_values(frame)
