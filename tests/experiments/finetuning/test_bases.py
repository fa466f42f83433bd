"""Bases and tuned runs that the notebooks on fine-tuning share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.adapters.low_rank import LoRA
from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning import bases, tuned_runs
from rclib.nets.stack import Stack
from rclib.training.stacked import train_stack

BASE: dict[str, Any] = {
    "pool": 1, "width": 12, "classes": 5, "n": 300, "batch_size": 32, "steps": 60, "rate": 0.01,
}  # fmt: skip
TASK: dict[str, Any] = {"n_train": 60, "n_validation": 30, "n_test": 40, "head_rate": 0.002}
TEXT_BASE = {"context": 4, "embedding": 3, "width": 8, "batch_size": 16, "steps": 5, "rate": 0.01}


@pytest.fixture(scope="module")
def words() -> TextData:
    tokens = torch.randint(97, (6000,), generator=torch.Generator().manual_seed(0)).byte()
    return TextData("numbers", "numbers", tokens, 3000, "1" * 64)


def test_the_open_chain_is_the_network() -> None:
    net = bases.Chain(6, 5, 3, seed=1)
    tensors = {name: p.detach() for name, p in net.named_parameters()}
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))

    def product(name: str, h: Tensor) -> Tensor:
        return h @ tensors[name].T

    assert torch.allclose(bases.relu_chain(tensors, x, product), net(x), atol=1e-6)
    scaled = {**tensors, "head_scale": torch.tensor(0.5)}
    assert torch.allclose(bases.relu_chain(scaled, x, product), net(x) / 2, atol=1e-6)
    again = bases.Chain(6, 5, 3, seed=1)
    assert all(torch.equal(p, tensors[n]) for n, p in again.named_parameters())


def test_an_embedding_is_a_look_up() -> None:
    net = bases.Chain(8, 5, 3, embedding=2, seed=1)
    x = torch.tensor([[1, 2, 3, 255], [0, 0, 7, 7]])
    rest = bases.Chain(8, 5, 3, seed=1)
    rest.load_state_dict({n: p for n, p in net.state_dict().items() if n != "table"})
    assert torch.allclose(net(x), rest(net.table[x].flatten(1)), atol=1e-6)


def test_a_scaled_head_moves_at_its_own_rate() -> None:
    net = bases.Chain(6, 5, 3, seed=1)
    x, y = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    tensors = {name: p.detach()[None].clone() for name, p in net.named_parameters()}

    def one(own: Any, h: Tensor) -> Tensor:
        return bases.relu_chain(own, h, lambda name, z: z @ own[name].T)

    options: dict[str, Any] = {"steps": 15, "lr": 0.02, "optimizer": "adam"}
    plain, _ = train_stack(
        Stack(tensors, one), lambda step: (x, y), cross_entropy,
        factors=dict.fromkeys(bases.HEAD, 0.1), **options,
    )  # fmt: skip
    scale = torch.tensor([0.1])
    start = {n: t / 0.1 if n in bases.HEAD else t for n, t in tensors.items()}
    scaled, _ = train_stack(
        Stack({**start, "head_scale": scale}, one), lambda step: (x, y), cross_entropy,
        frozen=["head_scale"], **options,
    )  # fmt: skip
    for name, tensor in plain.tensors.items():
        factor = 0.1 if name in bases.HEAD else 1.0
        assert torch.allclose(tensor, factor * scaled.tensors[name], atol=2e-5), name
        assert not torch.allclose(tensor, tensors[name], atol=1e-3)


def test_images_are_split_anew_for_every_seed(digits: Dataset) -> None:
    task = bases.image_task(digits, [3, 8, 3], base=BASE, task=TASK)
    x, y = task.at(task.places["test"])
    assert x.shape == (3, 40, 64)
    assert set(y.unique().tolist()) == set(range(5))
    drawn = [torch.cat([task.places[part][s] for part in bases.PARTS]) for s in range(3)]
    assert all(len(own.unique()) == 130 for own in drawn)
    assert torch.equal(drawn[0], drawn[2])
    assert set(drawn[0].tolist()) != set(drawn[1].tolist())
    every = torch.cat([digits.y_train, digits.y_test])
    assert int(every[drawn[0]].min()) == 5
    _, _, old = bases.old_images(digits, [3], BASE)
    assert int(every[old].max()) == 4
    # A network is the same in whatever company, and knows its own classes.
    alone = bases.image_task(digits, [8], base=BASE, task=TASK)
    for name, tensor in alone.start.tensors.items():
        assert torch.equal(tensor[0], task.start.tensors[name][1])
    nets = bases.image_bases(digits, [3], BASE)
    x, y, places = bases.old_images(digits, [3], BASE)
    assert float((nets(x[places[0]])[0].argmax(1) == y[places[0]]).double().mean()) > 0.8
    with pytest.raises(ValueError, match="at most"):
        bases.image_task(digits, [3], base=BASE, task={**TASK, "n_test": 5000})


def test_windows_of_the_second_text_come_from_three_parts(words: TextData) -> None:
    sizes = {"n_train": 50, "n_validation": 20, "n_test": 20}
    task = bases.text_task(words, [1, 2], base=TEXT_BASE, task=sizes)
    bounds = {"train": (0, 2400), "validation": (2400, 2700), "test": (2700, 3000)}
    for part, (low, high) in bounds.items():
        places = task.places[part]
        assert low <= int(places.min()) <= int(places.max()) < high - 4
    x, y = task.at(task.places["test"])
    assert x.shape == (2, 20, 12)
    assert torch.equal(y, words.validation.long()[task.places["test"] + 4])
    assert task.trained == ()
    again = bases.text_task(words, [2], base=TEXT_BASE, task=sizes)
    assert torch.equal(again.at(again.places["test"])[0][0], x[1])


def test_the_rate_falls_along_a_cosine() -> None:
    factors = bases.cosine(4)
    assert torch.allclose(factors, torch.tensor([1, 0.5 + 0.5 * 2**-0.5, 0.5, 0.5 - 0.5 * 2**-0.5])
                          .double())  # fmt: skip


def test_rates_are_chosen_by_the_mean_validation_loss() -> None:
    rows = [
        ("a", 0.1, 0, 1.0), ("a", 0.1, 1, 3.0), ("a", 1.0, 0, 1.8), ("a", 1.0, 1, 1.9),
        ("b", 0.1, 0, 2.0), ("b", 0.1, 1, 2.0), ("b", 1.0, 0, 0.1), ("b", 1.0, 1, np.nan),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["arm", "rate", "seed", "validation"])
    assert tuned_runs.chosen_rates(frame) == {"a": 1.0, "b": 0.1}
    other = frame.assign(train=frame.validation, validation=-frame.validation)
    assert tuned_runs.chosen_rates(other) == {"a": 0.1, "b": 0.1}
    assert tuned_runs.chosen_rates(other, "train") == {"a": 1.0, "b": 0.1}
    with pytest.raises(ValueError, match="no run diverges"):
        tuned_runs.chosen_rates(frame[(frame.arm == "b") & (frame.rate == 1.0)])


def test_arms_run_at_their_rates_and_find_themselves(digits: Dataset) -> None:
    settings = {"base": BASE, "task": TASK, "steps": 20, "batch_size": 16}
    arms = {
        "head": {"kind": "Linear"}, "LoRA": {"kind": "LoRA", "rank": 2},
        "EVA": {"kind": "EVA", "rank": 2}, "LDU": {"kind": "LoLDU", "rank": 2},
    }  # fmt: skip
    tuning = tuned_runs.tune(digits, arms, [0.003, 0.03], [3], settings)
    assert tuning.groupby("arm").rate.nunique().to_dict() == {
        "head": 1, "LoRA": 2, "EVA": 2, "LDU": 2,
    }  # fmt: skip
    rates = {arm: [rate] for arm, rate in tuned_runs.chosen_rates(tuning).items()}
    runs = tuned_runs.run_arms(digits, arms, rates, [3], settings, keep=["LoRA"])
    frame = tuned_runs.arm_frame(runs).set_index("arm")
    assert list(frame.seed.unique()) == [3]
    both = tuning.merge(frame.reset_index(), on=["arm", "rate"])
    assert np.array_equal(both.validation_x, both.validation_y)
    assert (frame.train < frame.start).all()
    (run,) = (run for key, run in runs.items() if key[0] == "LoRA")
    change = torch.from_numpy(run["change_0"])
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2
    assert "change_0" not in next(run for key, run in runs.items() if key[0] == "EVA")
    assert tuned_runs.counts(arms, 12, 64) == {"head": 0, "LoRA": 200, "EVA": 200, "LDU": 4}
    assert tuned_runs.method_of({"kind": "LoRA", "rank": 2}) == LoRA(2)
    for wrong in ({"kind": "None"}, {"kind": "LoRA", "size": 2}, {}):
        with pytest.raises(ValueError, match="method must be a kind"):
            tuned_runs.method_of(wrong)


def test_a_text_without_adaptation_stays_as_it_was(words: TextData) -> None:
    settings = {
        "base": TEXT_BASE, "task": {"n_train": 40, "n_validation": 20, "n_test": 20}, "steps": 4,
        "batch_size": 8,
    }  # fmt: skip
    arms = {"none": {"kind": "Linear"}, "full": {"kind": "Full"}}
    runs = tuned_runs.run_arms(words, arms, {key: [0.01] for key in arms}, [1], settings)
    frame = tuned_runs.arm_frame(runs).set_index("arm")
    assert frame.loc["none", "start"] == frame.loc["none", "train"]
    assert frame.loc["full", "start"] == frame.loc["none", "start"]
    assert frame.loc["full", "train"] < frame.loc["none", "train"]
    assert np.isnan(frame.loc["none", "early"])
