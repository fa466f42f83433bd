"""nets.pointer_policy: against the language model itself, and what must leave the logits alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rclib.data.household import (
    ENTITIES,
    NAMES,
    RECEPTACLES,
    STATES,
    VERBS,
    draw_episodes,
)
from rclib.experiments.language.decision_inputs import cloning_loss, inputs
from rclib.nets import pointer_policy as nets
from rclib.nets.gpt import GPT

WIDTH = 16
ALL = torch.ones(20, RECEPTACLES, dtype=torch.bool)


@pytest.fixture
def shell() -> GPT:
    return GPT(
        WIDTH, blocks=2, context=24, vocabulary=64, head_size=8, parametrization="SP",
        bias="none", seed=3,
    )  # fmt: skip


def tensors(shell: GPT, seed: int = 1) -> dict[str, Tensor]:
    own = {name: p.detach().clone() for name, p in shell.named_parameters() if name != "W"}
    return {**own, **nets.head_tensors(WIDTH, len(STATES), len(VERBS), seed)}


def tokens(n: int = 6, sizes: tuple[int, ...] = (1, 2)) -> Tensor:
    return inputs(draw_episodes(n, ALL, sizes, 7))


def test_the_stream_is_that_of_the_language_model(shell: GPT) -> None:
    """A sequence without padding and states is a text; the heads by hand on its last stream."""
    x = torch.stack([
        torch.randint(64, (4, 18)), torch.arange(18).expand(4, -1), torch.full((4, 18), -1),
        torch.cat([torch.full((10,), -1), torch.arange(8)]).expand(4, -1),
    ], -1)  # fmt: skip
    own = tensors(shell)
    with torch.no_grad():
        stream = shell.forward_all(x[..., 0])[-2]
        h = torch.nn.functional.layer_norm(stream, (WIDTH,)) * shell.get_parameter("gain")
        u = h.mean(1) @ own["Wa"].t()
        verbs = torch.relu(u) @ own["Wverb"].t()
        places = torch.einsum("njd,nd->nj", h[:, 10:], u) / math.sqrt(WIDTH)
        found = nets.policy(shell, ENTITIES, own, x)
    assert torch.allclose(found, torch.cat([verbs, places], 1), atol=1e-5)


def test_padding_changes_nothing(shell: GPT) -> None:
    x, own = tokens(), tensors(shell)
    padding = x[..., 3] == nets.PADDING
    assert bool(padding.any())
    other = x.clone()
    other[..., 0][padding] = 41
    assert torch.allclose(
        nets.policy(shell, ENTITIES, own, x), nets.policy(shell, ENTITIES, own, other), atol=1e-5
    )
    one = x[:1, : int((~padding[0]).sum())]  # without any
    assert torch.allclose(
        nets.policy(shell, ENTITIES, own, one), nets.policy(shell, ENTITIES, own, x[:1]), atol=1e-5
    )


def moved(x: Tensor, order: Tensor) -> Tensor:
    """The entities' names and states in another order, the places as they were."""
    out = x.clone()
    rows = x[..., 3] >= 0
    for n in range(len(x)):
        own = x[n][rows[n]]
        out[n, rows[n], 0], out[n, rows[n], 2] = own[order, 0], own[order, 2]
    return out


@pytest.mark.parametrize("kind", ["no positions, no attention", "no attention", "no positions"])
def test_the_order_of_entities(shell: GPT, kind: str) -> None:
    """It only orders the pointer's logits if entities carry no positions *and* no token sees those
    before it: attention is causal, so that taking away the positions is not enough."""
    own, x, order = tensors(shell), tokens(), torch.randperm(ENTITIES)
    if "no positions" in kind:
        own["position"] = torch.zeros_like(own["position"])
    if "no attention" in kind:
        own |= {n: torch.zeros_like(t) for n, t in own.items() if n.endswith(".Wo")}
    found, other = (nets.policy(shell, ENTITIES, own, z) for z in (x, moved(x, order)))
    same = torch.allclose(found[:, 3:][:, order], other[:, 3:], atol=1e-5)
    assert same == (kind == "no positions, no attention")


def test_other_names_are_the_same_with_a_permuted_table(shell: GPT) -> None:
    own, x = tensors(shell), tokens()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    renamed = x.clone()
    renamed[..., 0] = order[x[..., 0]]
    table = torch.empty_like(own["embedding"])
    table[:, order] = own["embedding"]
    found = nets.policy(shell, ENTITIES, own, x)
    assert torch.allclose(
        nets.policy(shell, ENTITIES, {**own, "embedding": table}, renamed), found, atol=1e-6
    )
    assert not torch.allclose(nets.policy(shell, ENTITIES, own, renamed), found, atol=1e-2)


def test_uniform_outputs_cost_ln_3_and_ln_8(shell: GPT) -> None:
    own, x = tensors(shell), tokens()
    own |= {name: torch.zeros_like(own[name]) for name in ("Wa", "Wverb")}
    y = torch.tensor([[0, 3, 1], [1, 7, 1], [2, 0, 1], [0, 0, 1], [1, 1, 1], [2, 2, 1]])
    out = nets.policy(shell, ENTITIES, own, x)
    assert float(cloning_loss(out, y)) == pytest.approx(math.log(3) + math.log(8), abs=1e-6)
    assert float(cloning_loss(out, y * torch.tensor([1, 1, 0]))) == 0  # nothing but filling


def test_the_loss_is_torchs_cross_entropy() -> None:
    out = torch.randn(5, 11)
    y = torch.stack([torch.randint(3, (5,)), torch.randint(8, (5,)), torch.ones(5).long()], 1)
    cross = torch.nn.functional.cross_entropy
    wanted = cross(out[:, :3], y[:, 0]) + cross(out[:, 3:], y[:, 1])
    assert torch.allclose(cloning_loss(out, y), wanted)
    y[3:, 2] = 0
    wanted = cross(out[:3, :3], y[:3, 0]) + cross(out[:3, 3:], y[:3, 1])
    assert torch.allclose(cloning_loss(out, y), wanted)


def test_attention_is_causal_and_that_of_the_block(shell: GPT) -> None:
    own, x = tensors(shell), tokens(3)
    found = nets.attention(shell, own, x)
    assert found.shape == (2, 3, 2, 18, 18)
    assert torch.allclose(found.sum(-1), torch.ones(2, 3, 2, 18))
    assert float(found.triu(1).abs().max()) == 0
    start = nets._start(shell, own, x)
    h = torch.nn.functional.layer_norm(start, (WIDTH,))
    values = torch.einsum("hvd,ntd->nhtv", own["blocks.0.Wv"], h)
    mixed = torch.einsum("dvh,nhtv->ntd", own["blocks.0.Wo"], found[0] @ values)
    alone = {n: t.clone() for n, t in own.items()}
    alone["blocks.0.Wdown"].zero_()
    with torch.no_grad():
        block = torch.func.functional_call(shell.blocks[0], nets._block(alone, 0), (start,))
    assert torch.allclose(start + mixed, block, atol=1e-5)


def test_one_vector_does_not_see_the_order_in_which_tokens_come() -> None:
    sizes = NAMES, len(STATES)
    own = nets.mlp_tensors(18 * sum(sizes), 12, 11, seed=0)
    x = tokens()
    found = nets.mlp_policy(sizes, own, x)
    assert found.shape == (6, 11)
    assert torch.allclose(nets.mlp_policy(sizes, own, x.flip(1)), found, atol=1e-6)
    other = x.clone()
    other[..., 0][x[..., 3] == nets.PADDING] = 5
    assert torch.allclose(nets.mlp_policy(sizes, own, other), found, atol=1e-6)
    longest = int((x[..., 3] != nets.PADDING).sum(1).max())
    assert longest < 18
    assert torch.allclose(nets.mlp_policy(sizes, own, x[:, :longest]), found, atol=1e-6)
