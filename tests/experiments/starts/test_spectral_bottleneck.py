"""starts.spectral_bottleneck and siren_runs: fits of sine networks and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.images import load
from rclib.experiments.starts import plots_siren as plots
from rclib.experiments.starts import siren, siren_runs
from rclib.experiments.starts import spectral_bottleneck as experiment
from rclib.nets.stack import stack

BANDS = {"low": [0.0, 0.2], "high": [0.6, 0.9]}
FIT: dict[str, Any] = {
    "n": 64, "width": 16, "layers": 3, "rate": 1e-3, "steps": 60, "moments": [0, 30, 60],
}  # fmt: skip
ARMS = {"high": ["SIREN", "WINNER", "s0 = 5", "s0 = 80"], "low": ["SIREN", "WINNER"]}


@pytest.fixture
def fits() -> experiment.Fits:
    return experiment.band_fits([0, 1], ARMS, BANDS, FIT)


def test_an_arm_has_its_scales() -> None:
    psi = 0.5
    s0, s1 = siren.noise_scales(psi, "image")
    assert experiment.arm_scales("SIREN", psi) == (0.0, 0.0, "normal")
    assert experiment.arm_scales("WINNER", psi) == (s0, s1, "normal")
    assert experiment.arm_scales("uniform", psi) == (s0, s1, "uniform")
    assert experiment.arm_scales("audio", psi)[1] == pytest.approx(1.5)
    assert experiment.arm_scales("s0 alone", psi) == (s0, 0.0, "normal")
    assert experiment.arm_scales("s1 alone", psi) == (0.0, s1, "normal")
    assert experiment.arm_scales("s1 of audio", psi) == (0.0, 1.5, "normal")
    assert experiment.arm_scales("s0 = 300", psi) == (300.0, 0.0, "normal")
    with pytest.raises(ValueError, match="arm must be one of"):
        experiment.arm_scales("louder", psi)


def test_a_fit_is_that_of_torchs_adam() -> None:
    """One network by hand: torch.optim.Adam with the authors' schedule, full batch."""
    seed, n, steps = 3, 64, 45
    member = {"seed": seed, "s0": 30.0, "s1": 0.2, "law": "normal"}
    shared: dict[str, Any] = {
        "n": n,
        "low": 0.6,
        "high": 0.9,
        "width": 16,
        "layers": 3,
        "rate": 1e-3,
    }
    run = siren_runs.band_runs(None, group=[member], steps=steps, moments=[0, steps], **shared)
    y, off = siren.band_signal(n, 0.6, 0.9, seed=seed)
    torch.manual_seed(seed)
    model = siren.Siren(1, 16, 3)
    noise = torch.Generator().manual_seed(1_000_000 + seed)
    siren.winner_start(model, 30.0, 0.2, law="normal", generator=noise)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 20, gamma=0.998)
    x = siren.grid(n)
    with torch.no_grad():
        first = float((model(x)[:, 0] - y).square().mean() / y.var(correction=0))
    start = model.weight(1).detach().clone()
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x)[:, 0] - y).square().mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        last = float((model(x)[:, 0] - y).square().mean() / y.var(correction=0))
        beside = model(siren.grid(n, shift=0.5))[:, 0]
        between = float((beside - off).square().mean() / off.var(correction=0))
    assert run["error"][0] == pytest.approx([first, last], rel=2e-3)
    assert run["off"][0][1] == pytest.approx(between, rel=2e-3)
    assert last < 0.9 * first
    moved = float((model.weight(1) - start).norm() / start.norm())
    assert run["moved"][0][1] == pytest.approx(moved, rel=1e-3)
    assert run["fit"][0][0] == pytest.approx(y[:64].numpy())


@pytest.mark.parametrize("inputs", [1, 2])
def test_gradients_are_those_of_autograd(inputs: int) -> None:
    """Each member's own, by hand, against torch on the module alone."""
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(siren.Siren(inputs, 16, 3))
    x = siren.grid(64) if inputs == 1 else siren_runs.pixel_grid(8)
    y = torch.randn(3, 64, generator=torch.Generator().manual_seed(9))
    found = siren.gradients(stack(models).tensors, x, y)
    for place, model in enumerate(models):
        (model(x)[:, 0] - y[place]).square().mean().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            assert torch.allclose(found[name][place], p.grad, rtol=1e-4, atol=1e-6)


def test_frames_hold_what_the_runs_hold(fits: experiment.Fits) -> None:
    frame, ends = experiment.curves(fits), experiment.networks(fits)
    assert len(ends) == len(fits.keys) == 12
    assert len(frame) == 12 * 3
    i = int(np.flatnonzero((ends.band == "high") & (ends.arm == "WINNER") & (ends.seed == 1))[0])
    run = fits.runs[i]
    found = experiment.at_step(frame, "high", "WINNER", 60)
    assert found[1] == run["error"][-1]
    assert experiment.at_step(frame, "high", "WINNER", 30, "off")[1] == run["off"][1]
    assert ends.centroid[i] == run["centroids"][-1]
    assert experiment.decibels(pd.Series([0.01])).tolist() == pytest.approx([20.0])
    with pytest.raises(ValueError, match="step must be recorded for high, WINNER, got 31"):
        experiment.at_step(frame, "high", "WINNER", 31)
    lasting = experiment.off_grid(frame, 60)
    assert len(lasting) == 12
    window = experiment.windows(fits, "high", ["SIREN", "WINNER"], 1)
    assert list(window.columns) == ["point", "signal", "SIREN", "WINNER"]
    assert window.WINNER.tolist() == pytest.approx(run["fit"][1].tolist())
    spectra = experiment.spectra(fits, "high", ["SIREN"], bins=8)
    assert spectra.groupby("layer").energy.sum().tolist() == pytest.approx([1.0] * 3, rel=1e-4)


def test_orders_over_arms(fits: experiment.Fits) -> None:
    frame, ends = experiment.curves(fits), experiment.networks(fits)
    assert experiment.swept(ends) == ["s0 = 5", "s0 = 80"]
    rises = experiment.centroid_steps(ends, "high")
    table = ends[(ends.band == "high") & (ends.seed == 0)].set_index("arm").centroid
    by_hand = min(table["s0 = 5"] - table.SIREN, table["s0 = 80"] - table["s0 = 5"])
    assert rises[0] == pytest.approx(by_hand)
    made = ends.assign(centroid=range(len(ends)))
    falling = frame.assign(error=-frame.merge(made, on=["band", "arm", "seed"]).centroid)
    assert experiment.in_order(made, falling, "high", 60).tolist() == pytest.approx([-1, -1])
    sweep = experiment.sweep_frame(fits, frame, 60)
    assert set(sweep.s0[~sweep.recipe]) == {5.0, 80.0}
    assert sweep.recipe.sum() == 4  # two bands, two seeds


def test_noise_in_the_first_matrix_fits_what_the_plain_network_does_not() -> None:
    settings = {**FIT, "n": 512, "width": 32, "rate": 1e-4, "steps": 150, "moments": [150]}
    fits = experiment.band_fits([0], {"high": ["SIREN", "s0 = 300"]}, BANDS, settings)
    frame = experiment.curves(fits)
    assert float(experiment.at_step(frame, "high", "SIREN", 150)[0]) > 0.9
    assert float(experiment.at_step(frame, "high", "s0 = 300", 150)[0]) < 0.2


def test_pictures_are_tiled_grey_and_scaled() -> None:
    data = load("digits")
    drawn = siren_runs.picture(data, "image", 16, seed=4)
    assert drawn.shape == (16, 16)
    assert float(drawn.abs().max()) == pytest.approx(1.0)
    assert float(drawn.mean()) == pytest.approx(0.0, abs=1e-6)
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(4))
    second = data.x_train[order[1]].reshape(8, 8)
    tile = drawn[:8, 8:]
    assert float(torch.corrcoef(torch.stack([tile.flatten(), second.flatten()]))[0, 1]) > 0.9999
    noise = siren_runs.picture(data, "noise", 16, seed=4)
    assert not torch.equal(noise, siren_runs.picture(data, "noise", 16, seed=5))
    with pytest.raises(ValueError, match="side must be a multiple of the images' 8, got 12"):
        siren_runs.picture(data, "image", 12, seed=4)


def test_pixels_lie_at_their_middles() -> None:
    x = siren_runs.pixel_grid(2)
    assert x.tolist() == [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]


def test_psnr_is_of_the_range(tmp_path: Path) -> None:
    data = load("digits")
    settings: dict[str, Any] = {
        "side": 16, "width": 8, "layers": 2, "rate": 1e-3, "steps": 5, "moments": [0, 5],
    }  # fmt: skip
    frame = experiment.picture_frame(data, [0, 1], ["image", "noise"], settings)
    assert len(frame) == 8
    run = siren_runs.picture_runs(
        data, group=[{"seed": 0, "s0": 0.0, "s1": 0.0}], kind="noise", **settings
    )
    y = siren_runs.picture(data, "noise", 16, seed=0).flatten()
    torch.manual_seed(0)
    with torch.no_grad():
        wrong = siren.Siren(2, 8, 2)(siren_runs.pixel_grid(16))[:, 0] - y
    expected = float(wrong.square().mean() / (y.max() - y.min()) ** 2)
    assert run["error"][0][0] == pytest.approx(expected, rel=1e-4)
    best = frame[(frame.kind == "noise") & (frame.arm == "SIREN") & (frame.seed == 0)].psnr
    assert best.tolist() == pytest.approx([-10 * np.log10(run["error"][0].min())])


def test_panels_draw(fits: experiment.Fits) -> None:
    frame, ends = experiment.curves(fits), experiment.networks(fits)
    arms = ["SIREN", "WINNER"]
    errors = frame[(frame.band == "high") & frame.arm.isin(arms)]
    figure = plots.bottleneck_panels(
        experiment.windows(fits, "high", arms, 0), experiment.spectra(fits, "high", arms), errors,
        experiment.sweep_frame(fits, frame, 60), band=BANDS["high"],
    )  # fmt: skip
    assert len(figure.axes) == 5
    lasting = experiment.off_grid(frame, 60).merge(ends, on=["band", "arm", "seed"])
    pictures = pd.DataFrame({
        "kind": ["image"] * 4, "arm": arms * 2, "seed": [0, 0, 1, 1], "psnr": [20.0, 21, 22, 23],
    })  # fmt: skip
    assert len(plots.inside_panels(lasting[lasting.band == "high"], pictures).axes) == 5
