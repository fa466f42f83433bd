"""families.axis_notation: lines read by hand, tensors cut by explicit indexing, sizes solved."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rclib.families.axis_notation import (
    Axis,
    NotationError,
    TensorAxes,
    UnknownSizesError,
    cut,
    join,
    parse,
    solve_sizes,
)

FUSED = "stream -> [q: head qk | k: head qk | v: head vo]"
INTERLEAVED = "(head [q: qk | k: qk | v: vo]) <- stream"


def test_lines_by_hand() -> None:
    assert parse("stream") == TensorAxes((Axis(("stream",)),))
    assert parse("vocab stream") == TensorAxes((Axis(("vocab",)), Axis(("stream",))))
    assert parse("mlp.3 <- stream") == TensorAxes(
        (Axis(("mlp.3",)), Axis(("stream",))), inputs=(1,), arrow=True
    )
    assert parse("stream->mlp.{b}").inputs == (0,)
    qkv = (("q", ("head", "qk")), ("k", ("head", "qk")), ("v", ("head", "vo")))
    assert parse(FUSED).axes == (Axis(("stream",)), Axis((), qkv))
    assert parse("(head [a: x | b: y])").axes == (Axis(("head",), (("a", ("x",)), ("b", ("y",)))),)
    assert parse("out height <- (a b) width").inputs == (2, 3)


def test_rows_and_columns_follow_the_arrow_not_the_storage() -> None:
    # y = W x: rows are outputs. The mean of a row is .C, of a column .R (Figure 4.4's caption).
    assert [parse("mlp <- stream").side(p) for p in (0, 1)] == ["C", "R"]
    assert [parse("stream -> mlp").side(p) for p in (0, 1)] == ["R", "C"]
    assert [parse("vocab stream").side(p) for p in (0, 1)] == ["C", "R"]
    assert parse("stream").side(0) == ""


def test_pieces_of_a_fused_matrix_by_slices() -> None:
    # 3 stream neurons; 2 heads of 4 (q, k) and of 5 (v): columns 0-7, 8-15, 16-25.
    sizes = {"stream": 3, "head": 2, "qk": 4, "vo": 5}
    w = torch.arange(3 * 26.0).view(3, 26)
    pieces = cut(w, parse(FUSED), sizes)
    assert list(pieces) == ["q", "k", "v"] == list(parse(FUSED).labels)
    assert torch.equal(pieces["q"], torch.stack([w[:, 0:4], w[:, 4:8]], 1))
    assert torch.equal(pieces["k"], torch.stack([w[:, 8:12], w[:, 12:16]], 1))
    assert torch.equal(pieces["v"], torch.stack([w[:, 16:21], w[:, 21:26]], 1))
    assert pieces["v"].data_ptr() == w[:, 16:].data_ptr()  # a view
    assert parse(FUSED).indices("v") == ("stream", "head", "vo")


def test_pieces_inside_every_head_by_slices() -> None:
    # Two heads of rows q (4), k (4), v (5), one head after the other.
    sizes = {"stream": 3, "head": 2, "qk": 4, "vo": 5}
    w = torch.arange(26 * 3.0).view(26, 3)
    pieces = cut(w, parse(INTERLEAVED), sizes)
    assert torch.equal(pieces["q"], torch.stack([w[0:4], w[13:17]]))
    assert torch.equal(pieces["k"], torch.stack([w[4:8], w[17:21]]))
    assert torch.equal(pieces["v"], torch.stack([w[8:13], w[21:26]]))


LINES = [
    "stream", "(head qk)", "mlp <- stream", "stream -> mlp", "(head qk) <- (mlp vo)", FUSED,
    INTERLEAVED, "[gate: mlp | up: mlp] <- stream", "[q: head qk | k: qk] <- (head vo) stream",
    "stream -> (vo head [a: qk mlp | b: mlp])",
]  # fmt: skip


@given(
    line=st.sampled_from(LINES),
    sizes=st.fixed_dictionaries(
        {i: st.integers(1, 4) for i in ("stream", "head", "qk", "vo", "mlp")}
    ),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_join_undoes_cut(line: str, sizes: dict[str, int]) -> None:
    axes = parse(line)
    shape = [axis.size(sizes) for axis in axes.axes]
    tensor = torch.randn(shape)
    pieces = cut(tensor, axes, sizes)
    assert sum(p.numel() for p in pieces.values()) == tensor.numel()
    for label, piece in pieces.items():
        assert list(piece.shape) == [sizes[i] for i in axes.indices(label)]
    assert torch.equal(join(pieces, axes), tensor)


def test_sizes_are_solved_from_shapes_and_heads() -> None:
    lines = {
        "qkv": FUSED, "out": "(head vo) -> stream", "up": "stream -> mlp", "table": "vocab stream",
    }  # fmt: skip
    axes = {name: parse(line) for name, line in lines.items()}
    shapes = {"qkv": (6, 2 * 2 * 4 + 2 * 5), "out": (10, 6), "up": (6, 9), "table": (30, 6)}
    wanted = {"stream": 6, "head": 2, "qk": 4, "vo": 5, "mlp": 9, "vocab": 30}
    assert solve_sizes(axes, shapes, {"head": 2}) == wanted
    with pytest.raises(UnknownSizesError) as caught:
        solve_sizes(axes, shapes, {})
    assert caught.value.indices == ("head", "qk", "vo")


def test_an_index_squared_is_no_equation_for_it() -> None:
    with pytest.raises(UnknownSizesError, match="sizes of a cannot be told"):
        solve_sizes({"w": parse("(a a)")}, {"w": (9,)}, {})
    assert solve_sizes({"w": parse("(a a)"), "b": parse("a")}, {"w": (9,), "b": (3,)}, {}) == {
        "a": 3
    }


@pytest.mark.parametrize(
    ("lines", "shapes", "known", "message"),
    [
        ({"w": "a <- b"}, {"w": (2, 3, 4)}, {}, r"'w' has shape \(2, 3, 4\), .* has 2 axes"),
        ({"w": "a <- b", "c": "b"}, {"w": (2, 3), "c": (4,)}, {}, r"'c' of shape \(4,\).*b = 3"),
        ({"w": "(h d)"}, {"w": (10,)}, {"h": 3}, r"'w'.* an axis of 10 .*\(h = 3, d = \?\)"),
        ({"w": "[q: h d | v: e]"}, {"w": (4,)}, {"h": 3, "d": 2}, "axis of 4 does not fit"),
    ],
)
def test_shapes_that_contradict_the_axes(
    lines: dict[str, str], shapes: dict[str, tuple[int, ...]], known: dict[str, int], message: str
) -> None:
    with pytest.raises(NotationError, match=message):
        solve_sizes({name: parse(line) for name, line in lines.items()}, shapes, known)


@pytest.mark.parametrize(
    "line",
    [
        "", "  ", "()", "(a", "a)", "a <-", "<- a", "a <- b <- c", "a <- b -> c", "[a | b]",
        "[q: ]", "[q: a | q: b]", "[q: a] <- [k: b]", "(a [q: b] c)", "a, b", "a.b", "1a", "[", "*",
        "[q: a", "[q a]", "-> a",
    ],
)  # fmt: skip
def test_lines_that_cannot_be_read(line: str) -> None:
    with pytest.raises(NotationError, match="axes "):
        parse(line)


def test_other_kinds_than_text() -> None:
    with pytest.raises(NotationError, match="must be text like 'mlp <- stream', got list"):
        parse(["a"])  # type: ignore[arg-type]


def test_cut_refuses_another_shape() -> None:
    with pytest.raises(NotationError, match=r"shape \(3, 2\), its axes say \(2, 3\)"):
        cut(torch.zeros(3, 2), parse("a <- b"), {"a": 2, "b": 3})
