"""Notebook 83: identities of the arms, measures of what they add, frames, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from rclib.adapters.blocks import Bone, blocks
from rclib.adapters.low_rank import LoRA
from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning import bases, bone, bone_changes, loldu, plots_bone, tuned_runs
from rclib.nets.stack import Stack

BASE: dict[str, Any] = {
    "pool": 1, "width": 16, "classes": 5, "n": 300, "batch_size": 32, "steps": 60, "rate": 0.01,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "base": BASE, "steps": 20, "batch_size": 16,
    "task": {"n_train": 60, "n_validation": 30, "n_test": 40, "head_rate": 0.002},
}  # fmt: skip
TEXT_BASE = {"context": 4, "embedding": 4, "width": 16, "batch_size": 16, "steps": 5, "rate": 0.01}
ARMS = bone.arms_of(4, 2, alone="head", pairs={8: 3})
KEPT = [*bone_changes.KEPT, "two blocks", "columns"]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        yield


@pytest.fixture(scope="module")
def system(digits: Dataset, store: Any) -> loldu.Studied:
    return loldu.studied(digits, ARMS, [0.01, 0.1], [900], [3, 8], SETTINGS, inputs=64, keep=KEPT)


@pytest.fixture(scope="module")
def small(digits: Dataset, store: Any) -> Any:
    arms = {arm: ARMS[arm] for arm in ("LoRA", "Bone", "no guide")}
    return bone.small_rate(digits, arms, [0.0003, 0.001], 7.0, [3, 8], SETTINGS)


def trained(loss: Any, part: Tensor, steps: int = 30) -> list[Tensor]:
    """A tensor along Adam's path."""
    own = part.clone().requires_grad_()
    optimizer, path = torch.optim.Adam([own], lr=0.02), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss(own).backward()
        optimizer.step()
        path.append(own.detach().clone())
    return path


# --- the method ----------------------------------------------------------------------------------


def test_without_a_guide_it_is_lora_with_a_frozen_sum() -> None:
    """Also while it is trained: the same gradients and the same steps of Adam."""
    weight, x, y = drawn(8, 12), drawn(30, 12, seed=1), drawn(30, 8, seed=2)
    a = torch.eye(4, dtype=torch.float64).repeat(1, 3)
    method, lora = Bone(4, form="sum"), LoRA(4)
    start = method.start(weight)

    def of_blocks(b: Tensor) -> Tensor:
        return (torch.tanh(method.apply({**start, "B": b}, x)) - y).square().mean()

    def of_lora(b: Tensor) -> Tensor:
        return (torch.tanh(lora.apply({"base": weight, "A": a, "B": b}, x)) - y).square().mean()

    paths = trained(of_blocks, start["B"]), trained(of_lora, torch.zeros(8, 4).double())
    for ours, theirs in zip(*paths, strict=True):
        assert torch.allclose(ours.reshape(8, 4), theirs, atol=1e-6)
    assert float(paths[0][-1].abs().max()) > 0.1


def test_the_gradient_at_the_start_sums_over_blocks() -> None:
    weight, x, y = drawn(8, 12), drawn(30, 12, seed=1), drawn(30, 8, seed=2)
    full = weight.clone().requires_grad_()
    (x @ full.T - y).square().mean().backward()
    assert full.grad is not None
    g, w = blocks(full.grad, 4), blocks(weight, 4)
    eye = torch.eye(4, dtype=torch.float64)
    for form, factor in (
        ("guided", w.mT + eye), ("sum", eye.expand_as(w)), ("product", w.mT),
    ):  # fmt: skip
        method = Bone(4, form=form)
        start = method.start(weight)
        b = start["B"].requires_grad_()
        (method.apply({**start, "B": b}, x) - y).square().mean().backward()
        assert b.grad is not None
        assert torch.allclose(b.grad, (factor @ g).sum(1), atol=1e-12), form


def test_a_start_leaves_the_function_to_the_bit_and_a_merge_can_be_undone() -> None:
    weight = drawn(16, 24).float()
    for name, spec in ARMS.items():
        method = tuned_runs.method_of(spec)
        parts = method.start(weight, seed=4)
        assert torch.equal(method.merge(parts), weight), name
        moved = {n: p + 0.1 * drawn(*p.shape, seed=5).float() for n, p in parts.items()
                 if n in method.trained}  # fmt: skip
        back = method.unmerge(method.merge({**parts, **moved}), {**parts, **moved})
        assert torch.allclose(back, weight, atol=1e-5), name


def test_equal_blocks_guide_by_their_factor_alone() -> None:
    """W_ab = c 1: the change is (1 + c) B in every block, of rank r at most."""
    weight = 0.7 * torch.eye(4, dtype=torch.float64).repeat(2, 3)
    b = drawn(2, 4, 4, seed=1)
    change = Bone(4).merge({"base": weight, "B": b}) - weight
    assert torch.allclose(blocks(change, 4), 1.7 * b[:, None].expand(2, 3, 4, 4), atol=1e-12)
    assert int(torch.linalg.matrix_rank(change)) == 4


def test_blocks_of_one_write_row_means() -> None:
    weight, b = drawn(8, 12), drawn(8, 1, 1, seed=1)
    change = Bone(1).merge({"base": weight, "B": b}) - weight
    assert torch.allclose(change.mean(1), b[:, 0, 0] * (1 + weight.mean(1)), atol=1e-12)
    flat = Bone(1, form="sum").merge({"base": weight, "B": b}) - weight
    assert bone_changes.row_mean_share(flat) == pytest.approx(1.0)


def test_the_first_step_of_adam_through_the_sum_is_longer() -> None:
    rows, columns, rank = 64, 192, 8
    weight = drawn(rows, columns) * columns**-0.5
    x, y = drawn(400, columns, seed=1), drawn(400, rows, seed=2)
    lengths = {}
    for name, method in {"LoRA": LoRA(rank), "sum": Bone(16, form="sum")}.items():
        parts = method.start(weight)

        def loss(b: Tensor, method: Any = method, parts: Any = parts) -> Tensor:
            out: Tensor = (method.apply({**parts, "B": b}, x) - y).square().mean()
            return out

        (b,) = trained(loss, parts["B"], steps=1)  # A has no gradient where B is zero
        lengths[name] = float((method.merge({**parts, "B": b}) - weight).norm())
    assert lengths["sum"] == pytest.approx(0.02 * (rows * columns) ** 0.5, rel=1e-4)
    ratio = lengths["sum"] / lengths["LoRA"]
    assert ratio == pytest.approx(bone.step_ratio(columns, rank), rel=0.05)


def test_the_order_of_inputs_counts_for_blocks_alone(digits: Dataset) -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    task = bases.image_task(digits, [3], base=BASE, task=SETTINGS["task"])
    name = bases.ADAPTED[0]
    turned = Stack(
        {**task.start.tensors, name: task.start.tensors[name][:, :, order]}, task.start.one
    )

    def at(places: Tensor) -> tuple[Tensor, Tensor]:
        x, y = task.at(places)
        return x[..., order], y

    other = bases.Task(turned, task.trained, task.places, at, task.head_rate, task.seeds)
    for spec, same in (({"kind": "Full"}, True), (ARMS["Bone"], False)):
        group = [{"seed": 3, "rate": 0.003, "method": spec}]
        ends = [
            tuned_runs.adapted(t, group, steps=10, batch_size=16, keep=False)["end"]
            for t in (task, other)
        ]
        assert np.allclose(ends[0], ends[1], atol=1e-3) == same, spec


# --- what training adds --------------------------------------------------------------------------


def test_shares_of_means_and_sums_by_hand() -> None:
    assert bone_changes.row_mean_share(torch.tensor([[1.0, 3.0], [0.0, 0.0]])) == pytest.approx(
        8 / 10
    )
    many = bone_changes.row_mean_share(drawn(200, 50))
    assert many == pytest.approx(1 / 50, rel=0.2)
    with pytest.raises(ValueError, match="change must not be zero"):
        bone_changes.row_mean_share(torch.zeros(2, 2))
    # x = (1, 2 | 3, -1): the sum (4, 1) has 17, its blocks 5 and 10.
    assert bone_changes.summed_share(torch.tensor([[1.0, 2.0, 3.0, -1.0]]), 2) == pytest.approx(
        17 / 15
    )
    assert bone_changes.summed_share(torch.ones(3, 12), 4) == pytest.approx(3)
    assert bone_changes.summed_share(drawn(4000, 12), 4) == pytest.approx(1, abs=0.05)


def test_neurons_that_both_changes_know() -> None:
    u = drawn(40, 1)
    first, second = u + 0.01 * drawn(40, 30, seed=1), -u.T + 0.01 * drawn(20, 40, seed=2)
    assert bone_changes.neuron_correlation(first, second) > 0.99
    by_hand = np.corrcoef(first.mean(1), second.mean(0))[0, 1]
    assert bone_changes.neuron_correlation(first, second) == pytest.approx(abs(by_hand))
    assert bone_changes.neuron_correlation(drawn(400, 30), drawn(20, 400, seed=3)) < 0.2


def test_chance_is_that_of_drawn_vectors() -> None:
    drawn_ = np.random.default_rng(0).standard_normal((2, 4000, 10))
    own = [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(*drawn_, strict=True)]
    assert bone.chance_correlation(10) == pytest.approx(np.mean(own), rel=0.05)
    # Two entries are correlated by ± 1.
    assert bone.chance_correlation(2) == pytest.approx(1.0)


def change(system: loldu.Studied, arm: str, layer: int = 0, seed: int = 3) -> Tensor:
    (run,) = (run for key, run in system.runs.items() if key[0] == arm and key[2] == seed)
    return torch.from_numpy(run[f"change_{layer}"]).double()


def test_changes_are_those_of_the_table(digits: Dataset, system: loldu.Studied) -> None:
    """Each arm's change, read back from the runs, is of the form that the module's table has."""
    weight = bases.image_bases(digits, [3], BASE).tensors[bases.ADAPTED[0]][0].double()
    tall = blocks(weight, 4).reshape(4, 64, 4)  # a block row, its blocks one below the other
    own = blocks(change(system, "no guide"), 4)
    assert torch.allclose(own, own[:, :1].expand_as(own), atol=1e-6)
    eye = torch.eye(4, dtype=torch.float64).repeat(16, 1)
    for arm, guide in (("Bone", tall + eye), ("product", tall)):
        stacked = blocks(change(system, arm), 4).reshape(4, 64, 4)
        b = torch.linalg.lstsq(guide, stacked).solution
        assert torch.allclose(guide @ b, stacked, atol=1e-5), arm
        assert float(b.abs().max()) > 1e-3
        other = blocks(change(system, f"{arm}, permuted" if arm == "product" else "permuted"), 4)
        left = guide @ torch.linalg.lstsq(guide, other.reshape(4, 64, 4)).solution
        assert not torch.allclose(left, other.reshape(4, 64, 4), atol=1e-3), arm


def test_frames(system: loldu.Studied) -> None:
    table = loldu.arm_table(system).set_index("arm")
    assert table.loc["Bone", "count"] == table.loc["two blocks", "count"] == 2 * 16 * 4
    assert table.loc["LoRA", "count"] == 2 * (64 + 16 + 16 + 16)
    assert table.loc["columns", "count"] == (64 + 16) * 4
    added = bone_changes.change_frame(system, KEPT).set_index(["arm", "seed"])
    for arm, rank in (("LoRA", 2), ("no guide", 4), ("Bone", 16), ("product", 16)):
        assert (added.loc[arm][["rank_1", "rank_2"]] == rank).all(axis=None), arm
        assert (added.loc[arm]["rank"] == rank / 16).all()
    by_hand = np.mean([bone_changes.row_mean_share(change(system, "Bone", k)) for k in (0, 1)])
    assert added.loc["Bone", 3].rows == pytest.approx(by_hand)
    both = change(system, "Bone"), change(system, "Bone", 1)
    assert added.loc["Bone", 3].neurons == pytest.approx(bone_changes.neuron_correlation(*both))
    places = bone_changes.spectra(system, KEPT).groupby("arm").place.max()
    assert (places["LoRA"], places["no guide"], places["Bone"]) == (2, 4, 16)
    gain = bone.least_gain(system.frame, "head")
    train = system.frame[system.frame.seed == 3].set_index("arm").train
    assert gain[3] == pytest.approx(train["head"] - train.drop("head").max())
    minus = bone.differences(system.frame, [("Bone", "LoRA")], ["train", "early"], "images")
    assert minus[minus.what == "train"].value.to_numpy() == pytest.approx(
        loldu.difference(system.frame, "Bone", "LoRA", "train").to_numpy()
    )


def test_sizes_of_a_family_stand_together(system: loldu.Studied) -> None:
    found = bone.counted(system.frame)
    assert set(found.family) == {"head", "LoRA", "Bone", "product", "full"}
    assert sorted(set(found[found.family == "Bone"]["count"])) == [128, 256]
    accuracy = system.frame.set_index(["arm", "seed"]).accuracy
    own = found[(found.family == "LoRA") & (found["count"] == 336) & (found.seed == 8)]
    assert own.value.item() == accuracy["LoRA 3", 8]


def test_small_rates_and_the_same_step(small: Any) -> None:
    runs, frame = small
    same = frame[frame.arm == "LoRA, same step"]
    assert list(same.rate.unique()) == [0.007]
    assert set(frame[frame.arm == "Bone"].rate) == {0.0003, 0.001}
    by_seed = bone.between(frame, "Bone", "LoRA", "early", 0.001)
    rows = frame[(frame.seed == 8) & (frame.rate == 0.001)].set_index("arm").early
    assert by_seed[8] == pytest.approx(rows["Bone"] - rows["LoRA"])
    longer = bone.between(frame, "Bone", "LoRA, same step", "early", 0.001)
    assert longer[8] == pytest.approx(rows["Bone"] - same.set_index("seed").early[8])
    for arm, rate in (("nobody", 0.001), ("Bone", 0.5)):
        with pytest.raises(ValueError, match="arm and rate must be"):
            bone.between(frame, arm, "LoRA", "early", rate)
    curves = bone.loss_curves(runs, ["Bone", "LoRA"], 0.001)
    assert set(curves.step) == {5.0, 15.0}
    own = curves[(curves.arm == "Bone") & (curves.seed == 3) & (curves.step == 15.0)]
    assert own.loss.item() == pytest.approx(float(runs["Bone", 0.001, 3]["losses"][10:].mean()))
    assert set(bone.loss_curves(runs, ["LoRA"]).arm) == {"LoRA"}


def test_inputs_of_both_systems(digits: Dataset, store: Any) -> None:
    found = bone_changes.input_frame(digits, [3, 8], SETTINGS, 4).set_index(["seed", "layer"]).share
    task = bases.image_task(digits, [8], base=BASE, task=SETTINGS["task"])
    x, _ = task.at(task.places["train"])
    assert found[8, 1] == pytest.approx(bone_changes.summed_share(x[0], 4))
    tokens = torch.randint(97, (6000,), generator=torch.Generator().manual_seed(0)).byte()
    words = TextData("numbers", "numbers", tokens, 3000, "1" * 64)
    settings = {"base": TEXT_BASE, "task": {"n_train": 40, "n_validation": 20, "n_test": 20}}
    text = bone_changes.input_frame(words, [1], settings, 4)
    assert text.share.between(0, 4).all()
    assert len(text) == 2


def test_arms_with_and_without_the_largest() -> None:
    assert "full" not in bone.arms_of(4, 2, alone="none", full=False)
    assert next(iter(ARMS)) == "head"
    assert ARMS["Bone 8"]["size"] == 8
    assert set(bone_changes.KEPT) <= set(ARMS)


def test_figures_with_and_without_a_text(system: loldu.Studied, small: Any, tmp_path: Path) -> None:
    shown = ["LoRA", "Bone", "no guide"]
    common = bone.loss_curves(small[0], shown, 0.001)
    own = bone.loss_curves(system.runs, shown)
    curves = loldu.tuning_curves(system, bone_changes.KEPT)
    values = bone_changes.spectra(system)
    figure = plots_bone.main_panels(common, own, curves, values)
    figure.savefig(tmp_path / "main.png")
    minus = bone.differences(system.frame, [("Bone", "LoRA")], ["train", "accuracy"], "images")
    counted, added = bone.counted(system.frame), bone_changes.change_frame(system)
    titles = []
    for text in (curves.iloc[:0], curves):
        words = minus.assign(system="text", what="test")
        both = pd.concat([minus, words]) if len(text) else minus
        figure = plots_bone.more_panels(both, counted, added, text, 0.2)
        figure.savefig(tmp_path / "more.png")
        titles.append([panel.get_title() for panel in figure.axes])
    assert titles[0] == titles[1]
