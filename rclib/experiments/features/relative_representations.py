"""Frames of notebook 74: are the latent spaces of separate trainings one space, and who sees it?

Values of a seed are means over its partners, the other seeds of its block of five consecutive
places, so that they do not depend on how many seeds there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.experiments.features.relative_nets import Coder, Shape
from rclib.experiments.features.relative_runs import coder_runs, images, shape_of
from rclib.experiments.features.spaces import (
    Map,
    cka,
    explained,
    linear_map,
    procrustes,
    relative,
    retrieval,
)
from rclib.runs.stacked import sweep_stacked

__all__ = [
    "BLOCK",
    "JOINS",
    "Coders",
    "alignment",
    "anchor_sweep",
    "by_anchors",
    "comparison",
    "invariance",
    "join_of",
    "joins",
    "losses",
    "of_encoders",
    "pairs",
    "pictures",
    "stitched",
    "trained",
]

BLOCK = 5  # seeds that are compared with each other
JOINS = ("none", "Procrustes", "linear", "shuffled")


@dataclass(frozen=True, eq=False)
class Coders:
    """Trained networks of one shape and their starts, by place of the seed, and their images.

    x, y : test images (T, inputs) and classes. fit : training images (F, inputs), of which the
    first are the anchors.
    """

    shape: Shape
    seeds: list[int]
    ends: list[Coder]
    starts: list[Coder]
    fit: Tensor
    x: Tensor
    y: Tensor

    def of_starts(self) -> Coders:
        """The same with every network as it was before training."""
        return Coders(self.shape, self.seeds, self.starts, self.starts, self.fit, self.x, self.y)


def trained(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any], *, n_fit: int = 1000,
    **changed: Any,
) -> Coders:  # fmt: skip
    """Networks of every seed. settings, changed : what `coder_runs` gets besides the group."""
    own = {**settings, **changed}
    configs = [{**own, "seed": seed} for seed in seeds]
    runs = sweep_stacked(
        coder_runs, configs, members=["seed"], data=data, group=BLOCK, description="coders"
    )
    shape = shape_of(data, **own)
    ends, starts = ([Coder(shape, seed=seed) for seed in seeds] for _ in range(2))
    for network, run in zip(ends, runs, strict=True):
        network.load_state_dict({name: torch.from_numpy(value) for name, value in run.items()})
    for network in (*ends, *starts):
        network.requires_grad_(False)
    x, x_test = images(data, int(own["pool"]))
    return Coders(shape, list(seeds), ends, starts, x[:n_fit], x_test, data.y_test)


def pairs(n: int) -> Iterator[tuple[int, int]]:
    """(i, j), i ≠ j, of the same block."""
    for i in range(n):
        first = i // BLOCK * BLOCK
        yield from ((i, j) for j in range(first, min(first + BLOCK, n)) if j != i)


def _by_seed(rows: list[tuple[Any, ...]], columns: list[str], keys: list[str]) -> pd.DataFrame:
    """Means over partners."""
    frame = pd.DataFrame(rows, columns=columns)
    return frame.groupby(keys, sort=False).mean(numeric_only=True).reset_index()


def _order(a: int, seed: int) -> Tensor:
    return torch.randperm(a, generator=torch.Generator().manual_seed(seed))


def invariance(coders: Coders, anchors: int) -> pd.Series:
    """Largest |r(sQz) - r(z)| over test images, s of 0.1 and 10, by seed; Q drawn by the seed."""
    found = {}
    for seed, network in zip(coders.seeds, coders.ends, strict=True):
        z, a = network.encode(coders.x), network.encode(coders.fit[:anchors])
        drawn = torch.randn(
            len(z[0]), len(z[0]), generator=torch.Generator().manual_seed(seed), dtype=torch.double
        )
        turn = torch.linalg.qr(drawn)[0].float()
        found[seed] = max(
            float((relative(s * z @ turn, s * a @ turn) - relative(z, a)).abs().max())
            for s in (0.1, 10.0)
        )
    return pd.Series(found, name="off").rename_axis("seed")


def comparison(coders: Coders, anchors: int, *, k: int = 10) -> pd.DataFrame:
    """seed, arm, mrr, cosine, jaccard: test images of one space looked for in another's.

    arms : "absolute" (the latents as they are), "relative", "shuffled" (anchors in another order
    in one of the two), "Procrustes" and "linear" (maps fitted on the anchors).
    """
    spaces = [(n.encode(coders.x), n.encode(coders.fit[:anchors])) for n in coders.ends]
    codes = [relative(z, a) for z, a in spaces]
    rows: list[tuple[Any, ...]] = []
    for i, j in pairs(len(spaces)):
        (z, a), (v, b) = spaces[i], spaces[j]
        mixed = codes[i][:, _order(anchors, coders.seeds[i])]
        for arm, one, other in (
            ("absolute", z, v),
            ("relative", codes[i], codes[j]),
            ("shuffled", mixed, codes[j]),
            ("Procrustes", procrustes(a, b)(z), v),
            ("linear", linear_map(a, b)(z), v),
        ):
            found = retrieval(one, other, k=k)
            rows.append((coders.seeds[i], arm, found.mrr, found.cosine, found.jaccard))
    return _by_seed(rows, ["seed", "arm", "mrr", "cosine", "jaccard"], ["seed", "arm"])


def alignment(coders: Coders) -> pd.DataFrame:
    """seed, rotation, linear, cka: R² on test images of the best rotation with scale, and of the
    best linear map, from one space to another, fitted on training images; and linear CKA."""
    spaces = [(n.encode(coders.x), n.encode(coders.fit)) for n in coders.ends]
    rows: list[tuple[Any, ...]] = []
    for i, j in pairs(len(spaces)):
        (z, a), (v, b) = spaces[i], spaces[j]
        turned = explained(procrustes(a, b)(z), v)
        rows.append((coders.seeds[i], turned, explained(linear_map(a, b)(z), v), cka(z, v)))
    return _by_seed(rows, ["seed", "rotation", "linear", "cka"], ["seed"])


def losses(output: Tensor, coders: Coders) -> float:
    """Error of outputs: mean square error over the images' variance around their training mean,
    or share of wrong classes."""
    if coders.shape.kind == "autoencoder":
        return float((output - coders.x).square().mean() / coders.x.square().mean())
    return float((output.argmax(1) != coders.y).double().mean())


def stitched(
    encoders: Coders, decoders: Coders, *, join: str = "none", anchors: int = 0
) -> pd.DataFrame:
    """encoder, decoder (seeds), own (whether one seed has both), error: encoder i with decoder j.

    They may have other latent sizes where codes are relative or mapped. join : "none";
    "Procrustes" or "linear", a map of the latents fitted on `anchors` training images; "shuffled",
    the anchors of the encoder in another order.
    """
    choice("join", join, JOINS)
    count = decoders.shape.anchors or anchors
    spaces, others = (
        [(n.encode(part.x), n.encode(part.fit[:count])) for n in part.ends]
        for part in (encoders, decoders)
    )
    rows = []
    ends = range(len(encoders.seeds))
    for i, j in [*((i, i) for i in ends), *pairs(len(ends))]:
        z, a = spaces[i]
        decoder = decoders.ends[j]
        if join in ("Procrustes", "linear") and not (i == j and encoders is decoders):
            make: Callable[[Tensor, Tensor], Map] = (
                procrustes if join == "Procrustes" else linear_map
            )
            z = make(a, others[j][1])(z)
        if join == "shuffled":
            a = a[_order(count, encoders.seeds[i])]
        output = decoder.decode(decoder.code(z, a))
        rows.append((encoders.seeds[i], decoders.seeds[j], i == j, losses(output, decoders)))
    return pd.DataFrame(rows, columns=["encoder", "decoder", "own", "error"])


def of_encoders(frame: pd.DataFrame, *, own: bool = False) -> pd.Series:
    """Error by encoder: with its own decoder, or mean over those of its partners."""
    chosen = frame[frame.own == own].groupby("encoder").error.mean()
    return chosen.rename_axis("seed")


def joins(absolute: Sequence[Coders], relatives: Sequence[Coders], anchors: int) -> pd.DataFrame:
    """kind, widths, join, seed, own, error: encoders with decoders of other seeds, by encoder.

    absolute, relatives : networks of two latent sizes. widths : "same", both of the first size;
    "other", the mean of both directions between the two. join : "absolute" (same size only),
    "Procrustes", "linear", "relative", "shuffled". own : error of the decoders' own networks.
    """
    frames = []
    for name, networks, join in (
        ("absolute", absolute, "none"),
        ("Procrustes", absolute, "Procrustes"),
        ("linear", absolute, "linear"),
        ("relative", relatives, "none"),
        ("shuffled", relatives, "shuffled"),
    ):
        first, second = networks
        for widths, directions in (
            ("same", [(first, first)]),
            ("other", [(first, second), (second, first)]),
        ):
            if name == "absolute" and widths == "other":
                continue
            found = [of_encoders(stitched(a, b, join=join, anchors=anchors)) for a, b in directions]
            own = [of_encoders(stitched(b, b), own=True) for _, b in directions]
            columns = {"own": sum(own) / len(own), "error": sum(found) / len(found)}
            table = pd.DataFrame(columns).reset_index()
            frames.append(table.assign(kind=first.shape.kind, widths=widths, join=name))
    return pd.concat(frames, ignore_index=True)


def join_of(frame: pd.DataFrame, kind: str, join: str, widths: str = "same") -> pd.DataFrame:
    """own and error by seed of one join of `joins`."""
    chosen = (frame.kind == kind) & (frame["join"] == join) & (frame.widths == widths)
    return frame[chosen].set_index("seed")[["own", "error"]]


def anchor_sweep(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any], numbers: Sequence[int],
    oracle: Coders,
) -> pd.DataFrame:  # fmt: skip
    """anchors, seed, own, stitched, joined, excess: errors of relative autoencoders by number of
    anchors, of absolute ones that as many anchors join by Procrustes, and the relative ones' own
    error above the absolute ones' own (`oracle`)."""
    best = of_encoders(stitched(oracle, oracle), own=True)
    frames = []
    for number in numbers:
        found = trained(data, seeds, settings, anchors=number)
        frame = stitched(found, found)
        own = of_encoders(frame, own=True)
        joined = of_encoders(stitched(oracle, oracle, join="Procrustes", anchors=number))
        columns = {"own": own, "stitched": of_encoders(frame), "joined": joined}
        table = pd.DataFrame({**columns, "excess": own - best}).reset_index()
        frames.append(table.assign(anchors=number))
    return pd.concat(frames, ignore_index=True)


def by_anchors(sweep: pd.DataFrame, what: str) -> pd.DataFrame:
    """A column of `anchor_sweep`, one row a seed, one column a number of anchors."""
    return sweep.pivot(index="seed", columns="anchors", values=what)


def pictures(coders: Coders, anchors: int, *, n: int = 120, classes: int = 4) -> pd.DataFrame:
    """seed, what ("latents", "relative codes"), class, x, y: test images in spaces of two
    dimensions, and their relative codes on the first two principal axes of the first network's."""
    chosen = torch.nonzero(coders.y < classes)[:n, 0]
    frames, axes = [], None
    for seed, network in zip(coders.seeds, coders.ends, strict=True):
        z = network.encode(coders.x[chosen])
        r = relative(z, network.encode(coders.fit[:anchors]))
        if axes is None:
            middle = r.mean(0)
            axes = torch.linalg.svd(r - middle, full_matrices=False)[2][:2].T
        for what, plane in (("latents", z), ("relative codes", (r - middle) @ axes)):
            places = np.asarray(plane)
            found = {"x": places[:, 0], "y": places[:, 1], "class": coders.y[chosen].numpy()}
            frames.append(pd.DataFrame({"seed": seed, "what": what, **found}))
    return pd.concat(frames, ignore_index=True)
