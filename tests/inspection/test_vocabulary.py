"""One vocabulary: what the commands print, write as CSV and as JSON, and what is explained."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rclib.__main__ import main
from rclib.analysis.model import COLUMNS
from rclib.analysis.page import PAIRS, SHOWN
from rclib.cli import analyze, correlations, spectra
from rclib.inspection.vocabulary import MEANINGS, VERSION, cell, heading, number, said


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    generator = torch.Generator().manual_seed(0)
    shapes = {"wte.weight": (50, 24)}
    for b in range(2):
        shapes |= {
            f"h.{b}.attn.c_attn.weight": (24, 72), f"h.{b}.attn.c_proj.weight": (24, 24),
            f"h.{b}.mlp.c_fc.weight": (24, 36), f"h.{b}.mlp.c_proj.weight": (36, 24),
        }  # fmt: skip
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_head": 4}')
    return folder


@pytest.mark.parametrize("name", ["spectra", "correlations", "analyze"])
def test_table_csv_json_and_docs_use_the_same_words(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, str(model), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()[1]
    words = {"spectra": spectra, "correlations": correlations, "analyze": analyze}[name].SHOWN
    there = re.split(r" {2,}", printed.strip())
    assert there == [heading(w) for w in words if w != "note" or "note" in there]
    stem = "analysis" if name == "analyze" else name
    with open(tmp_path / f"{stem}.csv", encoding="utf-8", newline="") as handle:
        columns = next(csv.reader(handle))
    record = json.loads((tmp_path / f"{stem}.json").read_text("utf-8"))
    rows = set(record["rows"][0]) - {"labels", "correlations", "left_out"}
    assert set(words) <= set(columns) == rows
    for file in tmp_path.glob("*.csv"):
        with open(file, encoding="utf-8", newline="") as handle:
            table = list(csv.DictReader(handle))
        assert set(table[0]) <= set(MEANINGS), file
        if "block" in table[0]:  # a number, or missing
            assert {row["block"] for row in table} <= {"0", "1", ""}, file
    assert record["vocabulary"] == VERSION
    assert {row["block"] for row in record["rows"]} <= {0, 1, None}
    assert {*words, *COLUMNS, *SHOWN, *PAIRS} <= set(MEANINGS)


def test_the_words_of_one_quantity_mean_the_same_value_everywhere(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault that this guards from: `chance` was one number in the table, another in the CSV."""
    assert main(["correlations", str(model), "--out", str(tmp_path), "--block", "1"]) == 0
    header, line = capsys.readouterr().out.splitlines()[1:3]
    printed = dict(zip(*(re.split(r" {2,}", row.strip()) for row in (header, line)), strict=True))
    with open(tmp_path / "correlations.csv", encoding="utf-8", newline="") as handle:
        row = next(csv.DictReader(handle))
    for word in ("expected", "chance", "p_value", "correlation"):
        assert float(printed[heading(word)]) == pytest.approx(float(row[word]), abs=6e-4)
    for word in ("block", "set", "n", "pairs", "first", "second"):
        assert printed[heading(word)] == row[word]
    assert float(row["expected"]) < float(row["chance"])


def test_headings_and_cells() -> None:
    assert heading("alpha_hill") == "α hill"
    assert heading("p_value") == "p value"
    with pytest.raises(KeyError, match="no word"):
        heading("value_p")
    row = {"alpha_hill": 2.1234, "alpha_hill_low": 2.0, "alpha_hill_high": 2.25, "note": None}
    assert cell("alpha_hill", row) == "2.12 [2.00, 2.25]"
    assert cell("alpha_hill", row | {"alpha_hill_low": float("nan")}) == "2.12"
    assert cell("note", row) == ""
    assert number(None) == number(float("inf")) == ""
    assert number(1e-5, "p_value") == "1.0e-05"
    assert number(1e-310, "p_value") == "< 1e-300"
    assert number(-0.5, "correlation") == "-0.500"
    assert (number(3), number(12345.0), number(0.00123)) == ("3", "12345", "0.00123")


def test_the_closing_sentence() -> None:
    heavy, not_heavy = "heavy-tailed", "not heavy-tailed"
    text = said([heavy, not_heavy, not_heavy], [0, 3, 1])
    assert text == "1 of 3 matrices are heavy-tailed beyond noise, 2 have spikes"
    text = said([not_heavy, None], [1, None])
    assert text == (
        "0 of 1 matrix is heavy-tailed beyond noise, 1 has spikes; 1 without an exponent "
        "(note says why)"
    )
