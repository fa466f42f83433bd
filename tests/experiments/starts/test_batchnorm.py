"""starts.batchnorm_*: arms, what they train, ablations, frames and panels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rclib.data.images import Dataset, load
from rclib.experiments.starts import batchnorm_only as experiment
from rclib.experiments.starts import batchnorm_runs as stored
from rclib.experiments.starts import plots_batchnorm as plots
from rclib.nets.resnet import ResNet
from rclib.nets.stack import stack

NET: dict[str, Any] = {
    "pool": 1, "n": 120, "batch_size": 40, "rate": 0.1, "decay": 1e-4, "steps": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits").subset(200, 60)


@pytest.mark.parametrize(
    ("arm", "wanted"),
    [
        ("all", {"stem_K", "stem_gain", "stem_shift", "out_W", "out_B", "1_0_short_K"}),
        ("BN only", {"stem_gain", "stem_shift"}),
        ("random-2", {"stem_V"}),
        ("output only", {"out_W", "out_B"}),
        ("shortcuts only", {"1_0_short_K"}),
        ("BN + output", {"stem_gain", "stem_shift", "out_W", "out_B"}),
        ("shared", {"stem_gain", "stem_shift"}),
    ],
)
def test_an_arm_trains_what_it_says_and_nothing_else(arm: str, wanted: set[str]) -> None:
    names = {"stem_K", "stem_gain", "stem_shift", "out_W", "out_B", "1_0_short_K"}
    if arm == "random-2":
        names |= {"stem_V"}
    assert {name for name in names if stored.trained_by(arm, name)} == wanted
    with pytest.raises(ValueError, match="arm must be"):
        stored.trained_by("nothing", "stem_K")


def test_runs_are_those_of_their_arms(data: Dataset) -> None:
    arms = {"main": ["all", "BN only", "random-2", "output only", "shared"], "deep": ["BN only"]}
    sizes = {"main": [1, 4], "deep": [2, 4]}
    trained = experiment.resnets(data, [0, 1], arms, sizes, NET)
    ends = experiment.ends(trained).set_index(["size", "arm", "seed"]).sort_index()
    # Starts of a seed are alike; frozen convolutions do not move, and gains only where trained.
    starts = ends.start.unstack("arm").loc["main"]
    for arm in ("BN only", "output only"):
        assert starts[arm].tolist() == starts["all"].tolist()
    moved = ends.moved.unstack("arm").loc["main"]
    assert (moved[["BN only", "output only", "shared"]] == 0).all().all()
    assert (moved["all"] > moved["random-2"]).all()
    assert (moved["random-2"] > 0).all()
    assert (ends.loc["main", "output only"].spread == 1).all()
    assert ends.loc["main", "BN only"].parameters.tolist() == [28 * 4 + 14 * 4] * 2
    assert ends.loc["main", "shared"]["rows"].isna().all()
    frame = ends.reset_index()
    gap = experiment.between(frame, "accuracy", ("main", "all"), ("main", "BN only"))
    by_hand = ends.accuracy["main", "all", 1] - ends.accuracy["main", "BN only", 1]
    assert gap[1] == by_hand
    with pytest.raises(KeyError):
        experiment.between(frame, "accuracy", ("deep", "all"), ("main", "all"))

    density = experiment.gains(trained, "main", ["BN only", "all"])
    assert set(density.arm) == {"start", "BN only", "all"}
    start = density[density.arm == "start"]
    assert float((start.density * 0.1).sum()) == pytest.approx(1.0)
    assert start[(start.gain < 0) | (start.gain > 1)].density.max() == 0
    layers = experiment.layers(trained, "main", ["BN only"])
    assert layers.layer.tolist() == list(range(9))
    run = trained.runs[2]
    own = np.mean([np.abs(trained.runs[i]["gains"][run["layer"] == 0]) < 0.05 for i in (2, 3)])
    assert layers.off[0] == pytest.approx(own)
    ablation = experiment.ablation(trained, "main", ["BN only"])
    assert (ablation[ablation.fraction == 0].lost == 0).all()
    assert len(ablation) == 2 * 2 * (1 + len(stored.FRACTIONS))
    rows = frame[["size", "arm", "seed", "accuracy"]]
    assert len(plots.batchnorm_panels(rows, density, layers, ablation).axes) == 4


def test_gains_are_set_to_zero_in_the_order_of_their_size(data: Dataset) -> None:
    model = ResNet(side=8, depth=1, width=4, colours=1, seed=1)
    nets = stack([model])
    gains = [name for name in nets.tensors if name.endswith("_gain")]
    nets.tensors["stem_gain"][0, 0] = 0.005
    found = stored._without(nets, gains, [0], data.x_test, data.y_test)
    flat = torch.cat([nets.tensors[name][0] for name in gains])
    assert int((flat.abs() < 0.01).sum()) >= 1
    cut = round(0.3 * len(flat))
    level = flat.abs().sort().values[cut]
    by_hand = {
        name: t.masked_fill(t.abs() < level, 0.0) if name in gains else t
        for name, t in nets.tensors.items()
    }
    out = nets.each(by_hand, data.x_test[None])
    accuracy = float((out[0].argmax(-1) == data.y_test).double().mean())
    assert float(found["zeroed"][0, 0, 3]) == pytest.approx(accuracy)
    small = {
        name: t.masked_fill(t.abs() < 0.01, 0.0) if name in gains else t
        for name, t in nets.tensors.items()
    }
    out = nets.each(small, data.x_test[None])
    accuracy = float((out[0].argmax(-1) == data.y_test).double().mean())
    assert float(found["small"][0, 0]) == pytest.approx(accuracy)


def test_correlations_see_what_is_put_in() -> None:
    nets = stack([ResNet(side=8, depth=1, width=8, colours=1, seed=s) for s in (0, 1)])
    gains = [name for name in nets.tensors if name.endswith("_gain")]
    before = stored._correlations(nets, gains)
    for base, reader in stored.NEXT.items():
        gain = nets.tensors[f"{base}_gain"]
        nets.tensors[f"{reader}_K"] *= (gain[:, None, :, None, None] + 0.1) * 3
    after = stored._correlations(nets, gains)
    assert (after["columns"] > 2).all()
    assert (after["columns"] > before["columns"]).all()
    assert before["rows"].abs().max() < 2


def test_the_effective_matrix_has_its_scales(data: Dataset) -> None:
    model = ResNet(side=8, depth=1, width=4, colours=1, seed=0)
    nets = stack([model])
    sample = data.x_train[None, :50]
    alpha, kurtosis = stored._effective(nets, model, sample)
    sigma = model.deviations(nets.member(0), data.x_train[:50])[stored.LAST].double()
    factor = (nets.tensors[f"{stored.LAST}_gain"][0].double() / sigma).abs()
    z = factor - factor.mean()
    assert float(kurtosis[0]) == pytest.approx(float((z**4).mean() / (z**2).mean() ** 2))
    assert float(alpha[0]) > 1
    # A larger gain for one channel makes it heavier.
    nets.tensors[f"{stored.LAST}_gain"][0, 0] *= 30
    heavier, _ = stored._effective(nets, model, sample)
    assert float(heavier[0]) < float(alpha[0])
