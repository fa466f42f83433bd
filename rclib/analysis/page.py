"""One self-contained page on one model, or on two side by side: `report.html`.

It asks for nothing, from the network or the disk: style, script and pictures are inside, and a
Content-Security-Policy lets no other script, style or picture in. Names come from strangers and are
escaped everywhere. Everything can be read without the script, which sorts, filters and opens.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rclib import __version__
from rclib.analysis import charts
from rclib.analysis.model import Measured
from rclib.analysis.pictures import Picture, pictures
from rclib.checkpoints.names import shorter_names
from rclib.checkpoints.opening import Checkpoint
from rclib.files.atomic import write_atomically
from rclib.files.plain import check_replaceable
from rclib.inspection.spectrum import MatrixSpectrum, esd_histogram
from rclib.inspection.vocabulary import MEANINGS, TEXTS, cell, heading, number

__all__ = ["check_place", "page", "write_page"]

EDGES = (48, 160)  # tiles of a heat map: at least, at most
BUDGET = 6_000_000 / 0.8  # tiles of all heat maps together; one takes about 0.8 bytes
MOST_CARDS = 1500  # matrices with pictures; the others are in the table alone
BINS = 60
# Columns of the page's table; intervals stand in one cell with their number.
SHOWN = (
    *("block", "layer", "shape", "alpha_hill", "alpha_noise", "tail_ratio", "verdict"),
    *("spikes", "over_edge", "stable_rank", "alpha_ks"),
    *("correlation", "chance", "p_value", "first", "second", "kind", "note"),
)
PAIRS = (
    *("block", "set", "n", "pairs", "correlation", "first", "second"),
    *("expected", "chance", "p_value"),
)


@dataclass(frozen=True)
class _Panel:
    """One matrix of one source, drawn."""

    of: str
    spectrum: MatrixSpectrum
    picture: Picture
    plain: str
    sorted: str | None
    rows: Markup
    columns: Markup
    esd: Markup


@dataclass(frozen=True)
class _Card:
    """One matrix, with a panel a source."""

    anchor: str
    title: str
    panels: list[_Panel]


def write_page(
    path: Path, parts: Sequence[Measured], checkpoints: Mapping[str, Checkpoint]
) -> Path:
    """Write the page whole or not at all; returns its path. Raises ValueError as `page` and
    `check_place`, OSError for a path that cannot be written."""
    check_place(path)
    write_atomically(path, page(parts, checkpoints).encode("utf-8", "backslashreplace"))
    return path


def check_place(path: Path) -> None:
    """Raise ValueError for a path at which there is something else than a page."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; the page is one file, such as {path}/report.html")
    check_replaceable(path, b"<!doctype html", "page")


def page(parts: Sequence[Measured], checkpoints: Mapping[str, Checkpoint]) -> str:
    """The page as text.

    parts : what was measured; checkpoints : the same models, open, by `Measured.of`. Raises
    ValueError if the weights there are not those that were measured.
    """
    anchors = _anchors(parts)
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    environment = Environment(
        loader=PackageLoader("rclib.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(heading=heading, marked=_marked, number=number)
    words = list(dict.fromkeys([*SHOWN, *PAIRS, *(["of"] if len(parts) > 1 else [])]))
    return environment.get_template("report.html.j2").render(
        title=parts[-1].source if len(parts) == 1 else f"{parts[0].source} and {parts[1].source}",
        parts=parts,
        two=len(parts) > 1,
        policy=(
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
        style=Markup(style),  # ours, as it stands
        script=Markup(script),
        table=_rows(parts, anchors),
        columns=(["of"] if len(parts) > 1 else []) + list(SHOWN),
        pairs=_pair_rows(parts),
        pair_columns=(["of"] if len(parts) > 1 else []) + list(PAIRS),
        overview=_overview(parts),
        blocks=_cards(parts, checkpoints, anchors),
        texts=TEXTS,
        glossary={word: MEANINGS[word] for word in words},
        most=MOST_CARDS,
        total=len(set(anchors.values())),
        version=__version__,
    )


def _asset(name: str) -> str:
    return files("rclib.analysis").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _marked(text: str) -> Markup:
    """Our own words with `code` in them."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _key(layer: str) -> str:
    """What a matrix is found by in the other model: its name without wrappers."""
    return shorter_names(layer)[-1]


def _anchors(parts: Sequence[Measured]) -> dict[str, str]:
    """{key of a layer: its place on the page}, block by block."""
    order: dict[str, tuple[bool, int]] = {}
    for part in parts:
        for one in part.spectra:
            order.setdefault(_key(one.layer), (one.block is None, one.block or 0))
    ordered = sorted(order, key=lambda key: order[key])
    return {key: f"m{i}" for i, key in enumerate(ordered)}


# --- tables


def _rows(parts: Sequence[Measured], anchors: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for part in parts:
        for record in part.table().to_dict("records"):
            cells = [_cell(word, {**record, "of": part.of}) for word in SHOWN]
            if len(parts) > 1:
                cells.insert(0, _cell("of", {"of": part.of}))
            rows.append({"anchor": anchors[_key(record["layer"])], "cells": cells})
    return rows


def _pair_rows(parts: Sequence[Measured]) -> list[list[dict[str, Any]]]:
    rows = []
    for part in parts:
        if part.correlations is None:
            continue
        words = (["of"] if len(parts) > 1 else []) + list(PAIRS)
        for record in part.correlations.table().to_dict("records"):
            rows.append([_cell(word, {**record, "of": part.of}) for word in words])
    return rows


def _cell(word: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """word; text : what is shown; sort : what is compared; strong : whether it stands out."""
    value, left = record[word], word in TEXTS
    if value is None or pd.isna(value):
        return {"word": word, "text": "", "sort": None, "strong": False, "left": left}
    strong = (
        value == "heavy-tailed"
        or (word == "spikes" and value > 0)
        or (word == "correlation" and abs(value) > record["chance"])
    )
    sort = value if left else float(value)
    return {"word": word, "text": cell(word, record), "sort": sort, "strong": strong, "left": left}


# --- over the blocks


def _overview(parts: Sequence[Measured]) -> list[dict[str, Any]]:
    """Small charts against the block: {title, svg}, of what stands in two blocks at least."""
    found = []
    pairs = [part.correlations.table().assign(of=part.of) for part in parts if part.correlations]
    if pairs:
        frame = pd.concat(pairs, ignore_index=True).dropna(subset=["block"])
        for name, group in frame.groupby("set", sort=False):
            lines = [
                line
                for of, one in group.groupby("of", sort=False)
                for line in _lines(of, one, "value", "chance")
            ]
            if group.block.nunique() > 1:
                svg = charts.blocks_chart(lines, "largest correlation of each block", y=(0.0, 1.0))
                found.append({"group": "value", "title": name, "svg": Markup(svg)})
    frame = pd.concat([p.table().assign(of=p.of) for p in parts], ignore_index=True)
    frame = frame.dropna(subset=["block", "alpha_hill"])
    frame = frame[~frame.duplicated(["of", "block", "matrix"])]
    for name, group in frame.groupby("matrix", sort=False):
        lines = [
            line
            for of, one in group.groupby("of", sort=False)
            for line in _lines(of, one.sort_values("block"), "alpha_hill", "alpha_noise")
        ]
        if group.block.nunique() > 1:
            ends = (
                float(group[["alpha_hill", "alpha_noise"]].min(axis=None)),
                float(group[["alpha_hill", "alpha_noise"]].max(axis=None)),
            )
            about = max(0.0, 0.5 - (ends[1] - ends[0])) / 2  # no noise as large as the panel
            ends = ends[0] - about, ends[1] + about
            svg = charts.blocks_chart(lines, "exponent of each block", y=ends)
            found.append({"group": "alpha_hill", "title": name, "svg": Markup(svg)})
    return found


def _lines(of: object, frame: pd.DataFrame, value: str, level: str) -> list[charts.Line]:
    blocks = frame.block.to_numpy(dtype=float)
    return [
        (f"line {of}", blocks, frame[value].to_numpy(dtype=float)),
        (f"line {of} dotted", blocks, frame[level].to_numpy(dtype=float)),
    ]


# --- matrix by matrix


def _cards(
    parts: Sequence[Measured], checkpoints: Mapping[str, Checkpoint], anchors: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Blocks in their order: {title, cards}."""
    shown = set(list(anchors)[:MOST_CARDS])
    count = 2 * sum(_key(s.layer) in shown for part in parts for s in part.spectra)
    edge = int(np.clip(math.sqrt(BUDGET / max(1, count)), *EDGES))
    panels: dict[str, list[_Panel]] = {}
    places: dict[str, tuple[int | None, str]] = {}
    for part in parts:
        spectra = {s.layer: s for s in part.spectra if _key(s.layer) in shown}
        tensors = {re.sub(r"[:\[].*", "", layer) for layer in spectra}
        for plan in part.plans:
            if plan.name in tensors or any(n.startswith(plan.name) for n in spectra):
                for picture in pictures(checkpoints[part.of], plan, edge):
                    spectrum = spectra.get(picture.layer)
                    if spectrum is not None:
                        key = _key(picture.layer)
                        panels.setdefault(key, []).append(_panel(part, spectrum, picture))
                        places.setdefault(key, (spectrum.block, picture.layer))
    blocks: dict[int | None, list[_Card]] = {}
    for key, anchor in anchors.items():
        if key in panels:
            block, layer = places[key]
            blocks.setdefault(block, []).append(_Card(anchor, layer, panels[key]))
    return [
        {"title": "Outside the blocks" if block is None else f"Block {block}", "cards": cards}
        for block, cards in blocks.items()
    ]


def _panel(part: Measured, spectrum: MatrixSpectrum, picture: Picture) -> _Panel:
    squares = float(spectrum.eigenvalues.sum())
    if abs(squares - picture.squares) > 1e-3 * max(squares, picture.squares):
        # The eigenvalues sum to the squares of the entries: these are other entries.
        raise ValueError(
            f"{part.source}: {spectrum.layer} is not what it was when it was analysed; analyze the "
            "model again"
        )
    rows, columns = len(picture.rows), len(picture.columns)
    histogram = esd_histogram(spectrum, bins=BINS)
    esd = ""
    if not histogram.empty:
        begin, tail = spectrum.xmin.get("ks"), None
        if begin is not None and spectrum.alpha_ks is not None and spectrum.tail is not None:
            share = spectrum.tail / int((spectrum.eigenvalues > 0).sum())
            tail = math.log10(begin), spectrum.alpha_ks, share
        arrays = (histogram[n].to_numpy() for n in ("left", "right", "density", "law"))
        esd = charts.spectrum_chart(
            *arrays,
            edge=math.log10(spectrum.edge) if spectrum.edge else None,
            tail=tail,
            label="histogram of the eigenvalues, with the law of noise and a power law",
        )
    of, mean, std = part.of, picture.mean, picture.std
    return _Panel(
        of=of,
        spectrum=spectrum,
        picture=picture,
        plain=charts.heat_map(picture.plain),
        sorted=None if picture.sorted is None else charts.heat_map(picture.sorted),
        rows=Markup(
            charts.means_chart(
                [(of, picture.rows, mean, std / math.sqrt(columns))], "mean of each row"
            )
        ),
        columns=Markup(
            charts.means_chart(
                [(of, picture.columns, mean, std / math.sqrt(rows))], "mean of each column"
            )
        ),
        esd=Markup(esd),
    )
