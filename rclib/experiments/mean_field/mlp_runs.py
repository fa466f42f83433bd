"""Training runs of fully connected networks and what becomes of them at other widths.

Used by the notebooks of paper A, Figures 4.1 (heat maps), 4.2 (correlation matrices) and 4.3
(training and transfer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.nets.init import Init
from rclib.nets.mlp import MLP
from rclib.resizing import mlp
from rclib.rowcolumn import measure
from rclib.runs import store, sweep
from rclib.training.classifier import train

__all__ = [
    "build_mlp",
    "configuration",
    "restore",
    "runs_needed",
    "train_mlp",
    "transferred_run",
    "zero_shot",
]

Arrays = dict[str, np.ndarray]


def build_mlp(data: Dataset, network: Mapping[str, Any], *, seed: int) -> MLP:
    """An `MLP` for `data` from a JSON-able description.

    network : arguments of `MLP`, with `init` and `bias_init` as {"kind", "mean", "scale"} and
        `init` optionally as {layer type: {...}}.
    Raises ValueError if it gives no width.
    """
    options = dict(network)
    if "width" not in options:
        raise ValueError(f"network must give a width, got {options}")
    if "init" in options:
        law = options["init"]
        options["init"] = (
            {kind: Init(**one) for kind, one in law.items()}
            if any(isinstance(one, Mapping) for one in law.values())
            else Init(**law)
        )
    if "bias_init" in options:
        options["bias_init"] = Init(**options["bias_init"])
    return MLP(data.x_train.shape[1], options.pop("width"), data.n_classes, seed=seed, **options)


def configuration(
    *,
    width: int,
    seed: int,
    epochs: int,
    lr: float,
    batch_size: int,
    snapshots: Sequence[int] = (),
    keep: Sequence[str] = (),
    **network: Any,
) -> dict[str, Any]:
    """The configuration of a `train_mlp` run; extra arguments describe the network.

    One spelling for all notebooks, so that runs they share are found in the store.
    """
    return {
        "network": {"width": width, **network},
        "seed": seed,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "snapshots": list(snapshots),
        "keep": list(keep),
    }


def train_mlp(
    data: Dataset,
    *,
    network: Mapping[str, Any],
    seed: int,
    epochs: int,
    lr: float,
    batch_size: int,
    snapshots: Sequence[int] = (),
    keep: Sequence[str] = (),
) -> Arrays:
    """Train one network; SGD, batches in an order fixed by the seed.

    Returns `train_loss`, `test_loss`, `test_accuracy` (epochs + 1,), and for each epoch e of
    `snapshots` the mean vectors `e/mean/<index>/<label>` (N,) and the tensors `e/<name>` named
    in `keep` ("*" for all).
    """
    model = build_mlp(data, network, seed=seed)
    history = train(
        model,
        data,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        seed=seed,
        snapshots=snapshots,
        progress=False,
    )
    out = {
        "train_loss": history.train_loss.numpy(),
        "test_loss": history.test_loss.numpy(),
        "test_accuracy": history.test_accuracy.numpy(),
    }
    for epoch, state in history.snapshots.items():
        for index, group in measure.mean_vectors(state, model.axes).items():
            for label, vector in group.items():
                out[f"{epoch}/mean/{index}/{label}"] = vector.numpy()
        for name, tensor in state.items():
            if "*" in keep or name in keep:
                out[f"{epoch}/{name}"] = tensor.numpy()
    return out


def restore(data: Dataset, source: Mapping[str, Any], epoch: int) -> tuple[MLP, Arrays]:
    """The network of a `train_mlp` run (kept whole) as it was after `epoch`, and the run.

    Raises ValueError if the run kept nothing of that epoch.
    """
    run = store.fetch(train_mlp, source, data=data)
    model = build_mlp(data, source["network"], seed=int(source["seed"]))
    state: dict[str, Tensor] = {}
    for name in model.state_dict():
        if f"{epoch}/{name}" not in run:
            raise ValueError(f"the source run kept no {name!r} after epoch {epoch}")
        state[name] = torch.from_numpy(run[f"{epoch}/{name}"].copy())
    model.load_state_dict(state)
    return model, run


def transferred_run(
    data: Dataset,
    *,
    source: Mapping[str, Any],
    epoch: int,
    width: int,
    random_rate: float,
    norm_rate: float,
    epochs: int,
) -> Arrays:
    """Transfer a trained network to another width after `epoch` and train on (Figure 4.3 b-f).

    `epochs` is the last epoch's number. Returns `train_loss`, `test_loss`, `test_accuracy`
    (epochs - epoch + 1,); entry 0 is right after the transfer (zero-shot). `copy_spread` is how
    far apart the rows of W1 are at the end that were copies of one neuron: their root mean
    square distance from the first copy, over the root mean square of the entries.
    Raises ValueError for a last epoch before the transfer.
    """
    if epochs < epoch:
        raise ValueError(f"epochs must be at least the transfer epoch {epoch}, got {epochs}")
    seed = int(source["seed"])
    small, _ = restore(data, source, epoch)
    model = mlp.resize(small, width, random_rate=random_rate, norm_rate=norm_rate, seed=seed)
    origin = mlp.resize_maps(small, width, random_rate=random_rate, seed=seed)["W1", 0]
    history = train(
        model,
        data,
        epochs=epochs - epoch,
        lr=source["lr"],
        batch_size=source["batch_size"],
        seed=seed + 1000 * epoch,  # not the batches that the source has seen, in that order
        first_epoch=epoch,
        progress=False,
    )
    return {
        "train_loss": history.train_loss.numpy(),
        "test_loss": history.test_loss.numpy(),
        "test_accuracy": history.test_accuracy.numpy(),
        "copy_spread": np.asarray(_copy_spread(model.get_parameter("W1").detach(), origin)),
    }


def _copy_spread(rows: Tensor, origin: Tensor) -> float:
    same = origin[:, None] == origin[None, :]
    first = same.to(torch.int8).argmax(1)  # first new neuron with the same source
    return float((rows - rows[first]).square().mean().sqrt() / rows.square().mean().sqrt())


def zero_shot(
    data: Dataset,
    *,
    source: Mapping[str, Any],
    epoch: int,
    widths: Sequence[int],
    draws: int,
    random_rates: Sequence[float] = (0.0,),
    norm_rates: Sequence[float] = (1.0,),
    reference: Mapping[str, Any] | None = None,
) -> Arrays:
    """Losses right after transfers of one source network, without training.

    Returns arrays over (width, random rate, norm rate, draw): `loss`, `accuracy` on the test
    set, and `distance`, the root mean square difference of the logits from those of the source
    network, or of `reference` (another `train_mlp` run, same epoch) if given. `source_loss`,
    `source_accuracy` and `start_loss` (at initialisation) are scalars.
    """
    model, run = restore(data, source, epoch)
    other = restore(data, reference, epoch)[0] if reference is not None else model
    shape = (len(widths), len(random_rates), len(norm_rates), draws)
    loss, accuracy, distance = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    with torch.no_grad():
        target = other(data.x_test)
        for at in np.ndindex(*shape):
            moved = mlp.resize(
                model,
                widths[at[0]],
                random_rate=random_rates[at[1]],
                norm_rate=norm_rates[at[2]],
                seed=at[3],
            )
            logits = moved(data.x_test)
            loss[at] = float(torch.nn.functional.cross_entropy(logits, data.y_test))
            accuracy[at] = float((logits.argmax(1) == data.y_test).double().mean())
            distance[at] = float((logits - target).square().mean().sqrt())
    return {
        "loss": loss,
        "accuracy": accuracy,
        "distance": distance,
        "source_loss": np.asarray(run["test_loss"][epoch]),
        "source_accuracy": np.asarray(run["test_accuracy"][epoch]),
        "start_loss": np.asarray(run["test_loss"][0]),
    }


def runs_needed(config: Mapping[str, Any]) -> list[sweep.Need]:
    """The `train_mlp` runs that a `transferred_run` or `zero_shot` fetches: a sweep's `needs`."""
    return [(train_mlp, config[key]) for key in ("source", "reference") if config.get(key)]
