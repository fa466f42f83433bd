"""The names of what is measured: one word for each quantity, in every table, CSV, JSON and text.

A column of a file has the word as its name; a printed table has it with spaces for `_` and α for
`alpha` (`heading`). `docs/columns.md` is written from here (`python -m rclib.reports.columns`), and
tests compare what the commands print and write with it. A change of a word is a change of the
interface: `VERSION` counts them, JSON carries the number, the CHANGELOG says what changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

__all__ = ["MEANINGS", "TEXTS", "VERSION", "cell", "heading", "number", "said"]

VERSION = 2

MEANINGS: dict[str, str] = {
    # which matrix
    "of": "`weights`, or with two checkpoints `before`, `after` and their difference, `change`",
    "block": "number of the block, missing outside the blocks",
    "layer": "the tensor's full name; `:part` of a fused one, `[i]` of stacked ones",
    "matrix": "its short name inside the block",
    "kind": "what the tensor was taken for",
    "shape": "outputs x inputs",
    "outputs": "rows, one an output neuron, whatever the storage",
    "inputs": "columns, one an input",
    # its spectrum
    "alpha_hill": "exponent α of the eigenvalues of WᵀW from their median on (Hill)",
    "alpha_hill_low": "lower end of its 95 percent interval, α ± 1.96 (α - 1)/√n for n values",
    "alpha_hill_high": "upper end of it",
    "alpha_ks": "exponent α from the cut where tail and power law differ least (KS)",
    "alpha_ks_low": "lower end of its 95 percent interval, for a fixed cut",
    "alpha_ks_high": "upper end of it",
    "tail": "number of eigenvalues from the KS cut on",
    "alpha_noise": "what α hill is for independent entries of this shape, mean",
    "alpha_noise_low": "the smallest of its draws",
    "alpha_noise_high": "the largest of its draws",
    "tail_ratio": "distance of the upper half of the eigenvalues to its power law, over that to "
    "the Marchenko-Pastur law of noise: below 1 the power law is nearer",
    "tail_ratio_noise": "the smallest tail ratio that independent entries of this shape gave",
    "verdict": "`heavy-tailed` if the tail ratio is below 1 and below all of noise, and some "
    "eigenvalue lies beyond the bulk; else `not heavy-tailed`; missing where α is",
    "spikes": "number of eigenvalues beyond the Marchenko-Pastur bulk",
    "edge": "where the bulk ends, an eigenvalue",
    "variance": "of the entries of the bulk",
    "largest": "the largest eigenvalue",
    "over_edge": "the largest eigenvalue over the edge",
    "stable_rank": "sum of all eigenvalues over the largest",
    "rank": "eigenvalues that are not zero or rounding",
    "note": "why a number is missing",
    # correlations between mean vectors
    "set": "index set: the neurons that the mean vectors run over",
    "n": "neurons of the set",
    "vectors": "how many mean vectors were compared",
    "pairs": "how many pairs of them",
    "value": "the largest |correlation|",
    "correlation": "the same with its sign",
    "first": "of which mean vector (a matrix's own one in its row): `.C` of the rows of a "
    "matrix, `.R` of its columns",
    "second": "and which",
    "rank_correlation": "Spearman's for the same pair",
    "expected": "mean of the largest |correlation| of as many pairs of independent vectors",
    "chance": "its 95 percent level",
    "p_value": "of value by chance, corrected for the number of pairs",
    "vector": "a mean vector",
    "partner": "the vector that it correlates with most",
    # histograms
    "left": "left end of a bin, log10 of the eigenvalue",
    "right": "right end of it",
    "density": "share of the positive eigenvalues in the bin over its width",
    "law": "the same of the Marchenko-Pastur law",
}


def heading(word: str) -> str:
    """A word as a printed table shows it. Raises KeyError for a word that is none of these."""
    if word not in MEANINGS:
        raise KeyError(f"{word!r} is no word of the vocabulary")
    return word.replace("alpha", "α").replace("_", " ")


# Words whose values are text.
TEXTS = frozenset(
    {
        *("of", "layer", "matrix", "kind", "shape", "verdict", "note"),
        *("set", "first", "second", "vector", "partner"),
    }
)
_THREE = ("correlation", "rank_correlation", "value", "expected", "chance", "p_value")


def cell(word: str, record: Mapping[str, Any]) -> str:
    """A value as a printed table shows it, with its interval in brackets; "" where it is missing.

    record : a row, `<word>_low` and `<word>_high` among its words if they are known.
    """
    value = record[word]
    if value is None or pd.isna(value):
        return ""
    if word in TEXTS:
        return str(value)
    text = number(value, word)
    low, high = record.get(f"{word}_low"), record.get(f"{word}_high")
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return text
    return f"{text} [{number(low, word)}, {number(high, word)}]"


def number(value: float | None, word: str = "") -> str:
    """A number as tables and page show it; "" for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return ""
    if word == "p_value" and value < 0.001:
        return "< 1e-300" if value < 1e-300 else f"{value:.1e}"
    if word in _THREE:
        return f"{value:+.3f}" if "correlation" in word else f"{value:.3f}"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1e4):
        return str(int(value))
    if word == "stable_rank":
        return f"{value:.1f}"
    return f"{value:.2f}" if 0.01 <= abs(value) < 1e4 or value == 0 else f"{value:.3g}"


def said(verdicts: Iterable[str | None], spikes: Iterable[int | None]) -> str:
    """The closing sentence of a table of matrices."""
    verdicts = list(verdicts)
    judged = [v for v in verdicts if isinstance(v, str) and v]
    heavy = sum(v == "heavy-tailed" for v in judged)
    counts = [int(n) for n in spikes if n is not None and not pd.isna(n)]
    beyond = sum(n > 0 for n in counts)
    text = (
        f"{heavy} of {len(judged)} {_matrices(len(judged))} heavy-tailed beyond noise, "
        f"{beyond} {'has' if beyond == 1 else 'have'} spikes"
    )
    untold = len(verdicts) - len(judged)
    return text + (f"; {untold} without an exponent (note says why)" if untold else "")


def _matrices(count: int) -> str:
    return "matrix is" if count == 1 else "matrices are"
