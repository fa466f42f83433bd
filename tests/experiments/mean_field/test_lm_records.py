"""Records of runs computed elsewhere: what is committed, what is refused, how one is made."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from rclib.data.text import load_text
from rclib.experiments.mean_field import lm_records, make_record
from rclib.experiments.mean_field.lm_records import (
    FOLDER,
    PAPER,
    PROVENANCE,
    RecordError,
    expected_configuration,
    load_records,
    provenance,
    read_record,
    record_name,
    text_of,
    write_record,
)
from rclib.experiments.mean_field.lm_runs import losses_at, means_of, train_gpt

ROOT = Path(__file__).parents[3]
TINY: dict[str, Any] = {
    "lr": 0.03, "steps": [50, 100], "blocks": 1, "context": 8, "batch_size": 2, "head_size": 8,
    "eval_batches": 1,
}  # fmt: skip
ORIGIN = dict.fromkeys(PROVENANCE, "x") | {"note": "", "text": "a text", "text_checksum": "0"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train_gpt(load_text(), **expected_configuration(16, 1, **TINY))


@pytest.fixture
def record(run: Any, tmp_path: Path) -> Path:
    return write_record(run, expected_configuration(16, 1, **TINY), ORIGIN, tmp_path)


def test_committed_records_are_the_notebooks_runs() -> None:
    settings = yaml.safe_load((ROOT / "notebooks/paper/16_figure_4_5_row_means.yaml").read_text())
    found = settings | settings["network"] | {"lr": settings["lr"]["MF"]}
    assert {k: found[k] for k in PAPER} == PAPER
    records = load_records(**PAPER)
    seeds = {n: [r.key[2] for r in records if r.key[1] == n] for n in (128, 256, 1024)}
    assert seeds == {128: [0, 1, 2], 256: [0, 1, 2, 3, 4], 1024: [0, 1, 2, 3]}
    fresh = lm_records.fresh_repeats(records, {256: [0, 1, 2], 1024: [0, 1]})
    assert fresh == {256: [3, 4], 1024: [2, 3]}
    assert lm_records.fresh_repeats([], {256: []}) == {}
    assert set(provenance(records).device) == {"NVIDIA H200"}
    assert text_of(records).description.startswith("proposals.txt")
    for run in records:
        assert losses_at(run.arrays, PAPER["steps"]).max() < 3
        start = means_of(run.arrays, "blocks.7.Wup", step=0, axis="R")
        assert start.std() == pytest.approx((3 / (4 * run.key[1])) ** 0.5, rel=0.3)
        assert means_of(run.arrays, "blocks.0.Wup", step=32000).shape == (4 * run.key[1],)


def test_committed_records_are_small_and_name_no_folder() -> None:
    files = list(FOLDER.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) < 2_000_000
    for path in files:
        assert path.stat().st_size < 1_000_000
        with safe_open(path, framework="np") as handle:
            for text in handle.metadata().values():
                assert not re.search(r"/(work|home|tmp|root)\b", text)


def test_a_record_holds_the_run_to_half_precision(run: Any, record: Path) -> None:
    found = read_record(record)
    assert found.key == ("MF", 16, 1)
    assert record.name == record_name(16, 1)
    for matrix, axis in (("Wdown", "C"), ("Wup", "R")):
        for step in (0, 50, 100):
            kept = means_of(found.arrays, f"blocks.0.{matrix}", step=step, axis=axis)
            true = means_of(run, f"blocks.0.{matrix}", step=step, axis=axis)
            assert kept == pytest.approx(true, rel=2**-11)
    kept = means_of(found.arrays, "blocks.0.Wup", step=100, axis="C")
    assert kept == pytest.approx(means_of(run, "blocks.0.Wup", step=100, axis="C"), rel=2**-11)
    assert np.array_equal(found.arrays["eval_loss"], run["eval_loss"])
    assert found.arrays["train_loss_50"] == pytest.approx(run["train_loss"].reshape(2, 50).mean(1))
    assert load_records(record.parent, **TINY)[0].configuration == found.configuration


def changed(path: Path, meta: dict[str, str] | None = None, **arrays: np.ndarray) -> None:
    with safe_open(path, framework="np") as handle:
        before = dict(handle.metadata())
    save_file(load_file(path) | arrays, path, metadata=before | (meta or {}))


def test_what_is_no_sound_record_is_refused(record: Path) -> None:
    whole = record.read_bytes()
    changed(record, eval_loss=np.zeros(2))
    with pytest.raises(RecordError, match=r"w16_s1\.safetensors is damaged: its checksum"):
        read_record(record)
    record.write_bytes(whole[:-5])
    with pytest.raises(RecordError, match=r"w16_s1\.safetensors cannot be read"):
        read_record(record)
    record.write_bytes(whole)
    changed(record, {"format": "another"})
    with pytest.raises(RecordError, match=r"is no record: format is 'another'"):
        read_record(record)
    record.write_bytes(whole)
    shutil.copy(record, record.with_name("w16_s2.safetensors"))
    with pytest.raises(RecordError, match=r"w16_s2\.safetensors holds N = 16, repeat 1"):
        load_records(record.parent, **TINY)


def test_another_configuration_or_text_is_refused(run: Any, record: Path) -> None:
    with pytest.raises(RecordError, match=r"another recipe: \{'lr': 0\.03\}"):
        load_records(record.parent, **{**TINY, "lr": 0.1})
    with pytest.raises(RecordError, match=r"another network: \{'context': 8\}"):
        load_records(record.parent, **{**TINY, "context": 16})
    second = expected_configuration(16, 2, **TINY)
    write_record(run, second, ORIGIN | {"text_checksum": "1"}, record.parent)
    with pytest.raises(RecordError, match="must share one text, got 2"):
        load_records(record.parent, **TINY)


def test_a_folder_of_a_machine_does_not_get_in(run: Any, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="note names a folder of this machine"):
        write_record(
            run, expected_configuration(16, 1, **TINY), ORIGIN | {"note": "from /home/x"}, tmp_path
        )
    with pytest.raises(RecordError, match="needs a start_seed and device"):
        write_record(run, expected_configuration(16, 1, **TINY), {}, tmp_path)


def test_the_command_makes_a_record_of_a_finished_run(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = {"config": json.dumps(expected_configuration(16, 1, **TINY)), "device": "a card"}
    meta |= {"torch": "2", "precision": "torch.float32", "compile": "default"}
    meta |= {"text": load_text().checksum, "times": "[[50, 1.0], [100, 3.0]]"}
    source = tmp_path / "run.safetensors"
    save_file({k: v for k, v in run.items() if k != "diverged"}, source, metadata=meta)
    into = tmp_path / "records"
    given = ["--arrays", str(source), "--text", "python", "--into", str(into)]
    assert make_record.main([*given, "--computed", "2026-11-26"]) == 0
    assert capsys.readouterr().out.strip().endswith("w16_s1.safetensors")
    origin = load_records(into, **TINY)[0].origin
    assert (origin["ms_per_step"], origin["computed"]) == ("2.00", "2026-11-26")
    save_file({}, source, metadata=meta | {"text": "0"})
    assert make_record.main(given) == 1
    assert "was trained on another text" in capsys.readouterr().err


def test_training_one_needs_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert make_record.main(["--text", "python"]) == 1
    assert "needs a GPU" in capsys.readouterr().err


def test_window_and_settings_are_what_the_files_say() -> None:
    assert lm_records.WINDOW == 50
    assert all(step % lm_records.WINDOW == 0 for step in PAPER["steps"])
