"""Notebook 87: its arms are those of the old notebooks; choices of rates against plain runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rclib.data.images import Dataset
from rclib.experiments.finetuning import asked_again, bone, loldu, svfit, tuned_runs

SETTINGS: dict[str, Any] = {
    "base": {
        "pool": 1, "width": 16, "classes": 5, "n": 300, "batch_size": 32, "steps": 40, "rate": 0.01,
    },
    "steps": 20, "batch_size": 16,
    "task": {"n_train": 60, "n_validation": 30, "n_test": 40, "head_rate": 0.002},
}  # fmt: skip
ARMS = asked_again.arms_of(8, 16, 4, 2)
PAIRS = asked_again.pairs_of(8, 16)
RATES = [0.0001, 0.01, 0.1, 1.0, 100.0]
SEEDS = [3, 8]


@pytest.fixture(scope="module")
def found(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        yield asked_again.asked(digits, ARMS, PAIRS, RATES, [900], SEEDS, SETTINGS)


def by_hand() -> asked_again.Asked:
    """Two arms: the training loss chooses 0.1 for a and 1 for b, validation 0.01 for both."""
    rows = [
        ("a", 0.01, 3.0, 0.0), ("a", 0.1, 1.0, 2.0), ("a", 1.0, 2.0, 2.0), ("a", 10.0, 9.0, 9.0),
        ("b", 0.01, 3.0, 0.0), ("b", 0.1, 2.5, 2.0), ("b", 1.0, 0.5, 2.0), ("b", 10.0, 9.0, 9.0),
        ("head", 0.01, 4.0, 4.0),
    ]  # fmt: skip
    tuning = pd.DataFrame(rows, columns=["arm", "rate", "train", "validation"])
    both = [tuning.assign(seed=5), tuning.assign(seed=6, train=tuning.train + tuning.rate)]
    rates = {
        "training": {"a": 0.1, "b": 1.0, "head": 0.01},
        "validation": {"a": 0.01, "b": 0.01, "head": 0.01},
    }
    return asked_again.Asked(tuning, rates, {"q": 1.0}, {"q": ("a", "b")}, pd.concat(both))


def test_arms_are_those_of_the_old_notebooks() -> None:
    old = (
        (loldu.image_arms([8, 32, 64, 128], [1, 4], full=True),
         ["head", "LDU 64", "random 64", "singular values 64"]),
        (svfit.image_arms([4, 16, 64, 128], [1, 8]), ["top 128", "random 128"]),
        (bone.arms_of(16, 7, alone="head"), ["Bone", "product", "LoRA"]),
    )  # fmt: skip
    expected = {name: arms[name] for arms, names in old for name in names}
    assert asked_again.arms_of(64, 128, 16, 7) == expected
    named = {arm for pair in asked_again.pairs_of(64, 128).values() for arm in pair}
    assert named | {"head"} == set(expected)


def test_rates_by_hand() -> None:
    known = by_hand()
    assert tuned_runs.chosen_rates(known.tuning, "train") == known.rates["training"]
    assert tuned_runs.chosen_rates(known.tuning) == known.rates["validation"]
    assert asked_again.common_rate(known.tuning, ("a", "b")) == 1.0
    diverged = known.tuning.copy()
    diverged.loc[(diverged.arm == "a") & (diverged.rate == 1.0), "train"] = np.nan
    assert asked_again.common_rate(diverged, ("a", "b")) == 0.1
    with pytest.raises(ValueError, match="no run diverges"):
        asked_again.common_rate(diverged.assign(train=np.nan), ("a", "b"))
    with pytest.raises(ValueError, match=r"choice must be one of .*, got 'own'"):
        known.rate("a", "own", "q")


def test_differences_by_hand() -> None:
    known = by_hand()
    expected = {"training": [0.5, -0.4], "validation": [0.0, 0.0], "common": [1.5, 1.5]}
    frame = asked_again.difference_frame(known)
    for choice, values in expected.items():
        difference = asked_again.difference(known, "q", choice)
        assert list(difference.index) == [5, 6]
        assert list(difference) == pytest.approx(values)
        assert list(frame[frame.choice == choice].value) == pytest.approx(values)
    # a: 1 - 3 and 1.1 - 3.01; b: 0.5 - 3 and 1.5 - 3.01
    assert list(asked_again.rate_gain(known)) == pytest.approx([-2.25, -1.71])
    assert list(asked_again.head_gain(known)) == pytest.approx([3.0, 2.51])
    curves = asked_again.rate_curves(known)
    assert set(curves.arm) == {"a", "b"}
    assert list(curves[curves.training].rate) == [0.1, 1.0]
    assert list(curves[curves.validation].rate) == [0.01, 0.01]


def test_runs_against_plain_ones(digits: Dataset, found: asked_again.Asked) -> None:
    for arm, rate in found.rates["training"].items():
        own = found.tuning[found.tuning.arm == arm]
        assert own[own.rate == rate].train.item() == own.train.min()
    one, other = PAIRS["product_lora"]
    rates = {arm: [found.rates["training"][arm]] for arm in (one, other)}
    few = {arm: ARMS[arm] for arm in (one, other)}
    runs = tuned_runs.run_arms(digits, few, rates, [8], SETTINGS)
    ends = [float(runs[arm, rates[arm][0], 8]["end"][0]) for arm in (one, other)]
    assert asked_again.difference(found, "product_lora", "training")[8] == ends[0] - ends[1]
    table = asked_again.rate_table(found, ARMS, 16, 64).set_index("arm")
    assert table.loc["LDU 8", "count"] == 2 * 8
    assert table.loc["top 16", "count"] == 2 * 16
    assert table.loc["Bone", "count"] == table.loc["product", "count"] == 2 * 16 * 4
    same = table["rate by training"] == table["rate by validation"]
    assert (table[same].train == table[same]["train, old rule"]).all()


def test_a_rate_at_an_end_of_the_grid_is_an_error(
    digits: Dataset, found: asked_again.Asked
) -> None:
    few = {arm: ARMS[arm] for arm in ("head", "Bone", "LoRA")}
    best = found.rates["training"]["LoRA"]
    with pytest.raises(ValueError, match=r"rates must go on beyond .*'LoRA'"):
        asked_again.asked(
            digits, few, {"q": ("Bone", "LoRA")}, [0.0001, best], [900], [3], SETTINGS
        )


def test_figure_shows_every_choice(found: asked_again.Asked, tmp_path: Path) -> None:
    from rclib.experiments.finetuning import plots_again

    curves, differences = asked_again.rate_curves(found), asked_again.difference_frame(found)
    groups = {"one": ["LDU 8", "random 8"], "two": ["Bone", "product", "LoRA"]}
    first_two = {"svd_half": ["a", 0.0], "sum_hurts": ["b", -0.2]}
    questions = {"80": first_two, "82": {"frames_all": ["c", 0.0]}}
    figure = plots_again.asked_again(curves, differences, groups, questions)
    first, second, forest, last = figure.axes
    assert [text.get_text() for text in forest.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in last.get_yticklabels()] == ["c"]
    assert last.get_title() == "(d) 82"
    assert [text.get_text() for text in second.get_legend().get_texts()] == groups["two"]
    criteria = [line.get_xdata()[0] for line in forest.lines if line.get_linestyle() == ":"]
    assert criteria == [0.0, -0.2]
    means = asked_again.difference(found, "svd_half", "common").mean()
    assert any(np.allclose(line.get_xdata(), means) for line in forest.lines)
    rings = [line for line in first.lines if line.get_markerfacecolor() == "none"]
    rates = [found.rates["validation"][arm] for arm in groups["one"]]
    assert [line.get_xdata()[0] for line in rings if line.get_marker() != ""] == rates
    figure.savefig(tmp_path / "again.png")
