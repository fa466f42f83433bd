"""experiments.language.pretraining_runs: arms against what they say, a control that is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rclib.data.text import TextData
from rclib.experiments.language import pretraining_runs as runs
from rclib.nets.gpt import GPT

NET: dict[str, Any] = {"width": 16, "blocks": 2, "head_size": 4, "context": 8}


@pytest.fixture
def nets() -> tuple[GPT, GPT]:
    one, other = (GPT(**NET, parametrization="SP", bias="none", seed=s) for s in (0, 1))
    return one, other


def tensors(model: GPT) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def test_arms_take_tables_and_matrices_from_where_they_say(nets: tuple[GPT, GPT]) -> None:
    base, start = map(tensors, nets)
    matrices = set(runs._matrices(base))
    assert len(matrices) == 12
    for arm in runs.ARMS:
        found = runs.arm_tensors(arm, base, start, 2, 3)
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in base.items()}
        for name in ("embedding", "position", "W"):
            of = start if arm in ("scratch", "blocks") else base
            assert torch.equal(found[name], of[name])
        same = {name for name in matrices if torch.equal(found[name], base[name])}
        assert same == (matrices if arm in ("blocks", "all") else set()) or (
            arm == "relabelled" and len(same) == 8
        )
    swapped = runs.arm_tensors("misplaced", base, start, 2, 3)
    assert torch.equal(swapped["blocks.0.Wq"], base["blocks.1.Wq"])
    assert torch.equal(swapped["blocks.1.Wdown"], base["blocks.0.Wdown"])
    with pytest.raises(ValueError, match=r"arm must be one of .* got 'rows'"):
        runs.arm_tensors("rows", base, start, 2, 3)
    with pytest.raises(ValueError, match=r"blocks must be at least 2 .* got 1"):
        runs.arm_tensors("misplaced", base, start, 1, 3)


def test_matrices_of_heads_go_back_where_they_came_from(nets: tuple[GPT, GPT]) -> None:
    base = tensors(nets[0])
    for name, matrix in nets[0].matrices().items():
        if name in runs._matrices(base):
            flat = runs._flat(name, base[name])
            assert torch.equal(flat, matrix)
            assert torch.equal(runs._unflat(name, flat, base[name]), base[name])


def test_renamed_neurons_change_nothing(nets: tuple[GPT, GPT]) -> None:
    x = torch.randint(256, (3, 8), generator=torch.Generator().manual_seed(0))
    before = nets[0](x)
    nets[0].load_state_dict(runs.relabelled(tensors(nets[0]), 5))
    assert torch.allclose(nets[0](x), before, atol=1e-5)
    assert not torch.allclose(nets[1](x), before, atol=0.1)


def test_random_networks_measure_at_chance_and_means_are_found() -> None:
    wide = {**NET, "width": 64, "head_size": 8}
    found = []
    for seed in range(6):
        model = GPT(**wide, parametrization="SP", bias="none", seed=seed)
        found.append(runs.measures(tensors(model), model))
    means, leading, spikes, correlation = np.mean(found, axis=0)
    assert means == pytest.approx(1, abs=0.1)
    assert leading == pytest.approx(1, abs=0.15)
    assert spikes < 0.5
    assert correlation == pytest.approx(1, abs=0.2)
    marked = tensors(model)
    profile = torch.linspace(-1, 1, 64)
    for name in runs._matrices(marked):
        if name.endswith("Wdown"):
            marked[name] = marked[name] + 0.3 * profile[:, None]
    assert (runs.measures(marked, model) > found[-1])[[0, 1, 2, 3]].all()


def test_a_run_learns_its_uses_and_the_test_text_is_apart() -> None:
    tokens = torch.arange(6000).remainder(11).byte()
    data = TextData("rows", "rows", tokens, 3000, "0" * 64)
    given = {"batch_size": 8, "steps": 60, "rate": 0.01}
    found = runs.leaves_run(
        data, seed=2, net=NET, base=given, n_test=40,
        uses={"text": {**given, "arms": ["scratch", "all", "relabelled"]},
              "copy": {**given, "arms": ["scratch", "all"]}},
    )  # fmt: skip
    assert found["start_text"][1] < 0.5 < 4 < found["start_text"][0]  # the second text goes on
    assert found["loss_text"][0] < 1
    assert found["start_text"][2] == pytest.approx(found["start_text"][1], abs=1e-5)
    assert (found["loss_copy"] < found["start_copy"]).all()
    assert found["kept_text"].shape == (3, 4)
    train, test, places = runs._windows(data, "text", 8, 5, 1)
    assert places.tolist() == list(range(8))
    assert torch.equal(train(3), train(3))
    assert not torch.equal(train(3), train(4))
    numbers = TextData("n", "n", torch.arange(200).byte(), 100, "1" * 64)
    train, test, _ = runs._windows(numbers, "text", 8, 50, 1)
    assert int(train(0).max()) < 190 <= int(test(20).min())
    with pytest.raises(ValueError, match=r"uses must be of .* got 'sort'"):
        runs.leaves_run(data, seed=2, net=NET, base=given, n_test=4, uses={"sort": given})
