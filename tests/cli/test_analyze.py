"""`python -m rclib analyze` and `report`, end to end."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import fresh_process
import pytest
import torch
from safetensors.torch import save_file

import rclib
from rclib.__main__ import main


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def saved(folder: Path, moved: float = 0.0, *, width: int = 36) -> Path:
    folder.mkdir()
    state = {}
    for b in range(2):
        state[f"h.{b}.mlp.c_fc.weight"] = noise(24, width, seed=b) + moved * noise(width, seed=50)
        state[f"h.{b}.mlp.c_proj.weight"] = noise(width, 24, seed=10 + b)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_head": 4}')
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(tmp_path / "model", 1.0)


@pytest.mark.slow
def test_the_table_closes_with_its_sentence(model: Path, tmp_path: Path) -> None:
    done = fresh_process.run(
        ["-m", "rclib", "analyze", "model", "--out", "out"],
        cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1", "RCLIB_WORKERS": "2"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "model: layout gpt2, 4 matrices"
    assert len(lines) == 7
    pattern = r"\d+ of \d+ matrices are heavy-tailed beyond noise, \d+ (have|has) spikes"
    assert re.fullmatch(pattern, lines[-1])
    found = rclib.analyze(model)
    assert lines[-1] == found.sentence
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {
        "analysis.csv", "analysis.json", "analysis.png", "correlations.csv", "report.html",
    }  # fmt: skip
    with open(out / "analysis.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    record = json.loads((out / "analysis.json").read_text("utf-8"))
    for row, line, other in zip(rows, found.to_dict("records"), record["rows"], strict=True):
        assert row["layer"] == line["layer"] == other["layer"]
        for word in ("alpha_hill", "alpha_noise", "tail_ratio", "chance", "p_value"):
            assert float(row[word]) == pytest.approx(line[word], rel=1e-9)
            assert other[word] == line[word]
    assert record["sources"][0]["sentence"] == found.sentence
    assert len(record["correlations"]) == len(found.correlations)


def test_against_an_earlier_one(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = saved(tmp_path / "before")
    assert main(["analyze", str(model), "--against", str(before), "--block", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["before", "after", "change"]
    assert [line.split()[:2] for line in lines[4:10]] == [
        [of, "1"] for of in ("before", "after", "change") for _ in range(2)
    ]
    assert [line.partition(":")[0] for line in lines[-3:]] == ["before", "after", "change"]
    (changed,) = [line for line in lines if line.startswith("change") and "c_fc" in line]
    assert "rank 1 of 24" in changed
    # The other two look at the change alone.
    assert main(["spectra", str(model), "--against", str(before), "--json"]) == 0
    rows = {r["layer"]: r for r in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["h.0.mlp.c_fc.weight"]["rank"] == 1
    assert rows["h.0.mlp.c_proj.weight"]["rank"] == 0
    assert main(["correlations", str(model), "--against", str(before), "--json"]) in (0, 2)
    wider = saved(tmp_path / "wider", width=40)
    capsys.readouterr()
    assert main(["analyze", str(wider), "--against", str(before)]) == 0
    captured = capsys.readouterr()
    assert "note: no change: " in captured.err
    assert "\nchange" not in captured.out


def test_a_bad_tensor_is_named_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {f"h.{b}.mlp.c_fc.weight": noise(24, 36, seed=b) for b in range(3)}
    state["h.1.mlp.c_fc.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "model.safetensors")
    for command in (["analyze"], ["report", "--out", str(tmp_path / "r.html")]):
        assert main([*command, str(tmp_path / "model.safetensors")]) == 1
        captured = capsys.readouterr()
        assert "left out: " in captured.err
        assert "h.1.mlp.c_fc.weight" in captured.err
    page = (tmp_path / "r.html").read_text("utf-8")
    assert page.count("<article") == 2
    assert "left out: h.1.mlp.c_fc.weight" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["analyze", "MODEL", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["spectra", "MODEL", "--threads", "-1"], "--threads must be at least 1, got -1"),
        (["analyze", "MODEL", "--block", "9"], "no block 9, it has [0, 1]"),
        (["analyze", "MODEL", "--against", "nowhere.pt"], "nowhere.pt"),
        (["report", "MODEL", "--out", "."], "--out . is a folder"),
        (["report", "MODEL", "--key2", "ema"], "need a second path"),
        (["report", "MODEL", "MODEL", "--key2", "ema"], "key must be None"),
    ],
)
def test_what_is_refused(
    arguments: list[str], message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model) if a == "MODEL" else a for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_commands_use_one_thread_for_each_matrix(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from threadpoolctl import threadpool_info

    from rclib.inspection import matrix_spectra

    seen = []
    real = matrix_spectra.esd

    def watched(w: torch.Tensor) -> object:
        seen.append(({p["num_threads"] for p in threadpool_info()}, torch.get_num_threads()))
        return real(w)

    monkeypatch.setattr(matrix_spectra, "esd", watched)
    monkeypatch.setenv("RCLIB_WORKERS", "2")
    torch.set_num_threads(2)
    try:
        for command in ("spectra", "analyze"):
            assert main([command, str(model)]) == 0
    finally:
        torch.set_num_threads(1)
    assert seen == [({1}, 1)] * 8
    outputs = []
    for workers in ("1", "3"):
        capsys.readouterr()
        assert main(["spectra", str(model), "--workers", workers]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
