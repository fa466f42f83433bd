"""Width collapse and row means of language models: against direct computation and simulation."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from rclib.data.images import DataError
from rclib.data.text import named_text
from rclib.experiments.mean_field import figure_4_5, width_collapse
from rclib.experiments.mean_field import plots_row_means as draw
from rclib.experiments.mean_field.lm_runs import STARTS
from rclib.nets.gpt import build_gpt
from rclib.stats.two_sample import kolmogorov_smirnov, wasserstein
from rclib.training.lm_loop import matrix_means

SEEDS = (0, 1, 2)


def made_run(values, *, block=0, steps=(0, 8), diverged=-1, losses=()):
    """A run with given row means of Wdown after each step; columns of no interest left out."""
    run = {
        f"means/{step}/blocks.{block}.Wdown.C": np.asarray(v, dtype=np.float32)
        for step, v in zip(steps, values, strict=True)
    }
    return run | {
        "diverged": np.array(diverged),
        "eval_steps": np.array([s for s, _ in losses]),
        "eval_loss": np.array([v for _, v in losses]),
    }


def independent_runs(widths, *, seeds=SEEDS, shift=None, first=0):
    """Runs whose neurons are independent normal values, at width w moved by shift[w]."""
    runs = {}
    for width in widths:
        for seed in seeds:
            generator = np.random.default_rng([first, width, seed])
            start = generator.normal(1.0, 0.1, size=width)
            change = generator.normal(size=width) + (shift or {}).get(width, 0.0)
            runs["MF", width, seed] = made_run([start, start + change])
    return runs


# width collapse


def test_equal_seeds_share_numbers_between_widths_and_start_seeds_do_not():
    def embedding(width, seed):
        return build_gpt({"width": width, "blocks": 1, "context": 4, "seed": seed}).embedding

    assert torch.equal(embedding(16, 7), embedding(32, 7)[:16])
    own = [embedding(n, width_collapse.start_seed(n, 7))[:16] for n in (16, 32)]
    assert not torch.isclose(own[0], own[1]).any()
    seeds = {width_collapse.start_seed(n, s) for n in range(16, 1025, 16) for s in range(20)}
    assert len(seeds) == 64 * 20
    assert width_collapse.start_seeds({16: [0, 7], 32: [1]}) == [16, 70_016, 10_032]


def test_what_stands_behind_a_comparison_is_the_width_with_the_fewest_runs():
    runs = {("MF", n, s): {} for n, count in ((16, 5), (32, 4), (64, 9)) for s in range(count)}
    assert figure_4_5.behind(runs, [16, 32]) == {
        "repeats": 4,
        "note": "jackknife over runs, 5 and 4 seeds",
    }
    with pytest.raises(ValueError, match=r"every width needs runs, got \{16: 5, 8: 0\}"):
        figure_4_5.behind(runs, [16, 8])


def test_text_is_a_file_of_the_data_folder_or_pythons(monkeypatch, tmp_path):
    monkeypatch.setenv("RCLIB_DATA", str(tmp_path))
    (tmp_path / "mine.txt").write_bytes(b"some text " * 100)
    assert named_text("mine.txt").name == "mine.txt"
    assert named_text("python").name == "python"
    with pytest.raises(DataError, match=r"text file .*theirs\.txt is missing"):
        named_text("theirs.txt")


def test_runs_start_at_the_uniform_guess_on_common_batches(monkeypatch, tmp_path):
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    data = named_text("python")
    runs = width_collapse.train_all(
        data, rates={"MF": 0.03, "SP": 0.003}, widths=[16, 32], seeds=[0, 1], steps=2,
        start="paper", blocks=1, context=8, batch_size=2, eval_steps=[2], mean_steps=[0, 2],
    )  # fmt: skip
    assert set(runs) == {(n, w, s) for n in ("MF", "SP") for w in (16, 32) for s in (0, 1)}
    for (name, width, _), run in runs.items():
        assert run["train_loss"][0] == pytest.approx(math.log(256))
        start = run["means/0/blocks.0.Wup.C"]
        assert start.shape == (4 * width,)
        unit = 1.0 if name == "MF" else width**-0.5
        assert start.mean() == pytest.approx(unit, abs=0.3 * unit)
    curves = width_collapse.loss_curves(runs, points=2)
    # The second loss depends on the batch most of all, and hardly on width or seed under MF.
    second = curves[(curves.step == 2) & (curves.parametrization == "MF")].loss
    assert second.max() - second.min() < 0.02


def test_losses_and_their_differences_by_hand():
    runs = {
        ("MF", 16, 0): made_run([], steps=(), losses=[(1, 4.0), (2, 3.0)]),
        ("MF", 64, 0): made_run([], steps=(), losses=[(1, 4.2), (2, 3.0)]),
        ("SP", 16, 0): made_run([], steps=(), losses=[(1, 4.0), (2, 2.0)]),
        ("SP", 64, 0): made_run([], steps=(), losses=[(1, 4.0), (2, math.nan)], diverged=2),
    }
    losses = width_collapse.check_losses(runs, [1, 2])
    assert len(losses) == 8
    errors = width_collapse.collapse_errors(losses, 16, 64).set_index("parametrization").error
    assert errors["MF"] == pytest.approx(0.2 / 4.2)
    assert errors["SP"] == pytest.approx(1 - 2.0 / math.log(256))
    first = width_collapse.differences_from_widest(losses, step=1).set_index("parametrization")
    assert list(first.width) == [16, 16]
    assert first.difference["MF"] == pytest.approx(0.2 / 4.2)
    assert first.difference["SP"] == 0.0


def test_loss_curves_are_means_over_seeds_and_windows():
    runs = {("MF", 16, s): {"train_loss": np.arange(6.0) + s} for s in (0, 2)}
    curves = width_collapse.loss_curves(runs, points=3)
    assert list(curves.step) == [1.5, 3.5, 5.5]
    assert list(curves.loss) == [1.5, 3.5, 5.5]  # mean of s is 1, mean of the window ½ lower


# row means


@pytest.mark.parametrize("name", ["SP", "MF", "muP"])
def test_kernel_means_are_the_layers_answer_to_ones(name):
    model = build_gpt(
        {"width": 16, "blocks": 2, "context": 4, "parametrization": name, "init": STARTS["paper"]}
    )
    run = {f"means/0/{key}": value.numpy() for key, value in matrix_means(model).items()}
    block = model.blocks[1]
    with torch.no_grad():
        # The mean over inputs of n m W is m W applied to ones.
        answer = functional.linear(torch.ones(64), block.Wdown * model.multiplier("blocks.1.Wdown"))
        kernel = 16 * model.multiplier("blocks.1.Wup") * block.Wup
    means = [
        figure_4_5.kernel_means(run, (name, 16, 0), matrix=m, block=1, step=0)
        for m in ("Wdown", "Wup")
    ]
    assert means[0] == pytest.approx(answer.numpy(), rel=1e-4)
    assert means[1] == pytest.approx(kernel.mean(0).numpy(), rel=1e-4)
    stored = figure_4_5.kernel_means(
        run, (name, 16, 0), matrix="Wdown", block=1, step=0, stored=True
    )
    assert stored == pytest.approx(block.Wdown.detach().mean(1).numpy(), rel=1e-4)
    if name == "MF":  # the entries as they are stored are the kernel
        assert stored == pytest.approx(means[0], rel=1e-6)


@pytest.mark.parametrize("name", ["SP", "MF"])
def test_spread_of_the_kernels_row_means_at_the_start(name):
    # Mean of 4N entries of variance 3: √(3 / 4N) under MF, √3 under SP at every width.
    for width in (64, 256):
        options = {"width": width, "blocks": 1, "context": 4, "parametrization": name}
        model = build_gpt(options | {"init": STARTS["paper"], "seed": width})
        run = {f"means/0/{key}": value.numpy() for key, value in matrix_means(model).items()}
        means = figure_4_5.kernel_means(run, (name, width, 0), matrix="Wdown", block=0, step=0)
        expected = math.sqrt(3) if name == "SP" else math.sqrt(3 / (4 * width))
        assert means.std() == pytest.approx(expected, rel=0.3)


def test_samples_are_row_means_or_their_change():
    runs = {
        ("MF", 3, 0): made_run([[1, 1, 1], [2, 3, 1]]),
        ("MF", 3, 1): made_run([[0, 0, 0], [5, 5, 5]], diverged=7),
        ("MF", 3, 2): made_run([[0, 0, 1], [5, 5, 5]], diverged=9),
        ("SP", 3, 0): made_run([[1, 1, 1], [2, 3, 1]]),
    }
    at = {"block": 0, "step": 8}
    found = figure_4_5.row_samples(runs, "MF", quantity="row mean", **at)
    assert [v.tolist() for v in found[3]] == [[2, 3, 1], [5, 5, 5]]  # the diverged one is left out
    found = figure_4_5.row_samples(runs, "MF", quantity="change of the row mean", **at)
    assert [v.tolist() for v in found[3]] == [[1, 2, 0], [5, 5, 4]]
    found = figure_4_5.row_samples(runs, "SP", quantity="change of the row mean", **at)
    assert found[3][0].tolist() == [12, 24, 0]  # times the fan-in 4N
    with pytest.raises(ValueError, match="quantity must be one of"):
        figure_4_5.row_samples(runs, "MF", quantity="mean", **at)
    with pytest.raises(ValueError, match="matrix must be one of Wdown, Wup, got 'Wq'"):
        figure_4_5.kernel_means(runs["MF", 3, 0], ("MF", 3, 0), matrix="Wq", block=0, step=8)


def tables(runs, distance="Wasserstein", quantity="change of the row mean"):
    return figure_4_5.distances(runs, "MF", distance=distance, blocks=1, step=8, quantity=quantity)


@pytest.mark.parametrize("distance", ["Wasserstein", "Kolmogorov-Smirnov"])
def test_one_law_gives_ratio_one_and_a_shift_does_not(distance):
    ratios = [
        figure_4_5.ratio_interval(tables(independent_runs([32, 128], first=k), distance), 32, 128)
        for k in range(20)
    ]
    assert np.mean([r.value for r in ratios]) == pytest.approx(1.0, abs=0.15)
    # 95 percent are meant.
    assert sum(r.low <= 1.0 <= r.high for r in ratios) >= 16
    moved = independent_runs([32, 128], shift={32: 3.0}, seeds=range(6))
    assert figure_4_5.ratio_interval(tables(moved, distance), 32, 128).low > 1.5


def test_distance_of_independent_neurons_falls_like_one_over_root_n():
    widths = [16, 32, 64, 128, 256]
    fits = [
        figure_4_5.fall_interval(tables(independent_runs(widths, first=k)), widths)
        for k in range(10)
    ]
    assert np.mean([f.value for f in fits]) == pytest.approx(-0.5, abs=0.06)
    assert sum(f.low <= -0.5 <= f.high for f in fits) >= 8
    # A law that moves with the width keeps its distances.
    moved = independent_runs(widths, shift={n: math.log2(n) for n in widths})
    assert figure_4_5.fall_interval(tables(moved), widths).low > -0.25


def test_too_few_widths_or_seeds_are_refused():
    runs = independent_runs([16, 32])
    with pytest.raises(ValueError, match=r"widths must be three or more, got \[16, 32\]"):
        figure_4_5.fall_interval(tables(runs), [16, 32])
    runs.pop(("MF", 32, 2))
    with pytest.raises(ValueError, match=r"3 seeds or more .* got \{16: 3, 32: 2\}"):
        figure_4_5.ratio_interval(tables(runs), 16, 32)


def test_distance_table_against_direct_computation():
    runs = independent_runs([16, 32])
    table = figure_4_5.distance_table(
        runs, "MF", small=16, large=32, steps=[0, 8], blocks=1, draws=50
    )
    # Both distances of the row mean at both steps, of the change at step 8 alone.
    assert len(table) == 2 * 2 + 2
    chosen = table[(table.quantity == "change of the row mean")].set_index("distance")
    change = {k: r["means/8/blocks.0.Wdown.C"] - r["means/0/blocks.0.Wdown.C"].astype(float)
              for k, r in runs.items()}  # fmt: skip
    for name, d in (("Wasserstein", wasserstein), ("Kolmogorov-Smirnov", kolmogorov_smirnov)):
        pairs = [d(change["MF", 16, s], change["MF", 32, t]) for s in SEEDS for t in SEEDS]
        row = chosen.loc[name]
        assert row["one_pair"] == pytest.approx(pairs[0])
        assert row["low"] <= row["one_pair"]
        assert row["between"] == pytest.approx(np.mean(pairs))
        assert row["ratio"] == pytest.approx(row["between"] / row["floor"])
        assert row["sampling"] == pytest.approx(row["floor"], rel=0.6)


def test_levels_hold_distance_floor_and_independent_draws_of_neighbours():
    widths = [16, 32, 64]
    runs = independent_runs(widths)
    frame = figure_4_5.levels_by_width(runs, "MF", widths=widths, step=8, blocks=1, draws=50)
    assert len(frame) == 2 * 2 * 2 * 3
    chosen = frame[
        (frame.quantity == "change of the row mean") & (frame.distance == "Wasserstein")
    ].set_index(["level", "x"])
    table = tables(runs)[0]
    x = math.sqrt(32 * 64)
    assert chosen.y["two widths", x] == pytest.approx(table.between(32, 64))
    assert chosen.y["two seeds", x] == pytest.approx(table.floor(32, 64))
    assert (chosen.low <= chosen.y).all()
    assert (chosen.y <= chosen.high).all()


def test_densities_are_densities():
    runs = independent_runs([32, 128])
    frame = figure_4_5.densities(runs, "MF", widths=[32, 128], steps=[0, 8], blocks=[0], points=300)
    for (step, width), panel in frame.groupby(["step", "width"]):
        length = panel.x.iloc[1] - panel.x.iloc[0]
        assert panel.density.sum() * length == pytest.approx(1.0, abs=0.05)
        middle = (panel.x * panel.density).sum() * length
        pooled = [runs["MF", width, s][f"means/{step}/blocks.0.Wdown.C"] for s in SEEDS]
        assert middle == pytest.approx(np.concatenate(pooled).mean(), abs=0.1)


# figures


def shown_texts(figure):
    figure.draw_without_rendering()
    return {t.get_text() for t in figure.findobj(plt.Text)}


def test_collapse_figure_shows_every_width_and_the_tolerance():
    curves = pd.DataFrame(
        [(n, w, s, 5.0 - s) for n in ("MF", "muP") for w in (16, 32, 64) for s in (1, 2)],
        columns=["parametrization", "width", "step", "loss"],
    )
    differences = pd.DataFrame(
        [("MF", 16, 1e-3), ("MF", 32, 1e-4), ("muP", 16, 1e-3), ("muP", 32, 2e-3)],
        columns=["parametrization", "width", "difference"],
    )
    curves.loc[curves.width == 16, "loss"] *= 1.02
    apart = width_collapse.curve_differences(curves)
    assert sorted(apart.width.unique()) == [16, 32]
    np.testing.assert_allclose(apart[apart.width == 16].difference, 0.02)
    assert (apart[apart.width == 32].difference == 0).all()
    figure = draw.collapse(curves, apart, differences, columns=["MF", "muP"], tolerance=0.005)
    above, below, _, _, last = figure.axes
    assert (len(above.lines), len(below.lines), len(last.lines)) == (3, 3, 3)
    assert last.lines[2].get_ydata()[0] == 0.005
    texts = {"16", "32", "64", "μP", "0.5 %", "training loss\n(nats per byte)"}
    assert texts <= shown_texts(figure)
    plt.close(figure)


def test_row_mean_figures_draw_what_they_are_given():
    runs = independent_runs([16, 32, 64])
    densities = figure_4_5.densities(runs, "MF", widths=[16, 64], steps=[0, 8], blocks=[0])
    frame = figure_4_5.levels_by_width(runs, "MF", widths=[16, 32, 64], step=8, blocks=1, draws=5)
    figure = draw.levels(frame, units={"Wasserstein": "W1", "Kolmogorov-Smirnov": "KS"})
    assert len(figure.axes) == 4
    assert {"W1", "KS", "two widths", "independent draws", "slope −1/2"} <= shown_texts(figure)
    plt.close(figure)

    panels = densities[densities.step == 8].assign(setting="MF, N(1, 3)")
    figure = draw.control_densities(panels, {"MF, N(1, 3)": "1.0 x floor"}, label="row mean")
    assert {"MF, N(1, 3)", "1.0 x floor", "row mean"} <= shown_texts(figure)
    assert figure.axes[0].get_yscale() == "log"
    plt.close(figure)
    both = pd.concat(
        [
            panels,
            panels.assign(setting="SP"),
            panels.assign(setting="a"),
            panels.assign(setting="b"),
        ]
    )
    figure = draw.control_densities(both, {}, label="row mean")  # the legend in a free cell
    assert [p.get_title() for p in figure.axes[:4]] == ["MF, N(1, 3)", "SP", "a", "b"]
    assert figure.axes[5].get_legend() is not None
    plt.close(figure)
