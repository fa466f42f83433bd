"""benchmarks/table.py and kept.py: what was measured, what was asked for, and the page of both."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import fresh_process
import pytest
import yaml

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("table")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("kept")


@pytest.fixture
def files(kept: ModuleType, table: ModuleType, tmp_path: Path) -> dict[str, dict[str, Any]]:
    one = kept.Kept("one", threads=2, keeping=True, folder=tmp_path)
    one.add("small", {"ours": [1.0, 2.0, 4.0], "usual": [3.0, 8.0, 8.0], "slow": [20.0]})
    one.add("memory", {"ours": [7.0]}, unit="bytes")
    one.write()
    found: dict[str, dict[str, Any]] = table.measured(tmp_path)
    return found


def test_there_is_a_page_of_the_kept_measurements_where_there_are_any(table: ModuleType) -> None:
    targets = yaml.safe_load((BENCHMARKS / "targets.yaml").read_text(encoding="utf-8"))
    found = table.measured()
    assert table.PAGE.is_file() == bool(found)
    if found:
        assert table.PAGE.read_text(encoding="utf-8") == table.whole(targets)


def test_what_was_kept_is_of_benchmarks_that_are_there(table: ModuleType) -> None:
    scripts = {path.stem.removeprefix("bench_") for path in BENCHMARKS.glob("bench_*.py")}
    assert {"authors", "epoch", "gpt", "spectra", "stack", "sweep", "teacher"} <= scripts
    assert set(table.measured()) <= scripts
    for kept in table.measured().values():
        for entry in kept["settings"]:
            least = min(min(numbers) for numbers in entry["ways"].values())
            # A sweep may leave the process no larger than it was.
            assert least >= 0 if entry["unit"] == "bytes" else least > 0, entry


def test_ratios_are_paired_round_by_round(table: ModuleType) -> None:
    assert table.ratio([3.0, 8.0, 8.0], [1.0, 2.0, 4.0]) == (3.0, 2.0, 4.0)
    assert table.ratio([20.0], [1.0, 2.0, 4.0]) == (10.0, 10.0, 10.0)
    assert table.ratio([1.0, 2.0, 4.0], [20.0]) == (0.1, 0.1, 0.1)
    assert str(table.ratio([3.0, 8.0, 8.0], [1.0, 2.0, 4.0])) == "3 [2, 4]"


def test_targets_met_and_missed(table: ModuleType, files: dict[str, dict[str, Any]]) -> None:
    target = {"benchmark": "one", "setting": "small", "over": "usual", "under": "ours"}
    (row,) = table.target_rows(files, [target | {"what": "faster", "at_least": 3}])
    assert row == "| faster | at least 3 | 3 [2, 4] | yes |"
    missed = target | {"what": "fast", "at_most": 2.9}
    (row,) = table.target_rows(files, [missed | {"why": "the products take it"}])
    assert row.endswith("| no: the products take it |")
    with pytest.raises(ValueError, match="'fast' is missed, and has no reason"):
        table.target_rows(files, [missed])
    with pytest.raises(ValueError, match="'fast' is met, but has reason"):
        table.target_rows(files, [missed | {"at_most": 3.1, "why": "x"}])
    with pytest.raises(ValueError, match=r"no 'large' in bench_one.py; there are \['small', 'mem"):
        table.target_rows(files, [missed | {"setting": "large"}])


def test_the_page_has_every_way(table: ModuleType, files: dict[str, dict[str, Any]]) -> None:
    page = table.page(files, [])
    assert "| small | ours | 2 s | 1 |" in page
    assert "|  | usual | 8 s | 3 [2, 4] |" in page
    assert "| memory | ours | 7 bytes | 1 |" in page
    assert ", 2 threads, torch " in page


def test_many_workers_by_hand(table: ModuleType, tmp_path: Path) -> None:
    work = table.scale.Work
    notebooks = [work("10_a", 100.0, 5, 2.0), work("11_b", 90.0, 1, 2.0)]
    # 10_a's longest piece is 20 s, 11_b's is all of it.
    assert table.scale.minutes(notebooks, 1) == pytest.approx((194 / 60, 194 / 60))
    assert table.scale.minutes(notebooks, 10) == pytest.approx(((20 + 2 + 90 + 2) / 60, 92 / 60))
    text = table.scale.lines(notebooks, 0.005)
    assert "| 100 | 0.0 h | 0.0 h |" in text
    assert "11_b\n   has the longest" in text
    assert "when runs are shorter than 0.5 s" in text
    (tmp_path / "times").mkdir()
    for name, seconds in (("10_a", 7.0), ("11_b", 400.0)):
        times = {"core_seconds": 1000.0, "seconds": seconds}
        (tmp_path / "times" / f"{name}.json").write_text(json.dumps(times))
        claims = [{"repeats": 3, "unit": "seed"}, {"repeats": 50, "unit": "draw"}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"claims": claims}))
    assert table.scale.works(tmp_path) == [
        work("10_a", 1000.0, 3, 7.0),
        work("11_b", 1000.0, 3, 7.0),
    ]


def test_nothing_is_written_unasked(kept: ModuleType, tmp_path: Path) -> None:
    one = kept.Kept("one", threads=1, keeping=False, folder=tmp_path)
    one.add("small", {"ours": [1.0]})
    one.write()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="'ours' has no round in 'small'"):
        one.add("small", {"ours": []})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("stack", ["--members", "2", "--steps", "2", "--rounds", "1"]),
        ("sweep", ["--count", "4", "--rounds", "1", "--workers"]),
        ("teacher", ["--d", "20", "--h", "30", "--n", "40", "--rounds", "1", "--rates", "0.1"]),
    ],
)
def test_a_benchmark_runs_and_is_kept(tmp_path: Path, name: str, options: list[str]) -> None:
    for path in (BENCHMARKS / f"bench_{name}.py", BENCHMARKS / "kept.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    done = fresh_process.run(
        [str(tmp_path / f"bench_{name}.py"), *options, "--keep"], cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "measured" / f"{name}.json").read_text(encoding="utf-8"))
    assert content["benchmark"] == f"bench_{name}.py"
    assert len(content["settings"]) >= 1
    first = content["settings"][0]
    assert len(first["ways"]) >= 3
