"""Stored runs of notebook 96: parts of a pre-trained language model, trained on for three uses.

One base a seed: a small GPT, pre-trained on the first of two texts. Its tables (embedding,
positions, output, gains) and the matrices of its blocks are kept whole, in part
(`rclib.rowcolumn.kept`) or not at all, the rest coming from a random start that the base never had;
all of these are trained side by side on the second text, on copying or on recall
(`rclib.data.sequence_tasks`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from rclib.data.sequence_tasks import TASKS, answers, sequences
from rclib.data.text import TextData
from rclib.nets.gpt import GPT
from rclib.nets.stack import Stack
from rclib.rowcolumn.kept import PARTS, keep_part
from rclib.rowcolumn.measure import correlations, leading_share, mean_vectors, row_column_share
from rclib.runs.store import Arrays
from rclib.spectral.placement import spike_count
from rclib.training.stacked import train_stack

__all__ = [
    "ARMS",
    "FEW",
    "MEASURES",
    "TINY",
    "USES",
    "arm_tensors",
    "leaves_run",
    "measures",
    "relabelled",
]

USES = ("text", *TASKS)
# scratch: nothing is kept; tables, blocks: these alone; all; misplaced: each block's matrices are
# another's; relabelled: neurons of the MLPs renamed, which changes nothing; others: tables and one
# part of the matrices.
ARMS = ("scratch", "tables", "blocks", "all", *PARTS, "misplaced", "relabelled")
FEW = ("scratch", "tables", "blocks", "all", "sampled", "misplaced")
MEASURES = ("means", "leading", "spikes", "correlation")
_MATRICES = ("Wq", "Wk", "Wv", "Wo", "Wup", "Wdown")
_FRESH = 7_000_003  # added to a base's seed for the start it never had
TINY: dict[str, dict[str, Any]] = {
    "leaves_run": {
        "seed": 1, "net": {"width": 8, "blocks": 2, "head_size": 4, "context": 8},
        "base": {"batch_size": 2, "steps": 2, "rate": 0.003}, "n_test": 4,
        "uses": {
            use: {"arms": ["scratch", arm], "batch_size": 2, "steps": 2, "rate": 0.003}
            for use, arm in zip(USES, ("leading", "all", "misplaced"), strict=True)
        },
    },
}  # fmt: skip


def _network(net: Mapping[str, Any], seed: int) -> GPT:
    return GPT(**net, parametrization="SP", bias="none", seed=seed)


def _stack(net: Mapping[str, Any], members: Sequence[Mapping[str, Tensor]]) -> Stack:
    shell = _network(net, 0)

    def one(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(shell, dict(tensors), (x,))
        return out

    return Stack({name: torch.stack([m[name] for m in members]) for name in members[0]}, one)


def _tensors(model: GPT) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _loss(places: Tensor, out: Tensor, y: Tensor) -> Tensor:
    """Mean over the answers of one network; out (n, T, V), y (n, T)."""
    return cross_entropy(out[:, places].flatten(0, 1), y[:, places].flatten())


def _trained(
    start: Stack, windows: Callable[[int], Tensor], places: Tensor, given: Mapping[str, Any]
) -> Stack:
    """windows : step -> (n, context + 1) bytes, which all members share."""
    members, steps = len(start), int(given["steps"])

    def batch(step: int) -> tuple[Tensor, Tensor]:
        both = windows(step).expand(members, -1, -1)
        return both[:, :, :-1], both[:, :, 1:]

    with sdpa_kernel(SDPBackend.MATH):  # the others are called member by member in a stack
        end, _ = train_stack(
            start, batch, partial(_loss, places), steps=steps, lr=given["rate"], optimizer="adam",
            lr_schedule=lambda t: min(1.0, (t + 1) / 20, 2 * (steps - t) / steps), own="xy",
        )  # fmt: skip
    return end


@lru_cache(maxsize=2)
def _base(
    data: TextData, net: str, base: str, seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the pre-trained network, and of its own start."""
    options, given = json.loads(net), json.loads(base)
    context = int(options["context"])
    first = _tensors(_network(options, seed))

    def windows(step: int) -> Tensor:
        return data.batch(step, seed=seed, batch_size=given["batch_size"], context=context)

    end = _trained(_stack(options, [first]), windows, torch.arange(context), given)
    return end.member(0), first


def _matrices(tensors: Mapping[str, Tensor]) -> list[str]:
    return [n for n in tensors if n.startswith("blocks.") and n.rpartition(".")[2] in _MATRICES]


def _flat(name: str, tensor: Tensor) -> Tensor:
    """(fan-out, fan-in); heads laid side by side."""
    if name.endswith(".Wo"):
        return tensor.transpose(1, 2).flatten(1)
    return tensor.flatten(0, 1) if tensor.ndim == 3 else tensor


def _unflat(name: str, matrix: Tensor, like: Tensor) -> Tensor:
    if name.endswith(".Wo"):
        stream, value, head = like.shape
        return matrix.view(stream, head, value).transpose(1, 2).contiguous()
    return matrix.view(like.shape)


def relabelled(tensors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same function with the neurons of each block's MLP in another order."""
    found, random = dict(tensors), torch.Generator().manual_seed(seed)
    for name in tensors:
        if name.endswith(".Wup"):
            order = torch.randperm(len(tensors[name]), generator=random)
            down = name.replace("Wup", "Wdown")
            found[name], found[down] = tensors[name][order], tensors[down][:, order]
    return found


def arm_tensors(
    arm: str, base: Mapping[str, Tensor], start: Mapping[str, Tensor], blocks: int, seed: int
) -> dict[str, Tensor]:
    """Tensors of one of `ARMS` from those of the base and of a start it never had.

    Raises ValueError for another arm, and for "misplaced" of a single block.
    """
    if arm not in ARMS:
        raise ValueError(f"arm must be one of {ARMS}, got {arm!r}")
    if arm == "misplaced" and blocks < 2:
        raise ValueError(f"blocks must be at least 2 for arm 'misplaced', got {blocks}")
    if arm in ("scratch", "all"):
        return dict(start if arm == "scratch" else base)
    if arm == "relabelled":
        return relabelled(base, seed)
    found = dict(start if arm == "blocks" else base)
    for place, name in enumerate(_matrices(base)):
        if arm == "blocks":
            found[name] = base[name]
        elif arm == "tables":
            found[name] = start[name]
        elif arm == "misplaced":
            number = name.split(".")[1]
            other = (int(number) + 1) % blocks
            found[name] = base[name.replace(f"blocks.{number}.", f"blocks.{other}.")]
        else:
            own = keep_part(
                _flat(name, base[name]), _flat(name, start[name]), arm, seed=1009 * seed + place
            )
            found[name] = _unflat(name, own, base[name])
    return found


def measures(tensors: Mapping[str, Tensor], model: GPT) -> np.ndarray:
    """`MEASURES` (4,) of a network's blocks.

    means : variance that row and column means explain, over chance; leading : ‖W‖² in the first
    singular pair, over Marchenko and Pastur's; both means over matrices. spikes : singular values
    beyond the bulk of independent entries, a matrix. correlation : mean |r| of the mean vectors
    along the stream of different tensors of the blocks, over that of independent normal ones,
    √(2 / π N).
    """
    flat = [_flat(name, tensors[name]) for name in _matrices(tensors)]
    shares = [row_column_share(w) for w in flat]
    first = [leading_share(w, 1) for w in flat]
    own = {name: tensors[name] for name in _matrices(tensors)}
    vectors = mean_vectors(own, {name: model.axes[name] for name in own})
    found = correlations({"stream": vectors["stream"]})
    away = found.matrix[~torch.eye(len(found.labels), dtype=torch.bool)]
    return np.array([
        np.mean([s.value / s.chance for s in shares]), np.mean([s.value / s.chance for s in first]),
        np.mean([spike_count(w) for w in flat]),
        float(away.abs().mean()) * np.sqrt(np.pi * found.n / 2),
    ])  # fmt: skip


def _windows(
    data: TextData, use: str, context: int, size: int, seed: int
) -> tuple[Callable[[int], Tensor], Callable[[int], Tensor], Tensor]:
    """Batches of a use, its test windows by their number, and the places of its answers. The last
    tenth of the second text is for the test alone."""
    if use == "text":
        tokens = data.validation.long()
        bounds = (0, 9 * len(tokens) // 10, len(tokens))
        span = torch.arange(context + 1)

        def drawn(part: int, n: int, what: int) -> Tensor:
            random = torch.Generator().manual_seed(what)
            low, high = bounds[part], bounds[part + 1] - context
            return tokens[torch.randint(low, high, (n, 1), generator=random) + span]

        return (
            lambda step: drawn(0, size, 100_003 * seed + step),
            lambda n: drawn(1, n, seed),
            torch.arange(context),
        )
    return (
        lambda step: sequences(use, size, context, seed=100_003 * seed + step),
        lambda n: sequences(use, n, context, seed=100_003 * seed + 99_991),
        answers(use, context),
    )


def leaves_run(
    data: TextData, *, seed: int, net: Mapping[str, Any], base: Mapping[str, Any],
    uses: Mapping[str, Mapping[str, Any]], n_test: int,
) -> Arrays:  # fmt: skip
    """Stored run: one base, its arms trained on for every use.

    data : two texts (`rclib.data.two_texts`). net : width, blocks, head_size, context of the GPT.
    base : batch_size, steps and rate of Adam for pre-training. uses : use of `USES` -> the same and
    arms of `ARMS`. n_test : sequences that a loss is measured on.

    start, loss_<use> (A,) : test loss of each arm before and after training, nats a target.
    kept_<use> (A, 4) : `measures` of each arm after it. base (2, 4) : of the base's start and of
    the base. Raises ValueError for another use.
    """
    settings = json.dumps(dict(net), sort_keys=True), json.dumps(dict(base), sort_keys=True)
    trained, first = _base(data, *settings, seed)
    model, blocks = _network(net, seed), int(net["blocks"])
    fresh = _tensors(_network(net, seed + _FRESH))
    found = {"base": np.stack([measures(first, model), measures(trained, model)])}
    for use, given in uses.items():
        if use not in USES:
            raise ValueError(f"uses must be of {USES}, got {use!r}")
        nets = _stack(net, [arm_tensors(a, trained, fresh, blocks, seed) for a in given["arms"]])
        size = int(given["batch_size"])
        windows, held_out, places = _windows(data, use, int(net["context"]), size, seed)
        test = held_out(n_test)
        end = _trained(nets, windows, places, given)
        for name, own in (("start", nets), ("loss", end)):
            with torch.no_grad():
                losses = [_loss(places, own.one(own.member(s), test[:, :-1]), test[:, 1:])
                          for s in range(len(own))]  # fmt: skip
            found[f"{name}_{use}"] = torch.stack(losses).double().numpy()
        found[f"kept_{use}"] = np.stack([measures(end.member(s), model) for s in range(len(end))])
    return found
