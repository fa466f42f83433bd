"""beyond.what_transfer_keeps: measures against constructions, a run against the transfer itself."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data import images
from rclib.experiments.beyond import kept_runs, networks, plots_kept
from rclib.experiments.beyond import what_transfer_keeps as experiment
from rclib.resizing.mlp import resize
from rclib.spectral.power_law import power_law
from rclib.spectral.spectra import esd

OPTIONS = {"epochs": 1, "batch_size": 64, "products": 4, "leading": 2}
ARMS = {name: {"parametrization": name, "start": "zero mean", "lr": 0.5} for name in ("MF", "muP")}


def test_parts_find_the_outer_products_and_the_noise() -> None:
    random = np.random.default_rng(0)
    start = 1.0 + 0.5 * random.standard_normal((60, 60))
    u, v = (np.linalg.qr(random.standard_normal((60, 2)))[0] for _ in range(2))
    trained = start + (u * [90.0, 40.0]) @ v.T
    (left, strengths, right), variance = kept_runs.parts(trained, start, 3)  # with the mean's
    low = start.mean() + (u * [90.0, 40.0]) @ v.T
    np.testing.assert_allclose((left * strengths) @ right.T, low, atol=1e-9)
    assert variance == pytest.approx(np.var(start), rel=1e-9)


def test_explained_share_of_tied_and_of_shuffled_neurons() -> None:
    """Row variables that are functions of W3 are explained whole, shuffled ones not at all, and
    of a share 1 - r1 of pairs the square is left."""
    random = np.random.default_rng(1)
    n, leading = 1500, 2
    W3 = random.standard_normal((5, n))
    left = W3.T @ random.standard_normal((5, leading))
    right = random.standard_normal((leading, n))

    def share(rows: np.ndarray) -> float:
        return kept_runs.explained(rows @ right, W3, leading)

    assert share(left) == pytest.approx(1.0, abs=1e-3)
    assert share(random.permutation(left)) == pytest.approx(0.0, abs=0.02)
    half = np.where(np.arange(n)[:, None] < n // 2, left, random.permutation(left))
    assert share(half) == pytest.approx(0.25, abs=0.05)
    assert np.isnan(kept_runs.explained(np.eye(5), random.standard_normal((5, 5)), 1))


@pytest.mark.parametrize("name", ["MF", "SP"])
def test_a_run_is_the_transfer_itself(name: str) -> None:
    data = images.load("digits").subset(128, 60)
    source = networks.configuration(
        parametrization=name, start="zero mean", width=24, seed=0, epochs=1, lr=0.1,
        batch_size=32, snapshots=[1], keep=["*"],
    )  # fmt: skip
    networks.train_all(data, [source])
    run = kept_runs.transfer_run(
        data, source=source, targets=[16, 40], random_rates=[0.0, 1.0], products=3, leading=2
    )
    model = networks.network_at(data, source, 1)
    for t, m in enumerate((16, 40)):
        for r, rate in enumerate((0.0, 1.0)):
            moved = resize(model, m, random_rate=rate, seed=1000 * source["seed"] + 10 * t + r)
            values = esd(moved.get_parameter("W2").detach().double())
            found = run["values"][t, r]
            k = int(run["rank"][t, r])
            assert k == run["distinct"][t, r] == (found > 0).sum()
            np.testing.assert_allclose(found[-k:], values[-k:], atol=1e-6 * values[-1])
            with torch.no_grad():
                loss = float(cross_entropy(moved(data.x_test), data.y_test))
            assert run["loss"][t, r] == pytest.approx(loss, rel=1e-6)
            assert run["identity"][t, r] < 1e-12
        assert run["scale"][t] == pytest.approx(1.0 if name == "MF" else 24 / m)
        assert (run["predicted"][t] > 0).sum() == run["rank"][t, 0]
    start = networks.build(
        data, **{k: source[k] for k in ("parametrization", "start", "width", "seed")}
    ).get_parameter("W2")
    W, W0 = (m.detach().double().numpy() for m in (model.get_parameter("W2"), start))
    u, _, vt = np.linalg.svd(W - W0 + W0.mean())
    centred = (W0 - W0.mean()) / W0.std()
    assert run["aligned"] == pytest.approx(abs(u[:, 0] @ centred @ vt[0]), rel=1e-9)


@pytest.fixture
def measured() -> tuple[pd.DataFrame, dict]:
    data = images.load("digits").subset(200, 60)
    return experiment.measurements(
        data, arms=ARMS, width=32, targets=[24, 32, 48], random_rates=[0.0, 1.0], seeds=[0, 1],
        **OPTIONS,
    )  # fmt: skip


@pytest.mark.slow
def test_tables_and_figure(measured: tuple[pd.DataFrame, dict]) -> None:
    frame, runs = measured
    assert len(frame) == 2 * 3 * 2 * 2
    first, last = frame[frame.r1 == 0.0], frame[frame.r1 == 1.0]
    run = runs["MF", 1]
    row = first[(first.arm == "MF") & (first.seed == 1) & (first.M == 48)].iloc[0]
    values = run["values"][2, 0]
    assert row.alpha == power_law(values[values > 0]).alpha
    assert row.zeros == 1 - (values > 0).sum() / 48
    progress = float(run["start_loss"] - run["own_loss"])
    assert row.lost == pytest.approx((row.loss - float(run["own_loss"])) / progress)
    assert first[["ks", "ks_plain", "ks_shape", "alpha_predicted"]].notna().all(axis=None)
    assert last[["ks", "spikes"]].isna().all(axis=None)
    worst = experiment.worst(frame, "identity")
    assert worst[1] == frame[frame.seed == 1].groupby("arm").identity.mean().max()
    moved = experiment.alpha_moved(frame)
    both = [part.groupby("seed").alpha.mean() for part in (last, first)]
    np.testing.assert_allclose(moved, both[0] - both[1])
    fall = experiment.fall_by_drawing(frame[frame.arm == "MF"])
    mean = first[(first.arm == "MF") & (first.seed == 1)].mean(numeric_only=True)
    by = [mean.alpha_start - mean[name] for name in ("alpha_untrained", "alpha_source")]
    assert fall[1] == pytest.approx(by[0] / by[1])
    lost = experiment.broken(frame, arm="MF")
    mf = last[last.arm == "MF"]
    bounds = mf.groupby("seed").lost.mean(), 1 - mf.groupby("seed").tied_left.mean()
    np.testing.assert_allclose(lost, np.minimum(*bounds))
    summary = experiment.summary(frame)
    assert len(summary) == 12
    assert "seed" not in summary

    esd_table = experiment.esd_rows(runs, arm="MF", seed=1, targets=[24, 32, 48])
    sizes = esd_table[esd_table.kind == "measured"].groupby("M").size()
    assert sizes.to_dict() == {m: int(run["rank"][t, 0]) for t, m in enumerate((24, 32, 48))}
    laws = experiment.law_rows(runs, arm="MF", seed=1, targets=[24, 32, 48])
    for t, m in enumerate((24, 32, 48)):  # the bulk's share is what the spikes leave
        part = laws[m == laws.M]
        area = float(np.trapezoid(part.share, np.log10(part.x)))
        spikes, rank = int(run["spikes"][t]), int(run["rank"][t, 0])
        assert area == pytest.approx(1 - spikes / rank, abs=0.05)
    kept = experiment.kept_rows(frame, arm="MF", target=32)
    assert (kept[(kept.what == "α") & (kept.r1 == 0)].left == 1).all()
    figure = plots_kept.kept_panels(esd_table, laws, first, kept, width=32)
    assert [panel.get_title() for panel in figure.axes[:3]] == [
        f"({letter}) N = 32 to M = {m}" for letter, m in zip("abc", (24, 32, 48), strict=True)
    ]
    plt.close(figure)
