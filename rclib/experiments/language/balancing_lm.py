"""Stored runs of notebook 93: a small language model of bytes with a mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from rclib.data.text import TextData
from rclib.nets.experts import Experts, switch_loss, with_experts
from rclib.nets.gpt import GPT, build_gpt
from rclib.runs.store import Arrays
from rclib.training.load_balancing import StepRules, max_violation

__all__ = ["expert_runs"]


def expert_runs(
    data: TextData, *, seed: int, balancing: Mapping[str, Any], network: Mapping[str, Any],
    experts: Mapping[str, int], steps: int, batch_size: int, lr: float, n_eval: int,
) -> Arrays:  # fmt: skip
    """Train a GPT with experts in its B blocks by Adam, and evaluate it.

    balancing : {} for none, {"alpha": α} for the auxiliary loss of Switch, or a rule of
    `StepRules`, which moves the shifts after every step. All start from the same weights and see
    the same batches. network : of `GPT`; experts : E, hidden and K. n_eval : held-out batches.

    Returns violation (steps, B), MaxVio of every batch. On held-out text: loss, nats a byte; used
    (B, E), tokens by expert as they are routed; plain (B, E), without shifts. Of the router:
    shifts (B, E), matrices (B, E, N), means (B, N), of what it gets.
    """
    model = build_gpt({"parametrization": "SP", **network, "seed": seed})
    placed = with_experts(model, **experts, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.95), fused=True)
    context, E, K = model.context, experts["E"], experts["K"]
    T = batch_size * context
    rule = None if "kind" not in balancing else StepRules([balancing], T=T, L=K * T / E)
    violation = np.zeros((steps, len(placed)))
    for n in range(steps):
        windows = data.batch(n, seed=seed, batch_size=batch_size, context=context)
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(
            model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten()
        )
        if "alpha" in balancing:
            loss = loss + balancing["alpha"] * torch.stack([switch_loss(o) for o in placed]).sum()
        loss.backward()
        optimizer.step()
        for b, one in enumerate(placed):
            loads = one.loads().numpy()
            violation[n, b] = max_violation(loads)
            if rule is not None:
                one.shifts.sub_(torch.from_numpy(rule(loads[:, None], n + 1)[:, 0]))
    return {"violation": violation, **_evaluated(model, placed, data, n_eval, batch_size)}


def _evaluated(
    model: GPT, placed: list[Experts], data: TextData, n_eval: int, batch_size: int
) -> Arrays:
    seen: list[list[torch.Tensor]] = [[] for _ in placed]
    hooks = [
        one.register_forward_pre_hook(
            lambda _, given, kept=kept: kept.append(given[0].flatten(0, 1))
        )
        for one, kept in zip(placed, seen, strict=True)
    ]
    losses, used, plain = [], np.zeros((len(placed), placed[0].Wr.shape[0])), []
    with torch.no_grad():
        for windows in data.validation_batches(
            n_eval, batch_size=batch_size, context=model.context
        ):
            logits = model(windows[:, :-1])
            losses.append(functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()))
            used += np.stack([one.loads().numpy() for one in placed])
        for hook in hooks:
            hook.remove()
        inputs = [torch.cat(kept) for kept in seen]
        for one, h in zip(placed, inputs, strict=True):
            top = functional.linear(h, one.Wr).topk(one.K, dim=1).indices
            plain.append(torch.bincount(top.flatten(), minlength=len(one.Wr)).numpy())
    return {
        "loss": np.array(float(torch.stack(losses).mean())), "used": used,
        "plain": np.stack(plain).astype(np.float64),
        "shifts": np.stack([one.shifts.numpy() for one in placed]),
        "matrices": np.stack([one.Wr.detach().numpy() for one in placed]),
        "means": np.stack([h.mean(0).numpy() for h in inputs]),
    }  # fmt: skip


TINY: dict[str, dict[str, Any]] = {
    "expert_runs": {
        "seed": 0, "balancing": {"kind": "sign", "u": 0.01}, "steps": 3, "batch_size": 2,
        "network": {"width": 16, "blocks": 1, "context": 8, "head_size": 8},
        "experts": {"E": 4, "hidden": 4, "K": 2}, "lr": 0.003, "n_eval": 2,
    }
}  # fmt: skip
