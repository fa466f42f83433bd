"""Files that are read back: what was changed since is refused or made anew, never taken for right.

Unpacked texts, saved states, records of `make seeds`, dates in the future, linked folders, disks
that fill up, damaged notebooks, memory that is not there. Every input is made here.
"""

from __future__ import annotations

import copy
import gzip
import json
import lzma
import os
import pickle
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from safetensors.torch import load_file, save_file

from rclib import paths
from rclib.checkpoints.opening import CheckpointError, open_checkpoint
from rclib.cli.common import Folder
from rclib.data import text as texts
from rclib.data.images import DataError
from rclib.execution import depends, runner
from rclib.execution.limits import few_files
from rclib.inspection import matrix_spectra as spectra
from rclib.reports import readme, scoreboard
from rclib.runs import code_modules
from rclib.site import images, notebook_page
from rclib.study import seeds
from rclib.training.lm_state import StateError, load_state, save_state

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("notebooks", "results/quick"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.setenv("RCLIB_DATA", str(tmp_path / "data"))
    return tmp_path


# --- texts ---------------------------------------------------------------------------------

CONTENT = b"".join(b"line %d\n" % i for i in range(3000))


@pytest.mark.parametrize("change", ["flipped", "cut", "longer", "emptied", "a folder"])
def test_an_unpacked_copy_that_was_changed_is_made_anew(project: Path, change: str) -> None:
    (project / "t.txt.xz").write_bytes(lzma.compress(CONTENT))
    right = texts.load_text("t.txt.xz").checksum
    (copied,) = (project / "data" / "text").iterdir()
    if change == "a folder":
        copied.unlink()
        copied.mkdir()
        with pytest.warns(UserWarning, match="is damaged"), pytest.raises(DataError, match="direc"):
            texts.load_text("t.txt.xz")
        return
    made = {"flipped": b"L" + CONTENT[1:], "cut": CONTENT[:-1], "longer": CONTENT + b"\n"}
    copied.write_bytes(made.get(change, b""))
    with pytest.warns(UserWarning, match="is damaged; unpacking .*t.txt.xz again"):
        assert texts.load_text("t.txt.xz").checksum == right
    assert copied.read_bytes() == CONTENT


def test_a_text_that_changes_on_its_way_to_a_worker_is_refused(project: Path) -> None:
    path = project / "t.txt"
    path.write_bytes(CONTENT)
    sent = pickle.dumps(texts.load_text(path))
    assert len(pickle.loads(sent).tokens) == len(CONTENT)
    path.write_bytes(b"L" + CONTENT[1:])
    os.utime(path, (1, 1))
    with pytest.raises(DataError, match=r"t\.txt was changed while it was in use"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(DataError, match=r"t\.txt cannot be read"):
        pickle.loads(sent)


def test_damaged_archives_of_text_are_named(project: Path) -> None:
    """Any byte of a gzip or xz file changed: read as it was, or one line."""
    right = texts.load_text(_written(project / "a.txt", CONTENT)).checksum
    for kind, packed in (("gz", gzip.compress(CONTENT, mtime=0)), ("xz", lzma.compress(CONTENT))):
        path = project / f"a.txt.{kind}"
        for place in range(0, len(packed), max(1, len(packed) // 60)):
            damaged = bytearray(packed)
            damaged[place] ^= 0x5A
            path.write_bytes(damaged)
            try:
                assert texts.load_text(path).checksum == right  # a name, a date in the header
            except DataError as error:
                assert str(path) in str(error)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_xz_in_streams_with_zeros_between_and_in_bounds(project: Path) -> None:
    half = len(CONTENT) // 2
    streams = lzma.compress(CONTENT[:half]) + bytes(8) + lzma.compress(CONTENT[half:]) + bytes(4)
    found = texts.load_text(_written(project / "s.xz", streams))
    assert bytes(found.tokens.numpy()) == CONTENT
    # The header alone says how much the reader should set aside.
    small = bytearray(lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]))
    small[16] = 40  # 4 GiB; the header's own checksum is made right
    small[20:24] = zlib.crc32(bytes(small[12:20])).to_bytes(4, "little")
    with pytest.raises(DataError, match="cannot be unpacked: Memory usage limit"):
        texts.load_text(_written(project / "g.xz", bytes(small)))


@pytest.mark.parametrize("source", ["~nouser/x", "a\0b"])
def test_names_of_texts_that_are_none(project: Path, source: str) -> None:
    with pytest.raises(DataError, match=r"cannot be found|is missing"):
        texts.load_text(source)


def test_the_name_of_a_text_does_not_move_the_terminal(project: Path) -> None:
    found = texts.load_text(_written(project / "\x1b[31m\udcff.txt", CONTENT))
    assert found.description.isprintable()


# --- saved states --------------------------------------------------------------------------


def _sealed(path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16),
               "step": torch.tensor(3.0), "none": torch.zeros(0, 4)}  # fmt: skip
    save_state(path, tensors, {"step": 3})


def test_a_state_comes_back(tmp_path: Path) -> None:
    _sealed(tmp_path / "s")
    tensors, record = load_state(tmp_path / "s")
    assert torch.equal(tensors["a"], torch.arange(6.0).view(2, 3))
    assert record == {"format": 2, "step": 3}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def _record(text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as handle:
            meta = handle.metadata()
        save_file(load_file(path), path, metadata=meta | {"record": text})

    return change


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_flip, "its checksum is another"),
        (_record('{"format": 2, "step": 4}'), "its checksum is another"),
        (_record('{"format": 1, "step": 3}'), "has format 1, not 2; delete it"),
        (_record("[]"), "its record is no object"),
        (_record("{"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: save_file(load_file(path), path), "cannot be read"),
        (_pipe, "no plain file"),
    ],
)
def test_a_state_that_was_changed_is_refused(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "s"
    _sealed(path)
    change(path)
    with pytest.raises(StateError, match=reason):
        load_state(path)


# --- records of make seeds -----------------------------------------------------------------

ROW = {"key": "k", "verdict": "reproduced", "verdicts": {"reproduced": 3, "undecided": 1}}
SEEDS = {"notebook": "10_a", "profile": "quick", "repeats": 4, "step": 1000, "claims": [ROW]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "not an object"),
        ("[" * 100_000, "nested too deeply"),
        ({**SEEDS, "notebook": "11_b"}, "its notebook is '11_b', not '10_a'"),
        ({**SEEDS, "profile": "paper"}, "its profile is 'paper'"),
        ({k: v for k, v in SEEDS.items() if k != "repeats"}, "repeats must be a positive whole"),
        ({**SEEDS, "repeats": True}, "repeats must be a positive whole"),
        ({**SEEDS, "repeats": 5}, "its verdicts are 4 in all, not 5"),
        ({**SEEDS, "claims": []}, "claims must be a list"),
        ({**SEEDS, "claims": [1]}, "a key of its own, got None"),
        ({**SEEDS, "claims": [ROW, ROW]}, "a key of its own, got 'k'"),
        ({**SEEDS, "claims": [{**ROW, "key": ["k"]}]}, "a key of its own"),
        ({**SEEDS, "claims": [{**ROW, "key": "\x1b"}]}, "a key of its own"),
        ({**SEEDS, "claims": [{**ROW, "verdict": ["reproduced"]}]}, "its verdict is not among"),
        ({**SEEDS, "claims": [{**ROW, "verdict": "not reproduced"}]}, "its verdict is not among"),
        ({**SEEDS, "claims": [{**ROW, "verdicts": {"proved": 4}}]}, "verdicts must count"),
        ({**SEEDS, "claims": [{**ROW, "verdicts": {"reproduced": -4}}]}, "verdicts must count"),
        ({**SEEDS, "claims": [{**ROW, "verdicts": [4]}]}, "verdicts must count"),
    ],
)
def test_a_record_of_seeds_is_refused_by_name_and_hides_no_results(
    project: Path, content: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = seeds.stability_path("quick", "10_a")
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=f"stability file {path} is not valid: .*{reason}"):
        seeds.load_stability("quick")
    record = {"notebook": "10_a", "profile": "quick", "data": {"description": "d"}}
    claim = {"key": "k", "verdict": "reproduced", "criterion": "≥ 0"}
    claim |= {"value": 1.0, "low": 1.0, "high": 1.0}
    broken: list[str] = []
    shown = scoreboard.scoreboard([record | {"claims": [claim]}], broken)
    assert "1 claims: 1 reproduced" in shown
    assert len(broken) == 1
    (project / "README.md").write_text("")
    assert readme.main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_valid_records_stand_beside_a_broken_one(project: Path) -> None:
    folder = seeds.stability_path("quick", "x").parent
    folder.mkdir(parents=True)
    (folder / "10_a.json").write_text(json.dumps(SEEDS))
    (folder / "11_b.json").write_text("{}")
    broken: list[str] = []
    assert seeds.seed_shares("quick", [("10_a", ROW), ("11_b", ROW)], broken) == ["3/4", ""]
    assert len(broken) == 1


# --- dates and links -----------------------------------------------------------------------


def test_a_date_in_the_future_is_no_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.py"
    path.write_text("x = 1\n")
    state = path.stat()
    os.utime(path, (state.st_mtime + 86400,) * 2)
    time.sleep(0.05)
    monkeypatch.setattr(code_modules, "_IMPORTED", time.time())
    assert not code_modules._edited(path)  # touched, unpacked or copied with another clock's date
    time.sleep(0.05)
    path.write_text("x = 22\n")
    assert code_modules._edited(path)
    other = tmp_path / "n.py"
    other.write_text("x = 1\n")
    monkeypatch.setattr(code_modules, "_IMPORTED", other.stat().st_ctime - 5)
    assert code_modules._edited(other)
    # The clock was set back: the file's own times lie ahead, and tell nothing.
    third = tmp_path / "o.py"
    third.write_text("x = 1\n")
    monkeypatch.setattr(code_modules.time, "time", lambda: state.st_ctime - 1000)
    monkeypatch.setattr(code_modules, "_IMPORTED", state.st_ctime - 2000)
    assert not code_modules._edited(third)
    third.write_text("x = 333\n")
    assert code_modules._edited(third)


def test_a_linked_notebooks_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").touch()
    (tmp_path / "b" / "notebooks").mkdir()
    link = tmp_path / "a" / "notebooks"
    link.symlink_to(tmp_path / "b" / "notebooks")
    monkeypatch.chdir(tmp_path / "a")
    with pytest.raises(paths.FolderError, match=r"is a link to .*: results would go there"):
        paths.project_root()
    assert runner.main(["run", "10_a"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {link} is a link to ")
    link.unlink()
    (tmp_path / "a" / "nb").mkdir()
    link.symlink_to("nb")  # within the project all is well
    assert paths.project_root() == tmp_path / "a"


# --- disks, pipes, networks ----------------------------------------------------------------

FULL = """
import resource, sys
from rclib.cli.common import Folder
folder = Folder(sys.argv[1])
folder.json("a", {"x": 1})
folder.json("blocks/b", {"x": "y" * 100_000})
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
try:
    folder.write()
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_no_part_of_out(tmp_path: Path, before: bool) -> None:
    out = tmp_path / "deep" / "out"
    if before:
        out.mkdir(parents=True)
        (out / "a.json").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(out)], capture_output=True, text=True, timeout=60,
        cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stdout == f"[Errno 27] File too large: '{out / 'blocks' / 'b.json'}'\n"
    left = sorted(tmp_path.rglob("*"))
    assert left == ([out.parent, out, out / "a.json"] if before else [])
    assert not before or (out / "a.json").read_text() == "old"


def test_out_without_a_home(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--out: no home folder is known for '~nouser'"):
        Folder("~nouser/x")


def test_a_pipe_among_the_notebooks_holds_nothing(project: Path) -> None:
    path = project / "notebooks" / "10_a.ipynb"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a plain file"):
        depends.notebook_imports(path)
    with pytest.raises(ValueError, match="not a plain file"):
        notebook_page.read_notebook(path)


def test_no_network_of_its_own_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(101, "Network is unreachable")

    runner._check_loopback("10_a")
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(runner.RunError, match=r"10_a: .*127\.0\.0\.1.*Network is unreachable"):
        runner._check_loopback("10_a")


def test_few_files_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {64: "may open 64 files", 1024: "", resource.RLIM_INFINITY: ""}
    for limit, text in limits.items():
        monkeypatch.setattr(resource, "getrlimit", lambda _, n=limit: (n, n))
        said = few_files()
        assert text in said
        assert bool(said) == bool(text)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert few_files() == ""


# --- notebooks and pictures of the site ----------------------------------------------------


def _notebook() -> dict[str, Any]:
    cells = [
        new_markdown_cell("# Title\n$x^2$", id="a"),
        new_code_cell("1", id="b", outputs=[
            new_output("stream", text="out"),
            new_output("execute_result", {"text/plain": "'caption'"}, execution_count=1),
            new_output("display_data", {"text/html": "<b>x</b>"}),
        ]),
    ]  # fmt: skip
    return json.loads(nbformat.writes(new_notebook(cells=cells)))  # type: ignore[no-any-return]


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, entry in pairs:
        found.append((*at, key))
        if isinstance(entry, (dict, list)):
            found += _places(entry, (*at, key))
    return found


@pytest.mark.filterwarnings("ignore:Your element with mimetype")
@pytest.mark.parametrize("value", [None, 3, "codex", [], {}, ["\ud800"], {"image/png": "!"}])
def test_a_notebook_changed_anywhere_is_shown_or_named(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "n.ipynb"
    refused = 0
    for place in _places(_notebook()):
        changed = copy.deepcopy(_notebook())
        entry: Any = changed
        for key in place[:-1]:
            entry = entry[key]
        entry[place[-1]] = value
        path.write_text(json.dumps(changed))
        try:
            notebook = notebook_page.read_notebook(path)
            notebook_page.declaring_cells(notebook, ["k"])
            notebook_page.render(notebook, pictures="p")
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 10


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"P6 99999 99999 255\n"])
def test_a_picture_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    for use in (images.size, images.thumbnail):
        with pytest.raises(ValueError, match=f"{path} is not a picture"):
            use(path)
    with pytest.raises(ValueError, match="not a picture"):
        images.size_of(content)


# --- memory --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_missing_memory_names_the_tensor_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    torch.manual_seed(0)
    save_file(
        {n: torch.randn(30, 20) for n in ("a.weight", "b.weight")}, tmp_path / "m.safetensors"
    )
    real = spectra.esd

    def small(matrix: torch.Tensor) -> Any:
        if not done:
            done.append(1)
            raise error
        return real(matrix)

    done: list[int] = []
    monkeypatch.setattr(spectra, "esd", small)
    failed: dict[str, str] = {}
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        found = list(
            spectra.matrix_spectra(checkpoint, failed=lambda n, e: failed.update({n: str(e)}))
        )
        assert [one.layer for one in found] == ["b.weight"]
        assert failed["a.weight"].endswith("tensor 'a.weight': no memory for its spectrum")
        done.clear()
        with pytest.raises(CheckpointError, match="no memory for its spectrum"):
            list(spectra.matrix_spectra(checkpoint))
        monkeypatch.setattr(spectra, "esd", lambda _: (_ for _ in ()).throw(RuntimeError("bug")))
        with pytest.raises(RuntimeError, match="bug"):
            list(spectra.matrix_spectra(checkpoint))
