"""What the commands of `python -m rclib` share: opening a source, progress, written files."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclib.cli.texts import json_text
from rclib.files.terminal import note, report

if TYPE_CHECKING:  # `--help` answers without torch and matplotlib
    import pandas as pd
    from matplotlib.figure import Figure

    from rclib.checkpoints.opening import Checkpoint, CheckpointError
    from rclib.families.layout import Layout

__all__ = [
    "EXIT_CODES",
    "Folder",
    "LeftOut",
    "add_against_arguments",
    "add_model_arguments",
    "add_source_arguments",
    "add_work_arguments",
    "at_work",
    "given_sizes",
    "layout_text",
    "left_out_text",
    "named_before",
    "open_source",
    "opened",
    "progress_bar",
    "report",
    "write_start",
    "write_table",
]


SHOWN = 20  # tensors left out that are named one by one
EXIT_CODES = """\
Exit codes: 0 when all went well; 1 when some tensors were left out, each named with the reason
(NaN, a type that is not read, missing memory), and all others were measured; 2 for an input that
is refused (one line says why); 130 when interrupted."""


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which model is read, and how."""
    parser.add_argument(
        "source",
        help="file (safetensors, of torch.save, GGUF), directory of one model, or Hugging Face id "
        "owner/name",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hugging Face id")
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="which set of weights, where a file holds several (the model and its average)",
    )
    parser.add_argument(
        "--block",
        metavar="K",
        type=int,
        action="append",
        help="look at this block alone (may be given more than once)",
    )
    parser.add_argument(
        "--axes",
        metavar="FILE.yaml",
        help="the tensors' axes of a family that is not known (see rclib/families/tables)",
    )
    parser.add_argument(
        "--size",
        metavar="INDEX=NUMBER",
        action="append",
        default=[],
        help="size of an index that neither shapes nor config.json tell, e.g. head=12",
    )


def add_work_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say how much of the machine is used; results do not depend on them."""
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help="matrices at a time, as far as the memory allows (default: $RCLIB_WORKERS, or the "
        "cores of this machine)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        default=1,
        help="threads of the linear algebra of each matrix (default: 1)",
    )


def add_against_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """The arguments of a second checkpoint."""
    parser.add_argument("--against", metavar="BEFORE", help=what)
    parser.add_argument("--against-revision", metavar="REV", help="as --revision, of BEFORE")
    parser.add_argument("--against-key", metavar="NAME", help="as --key, of BEFORE")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what is read, where results go, and how much of the machine works."""
    add_model_arguments(parser)
    parser.add_argument("--out", metavar="DIR", help="write figures, CSV and JSON into this folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--write-table",
        metavar="FILE.yaml",
        help="write the table of axes that is used, or that was inferred, as a file to edit",
    )
    add_work_arguments(parser)


@contextlib.contextmanager
def at_work(arguments: argparse.Namespace) -> Iterator[int]:
    """The number of workers, while the linear algebra has as many threads as was said.

    Raises ValueError for numbers below one.
    """
    from rclib.inspection.side_by_side import cores, limited

    for name in ("workers", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    with limited(arguments.threads):
        yield cores() if arguments.workers is None else arguments.workers


def given_sizes(texts: Sequence[str]) -> dict[str, int]:
    """Sizes of indices as the command line gives them; ValueError for what is no INDEX=NUMBER."""
    sizes = {}
    for text in texts:
        index, _, number = text.partition("=")
        if not index or not number.isdecimal() or len(number) > 12 or int(number) < 1:
            raise ValueError(f"--size needs INDEX=NUMBER, such as head=12, got {text[:80]!r}")
        sizes[index] = int(number)
    return sizes


def named_before(arguments: argparse.Namespace) -> tuple[str, str | None, str | None] | None:
    """What `--against` names, with its revision and key; None without it. Raises ValueError for a
    revision or key of nothing."""
    against = getattr(arguments, "against", None)
    more = getattr(arguments, "against_revision", None), getattr(arguments, "against_key", None)
    if against is not None:
        return (against, *more)
    if more != (None, None):
        raise ValueError("--against-revision and --against-key need --against BEFORE")
    return None


def open_source(arguments: argparse.Namespace) -> Checkpoint:
    """The checkpoint that the arguments name, or its change against another one; what was chosen
    in it is said."""
    from rclib.checkpoints.opening import open_checkpoint

    named = named_before(arguments)
    checkpoint = open_checkpoint(arguments.source, revision=arguments.revision, key=arguments.key)
    _say(checkpoint)
    if named is None:
        return checkpoint
    from rclib.inspection.change import Change

    before = open_checkpoint(named[0], revision=named[1], key=named[2])
    _say(before)
    return Change(checkpoint, before, owns=True)


def _say(checkpoint: Checkpoint) -> None:
    for line in checkpoint.notes:
        note(f"note: {checkpoint.source}: {line}")


@contextlib.contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[tuple[Checkpoint, Layout]]:
    """The checkpoint that the arguments name, and its layout, parts without a row left out.

    Raises CheckpointError, FamilyError or ValueError, one line each.
    """
    from rclib.families import layout as families

    sizes = given_sizes(arguments.size)
    family = families.read_family(arguments.axes) if arguments.axes else None
    with open_source(arguments) as checkpoint:
        try:
            layout = families.layout(
                checkpoint.tensors, checkpoint.config, family=family, sizes=sizes, partial=True
            )
        except families.SizesError:
            raise
        except families.FamilyError as error:
            if arguments.write_table is None or family is not None:
                raise
            raise families.FamilyError(write_start(arguments.write_table, checkpoint)) from error
        write_table(arguments.write_table, layout, checkpoint)
        layout.check_blocks(arguments.block)
        yield checkpoint, layout


def write_table(path: str | None, layout: Layout, checkpoint: Checkpoint) -> None:
    """The table that is used, as a file to edit."""
    from rclib.families.infer import table_text

    if path is not None and layout.table is not None:
        _write_table(path, table_text(layout.table, checkpoint.tensors, inferred=layout.inferred))


def write_start(path: str, checkpoint: Checkpoint) -> str:
    """Write a table to begin with where none fits and none can be inferred; a line that says so."""
    from rclib.families.infer import start_text

    _write_table(path, start_text(checkpoint.tensors))
    return (
        f"no table fits {checkpoint.source} and none can be inferred; {path} now has a row for "
        "every tensor: give axes over the same neurons one name, and pass the file as --axes"
    )


def _write_table(path: str, text: str) -> None:
    """ValueError where a file of another kind is, such as the weights themselves."""
    from rclib.files.atomic import write_atomically
    from rclib.files.plain import check_replaceable

    if Path(path).suffix not in (".yaml", ".yml"):
        check_replaceable(Path(path), b"# ", "table of axes")
    write_atomically(Path(path), text.encode())


def layout_text(layout: Layout) -> str:
    """What was taken for the axes, in a few words."""
    if layout.inferred:
        return "axes inferred from shapes (a guess: --write-table FILE.yaml to look at and edit)"
    return f"layout {layout.family}"


def left_out_text(left: Mapping[str, str] | Sequence[str], what: str, shown: int = 6) -> list[str]:
    """One line naming what was left out, numbers of blocks taken together; none if nothing was."""
    from rclib.families.matching import numbered, printable

    if not left:
        return []
    groups: dict[str, int] = {}
    for name in left:
        reason = f": {left[name]}" if isinstance(left, Mapping) else ""
        key = printable(numbered(name)) + reason
        groups[key] = groups.get(key, 0) + 1
    listed = [f"{key} ({n} times)" if n > 1 else key for key, n in list(groups.items())[:shown]]
    more = f"; and {len(groups) - shown} more" if len(groups) > shown else ""
    return [f"left out, {what}: {'; '.join(listed)}{more}"]


@contextlib.contextmanager
def progress_bar(total: int, description: str) -> Iterator[Callable[[int], object]]:
    """A bar with the bytes done and their rate, on a terminal alone; yields its update."""
    from tqdm import tqdm

    # None: unless standard error is no terminal; it may be closed.
    disable = True if sys.stderr is None else None
    with tqdm(total=total, desc=description, unit="B", unit_scale=True, disable=disable) as bar:

        def update(done: int) -> None:
            bar.update(done)
            if bar.n >= total:  # what follows is not reading: the rate stays what it was
                bar.close()

        yield update


class Folder:
    """The folder of `--out`: files are collected, and written when all of them are there.

    Raises ValueError at once for a path that cannot become a folder.
    """

    def __init__(self, path: str | None) -> None:
        from rclib.paths import FolderError, expanded

        try:
            self.path = expanded(path, "--out") if path is not None else None
        except FolderError as error:
            raise ValueError(str(error)) from None
        self._files: dict[str, bytes] = {}
        if self.path is not None:
            there = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
            if not there.is_dir() or not os.access(there, os.W_OK):
                raise ValueError(f"--out {path}: cannot write into {there}")

    @property
    def wanted(self) -> bool:
        """Whether there is anything to write for."""
        return self.path is not None

    def figure(self, name: str, figure: Figure) -> None:
        """Keep a figure as a PNG and close it."""
        import matplotlib.pyplot as plt

        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        plt.close(figure)
        self._files[f"{name}.png"] = buffer.getvalue()

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Keep a table as CSV."""
        text = frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        self._files[f"{name}.csv"] = text.encode("utf-8", "backslashreplace")

    def json(self, name: str, record: dict[str, Any]) -> None:
        """Keep a record as JSON."""
        self._files[f"{name}.json"] = (json_text(record) + "\n").encode()

    def write(self) -> list[str]:
        """Write all files or none; their names in order. Raises OSError naming the file."""
        from rclib.files.atomic import write_together

        if self.path is None:
            return []
        files = {self.path / name: payload for name, payload in self._files.items()}
        folders = {parent for path in files for parent in path.parents if not parent.exists()}
        try:
            write_together(files)
        except OSError:
            for folder in sorted(folders, reverse=True):
                with contextlib.suppress(OSError):  # never made, or not ours alone
                    folder.rmdir()
            raise
        return list(self._files)


class LeftOut:
    """Tensors that were not measured, each with the reason; the others are not stopped by them."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def add(self, name: str, error: CheckpointError) -> None:
        """Note a tensor that could not be measured."""
        self.reasons.setdefault(name, str(error))

    def take(self, checkpoint: Checkpoint) -> None:
        """Note what could not be read of a checkpoint."""
        for name, reason in checkpoint.left_out.items():
            self.reasons.setdefault(name, f"{checkpoint.source}: tensor {name!r} {reason}")

    def say(self) -> int:
        """Name them on standard error; the command's exit code."""
        lines = list(self.reasons.values())
        for line in lines[:SHOWN]:
            note(f"left out: {line}")
        if len(lines) > SHOWN:
            note(f"left out: {len(lines) - SHOWN} more tensors")
        return 1 if lines else 0

    def nothing(self, source: str, what: str) -> ValueError:
        """The error for a checkpoint of which nothing is left."""
        more = f"; left out: {next(iter(self.reasons.values()))}" if self.reasons else ""
        return ValueError(f"{source}: {what}{more}")
