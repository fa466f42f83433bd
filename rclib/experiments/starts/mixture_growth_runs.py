"""Stored runs of notebook 50: two halves trained, grown in every way, and trained on.

One run a seed. Two halves of mixtures are trained, each from its own start on its own batches; then
every arm goes on from a network of full width, with the batches of the seed. SGD with momentum 0.9,
the rate falling like a cosine within each stage; momentum begins anew at growth. Tied arms train
templates and coefficients, the others plain matrices:

    orthogonal, copied, copied exactly, zero, random, kept   coefficients of the new blocks
    not halved    orthogonal, with the classifier as the authors have it
    untrained     orthogonal, from halves that were not trained
    permuted      orthogonal, entries of the trained templates in a random order
    ensemble      untied, zeros beside the diagonal: the mean of two networks, trained on
    random blocks untied, Kaiming normal beside the diagonal
    one half      one trained half, all else Kaiming normal
    RC sampling   paper A's transfer from one half
    scratch       a network of full width, from its start, as many steps
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rclib.data.images import Dataset
from rclib.experiments.starts import mixtures
from rclib.nets.stack import Stack
from rclib.runs.store import Arrays
from rclib.spectral.spectra import esd, outliers
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["LONG", "TIED", "TINY", "UNTIED", "entries", "growth_runs", "moments"]

TIED = (
    "orthogonal", "zero", "copied", "copied exactly", "random", "kept", "not halved", "untrained",
    "permuted",
)  # fmt: skip
UNTIED = ("ensemble", "random blocks", "one half", "RC sampling", "scratch")
LONG = ("scratch, equal compute", "one half, equal compute")
TINY: dict[str, dict[str, Any]] = {
    "growth_runs": {
        "group": [{"seed": 0}, {"seed": 1}], "width": 8, "templates": 3, "norm": True,
        "before": 5, "after": 5, "at": [0, 2, 5], "batch_size": 16, "rate": 0.05,
        "rates": dict.fromkeys((*TIED, *UNTIED, *LONG), 0.02), "pool": 1,
        "n_train": 40, "n_valid": 20, "n_test": 20,
    },
}  # fmt: skip
States = list[dict[str, Tensor]]


def entries(d: int, width: int, classes: int) -> int:
    """Weights that a sample meets: compute is counted in them, shifts and mixing left out."""
    return d * width + width**2 + width * classes


def moments(steps: int, parts: int = 5) -> list[int]:
    """`parts` + 1 steps from 0 to the last, for at least `parts` steps."""
    return sorted({round(steps * part / parts) for part in range(parts + 1)})


class _Task:
    """Data, rates and what is measured, for one group of seeds."""

    def __init__(self, data: Dataset, sizes: tuple[int, int, int], pool: int, batch: int) -> None:
        n_train, n_valid, n_test = sizes
        part = data.subset(n_train + n_valid, n_test)
        x, self.y, self.batch = _pooled(part.x_train, pool), part.y_train, batch
        self.x, self.x_test, self.y_test = x, _pooled(part.x_test, pool), part.y_test
        self.n, self.d, self.classes = n_train, x.shape[1], data.n_classes

    def train(
        self, one: Any, states: States, seeds: Sequence[int], rates: Sequence[float], steps: int,
        at: Sequence[int],
    ) -> tuple[States, dict[str, Tensor]]:  # fmt: skip
        """Trained states; "accuracy" and "loss" on the test set (S, T), "valid" (S,) at the end."""
        start = Stack({name: torch.stack([s[name] for s in states]) for name in states[0]}, one)
        x, y = self.x[: self.n], self.y[: self.n]
        draw = epoch_batches(x, y, batch_size=self.batch, seeds=dict.fromkeys(seeds))
        place = {seed: i for i, seed in enumerate(dict.fromkeys(seeds))}
        rows = torch.tensor([place[seed] for seed in seeds])

        def batch(step: int) -> tuple[Tensor, Tensor]:
            x, y = draw(step)
            return x[rows], y[rows]

        end, found = train_stack(
            start, batch, _loss, steps=steps, lr=list(rates), optimizer="momentum", own="xy",
            lr_schedule=lambda t: 0.5 * (1 + math.cos(math.pi * t / steps)),
            record={"test": lambda now: self.looked(now, self.x_test, self.y_test)}, at=at,
        )  # fmt: skip
        valid = self.looked(end, self.x[self.n :], self.y[self.n :])[:, 0]
        accuracy, loss = found["test"].permute(2, 1, 0)
        return [end.member(s) for s in range(len(end))], {
            "accuracy": accuracy, "loss": loss, "valid": valid,
        }  # fmt: skip

    def looked(self, now: Stack, x: Tensor, y: Tensor) -> Tensor:
        """Accuracy and loss, (S, 2)."""
        rows = []
        for s in range(len(now)):
            out = now.one(now.member(s), x)
            rows.append(torch.stack([(out.argmax(1) == y).float().mean(), _loss(out, y)]))
        return torch.stack(rows)


def _loss(output: Tensor, y: Tensor) -> Tensor:  # torch's own is slow under vmap
    log_p = output.log_softmax(-1)
    return -(log_p * (y[:, None] == torch.arange(log_p.shape[-1]))).sum(1).mean()


def _pooled(x: Tensor, pool: int) -> Tensor:
    """Images (n, d) of three channels with squares of `pool` pixels averaged."""
    if pool == 1:
        return x
    side = math.isqrt(x.shape[1] // 3)
    return avg_pool2d(x.view(-1, 3, side, side), pool).flatten(1)


def growth_runs(
    data: Dataset, *, group: Sequence[Mapping[str, int]], width: int, templates: int, norm: bool,
    before: int, after: int, at: Sequence[int], batch_size: int, rate: float,
    rates: Mapping[str, float], pool: int, n_train: int, n_valid: int, n_test: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds; the arms are those of the module, in the order of `rates`.

    rates : arm -> rate after growth; those that it does not name are not run. `LONG` arms spend the
    compute of two halves and of growth. at : steps after growth with a test, T of them.

    For A arms that are not of `LONG`, in the order of TIED and UNTIED: accuracy, loss (A, T) on the
    test set; moved, explained (A,), |W - W0| / |W0| of the middle matrix and the share of |W|² on
    the outer products of W0's singular vectors; rows (A, 2, 2), correlation of the row means of
    the upper right and lower left block with that of the diagonal block beside it, at start and
    end; spikes (A, 2), eigenvalues of the middle matrix beyond its bulk. Of the halves, (2, ...):
    half_accuracy, half_loss (2, M) at `moments`, half_spikes (2,), half_means (2, 2), correlation
    of row means with shifts and with the next matrix' column means. long_accuracy, long_loss (B, M)
    and valid (A + B,), on the validation set. matrices (2, width, width) : middle matrix of the
    first two arms at growth.
    """
    task = _Task(data, (n_train, n_valid, n_test), pool, batch_size)
    sizes = task.d, width, task.classes
    seeds = [int(one["seed"]) for one in group]
    built = [mixtures.construct(sizes, templates, norm=norm, seed=10 * s) for s in seeds]
    flat = [half for halves, _ in built for half in halves]
    each = [10 * s + m for s in seeds for m in range(2)]
    trained, of_halves = task.train(
        mixtures.forward_half, flat, each, [rate] * len(flat), before, moments(before)
    )
    arms = {name: one for name, one in rates.items() if name not in LONG}
    starts: dict[str, States] = {name: [] for name in rates}
    for i, seed in enumerate(seeds):
        pair = trained[2 * i : 2 * i + 2]
        whole = mixtures.scratch(sizes, norm=norm, seed=10 * seed + 2)
        for name in rates:
            starts[name].append(_start(name, pair, built[i], whole, seed))
    tied = [name for name in TIED if name in arms]
    rest = [name for name in UNTIED if name in arms]
    ends: dict[str, States] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for names, one in ((tied, mixtures.forward_grown), (rest, mixtures.forward_plain)):
        if names:
            states = [state for name in names for state in starts[name]]
            of_arm = [rates[name] for name in names for _ in seeds]
            done, found = task.train(one, states, seeds * len(names), of_arm, after, at)
            for j, name in enumerate(names):
                own = slice(j * len(seeds), (j + 1) * len(seeds))
                ends[name], parts[name] = done[own], {key: v[own] for key, v in found.items()}
    cost = entries(task.d, width // 2, task.classes) / entries(*sizes)
    longer = [name for name in LONG if name in rates]
    for name in longer:
        steps = after + round((1 + (name == LONG[0])) * before * cost)
        of_arm = [rates[name]] * len(seeds)
        _, parts[name] = task.train(
            mixtures.forward_plain, starts[name], seeds, of_arm, steps, moments(steps)
        )
    order = [*tied, *rest]
    out: dict[str, Any] = {
        key: torch.stack([parts[name][key] for name in order], 1) for key in ("accuracy", "loss")
    }
    out["valid"] = torch.stack([parts[name]["valid"] for name in (*order, *longer)], 1)
    for key in ("accuracy", "loss"):
        out[f"half_{key}"] = of_halves[key].view(len(seeds), 2, -1)
        if longer:
            out[f"long_{key}"] = torch.stack([parts[name][key] for name in longer], 1)
    pairs = [
        [_matrix(state) for state in (starts[name][i], ends[name][i])]
        for i in range(len(seeds))
        for name in order
    ]
    out["moved"] = _array([float((w - w0).norm() / w0.norm()) for w0, w in pairs], seeds)
    out["explained"] = _array([_explained(w0, w) for w0, w in pairs], seeds)
    out["rows"] = _array([[_row_links(w) for w in pair] for pair in pairs], seeds)
    out["spikes"] = _array([[_spikes(w) for w in pair] for pair in pairs], seeds)
    out["half_spikes"] = _array([_spikes(_matrix(half)) for half in trained], seeds)
    out["half_means"] = _array([_means(half) for half in trained], seeds)
    shown = [[_matrix(starts[n][i]) for n in order[:2]] for i in range(len(seeds))]
    out["matrices"] = torch.stack([torch.stack(two) for two in shown])
    return {name: np.asarray(value) for name, value in out.items()}


def _start(
    name: str, pair: States, built: tuple[States, Tensor], whole: dict[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """Where an arm begins. whole : the plain network of full width before training."""
    untrained, inner = built
    generator = torch.Generator().manual_seed(10 * seed + 3)
    match name:
        case "ensemble":
            return mixtures.untied(pair, None)
        case "random blocks":
            return mixtures.untied(pair, whole)
        case "one half" | "one half, equal compute":
            return mixtures.one_half(pair[0], whole)
        case "RC sampling":
            return mixtures.sampled(pair[0], len(whole["b1"]), seed=10 * seed + 4)
        case "scratch" | "scratch, equal compute":
            return whole
    halves = untrained if name == "untrained" else pair
    if name == "permuted":
        halves = [mixtures.permuted(half, generator=generator) for half in pair]
    a = torch.cat([torch.stack([half["a2"] for half in halves]), inner[2:]])
    kind = name if name in mixtures.COEFFICIENTS else "orthogonal"
    new = mixtures.new_coefficients(kind, a, generator=generator)
    return mixtures.grow(halves, new, halved=name != "not halved")


def _matrix(state: Mapping[str, Tensor]) -> Tensor:
    return state["W2"] if "W2" in state else mixtures.plain(state)["W2"]


def _array(values: list[Any], seeds: Sequence[int]) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    return found.reshape(len(seeds), -1, *found.shape[1:])


def _explained(w0: Tensor, w: Tensor) -> float:
    left, _, right = torch.linalg.svd(w0.double())
    on = torch.einsum("ij,ik,jk->k", w.double(), left, right.T)
    return float(on.square().sum() / w.double().square().sum())


def _spikes(w: Tensor) -> int:
    return outliers(esd(w), rows=len(w)).count


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's; zero where one does not vary."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else 0.0


def _row_links(w: Tensor) -> list[float]:
    n = len(w) // 2
    upper, lower = w[:n], w[n:]
    return [
        _correlation(upper[:, n:].mean(1), upper[:, :n].mean(1)),
        _correlation(lower[:, :n].mean(1), lower[:, n:].mean(1)),
    ]


def _means(half: Mapping[str, Tensor]) -> list[float]:
    own = mixtures.plain(half)
    rows = own["W2"].mean(1)
    return [_correlation(rows, own["b2"]), _correlation(rows, own["W3"].mean(0))]
