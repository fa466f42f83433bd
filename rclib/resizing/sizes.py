"""Which sizes a model of another width has, and what its config.json then says.

What is not asked for keeps its ratio to the width. Where that is no whole number, or a model's code
allows no other size, the request is refused with the sizes that would do.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rclib.checks.arguments import count
from rclib.families.layout import FamilyError, Layout, base
from rclib.families.matching import known_families
from rclib.families.table import ResizeRow

__all__ = ["Sizes", "new_config", "resolve_sizes"]

# What holds the sizes where config.json does not: nanoGPT's checkpoints.
INNER = "model_args"


@dataclass(frozen=True)
class Sizes:
    """changed : index without block -> (before, after) of every index that may change;
    heads : (before, after) of all query heads; norm : "rms" or "layer"; row : of the table."""

    changed: Mapping[str, tuple[int, int]]
    heads: tuple[int, int]
    norm: str
    row: ResizeRow


def resolve_sizes(
    layout: Layout,
    config: Mapping[str, Any] | None,
    *,
    width: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    mlp: int | None = None,
) -> Sizes:
    """All sizes of the new model.

    width : of the stream; heads : query heads; kv_heads : key-value heads; mlp : hidden neurons.
    Those that are None keep their ratio to the width (kv_heads: to the heads).

    Raises ValueError for sizes that do not fit together, with what would, and FamilyError for a
    family or a configuration of which it is not known what another width needs.
    """
    row = _row(layout, config)
    given = {"width": width, "heads": heads, "kv_heads": kv_heads, "mlp": mlp}
    given = {name: n if n is None else count(name, n) for name, n in given.items()}
    if not any(n is not None for n in given.values()):
        raise ValueError("nothing to resize: give width, heads, kv_heads or mlp")
    now = _uniform(layout)
    grouped = "kv" in now
    group = now.get("group", 1) if grouped else 1
    before = {"width": now["stream"], "kv_heads": now["kv" if grouped else "head"]}
    before["heads"] = before["kv_heads"] * group
    size = now["qk"]
    ratio = Fraction(given["width"] or before["width"], before["width"])
    new_width = given["width"] or before["width"]
    if _divided(row, config):
        if new_width % size:
            raise ValueError(
                f"width must be a multiple of {size}, the size of a head, which stays; got "
                f"{new_width} (next are {max(1, new_width // size) * size} and "
                f"{(new_width // size + 1) * size})"
            )
        if given["heads"] not in (None, new_width // size):
            raise ValueError(
                f"heads must be width / {size}, the size of a head, which stays: "
                f"{new_width // size} for width {new_width}; got {given['heads']}"
            )
        given["heads"] = new_width // size
    new_heads = given["heads"] or _whole("heads", before["heads"], ratio, before["heads"])
    if new_width % new_heads and (config or {}).get("model_type") in row.multiple:
        raise ValueError(
            f"width must be a multiple of the heads ({new_heads}), as the model's configuration "
            f"asks; got {new_width} (next are {new_width // new_heads * new_heads} and "
            f"{(new_width // new_heads + 1) * new_heads})"
        )
    changed = {"stream": (before["width"], new_width)}
    if not grouped:
        if given["kv_heads"] not in (None, new_heads):
            raise ValueError(f"kv_heads must be None for {layout.family}: every head has its own")
        changed["head"] = before["heads"], new_heads
    else:
        changed |= _groups(before, group, new_heads, given["kv_heads"])
    if "mlp" in now:
        changed["mlp"] = now["mlp"], _mlp(row, now, given["mlp"], new_width, ratio)
    elif given["mlp"] is not None:
        raise ValueError(f"mlp must be None: {layout.family} has no such neurons here")
    changed |= {i: (now[i], changed[to][1]) for i, to in row.follow.items() if i in now}
    sizes = Sizes(changed, (before["heads"], new_heads), _norm(row, layout), row)
    _agrees(sizes, now, config)
    return sizes


def _row(layout: Layout, config: Mapping[str, Any] | None) -> ResizeRow:
    family = layout.table
    if config is None:
        raise FamilyError(
            "no config.json beside the weights: what the new one would say is not known; pass the "
            "model's folder"
        )
    if layout.family == "gguf":
        raise FamilyError(
            "of GGUF files Llamas alone are resized: names and the order of rotary entries are "
            "llama.cpp's own; load it with transformers (from_pretrained(FOLDER, gguf_file=NAME)), "
            "save_pretrained, and resize that folder"
        )
    if family is None or family.resize is None or layout.inferred:
        known = ", ".join(f.name for f in known_families() if f.resize is not None)
        raise FamilyError(
            f"models of the family {layout.family!r} are not resized as folders: what their code "
            f"makes of another width is not described (known are {known}; "
            "rclib.resize_checkpoint moves the tensors alone)"
        )
    about = config.get("quantization_config")
    if about:
        method = about.get("quant_method") if isinstance(about, Mapping) else about
        raise FamilyError(
            f"the model is quantised ({method}): its codes belong to its sizes; dequantise it "
            "first and resize that"
        )
    return family.resize


def _divided(row: ResizeRow, config: Mapping[str, Any] | None) -> bool:
    if isinstance(row.divided, bool):
        return row.divided
    return (config or {}).get("model_type") in row.divided


def _norm(row: ResizeRow, layout: Layout) -> str:
    """LayerNorm wherever a norm has a bias, whatever the table says."""
    biases = any(
        "norm" in w.label.lower() and w.label.endswith(".bias") for w in layout.weights.values()
    )
    return "layer" if biases else row.norm


def _uniform(layout: Layout) -> dict[str, int]:
    """Sizes by index without block. FamilyError where blocks differ: config.json has one number."""
    found: dict[str, int] = {}
    for index, size in layout.sizes.items():
        if found.setdefault(base(index), size) != size:
            raise FamilyError(
                f"blocks differ in {base(index)!r} ({found[base(index)]} and {size}), for which "
                "config.json has one number"
            )
    missing = [i for i in ("stream", "qk") if i not in found]
    if missing or not {"head", "kv"} & set(found):
        raise FamilyError(f"the checkpoint has no {missing[0] if missing else 'heads'} to resize")
    return found


def _groups(
    before: Mapping[str, int], group: int, heads: int, kv: int | None
) -> dict[str, tuple[int, int]]:
    """Key-value heads, and query heads that share one."""
    if kv is None:
        kv, rest = divmod(before["kv_heads"] * heads, before["heads"])
        if rest or kv < 1:
            raise ValueError(
                f"heads must be a multiple of {group}, which share one key-value head, or kv_heads "
                f"be given; got {heads}"
            )
    if heads % kv:
        raise ValueError(f"heads must be a multiple of kv_heads, got {heads} and {kv}")
    return {"kv": (before["kv_heads"], kv), "group": (group, heads // kv)}


def _mlp(
    row: ResizeRow, now: Mapping[str, int], given: int | None, width: int, ratio: Fraction
) -> int:
    if row.ratio is None:
        return given or _whole("mlp", now["mlp"], ratio, now["mlp"])
    if given not in (None, row.ratio * width):
        raise ValueError(
            f"mlp must be {row.ratio} times the width, as the model's code has it: "
            f"{row.ratio * width}; got {given}"
        )
    return row.ratio * width


def _whole(name: str, before: int, ratio: Fraction, now: int) -> int:
    wanted = before * ratio
    if wanted.denominator != 1 or wanted < 1:
        raise ValueError(
            f"{name} must be given: {before} times {ratio} (width after / before) is no whole "
            f"number; now it is {now}"
        )
    return int(wanted)


def _values(sizes: Sizes, now: Mapping[str, int], place: int) -> dict[str, int]:
    """What config.json says before (place 0) or after (1), by key."""
    known = {i: (n, n) for i, n in now.items()} | dict(sizes.changed) | {"heads": sizes.heads}
    return {k: known[i][place] for k, i in sizes.row.config.items() if i in known}


def _held(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get(INNER)
    return inner if isinstance(inner, Mapping) else config


def _agrees(sizes: Sizes, now: Mapping[str, int], config: Mapping[str, Any] | None) -> None:
    """FamilyError where config.json contradicts the weights, or does not hold the width."""
    held = _held(config or {})
    for key, value in _values(sizes, now, 0).items():
        said = held.get(key)
        if said is None and sizes.row.config[key] != "stream":
            continue  # the model's code knows a default
        if said != value:
            raise FamilyError(
                f"config.json says {key} = {said}, the weights {value}: the new one cannot be "
                "written"
            )


def new_config(layout: Layout, config: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """config.json of the resized model: the source's with the new sizes."""
    made = copy.deepcopy(dict(config))
    held = made[INNER] if isinstance(made.get(INNER), dict) else made
    held.update(_values(sizes, _uniform(layout), 1))
    if layout.family == "nanogpt":
        return {"model_type": "nanogpt", INNER: {k: v for k, v in held.items() if _plain(v)}}
    return made


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
