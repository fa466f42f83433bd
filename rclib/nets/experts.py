"""A sparse mixture of experts in the place of a transformer's MLP branch.

A router W_r (E, N) gives each token h (N,) affinities γ = sigmoid(W_r h); the K experts with the
largest γ + p are used, and

    out = Σ_{k chosen} γ_k Wdown_k gelu(Wup_k h).

The shifts p (E,) choose and do nothing else: they stand in no output and get no gradient
(Wang et al., arXiv 2408.15664). All experts are computed for all tokens, as two matrix products,
and those that were not chosen are masked: on a CPU this is faster than gathering for few small
experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rclib.nets.gpt import GPT
from rclib.nets.gpt_block import Block, normalised, own_parameters

__all__ = ["ExpertBlock", "Experts", "switch_loss", "with_experts"]


class Experts(nn.Module):
    """E experts of `hidden` neurons, K a token, for a stream of `width` neurons.

    After a call: `affinities` (n, E) with gradient and `chosen` (n, E) bool of its n tokens.
    seed : weights are a function of it and the shapes alone; entries have the variance 1 / fan-in.

    Raises ValueError naming the argument for sizes below one and a K above E.
    """

    Wr: Tensor
    Wup: Tensor
    Wdown: Tensor
    shifts: Tensor

    def __init__(self, width: int, *, E: int, hidden: int, K: int, seed: int = 0) -> None:
        super().__init__()
        for name, value in {"width": width, "E": E, "hidden": hidden, "K": K}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if K > E:
            raise ValueError(f"K must be at most E = {E}, got {K}")
        self.K = K
        generator = torch.Generator().manual_seed(seed)
        for name, shape in (
            ("Wr", (E, width)), ("Wup", (E, hidden, width)), ("Wdown", (E, width, hidden)),
        ):  # fmt: skip
            start = torch.randn(shape, generator=generator) / shape[-1] ** 0.5
            self.register_parameter(name, nn.Parameter(start))
        self.register_buffer("shifts", torch.zeros(E))
        self.affinities, self.chosen = torch.empty(0, E), torch.empty(0, E, dtype=torch.bool)

    def forward(self, h: Tensor) -> Tensor:
        """Outputs (..., N) for tokens h (..., N)."""
        tokens = h.reshape(-1, h.shape[-1])
        affinities = torch.sigmoid(functional.linear(tokens, self.Wr))
        place = (affinities.detach() + self.shifts).topk(self.K, dim=1).indices
        chosen = torch.zeros_like(affinities, dtype=torch.bool).scatter_(1, place, True)
        self.affinities, self.chosen = affinities, chosen
        up = functional.gelu(functional.linear(tokens, self.Wup.flatten(0, 1)))
        gated = up.unflatten(1, (len(self.Wr), -1)) * (affinities * chosen).unsqueeze(2)
        down = self.Wdown.transpose(1, 2).flatten(0, 1)  # (E hidden, N)
        out: Tensor = gated.flatten(1) @ down
        return out.view(h.shape)

    def loads(self) -> Tensor:
        """(E,) float64: tokens that every expert got in the last call."""
        return self.chosen.sum(0, dtype=torch.float64)


def switch_loss(experts: Experts) -> Tensor:
    """E Σ_k f_k P_k of the last call: f_k the share of choices that fell on expert k, P_k the mean
    of its affinity over the sum of a token's; 1 where all are equal. Source: Fedus, Zoph and
    Shazeer, "Switch transformers" (arXiv 2101.03961), equation 4, with K choices a token."""
    affinities = experts.affinities
    f = experts.chosen.to(affinities.dtype).mean(0) / experts.K
    P = (affinities / affinities.sum(1, keepdim=True)).mean(0)
    return len(f) * (f * P).sum()


class ExpertBlock(Block):
    """A block of a GPT with experts in place of its MLP branch; attention and norms are those of
    the block it is made of."""

    def __init__(self, block: Block, experts: Experts, norm: str) -> None:
        super().__init__(block.head_size, norm)
        self.multipliers = block.multipliers
        for name, p in own_parameters(block).items():
            if name not in ("Wup", "Bup", "Wdown", "Bdown"):
                self.register_parameter(name, nn.Parameter(p.detach().clone()))
        self.experts = experts

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Stream (batch, T, N) after the block; `turn` holds cos and sin of rotary positions."""
        p = own_parameters(self)
        h = normalised(x, self.norm, p["gain1"], p.get("shift1"))
        x = x + self._attention(h, p, turn)
        h = normalised(x, self.norm, p["gain2"], p.get("shift2"))
        out: Tensor = self.experts(h)
        return x + out


def with_experts(model: GPT, *, E: int, hidden: int, K: int, seed: int = 0) -> list[Experts]:
    """Put experts into all blocks of a GPT, in place; returns them, one a block.

    The table `axes`, and what the model makes of it (learning rates, matrices), is that of before.
    Raises ValueError as `Experts` does.
    """
    placed = [
        Experts(model.width, E=E, hidden=hidden, K=K, seed=len(model.blocks) * seed + place)
        for place in range(len(model.blocks))
    ]
    blocks = list(model.blocks)
    for place, (block, experts) in enumerate(zip(blocks, placed, strict=True)):
        assert isinstance(block, Block)
        model.blocks[place] = ExpertBlock(block, experts, model.norm)
    return placed
