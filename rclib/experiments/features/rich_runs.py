"""Stored runs of notebook 75: features in three rounds, and what is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.experiments.features.rich_data import Coloured, coloured
from rclib.experiments.features.rich_nets import (
    Head,
    Net,
    discovery_loss,
    member,
    objective,
    synthesis_batches,
    synthesis_loss,
    targets,
    trained,
    with_mean_head,
)
from rclib.nets.stack import Stack
from rclib.runs.store import Arrays

__all__ = ["NETWORKS", "TINY", "first_layer", "rich_runs", "rounds"]

NETWORKS = ("start", "model 0", "model 1", "RFC")
TINY: dict[str, dict[str, Any]] = {
    "rich_runs": {
        "source": {"kind": "prototypes", "count": 4, "d": 6}, "seed": 0, "noise": 0.25,
        "flips": [0.1, 0.2], "tests": [0.9, 0.1], "n": 40, "n_test": 20, "hidden": 5, "decay": 1e-3,
        "steps": {"ERM": 2, "discovery": 3, "synthesis": 3, "whole": 2, "head": 4}, "rate": 5e-3,
        "head_rate": 1e-2, "whole": [["start", "vREx", 100.0, 0]],
        "heads": [["RFC", "IRMv1", 10.0, 5], ["RFC, same", "vREx", 10.0, 5]], "at": [0, 2],
    },
}  # fmt: skip


def rounds(
    own: Coloured, *, seed: int, hidden: int, steps: Mapping[str, int], rate: float, decay: float
) -> dict[str, Net]:
    """The networks of `NETWORKS`: the start, ERM stopped early, the model that finds another
    feature, and the synthesis of both with the mean of its heads."""
    x, y = own.x.flatten(0, 1), own.y.flatten()
    d = x.shape[1]
    options: dict[str, Any] = {"rate": rate, "decay": decay}
    nets = {"start": Net(d, hidden, seed=3 * seed)}
    given = targets(own.y, "none", 0.0)
    found, _ = trained(
        [nets["start"]], x[None], given[None], objective, steps=steps["ERM"], **options
    )
    nets["model 0"] = member(found, 0, d, hidden)
    right = _predicted(nets["model 0"], x) == y
    given = torch.stack([y, right.float()], 1)
    fresh = [Net(d, hidden, seed=3 * seed + 1)]
    found, _ = trained(
        fresh, x[None], given[None], discovery_loss, steps=steps["discovery"], **options
    )
    nets["model 1"] = member(found, 0, d, hidden)
    predicted = torch.stack([_predicted(nets[f"model {k}"], x) for k in (0, 1)], 1)
    batch = synthesis_batches(x, predicted, y, seed=seed)
    fresh = [Net(d, hidden, heads=2, seed=3 * seed + 2)]
    found, _ = trained(
        fresh, x[None], predicted[None], synthesis_loss, steps=steps["synthesis"], batch=batch,
        **options,
    )  # fmt: skip
    nets["RFC"] = with_mean_head(found, d, hidden)
    return nets


def _predicted(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = net(x)[:, 0]
    return (logits > 0).float()


def first_layer(net: Net) -> tuple[float, float, float]:
    """|cosine| of the top singular vector of W1, on the input's side, with the contrast of the two
    channels; correlation over neurons of the two channels' mean weights; share of the top
    singular value in Σ s²."""
    w = net.get_parameter("W1").detach().double()
    half = w.shape[1] // 2
    contrast = torch.cat([torch.ones(half), -torch.ones(half)]).double() / w.shape[1] ** 0.5
    _, s, right = torch.linalg.svd(w, full_matrices=False)
    means = torch.stack([w[:, :half].mean(1), w[:, half:].mean(1)])
    share = float(s[0] ** 2 / s.square().sum())
    return abs(float(right[0] @ contrast)), float(torch.corrcoef(means)[0, 1]), share


def rich_runs(
    data: Dataset | None, *, source: Mapping[str, Any], seed: int, noise: float,
    flips: Sequence[float], tests: Sequence[float], n: int, n_test: int, hidden: int, decay: float,
    steps: Mapping[str, int], rate: float, head_rate: float, whole: Sequence[Sequence[Any]],
    heads: Sequence[Sequence[Any]], at: Sequence[int],
) -> Arrays:  # fmt: skip
    """A stored run of one seed, which draws data and starts. Accuracies are by test environment.

    steps : of "ERM", "discovery", "synthesis", "whole" and "head" training. whole, heads : arms
    [network, penalty, λ, k], the first trained as a whole (network "start", "RFC", or "oracle",
    the start with colours that do not depend on labels, or "ERM <updates>", the start after so
    many of ERM), the second as a linear head on the fixed features of a network of `NETWORKS`,
    of which k, drawn by the seed, are kept (0: all); "<network>, same" trains with the mean e in
    every environment. at : updates at which test accuracies are recorded, beside the last.
    networks (4, T) : of `NETWORKS`. layers (4, 3) : `first_layer`. whole (A, M, T), heads (B, M, T)
    : at the M moments.
    """
    own = coloured(
        data, source, seed=seed, noise=noise, flips=flips, tests=tests, n=n, n_test=n_test
    )
    nets = rounds(own, seed=seed, hidden=hidden, steps=steps, rate=rate, decay=decay)
    found = {
        "networks": np.stack([_right(net(own.test_x).squeeze(-1), own) for net in nets.values()]),
        "layers": np.array([first_layer(net) for net in nets.values()]),
    }
    options: dict[str, Any] = {"decay": decay, "at": at}
    if whole:
        found["whole"] = _whole(own, nets, whole, steps=steps["whole"], rate=rate, **options)
    if heads:
        found["heads"] = _heads(
            own, nets, heads, steps=steps["head"], rate=head_rate, seed=seed, **options
        )
    return found


def _right(logits: Tensor, own: Coloured) -> np.ndarray[Any, Any]:
    """Share of right answers (..., T) of logits (..., T, m)."""
    with torch.no_grad():
        return ((logits > 0) == (own.test_y > 0.5)).double().mean(-1).numpy()


def _moments(at: Sequence[int], steps: int) -> list[int]:
    return sorted({int(t) for t in at if t < steps} | {steps})


def _whole(
    own: Coloured, nets: Mapping[str, Net], arms: Sequence[Sequence[Any]], *, steps: int,
    rate: float, decay: float, at: Sequence[int],
) -> np.ndarray[Any, Any]:  # fmt: skip
    d, hidden = own.x.shape[2], len(nets["start"].get_parameter("B1"))
    models, inputs = [], []
    for name, *_ in arms:
        if str(name).startswith("ERM "):
            given = targets(own.y, "none", 0.0)[None]
            first, _ = trained(
                [nets["start"]], own.x.flatten(0, 1)[None], given, objective, rate=rate,
                steps=int(str(name).removeprefix("ERM ")), decay=decay,
            )  # fmt: skip
            models.append(member(first, 0, d, hidden))
        else:
            models.append(nets["start" if name == "oracle" else str(name)])
        inputs.append((own.plain if name == "oracle" else own.x).flatten(0, 1))
    return _followed(
        own,
        models,
        inputs,
        own.test_x.flatten(0, 1),
        arms,
        steps=steps,
        rate=rate,
        decay=decay,
        at=at,
    )


def _followed(
    own: Coloured, models: Sequence[Any], inputs: Sequence[Tensor], tests: Tensor,
    arms: Sequence[Sequence[Any]], *, steps: int, rate: float, decay: float, at: Sequence[int],
) -> np.ndarray[Any, Any]:  # fmt: skip
    """Arms trained on their inputs: accuracies (arms, moments, tests) on test inputs, one for all
    or by arm."""
    given = torch.stack([targets(own.y, penalty, strength) for _, penalty, strength, _ in arms])

    def looked(now: Stack) -> Tensor:
        logits = now(tests)[:, :, 0].view(len(arms), *own.test_y.shape)
        return torch.from_numpy(_right(logits, own))

    _, found = trained(
        models, torch.stack(list(inputs)), given, objective, steps=steps, rate=rate, decay=decay,
        strengths=[arm[2] for arm in arms], record={"looked": looked}, at=_moments(at, steps),
    )  # fmt: skip
    return found["looked"].transpose(0, 1).numpy()


def _heads(
    own: Coloured, nets: Mapping[str, Net], arms: Sequence[Sequence[Any]], *, steps: int,
    rate: float, decay: float, at: Sequence[int], seed: int,
) -> np.ndarray[Any, Any]:  # fmt: skip
    models, inputs, tests = [], [], []
    for name, _, _, k in arms:
        net = nets[str(name).removesuffix(", same")]
        x = own.same if str(name).endswith(", same") else own.x
        with torch.no_grad():
            features, test = net.features(x.flatten(0, 1)), net.features(own.test_x.flatten(0, 1))
        keep = torch.ones(features.shape[1])
        if k:
            order = torch.randperm(len(keep), generator=torch.Generator().manual_seed(seed))
            keep[order[int(k) :]] = 0.0
        weight = net.get_parameter("W3") * keep
        models.append(Head(weight, net.get_parameter("B3")))
        inputs.append(features * keep)
        tests.append(test * keep)
    return _followed(
        own, models, inputs, torch.stack(tests), arms, steps=steps, rate=rate, decay=decay, at=at
    )
