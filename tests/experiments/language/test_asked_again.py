"""Notebook 97: its sets are those of notebook 94; choices of step sizes against plain runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.images import Dataset, load
from rclib.experiments.language import asked_again as frames
from rclib.experiments.language import asked_again_runs as runs
from rclib.experiments.language import distillation_nets as nets
from rclib.experiments.language import plots_asked_again as plots
from rclib.experiments.language.distillation_nets import Shape
from rclib.experiments.language.distillation_runs import (
    distilled,
    expert_paths,
    generator_of,
    matched,
)

OPTIONS: dict[str, Any] = {
    "arms": ["plain", "means, clip", "all tricks"], "n_nets": 2, "n_train": 20,
    "experts": {"n_experts": 2, "epochs": 5, "batch": 64, "lr": 0.02, "hidden": 8},
    "matching": {"iterations": 3, "n_steps": 3, "starts": 3, "ahead": 2, "lr_images": 0.1,
                 "lr_rate": 0.02, "alpha": 0.1},
}  # fmt: skip
RATES = [0.001, 0.1, 0.5, 100.0]
ARMS = [*OPTIONS["arms"], "real, random", "real, nearest", "real, means"]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits").subset(300, 90)


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", "1")


def test_one_image_a_class_is_notebook_94(digits: Dataset) -> None:
    """The same images and networks: at the learned step sizes, and at those of the old rule."""
    old = distilled(digits, seed=3, rates=RATES, **OPTIONS)
    new = runs.graded(digits, seed=3, rates=RATES, per_class=1, **OPTIONS)
    np.testing.assert_array_equal(new["alpha"], old["alpha"])
    np.testing.assert_allclose(new["learned"][:, 1], old["accuracy"][:3], atol=1e-6)
    best = new["train"][3:].argmax(1)
    np.testing.assert_allclose(new["test"][3:][range(3), best], old["accuracy"][3:], atol=1e-6)
    np.testing.assert_allclose(new["loss"], old["losses"].mean(1), rtol=1e-6)
    np.testing.assert_allclose(new["experts"], old["experts"][[0, 1, 1]], rtol=1e-6)


def test_accuracies_of_several_images_a_class_by_hand(digits: Dataset) -> None:
    options = {**OPTIONS, "arms": ["plain"], "n_nets": 1}
    found = runs.graded(digits, seed=5, per_class=3, rates=[0.2], **options)
    idle = {**OPTIONS["matching"], "lr_images": 0.0, "lr_rate": 0.0}
    still = runs.graded(digits, seed=5, per_class=3, rates=[0.2], **{**options, "matching": idle})
    # Images that do not move are the random ones, learned with a step size that does not either.
    np.testing.assert_allclose(still["alpha"], 0.1, rtol=1e-6)
    assert still["test"][0, 0] == still["test"][1, 0] == found["test"][1, 0]
    assert found["test"][0, 0] != still["test"][0, 0]
    # Twenty steps with torch's own layers and optimiser, from the start that the run has.
    shape, generator = Shape(64, 8, 10), generator_of(5, 2)
    first = runs.image_sets(digits, generator, 3)
    paths = expert_paths(digits, 5, ["plain"], **OPTIONS["experts"])
    begun = first["random"][None]
    matched(paths, begun, shape, generator, ["plain"], ["plain"], OPTIONS["matching"])
    W1, b1, W2, b2 = (t[0] for t in nets.parts(nets.drawn(1, shape, generator), shape))
    net = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10))
    for own, given in zip(net.parameters(), (W1, b1, W2, b2), strict=True):
        own.data.copy_(given)
    descent = torch.optim.SGD(net.parameters(), lr=0.2)
    labels = torch.arange(10).repeat_interleave(3)
    for _ in range(20):
        descent.zero_grad()
        torch.nn.functional.cross_entropy(net(first["means"]), labels).backward()  # type: ignore[no-untyped-call]
        descent.step()
    right = (net(digits.x_test).argmax(1) == digits.y_test).float().mean()
    assert found["test"][3, 0] == pytest.approx(float(right), abs=0.012)  # one image of 90


def test_image_sets(digits: Dataset) -> None:
    sets = runs.image_sets(digits, torch.Generator().manual_seed(0), 4)
    for name, images in sets.items():
        assert images.shape == (40, 64), name
    for k in range(10):
        own = digits.x_train[digits.y_train == k]
        rows = slice(4 * k, 4 * k + 4)
        assert len(torch.unique(sets["random"][rows], dim=0)) == 4
        for name in ("random", "nearest"):
            assert (
                float(torch.cdist(sets[name][rows], own).min(1).values.max()) < 0.02
            )  # of squares of 32 bits
        # Centres are the means of what is nearest to them, once k-means has come to rest.
        middle = sets["means"][rows]
        nearest = torch.cdist(own, middle).argmin(1)
        for c in nearest.unique():
            torch.testing.assert_close(own[nearest == c].mean(0), middle[c], atol=1e-4, rtol=1e-4)
        within = (own - middle[nearest]).square().sum()
        assert float(within) < float((own - own.mean(0)).square().sum())
    few = int(torch.bincount(digits.y_train).min())
    with pytest.raises(ValueError, match=r"per_class must be at most \d+, got"):
        runs.image_sets(digits, torch.Generator(), few + 1)


def test_centres_of_well_separated_points() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 2.0], [9.0, 0.0], [9.0, 4.0]])
    found = runs.centres(x, 1, torch.Generator())
    torch.testing.assert_close(found, x.mean(0, keepdim=True))
    torch.testing.assert_close(
        runs.centres(x, 4, torch.Generator()).sort(0).values, x.sort(0).values
    )
    with pytest.raises(ValueError, match="k must be from 1 to 4"):
        runs.centres(x, 5, torch.Generator())


def test_held_out_images_are_training_images_of_their_own(digits: Dataset) -> None:
    found = frames.held_out(digits, 200, 60)
    same = digits.subset(200)
    assert torch.equal(found.x_train, same.x_train)
    assert torch.equal(found.y_train, same.y_train)
    assert found.x_test.shape == (60, 64)
    assert (
        float(torch.cdist(found.x_test, digits.x_train).min(1).values.max()) < 0.02
    )  # of squares of 32 bits
    rest = digits.subset(260)
    assert torch.equal(found.y_test, rest.y_train[200:])
    assert found.checksum not in (same.checksum, rest.checksum, digits.checksum)
    with pytest.raises(ValueError, match="n_train must be"):
        frames.held_out(digits, 200, 200)


def by_hand() -> frames.Asked:
    """Held-out images choose 0.1 for a and 1 for the real ones; two reported seeds."""

    def rows(seed: int, more: float) -> list[tuple[Any, ...]]:
        return [
            (seed, "a", 0.01, False, 0.1, 0.1), (seed, "a", 0.1, False, 0.5, 0.6 + more),
            (seed, "a", 1.0, False, 0.9, 0.5), (seed, "a", 10.0, False, 0.1, 0.1),
            (seed, "a", 0.05, True, 0.4, 0.4 + more),
            (seed, "real, x", 0.01, False, 0.9, 0.1), (seed, "real, x", 0.1, False, 0.5, 0.2),
            (seed, "real, x", 1.0, False, 0.6 - more, 0.3),
            (seed, "real, x", 10.0, False, 0.1, 0.1),
        ]  # fmt: skip

    columns = ["seed", "arm", "rate", "learned", "train", "accuracy"]
    tuning = pd.DataFrame(rows(1, 0.0), columns=columns).assign(loss=1.0, experts=0.9)
    frame = pd.DataFrame([*rows(5, 0.1), *rows(6, 0.2)], columns=columns)
    return frames.Asked(
        tuning, frames.chosen_rates(tuning), [0.1, 1.0], frame.assign(loss=1.0, experts=0.9)
    )


def test_choices_by_hand() -> None:
    known = by_hand()
    assert known.rates == {"a": 0.1, "real, x": 1.0}
    assert known.accuracies("a").to_dict() == pytest.approx({5: 0.7, 6: 0.8})
    assert known.accuracies("a", "old").to_dict() == pytest.approx({5: 0.5, 6: 0.6})
    # Of 0.1 and 1, training fits best at the first of equals (0.5 and 0.5), then at 0.1 again.
    assert known.rows("real, x", "old").rate.to_dict() == {5: 0.1, 6: 0.1}
    chosen = frames.difference(known, "a", "real, x")
    assert chosen.to_dict() == pytest.approx({5: 0.4, 6: 0.5})
    table = frames.difference_frame(known, {"q": ("a", "real, x")})
    assert list(table[table.choice == "old"].value) == pytest.approx([0.3, 0.4])
    assert frames.rule_gain(known).to_dict() == pytest.approx({5: 0.2, 6: 0.2})
    curves = frames.rate_curves(known)
    assert list(curves[curves.chosen].rate) == [0.1, 1.0]
    assert list(curves[curves.learned].rate) == [0.05]
    arms = frames.arm_table(known).set_index("arm")
    assert arms.loc["a", ["chosen rate", "accuracy", "old accuracy"]].tolist() == [0.1, 0.75, 0.55]
    with pytest.raises(ValueError, match="got 'own', 'a'"):
        known.rows("a", "own")


def test_fitting_by_hand() -> None:
    known = by_hand().frame
    middle = known[(known.arm == "a") | (known.rate != 0.01)]
    assert frames.fitting(middle, "a").to_dict() == {5: 0.5, 6: 0.5}  # at 1, learned ones left out
    with pytest.raises(ValueError, match="chosen for 'real, x'"):
        frames.fitting(known, "real, x")  # at 0.01


def test_differences_by_a_second_rule_and_over_all_seeds() -> None:
    known = by_hand()
    own = known.frame[(known.frame.arm == "a") | (known.frame.rate != 0.01)].copy()
    own.loc[(own.arm == "real, x") & (own.rate == 1.0), "train"] = 0.7
    fit = frames.fitting_frame(own, {"q": ("a", "real, x")})
    assert fit.choice.unique().tolist() == ["fit"]
    assert dict(zip(fit.seed, fit.value, strict=True)) == pytest.approx({5: 0.2, 6: 0.2})
    both = frames.difference_frame(known, {"q": ("a", "real, x")})
    table = frames.all_seeds(pd.concat([both, fit])).set_index("choice")
    assert list(table.index) == ["chosen", "old", "fit", "chosen - old", "fit - old"]
    assert table.seeds.tolist() == [2] * 5
    expected = {"chosen": 0.45, "old": 0.35, "fit": 0.2, "chosen - old": 0.1, "fit - old": -0.15}
    assert table.value.to_dict() == pytest.approx(expected)
    # Of two values x and y the 95 percent interval is the mean ± tan(0.475 π) |x - y| / 2.
    half = np.tan(0.475 * np.pi) * 0.05
    assert table.loc["chosen", ["low", "high"]].tolist() == pytest.approx(
        [0.45 - half, 0.45 + half]
    )
    assert table.loc["chosen - old", ["low", "high"]].tolist() == pytest.approx([0.1, 0.1])


def test_an_end_of_the_grid_is_an_error() -> None:
    tuning = by_hand().tuning
    for end in (0.1, 1.0):
        few = tuning[(tuning.rate >= 0.1) if end == 0.1 else (tuning.rate <= 1.0)]
        with pytest.raises(ValueError, match=r"grid of step sizes of .* must go on beyond"):
            frames.chosen_rates(few)


def test_runs_find_what_was_chosen(digits: Dataset) -> None:
    held = frames.held_out(digits, 200, 100)
    settings = {**OPTIONS, "per_class": 2, "rates": RATES}
    found = frames.asked(digits, held, [7, 8], [70, 71], settings, [0.1, 0.5])
    assert list(found.rates) == ARMS
    means = found.tuning[~found.tuning.learned].groupby(["arm", "rate"]).accuracy.mean()
    for arm, rate in found.rates.items():
        assert means[arm, rate] == means[arm].max()
    direct = runs.graded(digits, seed=8, per_class=2, rates=RATES, **OPTIONS)
    for place, arm in enumerate(ARMS):
        own = direct["test"][place, RATES.index(found.rates[arm])]
        assert found.accuracies(arm)[8] == pytest.approx(own)
    assert found.accuracies("plain", "old")[8] == pytest.approx(direct["learned"][0, 1])
    assert set(found.frame[~found.frame.learned].rate) == {0.1, 0.5} | set(found.rates.values())
    with pytest.raises(ValueError, match="old_rates must be of the grid"):
        frames.asked(digits, held, [7], [70], settings, [0.2])


def test_figure_shows_both_choices(tmp_path: Path) -> None:
    known = by_hand()
    curves = frames.rate_curves(known).assign(setting="one")
    differences = frames.difference_frame(known, {"q": ("a", "real, x")})
    figure = plots.asked_again(curves, differences, ["b", "a", "real, x"], {"q": ["a − x", 0.01]})
    rates, forest = figure.axes
    assert rates.get_title() == "(a) one"
    assert [text.get_text() for text in forest.get_yticklabels()] == ["a − x"]
    marked = [line for line in rates.lines if line.get_marker() not in ("", "None")]
    assert [np.asarray(line.get_xdata()).tolist() for line in marked] == [[0.1], [0.05], [1.0], []]
    means = [float(differences[differences.choice == c].value.mean()) for c in frames.CHOICES]
    at = [x[0] for line in forest.lines if len(x := np.asarray(line.get_xdata())) == 1]
    assert at == pytest.approx(means)
    assert [np.asarray(line.get_xdata()).tolist() for line in forest.lines][-1] == [0.01, 0.01]
    figure.savefig(tmp_path / "again.png")


def test_figure_shows_three_choices_where_there_are_three() -> None:
    known = by_hand()
    curves = frames.rate_curves(known).assign(setting="one")
    two = frames.difference_frame(known, {"p": ("a", "real, x"), "q": ("a", "real, x")})
    third = pd.DataFrame({"question": "q", "choice": "fit", "seed": [5, 6], "value": [0.2, 0.3]})
    questions = {"p": ["first", 0.01], "q": ["second", 0.01]}
    figure = plots.asked_again(curves, pd.concat([two, third]), ["a"], questions)
    forest = figure.axes[1]
    means = [line for line in forest.lines if len(np.asarray(line.get_xdata())) == 1]
    places = [float(np.asarray(line.get_ydata())[0]) for line in means]
    assert places == pytest.approx([-0.13, 0.13, 0.74, 1.0, 1.26])
    legend = forest.get_legend()
    assert legend is not None
    told = [text.get_text() for text in legend.get_texts()]
    assert told == list(plots.NAMES.values())
