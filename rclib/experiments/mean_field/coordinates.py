"""Coordinate check: how activations and their changes scale with the width (Table 1).

For one network, the root mean square over neurons and probe inputs of
- z_l(0), the pre-activation at the start,
- z_l(t) - z_l(0), its change after t steps,
- m_l (W_l(t) - W_l(0)) h_{l-1}(0) + B_l(t) - B_l(0), the layer's own update, which leaves out
  what the layers below have done.
Slopes against the width in log-log are the exponents that a parametrisation's table implies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rclib.data.images import Dataset
from rclib.experiments.mean_field.mlp_runs import build_mlp
from rclib.training.classifier import make_step

__all__ = ["coordinate_check"]


def coordinate_check(
    data: Dataset,
    *,
    network: Mapping[str, Any],
    seed: int,
    optimizer: str,
    lr: float,
    steps: Sequence[int],
    batch_size: int,
    probes: int = 64,
) -> dict[str, np.ndarray]:
    """Returns `start` (L,) = rms z_l(0); `change` and `update` (len(steps), L), see above.

    Runs in float64, so that a single small step is resolved. The probe inputs are the first
    `probes` of a seeded order of the test set; batches are drawn from the training set. Raises
    ValueError unless the steps are increasing and positive.
    """
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1:
        raise ValueError(f"steps must be increasing and positive, got {list(steps)}")
    generator = torch.Generator().manual_seed(seed)
    model = build_mlp(data, network, seed=seed).double()
    step = make_step(model, lr=lr, optimizer=optimizer)
    probe = data.x_test[torch.randperm(len(data.x_test), generator=generator)[:probes]].double()
    with torch.no_grad():
        start, inputs = model.forward_all(probe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    change = np.zeros((len(steps), model.depth))
    update = np.zeros_like(change)
    done = 0
    for row, upto in enumerate(steps):
        for _ in range(upto - done):
            batch = torch.randint(len(data.x_train), (batch_size,), generator=generator)
            step(data.x_train[batch].double(), data.y_train[batch])
        done = upto
        with torch.no_grad():
            now = model.preactivations(probe)
            moved = {name: p - before[name] for name, p in model.named_parameters()}
            own = [
                model.multiplier(layer) * (inputs[layer - 1] @ moved[f"W{layer}"].t())
                + moved.get(f"B{layer}", torch.zeros(()))
                for layer in range(1, model.depth + 1)
            ]
        change[row] = [_rms(b - a) for a, b in zip(start, now, strict=True)]
        update[row] = [_rms(z) for z in own]
    return {"start": np.array([_rms(z) for z in start]), "change": change, "update": update}


def _rms(z: torch.Tensor) -> float:
    return float(z.square().mean().sqrt())
