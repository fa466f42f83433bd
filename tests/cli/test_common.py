"""`python -m rclib correlations` and `spectra`, end to end on small safetensors files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fresh_process
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rclib.__main__ import main

N, HEADS, HIDDEN, BLOCKS = 24, 4, 36, 2


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """A GPT-2 of two blocks in bfloat16, in the order and names of its files."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (50, N), "wpe.weight": (16, N)}
    for b in range(BLOCKS):
        shapes |= {
            f"h.{b}.ln_1.weight": (N,), f"h.{b}.attn.c_attn.weight": (N, 3 * N),
            f"h.{b}.attn.c_attn.bias": (3 * N,), f"h.{b}.attn.c_proj.weight": (N, N),
            f"h.{b}.ln_2.weight": (N,), f"h.{b}.mlp.c_fc.weight": (N, HIDDEN),
            f"h.{b}.mlp.c_fc.bias": (HIDDEN,), f"h.{b}.mlp.c_proj.weight": (HIDDEN, N),
        }  # fmt: skip
    found = {
        name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()
    }
    found["h.0.attn.bias"] = torch.ones(1, 1, 16, 16).tril()  # the mask of old files
    return found


def saved(folder: Path, state: dict[str, Tensor], config: dict[str, Any] | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(tmp_path / "model", tensors(), {"model_type": "gpt2", "n_head": HEADS})


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return fresh_process.run(["-m", "rclib", *arguments], cwd=cwd, env=environment)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def files_under(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_correlations_end_to_end(model: Path, tmp_path: Path) -> None:
    before = files_under(tmp_path)
    done = command("correlations", "model", "--biases", "--out", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("model: layout gpt2, 19 tensors, ")
    assert "rows lie above chance, their 95 percent level" in lines[-1]
    assert files_under(tmp_path) - before == {
        f"results/{name}"
        for name in (
            "correlations.csv", "correlations.json", "correlations.png", "vectors.csv",
            "vectors.png", "blocks/block_000.png", "blocks/block_001.png", "blocks/outside.png",
        )
    }  # fmt: skip

    # The numbers against numpy, from the tensors themselves.
    w = {name: t.double().numpy() for name, t in tensors().items()}
    q, k, v = np.split(w["h.1.attn.c_attn.weight"], 3, axis=1)
    stream = {
        "ln_1.weight": w["h.1.ln_1.weight"], "attn.c_attn.q.R": q.mean(1),
        "attn.c_attn.k.R": k.mean(1), "attn.c_attn.v.R": v.mean(1),
        "attn.c_proj.C": w["h.1.attn.c_proj.weight"].mean(0), "ln_2.weight": w["h.1.ln_2.weight"],
        "mlp.c_fc.R": w["h.1.mlp.c_fc.weight"].mean(1),
        "mlp.c_proj.C": w["h.1.mlp.c_proj.weight"].mean(0),
    }  # fmt: skip
    matrix = np.corrcoef(np.stack(list(stream.values())))
    record = json.loads((tmp_path / "results" / "correlations.json").read_text("utf-8"))
    assert (record["family"], record["ignored"]) == ("gpt2", ["h.0.attn.bias"])
    (row,) = [r for r in record["rows"] if (r["block"], r["set"]) == (1, "stream")]
    places = [list(stream).index(label) for label in row["labels"]]
    np.testing.assert_allclose(row["correlations"], matrix[np.ix_(places, places)], atol=2e-6)
    off = np.abs(matrix - np.eye(len(matrix)))
    assert row["value"] == pytest.approx(off.max(), abs=1e-6)
    (line,) = [
        r
        for r in rows_of(tmp_path / "results" / "correlations.csv")
        if (r["block"], r["set"]) == ("1", "stream")
    ]
    assert float(line["value"]) == pytest.approx(row["value"])
    assert (line["first"], line["pairs"], line["n"]) == (row["first"], "28", str(N))
    for entry in rows_of(tmp_path / "results" / "vectors.csv"):
        if (entry["block"], entry["set"]) == ("1", "stream"):
            at = list(stream).index(entry["vector"])
            assert float(entry["value"]) == pytest.approx(off[at].max(), abs=1e-6)


@pytest.mark.slow
def test_spectra_end_to_end(model: Path, tmp_path: Path) -> None:
    before = files_under(tmp_path)
    done = command(
        "spectra", "model/model.safetensors", "--block", "1", "--out", "out", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model/model.safetensors: layout gpt2, 6 matrices\n")
    names = ("spectra.csv", "spectra.json", "spectra.png", "histograms.csv", "histograms.png")
    assert files_under(tmp_path) - before == {f"out/{name}" for name in names}
    rows = {r["matrix"]: r for r in rows_of(tmp_path / "out" / "spectra.csv")}
    w = tensors()["h.1.attn.c_attn.weight"].double().numpy()[:, N : 2 * N]
    values = np.linalg.svd(w, compute_uv=False) ** 2
    row = rows["attn.c_attn.k"]
    assert float(row["largest"]) == pytest.approx(values[0], rel=1e-6)
    assert float(row["stable_rank"]) == pytest.approx(values.sum() / values[0], rel=1e-6)
    assert float(row["alpha_hill"]) == pytest.approx(
        1 + N // 2 / np.log(values[: N // 2] / values[N // 2 - 1]).sum(), rel=1e-6
    )
    assert (rows["mlp.c_fc"]["outputs"], rows["mlp.c_fc"]["inputs"]) == (str(HIDDEN), str(N))
    record = json.loads((tmp_path / "out" / "spectra.json").read_text("utf-8"))
    assert {r["matrix"] for r in record["rows"]} == set(rows)


def test_json_and_blocks(model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = files_under(tmp_path)
    assert main(["correlations", str(model), "--block", "0", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {r["block"] for r in record["rows"]} == {0}
    assert record["source"] == str(model)
    assert main(["spectra", str(model), "--json"]) == 0
    blocks = [r["block"] for r in json.loads(capsys.readouterr().out)["rows"]]
    assert blocks == [0] * 6 + [1] * 6 + [None] * 2
    assert files_under(tmp_path) == before  # without --out nothing is written


def test_a_table_and_sizes_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"blk.0.qk": torch.randn(24, 12), "blk.0.up": torch.randn(20, 12)}
    folder = saved(tmp_path / "own", state, None)
    table = tmp_path / "own.yaml"
    table.write_text(
        "tensors:\n"
        '  blk.{b}.qk: "[q: head d | k: head d] <- stream"\n'
        "  blk.{b}.up: mlp <- stream\n"
        "sets: {stream: stream, channels: head d}\n",
        encoding="utf-8",
    )
    assert main(["correlations", str(folder), "--axes", str(table), "--size", "head=3"]) == 0
    out = capsys.readouterr().out
    assert "layout own, 2 tensors" in out
    assert "channels" in out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.slow
def test_refused_inputs_end_with_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command("correlations", "nowhere.safetensors", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "nowhere.safetensors" in done.stderr
    assert "nowhere.safetensors" in refused(capsys, "spectra", "nowhere.safetensors")
    (tmp_path / "file").write_text("", encoding="utf-8")
    out = str(tmp_path / "file" / "deeper")
    assert "cannot write into" in refused(capsys, "correlations", str(model), "--out", out)
    source = str(model)
    assert "no block 7" in refused(capsys, "spectra", source, "--block", "7")
    assert "INDEX=NUMBER" in refused(capsys, "correlations", source, "--size", "head")
    assert "unknown index 'kv'" in refused(capsys, "spectra", source, "--size", "kv=2")
    axes = str(tmp_path / "none.yaml")
    assert "none.yaml: cannot be read" in refused(capsys, "spectra", source, "--axes", axes)


def test_unknown_layouts_and_bad_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = saved(tmp_path / "strange", {"net.0.w": torch.randn(4, 4)}, {"model_type": "new"})
    message = refused(capsys, "correlations", str(strange))
    assert "net.{b}.w (4x4)" in message
    assert "--axes FILE.yaml" in message
    config = {"model_type": "gpt2", "n_head": HEADS}
    state = tensors()
    state["h.1.mlp.c_fc.weight"][2, 3] = float("nan")
    broken = saved(tmp_path / "nan", state, config)
    out = tmp_path / "out"
    for name in ("correlations", "spectra"):  # the others are measured, the bad one is named
        assert main([name, str(broken), "--out", str(out / name)]) == 1
        captured = capsys.readouterr()
        assert "attn.c_proj" in captured.out
        assert "h.1.mlp.c_fc.weight" in captured.err
        assert captured.err.count("\n") == 1
        record = json.loads((out / name / f"{name}.json").read_text("utf-8"))
        assert list(record["left_out"]) == ["h.1.mlp.c_fc.weight"]
    heads = saved(tmp_path / "heads", tensors(), {"model_type": "gpt2", "n_head": 5})
    assert "head.0 = 5" in refused(capsys, "correlations", str(heads))


def test_a_table_to_begin_with_is_accepted_as_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no table fits and none can be inferred, the message's remedy is a file that works."""
    state = {"x.emb.weight": torch.randn(30, 12), "x.norm": torch.ones(12)}
    for b in range(2):
        state[f"x.{b}.into.weight"] = torch.randn(50, 12)
        state[f"x.{b}.taps"] = torch.randn(12, 3, 5)
        state[f"x.{b}.back.weight"] = torch.randn(12, 33)
    save_file(state, tmp_path / "m.safetensors")
    source, table = str(tmp_path / "m.safetensors"), tmp_path / "t.yaml"
    assert "--write-table FILE.yaml makes a start" in refused(capsys, "correlations", source)
    text = refused(capsys, "correlations", source, "--write-table", str(table))
    assert f"{table} now has a row for every tensor" in text
    assert main(["spectra", source, "--axes", str(table)]) == 0
    capsys.readouterr()
    assert "no index set has two" in refused(capsys, "correlations", source, "--axes", str(table))
    # What the message says: one name for axes over the same neurons.
    text = table.read_text("utf-8")
    rows = dict(line.strip().split(": ") for line in text.splitlines() if ": " in line[:40])
    inputs = rows["x.{b}.into.weight"].split(" <- ")[1]
    outputs = rows["x.{b}.back.weight"].split(" <- ")[0]
    table.write_text(text.replace(inputs, "stream").replace(outputs, "stream"), "utf-8")
    capsys.readouterr()
    assert main(["correlations", source, "--axes", str(table)]) == 0
    assert "stream" in capsys.readouterr().out
    other = tmp_path / "other.yaml"
    assert main(["spectra", source, "--write-table", str(other)]) == 0
    assert "now has a row for every tensor" in capsys.readouterr().err
    assert other.is_file()
    bad = tmp_path / "bad.yaml"
    bad.write_text("family: x\ntensors:\n  y: stream\n", "utf-8")
    again = tmp_path / "again.yaml"
    refused(capsys, "correlations", source, "--axes", str(bad), "--write-table", str(again))
    assert not again.exists()


def test_one_bad_tensor_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"model_type": "gpt2", "n_head": HEADS}
    assert main(["spectra", str(saved(tmp_path / "good", tensors(), config)), "--json"]) == 0
    whole = {r["matrix"]: r for r in json.loads(capsys.readouterr().out)["rows"] if r["block"] == 1}
    state = tensors()
    state["h.1.mlp.c_fc.weight"][2, 3] = float("nan")
    state["h.1.attn.c_attn.weight"][0, 0] = float("inf")
    broken = saved(tmp_path / "bad", state, config)
    assert main(["spectra", str(broken), "--json"]) == 1
    captured = capsys.readouterr()
    rows = {r["matrix"]: r for r in json.loads(captured.out)["rows"] if r["block"] == 1}
    assert rows == {m: whole[m] for m in ("attn.c_proj", "mlp.c_proj")}
    left_out = json.loads(captured.out)["left_out"]
    assert set(left_out) == {"h.1.mlp.c_fc.weight", "h.1.attn.c_attn.weight"}
    lines = captured.err.splitlines()
    assert [line.startswith("left out: ") for line in lines] == [True, True]
    assert all(name in captured.err for name in left_out)
    out = tmp_path / "out"
    assert main(["correlations", str(broken), "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert "tensor 'h.1.mlp.c_fc.weight': entry [2, 3] is nan" in captured.err
    record = json.loads((out / "correlations.json").read_text("utf-8"))
    (row,) = [r for r in record["rows"] if (r["block"], r["set"]) == (1, "stream")]
    # What is left: c_proj of attention and MLP.
    a, b = (tensors()[f"h.1.{m}.c_proj.weight"].double().mean(0) for m in ("attn", "mlp"))
    assert row["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)
    everything = saved(tmp_path / "all", {k: v * float("nan") for k, v in state.items()}, config)
    for name in ("correlations", "spectra"):
        message = refused(capsys, name, str(everything))
        assert "left out: " in message


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["correlations"], ["spectra", "x", "--block", "a"]]
)
def test_bad_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from rclib.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    for name in ("analyze", "report", "correlations", "spectra"):
        done = subprocess.run(
            [sys.executable, "-c", code, name, "--help"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"--out {'FILE.html' if name == 'report' else 'DIR'}" in done.stdout
        assert "--workers N" in done.stdout
        assert done.stdout.endswith("False False\n")


def test_the_console_script_is_the_same_program() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"]["rclib"] == "rclib.__main__:main"
