"""rclib.rowcolumn.fan_in: what a tensor sums over, and functions that growth must keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rclib.rowcolumn.fan_in import input_axes, is_lookup
from rclib.rowcolumn.transfer import transfer

Axes = dict[str, tuple[str, ...]]


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def grown(weights: dict[str, Tensor], axes: Axes, **target: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return transfer(weights, axes, target, replacement=False, generator=generator)


IMAGES, SIGNAL, TOKENS = randn(4, 3, 12, 12), randn(4, 3, 20), torch.arange(10).view(2, 5)


def two_convolutions(w: dict[str, Tensor]) -> Tensor:
    return F.conv2d(F.relu(F.conv2d(IMAGES, w["c1"], w["b1"])), w["c2"])


def convolutions_of_signals(w: dict[str, Tensor]) -> Tensor:
    return F.conv1d(F.relu(F.conv1d(SIGNAL, w["c1"], w["b1"])), w["c2"])


def convolution_and_classes(w: dict[str, Tensor]) -> Tensor:
    return F.relu(F.conv2d(IMAGES, w["c1"], w["b1"])).mean((2, 3)) @ w["fc"].T


def words(w: dict[str, Tensor]) -> Tensor:
    return F.relu(w["wte.weight"][TOKENS] + w["wpe.weight"][:5]) @ w["head.weight"].T


KEPT: dict[str, tuple[Callable[[dict[str, Tensor]], Tensor], dict[str, Tensor], Axes]] = {
    "kernel places of their own": (
        two_convolutions,
        {"c1": randn(8, 3, 3, 3), "b1": randn(8), "c2": randn(10, 8, 3, 3)},
        {"c1": ("n", "colour", "y1", "x1"), "b1": ("n",), "c2": ("out", "n", "y2", "x2")},
    ),
    "kernel places under one name": (
        two_convolutions,
        {"c1": randn(8, 3, 3, 3), "b1": randn(8), "c2": randn(10, 8, 3, 3)},
        {"c1": ("n", "colour", "y", "x"), "b1": ("n",), "c2": ("out", "n", "y", "x")},
    ),
    "three axes": (
        convolutions_of_signals,
        {"c1": randn(8, 3, 5), "b1": randn(8), "c2": randn(7, 8, 3)},
        {"c1": ("n", "in", "t1"), "b1": ("n",), "c2": ("out", "n", "t2")},
    ),
    "convolution and linear": (
        convolution_and_classes,
        {"c1": randn(8, 3, 3, 3), "b1": randn(8), "fc": randn(5, 8)},
        {"c1": ("n", "in", "y", "x"), "b1": ("n",), "fc": ("class", "n")},
    ),
    "look-up tables": (
        words,
        {"wte.weight": randn(10, 8), "wpe.weight": randn(5, 8), "head.weight": randn(10, 8)},
        {
            "wte.weight": ("token", "n"), "wpe.weight": ("place", "n"),
            "head.weight": ("token", "n"),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("multiple", [2, 3])
@pytest.mark.parametrize("case", KEPT)
def test_growing_by_a_whole_multiple_keeps_the_function(case: str, multiple: int) -> None:
    function, weights, axes = KEPT[case]
    wide = grown(weights, axes, n=8 * multiple)
    torch.testing.assert_close(function(wide), function(weights), rtol=1e-12, atol=1e-12)


def test_matrices_stored_the_other_way_round_by_word() -> None:
    x = randn(6, 4)
    weights, axes = {"u": randn(4, 8), "v": randn(8, 3)}, {"u": ("x", "h"), "v": ("h", "y")}
    wide = transfer(
        weights, axes, {"h": 16}, inputs={"u": (0,), "v": (0,)}, replacement=False,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    torch.testing.assert_close(
        F.relu(x @ wide["u"]) @ wide["v"], F.relu(x @ weights["u"]) @ weights["v"]
    )


def test_what_cannot_be_told_is_refused() -> None:
    weights = {"Wq": randn(2, 4, 6), "Wo": randn(6, 4, 2), "gain": randn(6)}
    axes: Axes = {
        "Wq": ("head", "entry", "n"), "Wo": ("n", "entry", "head"), "gain": ("n",),
    }  # fmt: skip
    assert grown(weights, axes, n=12)["Wq"].shape == (2, 4, 12)
    with pytest.raises(ValueError, match=r"tensor 'Wq' with axes .*'entry', axis 1; say so"):
        grown(weights, axes, entry=8)
    with pytest.raises(ValueError, match=r"inputs of 'Wo' must be positions 0 ... 2, got \(3,\)"):
        input_axes(axes, {"n": 6}, {"n": 12}, {"Wo": (3,)})
    with pytest.raises(ValueError, match="no tensor 'W' in the axes table"):
        input_axes(axes, {"n": 6}, {"n": 12}, {"W": (0,)})


def test_a_bias_by_head_says_which_axes_are_outputs() -> None:
    axes: Axes = {"Wq": ("head", "entry", "n"), "Bq": ("head", "entry")}
    found = input_axes(axes, {"head": 2, "entry": 4, "n": 6}, {"head": 4, "entry": 8, "n": 12})
    assert found["Wq"] == (2,)


@pytest.mark.parametrize(
    "name",
    [
        "transformer.wte.weight", "wpe.weight", "embeddings.word_embeddings.weight", "W_pos",
        "model.embed_tokens.weight", "embed_in.weight", "tok_embeddings.weight", "pos_embed",
        "shared.weight", "layer.0.SelfAttention.relative_attention_bias.weight",
        "embeddings.0.weight",
    ],
)  # fmt: skip
def test_names_of_tables(name: str) -> None:
    assert is_lookup(name)


@pytest.mark.parametrize(
    "name",
    [
        "patch_embed.proj.weight", "embed_out.weight", "time_embedding.linear_1.weight", "W1",
        "embeddings_project.weight", "lm_head.weight", "embeddings.LayerNorm.weight",
        "time_embed.0.weight", "unembed.weight", "layers.0.weight",
    ],
)  # fmt: skip
def test_names_of_other_tensors(name: str) -> None:
    assert not is_lookup(name)
