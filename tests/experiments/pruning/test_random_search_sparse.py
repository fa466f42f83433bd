"""pruning.random_search_sparse: slices, scores and choices against plain routes."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate
from scipy.special import softmax
from scipy.stats import norm
from sklearn.metrics import log_loss

from rclib.data.images import Dataset, load
from rclib.experiments.pruning import plots_search as plots
from rclib.experiments.pruning import random_search_sparse as experiment
from rclib.experiments.pruning import search_runs as runs
from rclib.experiments.pruning.data_diet_runs import networks

TINY = runs.TINY["searched"] | {"task": "labels", "rescaled": False}
SHARED = {k: TINY[k] for k in ("pool", "width", "n_score", "steps", "rate", "batch_size")}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits").subset(60, 40)


def expected_most(k: int) -> float:
    """E[max of k normals]."""
    return float(
        integrate.quad(lambda x: x * k * norm.pdf(x) * norm.cdf(x) ** (k - 1), -9, 9)[0]
    )  # fmt: skip


def masked(parent: dict[str, torch.Tensor], units: Any, x: torch.Tensor) -> torch.Tensor:
    """Outputs of the parent with the other units' activations set to zero."""
    hidden = x
    for layer in (1, 2):
        keep = torch.zeros(parent[f"W{layer}"].shape[0])
        keep[units[layer - 1]] = 1.0
        hidden = torch.relu(hidden @ parent[f"W{layer}"].T + parent[f"B{layer}"]) * keep
    return hidden @ parent["W3"].T + parent["B3"]


def test_slices_are_the_masked_parent(digits: Dataset) -> None:
    parent = networks(64, [12, 12], 10, [5]).member(0)
    units = runs.drawn_units(5, 3, 12, 4)
    nets = networks(64, [4, 4], 10, [0, 0, 0])
    cut = runs.sliced(parent, units)
    outputs = nets.each(cut, digits.x_test.expand(3, *digits.x_test.shape))
    for k in range(3):
        other = masked(parent, (units[0][k], units[1][k]), digits.x_test)
        torch.testing.assert_close(outputs[k], other, atol=1e-5, rtol=1e-5)


def test_relabelled_units_change_nothing(digits: Dataset) -> None:
    parent = networks(64, [12, 12], 10, [5]).member(0)
    one, two = runs.drawn_units(5, 1, 12, 4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    where = order.argsort()  # old unit -> its new place
    moved = dict(parent, W1=parent["W1"][order], B1=parent["B1"][order], W2=parent["W2"][:, order])
    nets = networks(64, [4, 4], 10, [0])
    x = digits.x_test[None]
    torch.testing.assert_close(
        nets.each(runs.sliced(parent, (one, two)), x),
        nets.each(runs.sliced(moved, (where[one], two)), x),
    )


def test_rescaling_keeps_the_variance_of_inputs() -> None:
    parent = networks(64, [400, 400], 10, [1]).member(0)
    units = runs.drawn_units(1, 1, 400, 40)
    plain, scaled = (runs.sliced(parent, units, rescaled=r) for r in (False, True))
    for name in ("W2", "W3"):
        torch.testing.assert_close(scaled[name], plain[name] * 10**0.5)
        total = scaled[name].square().sum(2).mean() / parent[name].square().sum(1).mean()
        assert float(total) == pytest.approx(1.0, abs=0.1)
    torch.testing.assert_close(scaled["W1"], plain["W1"])


def test_every_unit_is_kept_by_its_share_of_the_masks() -> None:
    for units in runs.drawn_units(3, 600, 20, 5):
        counts = np.bincount(units.flatten().numpy(), minlength=20)
        assert np.all(np.abs(counts - 150) < 5 * (600 * 0.25 * 0.75) ** 0.5)
    few, many = (runs.drawn_units(3, k, 20, 5)[0] for k in (4, 9))
    torch.testing.assert_close(few, many[:4])


def test_initial_losses_are_those_of_sklearn(digits: Dataset) -> None:
    run = runs.searched(digits, **TINY)
    seed = TINY["group"][1]["seed"]
    parent = networks(64, [12, 12], 10, [seed]).member(0)
    units = runs.drawn_units(seed, 5, 12, 4)
    x = (digits.x_train / digits.x_train.std())[:30]
    for k in range(5):
        outputs = masked(parent, (units[0][k], units[1][k]), x).double().numpy()
        expected = log_loss(digits.y_train[:30], softmax(outputs, 1), labels=range(10))
        assert run["losses"][1, k] == pytest.approx(expected, abs=1e-5)
        assert run["spreads"][1, k] == pytest.approx(outputs.std(ddof=1), rel=1e-4)


def test_choices_are_the_extremes_and_search_among_one_is_the_draw(digits: Dataset) -> None:
    run = runs.searched(digits, **TINY)
    for losses, spreads, chosen in zip(run["losses"], run["spreads"], run["chosen"], strict=True):
        best = losses.argmin()
        few = losses[:2].argmin()
        assert list(chosen) == [best, 0, losses.argmax(), few, spreads.argmin(), best, 0]
    alone = runs.searched(digits, **(TINY | {"n_masks": 1, "few": 1}))
    for arm in range(1, 5):
        np.testing.assert_array_equal(alone["curves"][:, 0], alone["curves"][:, arm])


def test_all_units_are_the_parent(digits: Dataset) -> None:
    run = runs.searched(digits, **(TINY | {"keep": 12, "rescaled": True}))
    parent = runs.dense(digits, group=TINY["group"], every=2, **SHARED)
    np.testing.assert_allclose(run["curves"][:, 0], parent["curves"], atol=1e-9)
    np.testing.assert_allclose(run["losses"][:, 0], parent["loss"], atol=1e-6)


def test_what_search_finds_is_the_smallest_of_many_numbers(digits: Dataset) -> None:
    """(mean - least) over the standard deviation against E[max of K normals]."""
    assert expected_most(2) == pytest.approx(np.pi**-0.5, abs=1e-6)
    assert expected_most(50) == pytest.approx(2.249, abs=1e-3)
    group = [{"seed": s} for s in range(16)]
    run = runs.searched(digits, **(TINY | {"group": group, "n_masks": 50, "width": 60, "steps": 2}))
    losses = run["losses"]
    found = (losses.mean(1) - losses.min(1)) / losses.std(1, ddof=1)
    assert found.mean() == pytest.approx(expected_most(50), abs=5 * 0.46 / 16**0.5)


def test_frames_hold_what_was_run(digits: Dataset) -> None:
    cases = [
        {"task": "labels", "rescaled": False, "keep": 4},
        {"task": "teacher", "rescaled": False, "keep": 4},
    ]
    some = {"n_masks": 5, "few": 2, "every": 2, "group": 2, **SHARED}
    frame = experiment.course_frame(digits, [0, 3], cases, **some)
    run = runs.searched(digits, **TINY)
    expected = run["curves"][:, 0, -1] - run["curves"][:, 1, -1]
    found = experiment.gained(frame, keep=4)
    np.testing.assert_allclose(found, expected)
    assert list(found.index) == [0, 3]
    course = run["curves"][:, 0].mean(1) - run["curves"][:, 1].mean(1)
    np.testing.assert_allclose(experiment.gained(frame, keep=4, step=-1), course)
    best = frame[(frame.arm == "searched") & (frame.task == "labels")].groupby("seed").loss.first()
    np.testing.assert_allclose(best, run["losses"].min(1) - run["losses"].mean(1))
    with pytest.raises(ValueError, match="keep 5"):
        experiment.gained(frame, keep=5)
    full = experiment.dense_frame(digits, [3], every=2, group=1, **SHARED)
    alone = experiment.gain(frame, 4, full)
    assert list(alone.index) == [3]
    masks = experiment.mask_frame(digits, [0], cases[0], **some)
    assert len(masks) == 5
    assert masks.loss[masks.kind == "searched"].item() == masks.loss.min()


def test_repeatability_by_hand() -> None:
    """Masks whose scores are their number, and losses that run the other way."""
    number = np.arange(5.0)
    scores = {f"score_{i}{j}": number for i in (0, 1) for j in (0, 1)}
    table = pd.DataFrame({"keep": 3, "seed": 7, "loss": -number, "early_loss": number, **scores})
    told = experiment.studied(table, 3)
    assert list(told.index) == [7]
    row = told.loc[7]
    assert row[["loss", "early_loss", "repeats", "selected", "searched"]].tolist() == pytest.approx(
        [-1.0, 1.0, 1.0, 2.0, 2.0]
    )


def test_figures_draw(digits: Dataset) -> None:
    case = {"task": "labels", "rescaled": False, "keep": 4}
    some = {"n_masks": 5, "few": 2, "every": 2, "group": 2, **SHARED}
    cases = [case, case | {"rescaled": True}]
    frame = experiment.course_frame(digits, [0, 3], cases, **some)
    masks = experiment.mask_frame(digits, [0], case, **some)
    study = {"n_masks": 6, "early": 2, "group": 1, **SHARED}
    repeats = experiment.repeat_frame(digits, [0], [4], **study)
    courses = frame[frame.arm.isin(plots.SHOWN)][["arm", "seed", "step", "score"]]
    first = plots.search_panels(masks, courses, repeats)
    link = pd.DataFrame({"sparsity": 0.9, "measure": ["spikes", "|correlation|"] * 2, "value": 0.1})
    second = plots.gain_panels(experiment.shown_gains(frame, 2), link, 2)
    for figure in (first, second):
        assert len(figure.axes) == 4
        plt.close(figure)
