"""benchmarks/make_checkpoint.py: the shapes of Llama-3.1-8B, the same bytes every time."""

from __future__ import annotations

import importlib.util
import math
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rclib.checkpoints.opening import open_checkpoint
from rclib.streaming.means import axis_means


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "make_checkpoint.py"
    spec = importlib.util.spec_from_file_location("make_checkpoint", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_full_size_is_that_of_llama(maker: ModuleType) -> None:
    table = maker.shapes(1.0, 32)
    assert sum(math.prod(shape) for shape in table.values()) == 8_030_261_248
    assert len(table) == 291
    shards = maker.split(table)
    assert [name for shard in shards for name in shard] == list(table)
    sizes = [2 * sum(math.prod(s) for s in shard.values()) for shard in shards]
    assert len(sizes) == 4
    assert 3e9 < min(sizes) <= max(sizes) < 5.1e9


def test_what_is_written_opens_and_repeats(maker: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert maker.make(tmp_path / name, scale=0.02, layers=3, seed=1)
    assert maker.make(tmp_path / "other", scale=0.02, layers=3, seed=2)
    shards = sorted(p.name for p in (tmp_path / "one").glob("*.safetensors"))
    assert len(shards) == 4
    for shard in shards:
        content = (tmp_path / "one" / shard).read_bytes()
        assert content == (tmp_path / "two" / shard).read_bytes()
        assert content != (tmp_path / "other" / shard).read_bytes()
    with open_checkpoint(tmp_path / "one") as checkpoint:
        assert list(checkpoint.tensors) == list(maker.shapes(0.02, 3))
        assert checkpoint.config is not None
        assert checkpoint.config["num_hidden_layers"] == 3
        embedding = checkpoint.tensor("model.embed_tokens.weight")
        assert embedding.dtype == torch.bfloat16
        assert float(embedding.float().std()) == pytest.approx(0.02, rel=0.01)
        assert not torch.equal(embedding, checkpoint.tensor("lm_head.weight"))
        assert abs(axis_means(checkpoint, "lm_head.weight").mean) < 1e-3
    before = (tmp_path / "one" / shards[0]).stat().st_mtime_ns
    assert maker.make(tmp_path / "one", scale=0.02, layers=3, seed=1)
    assert (tmp_path / "one" / shards[0]).stat().st_mtime_ns == before  # it was there


def test_a_disk_that_is_too_small(
    maker: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(maker.shutil, "disk_usage", lambda _: usage(10**10, 0, 10**10))
    assert not maker.make(tmp_path / "full")
    assert capsys.readouterr().out == (
        f"skipped: {tmp_path / 'full'} needs 16.1 GB, 10.0 GB are free\n"
    )
    assert not list((tmp_path / "full").iterdir())
