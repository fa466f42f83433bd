"""Every reader of files from elsewhere: valid files to begin with, and what reading one means.

A target reads what it is given to the end: opens it, takes every tensor, looks for its layout,
renders its page. It returns, or raises one of the product's own errors.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from fuzz_mutations import (
    Mutate,
    bytes_of,
    framed_json,
    inside_gzip,
    inside_tar,
    inside_zip,
    json_of,
    opcodes_of,
    yaml_of,
)
from PIL import Image
from safetensors.torch import save

from rclib.__main__ import main as command
from rclib.checkpoints.opening import CheckpointError, open_checkpoint
from rclib.data.cifar10_batches import decode_batches
from rclib.data.image_folder import decode_zip
from rclib.data.pickled_batch import parse_batch
from rclib.data.text import load_text
from rclib.execution import runner, strip
from rclib.execution.depends import notebook_imports
from rclib.experiments.mean_field.mlp_runs import train_mlp
from rclib.families.layout import FamilyError, layout, read_family
from rclib.files.archives import DAMAGE
from rclib.files.plain import DataError
from rclib.files.terminal import printable
from rclib.nets.gpt import GPT
from rclib.reports.scoreboard import scoreboard
from rclib.runs import store
from rclib.site import notebook_page
from rclib.study.parameters import read_parameters
from rclib.study.results import read_results, read_times
from rclib.study.seeds import load_stability

__all__ = ["TARGETS", "Target", "fault"]

MOST_READ = 1 << 26  # bytes of tensors that are taken out of one file
ROOT = Path(__file__).parents[2]
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


@dataclass(frozen=True)
class Target:
    """seeds : valid files; mutate : how they are changed; use : (content, empty folder) -> None,
    which raises one of the product's own errors for what it refuses."""

    seeds: Callable[[], list[bytes]]
    mutate: Mutate
    use: Callable[[bytes, Path], None]


def fault(error: BaseException) -> str:
    """What is wrong with an error, "" for the product's own: ValueError itself or a class of this
    library, one printable line."""
    kind = type(error)
    if kind is not ValueError and not kind.__module__.startswith("rclib."):
        return f"{kind.__name__}: {str(error)[:200]!r}"
    text = str(error)
    if not text.strip() or "\n" in text or printable(text) != text or len(text) > 3000:
        return f"{kind.__name__} is no short printable line: {text[:200]!r}"
    return ""


def _own(error: BaseException) -> None:
    if fault(error):
        raise error


# --- checkpoints ----------------------------------------------------------------------------


def _state() -> dict[str, torch.Tensor]:
    return {
        k: v.detach()
        for k, v in GPT(16, blocks=2, parametrization="SP", vocabulary=32, context=8)
        .state_dict()
        .items()
    }


def _mixed() -> dict[str, torch.Tensor]:
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    return {f"t.{i}": torch.arange(12).reshape(3, 4).to(kind) for i, kind in enumerate(kinds)}


def _read_all(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        left = MOST_READ
        for name, info in checkpoint.tensors.items():
            left -= info.nbytes
            if left < 0:
                break
            try:
                tensor = checkpoint.tensor(name)
            except CheckpointError as error:
                _own(error)
                continue
            assert tuple(tensor.shape) == info.shape, (name, tensor.shape, info)
            assert str(tensor.dtype) == f"torch.{info.dtype}", (name, tensor.dtype, info)
            for first, rows in checkpoint.chunks(name, max_bytes=64):
                if rows.ndim:
                    same = torch.equal(
                        rows.view(torch.uint8) if rows.numel() else rows,
                        tensor[first : first + len(rows)].contiguous().view(torch.uint8)
                        if rows.numel()
                        else rows,
                    )
                    assert same, f"{name}: rows from {first} differ"
        try:
            found = layout(checkpoint.tensors, checkpoint.config, partial=True)
        except FamilyError as error:  # names of no known family
            _own(error)
        else:
            assert set(found.axes) <= set(checkpoint.tensors)


def _by_command(path: Path, *more: str) -> None:
    """The command line on a file: an exit code of its own, and no error that nobody foresaw."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command(["spectra", str(path), *more])
    said = err.getvalue()
    assert status in (0, 1, 2), status
    assert "unexpected" not in said, said
    assert "Traceback" not in said, said
    assert (status == 2) == ("error: " in said), (status, said)
    assert printable(said + out.getvalue()) == said + out.getvalue()


def _checkpoint(name: str) -> Callable[[bytes, Path], None]:
    def use(content: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(content)
        if content and content[-1] % 8 == 0:  # slower by far
            _by_command(path)
        _read_all(path)

    return use


def _beside(name: str) -> Callable[[bytes, Path], None]:
    """A file beside valid weights in a folder."""

    def use(content: bytes, folder: Path) -> None:
        state = _state()
        names = sorted(state)
        for i, part in enumerate((names[::2], names[1::2])):
            file = f"model-0000{i + 1}-of-00002.safetensors"
            (folder / file).write_bytes(save({n: state[n] for n in part}))
        (folder / name).write_bytes(content)
        _read_all(folder)

    return use


def _index() -> list[bytes]:
    names = sorted(_state())
    weight_map = {n: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, n in enumerate(names)}
    return [json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()]


def _config() -> list[bytes]:
    first = {"model_type": "gpt2", "n_head": 2, "n_embd": 8, "n_layer": 2, "vocab_size": 256}
    other = {"architectures": ["LlamaForCausalLM"], "num_attention_heads": 4,
             "hidden_size": 8, "num_key_value_heads": 2, "head_dim": None}  # fmt: skip
    return [json.dumps(first).encode(), json.dumps(other, indent=1).encode()]


def _torch_files(**options: Any) -> list[bytes]:
    found = []
    for value in (_state(), {"model": _mixed(), "step": 3, "args": {"n_head": 2}}):
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        found.append(buffer.getvalue())
    return found


def _plain_pickles() -> list[bytes]:
    arrays = {f"w{i}": np.arange(6.0, dtype=t).reshape(2, 3) for i, t in enumerate("fde")}
    return [pickle.dumps(arrays, protocol=p) for p in (2, 3, 4)]


def _npz() -> list[bytes]:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(6.0).reshape(2, 3), b=np.arange(3))
    return [buffer.getvalue()]


def _gguf() -> list[bytes]:
    try:
        import gguf
    except ImportError:
        return []
    import tempfile

    found = []
    for kind in (None, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
        with tempfile.TemporaryDirectory() as folder:
            writer = gguf.GGUFWriter(Path(folder) / "m.gguf", "llama")
            writer.add_head_count(2)
            writer.add_embedding_length(32)
            writer.add_token_list(["a", "b"])
            values = np.linspace(-1, 1, 64 * 32, dtype=np.float32).reshape(64, 32)
            packed = values if kind is None else gguf.quants.quantize(values, kind)
            writer.add_tensor("blk.0.attn_q.weight", packed, raw_dtype=kind)
            writer.add_tensor("output_norm.weight", values[0].copy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            found.append((Path(folder) / "m.gguf").read_bytes())
    return found


def _tables() -> list[bytes]:
    tables = ROOT / "rclib" / "families" / "tables"
    return [(tables / f"{name}.yaml").read_bytes() for name in ("rclib_gpt", "gpt2", "llama")]


def _table(content: bytes, folder: Path) -> None:
    path = folder / "table.yaml"
    path.write_bytes(content)
    family = read_family(path)
    shapes = {"transformer.h.0.attn.c_attn.weight": torch.zeros(8, 24)} | _state()
    for tensors in (shapes, {f"model.layers.{i}.mlp.up_proj.weight": torch.zeros(6, 4)
                             for i in range(3)}):  # fmt: skip
        with open_checkpoint(tensors) as checkpoint, contextlib.suppress(FamilyError):
            layout(checkpoint.tensors, {"n_head": 2}, family=family, partial=True)


# --- data -----------------------------------------------------------------------------------


def _pictures() -> list[bytes]:
    found = []
    for kind in ("png", "jpeg"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for split in ("train", "test"):
                for i in range(10):
                    picture = io.BytesIO()
                    Image.fromarray(np.full((32, 32, 3), 9 * i, np.uint8)).save(picture, kind)
                    ending = "png" if kind == "png" else "jpg"
                    archive.writestr(f"{split}/class{i}/0.{ending}", picture.getvalue())
        found.append(buffer.getvalue())
    return found


def _damaged(error: BaseException, path: Path) -> DataError:
    """What `rclib.data.images.load` makes of the errors that these readers say they raise."""
    return DataError(f"{path} is damaged: {printable(' '.join(str(error).split()))}")


def _image_zip(content: bytes, folder: Path) -> None:
    path = folder / "cifar10.zip"
    path.write_bytes(content)
    try:
        arrays, _ = decode_zip(path)
    except DAMAGE as error:
        raise _damaged(error, path) from None
    assert arrays["x_train"].shape[1:] == (3, 32, 32)
    assert len(arrays["x_train"]) == len(arrays["y_train"])


def _batch(protocol: int) -> bytes:
    rows = np.arange(3072, dtype=np.int64) % 256
    data = np.stack([rows, 255 - rows]).astype(np.uint8)
    return pickle.dumps({"data": data, "labels": [3, 7], "batch_label": "b"}, protocol=protocol)


def _parse_batch(content: bytes, folder: Path) -> None:
    pixels, labels = parse_batch(content)
    assert pixels.shape == (len(labels), 3072)
    assert pixels.dtype == np.uint8


def _batches() -> list[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in NAMES:
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            content = _batch(2)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return [gzip.compress(buffer.getvalue(), compresslevel=1)]


def _batch_archive(content: bytes, folder: Path) -> None:
    """torchvision's archive, whose md5 the attacker knows."""
    from torchvision.datasets import CIFAR10

    path = folder / "cifar-10-python.tar.gz"
    path.write_bytes(content)
    known = {"tgz_md5": hashlib.md5(content).hexdigest()}
    known |= {"train_list": [[n, _md5_of(content, n)] for n in NAMES[:5]]}
    known |= {"test_list": [[NAMES[5], _md5_of(content, NAMES[5])]]}
    before = {name: getattr(CIFAR10, name) for name in known}
    try:
        for name, value in known.items():
            setattr(CIFAR10, name, value)
        decode_batches(path)
    except DAMAGE as error:
        raise _damaged(error, path) from None
    finally:
        for name, value in before.items():
            setattr(CIFAR10, name, value)


def _md5_of(content: bytes, name: str) -> str:
    """That of a member of the archive; of nothing where there is none."""
    with (
        contextlib.suppress(*DAMAGE, KeyError),
        tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as tar,
    ):
        stream = tar.extractfile(f"cifar-10-batches-py/{name}")
        if stream:
            return hashlib.md5(stream.read()).hexdigest()
    return hashlib.md5(b"").hexdigest()


def _text(ending: str) -> Callable[[bytes, Path], None]:
    def use(content: bytes, folder: Path) -> None:
        path = folder / f"t.txt.{ending}"
        path.write_bytes(content)
        with _variable("RCLIB_DATA", str(folder)):
            data = load_text(path, max_bytes=1 << 24)
        assert len(data.tokens) == len(data.train) + len(data.validation)
        assert not list(folder.rglob("*.tmp"))

    return use


# --- results, parameters, notebooks, stored runs --------------------------------------------


def _results() -> list[bytes]:
    names = ("10_table_1_parametrizations", "20_spikes_one_configuration")
    return [(ROOT / "results/paper" / f"{name}.json").read_bytes() for name in names]


def _read_results(content: bytes, folder: Path) -> None:
    path = folder / "10_a.json"
    changed = content.replace(b"10_table_1_parametrizations", b"10_a")
    path.write_bytes(changed.replace(b"20_spikes_one_configuration", b"10_a"))
    record = read_results(path)
    text = scoreboard([record | {"core_seconds": 0.0, "seconds": 0.0}])
    assert printable(text) == text


def _read_times(content: bytes, folder: Path) -> None:
    path = folder / "times.json"
    path.write_bytes(content)
    assert all(value >= 0 for value in read_times(path).values())


def _stability() -> list[bytes]:
    path = min((ROOT / "results/stability/quick").glob("2*.json"))
    return [path.read_bytes().replace(path.stem.encode(), b"20_a")]


def _read_stability(content: bytes, folder: Path) -> None:
    target = folder / "results/stability/quick/20_a.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    with _variable("RCLIB_OUT", str(folder)):
        load_stability("quick")


def _profile() -> list[bytes]:
    folder = ROOT / "notebooks/paper"
    return [path.read_bytes() for path in sorted(folder.glob("*.yaml"))[1:4]]


def _read_profile(content: bytes, folder: Path) -> None:
    (folder / "notebooks/paper").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    (folder / "notebooks/paper/10_a.yaml").write_bytes(content)
    before = Path.cwd()
    os.chdir(folder)
    try:
        runner.profile_parameters("10_a", "paper")
    finally:
        os.chdir(before)


def _notebooks() -> list[bytes]:
    source = json.loads((ROOT / "notebooks/20_spikes_one_configuration.ipynb").read_bytes())
    small = source | {"cells": source["cells"][:8]}
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]},
        {"output_type": "execute_result", "execution_count": 1, "metadata": {},
         "data": {"text/html": ["<table><tr><td>1</td></tr></table>"], "text/plain": "x"}},
        {"output_type": "display_data", "metadata": {},
         "data": {"image/png": dot + "rkJggg==", "text/plain": "x"}},
        {"output_type": "execute_result", "execution_count": 1, "metadata": {},
         "data": {"text/plain": "'A caption.'"}},
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]},
    ]  # fmt: skip
    code = {"cell_type": "code", "id": "x", "metadata": {}, "execution_count": 1,
            "source": "x = 1", "outputs": outputs}  # fmt: skip
    shown = small | {"cells": [*small["cells"][:3], code]}
    return [json.dumps(small).encode(), json.dumps(shown).encode()]


def _read_notebook(content: bytes, folder: Path) -> None:
    path = folder / "10_a.ipynb"
    path.write_bytes(content)
    faults = []
    for use in (notebook_imports, read_parameters, _render):
        try:
            use(path)  # type: ignore[operator]
        except Exception as error:
            faults.append(error)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        strip.main([str(path)])
    worst = next((error for error in faults if fault(error)), None)
    if worst or faults:
        raise worst or faults[0]


def _render(path: Path) -> None:
    notebook = notebook_page.read_notebook(path)
    page = notebook_page.render(notebook, pictures="p")
    assert "<script" not in page.html.lower()
    notebook_page.declaring_cells(notebook, ["a"])


def _runs() -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        key = store.run_key(train_mlp, {}, data=None)
        arrays = {"a": np.arange(6.0), "b": np.ones((2, 3), np.float32)}
        store.keep(train_mlp, {}, arrays, key=key, seconds=1.0, root=Path(folder))
        (path,) = Path(folder).rglob("*.safetensors")
        return [path.read_bytes()]


def _lookup(content: bytes, folder: Path) -> None:
    key = store.run_key(train_mlp, {}, data=None)
    arrays = {"a": np.arange(6.0), "b": np.ones((2, 3), np.float32)}
    store.keep(train_mlp, {}, arrays, key=key, seconds=1.0, root=folder)
    (path,) = folder.rglob("*.safetensors")
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert store.seconds_spent(train_mlp, {}, root=folder) >= 0
        found = store.lookup(train_mlp, {}, root=folder)
    if found is None:
        raise DataError("set aside, to be computed again")
    for name, array in arrays.items():  # a run that was changed is never taken for the run
        np.testing.assert_array_equal(found[name], array)


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _plain_yaml(content: bytes) -> bytes:
    return yaml.safe_dump(yaml.safe_load(content), sort_keys=False).encode()


TORCH = inside_zip(**{"data.pkl": opcodes_of})
TARGETS: dict[str, Target] = {
    "safetensors": Target(
        lambda: [save(_state()), save(_mixed(), {"format": "pt"})],
        framed_json,
        _checkpoint("m.safetensors"),
    ),
    "torch.save": Target(_torch_files, TORCH, _checkpoint("m.pt")),
    "torch.save, old": Target(
        lambda: _torch_files(_use_new_zipfile_serialization=False), opcodes_of, _checkpoint("m.pt")
    ),
    "pickle": Target(_plain_pickles, opcodes_of, _checkpoint("m.pkl")),
    "npz": Target(_npz, inside_zip(), _checkpoint("m.npz")),
    "gguf": Target(_gguf, bytes_of, _checkpoint("m.gguf")),
    "index of shards": Target(_index, json_of, _beside("model.safetensors.index.json")),
    "config.json": Target(_config, json_of, _beside("config.json")),
    "family table": Target(
        lambda: [*_tables(), *map(_plain_yaml, _tables())], yaml_of, _table
    ),
    "image archive": Target(_pictures, inside_zip(), _image_zip),
    "CIFAR batch": Target(lambda: [_batch(2)], opcodes_of, _parse_batch),
    "CIFAR archive": Target(_batches, inside_gzip(inside_tar(opcodes_of)), _batch_archive),
    "text.gz": Target(lambda: [gzip.compress(b"some text\n" * 400)], bytes_of, _text("gz")),
    "text.xz": Target(lambda: [lzma.compress(b"some text\n" * 400)], bytes_of, _text("xz")),
    "results file": Target(_results, json_of, _read_results),
    "times file": Target(
        lambda: [b'{"core_seconds": 1.5, "seconds": 3}'], json_of, _read_times
    ),
    "stability file": Target(_stability, json_of, _read_stability),
    "parameters file": Target(_profile, yaml_of, _read_profile),
    "notebook": Target(_notebooks, json_of, _read_notebook),
    "stored run": Target(_runs, framed_json, _lookup),
}  # fmt: skip
