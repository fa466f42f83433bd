"""Stored runs of notebook 52: recurrent networks whose starts have one norm and several ranks.

h_t = relu(W_in x_t + W h_{t-1}), outputs W_out h_t, no biases, all three trained (arXiv 2310.08513,
with its code's α = dt/τ = 1). How far a network moved is measured for W on one fixed batch:

    weights          |W - W0|
    representation   <R, R0> / (|R| |R0|), R = H Hᵀ of the last step's units
    kernel           <K, K0> / (|K| |K0|), K = J Jᵀ, J the derivatives of all outputs by W
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.nets.stack import Stack, stack
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_batches, train_stack

__all__ = [
    "CHOICES",
    "TASKS",
    "TINY",
    "Recurrent",
    "image_rows",
    "kernel_factors",
    "kernel_of",
    "rank_start",
    "recurrent_runs",
]

TASKS = ("rows", "choice")
COHERENCES = (0.0, 6.4, 12.8, 25.6, 51.2)  # percent, of the two-alternative task
CHOICES = 3  # fixate, left, right
STEPS = 8  # of a trial: seven with a stimulus, one to answer
TINY: dict[str, dict[str, Any]] = {
    "recurrent_runs": {
        "group": [{"seed": 0, "rank": 2}, {"seed": 1, "rank": 5}], "task": "choice", "width": 5,
        "gain": 1.25, "trials": 30, "batch_size": 10, "rate": 0.01, "steps": 4, "moments": 2,
        "probe": 6,
    },
}  # fmt: skip


class Recurrent(nn.Module):
    """x (n, T, p) to the outputs of the last step (n, c), or of every step (n, T, c)."""

    def __init__(self, inputs: int, width: int, outputs: int, *, every: bool) -> None:
        super().__init__()
        self.into = nn.Linear(inputs, width, bias=False)
        self.within = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, outputs, bias=False)
        self.every = every

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        h = x.new_zeros(x.shape[0], self.within.in_features)
        found = []
        for part in self.into(x).unbind(1):
            h = torch.relu(part + self.within(h))
            found.append(h)
        out: Tensor = self.out(torch.stack(found, 1) if self.every else h)
        return out


def image_rows(x: Tensor) -> Tensor:
    """Images (n, d), channel by channel, as sequences of rows (n, side, channels · side).

    Raises ValueError unless d is that of square images with one or three channels.
    """
    for channels in (1, 3):
        side = round((x.shape[1] / channels) ** 0.5)
        if channels * side**2 == x.shape[1]:
            rows: Tensor = x.reshape(-1, channels, side, side).transpose(1, 2).flatten(2)
            return rows
    raise ValueError(f"x must hold square images of one or three channels, got d = {x.shape[1]}")


def rank_start(drawn: Tensor, rank: int) -> Tensor:
    """The `rank` largest singular values of a matrix (N, N), rescaled to its Frobenius norm."""
    left, s, right = torch.linalg.svd(drawn.double())
    kept = (left[:, :rank] * s[:rank]) @ right[:rank]
    start: Tensor = (kept * (drawn.double().norm() / kept.norm())).to(drawn.dtype)
    return start


def kernel_factors(tensors: Mapping[str, Tensor], x: Tensor, *, every: bool) -> Tensor:
    """J (n · outputs, N²): derivatives of all outputs of one network by W, by hand.

    tensors : "into.weight", "within.weight", "out.weight". With δ_t = ∂f/∂(input of step t) the
    derivative is Σ_t δ_t h_{t-1}ᵀ; the first step has no h before it.
    """
    w, out = tensors["within.weight"], tensors["out.weight"]
    h = _units(tensors, x)
    last = len(h) - 1
    rows = []
    for end in range(1, last + 1) if every else (last,):
        delta = out[None] * (h[end] > 0)[:, None]  # (n, outputs, N)
        total = torch.einsum("nci,nj->ncij", delta, h[end - 1])
        for t in range(end - 1, 0, -1):
            delta = (delta @ w) * (h[t] > 0)[:, None]
            total += torch.einsum("nci,nj->ncij", delta, h[t - 1])
        rows.append(total.flatten(2))
    return torch.stack(rows, 1).flatten(0, 2)


def kernel_of(tensors: Mapping[str, Tensor], x: Tensor, *, every: bool) -> Tensor:
    """K = J Jᵀ of `kernel_factors`, without J: with a row's δ_t and units h_{t-1} the entries are
    Σ_{t, t'} (δ_t · δ'_t') (h_{t-1} · h'_{t'-1})."""
    w, out = tensors["within.weight"], tensors["out.weight"]
    h = _units(tensors, x)
    last, n, c = len(h) - 1, len(x), len(out)
    ends = range(1, last + 1) if every else (last,)
    back: dict[int, list[Tensor]] = {}  # t -> δ_t (n, c, N) of the ends from t on
    for end in ends:
        delta = out[None] * (h[end] > 0)[:, None]
        for t in range(end, 1, -1):  # the first step has no h before it
            back.setdefault(t, []).append(delta)
            delta = (delta @ w) * (h[t - 1] > 0)[:, None]
    rows = {t: torch.stack(parts).flatten(0, 2) for t, parts in back.items()}
    total = x.new_zeros(len(ends), n, c, len(ends), n, c)
    for t, mine in rows.items():
        for s, theirs in rows.items():
            if s > t:
                continue
            units = (h[t - 1] @ h[s - 1].T)[:, None, None, :, None]
            i, j = len(mine) // (n * c), len(theirs) // (n * c)
            part = (mine @ theirs.T).view(i, n, c, j, n, c).mul_(units)
            total[-i:, :, :, -j:] += part
            if s < t:
                total[-j:, :, :, -i:] += part.permute(3, 4, 5, 0, 1, 2)
    size = len(ends) * n * c
    return total.permute(1, 0, 2, 4, 3, 5).reshape(size, size)


def _units(tensors: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Activities before and after every step, T + 1 of (n, N)."""
    h = [x.new_zeros(len(x), len(tensors["within.weight"]))]
    for part in (x @ tensors["into.weight"].T).unbind(1):
        h.append(torch.relu(part + h[-1] @ tensors["within.weight"].T))
    return h


def _choice_trials(trials: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two noisy stimuli, one stronger: x (trials, 8, 3), fixation first, and y (trials, 8)."""
    strength = torch.tensor(COHERENCES)[
        torch.randint(len(COHERENCES), (trials,), generator=generator)
    ]
    side = torch.randint(2, (trials,), generator=generator)
    signed = torch.where(side == 1, strength, -strength) / 200
    x = torch.zeros(trials, STEPS, 3)
    x[:, :-1, 0] = 1.0
    means = torch.stack([0.5 - signed, 0.5 + signed], 1)[:, None]
    x[:, :-1, 1:] = means + 0.1 * torch.randn(trials, STEPS - 1, 2, generator=generator)
    y = torch.zeros(trials, STEPS, dtype=torch.long)
    y[:, -1] = 1 + side
    return x, y


def recurrent_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], task: str, width: int, gain: float,
    trials: int, batch_size: int, rate: float, steps: int, moments: int, probe: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed and a rank, trained by SGD with momentum 0.9.

    task : "rows", images read row by row, the class at the last step; "choice", two-alternative
    forced choice, cross-entropy at every step. `trials` of them, and `probe` more for what is
    measured; W0 is that of `rank_start` for gain N(0, 1/N), the same draw for every rank of a seed.

    at (T,) : updates done, 0 and about `moments` + 1 more. loss, accuracy, kernel, representation,
    weights (T,) : on the probe batch (accuracy at the last step). update_rank () : exponential of
    the entropy of the squared singular values of W - W0. beyond () : singular values of W over 2 g,
    where those of the full-rank start end. means (2,) : correlation of row and column means of W,
    at start and end. A network that diverged has NaN for all but at, loss and accuracy.
    """
    every = choice("task", task, TASKS) == "choice"
    starts, xs, ys = [], [], []
    for member in group:
        generator = torch.Generator().manual_seed(int(member["seed"]))
        if every:
            x, y = _choice_trials(trials + probe, generator)
        else:
            order = torch.randperm(len(data.y_train), generator=generator)[: trials + probe]
            x, y = image_rows(data.x_train[order].float()), data.y_train[order]
        outputs = CHOICES if every else data.n_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(member["seed"]))
            model = Recurrent(x.shape[-1], width, outputs, every=every)
            drawn = gain * torch.randn(width, width) / width**0.5
        with torch.no_grad():
            model.within.weight.copy_(rank_start(drawn, int(member["rank"])))
        starts.append(model)
        xs.append(x)
        ys.append(y)
    x_all, y_all = torch.stack(xs), torch.stack(ys)
    x_probe, y_probe = x_all[:, trials:], y_all[:, trials:]
    seeds = [int(member["seed"]) for member in group]
    orders = [
        epoch_batches(x[:trials], y[:trials], batch_size=batch_size, seeds=[seed])
        for x, y, seed in zip(xs, ys, seeds, strict=True)
    ]

    def batch(step: int) -> tuple[Tensor, Tensor]:
        parts = [order(step) for order in orders]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def loss(output: Tensor, y: Tensor) -> Tensor:  # torch's own is slow under vmap
        log_p = output.log_softmax(-1).flatten(0, -2)
        classes = torch.arange(log_p.shape[-1])
        return -(log_p * (y.flatten()[:, None] == classes)).sum(1).mean()

    def looked(now: Stack) -> Tensor:
        """Loss and accuracy, (S, 2)."""
        out = now(x_probe, own=True)
        losses = torch.stack([loss(o, y) for o, y in zip(out, y_probe, strict=True)])
        end, labels = (out[:, :, -1], y_probe[:, :, -1]) if every else (out, y_probe)
        accuracy = (end.argmax(-1) == labels).float().mean(1)
        return torch.stack([losses, accuracy], 1)

    first: list[Tensor] = []  # each member's kernel before training

    def kernels(now: Stack) -> Tensor:
        """Alignment with the first kernel, (S,)."""
        found = []
        for s in range(len(now)):
            tensors = {name: tensor[s].double() for name, tensor in now.tensors.items()}
            k = kernel_of(tensors, x_probe[s].double(), every=every)
            if len(first) == s:
                first.append(k)
            found.append((k * first[s]).sum() / (k.norm() * first[s].norm()))
        return torch.stack(found)

    def gram(now: Stack) -> Tensor:
        found = []
        for s in range(len(now)):
            tensors = {name: tensor[s].double() for name, tensor in now.tensors.items()}
            h = _units(tensors, x_probe[s].double())[-1]
            found.append(h @ h.T)
        return torch.stack(found)

    at = sorted({0, *np.geomspace(1, steps, moments + 1).round().astype(int).tolist()})
    _, kept = train_stack(
        stack(starts), batch, loss, steps=steps, lr=rate, optimizer="momentum", own="xy", at=at,
        record={
            "looked": looked, "kernel": kernels, "gram": gram,
            "w": lambda now: now.tensors["within.weight"],
        },
    )  # fmt: skip
    w = kept["w"].double()
    lost = ~w[-1].flatten(1).isfinite().all(1)
    w = w.masked_fill(lost[:, None, None], 0.0)  # torch's decompositions take no NaN
    moved = (w - w[0]).flatten(2).norm(dim=2)
    update = torch.linalg.svdvals(w[-1] - w[0]).square()
    share = update / update.sum(1, keepdim=True)
    entropy = -(share * share.clamp_min(1e-300).log()).sum(1)
    ends = torch.stack([w[0], w[-1]], 1)
    out = {
        "at": torch.tensor(at).expand(len(group), -1),
        "loss": kept["looked"][..., 0].T,
        "accuracy": kept["looked"][..., 1].T,
        "kernel": kept["kernel"].T,
        "representation": _alignment(kept["gram"]).T,
        "weights": moved.T,
        "update_rank": entropy.exp(),
        "beyond": (torch.linalg.svdvals(w[-1]) > 2 * gain).sum(1),
        "means": _correlation(ends.mean(3), ends.mean(2)),
    }
    for name in ("kernel", "representation", "weights", "update_rank", "beyond", "means"):
        out[name] = out[name].double()
        out[name][lost] = torch.nan
    return {name: value.numpy() for name, value in out.items()}


def _alignment(grams: Tensor) -> Tensor:
    """<G_t, G_0> / (|G_t| |G_0|) for (T, S, n, n): (T, S)."""
    flat = grams.flatten(2)
    found: Tensor = (flat * flat[0]).sum(2) / (flat.norm(dim=2) * flat[0].norm(dim=1))
    return found


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation along the last axis."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    found: Tensor = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return found
