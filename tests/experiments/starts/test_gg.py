"""starts.gg_*: formats, BackSlash, networks and language models from GG starts, frames, panels."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import entropy, gennorm, spearmanr

from rclib.data.images import Dataset, load
from rclib.data.text import TextData
from rclib.experiments.starts import gg_formats as formats
from rclib.experiments.starts import gg_lm, gg_runs
from rclib.experiments.starts import gg_priors as experiment
from rclib.experiments.starts import plots_gg as plots
from rclib.nets.gpt import build_gpt
from rclib.nets.stack import stack
from rclib.stats.generalized_gaussian import GeneralizedGaussian, fit, shape_by_moments
from rclib.training.stacked import epoch_batches, train_stack
from rclib.training.stacked_optimizers import Settings

NET: dict[str, Any] = {
    "width": 12, "pool": 1, "n": 200, "batch_size": 50, "optimizer": "momentum", "rate": 0.05,
    "decay": 0.0, "steps": 12, "moments": [0, 6], "tune": 3, "compress": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


def normal(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def test_rf8_is_exact_on_sums_of_two_powers() -> None:
    exact = torch.tensor([0.0, 1.0, -0.25, 1.5, 1.25, 1 + 1 / 16, -(2.0**-9) * 1.25])
    assert torch.equal(formats.to_rf8(exact), exact)
    # A second power more than four places below the first is dropped.
    assert formats.to_rf8(torch.tensor([1 + 1 / 64])).tolist() == [1.0]
    w = normal(20_000)
    found = formats.to_rf8(w)
    assert torch.equal(formats.to_rf8(-w), -found)
    assert torch.equal(formats.to_rf8(8 * w), 8 * found)
    wrong = ((found - w) / w).abs().double()
    # Each power is off by a factor √2 at most, so each remainder by √2 - 1 of what is left.
    assert float(wrong.max()) <= (math.sqrt(2) - 1) ** 2
    assert float(wrong.max()) > 0.08


def test_other_formats_are_what_they_say() -> None:
    w = normal(5000)
    step = float(w.abs().max()) / 127
    whole = formats.to_int8(w) / step
    assert torch.allclose(whole, whole.round(), atol=1e-3)
    assert float((formats.to_int8(w) - w).abs().max()) <= step / 2 * 1.001
    assert torch.equal(formats.to_int8(torch.zeros(3)), torch.zeros(3))
    # 3 mantissa bits: half a step is 1/16 of the number's power of two.
    e4m3 = formats.to_e4m3(torch.tensor([1.0, 1.0625, 1.07, 448.0]))
    assert e4m3.tolist() == [1.0, 1.0, 1.125, 448.0]
    assert formats.relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])) == 0.2


def test_rates_are_those_of_codes_written_out() -> None:
    w = torch.tensor([0.0] * 8 + [1.0] * 4 + [2.0] * 2 + [-1.0, -2.0])
    p = np.array([8, 4, 2, 1, 1]) / 16
    assert formats.entropy_bits(w, 1.0) == pytest.approx(float(entropy(p, base=2)))
    assert formats.huffman_bits(w, 1.0) == pytest.approx(float((p * [1, 2, 3, 4, 4]).sum()))
    assert formats.exp_golomb_bits(w, 1.0) == pytest.approx(float((p * [1, 3, 3, 5, 5]).sum()))
    assert formats.fixed_bits(w, 1.0) == 3.0
    one = torch.zeros(4)
    assert [f(one, 1.0) for f in (formats.entropy_bits, formats.huffman_bits)] == [0.0, 1.0]
    assert formats.fixed_bits(one, 1.0) == 1.0
    drawn = normal(4000)
    counts = Counter(np.rint(drawn.double().numpy() / 0.1).tolist())
    own = np.array(list(counts.values())) / 4000
    assert formats.entropy_bits(drawn, 0.1) == pytest.approx(float(entropy(own, base=2)))
    assert (
        formats.entropy_bits(drawn, 0.1)
        <= formats.huffman_bits(drawn, 0.1)
        <= formats.entropy_bits(drawn, 0.1) + 1
    )
    with pytest.raises(ValueError, match="step must be positive and finite, got 0"):
        formats.entropy_bits(w, 0.0)


def test_deepshape_keeps_ranks_and_gives_the_quantiles() -> None:
    w = 0.05 * normal(4000).reshape(50, 80)
    found, law = formats.deepshape(w, shape=0.8, scale=0.6)
    own = fit(w.double().numpy())
    assert (law.shape, law.scale) == (0.8 * own.shape, 0.6 * own.scale)
    assert spearmanr(w.flatten(), found.flatten()).statistic == pytest.approx(1.0)
    at = (np.arange(4000) + 0.5) / 4000
    expected = gennorm.ppf(at, law.shape, scale=law.scale)
    assert found.flatten().sort().values.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-7)
    with pytest.raises(ValueError, match="scale must be positive"):
        formats.deepshape(w, shape=1.0, scale=0.0)


@pytest.mark.parametrize("shape", [1.0, 2.0])
def test_what_scale_and_shape_save_is_a_difference_of_entropies(shape: float) -> None:
    """log2(0.6) for the scale; the rest by 1/ν + ln(2 β Γ(1/ν)/ν), to 0.02 bit."""
    values = gennorm.rvs(shape, scale=1.0, size=60_000, random_state=3)
    w = torch.from_numpy(values)
    before = formats.entropy_bits(w, 2**-5)
    for factors, own in (
        ((1.0, 0.6), math.log2(0.6)),
        (
            (0.8, 0.6),
            (
                GeneralizedGaussian(0.8 * shape, 0.6).entropy
                - GeneralizedGaussian(shape, 1.0).entropy
            )
            / math.log(2),
        ),
    ):
        after = formats.entropy_bits(
            formats.deepshape(w, shape=factors[0], scale=factors[1])[0], 2**-5
        )
        assert after - before == pytest.approx(own, abs=0.05)


def test_backslash_is_the_derivative_of_the_rate() -> None:
    """Up to the factor 1/2 and c: d/dw of |w|^ν with ν held, at sizes far above c."""
    w = 100 * normal(60)
    tensors = {"a.weight": w.clone().reshape(1, 6, 10), "a.bias": torch.ones(1, 6)}
    gg_runs.backslash_step(tensors, torch.tensor([1e-2]))
    nu = shape_by_moments(w.double().numpy())
    leaf = w.double().requires_grad_()
    (leaf.abs() ** nu).sum().backward()
    assert leaf.grad is not None
    step = (w - tensors["a.weight"].flatten()).double()
    far = w.abs() > 10
    assert torch.allclose(step[far], 1e-2 / 2 * leaf.grad[far], rtol=2e-3)
    assert torch.equal(tensors["a.bias"], torch.ones(1, 6))
    # With c: by hand.
    by_hand = 1e-2 * nu / 2 * torch.sign(w) * (w.abs() + 0.01) ** (nu - 1)
    assert torch.allclose(step.float(), by_hand, rtol=1e-3, atol=1e-5)


def test_a_start_has_its_law_and_every_law_the_same_ranks() -> None:
    one, two = (gg_runs.gg_network(64, 200, 10, nu=nu, seed=4) for nu in (1.0, 2.0))
    for place, variance in ((0, 2 / 64), (1, 2 / 200), (2, 1 / 200)):
        w, v = (model.layers[place].get_parameter("weight").detach() for model in (one, two))
        assert float(w.double().var()) == pytest.approx(variance, rel=0.15)
        assert spearmanr(w.flatten(), v.flatten()).statistic == pytest.approx(1.0)
    assert fit(one.layers[1].get_parameter("weight").detach().double().numpy()).shape == (
        pytest.approx(1.0, abs=0.05)
    )
    assert not one.layers[1].get_parameter("bias").any()


@pytest.mark.parametrize(("optimizer", "decay"), [("momentum", 0.0), ("adamw", 0.1)])
def test_without_the_penalty_training_is_train_stacks(
    data: Dataset, optimizer: str, decay: float
) -> None:
    start = stack([gg_runs.gg_network(64, 8, 10, nu=2.0, seed=s) for s in (0, 1)])
    batch = epoch_batches(data.x_train[:100], data.y_train[:100], batch_size=32, seeds=[0, 1])
    settings = Settings(optimizer, 0.01, weight_decay=decay)
    end, losses, kept = gg_runs._trained(
        start, batch, torch.zeros(2), steps=7, settings=settings, moments=[0, 7]
    )
    peer, found = train_stack(
        start, batch, torch.nn.functional.cross_entropy, steps=7, lr=0.01, optimizer=optimizer,
        weight_decay=decay,
    )  # fmt: skip
    # Its first step is autograd's, with other last bits on some processors.
    torch.testing.assert_close(losses, found["loss"], rtol=1e-5, atol=1e-6)
    for name, tensor in peer.tensors.items():
        torch.testing.assert_close(end.tensors[name], tensor, rtol=1e-4, atol=1e-5)
        assert torch.equal(kept[0][name], start.tensors[name])


def test_frames_hold_what_the_runs_hold(data: Dataset) -> None:
    starts = experiment.train_networks(data, [0, 1], NET, shapes=[0.5, 1.0, 2.0, 8.0])
    path = experiment.train_networks(data, [0, 1], NET, strengths=[0.0, 1e-3])
    ends = experiment.at_end(starts, first=4)
    assert len(ends) == 8
    run = starts.runs[3]
    row = ends.iloc[3]
    assert (row.seed, row.nu) == (1, 1.0)
    assert row["shape"] == pytest.approx(run["likelihood"].mean())
    assert row.early == pytest.approx(run["loss"][:4].mean())
    assert row.entropy == run["bits"][0]
    gap = experiment.paired(ends, "early", 1.0, 2.0)
    assert gap[1] == pytest.approx(row.early - ends.early[5])
    lines = experiment.over_time(starts)
    assert list(lines[(lines.seed == 1) & (lines.nu == 1.0)].step) == [0, 6, 12]
    last = lines[lines.step == 12].set_index(["seed", "nu"])["shape"]
    within = experiment.towards_normal(lines, narrow=0.5, wide=9.0)
    assert within[0] == pytest.approx(min(last[0, 0.5] - 0.5, 9.0 - last[0, 8.0]))
    smooth = experiment.losses(starts, every=6)
    assert smooth.loss.iloc[0] == pytest.approx(starts.runs[0]["loss"][:6].mean())
    # Starts of one seed share batches and ranks; the shape is what differs.
    assert starts.runs[0]["nu"][0].mean() < 0.8 < 1.5 < starts.runs[4]["nu"][0].mean()
    arms = experiment.by_arm(path)
    assert len(arms) == 2 * len(gg_runs.ARMS)
    dense = arms[(arms.arm == "dense") & (arms.seed == 0)].iloc[0]
    assert dense.error == 0.0
    assert dense.overlap == pytest.approx(1.0)
    assert dense.bits == path.runs[0]["bits"][0]
    assert dense.accuracy == path.runs[0]["accuracy"]
    scaled = arms[(arms.arm == "scale only") & (arms.seed == 0)].iloc[0]
    assert dense.bits - scaled.bits > 0.4
    penalised = experiment.at_end(path)
    assert (experiment.paired(penalised, "entropy", 1e-3, 0.0, by="strength") < 0).all()
    bare = experiment.train_networks(data, [0], {**NET, "compress": False})
    with pytest.raises(ValueError, match="must have been trained with compress"):
        experiment.by_arm(bare)

    entries = experiment.fitted_entries({"SGD": path})
    assert float((entries.density * (entries.z[1] - entries.z[0])).sum()) == pytest.approx(1.0)
    language = pd.DataFrame({"seed": [0, 1], "shape_end": [1.9, 2.0], "pooled": [1.5, 1.6]})
    laws = experiment.laws_frame({"SGD": ends[ends.nu == 2].reset_index()}, language)
    assert len(laws) == 8
    assert len(plots.law_panels(entries, laws, lines, smooth).axes) == 4
    names = {arm: arm for arm in gg_runs.ARMS}
    assert len(plots.bits_panels(arms, penalised, names).axes) == 3


def test_a_language_model_starts_from_its_law() -> None:
    config = gg_lm.TINY["gg_lm_runs"]
    options = {
        **config["network"], "parametrization": "SP", "seed": 3,
        "init": {
            kind: {"kind": "gaussian", "mean": 0.0, "scale": 1.0}
            for kind in ("input", "hidden", "output")
        },
    }  # fmt: skip
    plain, laplace = build_gpt({**options, "width": 64}), build_gpt({**options, "width": 64})
    gg_lm.gg_start(laplace, 1.0, seed=5)
    for name, w in plain.matrices().items():
        v = laplace.matrices()[name].detach().double()
        assert float(v.var()) == pytest.approx(float(w.detach().double().var()), rel=0.2)
    up = laplace.matrices()["blocks.0.Wup"].detach().double().numpy()
    assert fit(up).shape == pytest.approx(1.0, abs=0.06)


def test_language_models_learn_and_are_measured() -> None:
    numbers = torch.arange(4000).remainder(17).byte()
    text = TextData("numbers", "numbers", numbers, 3000, "0" * 64)
    settings = {**gg_lm.TINY["gg_lm_runs"]}
    settings["recipe"] = {**settings["recipe"], "steps": 30, "lr": 0.01}
    own = {key: settings[key] for key in ("network", "recipe", "last")}
    frame = experiment.language_frame(text, [0, 1], [1.0, 2.0], own, first=5)
    assert list(frame.columns[:2]) == ["seed", "nu"]
    assert (frame.ending < frame.early).all()
    assert (frame.validation < 5.5).all()
    means = frame.groupby("nu").shape_start.mean()
    assert means[1.0] < 1.4 < 1.6 < means[2.0]


def test_a_diverged_language_model_is_nan_from_there_on() -> None:
    numbers = torch.arange(4000).remainder(17).byte()
    text = TextData("numbers", "numbers", numbers, 3000, "0" * 64)
    config = {**gg_lm.TINY["gg_lm_runs"]}
    config["recipe"] = {**config["recipe"], "steps": 20, "lr": 1e30}
    run = gg_lm.gg_lm_runs(text, **config)
    assert np.isfinite(run["loss"][0])
    assert np.isnan(run["loss"][-1])
    assert np.isnan(run["validation"])
    assert np.isnan(run["pooled"])
