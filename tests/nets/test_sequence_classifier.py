"""nets.sequence_classifier against torch's own layers, and its symmetries."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rclib.nets import sequence_classifier as nets
from rclib.nets.stack import Stack


def shape(kind: str, **more: int) -> nets.Shape:
    given: dict[str, Any] = {"features": 2, "outputs": 1, "classes": 3, "length": 6}
    given |= {"width": 8, "heads": 2, **more}
    return nets.Shape(kind, **given)


def member(of: nets.Shape, seed: int = 0) -> dict[str, Tensor]:
    return {name: tensor[0].double() for name, tensor in nets.start(of, [seed]).items()}


def inputs(n: int = 4, length: int = 6) -> Tensor:
    return torch.randn(n, length, 2, generator=torch.Generator().manual_seed(5)).double()


def test_a_transformer_is_torchs() -> None:
    of = shape("transformer", blocks=1)
    own, x = member(of), inputs()
    peer = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    zeros = torch.zeros(8, dtype=torch.float64)
    peer.load_state_dict({
        "self_attn.in_proj_weight": torch.cat([own["0.q"], own["0.k"], own["0.v"]]),
        "self_attn.in_proj_bias": torch.zeros(24, dtype=torch.float64),
        "self_attn.out_proj.weight": own["0.mix"], "self_attn.out_proj.bias": zeros,
        "linear1.weight": own["0.in"], "linear1.bias": own["0.in.b"],
        "linear2.weight": own["0.out"], "linear2.bias": zeros,
        "norm1.weight": own["0.norm.g"], "norm1.bias": own["0.norm.b"],
        "norm2.weight": own["0.norm2.g"], "norm2.bias": own["0.norm2.b"],
    })  # fmt: skip
    h = F.linear(x, own["embed.W"], own["embed.b"]) + own["P"]
    wanted = F.layer_norm(peer(h), (8,))
    torch.testing.assert_close(nets.encode(of, own, x), wanted)
    logits = F.linear(wanted.mean(1), own["class.W"], own["class.b"])
    torch.testing.assert_close(nets.classify(of, own, x), logits)
    assert nets.denoise(of, own, x).shape == (4, 6, 1)


def test_permuting_positions_with_their_table_changes_no_answer_of_a_transformer() -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    of, x = shape("transformer"), inputs()
    own = member(of)
    moved = {**own, "P": own["P"][order]}
    torch.testing.assert_close(nets.classify(of, moved, x[:, order]), nets.classify(of, own, x))
    assert not torch.allclose(nets.classify(of, own, x[:, order]), nets.classify(of, own, x))
    of = shape("ssm")
    own = member(of)
    assert not torch.allclose(nets.classify(of, own, x[:, order]), nets.classify(of, own, x))


@pytest.mark.parametrize("kind", nets.KINDS)
def test_a_stack_has_the_numbers_of_its_members(kind: str) -> None:
    of = shape(kind)
    tensors = nets.start(of, [4, 7])
    x = inputs().float()
    together = Stack(tensors, partial(nets.classify, of))(x, own=False)
    for s, seed in enumerate((4, 7)):
        alone = {name: tensor[0] for name, tensor in nets.start(of, [seed]).items()}
        torch.testing.assert_close(together[s], nets.classify(of, alone, x))
    assert set(tensors) >= {*nets.HEADS["denoise"], *nets.HEADS["classify"]}


def test_scores_and_attention_of_positions() -> None:
    of = shape("transformer")
    own = member(of)
    half = slice(0, 4)  # the first of two heads
    M = own["0.q"][half].T @ own["0.k"][half]
    torch.testing.assert_close(nets.position_scores(of, own)[0], own["P"] @ M @ own["P"].T)
    u = F.layer_norm(own["P"], (8,))
    wanted = torch.softmax(u @ M @ u.T / 2, -1)
    torch.testing.assert_close(nets.position_attention(of, own)[0], wanted)
    with pytest.raises(KeyError):
        nets.position_scores(shape("ssm"), member(shape("ssm")))


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="heads must divide the width 8, got 3"):
        shape("transformer", heads=3)
    with pytest.raises(ValueError, match="kind must be one of"):
        shape("other")
    with pytest.raises(ValueError, match="blocks"):
        shape("ssm", blocks=0)
