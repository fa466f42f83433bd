"""Notebook 80: identities of the arms, frames, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rclib.adapters.diagonal import LoLDU
from rclib.data.images import Dataset, load
from rclib.experiments.finetuning import bases, factors, loldu, plots_loldu, tuned_runs

BASE: dict[str, Any] = {
    "pool": 1, "width": 12, "classes": 5, "n": 300, "batch_size": 32, "steps": 60, "rate": 0.01,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "base": BASE, "steps": 15, "batch_size": 16,
    "task": {"n_train": 60, "n_validation": 30, "n_test": 40, "head_rate": 0.002},
}  # fmt: skip
RANKS = [3, 6, 12]


@pytest.fixture(scope="module")
def system(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> loldu.Studied:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        arms = loldu.image_arms(RANKS, [1, 2], full=True)
        return loldu.studied(
            digits, arms, [0.01, 0.1], [900], [3, 8], SETTINGS, inputs=64, keep=list(arms)
        )


@pytest.fixture(scope="module")
def found(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> loldu.Factors:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        return loldu.factors(digits, [3, 8], SETTINGS, RANKS)


def changed(system: loldu.Studied, arm: str, seed: int = 3) -> np.ndarray:
    (run,) = (run for key, run in system.runs.items() if key[0] == arm and key[2] == seed)
    return np.asarray(run["change_0"])


def test_a_repaired_start_is_the_same_training(system: loldu.Studied) -> None:
    for start in ("zeros", "uniform"):
        assert system.rates[f"{start}, repaired"] == system.rates["LDU 6"]
        repaired = changed(system, f"{start}, repaired")
        assert np.allclose(repaired, changed(system, "LDU 6"), atol=1e-4)
        assert not np.allclose(changed(system, f"{start}, broken"), repaired, atol=1e-2)
        same = loldu.difference(system.frame, f"{start}, repaired", "LDU 6", "start")
        assert same.abs().max() < 1e-5


def test_what_training_adds_lies_in_the_frames(digits: Dataset, system: loldu.Studied) -> None:
    weight = bases.image_bases(digits, [3], BASE).tensors[bases.ADAPTED[0]][0]
    parts = LoLDU(3).start(weight.double())
    change = torch.from_numpy(changed(system, "LDU 3")).double()
    left, right = torch.linalg.pinv(parts["left"]), torch.linalg.pinv(parts["right"])
    core = left @ change @ right
    off = core - core.diagonal().diag()
    assert float(off.abs().max()) < 1e-4 * float(core.abs().max()) + 1e-5
    assert float(core.abs().max()) > 1e-3
    assert torch.allclose(parts["left"] @ core @ parts["right"], change, atol=1e-4)


def test_the_order_of_inputs_counts_for_ldu_alone(digits: Dataset) -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    task = bases.image_task(digits, [3], base=BASE, task=SETTINGS["task"])
    name = bases.ADAPTED[0]
    turned = bases.Stack(
        {**task.start.tensors, name: task.start.tensors[name][:, :, order]}, task.start.one
    )

    def at(places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = task.at(places)
        return x[..., order], y

    other = bases.Task(turned, task.trained, task.places, at, task.head_rate, task.seeds)
    for spec, same in (
        ({"kind": "SingularValues", "rank": 6}, True), ({"kind": "LoLDU", "rank": 6}, False),
    ):  # fmt: skip
        group = [{"seed": 3, "rate": 0.03, "method": spec}]
        ends = [
            tuned_runs.adapted(t, group, steps=10, batch_size=16, keep=False)["end"]
            for t in (task, other)
        ]
        assert np.allclose(ends[0], ends[1], atol=1e-3) == same, spec


def test_residuals_and_cosines_by_hand() -> None:
    weight = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    pivoted, best = factors.residuals(weight, [0, 1, 2])
    # W = [[1, 0], [1/2, 1]] diag(2, 5/2) [[1, 1/2], [0, 1]]: the second term has the one entry 5/2.
    assert pivoted == pytest.approx([1.0, 2.5**2 / 15, 0.0])
    values = torch.linalg.svdvals(weight.double()).square()
    assert best == pytest.approx([1.0, float(values[1]) / 15, 0.0])
    cosine = factors.cosines(torch.tensor([[1.0, 1.0], [0.0, -2.0]]))
    assert float(cosine[0, 1]) == pytest.approx(2**-0.5)


def test_factors_of_the_pre_trained(digits: Dataset, found: loldu.Factors) -> None:
    weight = bases.image_bases(digits, [8], BASE).tensors[bases.ADAPTED[1]][0].double()
    lower = torch.linalg.lu(weight)[1]
    unit = lower / lower.norm(dim=0)
    gram = (unit.T @ unit)[~torch.eye(12, dtype=torch.bool)]
    own = found.table[(found.table.seed == 8) & (found.table.layer == 2)].iloc[0]
    assert own.columns == pytest.approx(12 * float(gram.square().mean()))
    assert own.largest_column == pytest.approx(float(gram.abs().max()))
    assert own.condition_left == pytest.approx(float(torch.linalg.cond(lower)))
    values = found.values[(found.values.seed == 8) & (found.values.layer == 2)]
    assert np.log(values.pivots).sum() == pytest.approx(np.log(values.singular).sum())
    ends = found.residual.groupby("rank").share.agg(["min", "max"])
    assert ends.loc[0].tolist() == pytest.approx([1.0, 1.0])
    assert ends.loc[12, "max"] < 1e-20
    assert (loldu.residual_at(found, 6, "SVD") < loldu.residual_at(found, 6)).all()
    with pytest.raises(ValueError, match="rank must be"):
        loldu.residual_at(found, 99)


def test_broken_starts_lose_the_function_and_repaired_ones_do_not(found: loldu.Factors) -> None:
    for start in factors.START_ARMS:
        assert loldu.start_losses(found, start, "repaired").abs().max() < 1e-5
    assert (loldu.start_losses(found, "zeros") > 0.1).all()
    assert loldu.start_losses(found, "lu").abs().max() == 0
    by_hand = [
        np.corrcoef(own.pivots, own.singular)[0, 1]
        for _, own in found.values[found.values.seed == 3].groupby("layer")
    ]
    assert loldu.pivot_correlation(found)[3] == pytest.approx(np.mean(by_hand))


def test_frames(system: loldu.Studied) -> None:
    table = loldu.arm_table(system).set_index("arm")
    assert table.loc["LDU 3", "count"] == 6
    assert table.loc["LoRA 2", "count"] == 2 * (64 + 12 + 12 + 12)
    assert table.loc["full", "count"] == 12 * 64 + 12 * 12
    curve = loldu.frontier(system, "accuracy")
    assert set(curve.family) == {*loldu.FAMILIES, "head", "full"}
    assert len(curve[curve.family == "LDU"]) == len(RANKS) * 2
    curves = loldu.tuning_curves(system, ["LDU 3"])
    assert curves.chosen.sum() == 1
    minus = loldu.difference(system.frame, "LDU 12", "head", "train")
    assert list(minus.index) == [3, 8]
    with pytest.raises(ValueError, match="arm must be one of"):
        loldu.difference(system.frame, "LDU 12", "nobody", "train")
    added = loldu.changes(system, ["LDU 12", "full"])
    assert set(added.arm) == {"LDU 12", "full"}
    assert added["rank"].between(1, 12).all()
    assert added.share.between(0, 1).all()
    assert loldu.inputs_of(load("digits"), SETTINGS) == 64


def test_figures_with_and_without_a_text(
    system: loldu.Studied, found: loldu.Factors, tmp_path: Path
) -> None:
    curve = loldu.frontier(system, "accuracy")
    figure = plots_loldu.main_panels(curve, found.residual, found.gram, found.starts)
    figure.savefig(tmp_path / "main.png")
    added, curves = loldu.changes(system, ["LDU 12"]), loldu.tuning_curves(system, ["LDU 12"])
    second = found.values[found.values.layer == 2]
    titles = []
    for text in (curve.iloc[:0], curve):
        figure = plots_loldu.more_panels(curves, text, second, added)
        figure.savefig(tmp_path / "more.png")
        titles.append([panel.get_title() for panel in figure.axes])
    assert titles[0] == titles[1]


def test_texts_of_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_DATA", str(tmp_path))
    for name, byte in (("one.txt", b"a"), ("two.txt", b"b")):
        (tmp_path / name).write_bytes(byte * 500)
    both = loldu.texts(["one.txt", "two.txt"], 100)
    assert bytes(both.tokens.tolist()) == b"a" * 100 + b"b" * 100
    assert set(loldu.text_arms(8, [1])) == {
        "none", "LDU 8", "random 8", "singular values 8", "LoRA 1", "full",
    }  # fmt: skip
