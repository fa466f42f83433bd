"""The stored runs of notebook 35: networks grown and shrunk by every method, on equal terms.

One run a seed. A network of width `small` (the source) and one of width `large` are trained from
their starts; after `before` steps the source is grown, and the large one shrunk, by every method,
and each goes on for `after` steps with the batches, the rate and the optimiser of those from
scratch. The large network's start is also what every method draws new values from. Recombination
gets a second source, of another start and other batches, trained as long.

SGD has no state. With Adam the running means begin anew for all, since few of the methods say what
becomes of them; so does the warm-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.beyond.growth_tasks import Images, Task, Text, evaluations
from rclib.nets.gpt import GPT
from rclib.resizing.copying import Network
from rclib.resizing.growing import GROWTH, SHRINKING, Given
from rclib.runs.store import Arrays

__all__ = ["TINY", "gpt_run", "mlp_run"]

SECOND = 500_000  # added to a seed for the second source
RANK = 1e-4  # singular values below this share of the largest one count as zero
_PLAN = {
    "small": 8, "large": 16, "before": 2, "after": 2, "every": 1, "small_steps": 5,
    "methods": [*GROWTH], "shrinking": [*SHRINKING],
}  # fmt: skip
_GROUP = {"group": [{"seed": 0}, {"seed": 1}], "parametrization": "muP", "plan": _PLAN}
TINY = {
    "mlp_run": {
        "lr": 0.1, "batch_size": 16, "n_train": 48, "n_test": 20, "pool": 1, **_GROUP,
    },
    "gpt_run": {
        "lr": 0.01, "batch_size": 4, "blocks": 2, "context": 8, "head_size": 4, "warmup": 1,
        "n_test": 4, **_GROUP,
    },
}  # fmt: skip


def _compare(task: Task, group: Sequence[Mapping[str, int]], plan: Mapping[str, Any]) -> Arrays:
    """The run of the module's docstring for every seed of `group`, rows a seed.

    plan : widths `small` and `large`, steps `before`, `after`, `every` and `small_steps`, and the
    names `methods` and `shrinking`. For A methods, B of shrinking, T evaluations of `after`:
    `small` and `large`, test losses from scratch at `evaluations` of small_steps and of before +
    after; `at_source` (2,), those of the source and of the large network after `before`; `grown`
    (A, T); `shrunk` (B, T); `changed` (A,), largest change of an output at growth over the largest
    output; `rank` (A, 2), share of the singular values of the last hidden matrix that are not
    zero, after growth and at the end.
    """
    seeds = [int(one["seed"]) for one in group]
    small, large, before, after, every, small_steps = (
        int(plan[k]) for k in ("small", "large", "before", "after", "every", "small_steps")
    )
    methods, shrinking = list(plan["methods"]), list(plan["shrinking"])
    total, steps = before + after, evaluations(after, every)
    starts = {
        "source": [task.build(small, 10_000 * s + small) for s in seeds],
        "second": [task.build(small, 10_000 * (s + SECOND) + small) for s in seeds],
        "large": [task.build(large, 10_000 * s + large) for s in seeds],
    }
    at_small = sorted({*evaluations(small_steps, every), before})
    at_large = sorted({*evaluations(total, every), before})
    _, narrow = task.train(
        starts["source"], seeds, first=0, steps=small_steps, at=at_small, kept=before
    )
    others = [s + SECOND for s in seeds]
    second, _ = task.train(starts["second"], others, first=0, steps=before, at=[])
    _, wide = task.train(starts["large"], seeds, first=0, steps=total, at=at_large, kept=before)

    grown: list[Network] = []
    shrunk: list[Network] = []
    changed, rank = np.zeros((len(seeds), len(methods))), np.zeros((len(seeds), len(methods), 2))
    for i, seed in enumerate(seeds):
        own, new = starts["source"][i], starts["large"][i]
        source = own.like(small, {n: t[i] for n, t in narrow.items() if n != "test"})
        trained = new.like(large, {n: t[i] for n, t in wide.items() if n != "test"})
        given = Given(
            source,
            new,
            seed,
            own.like(small, second.member(i)),
            (own.state_dict(), starts["second"][i].state_dict()),
        )
        back = Given(trained, own, seed, x=task.inputs)
        grown += [new.like(large, GROWTH[m].make(given)) for m in methods]
        shrunk += [own.like(small, SHRINKING[m].make(back)) for m in shrinking]
        for a, model in enumerate(grown[-len(methods) :]):
            changed[i, a] = _change(source, model, task.looked_at)
            rank[i, a, 0] = _rank(model)
    each = [s for s in seeds for _ in methods]
    ended, curves = task.train(grown, each, first=before, steps=after, at=steps)
    for k in range(len(grown)):
        grown[k].load_state_dict(ended.member(k))
        rank[k // len(methods), k % len(methods), 1] = _rank(grown[k])
    each = [s for s in seeds for _ in shrinking]
    _, lower = task.train(shrunk, each, first=before, steps=after, at=steps)

    def rows(losses: Tensor) -> np.ndarray:
        return losses.t().numpy().reshape(len(seeds), -1, len(steps))

    def chosen(run: Mapping[str, Tensor], at: list[int], last: int) -> np.ndarray:
        places = [at.index(s) for s in evaluations(last, every)]
        return run["test"][places].t().numpy()

    at_source = [narrow["test"][at_small.index(before)], wide["test"][at_large.index(before)]]
    return {
        "small": chosen(narrow, at_small, small_steps),
        "large": chosen(wide, at_large, total),
        "at_source": torch.stack(at_source, 1).numpy(),
        "grown": rows(curves["test"]),
        "shrunk": rows(lower["test"]),
        "changed": changed,
        "rank": rank,
    }


@torch.no_grad()
def _change(source: Network, model: Network, x: Tensor) -> float:
    own = source(x)
    return float((model(x) - own).abs().max() / own.abs().max())


def _rank(model: Network) -> float:
    """Share of the singular values of the last hidden matrix that are above `RANK`."""
    if isinstance(model, GPT):
        w = model.matrices()[f"blocks.{len(model.blocks) - 1}.Wo"]
    else:
        w = model.get_parameter(f"W{model.depth - 1}").detach()
    values = torch.linalg.svdvals(w.double())
    return float((values > RANK * values[0]).double().mean())


def mlp_run(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    plan: Mapping[str, Any],
    parametrization: str,
    lr: float,
    batch_size: int,
    n_train: int,
    n_test: int,
    pool: int,
) -> Arrays:
    """Stored run of a group of seeds on images, by SGD; see `_compare` for what it returns.

    pool : side of the squares of pixels that are averaged, 1 for none.
    """
    task = Images(data, parametrization, lr, batch_size, (pool, n_train, n_test))
    return _compare(task, group, plan)


def gpt_run(
    data: TextData,
    *,
    group: Sequence[Mapping[str, int]],
    plan: Mapping[str, Any],
    parametrization: str,
    lr: float,
    batch_size: int,
    warmup: int,
    n_test: int,
    blocks: int,
    context: int,
    head_size: int,
) -> Arrays:
    """Stored run of a group of seeds on text, by Adam; see `_compare` for what it returns."""
    task = Text(
        data, lr, batch_size, warmup, n_test, parametrization=parametrization, blocks=blocks,
        context=context, head_size=head_size,
    )  # fmt: skip
    return _compare(task, group, plan)
