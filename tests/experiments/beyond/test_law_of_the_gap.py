"""beyond.law_of_the_gap: the law against grids that were made by it, the runs against transfers."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data import images
from rclib.experiments.beyond import gap_law, plots_gap
from rclib.experiments.beyond import law_of_the_gap as experiment
from rclib.nets.mlp import MLP
from rclib.resizing.weighted import draw_weights, sampling_constant, weighted_outputs
from rclib.training.classifier import train

WIDTHS = [8, 16, 32, 64, 128]
SEEDS = [0, 1, 2, 3]


def made(
    *, limit: float = 0.5, own: float = 0.5, e: float = 0.0, noise: float = 0.0
) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = []
    for s in SEEDS:
        for n in WIDTHS:
            for m in WIDTHS:
                loss = limit + 2 / n + 3 / m + e * n / m + noise * random.standard_normal()
                rows.append(
                    {
                        "arm": "MF",
                        "seed": s,
                        "N": n,
                        "M": m,
                        "epoch": 4,
                        "start": 2.5,
                        "moved": loss,
                        "native": own + 1.5 / n,
                        "broken": 2.4,
                        "distance": 7.0 / m,
                        "constant": 7.0,
                    }
                )
    return pd.DataFrame(rows)


def test_law_finds_what_made_the_grid() -> None:
    found = gap_law.law(made(), start=16)
    for key, value in {"limit": 0.5, "a": 2, "b": 3, "native_limit": 0.5, "c": 1.5}.items():
        assert found[key] == pytest.approx(value, abs=1e-9)
    assert found.explained == pytest.approx(1)
    assert found.floor == pytest.approx(0, abs=1e-9)
    assert found.gap == pytest.approx(((2 + 3 - 1.5) / 128) / (0.5 + 1.5 / 128))
    assert gap_law.law(made(limit=0.7), start=8).floor == pytest.approx(0.1)


def test_a_repeated_start_looks_like_a_floor_until_it_is_in_the_law() -> None:
    frame = made(e=0.1)
    assert gap_law.law(frame, start=8).floor > 0.02
    with_ratio = gap_law.law(frame, start=8, ratio=True)
    assert with_ratio.floor == pytest.approx(0, abs=1e-9)
    assert with_ratio.e == pytest.approx(0.1)


def test_law_needs_three_widths() -> None:
    with pytest.raises(ValueError, match="start must leave at least three widths"):
        gap_law.law(made(), start=64)


def test_jackknife_over_seeds_covers_the_floor() -> None:
    frame = made(limit=0.6, noise=0.01)
    found = gap_law.jackknifed(frame, lambda f: gap_law.law(f, start=8).floor)
    assert found.low < 0.05 < found.high
    assert found.value == gap_law.law(frame, start=8).floor
    assert 0 < found.high - found.low < 0.05


def test_gaps_and_the_width_that_is_needed() -> None:
    frame = made(own=0.5)
    gaps = gap_law.gaps(frame)
    corner = gaps[(gaps.N == 128) & (gaps.M == 64)].gap.item()
    assert corner == pytest.approx((0.5 + 2 / 128 + 3 / 64) / (0.5 + 1.5 / 64) - 1)
    needed = gap_law.practical(frame, within=0.1)
    chosen = needed[needed.M == 64].N.item()
    fits = [n for n in WIDTHS if (0.5 + 2 / n + 3 / 64) / (0.5 + 1.5 / 64) - 1 <= 0.1]
    assert chosen == min(fits)
    assert needed[needed.M == 8].N.isna().all()


def test_a_gap_that_comes_back_with_the_width_is_not_within() -> None:
    frame = made(e=0.05)
    needed = gap_law.practical(frame, within=0.2)
    widest = gap_law.gaps(frame)
    for m in WIDTHS:
        gap = widest[m == widest.M].set_index("N").gap
        found = needed[m == needed.M].N.item()
        if gap[128] > 0.2:
            assert pd.isna(found)
        else:
            assert (gap[gap.index >= found] <= 0.2).all()


def test_noise_and_lost() -> None:
    found = gap_law.noise(made())
    np.testing.assert_allclose(found.ratio, 1.0)
    assert sorted(found.N.unique()) == WIDTHS
    own = 0.5 + 1.5 / 128
    np.testing.assert_allclose(gap_law.lost(made(), "broken"), (2.4 - own) / (2.5 - own))


def outputs_of(f: float, k: float) -> dict[tuple[str, int, int], np.ndarray]:
    """Outputs of seeds whose squared distance is f + k / N."""
    random = np.random.default_rng(1)
    shape = (400, 10)
    own = {s: random.standard_normal(shape) * np.sqrt(f / 2) for s in SEEDS}
    return {
        ("MF", n, s): own[s] + random.standard_normal(shape) * np.sqrt(k / 2 / n)
        for n in WIDTHS
        for s in SEEDS
    }


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_floor_of_the_distance_of_seeds(share: float) -> None:
    total = 0.8  # at the first width
    made_by = outputs_of(share * total, (1 - share) * total * WIDTHS[0])
    frame = gap_law.seed_distance(made_by, arm="MF", widths=WIDTHS, seeds=SEEDS)
    assert len(frame) == len(WIDTHS) * 6
    found = gap_law.floor_share(frame, SEEDS, start=8)
    assert found.value == pytest.approx(share, abs=0.03)
    with pytest.raises(ValueError, match="at least three"):
        gap_law.floor_share(frame, SEEDS[:2], start=8)


def options(**changed: object) -> dict[str, object]:
    return {**experiment.TINY["gap_run"], **changed}


def test_a_run_is_the_network_alone_and_its_transfers() -> None:
    """Against the loop for one network; the last bits differ, since products are others."""
    data = images.load("digits")
    run = experiment.gap_run(data, **options(n_train=64, n_test=40))  # type: ignore[arg-type]
    part = data.subset(64, 40)
    model = MLP(64, 6, 10, parametrization="MF", seed=1)
    train(model, part, epochs=2, lr=1.0, batch_size=16, seed=0, progress=False)
    with torch.no_grad():
        own = model(part.x_test)
        np.testing.assert_allclose(run["outputs"][1], own, rtol=1e-3, atol=1e-5)
        assert run["loss"][1, -1] == pytest.approx(float(cross_entropy(own, part.y_test)), rel=1e-4)
        moved = weighted_outputs(model, part.x_test, draw_weights(model, 8, 2, seed=1))
        losses = [float(cross_entropy(one, part.y_test)) for one in moved]
        assert run["moved"][1, -1, 1] == pytest.approx(np.mean(losses), rel=1e-4)
        distance = float((moved - own).square().mean())
        assert run["distance"][1, -1, 1] == pytest.approx(distance, rel=1e-3)
        constant = sampling_constant(model, part.x_test)
        assert run["constant"][1, -1] == pytest.approx(constant, rel=1e-3)


def test_grid_and_figures(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", f"{tmp_path}/runs")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    arms: Mapping[str, Mapping[str, object]] = {
        name: {"parametrization": name, "lr": 0.5, "orders": "own"} for name in ("MF", "muP")
    }
    left_out = ("group", "width", "parametrization", "lr", "targets")
    rest = {k: v for k, v in experiment.TINY["gap_run"].items() if k not in left_out}
    frame, outputs = experiment.sweep_grid(
        images.load("digits"), arms=arms, widths=[4, 6, 8], seeds=[0, 1, 2], **rest
    )
    assert len(frame) == 2 * 3 * 3 * 3 * 2
    assert not frame.isna().any().any()
    last = frame[frame.epoch == 2]
    gaps = gap_law.gaps(last)
    figure = plots_gap.gap_grids(gaps, within=0.01)
    assert [panel.get_title() for panel in figure.axes[:2]] == ["MF", "μP"]
    for labels in (figure.axes[0].get_yticklabels(), figure.axes[0].get_xticklabels()):
        assert [label.get_text() for label in labels] == ["4", "6", "8"]
    plt.close(figure)
    distances = gap_law.seed_distance(outputs, arm="MF", widths=[4, 6, 8], seeds=[0, 1, 2])
    floors = pd.DataFrame([{"arm": "MF", "epoch": 2, "value": 0.1, "low": 0.0, "high": 0.2}])
    figure = plots_gap.laws(gap_law.noise(last), distances, floors)
    assert len(figure.axes) == 3
    plt.close(figure)
