"""docs/columns.md: the words of tables, CSV, JSON and report page, and weightwatcher's for them.

`python -m rclib.reports.columns` writes it from `rclib.inspection.vocabulary`; a test checks that
the committed page is current.
"""

from __future__ import annotations

import sys

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.terminal import report
from rclib.inspection.vocabulary import MEANINGS, VERSION, heading
from rclib.reports.replication import table_row

__all__ = ["WEIGHTWATCHER", "main", "page"]

# Columns of weightwatcher 0.7's details -> (ours, "" for none; what differs).
WEIGHTWATCHER: dict[str, tuple[str, str]] = {
    "name": ("layer", "the module's name there, the tensor's here"),
    "longname": ("layer", "without `.weight`"),
    "layer_type": ("kind", "what the tensor was taken for"),
    "N": ("outputs", "the larger of outputs and inputs"),
    "M": ("inputs", "the smaller of the two"),
    "Q": ("shape", "N / M"),
    "rf": ("kind", "convolutions are out x (in · places) here, one matrix a place there"),
    "num_evals": ("rank", "all eigenvalues there; those that are not rounding here"),
    "matrix_rank": ("rank", "another bound on rounding"),
    "alpha": ("alpha_ks", "the same estimator"),
    "D": ("", "the KS distance: `rclib.power_law.power_law(...).distance`"),
    "sigma": ("alpha_ks_high", "a standard error there, a 95 percent interval here"),
    "num_pl_spikes": ("tail", "eigenvalues from the cut on; our `spikes` are beyond the bulk"),
    "xmin": ("", "where the tail begins: `power_law(...).xmin`"),
    "xmax": ("largest", ""),
    "lambda_max": ("largest", ""),
    "sv_max": ("largest", "its root"),
    "stable_rank": ("stable_rank", ""),
    "spectral_norm": ("largest", ""),
    "max_rand_eval": (
        "edge",
        "(with `randomize`) the largest eigenvalue of the permuted matrix there, the "
        "Marchenko-Pastur edge here",
    ),
    "warning": ("verdict", "by thresholds on alpha there; against noise of the shape here"),
    "entropy": ("", "`rclib.spectra.effective_rank` is its exponential, of other weights"),
    "alpha_weighted": ("", "alpha · log10(lambda_max)"),
}

_HEAD = f"""\
# The words of tables, files and pages

*Written by `python -m rclib.reports.columns`; do not edit.*

One word for each quantity, in `rclib.analyze`, in what the commands print, in CSV and JSON, and on
the page of `python -m rclib report`. A printed table writes spaces for `_` and α for `alpha`. A
missing value is empty in CSV and null in JSON. This is version {VERSION} of the words
(`vocabulary` in JSON); the CHANGELOG says what has changed.

```python
import rclib

table = rclib.analyze(model)            # a module, state dict, path or Hugging Face id
print(table[["layer", "alpha_hill", "alpha_noise", "tail_ratio", "verdict", "spikes"]])
print(table.sentence)
table.plot()
table.report("report.html")
rclib.analyze(after, against=before)    # before, after, and the change of every matrix
```

The same on the command line: `python -m rclib analyze PATH [--against BEFORE]` and
`python -m rclib report PATH [PATH2] --out report.html`.

## How to read a verdict

α alone does not say that a spectrum is heavy-tailed: a square matrix of noise has α hill 2.13, one
of 1536 x 384 has 3.46. So beside α stands what noise of the same shape gives, and the verdict is
`heavy-tailed` only if the upper half of the eigenvalues is nearer to a power law than to the law of
noise (tail ratio below 1, and below that of all matrices of noise drawn for this shape) and some
eigenvalue lies beyond the bulk. A few spikes on a bulk of noise are not a heavy tail.

## The words

"""


def page() -> str:
    """The text of docs/columns.md."""
    lines = ["| column | printed as | meaning |", "|---|---|---|"]
    lines += [table_row([f"`{word}`", heading(word), text]) for word, text in MEANINGS.items()]
    lines += [
        "",
        "## For users of weightwatcher",
        "",
        "What its `details` table calls our columns. `tests/reports/test_columns.py` compares the",
        "values of both on one model.",
        "",
        "| weightwatcher | here | difference |",
        "|---|---|---|",
    ]
    for theirs, (ours, difference) in WEIGHTWATCHER.items():
        lines.append(table_row([f"`{theirs}`", f"`{ours}`" if ours else "-", difference]))
    return _HEAD + "\n".join(lines) + "\n"


@command()
def main() -> int:
    """Rewrite the page."""
    path = paths.project_root() / "docs" / "columns.md"
    current = path.is_file() and path.read_text(encoding="utf-8") == page()
    if not current:
        write_atomically(path, page().encode())
    report("docs/columns.md is current" if current else "docs/columns.md updated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
