"""Executes the notebooks: what `make figures` and `make notebooks` call.

papermill warns about unknown parameters and leaves a half-run file behind; here parameters
are checked first, a notebook is executed under a temporary name, and only a whole one gets
its own. An error is one line: notebook, cell, kind, message.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rclib import paths
from rclib.execution import kernels, looks, progress
from rclib.execution.limits import few_files
from rclib.files.command import command
from rclib.files.plain import DataError, read_plain
from rclib.files.strict import parse_yaml
from rclib.files.terminal import Parser, note, printable, report
from rclib.study.parameters import Parameters, read_parameters, undeclared_seeds
from rclib.study.results import read_results, score
from rclib.study.session import NOTEBOOK_VARIABLE

__all__ = [
    "RunError",
    "check_parameters",
    "check_seeds",
    "default_parameters",
    "execute",
    "execute_looks",
    "lacking",
    "main",
    "notebook_names",
    "notebook_path",
    "parameters_of",
    "profile_names",
    "profile_parameters",
    "refresh",
    "run_one",
]

# jsonschema, which nbformat imports, would compile grammars (0.7 s) and import a library of dates
# for formats that no notebook has; it goes without a package that cannot be imported.
for _package in ("rfc3987_syntax", "rfc3986_validator", "isoduration"):
    sys.modules.setdefault(_package, cast(Any, None))

KERNEL = "python3"
MAX_PARAMETERS = 2**20  # bytes of a parameters file; the largest has a thousand


class RunError(RuntimeError):
    """A notebook could not be run; the message is one line naming what and where."""


def notebook_path(name: str) -> Path:
    """Path of a notebook by name; RunError names the known ones if it does not exist."""
    folder = paths.project_root() / "notebooks"
    path = folder / f"{name}.ipynb"
    if not path.is_file():
        raise RunError(f"no notebook {name!r}; there are {', '.join(notebook_names())}")
    return path


def notebook_names() -> list[str]:
    """Names of the numbered notebooks."""
    return sorted(p.stem for p in (paths.project_root() / "notebooks").glob("[0-9]*.ipynb"))


def profile_parameters(name: str, profile: str) -> dict[str, Any]:
    """Parameters that a profile sets: none for quick, else `notebooks/<profile>/<name>.yaml`.

    Its entry `needs` says what the machine must have and is no parameter; see `lacking`.
    """
    return {k: v for k, v in _profile_file(name, profile).items() if k != "needs"}


def _profile_file(name: str, profile: str) -> dict[str, Any]:
    if profile not in paths.PROFILES:
        raise RunError(f"profile must be one of {', '.join(paths.PROFILES)}, got {profile!r}")
    if profile == "quick":
        return {}
    path = paths.project_root() / "notebooks" / profile / f"{name}.yaml"
    if not path.is_file():
        raise RunError(f"parameters file {path.name} is missing in notebooks/{profile}/")
    try:
        parameters = parse_yaml(read_plain(path, MAX_PARAMETERS).decode("utf-8"))
    except (ValueError, OSError, DataError) as error:
        raise RunError(f"parameters file notebooks/{profile}/{path.name}: {_line(error)}") from None
    if not isinstance(parameters, dict):
        raise RunError(f"parameters file notebooks/{profile}/{path.name} must map names to values")
    if parameters.get("profile") != profile:  # its results would land among another profile's
        raise RunError(
            f"parameters file notebooks/{profile}/{path.name} must set profile: {profile}, "
            f"got {parameters.get('profile')!r:.80}"
        )
    if parameters.get("needs") not in (None, "gpu"):
        raise RunError(
            f"parameters file notebooks/{profile}/{path.name}: needs can only be gpu, "
            f"got {parameters['needs']!r:.80}"
        )
    return parameters


def profile_names(profile: str) -> list[str]:
    """Notebooks of a profile: all, but in profiles other than quick and paper only those with a
    parameters file."""
    if profile in ("quick", "paper"):
        return notebook_names()
    folder = paths.project_root() / "notebooks" / profile
    return [name for name in notebook_names() if (folder / f"{name}.yaml").is_file()]


def lacking(name: str, profile: str) -> str:
    """What this machine lacks for a notebook at a profile's scale ("" if nothing): a parameters
    file with `needs: gpu` describes runs that would take a CPU months."""
    if _profile_file(name, profile).get("needs") != "gpu":
        return ""
    import torch

    return "" if torch.cuda.is_available() else "a GPU"


def default_parameters(name: str) -> dict[str, Any]:
    """Names and values of a notebook's parameters cell; see `parameters_of`."""
    return dict(parameters_of(name).values)


def parameters_of(name: str) -> Parameters:
    """A notebook's parameters cell, which may hold `name = literal` alone.

    papermill guesses them from the text and loses a value with "=" or "#" in it. RunError for a
    file that is no notebook or whose parameters cell holds anything else.
    """
    try:
        return read_parameters(notebook_path(name))
    except ValueError as error:
        raise RunError(f"{name}: {error}") from None


def check_parameters(name: str, parameters: dict[str, Any]) -> None:
    """RunError for a parameter that the notebook's parameters cell does not have, with the known
    ones, and for a value of another kind than the cell's default."""
    known = default_parameters(name)
    for key, value in parameters.items():
        if key not in known:
            raise RunError(
                f"{name}: unknown parameter {key!r}; the notebook has {', '.join(known)}"
            )
        default = known[key]
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        expected: tuple[type, ...] = (int, float) if number else (type(default),)
        if default is not None and (
            not isinstance(value, expected) or (isinstance(value, bool) and number)
        ):
            raise RunError(
                f"{name}: parameter {key!r} must be of type {type(default).__name__} "
                f"like its default {default!r}, got {value!r}"
            )


def check_seeds(name: str) -> None:
    """RunError for a parameter that is named like seeds and does not say whether it is: `make
    seeds` moves what is declared (`rclib.study.parameters`)."""
    odd = undeclared_seeds(parameters_of(name))
    if odd:
        raise RunError(
            f'{name}: parameter {odd[0]!r} must be declared as seeds ({odd[0]}: "Seeds" = ...), or '
            "be called n_... if it is a number of them"
        )


def _line(error: object) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return printable(" ".join((text.splitlines() or [type(error).__name__])[-1].split()))


def _whole(message: str) -> str:
    """A message of several lines as one: an error of the library is written to be read whole."""
    return printable(" ".join(re.sub(r"\x1b\[[0-9;]*m", "", message).split()))


def execute(
    name: str,
    *,
    profile: str = "quick",
    overrides: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> Path:
    """Execute one notebook into `folder`, by default `build/<profile>`; returns the new file.

    RunError for everything that can go wrong; no half-written notebook stays behind.
    """
    import logging

    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from papermill.exceptions import PapermillExecutionError

    if kernels.offered():
        from rclib.execution import provisioner

        provisioner.register()
    parameters = profile_parameters(name, profile) | (overrides or {})
    check_parameters(name, parameters)
    root = paths.project_root()
    target = (folder or root / "build" / profile) / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{name}.*.ipynb"):  # of a run that was killed
        if time.time() - left.stat().st_mtime > 3600:
            left.unlink(missing_ok=True)
    temporary = target.with_name(f".{name}.{secrets.token_hex(8)}.ipynb")
    os.environ["TQDM_DISABLE"] = "1"
    known = os.environ.get(NOTEBOOK_VARIABLE)
    os.environ[NOTEBOOK_VARIABLE] = str(notebook_path(name))  # the kernel inherits it
    logging.getLogger("papermill").addHandler(logging.NullHandler())  # an error is one line
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # so is an interruption
    _check_loopback(name)
    try:
        papermill.execute_notebook(
            str(notebook_path(name)),
            str(temporary),
            parameters=parameters,
            kernel_name=KERNEL,
            cwd=str(root / "notebooks"),
            progress_bar=False,
            log_output=False,
            # Silences the kernel's start-up warnings; errors in cells come as exceptions.
            extra_arguments=["--log-level=CRITICAL"],
        )
        if folder is None:  # the paper's figure below the title, from one folder deeper
            text = temporary.read_text(encoding="utf-8")
            moved = text.replace("](../figures/", "](../../figures/")
            temporary.write_text(moved, encoding="utf-8")
        os.replace(temporary, target)
    except PapermillExecutionError as error:
        raise RunError(
            f"{name}: cell {error.exec_count}: {error.ename}: "
            f"{_whole(str(error.evalue or '')) or 'no reason is given'}{few_files()}"
        ) from None
    except NoSuchKernel as error:
        raise RunError(f"{name}: Jupyter kernel {error.name!r} is not installed") from None
    except (RuntimeError, OSError) as error:  # the kernel died, e.g. for memory; disk full
        raise RunError(f"{name}: {type(error).__name__}: {_line(error)}{few_files()}") from None
    finally:
        temporary.unlink(missing_ok=True)
        del os.environ[NOTEBOOK_VARIABLE]
        if known is not None:
            os.environ[NOTEBOOK_VARIABLE] = known
    return target


def execute_looks(
    name: str,
    *,
    profile: str = "quick",
    overrides: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> Path:
    """`execute`, and again with more seeds (`rclib.execution.looks`) until all claims under the
    sequential rule are decided or the notebook's cap is reached; returns the last look's file."""
    settings = dict(overrides or {})
    cell = parameters_of(name)
    while True:
        target = execute(name, profile=profile, overrides=settings, folder=folder)
        results = paths.results_dir(profile) / f"{name}.json"
        if looks.CAP not in cell.values or not results.is_file():
            return target
        parameters = {**cell.values, **profile_parameters(name, profile), **settings}
        more = looks.next_seeds(read_results(results), parameters, cell.seeds)
        if not more:
            return target
        said = ", ".join(f"{len(seeds)} {key}" for key, seeds in more.items())
        report(f"{name:44s} claims are undecided: on to {said}", flush=True)
        settings |= more


def _check_loopback(name: str) -> None:
    """RunError at once where no kernel could be reached, instead of after a minute."""
    import socket

    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        raise RunError(
            f"{name}: this machine's own network (127.0.0.1) does not work, over which Jupyter "
            f"talks to its kernels: {error.strerror or error}"
        ) from None


def refresh(names: Sequence[str] = ()) -> list[str]:
    """Copy the outputs of cells tagged `keep_output` from build/quick into the notebooks (those of
    `names`, or all) and strip everything else; returns the names of the notebooks that changed.

    RunError for a notebook that does not exist, was not executed, or was changed since.
    """
    import nbformat

    from rclib.files.atomic import write_atomically

    changed = []
    for name in names or notebook_names():
        path = notebook_path(name)
        source = nbformat.read(path, as_version=4)
        built = paths.project_root() / "build" / "quick" / f"{name}.ipynb"
        if not built.is_file():
            raise RunError(f"{name}: not executed yet; run `make figures` first")
        by_id = {cell.id: cell for cell in nbformat.read(built, as_version=4).cells}
        before = nbformat.writes(source)
        for cell in source.cells:
            if cell.cell_type != "code":
                continue
            if cell.id not in by_id or by_id[cell.id].source != cell.source:
                raise RunError(f"{name}: changed since it was executed; run `make figures` first")
            keep = "keep_output" in cell.metadata.get("tags", [])
            outputs = by_id[cell.id].outputs if keep else []
            cell.outputs = [o for o in outputs if o.output_type == "stream" and o.name == "stdout"]
            cell.execution_count = 1 if cell.outputs else None  # nbval asks for one
        source.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
            "language_info": {"name": "python"},
        }
        if nbformat.writes(source) != before:
            write_atomically(path, (nbformat.writes(source).rstrip("\n") + "\n").encode())
            changed.append(name)
    return changed


def run_one(name: str, profile: str, overrides: dict[str, Any]) -> None:
    """Execute a notebook and print its line: name, seconds, claims reproduced of claims made.

    A notebook for which this machine lacks something is left out, with what is in the results
    folder as it was.
    """
    missing = lacking(name, profile)
    if missing:
        have = (paths.results_dir(profile) / f"{name}.json").is_file()
        left = "results made elsewhere stay" if have else "there are no results yet"
        report(f"{name:44s}  not run: needs {missing}; {left}", flush=True)
        return
    begin = time.monotonic()
    with progress.running(name, profile):
        execute_looks(name, profile=profile, overrides=overrides)
    own = paths.results_dir(profile) / f"{name}.json"  # what others wrote is theirs to mend
    got, made = score(read_results(own)) if own.is_file() else (0, 0)
    claims = f"   {got} of {made} claims reproduced" if made else ""  # the overview makes none
    report(f"{name:44s} {time.monotonic() - begin:8.1f} s{claims}", flush=True)


def _override(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise RunError(f"--set needs NAME=VALUE, got {text!r}")
    try:
        return key, parse_yaml(value)
    except ValueError as error:
        raise RunError(f"--set {key}: {_line(error)}, got {value!r}") from None


@command(kept="finished runs are kept")
def main(argv: Sequence[str] | None = None) -> int:
    """Run, check or refresh the notebooks."""
    parser = Parser(prog="python -m rclib.execution.runner", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute one notebook")
    run.add_argument("name")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides")
    check = commands.add_parser("check", help="check every notebook's parameters")
    for sub in (run, check):
        sub.add_argument("--profile", default="quick")
    again = commands.add_parser("refresh", help="refresh stored outputs of the check cells")
    again.add_argument(
        "names", nargs="*", metavar="name", help="notebooks (all when none is given)"
    )
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "run":
            overrides = dict(_override(text) for text in arguments.overrides)
            run_one(arguments.name, arguments.profile, overrides)
        elif arguments.command == "check":
            for name in profile_names(arguments.profile):
                check_parameters(name, profile_parameters(name, arguments.profile))
                check_seeds(name)
        else:
            report("\n".join(refresh(arguments.names)) or "all notebooks are current")
    except (RunError, ValueError, OSError) as error:
        note(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
