"""Row-column structure, zero-shot weight transfer and spectra of weight matrices.

The helper library of a notebook replication of two papers, "A Mean Field Ansatz for Zero-Shot
Weight Transfer" (arXiv 2408.08681, "paper A") and "From Spikes to Heavy Tails" (arXiv 2406.04657,
"paper B"), and of others beside them. `help(rclib)` lists what is handed on here, everything else
stands in the packages below:

@FACE@
A name is imported when it is first used, so `import rclib` costs nothing.
"""

from __future__ import annotations

import sys

# A command begins, by `python -m rclib...` or the script `rclib`: before all its imports.
if (getattr(sys, "argv", None) or [""])[0].replace("\\", "/").rpartition("/")[2] in ("-m", "rclib"):
    from rclib.files.interrupt import early

    early()

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rclib.analysis.call import analyze
    from rclib.checkpoints.opening import open_checkpoint
    from rclib.families.layout import layout
    from rclib.inspection.block_correlations import block_correlations
    from rclib.inspection.matrix_spectra import matrix_spectra
    from rclib.nets.gpt import GPT
    from rclib.nets.mlp import MLP
    from rclib.resizing.checkpoint import resize_checkpoint
    from rclib.rowcolumn import axes, measure, transfer
    from rclib.runs.sweep import sweep
    from rclib.spectral import power_law, random_matrix, spectra

__all__ = [
    "GPT",
    "MLP",
    "analyze",
    "axes",
    "block_correlations",
    "layout",
    "matrix_spectra",
    "measure",
    "open_checkpoint",
    "power_law",
    "random_matrix",
    "resize_checkpoint",
    "spectra",
    "sweep",
    "transfer",
]

__version__ = "0.1.0"

# name -> (module, or module:member, and its line of help). Inside of the library nothing is taken
# through here (a test looks): it would hide from a reader what a module needs.
FACE = {
    "analyze": ("rclib.analysis.call:analyze", "everything on a model in one table, and its page"),
    "axes": ("rclib.rowcolumn.axes", "which axes of which tensors run over the same neurons"),
    "measure": ("rclib.rowcolumn.measure", "row-column statistics of weights, with chance levels"),
    "transfer": ("rclib.rowcolumn.transfer", "other widths by sampling neurons (Algorithm 1)"),
    "spectra": ("rclib.spectral.spectra", "eigenvalues, singular vectors, alignments"),
    "power_law": ("rclib.spectral.power_law", "tail exponents, Hill and KS, with errors"),
    "random_matrix": ("rclib.spectral.random_matrix", "what noise gives: edges, spikes, outliers"),
    "open_checkpoint": (
        "rclib.checkpoints.opening:open_checkpoint",
        "any checkpoint, without trust",
    ),
    "layout": ("rclib.families.layout:layout", "the axes of a checkpoint's tensors"),
    "block_correlations": (
        "rclib.inspection.block_correlations:block_correlations",
        "largest correlation in every block of a checkpoint",
    ),
    "matrix_spectra": (
        "rclib.inspection.matrix_spectra:matrix_spectra",
        "the spectrum of every matrix of a checkpoint",
    ),
    "resize_checkpoint": (
        "rclib.resizing.checkpoint:resize_checkpoint",
        "a language model at another width, by transfer",
    ),
    "sweep": ("rclib.runs.sweep:sweep", "many runs on any executor, each computed once"),
    "MLP": ("rclib.nets.mlp:MLP", "fully connected networks under SP, MF and muP"),
    "GPT": ("rclib.nets.gpt:GPT", "language models under SP, MF and muP"),
}
__doc__ = __doc__.replace(
    "@FACE@", "\n".join(f"    {name:20s} {line}" for name, (_, line) in FACE.items()) + "\n"
)


def __getattr__(name: str) -> Any:
    if name not in FACE:
        raise AttributeError(
            f"module 'rclib' has no attribute {name!r}; it hands on {', '.join(FACE)}, the rest is "
            "in its packages"
        )
    module, _, member = FACE[name][0].partition(":")
    found = importlib.import_module(module)
    return getattr(found, member) if member else found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "__doc__"])
