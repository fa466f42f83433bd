"""`python -m rclib resize SOURCE --out DIR`: a model at another width, without training."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rclib.cli.common import (
    given_sizes,
    open_source,
    progress_bar,
    report,
)
from rclib.cli.texts import json_text, table_text

if TYPE_CHECKING:
    from rclib.resizing.folder import Resized
    from rclib.resizing.plan import ResizePlan

__all__ = ["HELP", "add_arguments", "run"]

HELP = "a model at another width, by duplication (Net2Net) or RC sampling (Algorithm 1)"
ABOUT = """\
Grow or shrink the residual stream, the heads and the MLP of a model, without training, and write
a folder that transformers loads: config.json with the new sizes, safetensors, the tokenizer's
files, and resize.json with every neuron that was drawn. Sizes that are not given keep their ratio
to the width.

--method duplication (default) keeps the source's neurons in their places and adds copies, each of
c copies sending 1/c. Growing by it keeps the function: always for heads and MLP; for the stream
under RMSNorm (Llama, Mistral, Qwen) always, under LayerNorm (GPT-2, GPT-NeoX, BERT) for whole
multiples of the width. Shrinking keeps a random subset.
--method rc draws all neurons with replacement, as paper A's Algorithm 1 does.

Llamas in GGUF files are written as transformers has them, dequantised to float32; their tokenizer
stays in the file (AutoTokenizer.from_pretrained(FOLDER, gguf_file=NAME)). What is written is
rounded to the source's type: weights in bfloat16 or float16 keep the function
to the precision of that type."""
EXIT_CODES = """\
Exit codes: 0 when the folder was written, 2 for an input that is refused (one line says why;
nothing is written), 130 when interrupted."""
SHOWN = 8  # drawn neurons that are printed of each index


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    parser.description = ABOUT
    parser.epilog = EXIT_CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", help="folder of a model, its file, or a Hugging Face id")
    parser.add_argument("--out", metavar="DIR", required=True, help="the new folder")
    for name, what in (
        ("width", "residual stream (hidden_size, n_embd)"),
        ("heads", "query heads; the size of a head stays"),
        ("kv-heads", "key-value heads, where query heads share them"),
        ("mlp", "hidden neurons of the MLP (intermediate_size)"),
    ):
        parser.add_argument(f"--{name}", metavar="N", type=int, help=what)
    parser.add_argument(
        "--method", choices=("duplication", "rc"), default="duplication", help="how (see above)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="draws everything")
    parser.add_argument("--revision", help="branch, tag or commit of a Hugging Face id")
    parser.add_argument(
        "--key", metavar="NAME", help="which set of weights, where a file holds several"
    )
    parser.add_argument(
        "--axes", metavar="FILE.yaml", help="a table of axes of your own, with its part `resize`"
    )
    parser.add_argument(
        "--size",
        metavar="INDEX=NUMBER",
        action="append",
        default=[],
        help="size of an index that neither shapes nor config.json tell, e.g. head=12",
    )
    parser.add_argument(
        "--shard-size", metavar="GB", type=float, default=5.0, help="most of a file (default 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Draw, write, and say what was done. Raises ValueError for a shard size that is none."""
    from rclib.checkpoints.gguf_llama import as_llama, is_gguf_llama
    from rclib.families import layout as families
    from rclib.resizing.folder import resize_folder

    if not 1e-9 <= arguments.shard_size <= 1e6:
        raise ValueError(f"--shard-size must be positive GB, got {arguments.shard_size}")
    family = families.read_family(arguments.axes) if arguments.axes else None
    with open_source(arguments) as opened:
        checkpoint = as_llama(opened) if is_gguf_llama(opened) else opened
        layout = families.layout(
            checkpoint.tensors, checkpoint.config, family=family, sizes=given_sizes(arguments.size)
        )
        with progress_bar(checkpoint.nbytes, "resizing") as progress:
            done = resize_folder(
                checkpoint,
                layout,
                arguments.out,
                width=arguments.width,
                heads=arguments.heads,
                kv_heads=arguments.kv_heads,
                mlp=arguments.mlp,
                method=arguments.method,
                seed=arguments.seed,
                shard_bytes=int(arguments.shard_size * 1e9),
                progress=progress,
            )
        report(json_text(_record(done)) if arguments.json else _text(checkpoint.source, done))
    return 0


def _grouped(plan: ResizePlan) -> dict[str, list[str]]:
    """Indices that were drawn, those of all blocks under one name."""
    from rclib.families.layout import base

    found: dict[str, list[str]] = {}
    for index in plan.maps:
        found.setdefault(base(index), []).append(index)
    return found


def _multipliers(plan: ResizePlan) -> dict[str, tuple[float, float]]:
    """Smallest and largest multiplier of tensors, those of all blocks under one name."""
    from rclib.families.matching import numbered, printable

    found: dict[str, tuple[float, float]] = {}
    for name in plan.layout.weights:
        range_ = plan.multipliers(name)
        if range_ is not None:
            key = printable(numbered(name))
            low, high = found.get(key, range_)
            found[key] = min(low, range_[0]), max(high, range_[1])
    return found


def _record(done: Resized) -> dict[str, Any]:
    plan = done.plan
    return {
        "folder": str(done.folder),
        "family": plan.layout.family,
        "method": plan.method,
        "seed": plan.seed,
        "function_kept": plan.exact,
        "notes": plan.notes,
        "sizes": plan.sizes,
        "multipliers": _multipliers(plan),
        "files": done.files,
        "not_copied": done.beside,
        "bytes": done.nbytes,
    }


def _text(source: str, done: Resized) -> str:
    from rclib.families.matching import printable

    plan = done.plan
    kept = "the function is kept, to rounding" if plan.exact else "the function is not kept exactly"
    head = (
        f"{source}: layout {plan.layout.family}, by {plan.method}, seed {plan.seed}; {kept}\n"
        f"{done.folder}: {done.nbytes / 1e9:.3g} GB in {', '.join(done.files)}"
    )
    lines = [head, *(f"note: {line}" for line in plan.notes), "", _drawn(plan), ""]
    factors = _multipliers(plan)
    rows = [[name, *_range(found)] for name, found in factors.items()]
    if rows:
        lines.append(table_text(["multiplied", "from", "to"], rows, left=(0,)))
    lines.append("all other tensors are copied, in their new sizes")
    if done.beside:
        names = ", ".join(map(printable, done.beside))
        lines.append(f"not copied, since the old sizes may stand in them: {names}")
    return "\n".join(lines)


def _range(found: tuple[float, float]) -> list[str]:
    return [f"{value:.6g}" for value in found]


def _drawn(plan: ResizePlan) -> str:
    header = ["index", "before", "after", "used", "copies", "first drawn"]
    rows = [_drawn_row(plan, name, indices) for name, indices in _grouped(plan).items()]
    return table_text(header, rows, left=(0, 5))


def _drawn_row(plan: ResizePlan, name: str, indices: list[str]) -> list[str]:
    before, after = plan.sizes[name]
    counts = [plan.maps[i].bincount(minlength=before) for i in indices]
    used = sum(int((c > 0).sum()) for c in counts) / len(counts)
    low, high = min(int(c.min()) for c in counts), max(int(c.max()) for c in counts)
    # What comes behind the source's own neurons, where these stay in their places.
    start = before if plan.method == "duplication" and after > before else 0
    first = plan.maps[indices[0]][start : start + SHOWN].tolist()
    shown = " ".join(map(str, first)) + (" ..." if after - start > SHOWN else "")
    many = f", {len(indices)} draws" if len(indices) > 1 else ""
    return [
        name + many,
        str(before),
        str(after),
        f"{used:.4g}",
        f"{low}" if low == high else f"{low} to {high}",
        shown,
    ]
