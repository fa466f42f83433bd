"""GD, Adam and the schedule against torch.optim."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rclib.training.descent import Adam, make_descent, step_rates


@pytest.mark.parametrize("name", ["gd", "adam"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updates_are_those_of_torch(name: str, dtype: type) -> None:
    """Twelve steps on given gradients of very different size, StepLR every second step."""
    rng = np.random.default_rng(0)
    W = rng.normal(size=(7, 5)).astype(dtype)
    gradients = [
        (rng.normal(size=W.shape) * 10.0 ** rng.integers(-9, 2)).astype(dtype) for _ in range(12)
    ]
    gradients[4][:, 0] = 0.0
    rates = step_rates(0.3, 12, gamma=0.6, every=2)

    parameter = torch.nn.Parameter(torch.from_numpy(W.copy()))
    kind = torch.optim.SGD if name == "gd" else torch.optim.Adam
    reference = kind([parameter], lr=0.3)
    schedule = torch.optim.lr_scheduler.StepLR(reference, step_size=2, gamma=0.6)
    ours = make_descent(name)
    for gradient, rate in zip(gradients, rates, strict=True):
        assert reference.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-12)
        kept = gradient.copy()
        update = ours.update(gradient, float(rate))
        W = W + update
        assert update.dtype == dtype
        assert np.array_equal(gradient, kept)
        parameter.grad = torch.from_numpy(gradient)
        reference.step()
        schedule.step()
        tolerance = 1e-12 if dtype is np.float64 else 2e-6
        assert np.allclose(W, parameter.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_first_adam_step_is_the_sign_times_the_rate() -> None:
    gradient = np.array([[3.0, -1e-3], [0.0, 50.0]])
    update = Adam().update(gradient, 2.0)
    assert np.allclose(update, -2.0 * np.sign(gradient), rtol=1e-4)


def test_any_schedule_as_a_sequence() -> None:
    assert step_rates([3.0, 2.0, 7.0], 3).tolist() == [3.0, 2.0, 7.0]
    assert step_rates(2.0, 0).shape == (0,)


def test_adam_keeps_to_one_shape_and_dtype() -> None:
    adam = Adam()
    adam.update(np.ones((2, 3), np.float32), 0.1)
    for other in (np.ones(3, np.float32), np.ones((2, 3))):
        with pytest.raises(ValueError, match=r"gradient must be float32 of shape \(2, 3\), as the"):
            adam.update(other, 0.1)
    assert adam.steps == 1


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"optimizer must be one of.*got 'sgd'"):
        make_descent("sgd")
    for bad in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"rate must be finite.*, got {bad}"):
            step_rates(bad, 3)
        with pytest.raises(ValueError, match=rf"rate must be finite.*, got {bad}"):
            step_rates([1.0, bad, 1.0], 3)
    with pytest.raises(ValueError, match=r"rate must be one number or 3 numbers, got shape \(2,\)"):
        step_rates([1.0, 2.0], 3)
    with pytest.raises(ValueError, match="gamma must be positive and finite, got 0"):
        step_rates(1.0, 3, gamma=0.0)
    with pytest.raises(ValueError, match="every must be an integer of at least 1, got 0"):
        step_rates(1.0, 3, every=0)
    with pytest.raises(ValueError, match="steps must be an integer of at least 0, got -1"):
        step_rates(1.0, -1)
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\), got 1"):
        Adam(b1=1.0)
    with pytest.raises(ValueError, match="eps must be positive, got 0"):
        Adam(eps=0.0)
