"""beyond.better_than_copying: runs against the library's pieces, shares and figures."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data import images
from rclib.experiments.beyond import better_than_copying as experiment
from rclib.experiments.beyond import networks, plots_copying
from rclib.resizing.new_neurons import draw_network, neurons_of
from rclib.training.classifier import train


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", "1")


def data() -> images.Dataset:
    return images.load("digits").subset(96, 40)


def swept(**changes: object) -> pd.DataFrame:
    options = {
        "rates": {"MF": 1.0, "SP": 0.1}, "seeds": [0, 1], "source_width": 32, "width": 12,
        "epochs": 2, "batch_size": 32, "directions": 4, "products": 3, "fixed": [0.5], "draws": 2,
    }  # fmt: skip
    return experiment.sweep_drawn(data(), **{**options, **changes})  # type: ignore[arg-type]


def test_arms_are_networks_of_the_library_tested_and_trained() -> None:
    frame = swept()
    assert len(frame) == 2 * 2 * len(experiment.arms_of([0.5]))
    source = networks.configuration(
        parametrization="MF", start="zero mean", width=32, seed=1, epochs=3, lr=1.0, batch_size=32,
        snapshots=[0, 2], keep=["*"],
    )  # fmt: skip
    run = networks.train_all(data(), [source])[0]
    model, start = (networks.network_at(data(), source, epoch) for epoch in (2, 0))
    neurons = neurons_of(model, start, data().x_train, directions=4, products=3)
    rows = frame[(frame.parametrization == "MF") & (frame.seed == 1)].set_index("arm")
    for arm, given in (
        ("copies", {"law": "copies", "entries": "copied"}),
        ("h = 0.5", {"law": "smoothed", "bandwidth": 0.5}),
        ("held-out h", {"law": "smoothed"}),
        ("normal", {"law": "normal"}),
    ):
        seed = source["seed"]
        made = [
            draw_network(neurons, 12, seed=seed * 100 + draw, **given)  # type: ignore[arg-type]
            for draw in (0, 1)
        ]
        with torch.no_grad():
            losses = [float(cross_entropy(m(data().x_test), data().y_test)) for m in made]
        assert rows.zero[arm] == pytest.approx(sum(losses) / 2, rel=1e-5)
        train(made[0], data(), epochs=1, lr=1.0, batch_size=32, seed=seed + 1, progress=False)
        with torch.no_grad():
            after = float(cross_entropy(made[0](data().x_test), data().y_test))
        assert rows.after[arm] == pytest.approx(after, rel=1e-4)
    assert rows.source["copies"] == pytest.approx(float(run["test_loss"][2]))
    assert rows.source_after["copies"] == pytest.approx(float(run["test_loss"][3]))
    assert (rows.h["copies"], rows.h["h = 0.5"], rows.h["normal"]) == (0.0, 0.5, math.inf)
    assert math.isnan(rows.h["mixture"])
    assert rows.components.iloc[0] >= 2


def test_without_further_training_nothing_changes() -> None:
    frame = swept(further=0, rates={"MF": 1.0}, seeds=[0], draws=1)
    assert frame.after.to_list() == pytest.approx(frame.zero.to_list())
    assert frame.source_after.to_list() == frame.source.to_list()
    assert set(frame.N) == {32}


def made() -> pd.DataFrame:
    rows = []
    for name in ("MF", "muP"):
        for seed in (0, 1, 2):
            for place, arm in enumerate(experiment.arms_of([0.25, 1.0])):
                zero = 1.0 + 0.1 * place + 0.01 * seed
                h = {"normal": math.inf, "held-out h": 3.0, "h = 0.25": 0.25, "h = 1": 1.0}
                own = 0.0 if arm.startswith("copies") else h.get(arm, math.nan)
                rows.append((name, seed, arm, own, 3.0, 1.0, 0.8, zero, zero - 0.1))
    columns = ["parametrization", "seed", "arm", "h", "start", "source", "source_after", "zero"]
    return pd.DataFrame(rows, columns=[*columns, "after"])


def test_lost_is_a_share_of_the_progress() -> None:
    frame = experiment.lost(made())
    row = frame.iloc[3]
    assert row.lost == pytest.approx((row.zero - 1.0) / 2)
    assert row.lost_after == pytest.approx((row.after - 0.8) / 2)
    apart = experiment.less(frame, "normal", experiment.NEW, of="MF")
    assert apart.to_list() == pytest.approx([0.15] * 3)
    assert apart.index.to_list() == [0, 1, 2]
    with pytest.raises(KeyError):
        experiment.less(frame, "magic", experiment.NEW, of="MF")


def test_curve_and_its_figure() -> None:
    curve = experiment.curve(experiment.lost(made()))
    normal = curve[(curve.parametrization == "MF") & (curve.arm == "normal")].iloc[0]
    assert normal.h == math.inf
    assert normal.lost == pytest.approx(0.205)
    assert normal.lost_error == pytest.approx(0.005 / math.sqrt(3))
    figure = plots_copying.bandwidth_curves(curve)
    above, _, below, _ = figure.axes
    assert len(below.get_xticklabels()) == 4
    star = next(line for line in above.lines if line.get_marker() == "*")
    assert 2 < np.min(star.get_xdata()) < 3
    assert plots_copying._place(0.25, [0.0, 0.25, 1.0, math.inf]) == 1
    plt.close(figure)


def test_figure_of_source_widths() -> None:
    rows = [(n, arm, 1 / n, 0.01) for n in (8, 16) for arm in experiment.arms_of([0.25])]
    figure = plots_copying.width_curves(pd.DataFrame(rows, columns=["N", "arm", "mean", "sem"]))
    _, texts = figure.axes[0].get_legend_handles_labels()
    assert texts == ["copies, new entries", "normal", "held-out h", "mixture"]
    plt.close(figure)
