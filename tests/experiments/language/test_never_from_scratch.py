"""language.scratch_runs, scratch_measures and never_from_scratch against other routes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.images import load
from rclib.experiments.language import never_from_scratch as frames
from rclib.experiments.language import plots_never_from_scratch as plots
from rclib.experiments.language import scratch_measures as measures
from rclib.experiments.language import scratch_runs as runs
from rclib.experiments.language import scratch_values as claimed
from rclib.nets import sequence_classifier as nets

SIZES: dict[str, Any] = {
    "n_denoise": 2, "n_label": 2, "batch": 4, "lr": 0.003, "hidden": 0.5,
    "network": {"width": 8, "blocks": 1, "heads": 2},
}  # fmt: skip


# --- stored runs ---------------------------------------------------------------------------


def test_hidden_positions_show_a_flag_and_nothing_else() -> None:
    x, hidden = torch.tensor([[2, 0, 1]]), torch.tensor([[True, False, False]])
    wanted = [[[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]]
    assert runs.hide(x, hidden, 3).tolist() == wanted
    pixels = torch.tensor([[0.5, -1.0, 2.0]])
    assert runs.hide(pixels, hidden, 1).tolist() == [[[0, 1], [-1, 0], [2, 0]]]


def test_the_denoising_loss_is_of_hidden_positions_alone() -> None:
    y = torch.tensor([[[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]])
    out = torch.zeros(1, 3, 2)
    assert float(runs._denoising_loss(2, out, y)) == pytest.approx(np.log(2))
    out[0, 1] = 50.0  # where nothing is hidden
    out[0, 0, 1] = np.log(3.0)
    expected = (-np.log(3 / 4) + np.log(2)) / 2
    assert float(runs._denoising_loss(2, out, y)) == pytest.approx(expected)
    pixels = torch.tensor([[[0.5], [9.0], [3.0]]])
    assert float(runs._denoising_loss(1, pixels, y)) == pytest.approx((0.5 + 2.0) / 2)


def test_batches_of_denoising() -> None:
    x = torch.arange(2 * 6 * 5).reshape(2, 6, 5).float()
    batches = partial(runs._denoising_batches, x, [3, 8], batch=4, share=0.4, symbols=1)
    inputs, targets = batches("denoised")(0)
    assert inputs.shape == targets.shape == (2, 4, 5, 2)
    hidden = targets[..., 1].bool()
    assert (inputs[..., 0] == torch.where(hidden, 0.0, targets[..., 0])).all()
    assert (inputs[..., 1].bool() == hidden).all()
    rows = {tuple(row) for row in x[0].tolist()}
    assert {tuple(row) for row in targets[0, :, :, 0].tolist()} <= rows
    mixed = batches("shuffled")(0)[1][..., 0]
    assert (mixed.sort(-1).values == targets[..., 0].sort(-1).values).all()
    assert (mixed != targets[..., 0]).any()
    share = torch.stack([batches("denoised")(t)[1][..., 1].mean() for t in (0, 2, 4)]).mean()
    assert 0.2 < float(share) < 0.6


@pytest.mark.parametrize("kind", ["transformer", "ssm"])
def test_both_arms_start_alike_and_labels_are_learned(kind: str) -> None:
    data = load("digits").subset(60, 30)
    options = {**SIZES, "kind": kind, "group": [{"seed": 1}], "n_train": 16, "n_more": 0}
    found = {arm: runs.digit_runs(data, arm=arm, **options) for arm in runs.ARMS}
    assert np.isnan(found["scratch"]["course"]).all()
    assert np.nanmean(found["denoised"]["course"]) == pytest.approx(found["denoised"]["denoising"])
    starts = {arm: found[arm]["frozen"][0, 0] for arm in runs.ARMS}
    assert len(set(starts.values())) == 1  # one start for all
    assert np.isnan(found["scratch"]["denoising"][0])
    assert found["denoised"]["denoising"][0] != found["shuffled"]["denoising"][0]
    options |= {"n_label": 120, "n_denoise": 1, "lr": 0.01}
    assert runs.digit_runs(data, arm="scratch", **options)["train"][0] > 0.6


def test_what_cannot_be_run_is_refused() -> None:
    data = load("digits").subset(60, 30)
    options = {**SIZES, "kind": "ssm", "arm": "scratch", "group": [{"seed": 1}]}
    with pytest.raises(ValueError, match="n_train \\+ n_more must be at most 60, got 61"):
        runs.digit_runs(data, n_train=60, n_more=1, **options)
    with pytest.raises(ValueError, match="arm must be one of"):
        runs.digit_runs(data, n_train=16, n_more=1, **{**options, "arm": "other"})
    more: dict[str, Any] = {"length": 8, "permuted": False, "n_train": 8, "n_test": 8}
    with pytest.raises(ValueError, match="task must be one of"):
        runs.sequence_runs(None, task="other", **more, **options)


# --- measures ------------------------------------------------------------------------------


def test_neighbours_on_a_line_and_on_a_grid() -> None:
    line, grid = measures.neighbours(16), measures.neighbours(64)
    assert line.sum() == 2 * 15
    assert grid.sum() == 2 * 2 * 8 * 7
    assert np.flatnonzero(grid[9]).tolist() == [1, 8, 10, 17]
    uniform = np.full((1, 64, 64), 1 / 64)
    assert measures.near_mass(uniform)[0] == pytest.approx(3.5 / 64)


def test_correlations_on_the_grid() -> None:
    noise = np.random.default_rng(0).standard_normal((64, 400))
    assert np.abs(measures.grid_correlations(noise, 8)).max() < 0.05
    stripes = np.repeat(np.random.default_rng(1).standard_normal((8, 1, 400)), 8, 1)
    along, down = measures.grid_correlations(stripes.reshape(64, 400), 8)
    assert along == pytest.approx(1.0)
    assert abs(down) < 0.3


def test_spikes_and_row_and_column_means() -> None:
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((64, 24))
    assert measures.beyond_edge(noise) == 0
    u, v = generator.standard_normal((2, 64))
    spiked = noise + 2 * np.outer(u, v[:24])
    values = np.linalg.svd(spiked, compute_uv=False) ** 2
    assert measures.beyond_edge(spiked) == pytest.approx(values[0] / values.sum())
    means = u[:, None] + u[None] + 0.1 * generator.standard_normal((64, 64))
    assert measures.row_column_correlation(means) > 0.99


def test_frozen_features_that_tell_the_class() -> None:
    y = np.arange(60) % 3
    x = np.eye(3)[y] + 0.01 * np.random.default_rng(0).standard_normal((60, 3))
    assert measures.frozen_accuracy(x[:30], y[:30], x[30:], y[30:]) == 1.0
    assert measures.frozen_accuracy(x[:30], y[:30], x[30:], (y[30:] + 1) % 3) == 0.0


def test_the_largest_kernel_entry_is_read_off_the_responses_to_an_impulse() -> None:
    shape = nets.Shape("ssm", features=2, outputs=1, classes=2, length=12, width=4, blocks=2)
    own = {name: tensor[0] for name, tensor in nets.start(shape, [3]).items()}
    layer = {name: own[f"1.{name}"] for name in nets.state_space.MODES}
    impulse = torch.zeros(2, 12, 4)
    impulse[0, 0], impulse[1, -1] = 1.0, 1.0
    out = nets.state_space.by_recurrence(layer, impulse).abs().numpy()
    behind = out[1, ::-1].copy()
    behind[0] = 0.0  # the forward kernel's own lag
    found = measures.largest_kernel(own, 1, 12)
    np.testing.assert_allclose(found[1:], np.maximum(out[0], behind).max(1)[1:], rtol=1e-4)
    assert found[0] >= out[0].max(1)[0] - 1e-6  # lag 0 of the backward kernel is used by none


# --- frames and figures --------------------------------------------------------------------


def test_values_of_the_digits_and_their_figures() -> None:
    data = load("digits").subset(60, 30)
    sizes = {**SIZES, "n_train": 16, "n_more": 2}
    few = {"more images": 1, "random kernels": 1, "shuffled pixels": 1}
    digits = frames.digit_frame(data, [0, 1], few, 20, **sizes)
    assert len(digits) == 2 * 4 + 4 + 2 + 1
    kernels = frames.kernel_frame(data, [0, 1], few, **sizes)
    assert len(kernels) == (2 + 1) * 3 * 64
    found = claimed.digit_values(digits, kernels)
    by = digits.set_index(["variant", "kind", "arm", "seed"]).test.sort_index()
    plain, larger = by["plain"], by["more images"]
    gaps = {arm: plain["ssm", arm] - plain["transformer", arm] for arm in ("scratch", "denoised")}
    pd.testing.assert_series_equal(found["gap"], gaps["scratch"])
    pd.testing.assert_series_equal(found["halved"], gaps["denoised"] - gaps["scratch"] / 2)
    lost = by["shuffled pixels", "transformer", "shuffled"] - plain["transformer", "scratch"]
    pd.testing.assert_series_equal(found["shuffled"], lost.dropna())
    assert found["shuffled"].index.tolist() == [0]
    gain = {n: own["transformer", "denoised"] - own["transformer", "scratch"]
            for n, own in (("few", plain), ("many", larger))}  # fmt: skip
    pd.testing.assert_series_equal(found["scarcity"], (gain["few"] - gain["many"]).dropna())
    made = plain["ssm", "scratch"][[0]] - by["random kernels", "ssm", "scratch"]
    pd.testing.assert_series_equal(found["kernels"], made)
    plain_alone = claimed.digit_values(
        digits[digits.variant == "plain"], kernels[kernels.init == "structured"]
    )
    assert set(found) - set(plain_alone) == {
        "larger_gap", "larger_halved", "scarcity", "scarcity_ssm", "kernels", "redundant",
        "shuffled",
    }  # fmt: skip
    with pytest.raises(ValueError, match="frame must hold"):
        claimed.digit_values(digits[digits.arm == "scratch"], kernels)

    attention = frames.attention_frame(data, [0, 1], **sizes)
    assert set(attention.arm) == {"scratch", "denoised"}
    assert len(attention) == 2 * 15 * 15
    course = frames.course_frame(data, [0, 1], **sizes)
    assert len(course) == 2 * 2 * SIZES["n_denoise"]
    assert course.step.max() == 2
    assert len(plots.weight_panels(attention, digits).axes) == 4
    assert len(plots.phase_panels(course, kernels).axes) == 3


def test_values_of_the_sequences_and_their_figure() -> None:
    settings = {**SIZES, "length": 8, "n_train": 16, "n_test": 16}
    sequences = frames.sequence_frame([0, 1, 2, 3], {task: {} for task in runs.TASKS}, **settings)
    values = claimed.sequence_values(sequences, 0.5)
    assert {"texture_gap", "permuted", "counting", "lists_gain", "lists_gain_ssm"} <= set(values)
    texture = sequences[(sequences.task == "texture") & (sequences.kind == "ssm")]
    by = texture.set_index(["permuted", "arm", "seed"]).test.sort_index()
    pd.testing.assert_series_equal(values["permuted"], by[False, "scratch"] - by[True, "scratch"])
    half = (by[False, "scratch"] + by[True, "scratch"]) / 2
    pd.testing.assert_series_equal(values["permuted_won"], by[True, "denoised"] - half)
    assert (values["texture_bound"] > 0).all()
    digits = pd.DataFrame(
        [
            {"variant": variant, "kind": kind, "arm": arm, "seed": seed, "test": 0.5}
            for variant, cells in frames.DIGIT_CELLS.items()
            for kind, arm in cells
            for seed in range(3)
        ]
    )
    assert len(plots.accuracy_panels(digits, sequences, {"texture": 0.9}).axes) == 2


def test_pseudo_values_of_a_rank_correlation() -> None:
    a = pd.Series([1.0, 2.0, 3.0, 4.0, 5.0], index=[7, 8, 9, 10, 11])
    np.testing.assert_allclose(claimed.jackknifed_rank_correlation(a, a**3), 1.0)
    b = pd.Series([1.0, 2.0, 3.0, 5.0, 4.0], index=a.index)
    found = claimed.jackknifed_rank_correlation(a, b)
    without_last = 1 - 6 * 0 / (4 * 15)  # four pairs in order
    assert found[11] == pytest.approx(5 * 0.9 - 4 * without_last)
    with pytest.raises(ValueError, match="at least 4 seeds"):
        claimed.jackknifed_rank_correlation(a[:3], b[:3])


def test_the_peak_at_a_row() -> None:
    rows = [
        {"init": "structured", "moment": moment, "seed": 1, "lag": lag,
         "size": 1.0 + (lag == 8 and moment == "denoised")}
        for moment in ("start", "denoised") for lag in range(12)
    ]  # fmt: skip
    assert claimed.row_peak(pd.DataFrame(rows), 8).to_dict() == {1: 1.0}
