"""A policy made of a language model's blocks: verb and pointer from one sequence of embeddings.

An input is a sequence of T tokens, (T, 4) whole numbers each: name, position, state and entity.
With the token table E and positions P of `rclib.nets.gpt` and a table of states S,

    x_t   = E[:, name] + P[:, position] + S[state]          (no S for state -1)
    h     = norm(block_L(... block_1(x)))                   (the blocks of a `GPT`, causal)
    c     = mean of h over tokens that are no padding,   u = W_a c
    verbs = W_v relu(u),    pointer_j = u · h_(entity j) / √d

so that the entity -2 is padding, -1 a word of goal or history, and 0 ... 7 an entity of the scene,
each of which stands once in the sequence. Padding stands last, where no other token sees it. The
outputs are the verbs' logits and then the entities'.

Source: Li and others, arXiv 2202.01771, section 3 and the released model (verb head, pointer). Its
object encoder also has coordinates, which this world has not; 1/√d is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from rclib.nets.gpt import GPT
from rclib.nets.gpt_block import normalised

__all__ = [
    "FEATURES",
    "HEADS",
    "PADDING",
    "attention",
    "head_tensors",
    "mlp_policy",
    "mlp_tensors",
    "policy",
]

PADDING = -2
FEATURES = ("name", "position", "state", "entity")
HEADS = ("states", "Wa", "Wverb")  # what a language model does not have


def head_tensors(width: int, states: int, verbs: int, seed: int) -> dict[str, Tensor]:
    """Fresh tensors of `HEADS`: states (states, d), Wa (d, d), Wverb (verbs, d)."""
    random = torch.Generator().manual_seed(seed)
    return {
        "states": 0.1 * torch.randn(states, width, generator=random),
        "Wa": torch.randn(width, width, generator=random) / width**0.5,
        "Wverb": torch.randn(verbs, width, generator=random) / width**0.5,
    }


def _start(shell: GPT, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Stream (n, T, d) before the first block."""
    scale = shell.multipliers
    table = (tensors["embedding"] * scale["embedding"]).t()
    places = (tensors["position"] * scale["position"]).t()
    name, position, state = x[..., 0], x[..., 1], x[..., 2]
    there = (state >= 0)[..., None].to(table.dtype)
    known = F.embedding(state.clamp_min(0), tensors["states"]) * there
    return F.embedding(name.clamp_min(0), table) + F.embedding(position, places) + known


def _block(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    start = f"blocks.{number}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def policy(shell: GPT, entities: int, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Logits (n, verbs + entities) of x (n, T, 4); tensors : of the GPT, without its output
    matrix, and of `HEADS`. shell : a GPT of the same shape, whose own values are not used."""
    h = _start(shell, tensors, x)
    for number, block in enumerate(shell.blocks):
        h = functional_call(block, _block(tensors, number), (h,))
    h = normalised(h, shell.norm, tensors["gain"], tensors.get("shift"))
    seen = (x[..., 3] != PADDING)[..., None].to(h.dtype)
    context = (h * seen).sum(1) / seen.sum(1)
    u = context @ tensors["Wa"].t()
    verbs = torch.relu(u) @ tensors["Wverb"].t()
    which = torch.arange(entities, device=x.device)[:, None] == x[..., None, :, 3]
    pointed = which.to(h.dtype) @ h  # (n, entities, d)
    return torch.cat([verbs, (pointed @ u[..., None]).squeeze(-1) / shell.width**0.5], -1)


def attention(shell: GPT, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """(L, n, heads, T, T) attention of each block; rows are the tokens that look."""
    h, found = _start(shell, tensors, x), []
    mask = torch.full((x.shape[1],) * 2, -torch.inf).triu(1)
    for number, block in enumerate(shell.blocks):
        own = _block(tensors, number)
        z = normalised(h, shell.norm, own["gain1"], own.get("shift1"))
        q, k = (torch.einsum("hqd,ntd->nhtq", own[name], z) for name in ("Wq", "Wk"))
        found.append(torch.softmax(q @ k.mT / shell.head_size + mask, -1))
        h = functional_call(block, own, (h,))
    return torch.stack(found)


def mlp_tensors(inputs: int, hidden: int, outputs: int, *, seed: int) -> dict[str, Tensor]:
    """A fresh start of `mlp_policy`: V1 (h, inputs), b1 (h,), V2 (h, h), b2 (h,), V3 (outputs, h).

    The first has variance 1/18, for about as many inputs that are one."""
    random = torch.Generator().manual_seed(seed)
    return {
        "V1": torch.randn(hidden, inputs, generator=random) / 18**0.5,
        "b1": torch.zeros(hidden),
        "V2": torch.randn(hidden, hidden, generator=random) * (2 / hidden) ** 0.5,
        "b2": torch.zeros(hidden),
        "V3": torch.randn(outputs, hidden, generator=random) / hidden**0.5,
    }


def mlp_policy(sizes: Sequence[int], tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Logits (n, outputs) of a network on one fixed vector: names and states of all T tokens as
    one-hots, side by side by their positions; padding has zeros and may be left out.

    sizes : numbers of names and of states.
    """
    names, states = sizes
    places = tensors["V1"].shape[-1] // (names + states)
    place = x[..., 1:2] == torch.arange(places)  # (n, T, places)
    which = (x[..., :1] == torch.arange(names)) & (x[..., 3:] != PADDING)
    parts = torch.cat([which, x[..., 2:3] == torch.arange(states)], -1).to(tensors["V1"].dtype)
    h = (place.to(parts.dtype).mT @ parts).flatten(1)
    for number in (1, 2):
        h = torch.relu(F.linear(h, tensors[f"V{number}"], tensors[f"b{number}"]))
    return h @ tensors["V3"].t()
