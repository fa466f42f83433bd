"""A low-rank start out of what a layer gets: EVA.

Inputs X (n, i) of a layer on data of the new task are decomposed batch by batch; rows of A are the
main right singular vectors, B = 0. Layers whose directions explain more get more of a common budget
of ranks (`redistributed`).

Paischer et al. 2024 (arXiv 2410.07170). The paper speaks of singular vectors; both of its
implementations subtract the mean of X first (`centred`), which is a principal component analysis.
The update is that of Ross et al. 2008 (doi 10.1007/s11263-007-0075-7), which scikit-learn's
IncrementalPCA takes too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.adapters.low_rank import LowRank, checked_inputs
from rclib.adapters.method import generator_of
from rclib.checks.arguments import brief, choice, count, flag, number

__all__ = ["EVA", "IncrementalSVD", "decomposed", "redistributed"]

ROWS = ("top", "bottom", "permuted")


class IncrementalSVD:
    """The main `components` right singular vectors of rows that come in batches.

    centred : of the rows minus their mean. Sign: the entry of largest size is positive.

    directions (k, i) float64, orthonormal rows; values (k,), their singular values, descending;
    rows : seen so far; mean (i,). Raises ValueError naming the argument.
    """

    def __init__(self, components: int, *, centred: bool = True) -> None:
        self.components = count("components", components)
        self.centred = flag("centred", centred)
        self.rows = 0
        self.directions, self.values = torch.empty(0), torch.empty(0)
        self.mean, self._squares = torch.zeros(()), torch.zeros(())

    def update(self, batch: Tensor) -> None:
        """Take rows (m, i) in. Raises ValueError if they are of another length than the first."""
        if batch.ndim != 2 or len(batch) == 0:
            raise ValueError(f"batch must have shape (m, i), got {brief(batch)}")
        if self.rows and batch.shape[1] != self.directions.shape[1]:
            raise ValueError(
                f"batch must have rows of {self.directions.shape[1]}, got {batch.shape[1]}"
            )
        batch = batch.detach().double()
        own = batch.mean(0) if self.centred else torch.zeros_like(batch[0])
        pieces, total = [batch - own], self.rows + len(batch)
        self._squares = self._squares + pieces[0].square().sum()
        if self.rows:
            pieces.insert(0, self.values[:, None] * self.directions)
            if self.centred:
                apart = math.sqrt(self.rows * len(batch) / total) * (self.mean - own)
                pieces.append(apart[None])
                self._squares = self._squares + apart.square().sum()
        self.mean = (self.rows * self.mean + len(batch) * own) / total
        _, values, vh = torch.linalg.svd(torch.cat(pieces), full_matrices=False)
        vh, self.values = vh[: self.components], values[: self.components]
        largest = vh.gather(1, vh.abs().argmax(1, keepdim=True))
        self.directions, self.rows = vh * torch.sign(largest), total

    @property
    def explained(self) -> Tensor:
        """(k,), share of each direction in the (centred) sum of squares of all rows."""
        return self.values.square() / self._squares


def decomposed(
    inputs: Tensor, components: int, *, centred: bool, batch_size: int | None, tau: float
) -> IncrementalSVD:
    """Batches of the inputs, until every direction's cosine with its last place is at least tau."""
    found = IncrementalSVD(components, centred=centred)
    for batch in inputs.split(len(inputs) if batch_size is None else batch_size):
        before = found.directions
        found.update(batch)
        if before.shape == found.directions.shape and bool(
            ((before * found.directions).sum(1).abs() >= tau).all()
        ):
            break
    return found


@dataclass(frozen=True)
class EVA(LowRank):
    """A = main directions of the layer's inputs, B = 0, base = W.

    which : "top", "bottom" (the directions of least variance, a control) or "permuted" (the top
    ones with the entries of every row in random places: the same norms, no direction). centred :
    subtract the mean of the inputs. whiten : divide row c by √σ_c, the singular value over all
    rows. batch_size, tau : take batches until directions turn no more; None takes all at once.
    kept : after `redistributed`, rows of A beyond it are zero and remain so; s = α/r is that of
    `rank`.

    Raises ValueError naming the argument.
    """

    which: str = "top"
    centred: bool = True
    whiten: bool = False
    batch_size: int | None = None
    tau: float = 0.99
    kept: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("which", self.which, ROWS)
        flag("centred", self.centred)
        flag("whiten", self.whiten)
        if self.batch_size is not None:
            count("batch_size", self.batch_size)
        if not 0 < number("tau", self.tau) <= 1:
            raise ValueError(f"tau must lie in (0, 1], got {self.tau!r}")
        if self.kept is not None and not 0 <= count("kept", self.kept, 0) <= self.rank:
            raise ValueError(f"kept must be at most rank = {self.rank}, got {self.kept}")

    def start(
        self, weight: Tensor, *, seed: int = 0, inputs: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As the class says. Raises ValueError without inputs, or with fewer than r of them."""
        weight = self._checked(weight)
        x = checked_inputs(weight, inputs)
        everything = self.which == "bottom"
        found = decomposed(
            x, weight.shape[1] if everything else self.rank, centred=self.centred,
            batch_size=self.batch_size, tau=self.tau,
        )  # fmt: skip
        rows, values = found.directions, found.values
        if len(rows) < self.rank:
            raise ValueError(f"inputs must be at least rank = {self.rank}, got {len(x)}")
        rows, values = (t[-self.rank :] if everything else t[: self.rank] for t in (rows, values))
        if self.which == "permuted":
            generator = generator_of(seed)
            order = [torch.randperm(rows.shape[1], generator=generator) for _ in rows]
            rows = rows.gather(1, torch.stack(order))
        if self.whiten:
            rows = rows / values.sqrt()[:, None]
        if self.kept is not None:
            rows = rows.clone()
            rows[self.kept :] = 0.0
        return self._idle(weight, rows)

    def trained_count(self, rows: int, columns: int) -> int:
        """kept (rows + columns)."""
        per_rank = super().trained_count(rows, columns) // self.rank
        return per_rank * (self.rank if self.kept is None else self.kept)


def redistributed(explained: Sequence[Tensor], rank: int, rho: float = 2.0) -> list[int]:
    """Ranks of L layers out of a budget of L · rank.

    explained : the shares of each layer's directions, descending. The first ⌊rank · rho⌋ of every
    layer are pooled and the L · rank largest kept, earlier layers first where two are equal.

    Raises ValueError for rho below one and for layers that have too few directions.
    """
    rank = count("rank", rank)
    if not 1 <= number("rho", rho) < math.inf:
        raise ValueError(f"rho must be at least 1 and finite, got {rho!r}")
    most = int(rank * rho)
    if not explained or any(len(shares) < most for shares in explained):
        raise ValueError(f"explained must hold {most} shares a layer, got {brief(explained)}")
    pool = torch.cat([shares[:most].double() for shares in explained])
    kept = pool.argsort(descending=True, stable=True)[: rank * len(explained)]
    return torch.bincount(kept // most, minlength=len(explained)).tolist()
