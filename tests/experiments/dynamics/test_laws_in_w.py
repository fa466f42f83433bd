"""dynamics.laws_in_w: measures of a matrix that learns, and half-times on the law's own clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.images import load
from rclib.experiments.dynamics import deep_linear, generalization_runs
from rclib.experiments.dynamics import laws_in_w as experiment
from rclib.experiments.dynamics import laws_in_w_measures as measures
from rclib.experiments.dynamics import laws_in_w_runs as runs
from rclib.experiments.dynamics import plots_laws_in_w as plots
from rclib.rowcolumn.measure import row_column_share


def spiked(size: float) -> np.ndarray:
    random = np.random.default_rng(5)
    left, right = random.standard_normal(60), random.standard_normal(40)
    product = np.outer(left / np.linalg.norm(left), right / np.linalg.norm(right))
    return np.asarray(random.standard_normal((60, 40)) + size * product)


def test_measures_of_one_product_in_noise() -> None:
    """The share in spikes against singular values, and growth of the whole matrix, which moves what
    lies beyond the start's bulk and no spike."""
    plain = measures.measured(spiked(0.0), variance=1.0)
    assert plain["spikes"] == plain["outside"] == 0.0
    w = spiked(30.0)
    found, s = measures.measured(w, variance=1.0), np.linalg.svd(w)[1]
    assert found["spikes"] == pytest.approx(s[0] ** 2 / (s**2).sum())
    assert found["outside"] == pytest.approx(found["spikes"])
    assert found["stable_rank"] == pytest.approx((s**2).sum() / s[0] ** 2)
    assert found["energies"] > 5 * abs(plain["energies"])
    grown = measures.measured(3.0 * w, variance=1.0)
    assert grown["outside"] > 0.9
    assert grown["spikes"] == pytest.approx(found["spikes"])


def test_shares_of_a_stack_are_those_of_its_matrices() -> None:
    """Against the library's measure of one matrix."""
    stack = np.stack([spiked(0.0), spiked(30.0)])
    found = measures._each(stack, variance=1.0)
    for name, own in (("means", stack), ("energies", stack**2)):
        for i, w in enumerate(own):
            share = row_column_share(torch.from_numpy(w))
            assert found[name][i] == pytest.approx(share.value - share.chance, rel=1e-12)
    # Signs vary and squares do not.
    signs = np.sign(spiked(0.0))
    with pytest.raises(ValueError, match="the energies of matrix 1 do not vary"):
        measures._each(np.stack([stack[0], signs]), variance=1.0)


def test_small_matrices_have_no_tail() -> None:
    w = np.random.default_rng(0).standard_normal((8, 4))
    assert np.isnan(measures.measured(w, variance=1.0)["alpha"])


def test_record_keeps_every_moment_and_averages_networks() -> None:
    random = np.random.default_rng(1)
    some = [random.standard_normal((3, 12, 11)) for _ in range(2)]
    run = measures.record(4, [0, 5], [0.0, 1.0], some, 1.0)
    each = [measures.measured(w, variance=1.0)["stable_rank"] for w in some[1]]
    assert run["stable_rank"][1] == pytest.approx(np.mean(each))
    alone = measures.record(4, [0, 5], [0.0, 1.0], [w[:1] for w in some], 1.0)
    # Other draws of 49 matrices each: √3 to within a third.
    ratio = alone["null_energies"][1] / run["null_energies"][1]
    assert ratio == pytest.approx(3**0.5, rel=0.33)
    # Shuffled entries are the same entries: their sum of squares is, so is the mean of W.
    assert run["shuffled_means"].shape == (2,)


def test_moments_begin_at_zero_and_end_at_the_last_step() -> None:
    assert measures.moments_of(100, 3) == [0, 1, 10, 100]
    assert measures.moments_of(3, 20) == [0, 1, 2, 3]


def test_half_time_by_straight_lines() -> None:
    assert experiment.half_time([0, 1, 3], [2.0, 2.0, 6.0], end=6.0) == pytest.approx(2.0)
    assert experiment.half_time([0, 1, 2], [0.0, -4.0, -2.0], end=-4.0) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="never go half of the way to 4"):
        experiment.half_time([0, 1], [0.0, 1.0], end=4.0)
    with pytest.raises(ValueError, match="end must differ"):
        experiment.half_time([0, 1], [1.0, 1.0], end=1.0)
    with pytest.raises(ValueError, match=r"must be \(T,\)"):
        experiment.half_time([0], [1.0], end=2.0)


def test_modes_are_those_of_notebook_60() -> None:
    """The learned share of the modes follows the closed form, as `courses` does: the two runs draw
    their own starts, so half-times agree to a few percent."""
    task = [3.0]
    shared: dict[str, Any] = {"task": task, "width": 16, "size": 0.001, "rate": 0.01, "steps": 800}
    run = runs.watch_modes(None, seed=3, moments=200, **shared)
    arm = {"start": "random", "every": 1, "common": False}
    other = deep_linear.course_frame([3], {"a": arm}, **shared)
    half = experiment.half_time(run["times"] * 0.01, run["progress"], end=1.0)
    assert half == pytest.approx(deep_linear.half_times(other, "a").half.iloc[0], rel=0.15)
    assert run["spikes"][-1] > 0.9


def test_student_is_that_of_notebook_61() -> None:
    own: dict[str, Any] = {
        "width": 32, "start": 0.3, "n": 8, "samples": 400, "teacher": 4, "rate": 3e-3,
        "optimiser": "adam",
    }  # fmt: skip
    run = runs.watch_student(None, seed=1, steps=300, moments=10, **own)
    other = generalization_runs.relu_student(None, seed=1, steps=300, every=300, **own)
    assert run["train"][-1] == pytest.approx(other["train"][-1], rel=0.25)
    assert run["progress"][0] == 1.0
    assert run["progress"][-1] < 0.3


def test_squares_add_as_written_out() -> None:
    net = runs.SquareNet(5, 7)
    x = torch.eye(10)[[1]] + torch.eye(10)[[8]]
    w, v = net.first.weight, net.last.weight
    assert torch.allclose(net(x)[0], v @ (w[:, 1] + w[:, 8]).square())


def test_addition_is_memorised_before_it_is_understood() -> None:
    run = runs.watch_addition(
        None, seed=2, modulus=11, width=64, share=0.6, rate=5e-3, decay=2e-4, steps=200, moments=12
    )
    assert run["train"][-1] == 1.0
    assert run["train"][0] < 0.3
    learned = [int(run["times"][run[k] > 0.9].min(initial=10**6)) for k in ("train", "progress")]
    assert learned[0] < learned[1]


def test_chains_learn_and_their_matrices_stay() -> None:
    run = runs.watch_boolean(
        None, seed=0, target=2**16 - 2, n=64, delta=0.1, hidden=8, chains=12, rate=2e-3, steps=400,
        moments=8,
    )  # fmt: skip
    assert run["progress"][-1] < 0.4
    change = abs(run["stable_rank"][-1] - run["stable_rank"][0]) / run["null_stable_rank"][1]
    assert change < 5


def made_frame() -> pd.DataFrame:
    """Two seeds: spikes that rise with the law, and that fall again in the second system."""
    rows = []
    for system, end in (("60 modes", 1.0), ("61 student", 0.2)):
        for seed in (0, 1):
            for t, way, share in ((0, 0.0, 0.0), (1, 0.5, 0.4), (2, 1.0, 0.8), (3, 1.0, 0.8 * end)):
                rows.append((system, seed, t, float(t), way, share))
    frame = pd.DataFrame(rows, columns=["system", "seed", "t", "tau", "progress", "spikes"])
    for name in measures.MEASURES[1:]:
        frame[name] = frame.spikes * 0.1
    for name in measures.MEASURES:
        frame[f"shuffled_{name}"], frame[f"null_{name}_mean"] = 0.1 * frame[name], 0.0
        frame[f"null_{name}_sd"] = 0.01
    return frame


def test_half_times_and_what_is_left() -> None:
    frame = made_frame()
    assert experiment.half_times(frame, "60 modes").tolist() == [1.0, 1.0]
    assert experiment.half_times(frame, "61 student", to="most").tolist() == [1.0, 1.0]
    assert experiment.half_times(frame, "61 student")[0] == pytest.approx(0.2)
    assert experiment.half_times(frame.assign(spikes=0.0), "60 modes")[0] == experiment.NEVER
    assert experiment.left_at_end(frame, "61 student").tolist() == pytest.approx([0.2, 0.2])
    assert experiment.shuffled_left(frame, ["60 modes"], "spikes")[1] == pytest.approx(0.1)
    seen = experiment.visible(frame, ["60 modes"], ["energies"])
    assert seen.change.tolist() == pytest.approx([8.0, 8.0])
    table = experiment.summary(frame).set_index(["system", "measure"])
    assert table.loc[("60 modes", "spikes"), "end"] == pytest.approx(0.8)
    assert table.loc[("61 student", "energies"), "half"] == experiment.NEVER


def test_wrong_questions_are_refused() -> None:
    frame = made_frame()
    with pytest.raises(ValueError, match="has no spikes to lose"):
        experiment.left_at_end(frame.assign(spikes=0.0), "60 modes")
    with pytest.raises(ValueError, match="no system of"):
        experiment.shuffled_left(frame.assign(spikes=0.0), ["60 modes"], "spikes")
    with pytest.raises(ValueError, match="chance does not move energies"):
        experiment.visible(frame.assign(null_energies_sd=0.0), ["60 modes"], ["energies"])
    with pytest.raises(ValueError, match="to must be"):
        experiment.half_times(frame, "60 modes", to="start")
    with pytest.raises(ValueError, match="system must be"):
        experiment.watch_frame(load("digits"), [0], {"99 none": {}}, moments=3)


def test_frame_and_figure_of_small_runs() -> None:
    settings: dict[str, dict[str, Any]] = {
        "60 modes": {"task": [4.0], "width": 12, "size": 0.02, "rate": 0.02, "steps": 300},
        "64 Boolean": {
            "target": 2**16 - 2, "n": 64, "delta": 0.1, "hidden": 4, "chains": 4, "rate": 2e-3,
            "steps": 300,
        },
    }  # fmt: skip
    frame = experiment.watch_frame(load("digits"), [0, 1], settings, moments=8)
    law = frame[frame.system == "60 modes"]
    assert law.progress.min() == 0.0
    assert law.progress.max() == 1.0
    figure = plots.time_panels(experiment.shown_times(frame))
    lines = [len([x for x in panel.lines if np.size(x.get_xdata()) > 2]) for panel in figure.axes]
    assert lines == [2, 2, 2, 2, 2, 1]  # no α for matrices of four columns
