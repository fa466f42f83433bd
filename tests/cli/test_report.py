"""`python -m rclib report`: the file it writes, and at MiniLM's size its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bs4 import BeautifulSoup
from safetensors.torch import save_file

from rclib.__main__ import main


def bert(folder: Path, *, blocks: int, width: int, vocabulary: int, seed: int = 0) -> Path:
    """A BERT of MiniLM's kind with random weights."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return 0.05 * torch.randn(shape, generator=generator)

    state = {
        "embeddings.word_embeddings.weight": noise(vocabulary, width),
        "embeddings.position_embeddings.weight": noise(512, width),
        "embeddings.token_type_embeddings.weight": noise(2, width),
        "pooler.dense.weight": noise(width, width),
    }
    names = ("attention.self.query", "attention.self.key", "attention.self.value")
    for b in range(blocks):
        for name in (*names, "attention.output.dense"):
            state[f"encoder.layer.{b}.{name}.weight"] = noise(width, width)
        state[f"encoder.layer.{b}.intermediate.dense.weight"] = noise(4 * width, width)
        state[f"encoder.layer.{b}.output.dense.weight"] = noise(width, 4 * width)
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    config = {"model_type": "bert", "num_attention_heads": 12}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_one_and_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = bert(tmp_path / "a", blocks=2, width=24, vocabulary=60)
    second = bert(tmp_path / "b", blocks=2, width=24, vocabulary=60, seed=1)
    out = tmp_path / "new" / "report.html"
    assert main(["report", str(first), "--out", str(out)]) == 0
    sentence, where = capsys.readouterr().out.splitlines()
    assert "heavy-tailed beyond noise" in sentence
    assert str(out) in where
    soup = BeautifulSoup(out.read_text("utf-8"), "html.parser")
    assert len(soup.select("article.card")) == 16
    assert soup.h1.get_text() == str(first)
    assert main(["report", str(first), str(second), "--out", str(out), "--block", "0"]) == 0
    soup = BeautifulSoup(out.read_text("utf-8"), "html.parser")
    assert soup.h1.get_text() == f"{first} and {second}"  # before, then after
    facts = [p.get_text().partition(":")[0] for p in soup.select(".facts")]
    assert facts == [str(first), str(second), f"{second} minus {first}"]
    written = out.read_bytes()
    arguments = ["report", str(second), "--out", str(out), "--block", "0", "--against"]
    assert main([*arguments, str(first)]) == 0  # the same, as the other commands say it
    assert out.read_bytes() == written
    capsys.readouterr()
    assert main([*arguments, str(first), "--key2", "x"]) == 2
    assert "need a second path" in capsys.readouterr().err
    assert main(["report", str(first), str(second), "--against", str(first)]) == 2
    assert "two ways to name the other checkpoint" in capsys.readouterr().err
    for command in ("report", "analyze", "spectra", "correlations"):
        assert main([command, str(first), "--against-key", "x"]) == 2
        assert "need --against BEFORE" in capsys.readouterr().err
    assert len(soup.select("article.card")) == 6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux")
def test_minilm_fits_into_a_gigabyte(tmp_path: Path) -> None:
    model = bert(tmp_path / "minilm", blocks=6, width=384, vocabulary=30522)
    code = (
        "import re, sys, torch, pandas, scipy.stats\n"
        "def most():\n"  # of this program: getrusage counts what its parent had as well
        "    text = open('/proc/self/status').read()\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+) kB', text)[1]) * 1024\n"
        "before = most()\n"
        "from rclib.__main__ import main\n"
        "status = main(sys.argv[1:])\n"
        "print(before, most())\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(model), "--out", str(tmp_path / "r.html")],
        capture_output=True, text=True, timeout=240,
        env={**os.environ, "RCLIB_WORKERS": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, most = map(int, done.stdout.splitlines()[-1].split())
    # Importing torch alone takes 0.2 to 0.6 GB, by how it was built.
    assert most - before < 400e6
    assert most < 1e9
    assert (tmp_path / "r.html").stat().st_size < 6e6
