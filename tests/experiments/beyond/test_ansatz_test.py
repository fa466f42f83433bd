"""experiments.beyond.ansatz_test: measures of trained networks against the library by hand, and
frames and figures on tables whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rclib.data.images import Dataset
from rclib.experiments.beyond import ansatz_test, networks, plots_ansatz
from rclib.spectral.exchangeable import decompose, four_cycle_excess, own_start

TRAINING: dict[str, Any] = {"epochs": 1, "batch_size": 50, "products": 3}
RATES = {"MF": 0.5, "SP": 0.1}


@pytest.fixture(scope="module")
def few() -> Dataset:
    return networks.load_images("digits", 150, 50)


@pytest.fixture(scope="module")
def measured(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        yield ansatz_test.measurements(
            few,
            rates=RATES,
            widths=[12, 24],
            seeds={start: [0, 1] for start in networks.STARTS},
            **TRAINING,
        )


def test_one_row_a_network_with_what_the_library_measures(
    few: Dataset, measured: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(measured) == 2 * 2 * 2 * 2
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    for name, rate in RATES.items():
        config = networks.configuration(
            parametrization=name, start="N(1, 3)", width=24, seed=1, lr=rate, epochs=1,
            batch_size=50, snapshots=[0, 1],
        )  # fmt: skip
        run = networks.train_network(few, **config)
        before, after = (run[f"{epoch}/W2"].astype(float) for epoch in (0, 1))
        chosen = measured[
            (measured.parametrization == name)
            & (measured.start == "N(1, 3)")
            & (measured.width == 24)
            & (measured.seed == 1)
        ].iloc[0]
        values = np.linalg.svd(after - before, compute_uv=False)
        multiplier = 1 / 24 if name == "MF" else 1.0
        assert chosen.sigma_1 == pytest.approx(multiplier * values[0])
        assert chosen.sigma_8 == pytest.approx(multiplier * values[7])
        assert chosen.kept == pytest.approx((values[:3] ** 2).sum() / (values**2).sum())
        assert chosen.own == pytest.approx(own_start(after - before, before, products=3))
        part = decompose(after)
        assert chosen.seen_interaction == pytest.approx(part.shares.interaction)
        assert chosen.untrained_residual == pytest.approx(decompose(before).shares.residual)
        excess = four_cycle_excess(part.residual, removed=len(part.strengths), permutations=4)
        assert (chosen.excess, chosen.spread) == pytest.approx((excess.value, excess.spread))
        assert chosen.train_loss == pytest.approx(float(run["train_loss"][-1]))
    shares = measured[list(ansatz_test.PARTS)].sum(axis=1)
    np.testing.assert_allclose(shares, 1.0)


def table(**columns: Any) -> pd.DataFrame:
    """Two seeds, widths 10, 20 and 40, MF and muP, one start; columns as functions of the row."""
    rows = [
        {"parametrization": p, "start": "zero mean", "width": n, "seed": s}
        for p in ("MF", "muP")
        for n in (10, 20, 40)
        for s in (3, 5)
    ]
    return pd.DataFrame([{**row, **{k: f(row) for k, f in columns.items()}} for row in rows])


def test_drifts_are_differences_by_seed() -> None:
    frame = table(
        sigma_1=lambda r: r["width"] ** (0.5 if r["parametrization"] == "MF" else 0.0) * r["seed"],
        interaction=lambda r: r["width"] / 100 + r["seed"],
    )
    found = ansatz_test.drift(frame, "sigma_1", [10, 40], of="MF")
    assert list(found.index) == [3, 5]
    np.testing.assert_allclose(found, np.log(2.0))
    np.testing.assert_allclose(ansatz_test.drift(frame, "sigma_1", [10, 40], of="muP"), 0.0)
    flat = ansatz_test.drift(frame, "interaction", [10, 40], of="MF", logarithm=False)
    np.testing.assert_allclose(flat, 0.3)
    rows = ansatz_test.drift_rows(frame, [10, 20, 40], of=["MF"], top=1)
    assert list(zip(rows["from"], rows["to"], strict=True)) == [(10, 20), (20, 40)]
    np.testing.assert_allclose(rows.drift, np.log(2.0) / 2)
    np.testing.assert_allclose(rows.error, 0.0, atol=1e-12)


def test_exponent_of_own_start_is_the_one_further_from_the_theory() -> None:
    powers = {("MF", 3): -1.1, ("MF", 5): -0.9, ("muP", 3): -1.2, ("muP", 5): -0.95}
    frame = table(
        own=lambda r: -3.0 * r["width"] ** powers[r["parametrization"], r["seed"]],
    )
    found = ansatz_test.own_exponents(frame, [10, 20, 40], of=["MF", "muP"])
    assert found.loc[3].tolist() == pytest.approx([-1.1, -1.2, -1.2])
    assert found.loc[5].tolist() == pytest.approx([-0.9, -0.95, -0.9])
    assert found.index.name == "seed"


def test_extremes_and_excess_are_by_seed() -> None:
    frame = table(
        untrained_residual=lambda r: 1.0 - 1.0 / r["width"] - r["seed"] / 100,
        excess=lambda r: float(r["seed"]),
    )
    assert ansatz_test.untrained(frame, 20).to_dict() == pytest.approx({3: 0.92, 5: 0.90})
    assert ansatz_test.excess(frame, 40, of="MF").to_dict() == {3: 3.0, 5: 5.0}


def test_long_form_has_one_row_a_value(measured: pd.DataFrame) -> None:
    long = ansatz_test.spectrum_rows(measured)
    assert len(long) == len(measured) * ansatz_test.TOP
    assert sorted(set(long.k)) == list(range(1, 9))
    first = long[long.k == 1].value
    np.testing.assert_array_equal(np.sort(first), np.sort(measured.sigma_1))


def test_figures_draw_every_start_with_the_theory_beside(measured: pd.DataFrame) -> None:
    figure = plots_ansatz.law_panels(measured)
    assert len(figure.axes) == 8
    dotted = [line for line in figure.axes[1].lines if line.get_linestyle() == ":"]
    widths, law = dotted[0].get_data()
    chosen = measured[(measured.parametrization == "MF") & (measured.start == "zero mean")]
    level = chosen[chosen.width == 24].interaction.mean()
    # MF: the same share at every width; a figure keeps six digits of what it draws.
    np.testing.assert_allclose(law, level, rtol=1e-5)
    np.testing.assert_array_equal(widths, [12, 24])
    own = next(line for line in figure.axes[2].lines if line.get_linestyle() == ":").get_ydata()
    assert own[0] / own[1] == pytest.approx(2.0)
    plt.close(figure)
    figure = plots_ansatz.share_panels(measured)
    assert len(figure.axes) == 4
    heights = [[bar.get_height() for bar in part] for part in figure.axes[0].containers]
    assert np.sum(heights, axis=0) == pytest.approx(1.0, abs=0.1)
    plt.close(figure)
