"""training.pruning against a plain loop with torch.optim, and rewinding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.nets.masks import Masks, full_masks
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.training.pruning import iterative_pruning
from rclib.training.stacked import epoch_batches, train_stack

WEIGHTS = ["W1", "W2", "W3"]
SHARES = {"W1": 0.4, "W2": 0.4, "W3": 0.2}
generator = torch.Generator().manual_seed(0)
X = torch.randn(48, 6, generator=generator, dtype=torch.float64)
Y = torch.randint(3, (48,), generator=generator)


def models() -> list[MLP]:
    return [
        MLP(6, [8, 5], 3, parametrization="SP", activation="relu", seed=s).double()
        for s in range(2)
    ]


def trainer(steps: int = 6, first: int = 0, **options: Any) -> Any:
    batches = epoch_batches(X, Y, batch_size=16, seeds=[3, 4])

    def train(start: Stack, masks: Masks) -> tuple[Stack, dict[str, Tensor]]:
        return train_stack(
            start, lambda t: batches(t + first), cross_entropy, steps=steps, lr=0.02,
            optimizer="adam", masks=masks, **options,
        )  # fmt: skip

    return train


def plain_loop(model: MLP, seed: int, rounds: int, *, reset: bool) -> list[dict[str, Tensor]]:
    """States at the end of every round, of one network: masked gradients, torch's Adam."""
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    masks = {n: torch.ones_like(start[n]) for n in WEIGHTS}
    order = epoch_batches(X, Y, batch_size=16, seeds=[seed])
    done: list[dict[str, Tensor]] = []
    for number in range(rounds + 1):
        if number:
            for n in WEIGHTS:
                kept = masks[n].bool()
                size = done[-1][n].abs()
                drop = round(SHARES[n] * int(kept.sum()))
                bar = size[kept].sort().values[drop]
                masks[n] = (kept & (size >= bar)).to(size.dtype)
        state = start if reset or not done else done[-1]
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(state[n] * masks.get(n, 1.0))
        adam = torch.optim.Adam(model.parameters(), lr=0.02)
        for t in range(6):
            x, y = order(t)
            adam.zero_grad()
            cross_entropy(model(x[0]), y[0]).backward()
            for n in WEIGHTS:
                model.get_parameter(n).grad *= masks[n]  # type: ignore[operator]
            adam.step()
        done.append({n: p.detach().clone() for n, p in model.named_parameters()})
    return done


@pytest.mark.parametrize("reset", [True, False])
def test_rounds_are_those_of_a_plain_loop(reset: bool) -> None:
    found = iterative_pruning(stack(models()), trainer(), rounds=3, shares=SHARES, reset=reset)
    assert len(found) == 4
    for s, model in enumerate(models()):
        expected = plain_loop(model, 3 + s, 3, reset=reset)
        for one, state in zip(found, expected, strict=True):
            for name, value in state.items():
                torch.testing.assert_close(one.end.tensors[name][s], value, rtol=1e-9, atol=1e-9)
                if name in WEIGHTS:
                    assert torch.equal(value != 0, one.masks[name][s])
    # What survives starts where it was, or goes on.
    begin, kept = found[2].start.tensors["W2"], found[2].masks["W2"]
    source = stack(models()).tensors["W2"] if reset else found[1].end.tensors["W2"]
    assert torch.equal(begin, source * kept)
    assert [f.found["loss"].shape for f in found] == [(6, 2)] * 4


def test_nothing_pruned_repeats_the_dense_run_bit_for_bit() -> None:
    start = stack(models())
    plain, _ = trainer()(start, full_masks(start.tensors, WEIGHTS))
    unmasked, _ = trainer()(start, {})
    found = iterative_pruning(start, trainer(), rounds=2, shares=0.0, names=WEIGHTS)
    for name, value in unmasked.tensors.items():
        assert torch.equal(plain.tensors[name], value)
        assert all(torch.equal(one.end.tensors[name], value) for one in found)


def test_rewinding_is_resetting_to_an_early_state() -> None:
    """From step 2 on: the dense weights there, the later batches, the same masks as by hand."""
    dense = stack(models())
    early, _ = trainer(steps=2)(dense, {})
    found = iterative_pruning(early, trainer(steps=4, first=2), rounds=1, shares=SHARES)
    kept = found[1].masks["W1"]
    assert torch.equal(found[1].start.tensors["W1"], early.tensors["W1"] * kept)
    assert int(kept[0].sum()) == 48 - round(0.4 * 48)
    size = found[0].end.tensors["W1"].abs()
    for s in range(2):
        assert size[s][~kept[s]].max() <= size[s][kept[s]].min()


def test_global_pruning_and_names() -> None:
    start = stack(models())
    found = iterative_pruning(start, trainer(2), rounds=2, shares=0.5, scope="global",
                              names=WEIGHTS)  # fmt: skip
    total = sum(start.tensors[n][0].numel() for n in WEIGHTS)
    left = [sum(int(one.masks[n][1].sum()) for n in WEIGHTS) for one in found]
    once = total - round(0.5 * total)
    assert left == [total, once, once - round(0.5 * once)]
    every = iterative_pruning(start, trainer(1), rounds=0, shares=0.5)
    assert list(every[0].masks) == list(start.tensors)


def test_what_does_not_fit_is_refused() -> None:
    start = stack(models())

    def moving(begin: Stack, masks: Masks) -> tuple[Stack, None]:
        return replace(begin, tensors={n: t + 1 for n, t in begin.tensors.items()}), None

    with pytest.raises(ValueError, match="keep pruned weights at zero, 'W1' has others"):
        iterative_pruning(start, moving, rounds=1, shares=SHARES)
    for options, message in (
        ({"rounds": -1, "shares": 0.1}, "rounds must be"),
        ({"rounds": 1, "shares": 0.1, "scope": "row"}, "scope must be one of"),
        ({"rounds": 1, "shares": SHARES, "scope": "global"}, "one number where pruning is global"),
        ({"rounds": 1, "shares": {"X": 0.1}}, "must name tensors"),
        ({"rounds": 1, "shares": SHARES, "reset": 1}, "reset must be"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            iterative_pruning(start, trainer(1), **options)
