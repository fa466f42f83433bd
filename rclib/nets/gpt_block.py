"""One block of the transformer of `rclib.nets.gpt`: attention and MLP, their norms, rotary
positions.

Shapes: stream (batch, T, N) with N = heads · d_h; the matrices are those that `rclib.nets.gpt`
names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Block", "angles", "normalised", "own_parameters", "rotated"]

EPS = 1e-5  # inside the norms


class Block(nn.Module):
    """Attention and MLP, each behind its norm and added to the stream; `GPT` fills it."""

    def __init__(self, head_size: int, norm: str) -> None:
        super().__init__()
        self.head_size, self.norm = head_size, norm
        self.multipliers: dict[str, float] = {}

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Stream (batch, T, N) after the block; `turn` holds cos and sin of rotary positions."""
        p, m = own_parameters(self), self.multipliers
        h = normalised(x, self.norm, p["gain1"], p.get("shift1"))
        x = x + self._attention(h, p, turn)
        h = normalised(x, self.norm, p["gain2"], p.get("shift2"))
        h = functional.gelu(functional.linear(h, p["Wup"] * m["Wup"], p.get("Bup")))
        return x + functional.linear(h, p["Wdown"] * m["Wdown"], p.get("Bdown"))

    def _attention(
        self, h: Tensor, p: Mapping[str, Tensor], turn: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        batch, length, width = h.shape
        # One matrix product for queries, keys and values. Scaling the weights costs N² a step,
        # scaling the products would cost tokens times N.
        w = torch.cat([p[n].flatten(0, 1) * self.multipliers[n] for n in ("Wq", "Wk", "Wv")])
        b = torch.cat([p[n].flatten() for n in ("Bq", "Bk", "Bv")]) if "Bq" in p else None
        qkv = functional.linear(h, w, b).view(batch, length, 3, -1, self.head_size)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, batch, heads, T, d_h)
        qk, v = qkv[:2], qkv[2]
        if turn is not None:
            qk = rotated(qk, turn[0].to(qk.dtype), turn[1].to(qk.dtype))
        q, k = qk.unbind(0)
        out = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=1.0 / self.head_size
        )
        w = p["Wo"].transpose(1, 2).flatten(1) * self.multipliers["Wo"]  # (N, heads · d_h)
        return functional.linear(out.transpose(1, 2).reshape(batch, length, width), w, p.get("Bo"))


def own_parameters(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters by name."""
    return {name: p for name, p in module._parameters.items() if p is not None}


def normalised(x: Tensor, kind: str, gain: Tensor, shift: Tensor | None) -> Tensor:
    """x (..., N) behind a "layer" or an "rms" norm with this gain (N,), and shift (N,) or none."""
    if kind == "layer":
        return functional.layer_norm(x, gain.shape, gain, shift, EPS)
    return functional.rms_norm(x, list(gain.shape), gain, EPS)


def angles(context: int, head_size: int) -> Tensor:
    """Rotation angles s · 10000^(-2 i / d_h), shape (context, d_h / 2)."""
    frequency = 10_000.0 ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    return (torch.arange(context, dtype=torch.float64)[:, None] * frequency).float()


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + d_h/2}) by their angles (rotary positions, arXiv 2104.09864)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)
