"""Notebook 68: its runs are those of notebooks 62 and 63 at their rates; choices done by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rclib.data.held_out import held_out
from rclib.data.images import Dataset, load
from rclib.experiments.dynamics import asked_again as experiment
from rclib.experiments.dynamics import asked_again_runs as runs
from rclib.experiments.dynamics import plots_asked_again as plots
from rclib.experiments.dynamics.grokking_energies import cover_frame, covered
from rclib.experiments.dynamics.grokking_li2 import narrow_frame
from rclib.experiments.dynamics.grokking_networks import Member, narrow_network
from rclib.experiments.dynamics.grokking_theory import group_table
from rclib.experiments.dynamics.train_longer import difference, eigenvalue_ratio, regime_frames
from rclib.experiments.dynamics.train_longer_arms import ladder
from rclib.training.regimes import Regime

NARROW: dict[str, Any] = {"m": 5, "share": 0.8, "steps": 12}
WIDTHS = [6, 4]
FEW: dict[str, Any] = {"m": 5, "units": 4, "steps": 20}
NETWORKS: dict[str, Any] = {"sizes": [12], "n_train": 128, "n_test": 60, "pool": 1}
SMALL = Regime(8, 8, 0.05, 32, (16, 24))
SEEDS, TUNING, FRESH = [3, 8], [1, 2], [5, 6]
GRID = [0.1, 1.0, 4.0, 20.0]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits").subset(300, 100)


@pytest.fixture(scope="module")
def found(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Picks are given by hand, the second of what was tried: so few steps do not say which."""

    def second(tuning: pd.DataFrame, name: str, measure: str) -> dict[str, float]:
        assert measure in tuning
        return {
            str(arm): float(sorted(own[name].unique())[2 if arm == "LB" else 1])
            for arm, own in tuning.groupby("arm", sort=False)
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        with pytest.MonkeyPatch.context() as choice:
            choice.setattr(experiment, "chosen", second)
            grids = {"rate": [0.1, 2.0, 9.0], "top": [0.1, 3.0, 9.0], "decay": [0.1, 5.0, 9.0]}
            nets = experiment.narrow(SEEDS, TUNING, FRESH, WIDTHS, grids, **NARROW)
            units = experiment.cover(SEEDS, TUNING, GRID, **FEW)
            sizes = experiment.batches(data, SEEDS, TUNING, GRID, 60, SMALL, 4, **NETWORKS)
        yield {"nets": nets, "units": units, "sizes": sizes}


@pytest.mark.parametrize("rule", ["adam", "muon"])
def test_at_the_old_rates_networks_are_those_of_notebook_62(rule: str) -> None:
    group = [
        {"seed": s, "labels": "group", "rate": 1.0, "top": 1.0, "decay": 1.0} for s in range(4)
    ]
    shared: dict[str, Any] = {"m": 7, "width": 6, "share": 0.7, "steps": 60, "rule": rule}
    ours = runs.narrow_networks(None, group=group, **shared)
    theirs = [narrow_network(None, seed=s, **shared) for s in range(4)]
    np.testing.assert_allclose(ours["test"], [float(one["test"]) for one in theirs], atol=1e-6)
    assert list(ours["found"]) == [float(one["found"]) for one in theirs]
    assert set(ours) == {"train", "test", "loss", "found", *runs.WEIGHTS}
    assert (ours["rank"] <= 6 + 1e-6).all()
    with pytest.raises(ValueError, match="rule must be one of"):
        runs.narrow_networks(None, group=group, **{**shared, "rule": "sgd"})


def test_rates_decays_and_labels_are_each_members_own() -> None:
    plain = {"seed": 0, "labels": "group", "rate": 1.0, "top": 1.0, "decay": 1.0}
    others = [{"rate": 3.0}, {"top": 3.0}, {"decay": 300.0}, {"labels": "random"}]
    group = [plain, *({**plain, **one} for one in others)]
    for rule in ("adam", "muon"):
        both = runs.narrow_networks(None, group=group, m=5, width=6, share=0.8, rule=rule, steps=20)
        for place in range(1, len(group)):
            assert both["purity"][place] != both["purity"][0], (rule, group[place])
    decayed = runs.narrow_networks(
        None, group=[{**plain, "decay": 1e6}], m=5, width=6, share=0.8, rule="muon", steps=3
    )
    assert np.isfinite(decayed["test"]).all()


@pytest.mark.parametrize("rule", ["gradient", "muon"])
def test_at_the_old_rate_units_are_those_of_notebook_62(rule: str) -> None:
    shared: dict[str, Any] = {"seed": 4, "m": 11, "units": 8, "steps": 200, "rule": rule}
    ours, theirs = runs.covered_at(None, rate=1.0, **shared), covered(None, **shared)
    assert int(ours["count"]) == int(theirs["count"])
    assert float(ours["purity"]) == pytest.approx(float(theirs["purity"]), abs=1e-9)
    assert int(ours["pure"]) <= int(ours["count"])
    still = runs.covered_at(None, rate=1e-9, **shared)
    assert int(still["pure"]) == 0 < int(still["count"])


def test_settings_are_chosen_by_the_mean_and_never_at_an_end() -> None:
    rows = [
        ("a", 0.1, 1, 0.9), ("a", 1.0, 1, 0.5), ("a", 3.0, 1, 0.1), ("a", 9.0, 1, 0.1),
        ("a", 0.1, 2, 0.1), ("a", 1.0, 2, 0.7), ("a", 3.0, 2, 0.4), ("a", 9.0, 2, 0.1),
        ("b", 9.0, 1, 0.2), ("b", 3.0, 1, 0.6), ("b", 1.0, 1, 0.6), ("b", 0.1, 1, 0.3),
    ]  # fmt: skip
    tuning = pd.DataFrame(rows, columns=["arm", "rate", "seed", "test"])
    picks = experiment.chosen(tuning, "rate", "test")
    assert picks == {"a": 1.0, "b": 1.0}  # b: the smaller of equal ones
    assert experiment._last_equal(tuning, "rate", "test") == {"a": 1.0, "b": 3.0}
    for rate in (0.1, 9.0):
        beyond = tuning.copy()
        beyond.loc[(beyond.arm == "b") & (beyond.rate == rate), "test"] = 0.8
        with pytest.raises(ValueError, match=f"grid of rate of 'b' must go on beyond {rate:g}"):
            experiment.chosen(beyond, "rate", "test")
    none = tuning.assign(rate=tuning.rate - 1.0)[tuning.rate >= 1.0]
    assert experiment.chosen(none, "rate", "test")["a"] == 0.0  # nothing lies beyond
    asked = experiment.Asked(
        tuning.assign(stage="rate"), {arm: {"rate": rate} for arm, rate in picks.items()}, {}
    )
    curve = experiment.tuned(asked, "test")
    assert len(curve) == 8
    assert list(curve[curve.own].rate) == [1.0, 1.0]
    assert list(curve[curve.own].value) == pytest.approx([0.6, 0.6])


def test_questions_on_networks_are_those_of_notebook_62(found: dict[str, Any]) -> None:
    nets = found["nets"]
    answers = {c: experiment.narrow_answers(nets, c, WIDTHS) for c in experiment.CHOICES}
    for question, width in (("muon_narrow", 6), ("muon_narrower", 4)):
        theirs = narrow_frame(SEEDS, width=width, **NARROW)
        wanted = theirs.pivot(index="seed", columns="rule", values="test").eval("muon - adam")
        np.testing.assert_allclose(answers["shared"][question], wanted, atol=1e-6)
        assert list(answers["own"][question].index) == SEEDS
    assert set(answers["own"]) - set(answers["shared"]) == {"muon_decay"}
    own = nets.frames["own"]
    assert (own.rate == 2.0).all()
    assert (own.top == 3.0).all()
    assert (own.decay == 1.0).all()
    assert (nets.frames["decay"].decay == 5.0).all()
    assert set(nets.frames["decay"].width) == {6}
    group = own[own.width == 6].set_index(["rule", "seed"])
    flat = [group.loc[("muon", s), "rank"] / group.loc[("adam", s), "rank"] for s in SEEDS]
    assert list(answers["own"]["muon_flatter"]) == pytest.approx(flat)
    assert experiment.random_table(nets).between(0, 1).all()
    assert nets.picks["Adam, K = 6"] == {"rate": 2.0, "top": 3.0, "decay": 5.0}
    assert nets.picks["Muon, K = 4"] == {"rate": 2.0, "top": 3.0}
    assert len(nets.tuning) == (4 + 4 + 2) * 3 * len(TUNING)
    tops = nets.tuning[nets.tuning.stage == "top"]
    assert (tops.rate == 2.0).all()
    assert (tops.decay == 1.0).all()
    assert experiment.tuned(nets, "test").own.sum() == 4 + 4 + 2
    table = experiment.weight_table(nets)
    assert len(table) == 4 + 4 + 2 + 2 + 2 + 2
    spread = table[(table.choice == "own") & (table.arm == "Adam, K = 6")].spread.item()
    assert spread == pytest.approx(np.std([group.loc[("adam", s), "test"] for s in SEEDS], ddof=1))
    losses = nets.frames["loss"].pivot(index="seed", columns="rule", values="loss")
    assert list(experiment.loss_difference(nets)) == list(losses.muon - losses.adam)
    assert list(losses.index) == FRESH
    for stage in ("rate", "top"):
        of_rule = nets.tuning[(nets.tuning.stage == stage) & (nets.tuning.arm == "Muon, K = 6")]
        means = of_rule.groupby(stage).test.mean()
        tied = nets.frames["tied"].query("rule == 'muon'")[stage].unique()
        assert list(tied) == [means.index[means > means.max() - 1e-6].max()]


def test_the_loss_is_that_of_the_pairs_that_were_not_trained_on() -> None:
    one: dict[str, Any] = {"seed": 2, "labels": "group", "rate": 1.0, "top": 1.0, "decay": 1.0}
    config: dict[str, Any] = {"m": 5, "width": 6, "share": 0.6, "rule": "adam"}
    never = runs.narrow_networks(None, group=[one], steps=0, **config)
    member = Member(one, group_table("Z5"), 6, 0.6)
    w, v = (member.start[name].numpy().astype(float) for name in ("W", "V"))
    wanted = []
    for a, b in np.argwhere(member.trained.numpy().reshape(5, 5) == 0):
        out = np.square(w[a] + w[5 + b]) @ v
        target = np.eye(5)[(a + b) % 5] - 0.2
        wanted.append(np.square(out - out.mean() - target).sum())
    assert len(wanted) == 10
    assert float(never["loss"][0]) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_the_question_on_units_is_that_of_notebook_62(found: dict[str, Any]) -> None:
    theirs = cover_frame(SEEDS, **FEW)
    ours = experiment.cover_answers(found["units"], "shared")["muon_covers"]
    assert list(ours) == list(theirs.muon - theirs.gradient)
    table = experiment.cover_table(found["units"])
    shared = table[table.choice == "shared"].set_index("arm")
    assert shared.loc["muon", "count"] == theirs.muon.mean()
    assert len(table) == 4
    assert found["units"].picks == {rule: {"rate": 1.0} for rule in ("gradient", "muon")}
    assert (experiment.cover_answers(found["units"], "own")["muon_covers"] == ours).all()


def test_questions_on_batches_are_those_of_notebook_63(
    data: Dataset, found: dict[str, Any]
) -> None:
    sizes = found["sizes"]
    theirs, _ = regime_frames(data, SEEDS, ladder(SMALL, 4, longer=False), **NETWORKS)
    shared = experiment.batch_answers(sizes, "shared")
    assert list(shared["gap"]) == list(difference(theirs, "SB", "LB"))
    assert list(shared["ghosts"]) == list(difference(theirs, "+GBN", "+LR"))
    assert list(shared["epochs_differ"]) == list(eigenvalue_ratio(theirs, "+GBN", "SB"))
    arms = {"SB": replace(SMALL, rate=1.0), "LB": replace(SMALL, rate=4.0).larger(4)}
    arms["+GBN"] = replace(SMALL, rate=1.0).larger(4, ghosts=True)
    ends, _ = regime_frames(data, SEEDS, arms, **NETWORKS)
    own = experiment.batch_answers(sizes, "own")
    assert list(own["gap"]) == list(difference(ends, "SB", "LB"))
    assert list(own["ghosts"]) == list(difference(ends, "+GBN", "LB"))
    means = [
        np.mean([ends[(ends.arm == arm) & (ends.seed == s)].accuracy.item() for arm in
                 ("SB", "LB", "LB", "+GBN")]) - theirs[theirs.seed == s].accuracy.mean()
        for s in SEEDS
    ]  # fmt: skip
    assert list(experiment.rate_gain(sizes, "accuracy")) == pytest.approx(means)
    valid, _ = regime_frames(held_out(data, 60), TUNING, {"LB": arms["LB"]}, **NETWORKS)
    tried = sizes.tuning[(sizes.tuning.arm == "LB") & (sizes.tuning.rate == 4.0)]
    assert list(tried.accuracy) == list(valid.accuracy)
    assert len(experiment.batch_table(sizes)) == 8


def test_changes_and_figure(found: dict[str, Any], tmp_path: Path) -> None:
    nets, units, sizes = found["nets"], found["units"], found["sizes"]
    answers = {
        c: experiment.narrow_answers(nets, c, WIDTHS)
        | experiment.cover_answers(units, c)
        | experiment.batch_answers(sizes, c)
        for c in experiment.CHOICES
    }
    differences = experiment.difference_frame(answers)
    assert len(differences) == (9 + 8) * len(SEEDS)
    changes = experiment.change_frame(answers).set_index("question")
    assert len(changes) == 8
    gap = answers["own"]["gap"] - answers["shared"]["gap"]
    assert changes.loc["gap", "change"] == pytest.approx(gap.mean())
    assert changes.loc["gap", "low"] <= gap.mean() <= changes.loc["gap", "high"]
    measures = {"narrow networks": (nets, "test"), "few units": (units, "pure")}
    measures["batches"] = (sizes, "accuracy")
    tuned = pd.concat([
        experiment.tuned(one, name).assign(part=part) for part, (one, name) in measures.items()
    ])  # fmt: skip
    tuned = tuned[tuned.stage == "rate"]
    old = {"narrow networks": [1.0], "few units": [1.0], "batches": [0.05, 0.1]}
    rows: dict[str, dict[str, list[Any]]] = {
        "batches": {"gap": ["a", 0.01, None], "ghosts": ["b", 0.0, None]},
        "narrow networks": {"muon_decay": ["e", 0.05, None]},
        "few units": {"muon_covers": ["c", 0.25, None]},
        "weights": {"muon_structure": ["d", 0.8, 1.25]},
    }
    figure = plots.again_panels(tuned, differences, old, rows)
    panels = figure.axes
    assert len(panels) == 7
    assert [text.get_text() for text in panels[3].get_yticklabels()] == ["a", "b"]
    mean = answers["own"]["gap"].mean()
    assert any(np.allclose(np.asarray(line.get_xdata()), mean) for line in panels[3].lines)
    marked: Any = [line for line in panels[2].lines if line.get_linestyle() == "None"]
    assert [float(line.get_xdata()[0]) for line in marked] == [1.0, 4.0, 1.0]
    figure.savefig(tmp_path / "again.png")


def test_an_arm_that_wants_more_than_the_grid_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with pytest.raises(ValueError, match="must go on beyond"):
        experiment.cover(SEEDS, TUNING, [1e-9, 1e-8], **FEW)
