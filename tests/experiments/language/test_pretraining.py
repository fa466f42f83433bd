"""experiments.language.pretraining_runs: arms against what they say, a control that is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rclib.data.text import TextData
from rclib.experiments.language import plots_pretraining as plots
from rclib.experiments.language import pretraining_leaves as frames
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


ARMS = ["scratch", "tables", "all", "leading"]


def test_frames_and_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    tokens = torch.arange(4000).remainder(11).byte()
    data = TextData("rows", "rows", tokens, 2000, "2" * 64)
    given = {"batch_size": 2, "steps": 2, "rate": 0.003}
    uses = {"text": {**given, "arms": ARMS}, "copy": {**given, "arms": ARMS[1:]}}
    settings = {"net": {**NET, "width": 8}, "base": given, "uses": uses, "n_test": 4}
    losses, kept = frames.leaves(data, [1, 2, 3], settings)
    assert losses.groupby("use").arm.unique().map(list).to_dict() == {
        "text": ARMS, "copy": ARMS[1:]
    }  # fmt: skip
    one = losses[losses.use == "text"].pivot(index="seed", columns="arm", values="loss")
    assert np.allclose(frames.difference(losses, "text", "all", "tables"), one["all"] - one.tables)
    share = frames.share_kept(losses, "text", "leading")
    assert np.allclose(share * (one.tables - one["all"]), one.tables - one.leading)
    assert np.allclose(frames.share_kept(losses, "text", "all"), 1)
    assert np.allclose(frames.rank_agreement(losses.assign(start=losses.loss), "text", ARMS), 1)
    assert np.allclose(frames.rank_agreement(losses.assign(start=-losses.loss), "text", ARMS), -1)
    before = kept[kept.use == "before"].pivot(index=["seed", "measure"], columns="arm")["value"]
    grown = (before.base - before.random).xs("spikes", level="measure")
    assert np.allclose(frames.grown(kept, "spikes"), grown)
    table = frames.part_table(losses)
    assert (table[table.arm == "tables"].gain == 0).all()
    assert len(table) == 21
    figure = plots.part_panels(table, kept)
    titles = [panel.get_title() for part in figure.subfigs for panel in part.axes]
    assert titles == ["(a) text", "(b) copy", *plots.TITLES.values()]
    labels = [text.get_text() for text in figure.subfigs[0].axes[0].get_yticklabels()]
    assert labels == [plots.LABELS[arm] for arm in ARMS]
    with pytest.raises(ValueError, match=r"use must be one of .* got 'recall'"):
        frames.difference(losses, "recall", "all", "tables")


def test_texts_are_one_or_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert frames.texts(None, 0).name == "python"
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(name * 400)
    monkeypatch.setenv("RCLIB_DATA", str(tmp_path))
    both = frames.texts(["one.txt", "two.txt"], 1000)
    assert (both.name, both.n_train, len(both.tokens)) == ("one.txt to two.txt", 1000, 2000)
