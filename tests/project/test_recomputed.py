"""Ten drawn claims recomputed without rclib: the draw repeats, the page is current, all agree.

The scripts are in tests/recomputed; each claim's notebook and key make its script's name.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import fresh_process
import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "recomputed"
SCRIPTS = sorted(FOLDER.glob("claim_*.py"))
VALUES: dict[str, Any] = json.loads((FOLDER / "values.json").read_text(encoding="utf-8"))
POPULATION: dict[str, Any] = json.loads((FOLDER / "population.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules that draw, judge and write, which find each other by their folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("drawn_claims", "recompute", "recomputed_page")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return {name: importlib.import_module(name) for name in names}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_there_imports_the_library(path: Path) -> None:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    own = {p.stem for p in FOLDER.glob("*.py")}
    allowed = {"PIL", "numpy", "scipy", "sklearn", "torch", "torchvision"}
    assert found - own - allowed <= sys.stdlib_module_names
    if path in SCRIPTS:  # by itself, but for the images
        assert found & own <= {"plain_images"}


def test_the_draw_repeats(folder: dict[str, ModuleType]) -> None:
    taken = folder["drawn_claims"].draw(POPULATION)["taken"]
    assert [name[0] for name in taken[:9]] == list("123456789")
    assert len(set(taken)) == 10
    named = [folder["recompute"].script_of(name) for name in taken]
    assert sorted(named) == [path.stem for path in SCRIPTS] == sorted(VALUES)


def test_the_population_was_what_the_results_hold(folder: dict[str, ModuleType]) -> None:
    """Claims come and go; most of those that were drawn from are there still."""
    now = folder["drawn_claims"].population(ROOT / "results" / "paper")
    assert len(POPULATION.keys() & now.keys()) > 0.9 * len(POPULATION)


def test_a_claim_is_passed_over_for_its_cost_or_the_long_text(
    folder: dict[str, ModuleType],
) -> None:
    drawn = folder["drawn_claims"]
    cheap = {f"{digit}0_x/{key}": (1.0, False) for digit in drawn.SERIES for key in "ab"}
    costly = {f"{digit}0_x/c{k}": (301.0, False) for digit in "123" for k in range(40)}
    long = {f"40_x/d{k}": (1.0, True) for k in range(40)}
    members = {
        name: {"seconds": seconds, "long_text": text}
        for name, (seconds, text) in (cheap | costly | long).items()
    }
    found = drawn.draw(members)
    assert len(found["taken"]) == 10
    assert set(found["taken"]) <= set(cheap)
    assert set(found["passed_over"]) <= set(costly | long)
    assert set(found["passed_over"].values()) == {"301 core-seconds", "needs the long text"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_new_and_stored_interval_agree(path: Path, folder: dict[str, ModuleType]) -> None:
    recompute = folder["recompute"]
    (drawn,) = [name for name in POPULATION if recompute.script_of(name) == path.stem]
    claim, values = recompute.stored(drawn), VALUES[path.stem]["values"]
    assert len(values) == len(set(VALUES[path.stem]["seeds"])) >= 3
    assert recompute.agrees(claim, values)


def test_what_agrees(folder: dict[str, ModuleType]) -> None:
    agrees = folder["recompute"].agrees
    claim = {
        "low": 1.0, "high": 2.0, "criterion_low": 1.5, "criterion_high": None,
        "verdict": "undecided",
    }  # fmt: skip
    assert agrees(claim, [1.0, 1.1, 1.2])
    assert not agrees(claim, [0.1, 0.2, 0.3])
    assert agrees({**claim, "verdict": "not reproduced"}, [1.0, 1.1, 1.2])
    assert not agrees({**claim, "verdict": "reproduced"}, [1.0, 1.1, 1.2])  # overlap alone is less


def test_how_far_apart(folder: dict[str, ModuleType]) -> None:
    """Two samples of ten: Welch's t."""
    recompute, rng = folder["recompute"], np.random.default_rng(0)
    one, other = rng.normal(0.0, 1.0, 10), rng.normal(1.0, 3.0, 10)
    mean, half = one.mean(), stats.t.ppf(1 - 0.0105 / 2, 9) * stats.sem(one)
    claim = {
        "value": mean, "low": mean - half, "high": mean + half, "repeats": 10, "level": 0.0105,
    }  # fmt: skip
    expected = abs(stats.ttest_ind(one, other, equal_var=False).statistic)
    assert recompute.apart(claim, list(other)) == pytest.approx(expected)


def test_the_page_is_current(folder: dict[str, ModuleType]) -> None:
    text = (ROOT / "docs" / "recomputed.md").read_text(encoding="utf-8")
    said = "run `python tests/recomputed/recompute.py --page`"
    assert folder["recomputed_page"].page() == text, said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["claim_24_gd_spike_exponent", "claim_72_mean_off"])
def test_a_script_runs_and_gives_its_stored_value(name: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import {name} as one;"
        "print(one.main([0])[0]);"
        "print([m for m in sys.modules if m.split('.')[0] == 'rclib'])"
    )
    done = fresh_process.run(["-c", code], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    value, loaded = done.stdout.splitlines()
    assert float(value) == pytest.approx(VALUES[name]["values"][0], rel=1e-3)
    assert loaded == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "constant", "wrong", "seeds", "seen"),
    [
        ("72_permutations/mean_off", "LEFT", 0.1, 5, True),  # training stopped early
        ("24_spikes_width_scaling/gd_spike_exponent", "RATE_PER_DIM", 0.5, 3, False),
    ],
)
def test_which_planted_errors_show(
    name: str, constant: str, wrong: float, seeds: int, seen: bool,
    folder: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As the page says of them."""
    recompute = folder["recompute"]
    module = importlib.import_module(recompute.script_of(name))
    monkeypatch.setattr(module, constant, wrong)
    assert recompute.agrees(recompute.stored(name), module.main(range(seeds))) == (not seen)
