"""Stored runs of notebook 91: language models, policies that start from them, data gathering.

A seed gives its scenes, goals, demonstrations and tests, which all arms share, the start of the
networks and the heads. Adam with one rate, constant after 20 steps.

Source: Li and others, arXiv 2202.01771; the released code for the heads and the relabelling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rclib.checks.arguments import choice
from rclib.data.household import (
    ENTITIES,
    NAMES,
    STATES,
    VERBS,
    Episodes,
    draw_episodes,
    held_out_pairs,
)
from rclib.data.text import TextData
from rclib.experiments.language import decision_texts as texts
from rclib.experiments.language.decision_inputs import (
    TOKENS,
    WORDS,
    actions,
    cloning_loss,
    expert_steps,
    inputs,
    shortened,
    success,
)
from rclib.nets.pointer_policy import (
    HEADS,
    attention,
    head_tensors,
    mlp_policy,
    mlp_tensors,
    policy,
)
from rclib.nets.stack import Stack
from rclib.runs.store import Arrays
from rclib.training.stacked import train_stack

__all__ = [
    "ARMS", "MEMBERS", "TESTS", "TINY", "cloned", "episodes_of", "language_runs", "policy_runs",
    "start_of",
]  # fmt: skip

MEMBERS = ("seed",)
# arm -> kind of language model (or none), its updates (0: those of `default`), what is kept of it
ARMS: dict[str, tuple[str | None, int, str]] = {
    "scratch": (None, 0, "large table"), "scratch, small": (None, 0, "all"),
    "LM": ("text", 0, "all"), "LM, i.i.d.": ("i.i.d.", 0, "all"), "LM, words": ("words", 0, "all"),
    "LM, copies": ("copies", 0, "all"), "LM, pairs": ("pairs", 0, "all"),
    "LM, 250": ("text", 250, "all"), "LM, 1000": ("text", 1000, "all"),
    "LM, 1500": ("text", 1500, "all"), "names permuted": ("text", 0, "permuted"),
    "trunk only": ("text", 0, "trunk"), "embeddings only": ("text", 0, "embeddings"),
    "entries shuffled": ("text", 0, "shuffled"), "frozen": ("text", 0, "all"),
    "fixed order": ("text", 0, "all"), "scrambled": ("text", 0, "all"), "MLP": (None, 0, "MLP"),
}  # fmt: skip
ORDER = {"fixed order": "fixed", "scrambled": "anew"}
TESTS = ("in distribution", "novel pairs", "three pairs")
LARGE = 0.5  # table of "scratch"
_FRESH = 7_000_003  # added to a seed for the start that its language model never had
_NET = {"width": 8, "blocks": 2, "head_size": 4, "context": 20}
_LANGUAGE = {"marks": [1, 2], "default": 2, "batch_size": 2, "rate": 0.003}
_CLONING = {"n_demos": 6, "each": 3, "steps": 2, "batch": 4, "rate": 0.003, "hidden": 8,
            "checkpoints": [1, 2], "n_test": 5}  # fmt: skip
_TINY: dict[str, Any] = {"group": [{"seed": 0}, {"seed": 3}], "net": _NET, "language": _LANGUAGE}
TINY: dict[str, dict[str, Any]] = {
    "language_runs": {**_TINY, "kind": "text"},
    "policy_runs": {**_TINY, "arm": "names permuted", "cloning": _CLONING},
}


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True)


def language_runs(
    data: TextData, *, group: Sequence[Mapping[str, Any]], kind: str, net: Mapping[str, Any],
    language: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: a language model of one kind, looked at.

    kind : of `decision_texts.KINDS`. net : width, blocks, head_size, context of the GPT. language :
    marks (numbers of updates that are looked at), default, batch_size, rate.

    Returns with a first axis of members: loss (marks,), mean of the last 50 before each mark, nats
    a symbol; measures (1 + marks, blocks, 4) of the start and each mark, `decision_texts.measures`.
    Raises ValueError for another kind.
    """
    seeds = [int(member["seed"]) for member in group]
    own = texts.symbols(data)
    losses, kept = texts.pretrained(own, kind, _json(net), _json(language), tuple(seeds))
    blocks, marks = range(int(net["blocks"])), sorted(language["marks"])
    measured = [
        [texts.measures(texts.start_tensors(net, seed), blocks),
         *(texts.measures({n: t[s] for n, t in kept[mark].items()}, blocks) for mark in marks)]
        for s, seed in enumerate(seeds)
    ]  # fmt: skip
    late = [losses[max(0, mark - 50) : mark].mean(0) for mark in marks]
    return {"loss": torch.stack(late, 1).numpy(), "measures": np.array(measured)}


def start_of(
    data: TextData, arm: str, seeds: Sequence[int], net: Mapping[str, Any],
    language: Mapping[str, Any],
) -> dict[str, Tensor]:  # fmt: skip
    """Tensors (S, ...) that the policies of an arm start from, heads included.

    "trunk": the language model without its table of symbols, "embeddings": this table alone, the
    rest from a start that the language model never had. Raises ValueError for an unknown arm.
    """
    kind, updates, part = ARMS[choice("arm", arm, tuple(ARMS))]
    width = int(net["width"])
    first = [texts.start_tensors(net, seed, LARGE if part == "large table" else texts.SMALL)
             for seed in seeds]  # fmt: skip
    members = first
    if kind is not None:
        own = texts.symbols(data)
        marks = language["marks"] if kind == "text" else [language["default"]]
        given = _json({**language, "marks": marks})
        _, kept = texts.pretrained(own, kind, _json(net), given, tuple(seeds))
        trained = kept[updates or int(language["default"])]
        members = [
            _part(part, {n: t[s] for n, t in trained.items()}, net, seed)
            for s, seed in enumerate(seeds)
        ]
    found = [
        {**{n: t for n, t in member.items() if n != "W"},
         **head_tensors(width, len(STATES), len(VERBS), 1000 * seed + 1)}
        for member, seed in zip(members, seeds, strict=True)
    ]  # fmt: skip
    return {name: torch.stack([m[name] for m in found]) for name in found[0]}


def _part(
    part: str, trained: Mapping[str, Tensor], net: Mapping[str, Any], seed: int
) -> dict[str, Tensor]:
    found, random = dict(trained), torch.Generator().manual_seed(seed)
    fresh = texts.start_tensors(net, seed + _FRESH)
    if part == "permuted":
        order = torch.randperm(texts.SYMBOLS, generator=random)
        found["embedding"] = trained["embedding"][:, order]
    elif part == "trunk":
        found["embedding"] = fresh["embedding"]
    elif part == "embeddings":
        found = {**fresh, "embedding": trained["embedding"]}
    elif part == "shuffled":
        for name, tensor in trained.items():
            order = torch.randperm(tensor.numel(), generator=random)
            found[name] = tensor.flatten()[order].view(tensor.shape)
    return found


def _network(
    data: TextData, arm: str, seeds: Sequence[int], net: Mapping[str, Any],
    language: Mapping[str, Any], hidden: int,
) -> Stack:  # fmt: skip
    if ARMS[choice("arm", arm, tuple(ARMS))][2] == "MLP":
        sizes = TOKENS * (NAMES + len(STATES)), hidden, len(VERBS) + ENTITIES
        members = [mlp_tensors(*sizes, seed=1000 * seed + 1) for seed in seeds]
        one = partial(mlp_policy, (NAMES, len(STATES)))
        return Stack({name: torch.stack([m[name] for m in members]) for name in members[0]}, one)
    return Stack(
        start_of(data, arm, seeds, net, language), partial(policy, texts.shell(net), ENTITIES)
    )


def cloned(
    now: Stack, examples: Sequence[tuple[Tensor, Tensor]], given: Mapping[str, Any], *, place: int,
    steps: int, frozen: Sequence[str] = (), record: Mapping[str, Callable[[Stack], Tensor]],
    at: Sequence[int], seeds: Sequence[int],
) -> tuple[Stack, dict[str, Tensor]]:  # fmt: skip
    """Behaviour cloning of each member on its own examples (x (N, 18, 4), actions (N, 2)), which
    may be none; place : number of this cloning among those of a seed."""
    size = int(given["batch"])
    every = torch.cat([x for x, _ in examples])
    length = shortened(every).shape[1] if len(every) else TOKENS
    streams = [torch.Generator().manual_seed(100_003 * seed + place) for seed in seeds]

    def batch(step: int) -> tuple[Tensor, Tensor]:
        xs, ys = [], []
        for (x, y), random in zip(examples, streams, strict=True):
            if len(x) == 0:
                xs.append(torch.zeros(size, length, 4, dtype=torch.long))
                ys.append(torch.zeros(size, 3, dtype=torch.long))
                continue
            rows = torch.randint(len(x), (size,), generator=random)
            xs.append(x[rows, :length])
            ys.append(torch.cat([y[rows], torch.ones(size, 1, dtype=torch.long)], 1))
        return torch.stack(xs), torch.stack(ys)

    with sdpa_kernel(SDPBackend.MATH):
        return train_stack(
            now, batch, cloning_loss, steps=steps, lr=given["rate"], optimizer="adam",
            lr_schedule=texts.warm, frozen=frozen, record=dict(record), at=at, own="xy",
        )  # fmt: skip


def episodes_of(seeds: Sequence[int], given: Mapping[str, Any]) -> dict[str, list[Episodes]]:
    """Test episodes of each seed by name of `TESTS`."""
    found: dict[str, list[Episodes]] = {name: [] for name in TESTS}
    for seed in seeds:
        out = held_out_pairs(given["each"], seed)
        for k, (name, pairs, own) in enumerate(
            (("in distribution", ~out, (1, 2)), ("novel pairs", out, (1, 2)),
             ("three pairs", ~out, (3,)))
        ):  # fmt: skip
            found[name].append(draw_episodes(given["n_test"], pairs, own, 1000 * seed + 2 + k))
    return found


def _accuracy(now: Stack, episodes: Sequence[Episodes], order: str, seeds: Sequence[int]) -> Tensor:
    """(S, 2) share of the expert's verbs and entities that are the likeliest."""
    found = []
    for s, (e, seed) in enumerate(zip(episodes, seeds, strict=True)):
        x, y = expert_steps(e, order, seed)
        with torch.no_grad():
            own = actions(now.one(now.member(s), shortened(x)))
        found.append((own == y).double().mean(0))
    return torch.stack(found)


def policy_runs(
    data: TextData, *, group: Sequence[Mapping[str, Any]], arm: str, net: Mapping[str, Any],
    language: Mapping[str, Any], cloning: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: policies of one arm, cloned from demonstrations.

    arm : of `ARMS`. net, language : as in `language_runs`. cloning : n_demos, each (held-out
    receptacles an object), steps, batch, rate, hidden (of the MLP), checkpoints and n_test.

    Returns with a first axis of members: curve (checkpoints,), success on novel pairs; end (3,),
    success on each of `TESTS` after all steps; accuracy (2, 2), of verb and entity, in distribution
    and on novel pairs; loss, mean cloning loss of the last 50 steps; matching (blocks,) after
    cloning, NaN for the MLP; attention (8, 10) from entities to words of goal and history in the
    first block, mean over heads, for the first novel episode with two pairs, and shown (18,), its
    names, -1 for none. Raises ValueError for an unknown arm.
    """
    seeds, order = [int(member["seed"]) for member in group], ORDER.get(arm, "sequence")
    now = _network(data, arm, seeds, net, language, int(cloning["hidden"]))
    demos = []
    for seed in seeds:
        pairs = ~held_out_pairs(cloning["each"], seed)
        own = draw_episodes(cloning["n_demos"], pairs, (1, 2), 1000 * seed + 9)
        demos.append(expert_steps(own, order, seed))
    tests = episodes_of(seeds, cloning)
    frozen = [n for n in now.tensors if n not in HEADS] if arm == "frozen" else []
    end, found = cloned(
        now, demos, cloning, place=0, steps=int(cloning["steps"]), frozen=frozen, seeds=seeds,
        record={"curve": lambda s: success(s, tests["novel pairs"], order, seeds)},
        at=cloning["checkpoints"],
    )  # fmt: skip
    measured: dict[str, Tensor] = {
        "curve": found["curve"].t(), "loss": found["loss"][-50:].mean(0),
        "end": torch.stack([success(end, tests[name], order, seeds) for name in TESTS], 1),
        "accuracy": torch.stack(
            [_accuracy(end, tests[name], order, seeds) for name in TESTS[:2]], 1
        ),
    }  # fmt: skip
    plain = ARMS[arm][2] == "MLP"
    blocks = range(int(net["blocks"]))
    measured["matching"] = torch.tensor([
        [torch.nan if plain else texts.matching(end.member(s), b) for b in blocks]
        for s in range(len(seeds))
    ])  # fmt: skip
    looks = [_look(end.member(s), net, e, plain) for s, e in enumerate(tests["novel pairs"])]
    measured["attention"] = torch.stack([a for a, _ in looks])
    measured["shown"] = torch.stack([names for _, names in looks])
    return {name: value.numpy() for name, value in measured.items()}


def _look(
    tensors: Mapping[str, Tensor], net: Mapping[str, Any], episodes: Episodes, plain: bool
) -> tuple[Tensor, Tensor]:
    """Attention from entities to words, (8, 10), and names (18,) of an episode with two pairs."""
    two = (episodes.goal[:, 1, 0] >= 0).long().argmax()
    x = inputs(episodes)[two : two + 1]
    place = x[0, :, 1].argsort()
    names = torch.where(x[0, :, 3] == -2, -1, x[0, :, 0])[place]
    if plain:
        return torch.full((ENTITIES, WORDS), torch.nan), names
    with torch.no_grad():
        own = attention(texts.shell(net), tensors, x)[0, 0].mean(0)
    return own[place][:, place][WORDS:, :WORDS], names
