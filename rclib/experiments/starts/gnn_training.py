"""Frames of notebook 54 on training: accuracy, gradients, and what is left of a start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.starts.gnn_init import Runs, in_order
from rclib.experiments.starts.gnn_init_runs import training_runs
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.spectral.survival import loss_gain

__all__ = [
    "accuracy_gain",
    "best",
    "flat",
    "gradients",
    "learning",
    "matrices",
    "stopped",
    "three_numbers",
    "trained",
    "training_values",
]


def trained(
    data: Dataset, seeds: Sequence[int], networks: Mapping[str, Mapping[str, Any]], **shared: Any
) -> Runs:
    """Networks trained on every setting of `networks` (name -> arguments of `training_runs`)."""
    rows, configs = [], []
    for name, own in networks.items():
        for seed in seeds:
            rows.append((name, seed, tuple(own["arms"])))
            configs.append({**shared, **own, "seed": seed})

    def swept(chosen: list[dict[str, Any]], source: Dataset | None) -> list[Arrays]:
        return sweep.run(training_runs, chosen, data=source, description="networks")

    runs = in_order(configs, data, swept)
    return Runs(pd.DataFrame(rows, columns=["setting", "seed", "arms"]), runs)


def learning(found: Runs) -> pd.DataFrame:
    """setting, seed, arm, step, loss, valid, test."""
    frames = []
    for key, run in zip(found.keys.itertuples(index=False), found.runs, strict=True):
        for a, arm in enumerate(key.arms):
            columns = {name: run[name][a] for name in ("loss", "valid", "test")}
            named = {"setting": key.setting, "seed": key.seed, "arm": arm}
            frames.append(
                pd.DataFrame({**named, "step": np.arange(len(columns["loss"])), **columns})
            )
    return pd.concat(frames, ignore_index=True)


def best(frame: pd.DataFrame, patience: int | None) -> pd.DataFrame:
    """setting, seed, arm, test, stopped: test accuracy at the best validation accuracy.

    patience : updates without a better one before it ends, as in the authors' code (equal is not
        better); None for all updates. stopped : updates made.
    """
    rows = []
    for key, part in frame.groupby(["setting", "seed", "arm"], sort=False):
        valid, test = part.valid.to_numpy()[1:], part.test.to_numpy()[1:]
        top, last = 0, len(valid)
        for t in range(1, len(valid)):
            if valid[t] > valid[top]:
                top = t
            elif patience is not None and t - top >= patience:
                last = t + 1
                break
        rows.append((*key, float(test[top]), last))
    return pd.DataFrame(rows, columns=["setting", "seed", "arm", "test", "stopped"])


def accuracy_gain(
    frame: pd.DataFrame, setting: str, arm: str, over: str, *, step: int | None = None
) -> pd.Series:
    """Test accuracy of one arm minus that of another by seed, of `best` or `learning` (step)."""
    own = frame[frame.setting == setting]
    if step is not None:
        own = own[own.step == step]
    table = own.pivot_table(index="seed", columns="arm", values="test")
    return (table[arm] - table[over]).rename("gain")


def gradients(found: Runs, setting: str) -> pd.DataFrame:
    """seed, arm, layer, square: log10 of the mean square of each matrix' gradient at the start."""
    frames = []
    for key, run in zip(found.keys.itertuples(index=False), found.runs, strict=True):
        if key.setting == setting:
            for a, arm in enumerate(key.arms):
                logs = np.log10(run["gradients"][a])
                columns = {"layer": np.arange(1, len(logs) + 1), "square": logs}
                frames.append(pd.DataFrame({"seed": key.seed, "arm": arm, **columns}))
    return pd.concat(frames, ignore_index=True)


def matrices(found: Runs) -> pd.DataFrame:
    """One row a network: setting, seed, arm, spikes of the first and last matrix (first_0,
    first_early, first_end, last_0, ...), means_start, means_end, and of the first (1) and the
    middle matrix (2) moved, kept and products."""
    rows = []
    for key, run in zip(found.keys.itertuples(index=False), found.runs, strict=True):
        for a, arm in enumerate(key.arms):
            row = {"setting": key.setting, "seed": key.seed, "arm": arm}
            for m, moment in enumerate(("0", "early", "end")):
                row[f"first_{moment}"], row[f"last_{moment}"] = run["spikes"][a, m].tolist()
            row["means_start"], row["means_end"] = run["means"][a].tolist()
            for name in ("moved", "kept", "products"):
                row[f"{name}_1"], row[f"{name}_2"] = run[name][a].tolist()
            rows.append(row)
    return pd.DataFrame(rows)


def three_numbers(frame: pd.DataFrame, ends: pd.DataFrame, plain: str) -> pd.DataFrame:
    """Means over seeds by setting and arm: moved, kept and products of both matrices, gained and
    lead, loss gained a step and mean lead in loss over the arm `plain` (`loss_gain`)."""
    rows = []
    for (setting, seed), part in frame.groupby(["setting", "seed"], sort=False):
        losses = part.pivot_table(index="step", columns="arm", values="loss")
        for arm in losses:
            gained, lead = loss_gain(losses.index, losses[arm], losses[plain])
            rows.append(
                {"setting": setting, "seed": seed, "arm": arm, "gained": gained, "lead": lead}
            )
    keys = ["setting", "seed", "arm"]
    joined = ends.merge(pd.DataFrame(rows, columns=[*keys, "gained", "lead"]), on=keys)
    names = [f"{name}_{place}" for place in (1, 2) for name in ("moved", "kept", "products")]
    return (
        joined.groupby(["setting", "arm"], sort=False)[[*names, "gained", "lead"]]
        .mean()
        .reset_index()
    )


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose columns have two names each, with one: "test_mean"; the rows' keys as
    columns."""
    named = frame.set_axis(["_".join(names) for names in frame.columns], axis=1)
    return named.reset_index()


def stopped(frame: pd.DataFrame, patience: int) -> pd.DataFrame:
    """`best` with and without patience: rule "patience" and "all updates"."""
    one, other = best(frame, patience), best(frame, None)
    return pd.concat([one.assign(rule="patience"), other.assign(rule="all updates")])


def training_values(
    learning: pd.DataFrame, stops: pd.DataFrame, gradients: pd.DataFrame, ends: pd.DataFrame,
    *, early: int, late: int,
) -> dict[str, pd.Series]:  # fmt: skip
    """What the claims on training are judged by, by seed; settings are "planted" but for
    sum_accuracy ("sum"), deep ("16 layers") and images_xavier, images_kaiming ("images").

    gradients : of that setting. early, late : updates at which accuracies are compared.
    """
    table = gradients.pivot_table(index="seed", columns=["arm", "layer"], values="square")
    last = int(gradients.layer.max()) - 1  # of the hidden matrices
    even = {arm: (table[arm, 1] - table[arm, last]).abs() for arm in ("Virgo", "Xavier")}
    by_rule = {rule: stops[stops.rule == rule] for rule in ("patience", "all updates")}
    mean = "Virgo, plain mean"
    own = ends[ends.setting == "planted"].drop(columns="setting").set_index(["seed", "arm"])
    of = {name: own[name].unstack("arm") for name in own}
    both = [of[name][arm] for name in ("first_end", "last_end") for arm in ("Virgo", "Kaiming")]
    return {
        "gradient_size": table["Virgo", 1] - table["Xavier", 1],
        "gradient_even": even["Virgo"] - even["Xavier"],
        "early": accuracy_gain(learning, "planted", "Virgo", "Xavier", step=early),
        "late": accuracy_gain(learning, "planted", "Virgo", "Kaiming", step=late),
        "sum_accuracy": accuracy_gain(learning, "sum", "Virgo", "Kaiming", step=late),
        "stopped": accuracy_gain(by_rule["patience"], "planted", "Virgo", "Xavier"),
        "unstopped": accuracy_gain(by_rule["all updates"], "planted", "Virgo", "Xavier"),
        "deep": accuracy_gain(by_rule["all updates"], "16 layers", "Virgo", "Kaiming"),
        "images_xavier": accuracy_gain(by_rule["patience"], "images", mean, "Xavier"),
        "images_kaiming": accuracy_gain(by_rule["patience"], "images", mean, "Kaiming"),
        "spikes_learned": pd.concat(both, axis=1).min(axis=1),
        "xavier_no_spike": of["first_early"]["Xavier"],
        "means_learned": of["means_end"]["Virgo"],
        "means_at_chance": of["means_start"]["Virgo"],
    }
