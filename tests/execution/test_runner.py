"""execution.runner: a small project in a temporary folder, with the real papermill and kernel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rclib.execution import runner
from rclib.execution.runner import RunError
from rclib.study.claims import Claims, above
from rclib.study.results import read_results
from rclib.study.study import environment

PARAMETERS = """\
profile = "quick"
widths = [4,  # small
          8]
lr: float = 0.1
name = "a=b # c"  # no comment inside
flag = True
limit = None
"""
PRINT = "print(profile, widths, lr, name, flag, limit)"
CHECK = "# NBVAL_CHECK_OUTPUT\nprint(6 * 7)"
GOOD = "10_good"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    (root / "notebooks" / "paper").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    monkeypatch.chdir(root)
    for variable in ("RCLIB_OUT", "RCLIB_CACHE", "RCLIB_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")  # the runner sets it; here it is unset again
    return root


def write(
    name: str, *cells: str, parameters: str | None = PARAMETERS, outputs: str | None = None
) -> Path:
    """A notebook of the project; its last cell is a check cell with stored `outputs`."""
    made = [new_markdown_cell(f"# {name}")]
    if parameters is not None:
        made.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made += [new_code_cell(cell) for cell in cells]
    made[-1].metadata.setdefault("tags", []).append("keep_output")
    if outputs is not None:
        made[-1].execution_count = 1  # nbval compares no cell without it
        made[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=outputs)]
    notebook = new_notebook(cells=made)
    notebook.metadata.kernelspec = {"name": "other", "display_name": "x", "language": "python"}
    path = Path("notebooks") / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def files(folder: str) -> list[str]:
    return sorted(str(p) for p in Path(folder).rglob("*") if p.is_file())


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.text for c in cells if c.cell_type == "code" for o in c.outputs)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command prints before it ends with exit code 1."""
    capsys.readouterr()
    assert runner.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err


# --- parameters ----------------------------------------------------------------------------


def test_parameters_cell_is_read_as_python_reads_it() -> None:
    write(GOOD, PRINT)
    expected: dict[str, Any] = {}
    exec(PARAMETERS, {}, expected)
    expected.pop("__annotations__", None)
    assert runner.default_parameters(GOOD) == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (None, "no cell tagged 'parameters'"),
        ("# nothing\n", "no cell tagged 'parameters'"),
        ("a = 1\nb = 2 * 3", r"`name = literal` alone, got 'b = 2 \* 3'"),
        ("import os", "alone, got 'import os'"),
        ("a, b = 1, 2", r"alone, got '\(?a, b\)? = \(1, 2\)'"),
        ("a: int", "alone, got 'a: int'"),
        ("a = = 1", "alone: invalid syntax"),
    ],
)
def test_parameters_cell_that_is_none_is_named(parameters: str | None, message: str) -> None:
    write("10_odd", "print(1)", parameters=parameters)
    with pytest.raises(RunError, match=f"10_odd: .*{message}"):
        runner.check_parameters("10_odd", {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("widths", [1]),
        ("lr", 1),
        ("lr", -2.5),
        ("name", ""),
        ("flag", False),
        ("limit", 3),
        ("limit", "x"),
    ],
)
def test_parameters_of_the_right_kind_pass(key: str, value: Any) -> None:
    write(GOOD, PRINT)
    runner.check_parameters(GOOD, {key: value})


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("widths", 4, "list"),
        ("widths", "4, 8", "list"),
        ("lr", "1e-3", "float"),  # what YAML makes of 1e-3
        ("lr", True, "float"),
        ("lr", None, "float"),
        ("name", 3, "str"),
        ("flag", 1, "bool"),
    ],
)
def test_parameter_of_a_wrong_kind_is_named(key: str, value: Any, kind: str) -> None:
    write(GOOD, PRINT)
    message = rf"{GOOD}: parameter '{key}' must be of type {kind} like its default .*, got "
    with pytest.raises(RunError, match=message + repr(value).replace("[", r"\[")):
        runner.check_parameters(GOOD, {key: value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"parameters file 10_good\.yaml is missing in notebooks/paper/"),
        ("profile: paper\nwidth: 3", "unknown parameter 'width'; the notebook has profile, widths"),
        ("profile: paper\nlr: fast", "parameter 'lr' must be of type float"),
        ("- 1\n- 2", r"notebooks/paper/10_good\.yaml must map names to values"),
        ("a: 1\n\u202e20\n", r"10_good\.yaml: .*\\u202e"),  # no control character is shown
        ("", r"notebooks/paper/10_good\.yaml must map names to values"),
        ("a: [1", r"notebooks/paper/10_good\.yaml: "),
        ("lr: 0.5", "must set profile: paper, got None"),
        ("profile: quick", "must set profile: paper, got 'quick'"),
    ],
)
def test_wrong_parameters_file_stops_the_run_before_it_begins(
    capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    write(GOOD, PRINT)
    if content is not None:
        Path(f"notebooks/paper/{GOOD}.yaml").write_text(content)
    for command in (("check",), ("run", GOOD)):
        line = fails(capsys, *command, "--profile", "paper")
        with pytest.raises(RunError, match=message):
            raise RunError(line)
    assert files("build") == []
    assert runner.main(["check"]) == 0  # the quick profile needs no file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["11_none"], f"no notebook '11_none'; there are {GOOD}"),
        ([GOOD, "--profile", "big"], "profile must be one of quick, laptop, paper, got 'big'"),
        ([GOOD, "--set", "size=3"], "unknown parameter 'size'"),
        ([GOOD, "--set", "flag=3"], "parameter 'flag' must be of type bool"),
        ([GOOD, "--set", "flag"], "--set needs NAME=VALUE, got 'flag'"),
        ([GOOD, "--set", "widths=[1"], "--set widths: "),
    ],
)
def test_wrong_command_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write(GOOD, PRINT)
    assert message in fails(capsys, "run", *arguments)
    assert files("build") == []


def test_numbers_on_the_command_line_are_as_people_write_them() -> None:
    for text, value in (
        ("1e-1", 0.1), ("[1e-1, 1.0, -2E+3]", [0.1, 1.0, -2000.0]), (".5e1", 5.0),
        ("'1e-1'", "1e-1"), ("1e5x", "1e5x"), ("v1e3", "v1e3"), ("true", True),
        ("{a: 1e2}", {"a": 100.0}),
    ):  # fmt: skip
        assert runner._override(f"x={text}") == ("x", value)
    with pytest.raises(runner.RunError, match="no finite number"):
        runner._override("x=1e999")


def test_an_interrupted_run_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_one", interrupted)
    assert runner.main(["run", GOOD]) == 130
    assert capsys.readouterr().err == "interrupted; finished runs are kept\n"


def test_file_that_is_no_notebook_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("notebooks/10_text.ipynb").write_text("not JSON")
    assert "10_text: not a notebook" in fails(capsys, "run", "10_text")
    assert "10_text: not a notebook" in fails(capsys, "check")


def test_seeds_must_be_declared(capsys: pytest.CaptureFixture[str]) -> None:
    write("10_seeds", "print(1)", parameters='profile = "quick"\nseeds: "Seeds" = [1]')
    assert runner.parameters_of("10_seeds").seeds == ("seeds",)
    assert runner.main(["check"]) == 0
    write("11_guess", "print(1)", parameters='profile = "quick"\nnull_seeds = 3')
    line = fails(capsys, "check")
    assert "11_guess: parameter 'null_seeds' must be declared as seeds (null_seeds: " in line


# --- running -------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_kernel")
def test_good_notebook_gets_the_profiles_parameters_and_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write(
        GOOD,
        "import os, pathlib; print(os.environ['TQDM_DISABLE'], pathlib.Path.cwd().name)",
        f"{PRINT}\nprint(sorted(p.name for p in pathlib.Path('../build/paper').iterdir()))",
    )
    before = source.read_bytes()
    Path(f"notebooks/paper/{GOOD}.yaml").write_text("profile: paper\nwidths: [16]\n")
    Path("results/paper").mkdir(parents=True)
    claims = Claims()
    for key, interval in (("a", (1.0, 2.0)), ("b", (0.0, 2.0))):
        claims.declare(key, paper="A", statement="s", quantity="q", criterion=above(1.0))
        claims.measure(key, 1.5, interval=interval)
    record = {"notebook": GOOD, "title": "t", "profile": "paper", "claims": claims.rows()}
    record |= {"data": {"description": "none", "checksum": None}, "figures": []}
    record |= {"parameters": {}, "tables": {}, "environment": environment()}
    Path(f"results/paper/{GOOD}.json").write_text(json.dumps(record))
    Path("results/paper/09_broken.json").write_text("[1,")  # another notebook's concern
    command = ["run", GOOD, "--profile", "paper", "--set", "lr=0.5", "--set", "name=x"]
    assert runner.main(command) == 0
    out = capsys.readouterr().out
    assert out.startswith(GOOD)
    assert out.endswith("1 of 2 claims reproduced\n")
    target = Path(f"build/paper/{GOOD}.ipynb")
    assert files("build") == [str(target)]
    lines = printed(target).splitlines()
    assert lines[:2] == ["1 notebooks", "paper [16] 0.5 x True None"]
    # While it ran there was another name, hidden; the rename came last.
    assert str(target.name) not in lines[2]
    assert ".10_good." in lines[2]
    assert source.read_bytes() == before


LOOKED_AT = """
from rclib.stats.sequential import LOOKS
from rclib.study.claims import above
from rclib.study.study import Study

study = Study.from_parameters("10_looks", globals(), title="t", paper="B")
for key, criterion in (("a", above(0.0)), ("b", above(-9.0))):
    study.claims.declare(
        key, item="F", statement="s", quantity="q", criterion=criterion, seeds=seeds, looks=LOOKS
    )
    study.claims.measure(key, {s: 1.0 + 1.5 * (-1) ** s for s in seeds})
study.close()
"""


@pytest.mark.usefixtures("quick_kernel")
@pytest.mark.slow
def test_seeds_are_added_look_by_look_until_all_is_decided_or_the_cap_is_reached(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = 'profile = "quick"\nother: "Seeds" = [7]\nseeds: "Seeds" = [0, 1, 2, 3, 4]\nn_most = '
    for most, spent, verdict in (
        (40, 20, "reproduced"),
        (10, 10, "undecided"),
        (5, 5, "undecided"),
    ):
        write("10_looks", LOOKED_AT, parameters=f"{first}{most}")
        assert runner.main(["run", "10_looks"]) == 0
        out = capsys.readouterr().out
        assert [n for n in (10, 20, 40) if f"on to {n} seeds" in out] == {
            20: [10, 20],
            10: [10],
            5: [],
        }[spent]
        record = read_results(Path("results/quick/10_looks.json"))
        assert record["parameters"]["seeds"] == list(range(spent))
        assert record["parameters"]["other"] == [7]
        assert (record["sequential"]["most"], record["sequential"]["spent"]) == (most, spent)
        a, b = record["claims"]
        assert (a["verdict"], a["repeats"], b["repeats"]) == (verdict, spent, 5)


@pytest.mark.usefixtures("quick_kernel")
def test_a_notebook_without_claims_is_given_no_score(capsys: pytest.CaptureFixture[str]) -> None:
    write(GOOD, "1")
    assert runner.main(["run", GOOD]) == 0
    assert re.fullmatch(rf"{GOOD} +[\d.]+ s\n", capsys.readouterr().out)


@pytest.mark.usefixtures("quick_kernel")
def test_a_results_file_of_its_own_that_is_broken_fails_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cell = "import pathlib\npath = pathlib.Path('../results/quick')\npath.mkdir(parents=True)\n"
    write(GOOD, f"{cell}_ = (path / '{GOOD}.json').write_text('[1,')")
    assert f"results/quick/{GOOD}.json is not valid" in fails(capsys, "run", GOOD)


@pytest.mark.usefixtures("quick_kernel")
@pytest.mark.parametrize("before", [None, "/elsewhere/99_other.ipynb"])
def test_the_kernel_knows_its_notebook_and_seeds_keep_their_type(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    cell = "import os; print(os.environ['RCLIB_NOTEBOOK'], seeds, __annotations__)"
    source = write(GOOD, cell, parameters='profile = "quick"\nseeds: "Seeds" = [1, 2]')
    if before is None:
        monkeypatch.delenv("RCLIB_NOTEBOOK", raising=False)
    else:
        monkeypatch.setenv("RCLIB_NOTEBOOK", before)
    done = runner.execute(GOOD, overrides={"seeds": [3, 4]})
    assert printed(done).split("\n")[0] == f"{source.resolve()} [3, 4] {{'seeds': 'Seeds'}}"
    assert os.environ.get("RCLIB_NOTEBOOK") == before  # the runner's own is as it was


@pytest.mark.usefixtures("quick_kernel")
def test_notebook_that_raises_names_the_cell_and_leaves_the_last_good_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("10_raises", "x = 0", "def f():\n    return 1 / x", "f()")
    target = Path("build/quick/10_raises.ipynb")
    target.parent.mkdir(parents=True)
    target.write_text("of an earlier run")
    line = fails(capsys, "run", "10_raises")
    assert line == "error: 10_raises: cell 4: ZeroDivisionError: division by zero\n"
    assert files("build") == [str(target)]
    assert target.read_text() == "of an earlier run"


def test_kernel_that_dies_is_an_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_KERNEL", "plain")  # of a forked one: test_kernels.py
    write("10_dies", "import os", "os._exit(3)")
    # One line although the kernel's own process and two libraries could print more.
    assert "10_dies: DeadKernelError: Kernel died" in fails(capfd, "run", "10_dies")
    assert files("build") == []


def test_missing_kernel_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(GOOD, PRINT)
    monkeypatch.setattr(runner, "KERNEL", "no-such-kernel")
    assert "Jupyter kernel 'no-such-kernel' is not installed" in fails(capsys, "run", GOOD)
    assert files("build") == []


# --- stored outputs ------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_kernel")
def test_stored_outputs_are_refreshed_from_the_last_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(GOOD, "print('not kept')", "print(6 * 7)", outputs="41\n")
    assert "10_good: not executed yet" in fails(capsys, "refresh")
    assert runner.main(["run", GOOD]) == 0
    capsys.readouterr()
    for expected in (GOOD, "all notebooks are current"):
        assert runner.main(["refresh"]) == 0
        assert capsys.readouterr().out.strip() == expected
    assert printed(path) == "42\n"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    assert counts == [None, None, 1]
    assert notebook.metadata.kernelspec.name == "python3"
    assert files("notebooks") == [str(path)]
    # Outputs of another source are not taken over.
    notebook.cells[-1].source += " + 1"
    nbformat.write(notebook, path)
    before = path.read_bytes()
    assert "10_good: changed since it was executed" in fails(capsys, "refresh")
    assert path.read_bytes() == before


@pytest.mark.usefixtures("quick_kernel")
def test_named_notebooks_alone_are_refreshed(capsys: pytest.CaptureFixture[str]) -> None:
    """One notebook that was not executed does not keep the others from being refreshed."""
    path, other = write(GOOD, "print(6 * 7)"), write("05_other", "print(1)", outputs="0\n")
    before = other.read_bytes()
    assert runner.main(["run", GOOD]) == 0
    assert "05_other: not executed yet" in fails(capsys, "refresh")
    capsys.readouterr()
    assert runner.main(["refresh", GOOD]) == 0
    assert printed(path) == "42\n"
    assert other.read_bytes() == before
    assert "no notebook '12_gone'" in fails(capsys, "refresh", "12_gone")


@pytest.mark.slow
def test_nbval_compares_the_refreshed_outputs() -> None:
    """With the options of `make test`."""
    path = write(GOOD, CHECK, CHECK.replace("7", "8"))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells[-2:]:
        cell.metadata.tags = ["keep_output"]
    nbformat.write(notebook, path)
    assert runner.main(["run", GOOD]) == 0
    assert runner.main(["refresh"]) == 0
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[-1].outputs[0].text == "48\n"
    notebook.cells[-1].outputs[0].text = "47\n"  # as of other code
    nbformat.write(notebook, path)
    options = ["--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
    )
    assert done.returncode == 1
    assert "1 failed, 2 passed" in done.stdout  # the parameters, 42 and not 47
    assert "47" in done.stdout


def test_profile_between_holds_the_notebooks_with_a_file_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("10_good", PRINT)
    write("11_other", PRINT)
    Path("notebooks/laptop").mkdir()
    Path("notebooks/laptop/11_other.yaml").write_text("profile: laptop\nlr: 0.5\n")
    assert runner.profile_names("laptop") == ["11_other"]
    assert runner.profile_names("quick") == ["10_good", "11_other"]
    assert runner.main(["check", "--profile", "laptop"]) == 0
    assert runner.profile_parameters("11_other", "laptop") == {"profile": "laptop", "lr": 0.5}
    assert "10_good.yaml is missing" in fails(capsys, "check", "--profile", "paper")


@pytest.mark.usefixtures("quick_kernel")
def test_notebook_that_needs_a_gpu_is_left_out_without_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(GOOD, "raise SystemError('it ran')")
    Path(f"notebooks/paper/{GOOD}.yaml").write_text("profile: paper\nneeds: gpu\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command = ("run", GOOD, "--profile", "paper")
    assert runner.main(command) == 0
    assert "not run: needs a GPU; there are no results yet" in capsys.readouterr().out
    Path("results/paper").mkdir(parents=True)
    Path(f"results/paper/{GOOD}.json").write_text("kept")
    assert runner.main(command) == 0
    assert "results made elsewhere stay" in capsys.readouterr().out
    assert Path(f"results/paper/{GOOD}.json").read_text() == "kept"
    assert files("build") == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "it ran" in fails(capsys, *command)
    Path(f"notebooks/paper/{GOOD}.yaml").write_text("profile: paper\nneeds: luck\n")
    assert "needs can only be gpu, got 'luck'" in fails(capsys, *command)


def test_message_of_several_lines_is_one_line() -> None:
    assert runner._whole("one:\n  1. \x1b[31mred\x1b[0m\n  2. two\n") == "one: 1. red 2. two"
