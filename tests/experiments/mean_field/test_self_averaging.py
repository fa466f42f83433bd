"""Seeds against seeds: laws that self-average and laws that do not, both made on purpose."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from rclib.data import images
from rclib.data.text import load_text
from rclib.experiments.mean_field import plots_seeds, seed_tables, self_averaging
from rclib.experiments.mean_field.lm_runs import Arrays

WIDTHS = [64, 128, 256, 512]


def groups_of(own: float, *, seeds: int = 6, first: int = 0, blocks: int = 4) -> list:  # type: ignore[type-arg]
    """Normal neurons; `own` is the standard deviation over seeds of a law's mean."""
    generator = np.random.default_rng(first)
    return [
        {
            n: [generator.normal(own * generator.normal(), 1, n) for _ in range(seeds)]
            for n in WIDTHS
        }
        for _ in range(blocks)
    ]


def made_runs(
    own: float, *, seeds: int = 5, shift: float = 0.0
) -> dict[tuple[str, int, int], Arrays]:
    """Runs at N = 32 and 64 with all four mean vectors of one block after steps 0 and 8."""
    generator = np.random.default_rng(1)
    runs = {}
    for width in (32, 64):
        for seed in range(seeds):
            mean = own * generator.normal() + (shift if width == 64 else 0)
            run: Arrays = {"diverged": np.array(-1)}
            for vector in self_averaging.VECTORS:
                size = width if vector in ("Wdown.C", "Wup.R") else 4 * width
                start = generator.normal(size=size)
                run[f"means/0/blocks.0.{vector}"] = start
                run[f"means/8/blocks.0.{vector}"] = start + generator.normal(mean, 1, size)
            runs["MF", width, seed] = run
    return runs


def test_one_law_has_slope_minus_a_half_and_ratio_one() -> None:
    fits = [self_averaging.slope_interval(groups_of(0.0, first=k), WIDTHS) for k in range(10)]
    assert np.mean([f.value for f in fits]) == pytest.approx(-0.5, abs=0.05)
    assert sum(f.low <= -0.5 <= f.high for f in fits) >= 8
    ratio = self_averaging.over_independent(groups_of(0.0), 512, 512)
    assert ratio.low < 1 < ratio.high
    assert ratio.value == pytest.approx(1, abs=0.2)


def test_laws_of_each_seeds_own_have_slope_zero_and_a_growing_ratio() -> None:
    fit = self_averaging.slope_interval(groups_of(1.0, seeds=8, blocks=8), WIDTHS)
    assert fit.low <= 0 <= fit.high
    assert fit.value == pytest.approx(0, abs=0.2)
    found = groups_of(1.0)
    ratios = [self_averaging.over_independent(found, n, n) for n in (64, 512)]
    assert ratios[1].low > 3
    assert ratios[1].value > 1.8 * ratios[0].value
    between = self_averaging.over_independent(found, 256, 512, kept={256: [0, 1], 512: [4, 5]})
    assert between.value > 3


def test_fresh_seeds_give_the_value_and_all_the_spread() -> None:
    found = groups_of(1.0)
    fresh = {n: [4, 5] for n in WIDTHS}
    alone = [{n: group[n][4:] for n in WIDTHS} for group in found]
    judged = self_averaging.fresh_slope(found, WIDTHS, fresh)
    assert judged.value == pytest.approx(
        self_averaging._slope_of(alone, WIDTHS)({n: [0, 1] for n in WIDTHS})
    )
    every = self_averaging.slope_interval(found, WIDTHS)
    # Two of six seeds: three times the variance.
    assert (judged.high - judged.low) / (every.high - every.low) == pytest.approx(3**0.5)


def test_slope_of_the_first_seeds_is_that_of_these_alone() -> None:
    found = groups_of(1.0)
    first = [{n: group[n][:4] for n in WIDTHS} for group in found]
    estimate = self_averaging.slope_at(found, WIDTHS)
    of_four = self_averaging.slope_interval(first, WIDTHS)
    assert estimate(4, 0.05) == pytest.approx((of_four.value, of_four.low, of_four.high))
    value, low, high = estimate(4, 0.01)
    assert low < of_four.low < value < of_four.high < high
    with pytest.raises(ValueError, match=r"every width needs 7 seeds, got \{64: 6, 128: 6"):
        estimate(7, 0.05)
    found[0][128].pop()
    with pytest.raises(ValueError, match=r"every width needs the same seeds, got \{64: 6, 128: 5"):
        self_averaging.slope_at(found, WIDTHS)


def test_an_unknown_arm_is_named() -> None:
    with pytest.raises(ValueError, match=r"arms must be some of .*'SGD'.*, got \['sgd'\]"):
        self_averaging.train_arms(load_text(), widths=[16], seeds={"sgd": [0]}, steps=2)
    with pytest.raises(ValueError, match=r"starts must be some of .*'zero mean'.*, got \['one'\]"):
        self_averaging.train_mlps(
            images.load("digits"), widths=[4], seeds=[0], epochs=1, starts=["one"]
        )


def test_too_few_seeds_are_refused() -> None:
    found = groups_of(0.0, seeds=2)
    with pytest.raises(ValueError, match=r"needs 3 seeds or more, got \{64: 2"):
        self_averaging.slope_interval(found, WIDTHS)
    with pytest.raises(ValueError, match="two chosen runs"):
        self_averaging.fresh_slope(groups_of(0.0), [64, 128], {64: [0, 1], 128: [2]})
    with pytest.raises(ValueError, match=r"vector must be one of Wdown\.C, .* got 'Wq'"):
        self_averaging.gpt_groups({}, "MF", vector="Wq", step=0, blocks=1)


def test_groups_are_means_or_their_change_by_width() -> None:
    runs = made_runs(0.0, seeds=2)
    runs["MF", 64, 1]["diverged"] = np.array(4)
    found = self_averaging.gpt_groups(runs, "MF", vector="Wup.C", step=8, blocks=1, change=True)
    assert {n: len(v) for n, v in found[0].items()} == {32: 2, 64: 1}
    run = runs["MF", 32, 1]
    change = run["means/8/blocks.0.Wup.C"] - run["means/0/blocks.0.Wup.C"]
    assert found[0][32][1] == pytest.approx(change)


def test_small_runs_of_every_arm_and_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
    arms = self_averaging.train_arms(
        load_text(), widths=[8, 16], seeds=[0, 1, 2], steps=2, lr=0.03, blocks=1, context=4,
        head_size=8, batch_size=1, eval_batches=1,
    )  # fmt: skip
    assert len(arms) == len(self_averaging.ARMS) * 6
    losses = [arms["Adam, as in the figure", 8, s]["train_loss"][1] for s in (0, 1)]
    others = [arms["batches of its own", 8, s]["train_loss"][1] for s in (0, 1)]
    assert losses[0] != others[0]
    groups = self_averaging.gpt_groups(arms, "SGD", vector="Wdown.C", step=2, blocks=1)
    table = self_averaging.table_of({"Wdown.C": groups}, [8, 16], arm="SGD")
    assert list(table.width) == [8, 16]
    assert table.slope.nunique() == 1
    assert (table.low <= table.ratio).all()
    mlps = self_averaging.train_mlps(
        images.load("digits"), widths=[4, 8], seeds=[0, 1], epochs=1, lr=0.1, batch_size=500
    )
    alone = self_averaging.train_mlps(
        images.load("digits"), widths=[4, 8], seeds=[0, 1], epochs=1, lr=0.1, batch_size=500,
        starts=["N(1, 3)"],
    )  # fmt: skip
    assert list(alone) == [key for key in mlps if key[0] == "N(1, 3)"]
    groups = self_averaging.mlp_groups(mlps, "N(1, 3)", vector="W2.C", epoch=1)
    assert [v.shape for v in groups[0][8]] == [(8,), (8,)]
    change = self_averaging.mlp_groups(mlps, "N(1, 3)", vector="W2.R", epoch=1, change=True)
    start = self_averaging.mlp_groups(mlps, "N(1, 3)", vector="W2.R", epoch=0)
    end = self_averaging.mlp_groups(mlps, "N(1, 3)", vector="W2.R", epoch=1)
    assert change[0][4][0] == pytest.approx(end[0][4][0] - start[0][4][0])


# what notebook 16 shows


def losses_of(values: dict[int, list[list[float]]]) -> pd.DataFrame:
    rows = [
        ("MF", n, seed, step, loss)
        for n, seeds in values.items()
        for seed, curve in enumerate(seeds)
        for step, loss in zip((4, 8), curve, strict=True)
    ]
    return pd.DataFrame(rows, columns=["parametrization", "width", "seed", "step", "loss"])


def test_a_width_turns_up_when_half_of_its_seeds_do() -> None:
    losses = losses_of({32: [[2, 1], [2, 3]], 64: [[2, 1], [2, 1], [2, 3]], 128: [[2, np.nan]]})
    assert seed_tables.turned_up(losses) == {(32, 8), (128, 8)}


def test_loss_difference_is_signed_and_of_the_chosen_seeds() -> None:
    losses = losses_of({32: [[9, 2.0], [9, 2.2], [9, 8]], 64: [[9, 2.0], [9, 2.0], [9, 7]]})
    kept = {32: [0, 1], 64: [0, 1]}
    found = seed_tables.loss_difference(losses, 32, 64, step=8, seeds=kept)
    assert found.value == pytest.approx(0.05)
    assert found.low < 0 < found.high
    whole = seed_tables.loss_difference(losses, 32, 64, step=8)
    assert whole.value == pytest.approx(12.2 / 11 - 1)


@pytest.mark.parametrize(("own", "shift", "low", "high"), [(1, 0, 0.02, 1), (0.3, 9, 0, 0.01)])
def test_same_law_of_two_widths(own: float, shift: float, low: float, high: float) -> None:
    runs = made_runs(own, shift=shift)
    test = seed_tables.same_law(runs, 32, 64, vector="Wup.C", step=8, blocks=1)
    assert test.splits == 126
    assert low <= test.p <= high


def test_densities_and_distances_leave_out_what_they_are_told() -> None:
    runs = made_runs(1.0)
    frame = seed_tables.seed_densities(
        runs, vector="Wdown.C", widths=[32, 64], steps=[0, 8], blocks=[0], left_out={(32, 8)}
    )
    assert frame.groupby(["step", "width"]).seed.nunique().to_dict() == {
        (0, 32): 5, (0, 64): 5, (8, 64): 5,
    }  # fmt: skip
    inside = seed_tables.inside_table(
        runs, vectors=["Wdown.C", "Wup.C"], widths=[32, 64], steps=[0, 8], blocks=1,
        left_out={(32, 8)}, draws=20,
    )  # fmt: skip
    assert len(inside) == 6
    start = inside[inside.step == 0]
    assert (start.y / start.independent).to_numpy() == pytest.approx(1, abs=0.35)
    figure = plots_seeds.row_means(
        frame, inside, {(0, 8): "1.4 x seeds"}, label="row mean",
        names={"Wdown.C": "rows of Wdown", "Wup.C": "rows of Wup"},
    )  # fmt: skip
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert {"step 8", "1.4 x seeds", "slope −1/2", "N = 32", "rows of Wup"} <= texts
    plt.close(figure)


def test_ratios_draw_one_line_an_arm() -> None:
    rows = [(p, a, n, 1.0, 0.5, 2.0) for p in ("x", "y") for a in ("A", "B") for n in (16, 32)]
    frame = pd.DataFrame(rows, columns=["panel", "arm", "width", "ratio", "low", "high"])
    figure = plots_seeds.ratios(frame, {"x": "left", "y": "right"})
    assert [len(panel.containers) for panel in figure.axes] == [2, 2]
    assert {"left", "right", "A", "B"} <= {t.get_text() for t in figure.findobj(Text)}
    plt.close(figure)
