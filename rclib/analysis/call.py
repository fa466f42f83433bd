"""`rclib.analyze(model)`: one call, one table.

    found = rclib.analyze(model)                    # a module, state dict, path or hub id
    found[found.verdict == "heavy-tailed"]          # it is a pandas DataFrame
    print(found.sentence); found.plot(); found.report("report.html")

    moved = rclib.analyze(after, against=before)    # and the change of every matrix

The words are those of `rclib.inspection.vocabulary`; docs/columns.md explains them and says what
weightwatcher calls the same.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor, nn

from rclib.analysis.model import COLUMNS, Measured, measured
from rclib.checkpoints.opening import Checkpoint, CheckpointError, opened
from rclib.families.layout import Family
from rclib.inspection.change import Change
from rclib.inspection.side_by_side import cores, limited

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Analysis", "Source", "analyze", "opened_sources"]

NO_CHANGE = "no change: {} and {} share no matrix of one name and shape"

# The columns that a printed table has room for; `print` of pandas' own leaves out the middle ones.
IN_SIGHT = (
    *("of", "layer", "shape", "alpha_hill", "alpha_noise", "tail_ratio", "verdict", "spikes"),
    *("stable_rank", "correlation", "chance", "p_value"),
)

Model = str | os.PathLike[str] | nn.Module | Mapping[str, Tensor] | Checkpoint


@dataclass(frozen=True)
class Source:
    """What was opened, so that it can be opened again. against : the same for the other one."""

    model: Any
    revision: str | None = None
    key: str | None = None
    against: Source | None = None


class Analysis(pd.DataFrame):  # type: ignore[misc, unused-ignore]
    """The table of `analyze`: one row a matrix, a pandas DataFrame.

    Columns are `rclib.analysis.model.COLUMNS`, with two models `of` before them. parts : all that
    was measured, one `Measured` each for weights, or before, after and change. What pandas makes of
    the table, such as a selection of rows, is a plain DataFrame.
    """

    _metadata = ("parts", "source")
    parts: tuple[Measured, ...]
    source: Source

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        plain: Callable[..., pd.DataFrame] = pd.DataFrame
        return plain

    @property
    def sentence(self) -> str:
        """How many matrices are heavy-tailed beyond noise and how many have spikes."""
        if len(self.parts) == 1:
            return self.parts[0].sentence()
        return "; ".join(f"{part.of}: {part.sentence()}" for part in self.parts)

    @property
    def correlations(self) -> pd.DataFrame:
        """The largest correlation of every block and index set (Figure 4.4); with two models `of`
        as well. Empty where no axes are known."""
        frames = []
        for part in self.parts:
            if part.correlations is not None:
                frame = part.correlations.table()
                if len(self.parts) > 1:
                    frame.insert(0, "of", part.of)
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    @property
    def left_out(self) -> dict[str, str]:
        """{tensor: why it was not measured}."""
        return {name: why for part in self.parts for name, why in part.left_out.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What else to know, such as why there are no correlations."""
        return tuple(dict.fromkeys(note for part in self.parts for note in part.notes))

    def plot(self) -> Figure:  # type: ignore[override, unused-ignore]
        """α beside noise, tail ratio, spikes and correlations of every matrix, as a figure."""
        from rclib.plots import checkpoints, style

        style.use_style()
        frame = pd.DataFrame(self)
        return checkpoints.matrices(frame if "of" in frame else frame.assign(of="weights"))

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the page of the model (one HTML file that needs no network), whole or not at all.

        The model is read again for its heat maps. Returns the path. Raises ValueError if its
        weights are others than those that were analysed, CheckpointError if it is gone.
        """
        from rclib.analysis.page import write_page

        with opened_sources(self.source) as checkpoints:
            return write_page(Path(path), self.parts, checkpoints)

    def __repr__(self) -> str:
        frame = pd.DataFrame(self)
        rows = frame[[word for word in IN_SIGHT if word in frame]].to_string(
            max_rows=pd.get_option("display.max_rows"), float_format="{:.3g}".format, na_rep="-"
        )
        size = f"[{len(frame)} rows x {frame.shape[1]} columns; all of them: .columns]"
        return f"{rows}\n\n{size}\n{self.sentence}"

    def _repr_html_(self) -> str | None:
        text = pd.DataFrame(self)._repr_html_()
        return None if text is None else f"{text}<p>{self.sentence}</p>"


def analyze(
    model: Model,
    against: Model | None = None,
    *,
    revision: str | None = None,
    key: str | None = None,
    against_revision: str | None = None,
    against_key: str | None = None,
    blocks: Collection[int | None] | None = None,
    family: Family | None = None,
    sizes: Mapping[str, int] | None = None,
    workers: int | None = None,
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Analysis:
    """Spectrum, tail and correlations of every weight matrix of a model.

    model : a module (its `config` is used, if it has one), a state dict, the path of a file or
    folder, a Hugging Face id, or an open checkpoint. against : an earlier state of the same model:
    rows for `before`, `after` and `change`, the difference of the two.
    revision, key, against_revision, against_key : as in `rclib.open_checkpoint`. blocks : which
    ones; default all. family, sizes : axes of one's own, as in `rclib.layout`.
    workers : matrices that are worked on at a time, default one for each core; threads : of the
    linear algebra of each. Results do not depend on them. progress : called with the bytes of every
    tensor that is done.

    A tensor that cannot be measured (NaN) is left out with a warning and named in `left_out`. Two
    models without a matrix of one name and shape have no change, and `notes` says so.
    Raises CheckpointError for what cannot be read, ValueError for a model without a matrix and
    blocks that are not there.
    """
    other = None
    if against is not None:
        other = Source(against, against_revision, against_key)
    source = Source(model, revision, key, other)
    parts: list[Measured] = []
    with limited(threads), opened_sources(source) as checkpoints:
        for of, checkpoint in checkpoints.items():
            try:
                found = measured(
                    checkpoint,
                    of,
                    blocks=blocks,
                    family=family,
                    sizes=sizes,
                    workers=cores() if workers is None else workers,
                    progress=progress,
                )
            except ValueError as error:
                if of != "change":
                    raise
                parts[-1] = _noting(parts[-1], f"no change: {error}")
            else:
                parts.append(found)
        if against is not None and "change" not in checkpoints:
            before, after = parts
            parts[-1] = _noting(after, NO_CHANGE.format(after.source, before.source))
    table = _table(parts, source)
    for name, why in table.left_out.items():
        warnings.warn(f"left out: {name}: {why}", stacklevel=2)
    return table


def _noting(part: Measured, note: str) -> Measured:
    return replace(part, notes=(*part.notes, note))


def _table(parts: list[Measured], source: Source) -> Analysis:
    frames = [part.table() for part in parts]
    if len(parts) > 1:
        for part, frame in zip(parts, frames, strict=True):
            frame.insert(0, "of", part.of)
    columns = (["of"] if len(parts) > 1 else []) + list(COLUMNS)
    # Cell by cell: what a column without any number is like must not depend on the other frames.
    types = frames[0].dtypes
    table = Analysis(
        {
            name: pd.concat([f[name].astype(types[name]) for f in frames], ignore_index=True)
            for name in columns
        }
    )
    table.parts, table.source = tuple(parts), source
    return table


@contextlib.contextmanager
def opened_sources(source: Source) -> Iterator[dict[str, Checkpoint]]:
    """{"weights": checkpoint}, or before, after and their change, open while this lasts.

    Two models that share no tensor of one shape, such as a resized one and its source, have no
    change. Raises CheckpointError for what cannot be read.
    """
    with contextlib.ExitStack() as stack:

        def entered(one: Source) -> Checkpoint:
            found: Checkpoint = stack.enter_context(
                opened(one.model, revision=one.revision, key=one.key)
            )
            return found

        after = entered(replace(source, against=None))
        if source.against is None:
            yield {"weights": after}
            return
        before = entered(source.against)
        checkpoints = {"before": before, "after": after}
        with contextlib.suppress(CheckpointError):
            checkpoints["change"] = Change(after, before)
        yield checkpoints
