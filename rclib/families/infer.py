"""A table made up from names and shapes, for models that no table describes.

Blocks of transformers are alike: most matrices read the residual stream or write into it, so its
size is the one that most of their axes have. A matrix with that size on one side alone shows which
side is the stream; of square ones the name tells (query, key, value, output). Inside a block an
index is shared where role and size agree: what the values write is what the output matrix reads,
what goes up into the MLP comes down. Biases tell the storage: one as long as the second axis, and
not as the first, stands beside a matrix stored (inputs, outputs).

What is not clear stays without a row. The result is a guess: it says so, and it can be written to a
file and edited (`table_text`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rclib.families.matching import Shaped, is_floating, numbered, proposal
from rclib.families.table import Family
from rclib.rowcolumn.fan_in import is_lookup

__all__ = ["infer", "start_text", "table_text"]

NAME = "inferred"
SETS = {
    "stream": ("stream",),
    "MLP hidden": ("mlp",),
    "query-key channels": ("qk",),
    "value-output channels": ("vo",),
    "query channels": ("query",),
    "key channels": ("key",),
    "value channels": ("value",),
    "channels into the output matrix": ("mixed",),
    "vocabulary": ("vocab",),
    "positions": ("position",),
}
ROLES = {
    "qkv": r"qkv|query_key_value|c_attn|in_proj|kqv|wqkv|mixed_attention",
    "q": r"(^|_)(q|query|queries|wq|toq)(_|$)|to_q|q_lin",
    "k": r"(^|_)(k|key|keys|wk)(_|$)|to_k|k_lin",
    "v": r"(^|_)(v|value|values|wv)(_|$)|to_v|v_lin",
    "o": r"(^|_)(o|wo)(_|$)|o_proj|out_proj|to_out|out_lin|c_proj|output|dense|(^|_)proj|(^|_)out",
}
ATTENTION = re.compile(r"att|attn|mha|mixer", re.IGNORECASE)


@dataclass(frozen=True)
class _Row:
    """One name with its numbers taken out. stem : without `.weight` or `.bias`."""

    pattern: str
    shape: tuple[int, ...]
    count: int

    @property
    def block(self) -> bool:
        return "{b}" in self.pattern

    @property
    def stem(self) -> str:
        head, _, last = self.pattern.rpartition(".")
        return head if last in ("weight", "bias") else self.pattern

    @property
    def suffix(self) -> str:
        """The numbers, as an index carries them."""
        return "".join(f".{{{letter}}}" for letter in re.findall(r"\{(\w)\}", self.pattern))


def infer(tensors: Mapping[str, Shaped]) -> Family | None:
    """A table for the blocks of these tensors, None where no residual stream is to be seen.

    The stream must be an axis of half of the blocks' matrices at least, and of three of them.
    """
    rows = _rows(tensors)
    stream = _stream(rows)
    if stream is None:
        return None
    found = _Inference(rows, stream).rows()
    if sum("<-" in axes or "->" in axes for axes in found.values()) < 3:
        return None
    used = {
        i.partition(".")[0] for axes in found.values() for i in re.findall(r"[A-Za-z]\S*", axes)
    }
    sets = {name: members for name, members in SETS.items() if members[0] in used}
    ordered = {"vocab": "tokens keep their ids", "position": "its order is place"}
    for index in ("qk", "vo", "query", "key", "value", "mixed", "fused"):
        ordered[index] = "heads are not told apart by shapes"
    return Family(
        name=NAME,
        tensors=found,
        sets=sets,
        ordered={index: why for index, why in ordered.items() if index in used},
    )


def _rows(tensors: Mapping[str, Shaped]) -> list[_Row]:
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for name, info in tensors.items():
        if is_floating(info):
            shapes.setdefault(numbered(name), []).append(tuple(info.shape))
    return [
        _Row(pattern, group[0], len(group))
        for pattern, group in shapes.items()
        # Sizes may change from block to block, the number of axes may not.
        if len({len(shape) for shape in group}) == 1 and re.fullmatch(r"[\w.{}-]+", pattern)
    ]


def _stream(rows: Iterable[_Row]) -> int | None:
    matrices = [row for row in rows if row.block and len(row.shape) == 2 and min(row.shape) > 1]
    votes: Counter[int] = Counter()
    for row in matrices:
        votes.update(dict.fromkeys(row.shape, row.count))
    # A gain has the stream's size: it decides between sizes that come up equally often.
    gains = Counter(row.shape[0] for row in rows if row.block and len(row.shape) == 1)
    if not votes:
        return None
    size, count = max(votes.items(), key=lambda e: (e[1], gains[e[0]], -e[0]))
    total = sum(row.count for row in matrices)
    return size if 2 * count >= total and sum(size in r.shape for r in matrices) >= 3 else None


class _Inference:
    def __init__(self, rows: list[_Row], stream: int) -> None:
        self.all = rows
        self.stream = stream
        self.biases = {
            row.stem: row.shape[0]
            for row in rows
            if len(row.shape) == 1 and row.pattern.endswith(".bias")
        }
        self.inputs_first = self._storage()
        self.sizes = self._attention_sizes()

    def _storage(self) -> bool:
        """Whether the blocks' matrices are stored (inputs, outputs): what most biases say."""
        votes = 0
        for row in self.all:
            bias = self.biases.get(row.stem)
            if len(row.shape) == 2 and bias is not None and row.shape[0] != row.shape[1]:
                votes += (bias == row.shape[1]) - (bias == row.shape[0])
        return votes > 0

    def _ends(self, row: _Row) -> tuple[int, int]:
        """(outputs, inputs) of a matrix."""
        first = self.inputs_first
        bias = self.biases.get(row.stem)
        if bias is not None and row.shape[0] != row.shape[1] and bias in row.shape:
            first = bias == row.shape[1]
        return (row.shape[1], row.shape[0]) if first else (row.shape[0], row.shape[1])

    def _attention_sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for row in self.all:
            role = _role(row)
            if row.block and len(row.shape) == 2 and role in ("q", "k", "v", "o"):
                outputs, inputs = self._ends(row)
                sizes.setdefault(role, inputs if role == "o" else outputs)
        return sizes

    def rows(self) -> dict[str, str]:
        """{pattern: axes} of everything that is clear."""
        found: dict[str, str] = {}
        outputs: dict[str, str] = {}
        for row in self.all:
            if len(row.shape) < 2:
                continue
            axes = self._matrix(row) if row.block else self._outside(row)
            if axes is not None:
                found[row.pattern] = axes
                for arrow, side in (("<-", 0), ("->", 1)):
                    if f" {arrow} " in axes:
                        outputs[row.stem] = axes.split(f" {arrow} ")[side]
        for row in self.all:
            if len(row.shape) != 1:
                continue
            if row.pattern.endswith(".bias") and row.stem in outputs:
                found[row.pattern] = outputs[row.stem]
            elif row.shape[0] == self.stream:
                found[row.pattern] = "stream"
        return {row.pattern: found[row.pattern] for row in self.all if row.pattern in found}

    def _matrix(self, row: _Row) -> str | None:
        if len(row.shape) != 2 or self.stream not in row.shape or min(row.shape) < 2:
            return None
        if is_lookup(row.pattern):
            return None
        outputs, inputs = self._ends(row)
        role = _role(row)
        if outputs == inputs:
            if role in ("q", "k", "v"):
                return self._arrow(row, self._index(role), "stream")
            return self._arrow(row, "stream", self._index("o")) if role == "o" else None
        if inputs == self.stream:
            return self._arrow(row, self._index(role, outputs), "stream")
        return self._arrow(row, "stream", self._index("o" if role == "o" else "", inputs))

    def _arrow(self, row: _Row, outputs: str, inputs: str) -> str:
        left, right = (i if i == "stream" else i + row.suffix for i in (outputs, inputs))
        stored_outputs = self._ends(row) == row.shape
        if row.shape[0] == row.shape[1]:
            stored_outputs = not self.inputs_first
        return f"{left} <- {right}" if stored_outputs else f"{right} -> {left}"

    def _index(self, role: str, size: int | None = None) -> str:
        """The index that a matrix of a role shares with others of its block."""
        sizes = self.sizes
        if role in ("q", "k"):
            same = sizes.get("q") == sizes.get("k")
            return "qk" if same else {"q": "query", "k": "key"}[role]
        if role == "v":
            return "vo" if sizes.get("v") == sizes.get("o") else "value"
        if role == "o" and (size is None or size == sizes.get("o")):
            shared = "v" in sizes and sizes["v"] == sizes.get("o")
            return "vo" if shared or "v" not in sizes else "mixed"
        if role == "qkv":
            return "fused"
        return "mlp" if size is None or size == self._hidden() else f"wide_{size}"

    def _hidden(self) -> int | None:
        """The size that most often stands on the other side of the stream, attention aside."""
        votes: Counter[int] = Counter()
        for row in self.all:
            if row.block and len(row.shape) == 2 and row.shape[0] != row.shape[1]:
                role = _role(row)
                if self.stream in row.shape and role not in ("q", "k", "v", "o", "qkv"):
                    votes[sum(row.shape) - self.stream] += row.count
        return votes.most_common(1)[0][0] if votes else None

    def _outside(self, row: _Row) -> str | None:
        shape = row.shape
        if len(shape) == 4 and shape[0] == self.stream:
            return "stream <- colour ky kx"
        if len(shape) == 3 and shape[0] == 1 and shape[2] == self.stream:
            return "one position stream" if shape[1] > 1 else "one one stream"
        if len(shape) != 2 or self.stream not in shape or shape[0] == shape[1]:
            return None
        if shape[0] == self.stream:
            return None  # into the stream, from something of its own
        if is_lookup(row.pattern):
            place = re.search(r"pos|wpe|type|segment", row.pattern)
            return (
                "position stream"
                if place and shape[0] == self._places()
                else (None if place else "vocab stream")
            )
        return "vocab <- stream" if shape[0] in self._vocabularies() else None

    def _vocabularies(self) -> set[int]:
        return {
            row.shape[0]
            for row in self.all
            if len(row.shape) == 2
            and is_lookup(row.pattern)
            and not re.search(r"pos|wpe|type|segment", row.pattern)
        }

    def _places(self) -> int:
        return max(
            (
                row.shape[-2]
                for row in self.all
                if len(row.shape) > 1 and re.search(r"pos|wpe", row.pattern)
            ),
            default=0,
        )


def _role(row: _Row) -> str:
    """q, k, v, o, qkv, or nothing; the last words of the name tell."""
    parts = row.stem.lower().split(".")
    last = next((p for p in reversed(parts) if not p.startswith("{")), "")
    for role in ("qkv", "q", "k", "v"):
        if re.search(ROLES[role], last):
            return role
    if re.search(ROLES["o"], last) and (
        ATTENTION.search(row.stem) or re.search(r"(^|_)(o|wo)(_|$)|o_proj", last)
    ):
        return "o"
    return ""


def start_text(tensors: Mapping[str, Shaped]) -> str:
    """A file to edit where no table fits and none can be inferred: a row for every tensor with
    indices of its own, so that it is accepted as it stands and compares nothing yet."""
    import yaml

    head = {
        "family": "own",
        "tensors": {
            row.pattern: proposal(row.pattern, row.shape, f"_{k}")
            for k, row in enumerate(_rows(tensors))
            if row.shape
        },
    }
    return (
        "# A start: every tensor has indices of its own. Where axes run over the same neurons,\n"
        "# give them one name (such as stream), and pass the file as --axes.\n"
        + yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    )


def table_text(family: Family, tensors: Mapping[str, Shaped], *, inferred: bool) -> str:
    """A table as a file to edit; tensors without a row stand in it as remarks."""
    import yaml

    rows = _rows(tensors)
    lines = [
        "# Made from names and shapes by rclib: a guess. Check every row, then --axes THIS_FILE."
        if inferred
        else f"# The table {family.name!r} of rclib, to be changed and passed as --axes THIS_FILE."
    ]
    head = {
        "family": family.name,
        **({"prefixes": list(family.prefixes)} if family.prefixes else {}),
        **({"sizes": {k: list(v) for k, v in family.sizes.items()}} if family.sizes else {}),
        **({"rename": dict(family.rename)} if family.rename else {}),
        **({"ignore": list(family.ignore)} if family.ignore else {}),
        **({"ordered": dict(family.ordered)} if family.ordered else {}),
        "sets": {name: " ".join(members) for name, members in family.sets.items()},
        "tensors": dict(family.tensors),
    }
    lines.append(yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000).rstrip())
    missing = [
        row
        for row in rows
        if family.find(re.sub(r"\{\w\}", "0", row.pattern)) is None and row.shape
    ]
    if missing:
        lines.append("# Without a row: left out. Rows that they could have, two blanks in front:")
        lines += [
            f"#  {row.pattern}: {proposal(row.pattern, row.shape, f'_{k}')}"
            f"    # {'x'.join(map(str, row.shape))}"
            for k, row in enumerate(missing)
        ]
    return "\n".join(lines) + "\n"
