"""Whole runs against a torch training loop, and the record against the definitions."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from rclib.spectral import spectra
from rclib.teacher import evaluation
from rclib.teacher import problem as teacher
from rclib.teacher.record import QUANTITIES, Divergence, train_student

SIZES = {"d": 20, "h": 30, "n": 60, "n_test": 10}


def problem(seed: int = 0, dtype: type = np.float64) -> teacher.Problem:
    return teacher.make_problem(seed, dtype=dtype, **SIZES)  # type: ignore[arg-type]


def torch_run(p: teacher.Problem, name: str, rate: float, gamma: float, steps: int) -> list:
    """W_0 .. W_T of the same training with autograd, torch.optim and StepLR."""
    X, y, a = (torch.from_numpy(v.copy()) for v in (p.X, p.y, p.a))
    W = torch.nn.Parameter(torch.from_numpy(p.W0.copy()))
    optimizer = (torch.optim.SGD if name == "gd" else torch.optim.Adam)([W], lr=rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=gamma)
    path = [p.W0]
    for _ in range(steps):
        optimizer.zero_grad()
        out = torch.tanh(X @ W.T / W.shape[1] ** 0.5) @ a / W.shape[0] ** 0.5
        torch.nn.functional.mse_loss(out, y).backward()
        optimizer.step()
        schedule.step()
        path.append(W.detach().numpy().copy())
    return path


@pytest.mark.parametrize(("name", "rate"), [("gd", 30.0), ("adam", 0.5)])
@pytest.mark.parametrize("gamma", [1.0, 0.6])
def test_a_run_is_that_of_torch(name: str, rate: float, gamma: float) -> None:
    p = problem()
    path = torch_run(p, name, rate, gamma, 6)
    record = train_student(
        p, optimizer=name, rate=rate, steps=6, gamma=gamma, quantities=QUANTITIES
    )
    assert record.steps.tolist() == list(range(7))
    assert record.update_steps.tolist() == list(range(6))
    assert record.diverged_at == -1
    for t, W in enumerate(path):
        assert np.allclose(record["weights"][t], W, rtol=1e-6, atol=1e-8)
        sigma = np.linalg.svd(W, compute_uv=False)[::-1]
        assert np.allclose(record["eigenvalues"][t], sigma**2, rtol=1e-5)
        assert record["alignment"][t] == pytest.approx(spectra.alignment(W, p.beta), rel=1e-4)
        for way, end in (("equations", ""), ("released", "_released")):
            for key, value in vars(evaluation.evaluate_both(p, W)[way]).items():
                assert record[key + end][t] == pytest.approx(value, rel=1e-5)
        assert record["weight_counts"][t].sum() == W.size
        assert record["weight_edges"][t][[0, -1]] == pytest.approx([W.min(), W.max()])
        for method in ("hill", "ks"):
            fit = spectra.power_law(record["eigenvalues"][t], method)
            assert record[f"alpha_{method}"][t] == fit.alpha
            assert record[f"alpha_{method}_error"][t] == fit.standard_error
            assert record[f"tail_{method}"][t] == fit.tail
    for t, (W, following) in enumerate(pairwise(path)):
        M = following - W
        sigma = np.linalg.svd(M, compute_uv=False)[::-1]
        largest = sigma[-1] ** 2
        assert np.allclose(
            record["update_eigenvalues"][t], sigma**2, rtol=1e-5, atol=1e-8 * largest
        )
        assert record.batch_loss[t] == pytest.approx(
            np.mean((teacher.student(W, p.a, p.X) - p.y) ** 2), rel=1e-6
        )
        for when, weights in (("before", W), ("after", following)):
            left, right = spectra.overlaps(weights, M)
            # The leading directions; those of tiny singular values of M are not determined.
            assert np.allclose(record[f"overlap_left_{when}"][t][:, 0], left[:, 0], atol=1e-4)
            assert np.allclose(record[f"overlap_right_{when}"][t][:, 0], right[:, 0], atol=1e-4)


def test_a_part_of_the_record_is_the_same_part() -> None:
    p = problem(dtype=np.float32)
    options = {"optimizer": "adam", "rate": 1.0, "steps": 5}
    whole = train_student(p, quantities=QUANTITIES, **options)  # type: ignore[arg-type]
    for quantity in QUANTITIES:
        part = train_student(p, quantities=[quantity], record_at=[4, 0], **options)  # type: ignore[arg-type]
        assert part.steps.tolist() == [0, 4]
        assert part.values
        for name, value in part.values.items():
            assert np.array_equal(value, whole[name][[0, 4]]), name
    assert np.array_equal(part.batch_loss, whole.batch_loss)
    nothing = train_student(p, record_at=[], **options)  # type: ignore[arg-type]
    assert np.array_equal(nothing.batch_loss, whole.batch_loss)


def test_losses_at_their_own_steps() -> None:
    p = problem()
    options = {"optimizer": "adam", "rate": 1.0, "steps": 3}
    whole = train_student(p, **options)  # type: ignore[arg-type]
    part = train_student(p, losses_at=[0, 3], **options)  # type: ignore[arg-type]
    for name, value in whole.values.items():
        losses = name.split("_released")[0] in ("train_loss", "test_loss", "test_loss_clean", "kta")
        rows = [0, 3] if losses else [0, 1, 2, 3]
        assert np.array_equal(part[name][rows], value[rows]), name
        assert not losses or np.isnan(part[name][[1, 2]]).all()


def test_runs_on_one_problem_do_not_disturb_each_other() -> None:
    """The shared start is as good as a fresh one, and stays as it was."""
    p = problem()
    train_student(p, optimizer="adam", rate=10.0, steps=3)
    train_student(p, optimizer="gd", rate=3.0, steps=3, ridge=0.5)
    again = train_student(p, optimizer="adam", rate=0.1, steps=3)
    fresh = train_student(problem(), optimizer="adam", rate=0.1, steps=3)
    assert np.array_equal(p.W0, problem().W0)
    for name, value in fresh.values.items():
        assert np.array_equal(value, again[name])


def test_any_schedule() -> None:
    p = problem()
    rates = [0.5, 0.0, 0.2]
    record = train_student(
        p, optimizer="gd", rate=rates, steps=3, quantities=["weights", "updates"]
    )
    W = record["weights"]
    assert np.array_equal(W[1], W[2])
    gradient = teacher.loss_and_gradient(W[2], p.a, p.X, p.y)[1]
    assert np.allclose(W[3], W[2] - 0.2 * gradient, rtol=1e-12)
    # A rate of zero makes an update without direction.
    assert np.isnan(record["update_alignment"][1])
    assert not record["update_eigenvalues"][1].any()


@pytest.mark.parametrize("name", ["gd", "adam"])
@pytest.mark.parametrize("rate", [0.001, 3000.0])
def test_extreme_rates_of_the_paper_stay_finite(name: str, rate: float) -> None:
    record = train_student(
        problem(dtype=np.float32), optimizer=name, rate=rate, steps=10, quantities=QUANTITIES
    )
    assert record.diverged_at == -1
    for array in record.arrays().values():
        assert np.isfinite(array).all()


@pytest.mark.filterwarnings("error")
def test_a_diverging_run_is_an_error_or_a_record() -> None:
    p = problem(dtype=np.float32)
    options = {"optimizer": "adam", "rate": [1.0, 1e38, 1e38, 1.0], "steps": 4}
    with pytest.raises(
        Divergence, match=r"not finite after step \d, learning rate 1e\+38"
    ) as caught:
        train_student(p, **options)  # type: ignore[arg-type]
    assert caught.value.step in (2, 3)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    record = train_student(p, keep_diverged=True, quantities=QUANTITIES, **options)  # type: ignore[arg-type]
    at = record.diverged_at
    assert at == caught.value.step
    sound = train_student(p, optimizer="adam", rate=1.0, steps=1, quantities=QUANTITIES)
    assert sound.values.keys() == record.values.keys()
    for name, value in sound.values.items():
        assert value.shape[1:] == record[name].shape[1:]
        assert np.array_equal(record[name][0], value[0])
    for name in ("train_loss", "kta", "alignment", "alpha_ks", "eigenvalues"):
        assert np.isnan(record[name][at:]).all()
        assert np.isfinite(record[name][: at - 1]).all()


def test_a_rate_beyond_float32_diverges_at_once() -> None:
    p = problem(dtype=np.float32)
    with pytest.raises(Divergence, match=r"weights are not finite after step 1.*1e\+300"):
        train_student(p, optimizer="gd", rate=1e300, steps=2)


def test_bad_arguments() -> None:
    p = problem()
    with pytest.raises(ValueError, match=r"quantities must be out of.*'loss'"):
        train_student(p, optimizer="gd", rate=1.0, quantities=["loss"])
    with pytest.raises(ValueError, match="record_at must hold steps from 0 to 3, got 4"):
        train_student(p, optimizer="gd", rate=1.0, steps=3, record_at=[0, 4])
    with pytest.raises(ValueError, match="losses_at must hold steps from 0 to 3, got 4"):
        train_student(p, optimizer="gd", rate=1.0, steps=3, losses_at=[4])
    with pytest.raises(ValueError, match="rate must be finite and not negative, got -1"):
        train_student(p, optimizer="gd", rate=-1.0)
    with pytest.raises(ValueError, match="overlap_top must be a positive integer, got 0"):
        train_student(p, optimizer="gd", rate=1.0, overlap_top=0)
    with pytest.raises(ValueError, match="ridge must be positive and finite, got 0"):
        train_student(p, optimizer="gd", rate=1.0, ridge=0.0)
    with pytest.raises(ValueError, match="optimizer must be one of"):
        train_student(p, optimizer="rmsprop", rate=1.0)
