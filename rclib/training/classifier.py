"""One training loop: cross-entropy on tensors that live in memory, plain SGD or Adam.

A step on a batch b of size B, with the parametrisation's factor c_p for parameter p, is
`p ← p - η c_p ∇_p (1/B) Σ_{i in b} ℓ(f(x_i), y_i)` (SGD). Data are gathered by index from
tensors on the device, so no loader or worker stands between them and the matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from rclib.data.images import Dataset
from rclib.nets.mlp import MLP
from rclib.training.backprop import sgd_steps
from rclib.training.recorder import Losses, Recorder

__all__ = ["DivergedError", "History", "evaluate", "make_step", "train"]

CHECK_EVERY = 50  # steps between looks at the losses: a look waits for the device


class DivergedError(RuntimeError):
    """The loss became NaN or infinite; the message names step, learning rate and width."""


@dataclass(frozen=True)
class History:
    """Record of one training run over E epochs.

    train_loss : (E + 1,) mean batch loss during each epoch; entry 0 is before training, on about
        10,000 training points.
    test_loss, test_accuracy : (E + 1,) on the whole test set; entry 0 is before training.
    batch_loss : (steps,) loss of every batch.
    snapshots : state dict (CPU copies) after each requested epoch.
    """

    train_loss: Tensor
    test_loss: Tensor
    test_accuracy: Tensor
    batch_loss: Tensor
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)


@torch.no_grad()
def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 2000
) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy (share) of `model` on x (n, d), y (n,).

    Raises ValueError if they are empty or differ in length.
    """
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"x and y must be equally long and not empty, got {len(x)} and {len(y)}")
    loss = correct = 0.0
    for xb, yb in zip(x.split(batch_size), y.split(batch_size), strict=True):
        logits = model(xb)
        loss += float(nn.functional.cross_entropy(logits, yb, reduction="sum"))
        correct += int((logits.argmax(1) == yb).sum())
    return loss / len(x), correct / len(x)


def make_step(
    model: MLP, *, lr: float, optimizer: str = "sgd"
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function (x, y) -> loss that makes one training step in place.

    Every parameter gets the learning rate lr · c_p of its parametrisation. SGD is the fused
    step of `rclib.training.backprop`, Adam torch's own. Raises ValueError if `lr` is not positive
    and finite or `optimizer` is unknown.
    """
    if not (isinstance(lr, (int, float)) and math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr must be positive and finite, got {lr!r}")
    rates = {name: lr * factor for name, factor in model.lr_factors(optimizer).items()}
    if optimizer == "sgd":
        return sgd_steps(model, rates)
    groups = [{"params": [p], "lr": rates[name]} for name, p in model.named_parameters()]
    # Under mean field a hidden weight's gradient is of order 1/N², far below torch's default eps.
    adam = torch.optim.Adam(groups, eps=1e-15, fused=True)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        return loss.detach()

    return step


def train(
    model: MLP,
    data: Dataset,
    *,
    epochs: int,
    lr: float,
    batch_size: int = 128,
    optimizer: str = "sgd",
    seed: int = 0,
    first_epoch: int = 0,
    snapshots: Collection[int] = (),
    progress: bool = True,
) -> History:
    """Train `model` in place on `data` and return the record.

    `seed` fixes the order of the batches (a permutation an epoch). Epochs are numbered from
    `first_epoch`, which continues a transferred network's count; `snapshots` lists the epoch
    numbers whose weights are kept (0 is the start).

    Raises ValueError for arguments out of range and DivergedError when the loss turns NaN or
    infinite.
    """
    if not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs must be an integer >= 0, got {epochs!r}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
    outside = [e for e in snapshots if not first_epoch <= e <= first_epoch + epochs]
    if outside:
        raise ValueError(
            f"snapshots must lie in epochs {first_epoch} ... {first_epoch + epochs}, got {outside}"
        )
    step_once = make_step(model, lr=lr, optimizer=optimizer)
    x, y = data.x_train, data.y_train
    steps = math.ceil(len(x) / batch_size)
    generator = torch.Generator().manual_seed(int(seed))
    losses = Losses(0, epochs * steps, device=x.device)
    measures = ("train_loss", "test_loss", "test_accuracy")
    numbers = range(first_epoch, first_epoch + epochs + 1)
    kept = Recorder({**dict.fromkeys(measures, numbers), "snapshots": snapshots})
    width = max(model.sizes[1:-1], default=model.sizes[-1])
    step = 0

    def note(epoch: int, *values: float) -> None:
        for name, value in zip(measures, values, strict=True):
            kept.keep(name, epoch, value)
        if kept.due("snapshots", epoch):
            kept.keep("snapshots", epoch, _copy(model))

    def check() -> None:
        bad = losses.bad(step)
        if bad is not None:
            raise DivergedError(
                f"loss is {bad[1]} at step {bad[0]} with learning rate {lr:g} and width {width} "
                f"({model.parametrization.name}, {optimizer})"
            )

    start = slice(None, None, max(1, len(x) // 10_000))  # images may be sorted by class
    before = evaluate(model, x[start], y[start])[0]
    note(first_epoch, before, *evaluate(model, data.x_test, data.y_test))
    bar = tqdm(total=epochs * steps, unit="step", leave=False, disable=None if progress else True)
    with bar:
        for epoch in numbers[1:]:
            order = torch.randperm(len(x), generator=generator).to(x.device)
            for batch in order.split(batch_size):
                losses.values[step] = step_once(x.index_select(0, batch), y[batch])
                step += 1
                if step % CHECK_EVERY == 0:
                    check()
                    bar.update(CHECK_EVERY)
            check()
            train_loss = float(losses.values[step - steps : step].mean())
            test_loss, accuracy = evaluate(model, data.x_test, data.y_test)
            if not math.isfinite(test_loss):
                raise DivergedError(
                    f"test loss is {test_loss} after step {step} with learning rate {lr:g} "
                    f"and width {width} ({model.parametrization.name}, {optimizer})"
                )
            bar.set_postfix(epoch=epoch, loss=f"{train_loss:.3f}", test=f"{test_loss:.3f}")
            note(epoch, train_loss, test_loss, accuracy)
    rows = {name: torch.tensor(list(kept.values[name].values())) for name in measures}
    return History(**rows, batch_loss=losses.values.cpu(), snapshots=kept.values["snapshots"])


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().cpu().clone() for name, p in model.state_dict().items()}
