"""The last two blocks of a sentence encoder (BERT) under methods of fine-tuning, and a task for it.

The encoder is MiniLM-L6 (`rclib.data.packaged_models`, if it is installed) or a drawn one, for
tests. Its lower blocks stay as they are, so that what they give is computed once for all sentences.

The task is to tell what the subject is, a living being or a thing: "the dogs near the tables are
old ." and "the tables near the dogs are old .". The first noun decides, the second one is drawn
from either and tells nothing. Sentences are made from short lists of words, each a token of its
own, so that all are equally long.

Blocks: Devlin et al. 2019 (arXiv 1810.04805), after "Attention is all you need" (1706.03762).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from rclib.adapters.wrap import Product
from rclib.checkpoints.opening import open_checkpoint
from rclib.data.packaged_models import packaged_path

__all__ = [
    "DRAWN",
    "MINILM",
    "Encoder",
    "block",
    "checksum",
    "drawn_weights",
    "encoder",
    "hidden",
    "lower",
    "plain_tail",
    "sentences",
    "tail",
    "tail_matrices",
]

MINILM, DRAWN = "minilm", "drawn"
LAST = 2  # blocks that are adapted
EPS = 1e-12
LIVING = (
    "dog", "cat", "boy", "girl", "friend", "teacher", "student", "author", "poet", "king",
    "queen", "actor", "farmer", "soldier", "doctor", "driver", "player", "writer", "artist",
    "singer", "judge", "lawyer", "member", "leader", "horse", "bird",
)  # fmt: skip
THINGS = (
    "key", "house", "car", "tree", "book", "picture", "letter", "door", "window", "table",
    "chair", "cup", "ship", "boat", "train", "wall", "road", "river", "mountain", "tower",
    "bridge", "garden", "field",
)  # fmt: skip
BETWEEN = ("near", "behind", "beside", "above", "with", "under")
VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
ENDS = {
    "be": ("old", "new", "big", "small", "large", "dark", "strange", "famous", "beautiful"),
    "have": ("gone", "changed", "moved", "fallen", "returned", "survived", "lost"),
}
# Adapted; rows of value and columns of output belong to the same units.
MATRICES = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Encoder:
    """weights : name -> tensor, as transformers names them in a BertModel. vocabulary : word ->
    token. blocks, heads : how many."""

    weights: dict[str, Tensor]
    vocabulary: dict[str, int]
    blocks: int
    heads: int


def _linear(weights: Mapping[str, Tensor], name: str, x: Tensor, product: Product) -> Tensor:
    flat = product(f"{name}.weight", x.reshape(-1, x.shape[-1]))
    return flat.reshape(*x.shape[:-1], flat.shape[-1]) + weights[f"{name}.bias"]


def block(
    weights: Mapping[str, Tensor], prefix: str, x: Tensor, heads: int, product: Product
) -> Tensor:
    """One block of BERT: x (n, t, N) -> (n, t, N), no padding; product(name, h) is h Wᵀ."""
    n, t, width = x.shape

    def split(name: str) -> Tensor:
        y = _linear(weights, f"{prefix}.attention.self.{name}", x, product)
        return y.reshape(n, t, heads, width // heads).transpose(1, 2)

    query, key, value = (split(name) for name in ("query", "key", "value"))
    scores = torch.softmax(query @ key.mT / (width // heads) ** 0.5, -1)
    mixed = (scores @ value).transpose(1, 2).reshape(n, t, width)
    x = x + _linear(weights, f"{prefix}.attention.output.dense", mixed, product)
    x = _normed(weights, f"{prefix}.attention.output.LayerNorm", x)
    inner = gelu(_linear(weights, f"{prefix}.intermediate.dense", x, product))
    out = x + _linear(weights, f"{prefix}.output.dense", inner, product)
    return _normed(weights, f"{prefix}.output.LayerNorm", out)


def _normed(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return layer_norm(
        x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPS
    )  # fmt: skip


def lower(found: Encoder, tokens: Tensor) -> Tensor:
    """tokens (n, t) -> what the last two blocks get, (n, t, N)."""
    own = found.weights
    x = own["embeddings.word_embeddings.weight"][tokens]
    x = x + own["embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = _normed(own, "embeddings.LayerNorm", x + own["embeddings.token_type_embeddings.weight"][0])
    for k in range(found.blocks - LAST):
        x = block(own, f"encoder.layer.{k}", x, found.heads, lambda name, h: h @ own[name].T)
    return x


def tail_matrices(blocks: int) -> list[str]:
    """Names of the attention's matrices in the last two blocks."""
    return [f"encoder.layer.{k}.{m}.weight" for k in range(blocks - LAST, blocks) for m in MATRICES]


def tail(
    tensors: Mapping[str, Tensor], x: Tensor, product: Product, *, blocks: int, heads: int
) -> Tensor:
    """x (n, t, N) through the last two blocks, the mean over tokens, and a head, (n, 2).

    "head_scale" as in `rclib.experiments.finetuning.bases.relu_chain`."""
    for k in range(blocks - LAST, blocks):
        x = block(tensors, f"encoder.layer.{k}", x, heads, product)
    out = product("head.weight", x.mean(1)) + tensors["head.bias"]
    return out * tensors["head_scale"] if "head_scale" in tensors else out


def _words() -> list[str]:
    """Every word of the task."""
    verbs = [verb for pair in VERBS for verb in pair]
    nouns = [form for noun in LIVING + THINGS for form in (noun, f"{noun}s")]
    ends = [word for words in ENDS.values() for word in words]
    return ["[CLS]", "[SEP]", "the", ".", *nouns, *BETWEEN, *verbs, *ends]


def drawn_weights(
    width: int, inner: int, blocks: int, words: int, *, seed: int
) -> dict[str, Tensor]:  # fmt: skip
    """A small encoder with normal entries, gains of one and shifts of zero."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "attention.self.query": (width, width), "attention.self.key": (width, width),
        "attention.self.value": (width, width), "attention.output.dense": (width, width),
        "intermediate.dense": (inner, width), "output.dense": (width, inner),
    }  # fmt: skip
    found: dict[str, Tensor] = {}
    for name, count in (("word", words), ("position", 16), ("token_type", 2)):
        drawn = torch.randn(count, width, generator=generator)
        found[f"embeddings.{name}_embeddings.weight"] = drawn
    norms = ["embeddings.LayerNorm"]
    for k in range(blocks):
        prefix = f"encoder.layer.{k}"
        for name, (o, i) in shapes.items():
            drawn = torch.randn(o, i, generator=generator) / i**0.5
            found |= {f"{prefix}.{name}.weight": drawn, f"{prefix}.{name}.bias": torch.zeros(o)}
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    for name in norms:
        found |= {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
    return found


@lru_cache(maxsize=2)
def encoder(name: str) -> Encoder:
    """`MINILM`, or `DRAWN`: three blocks of width 16. Raises DataError if it is not installed, and
    ValueError for a word that its vocabulary does not have."""
    if name == DRAWN:
        vocabulary = {word: k for k, word in enumerate(_words())}
        return Encoder(drawn_weights(16, 32, 3, len(vocabulary), seed=0), vocabulary, 3, 2)
    folder = packaged_path(name)
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {word: k for k, word in enumerate(lines)}
    missing = [word for word in _words() if word not in vocabulary]
    if missing:
        raise ValueError(f"vocabulary must have every word of the task, not {missing[0]!r}")
    with open_checkpoint(folder) as found:
        config: Mapping[str, Any] = found.config or {}
        weights = {key: found.tensor(key).float() for key in found.tensors if "_ids" not in key}
    return Encoder(
        weights, vocabulary, int(config["num_hidden_layers"]), int(config["num_attention_heads"])
    )


def checksum(name: str) -> str:
    """sha256 of an encoder's weights: part of a stored run's configuration."""
    if name == DRAWN:
        return ""
    folder: Path = packaged_path(name)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def sentences(count: int, *, seed: int) -> tuple[list[list[str]], Tensor]:
    """So many different sentences, and (count,) whether the subject is alive: 1 or 0."""
    generator = torch.Generator().manual_seed(seed)

    def draw(options: Sequence[Any]) -> Any:
        return options[int(torch.randint(len(options), (1,), generator=generator))]

    found: dict[tuple[str, ...], int] = {}
    while len(found) < count:
        alive, plural = draw((0, 1)), draw((0, 1))
        subject = draw(LIVING if alive else THINGS) + "s" * plural
        other = draw(LIVING if draw((0, 1)) else THINGS) + "s" * draw((0, 1))
        verbs = draw(VERBS)
        end = draw(ENDS["have" if "has" in verbs else "be"])
        words = ("the", subject, draw(BETWEEN), "the", other, verbs[plural], end, ".")
        found.setdefault(("[CLS]", *words, "[SEP]"), alive)
    return [list(words) for words in found], torch.tensor(list(found.values()))


@lru_cache(maxsize=2)
def _hidden(name: str, count: int) -> tuple[Tensor, Tensor]:
    own = encoder(name)
    words, labels = sentences(count, seed=0)
    tokens = torch.tensor([[own.vocabulary[word] for word in line] for line in words])
    with torch.no_grad():
        x = torch.cat([lower(own, part) for part in tokens.split(250)])
    return x, labels


def hidden(name: str, count: int) -> tuple[Tensor, Tensor]:
    """What the last two blocks get for `count` sentences, (count, t, N), and their labels."""
    return _hidden(name, count)


def plain_tail(found: Encoder) -> Any:
    """(tensors, x) -> outputs with plain matrices."""
    return partial(_plain, blocks=found.blocks, heads=found.heads)


def _plain(tensors: Mapping[str, Tensor], x: Tensor, *, blocks: int, heads: int) -> Tensor:
    return tail(tensors, x, lambda name, h: h @ tensors[name].T, blocks=blocks, heads=heads)
