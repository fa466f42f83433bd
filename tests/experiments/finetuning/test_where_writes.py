"""Notebook 86: measures against loops, forms, an encoder against transformers, frames, figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rclib.data.images import load
from rclib.experiments.finetuning import (
    bases,
    bert_runs,
    bert_tail,
    place_runs,
    plots_writes,
    tuned_runs,
    where_writes,
)
from rclib.spectral.placement import directions

SETTINGS: dict[str, Any] = {
    "base": {
        "pool": 1, "width": 16, "classes": 5, "n": 200, "batch_size": 32, "steps": 30, "rate": 0.01,
    },
    "task": {"n_train": 60, "n_validation": 30, "n_test": 40, "head_rate": 0.002},
    "steps": 8, "batch_size": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> where_writes.Placed:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        return where_writes.placed(
            "images", load("digits"), where_writes.arms(2, 8, 16), [0.01], [900], [3, 8], SETTINGS,
            inputs=64, reference=11,
        )  # fmt: skip


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_measures_of_a_term_that_is_known() -> None:
    weight = drawn(16, 24)
    base = directions(weight)
    inputs = torch.eye(24, dtype=torch.float64)[:, :3]
    change = 2.0 * torch.outer(base.left[:, 0], base.right[:, 5])
    values, energy = place_runs.measured(change, base, inputs)
    found = dict(zip(place_runs.MEASURES, values, strict=True))
    assert found["norm"] == pytest.approx(2.0 / float(weight.norm()))
    assert found["left"] == pytest.approx(1.0)
    assert found["right"] == pytest.approx(0.0, abs=1e-12)
    assert found["touching"] == pytest.approx(1.0)
    assert found["diagonal"] == pytest.approx(0.0, abs=1e-12)
    assert found["inputs"] == pytest.approx(float(base.right[:3, 5].square().sum()))
    assert found["rows"] == pytest.approx(float(base.right[:, 5].sum()) ** 2)
    assert found["columns"] == pytest.approx(float(base.left[:, 0].sum()) ** 2)
    assert found["stable"] == pytest.approx(1.0)
    assert found["spikes"] == 1
    assert energy[0, 1] == pytest.approx(1.0)
    nothing, nowhere = place_runs.measured(torch.zeros(16, 24), base, inputs)
    assert np.isnan(nothing).all()
    assert np.isnan(nowhere).all()


def test_inputs_and_means() -> None:
    x = drawn(50, 16) @ torch.diag(torch.arange(1.0, 17.0, dtype=torch.float64))
    _, _, vh = torch.linalg.svd(x)
    top = place_runs.input_directions(x)
    assert torch.allclose(top @ top.T, vh[:2].T @ vh[:2], atol=1e-8)
    first, second = drawn(9, 5), drawn(4, 9, seed=1)
    by_hand = np.corrcoef(first.mean(1), second.mean(0))[0, 1]
    assert place_runs.mean_correlation(first, second) == pytest.approx(abs(by_hand))
    assert math.isnan(place_runs.mean_correlation(torch.zeros(9, 5), second))


def test_an_encoder_is_that_of_transformers() -> None:
    config = transformers.BertConfig(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=3, intermediate_size=32,
        vocab_size=40, max_position_embeddings=16, layer_norm_eps=bert_tail.EPS,
    )  # fmt: skip
    model: Any = transformers.BertModel(config).eval()
    weights = {name: t.detach() for name, t in model.state_dict().items()}
    own = bert_tail.Encoder(weights, {}, 3, 2)
    tokens = torch.randint(40, (5, 7), generator=torch.Generator().manual_seed(1))
    head = {"head.weight": drawn(2, 16).float(), "head.bias": drawn(2, seed=1).float()}
    with torch.no_grad():
        out = bert_tail.plain_tail(own)({**weights, **head}, bert_tail.lower(own, tokens))
        last = model(tokens).last_hidden_state
    expected = last.mean(1) @ head["head.weight"].T + head["head.bias"]
    assert torch.allclose(out, expected, atol=1e-5)


def test_sentences() -> None:
    words, labels = bert_tail.sentences(300, seed=2)
    assert {len(line) for line in words} == {10}
    assert len({tuple(line) for line in words}) == 300
    for line, label in zip(words, labels.tolist(), strict=True):
        subject = line[2]
        plural = subject not in bert_tail.LIVING + bert_tail.THINGS
        assert (subject.removesuffix("s") if plural else subject) in (
            bert_tail.LIVING if label else bert_tail.THINGS
        )
        assert line[6] in {pair[plural] for pair in bert_tail.VERBS}
    others = torch.tensor(
        [any(line[5] in (n, f"{n}s") for n in bert_tail.LIVING) for line in words]
    )
    assert abs(float((others == labels.bool()).double().mean()) - 0.5) < 0.1


def test_a_run_on_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**bert_runs.TINY["encoder_places"], "steps": 12, "sizes": [24, 8, 8]}
    ends = {}
    for kind in ("Linear", "EVA", "LoRA"):
        method = {"kind": kind} if kind == "Linear" else {"kind": kind, "rank": 2}
        run = bert_runs.encoder_places(None, **{**given, "method": method})
        ends[kind] = run["end"][0]
        assert run["measures"].shape == (2, 8, len(place_runs.MEASURES))
        assert np.isnan(run["measures"]).all() == (kind == "Linear")
    assert ends["LoRA"] < ends["Linear"]
    assert ends["EVA"] != ends["LoRA"]
    bare = bert_runs.encoder_places(None, **{**given, "measure": False})
    assert set(bare) == {"end", "accuracy"}
    monkeypatch.setattr("sys.path", [])
    assert "make models" in bert_runs.absent("minilm")


def test_places_on_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    arms = {"head": {"kind": "Linear"}, "PiSSA": {"kind": "PiSSA", "rank": 2}}
    settings = {
        "name": bert_tail.DRAWN, "sizes": [20, 8, 8], "steps": 2, "batch_size": 8,
        "head_rate": 0.01,
    }  # fmt: skip
    found = bert_runs.placed_encoder("drawn", arms, [0.01, 0.1], [900], [1, 2], settings)
    assert set(found.losses["count"]) == {0, 2 * 4 * 2 * 32}
    assert where_writes.by_seed(found, "PiSSA", "left").between(0, 1).all()
    with pytest.raises(ValueError, match="reference"):
        where_writes.equal_differ(found)


def test_what_forms_say(system: where_writes.Placed) -> None:
    ones = where_writes.by_seed(system, "SVFit", "diagonal")
    assert ones.to_numpy() == pytest.approx(1.0, abs=1e-6)
    frame = system.frame.set_index(["arm", "kind"])
    assert frame.loc[("head", "trained"), "left"].isna().all()
    # A block that is repeated i / r times along its rows has r, not i, numbers in a row to average.
    assert frame.loc[("Bone, sum", "form"), "rows"].mean() > 2.5
    assert frame.loc[("PiSSA", "form"), "touching"].min() > frame.loc[
        ("full", "form"), "touching"
    ].max()  # fmt: skip
    both = frame.norm
    trained, form = both.xs("trained", level="kind"), both.xs("form", level="kind")
    there = trained.notna()
    assert np.allclose(trained[there], form[there], rtol=1e-5)


def test_a_run_measures_the_change_of_its_weights() -> None:
    data, group = (
        load("digits"),
        [{"seed": 3, "rate": 0.01, "method": {"kind": "PiSSA", "rank": 2}}],
    )
    run = place_runs.image_places(data, group=group, **SETTINGS)
    task = bases.image_task(data, [3], base=SETTINGS["base"], task=SETTINGS["task"])
    kept = tuned_runs.adapted(task, group, steps=8, batch_size=16, keep=True)
    change = torch.from_numpy(kept["change_1"][0]).double()
    weight = task.start.tensors[bases.ADAPTED[1]][0]
    assert run["measures"][0, 0, 1, 0] == pytest.approx(float(change.norm() / weight.norm()))
    u, _, _ = torch.linalg.svd(weight.double())
    left = float((u[:, :2].T @ change).square().sum() / change.square().sum())
    assert run["measures"][0, 0, 1, 1] == pytest.approx(left, rel=1e-6)
    assert run["end"][0, 0] == pytest.approx(kept["end"][0, 0])


def test_frames_and_differences(system: where_writes.Placed) -> None:
    assert set(system.frame.seed) == {3, 8}
    assert ("LoRA", "trained", 11) in system.blocks
    pairs = where_writes.close_pairs(system)
    loss = system.tuning.groupby("arm").validation.mean()
    apart = [abs(loss[a] - loss[b]) for a, b in pairs]
    assert len(set(pairs)) == 5
    assert apart == sorted(apart)
    near = where_writes.full_nearer(system, "LoRA", "PiSSA")
    assert near.to_numpy() == pytest.approx(-where_writes.full_nearer(system, "PiSSA", "LoRA"))
    table = where_writes.distance_table([system])
    assert (table[table.arm == "full"].full == 0).all()
    wide = table.pivot(index="seed", columns="arm", values="full")
    assert near.to_numpy() == pytest.approx(wide.LoRA - wide.PiSSA)
    assert (where_writes.form_nearer(system) < 0).all()
    assert where_writes.place_tells(system, "touching").between(-1, 1).all()
    assert where_writes.equal_differ(system).between(-1, 1).all()
    assert list(where_writes.mean_excess(system, "full").index) == [3, 8]
    assert where_writes.over_systems([near, 3 * near]).to_numpy() == pytest.approx(2 * near)
    minus = where_writes.minus(system, "PiSSA", "LoRA", "touching")
    assert (minus > 0).all()
    with pytest.raises(ValueError, match="arm must be"):
        where_writes.by_seed(system, "nobody", "left")


def test_tables_and_figures(system: where_writes.Placed, tmp_path: Path) -> None:
    blocks = where_writes.block_table(system)
    mean = blocks.groupby(["arm", "kind"]).energy.mean()
    assert mean.to_numpy() == pytest.approx(1.0, abs=0.01)
    table = where_writes.place_table([system])
    counts = table.drop_duplicates("arm").set_index("arm")["count"]
    assert counts.to_dict() | {"LoRA": 224, "Bone, sum": 256, "SVFit": 32, "full": 1280} == (
        counts.to_dict()
    )
    figure = plots_writes.block_panels(blocks)
    figure.savefig(tmp_path / "blocks.png")
    assert len(figure.axes) == 2 * 11 + 1
    means = system.frame.groupby(["system", "arm", "kind", "seed"], sort=False).mean().reset_index()
    plots_writes.place_panels(means, system.losses).savefig(tmp_path / "places.png")


def test_texts_of_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_DATA", str(tmp_path))
    for name, byte in (("one.txt", b"a"), ("two.txt", b"b")):
        (tmp_path / name).write_bytes(byte * 500)
    both = where_writes.texts(["one.txt", "two.txt"], 100)
    assert bytes(both.tokens.tolist()) == b"a" * 100 + b"b" * 100
