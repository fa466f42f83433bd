"""Stored run of notebook 57: every start of the series in one network, on one task.

Three matrices, two hidden layers of h rectified units; what is said of a start is said of the
middle matrix W2 (h, h). Starts that were trained before come from one half of the images, then all
starts train on the other half with the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.experiments.starts.mixtures import (
    State,
    construct,
    forward_half,
    forward_plain,
    grow,
    new_coefficients,
    plain,
    sampled,
    scratch,
)
from rclib.experiments.starts.rich_lazy_runs import rank_start
from rclib.nets.stack import Stack
from rclib.runs.store import Arrays
from rclib.spectral.survival import survival
from rclib.stats.generalized_gaussian import GeneralizedGaussian, draw
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["STARTS", "TINY", "forward_tied", "survives_runs"]

STARTS = (
    "plain", "Xavier", "heavy", "uniform", "orthogonal", "large", "small", "rank", "aligned",
    "mixture", "sampled", "shared", "trained", "shuffled", "normed", "gains",
)  # fmt: skip
NORMED = ("normed", "gains")
NU = {"heavy": 0.5, "uniform": 50.0}  # shapes of generalised Gaussian laws
SCALES = {"large": 4.0, "small": 0.25}
TEMPLATES = 4  # of a mixture
TINY: dict[str, dict[str, Any]] = {
    "survives_runs": {
        "group": [{"seed": 0}, {"seed": 3}], "pool": 1, "n": 30, "width": 8, "rank": 2,
        "batch_size": 15, "rate": 1e-3, "before": 3, "steps": 4, "moments": [0, 2, 4],
    },
}  # fmt: skip


def forward_tied(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """x (n, d) -> logits: W2 and its shift are applied twice, as a layer that two stages share."""
    h = torch.relu(x @ tensors["W1"].T + tensors["b1"])
    for _ in range(2):
        h = torch.relu(h @ tensors["W2"].T + tensors["b2"])
    out: Tensor = h @ tensors["W3"].T + tensors["b3"]
    return out


@dataclass(frozen=True)
class _Task:
    """Images; two subsets (S, n) of every seed, one for what is trained before; options."""

    x: Tensor
    y: Tensor
    seeds: tuple[int, ...]
    before: Tensor
    after: Tensor
    batch_size: int
    rate: float

    def train(
        self, states: Sequence[State], one: Callable[..., Tensor], subsets: Tensor, steps: int,
        **options: Any,
    ) -> tuple[Stack, dict[str, Tensor]]:  # fmt: skip
        """Networks of all seeds, or several times those, one set after the other."""
        tensors = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        times = len(states) // len(self.seeds)
        batches = epoch_batches(
            self.x, self.y, batch_size=self.batch_size, seeds=self.seeds * times,
            subsets=subsets.repeat(times, 1),
        )  # fmt: skip
        return train_stack(
            Stack(tensors, one), batches, cross_entropy, steps=steps, lr=self.rate,
            optimizer="adam", **options,
        )  # fmt: skip


def survives_runs(
    data: Dataset, *, group: Sequence[Mapping[str, int]], pool: int, n: int, width: int, rank: int,
    batch_size: int, rate: float, before: int, steps: int, moments: Sequence[int],
) -> Arrays:  # fmt: skip
    """Stored run of a group of seeds: all starts of `STARTS`, Adam, cross-entropy.

    n : images of each half. rank : k of "rank", "aligned" and of the outer products that are looked
    at. before : updates of what is trained before, with the rate of the others.

    plain: i.i.d. normal, variance 2 / fan-in, as the other matrices; Xavier: 2 / (fan-in + fan-out)
    in all matrices; heavy, uniform: generalised Gaussian, ν = 0.5 and 50, of plain's variance;
    large, small: 4 and 1/4 times plain; rank: plain's k largest singular values, at its norm;
    aligned: the k largest of minus the gradient of the training loss at plain, at its norm.
    mixture: two trained halves of templates, new blocks with orthogonal coefficients; sampled: RC
    sampling of one trained half; shared: a deeper network in which W2 was trained to be used twice;
    trained: a network trained before; shuffled: the same with the entries of W2 permuted.
    normed: plain with BatchNorm; gains: of that only gains and shifts are trained.

    loss (S, A, T), accuracy (S, A): of the test set, loss at each of `moments`. moved, start,
    products, spectrum (S, A): of W2, as `rclib.spectral.survival`. chance (S, A): `start` for the
    first W2 with its entries permuted.

    Raises ValueError for more images than there are.
    """
    seeds = tuple(int(member["seed"]) for member in group)
    x, x_test = pooled_inputs(data, pool)
    if not 2 * n <= len(x):
        raise ValueError(f"n must be at most half of {len(x)} images, got {n}")
    orders = [torch.randperm(len(x), generator=_generator(seed, 0))[: 2 * n] for seed in seeds]
    subsets = torch.stack(orders)
    task = _Task(x, data.y_train, seeds, subsets[:, :n], subsets[:, n:], batch_size, rate)
    sizes = (x.shape[1], width, data.n_classes)
    states = _before_training(task, sizes, rank) | _trained_before(task, sizes, before)
    at = sorted({int(t) for t in moments})

    def looked(now: Stack) -> Tensor:
        outputs = now(x_test)
        losses = [cross_entropy(out.double(), data.y_test) for out in outputs]
        right = (outputs.argmax(-1) == data.y_test).double().mean(1)
        return torch.stack([torch.stack(losses), right], 1)

    rows: dict[str, list[Arrays]] = {}
    for names, frozen in (
        ([name for name in STARTS if name not in NORMED], ()),
        (["normed"], ()),
        (["gains"], ("W1", "W2", "W3")),
    ):
        begin = [state for name in names for state in states[name]]
        end, found = task.train(
            begin, forward_plain, task.after, steps, frozen=frozen, at=at,
            record={"looked": looked},
        )  # fmt: skip
        for place, first in enumerate(begin):
            name, s = names[place // len(seeds)], place % len(seeds)
            last = end.tensors["W2"][place]
            rows.setdefault(name, []).append({
                "loss": found["looked"][:, place, 0].numpy(),
                "accuracy": found["looked"][-1, place, 1].numpy(),
                **_survived(last, first["W2"], rank, seeds[s]),
            })  # fmt: skip
    return _by_seed(rows, len(seeds))


def _by_seed(rows: Mapping[str, Sequence[Arrays]], members: int) -> Arrays:
    """(S, A, ...) of the rows of every start."""
    return {
        name: torch.stack([
            torch.stack([torch.as_tensor(rows[start][s][name]) for start in STARTS])
            for s in range(members)
        ]).numpy()
        for name in rows["plain"][0]
    }  # fmt: skip


def _survived(last: Tensor, first: Tensor, rank: int, seed: int) -> dict[str, Any]:
    mixed = first.flatten()[torch.randperm(first.numel(), generator=_generator(seed, 9))]
    own = survival(last.numpy(), first.numpy(), products=rank)
    other = survival(last.numpy(), mixed.view_as(first).numpy(), products=rank)
    return {
        "moved": own.moved, "start": own.start, "products": own.products,
        "spectrum": own.spectrum, "chance": other.start,
    }  # fmt: skip


def _generator(seed: int, what: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_000 + 1000 * seed + what)


def _at_norm_of(matrix: Tensor, other: Tensor) -> Tensor:
    scaled: Tensor = matrix * (other.norm() / matrix.norm())
    return scaled


def _before_training(task: _Task, sizes: tuple[int, int, int], rank: int) -> dict[str, list[State]]:
    """Starts without training, for every seed: only W2 differs, but for Xavier's."""
    found: dict[str, list[State]] = {}
    d, h, classes = sizes
    for s, seed in enumerate(task.seeds):
        first = scratch(sizes, norm=False, seed=seed)
        w = first["W2"]
        middle = {"plain": w, "rank": rank_start(w, rank)}
        middle |= {name: scale * w for name, scale in SCALES.items()}
        for name, nu in NU.items():
            law = GeneralizedGaussian.of_variance(nu, 2.0 / h)
            middle[name] = draw(law, w.shape, generator=_generator(seed, 1)).to(w.dtype)
        q = torch.linalg.qr(torch.randn(h, h, generator=_generator(seed, 2)).double()).Q
        middle["orthogonal"] = _at_norm_of(q, w.double()).to(w.dtype)
        images = task.after[s]
        down = -_gradient(first, task.x[images], task.y[images])
        middle["aligned"] = _at_norm_of(rank_start(down, rank), w)
        for name, matrix in middle.items():
            found.setdefault(name, []).append({**first, "W2": matrix})
        fans = {"W1": (d, h), "W2": (h, h), "W3": (h, classes)}
        xavier = {
            name: first[name] * (into / (into + out)) ** 0.5 for name, (into, out) in fans.items()
        }
        found.setdefault("Xavier", []).append({**first, **xavier})
        for name in NORMED:
            found.setdefault(name, []).append(scratch(sizes, norm=True, seed=seed))
    return found


def _gradient(state: State, x: Tensor, y: Tensor) -> Tensor:
    """Of the loss by W2."""
    w = state["W2"].clone().requires_grad_()
    loss = cross_entropy(forward_plain({**state, "W2": w}, x), y)
    return torch.autograd.grad(loss, w)[0]


def _trained_before(task: _Task, sizes: tuple[int, int, int], steps: int) -> dict[str, list[State]]:
    """Starts from networks that were trained on the other half of the images."""
    seeds = task.seeds
    begin = [scratch(sizes, norm=False, seed=5000 + seed) for seed in seeds]
    full, _ = task.train(begin, forward_plain, task.before, steps)
    tied, _ = task.train(begin, forward_tied, task.before, steps)
    pairs = [construct(sizes, TEMPLATES, norm=False, seed=seed) for seed in seeds]
    halves, _ = task.train(
        [halves[m] for m in range(2) for halves, _ in pairs], forward_half, task.before, steps
    )
    found: dict[str, list[State]] = {}
    for s, seed in enumerate(seeds):
        own = [_member(halves, s), _member(halves, len(seeds) + s)]
        a = torch.cat([torch.stack([half["a2"] for half in own]), pairs[s][1][2:]])
        new = new_coefficients("orthogonal", a, generator=_generator(seed, 3))
        trained = _member(full, s)
        w = trained["W2"]
        order = torch.randperm(w.numel(), generator=_generator(seed, 4))
        for name, state in (
            ("mixture", plain(grow(own, new))),
            ("sampled", sampled(own[0], sizes[1], seed=seed)),
            ("shared", _member(tied, s)),
            ("trained", trained),
            ("shuffled", {**trained, "W2": w.flatten()[order].view_as(w)}),
        ):
            found.setdefault(name, []).append(state)
    return found


def _member(nets: Stack, s: int) -> State:
    return {name: tensor[s].detach().clone() for name, tensor in nets.tensors.items()}
