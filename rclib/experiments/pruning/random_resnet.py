"""The residual arm of notebook 42: ResNets under random masks, one at a time, channels last.

A ResNet of He et al. (2016) for CIFAR: one convolution of c channels, three groups of n blocks of
c, 2 c and 4 c channels on images of full, half and a quarter of the side, batch normalisation
(batch statistics, also when tested: the whole test set is one batch), shortcuts that skip pixels
and fill up channels with zeros, and a linear layer after the mean over pixels. 6 n + 2 layers have
weights.
Trained as in arXiv 2202.02643: SGD with momentum 0.9, rate 0.1 divided by ten at 1/2 and 3/4,
decay 5e-4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, cross_entropy, linear, pad

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.experiments.pruning.data_diet_runs import images
from rclib.nets.densities import erdos_renyi, random_masks, uniform
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_orders

__all__ = ["TINY", "ResNet", "residual_frame", "residual_network"]

TINY: dict[str, dict[str, Any]] = {
    "residual_network": {
        "seed": 0, "channels": 2, "blocks": 1, "scheme": "ER", "density": 0.3, "pool": 1, "n": 40,
        "batch_size": 20, "steps": 3, "rate": 0.1, "decay": 5e-4,
    },
}  # fmt: skip
FORMS = {"ER": erdos_renyi, "uniform": uniform}  # ER is ER-kernel: these are convolutions


class ResNet(nn.Module):
    """Images (n, colours, side, side) -> (n, classes), side a multiple of 4.

    Parameters: K0, the first convolution; K1, ... (out, in, 3, 3); W (classes, 4 channels); G, B of
    the same number, gains and shifts after a convolution; B, the output's bias. Weights are
    N(0, 2 / fan-in), the output's N(0, 1 / fan-in), by the seed alone.
    """

    def __init__(
        self, *, colours: int, channels: int, blocks: int, classes: int, seed: int
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        planes = [channels * 2**group for group in range(3) for _ in range(2 * blocks)]
        inputs = [colours, channels, *planes[:-1]]
        for k, (out, fan) in enumerate(zip([channels, *planes], inputs, strict=True)):
            draw = torch.randn((out, fan, 3, 3), generator=generator)
            kernel = (draw * math.sqrt(2 / (9 * fan))).contiguous(memory_format=torch.channels_last)
            self.register_parameter(f"K{k}", nn.Parameter(kernel))
            self.register_parameter(f"G{k}", nn.Parameter(torch.ones(out)))
            self.register_parameter(f"B{k}", nn.Parameter(torch.zeros(out)))
        last = torch.randn((classes, planes[-1]), generator=generator) / math.sqrt(planes[-1])
        self.W, self.B = nn.Parameter(last), nn.Parameter(torch.zeros(classes))
        self.convolutions, self.blocks = len(planes) + 1, blocks

    def _layer(self, h: Tensor, k: int, stride: int = 1) -> Tensor:
        p = self._parameters
        h = conv2d(h, p[f"K{k}"], stride=stride, padding=1)  # type: ignore[arg-type]
        return batch_norm(h, None, None, p[f"G{k}"], p[f"B{k}"], training=True)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, classes)."""
        h = torch.relu(self._layer(x, 0))
        for k in range(1, self.convolutions, 2):
            # The first block of the second and third group halves the side.
            stride = 2 if k > 1 and (k - 1) % (2 * self.blocks) == 0 else 1
            inner = self._layer(torch.relu(self._layer(h, k, stride)), k + 1)
            if stride == 2:
                h = pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 0, inner.shape[1] - h.shape[1]))
            h = torch.relu(h + inner)
        return linear(h.mean((2, 3)), self.W, self.B)

    def weights(self) -> dict[str, nn.Parameter]:
        """What is pruned: kernels and the last matrix, in the order of the layers."""
        return {name: p for name, p in self.named_parameters() if p.ndim > 1}


def residual_network(
    data: Dataset, *, seed: int, channels: int, blocks: int, scheme: str, density: float,
    pool: int, n: int, batch_size: int, steps: int, rate: float, decay: float,
) -> Arrays:  # fmt: skip
    """Stored run: a `ResNet` trained on n images under a random mask of `FORMS`, or "dense".

    Start, images and batches of a seed are the same for every scheme. accuracy (), nll () : test,
    at the end. loss () : mean of the last tenth of the batches. kept (L,), sizes (L,) : weights by
    layer. Raises ValueError for another scheme.
    """
    colours = 3 if data.name == "cifar10" else 1
    x, x_test = (_pictures(part, colours) for part in images(data, pool))
    net = ResNet(
        colours=colours, channels=channels, blocks=blocks, classes=data.n_classes, seed=seed
    )
    weights = net.weights()
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in weights.items()}
    if choice("scheme", scheme, ("dense", *FORMS)) != "dense":
        shapes = {name: tuple(p.shape) for name, p in weights.items()}
        drawn = random_masks(shapes, FORMS[scheme](shapes, density), [5_000_000 + seed])
        masks = {name: mask[0] for name, mask in drawn.items()}
    own = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n]
    order = epoch_orders(len(own), batch_size, [seed])
    sgd = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    drops = torch.optim.lr_scheduler.MultiStepLR(sgd, [steps // 2, 3 * steps // 4])
    with torch.no_grad():
        for name, p in weights.items():
            p.masked_fill_(~masks[name], 0.0)
    losses = []
    for step in range(steps):
        places = own[order(step)[0]]
        sgd.zero_grad()
        loss = cross_entropy(net(x[places]), data.y_train[places])
        loss.backward()  # type: ignore[no-untyped-call]
        for name, p in weights.items():
            assert p.grad is not None
            p.grad.masked_fill_(~masks[name], 0.0)
        sgd.step()
        drops.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        log_p = net(x_test).log_softmax(-1).double()
    found = {
        "accuracy": (log_p.argmax(-1) == data.y_test).double().mean(),
        "nll": -log_p.gather(1, data.y_test[:, None]).mean(),
        "loss": np.mean(losses[-max(1, steps // 10) :]),
        "kept": [int(mask.sum()) for mask in masks.values()],
        "sizes": [mask.numel() for mask in masks.values()],
    }
    return {name: np.asarray(value) for name, value in found.items()}


def _pictures(x: Tensor, colours: int) -> Tensor:
    side = math.isqrt(x.shape[1] // colours)
    shaped = x.float().view(len(x), colours, side, side)
    return shaped.contiguous(memory_format=torch.channels_last)


def residual_frame(
    data: Dataset, seeds: Sequence[int], plan: Sequence[Mapping[str, Any]], **settings: Any
) -> pd.DataFrame:
    """channels, blocks, layers, scheme, density, seed, weights, accuracy, nll, loss, and gap:
    accuracy over that of the dense network of this size and seed.

    plan : mappings with channels, blocks and schemes (name -> densities), "dense" not among them.
    settings : what `residual_network` gets besides.
    """
    keys = [
        {"channels": entry["channels"], "blocks": entry["blocks"], "scheme": scheme,
         "density": float(density), "seed": seed}
        for entry in plan
        for scheme, densities in {"dense": [1.0], **entry["schemes"]}.items()
        for density in densities
        for seed in seeds
    ]  # fmt: skip
    configs = [{**settings, **key} for key in keys]
    runs = sweep.run(residual_network, configs, data=data, description="residual networks")
    frame = pd.DataFrame(keys)
    frame["layers"] = 6 * frame.blocks + 2
    frame["weights"] = [int(run["kept"].sum()) for run in runs]
    for name in ("accuracy", "nll", "loss"):
        frame[name] = [float(run[name]) for run in runs]
    size = ["channels", "blocks", "seed"]
    dense = frame[frame.scheme == "dense"].set_index(size).accuracy
    frame["gap"] = frame.accuracy - dense.loc[pd.MultiIndex.from_frame(frame[size])].to_numpy()
    return frame
