"""training.validation against a loop that looks at every step."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.training.stacked import epoch_batches, train_stack
from rclib.training.validation import BestSoFar, accuracy

generator = torch.Generator().manual_seed(1)
X = torch.randn(60, 4, generator=generator)
Y = torch.randint(3, (60,), generator=generator)


def networks() -> Stack:
    return stack([MLP(4, 16, 3, depth=2, parametrization="SP", seed=s) for s in range(3)])


def test_every_member_is_kept_at_its_smallest_loss() -> None:
    held = torch.stack([torch.randperm(60, generator=generator)[:20] for _ in range(3)])
    best = BestSoFar(X[held], Y[held], cross_entropy, own=True)
    seen: list[Stack] = []

    def copied(now: Stack) -> torch.Tensor:
        seen.append(Stack({n: t.clone() for n, t in now.tensors.items()}, now.one))
        return torch.zeros(3)

    _, found = train_stack(
        networks(), epoch_batches(X, Y, batch_size=10, seeds=range(3)), cross_entropy,
        steps=60, lr=[0.001, 0.05, 3.0], optimizer="adam",
        record={"validation": best, "copied": copied}, at=range(0, 61, 5),
    )  # fmt: skip
    looks = found["validation"].argmin(0)
    assert torch.equal(best.look, looks)
    assert len({*looks.tolist()}) > 1  # they stop at different times
    for s, look in enumerate(looks.tolist()):
        for name, value in best.stack().member(s).items():
            assert torch.equal(value, seen[look].member(s)[name])
        outputs = MLP(4, 16, 3, depth=2, parametrization="SP").like(16, best.stack().member(s))
        loss = cross_entropy(outputs(X[held[s]]), Y[held[s]])
        torch.testing.assert_close(best.value[s], loss.detach())


def test_losses_that_are_no_numbers_are_not_better_and_shared_data() -> None:
    start = networks()
    best = BestSoFar(X, Y, cross_entropy)
    first = best(start)
    broken = Stack({n: t.clone() for n, t in start.tensors.items()}, start.one)
    broken.tensors["W1"][1] = float("nan")
    assert best(broken)[1].isnan()
    assert best.look.tolist() == [0, 0, 0]
    assert torch.equal(best.value, first)
    with pytest.raises(ValueError, match="nothing was measured"):
        BestSoFar(X, Y, cross_entropy).stack()


def test_accuracy_counts() -> None:
    now = networks()
    guess = now(X).argmax(-1)
    own = guess.clone()
    own[0, :15] = (own[0, :15] + 1) % 3
    assert accuracy(now, X, own).tolist() == [0.75, 1.0, 1.0]
    assert accuracy(now, X, guess[1])[1] == 1.0
    with pytest.raises(ValueError, match="y must have shape"):
        accuracy(now, X, Y[:5])
