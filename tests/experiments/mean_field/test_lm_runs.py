"""rclib.experiments.mean_field.lm_runs: language-model runs as arrays, through the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rclib.data.text import TextData, load_text
from rclib.experiments.mean_field.lm_runs import (
    checkpoint_folder,
    cost,
    lm_configuration,
    losses_at,
    means_of,
    restore_gpt,
    train_gpt,
)
from rclib.nets.gpt import build_gpt
from rclib.runs import store, sweep
from rclib.training import lm_loop as lm_train
from rclib.training.lm_loop import evaluate_lm, matrix_means, train_lm
from rclib.training.lm_recipe import Recipe


@pytest.fixture(scope="module")
def data() -> TextData:
    return load_text()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.delenv("RCLIB_WORKERS", raising=False)
    torch.set_num_threads(1)
    return tmp_path


def configuration(**change: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "width": 16,
        "steps": 6,
        "lr": 0.02,
        "context": 12,
        "batch_size": 4,
        "eval_steps": (0, 6),
        "eval_batches": 2,
        "mean_steps": (3, 6),
        "snapshot_steps": (6,),
        "snapshot_moments": True,
    }
    return lm_configuration(**{**options, **change})


def test_a_run_is_the_library_called_by_hand(data: TextData) -> None:
    config = configuration(seed=2)
    run = train_gpt(data, **config)
    model = build_gpt(config["network"])
    assert (model.seed, config["recipe"]["seed"], run["diverged"]) == (2, 2, -1)
    recipe = Recipe(**config["recipe"])
    start = evaluate_lm(model, data, context=12, batches=2, batch_size=4)
    history = train_lm(model, data, recipe, progress=False)
    np.testing.assert_array_equal(run["train_loss"], history.train_loss.numpy())
    assert losses_at(run, [0, 6]).tolist() == [start, history.eval_loss[6]]
    for name, vector in matrix_means(model).items():
        matrix, _, axis = name.rpartition(".")
        np.testing.assert_array_equal(means_of(run, matrix, step=6, axis=axis), vector.numpy())
    restored, moments = restore_gpt(run, config["network"], step=6)
    for p, q in zip(model.parameters(), restored.parameters(), strict=True):
        assert torch.equal(p, q)
    assert len(moments) == 3 * len(model.axes)
    assert float(moments["step/W"]) == 6.0


def test_configurations_are_plain_and_spelled_one_way() -> None:
    config = configuration()
    assert json.loads(json.dumps(config)) == config
    assert configuration(eval_steps=[0, 6]) == config
    other = configuration(seed=1, data_seed=0)
    assert (other["network"]["seed"], other["recipe"]["seed"]) == (1, 0)
    with pytest.raises(ValueError, match=r"start must be one of zero mean, .* got 'N'"):
        configuration(start="N")
    with pytest.raises(ValueError, match=r"eval_steps must lie in 0 \.\.\. 6, got \[7\]"):
        configuration(eval_steps=(7,))
    assert cost(configuration(width=32)) > 2 * cost(config)
    assert cost(
        configuration(steps=12, first_step=6, mean_steps=(), snapshot_steps=(), eval_steps=())
    ) == cost(config)


@pytest.mark.parametrize(
    ("start", "embedding", "hidden"), [("zero mean", 0, 0), ("mean one", 0, 1), ("paper", 1, 1)]
)
def test_starts(start: str, embedding: float, hidden: float) -> None:
    model = build_gpt(configuration(start=start, width=64)["network"])
    p = {n: q.detach() for n, q in model.named_parameters()}
    assert float(p["embedding"].mean()) == pytest.approx(embedding, abs=0.1)
    for name in ("Wq", "Wo", "Wup"):
        w = p[f"blocks.1.{name}"]
        assert float(w.mean()) == pytest.approx(hidden, abs=0.15)
        assert float(w.var()) == pytest.approx(3.0 if hidden else 1.0, rel=0.15)
    assert float(p["W"].abs().max()) == 0.0
    logits = model(torch.zeros(1, 3, dtype=torch.long)).detach()
    assert float(logits.abs().max()) == 0.0  # the first loss is log 256 at every width


def test_interrupted_run_goes_on_and_leaves_nothing_behind(
    data: TextData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration()
    expected = train_gpt(data, **config)
    folder = checkpoint_folder(data, **config)
    assert not folder.exists()
    recipe = Recipe(**config["recipe"])
    train_lm(
        build_gpt(config["network"]), data, recipe, checkpoint=folder, stop_at=4, progress=False
    )
    assert folder.is_relative_to(cache)
    steps: list[int] = []
    original = TextData.batch

    def counted(self: TextData, step: int, **options: Any) -> torch.Tensor:
        steps.append(step)
        return original(self, step, **options)

    monkeypatch.setattr(TextData, "batch", counted)
    run = train_gpt(data, **config)
    assert steps == [4, 5]
    assert run.keys() == expected.keys()
    assert all(np.array_equal(run[k], expected[k]) for k in run)
    assert not folder.exists()


@pytest.mark.slow
def test_runs_go_through_the_store_and_worker_processes(
    data: TextData, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [configuration(seed=s, snapshot_steps=()) for s in (0, 1)]
    monkeypatch.setenv("RCLIB_WORKERS", "2")
    runs = sweep.run(train_gpt, configs, data=data, cost=cost)
    for config, run in zip(configs, runs, strict=True):
        again = store.lookup(train_gpt, config, data=data)
        assert again is not None
        direct = train_gpt(data, **config)
        assert all(np.array_equal(run[k], direct[k], equal_nan=True) for k in direct)
        assert all(np.array_equal(run[k], again[k], equal_nan=True) for k in direct)
    other = load_text(validation=0.2)
    assert store.lookup(train_gpt, configs[0], data=other) is None


def test_diverging_run_is_a_result(data: TextData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_train, "CHECK_EVERY", 1)
    config = configuration(lr=1e36, optimizer="sgd", parametrization="SP", snapshot_moments=False)
    run = train_gpt(data, **config)
    at = int(run["diverged"])
    assert 0 < at < 6
    assert np.isfinite(run["train_loss"][:at]).all()
    assert np.isnan(run["train_loss"][at:]).all()
    assert np.isfinite(run["eval_loss"]).tolist() == [True, False]
    assert not checkpoint_folder(data, **config).exists()


def test_what_a_run_did_not_keep_is_named(data: TextData) -> None:
    config = configuration()
    run = train_gpt(data, **config)
    with pytest.raises(ValueError, match=r"kept no blocks\.0\.Wup\.C at step 4; .* \[3, 6\]"):
        means_of(run, "blocks.0.Wup", step=4)
    with pytest.raises(ValueError, match=r"kept no snapshot of step 3; it has steps \[6\]"):
        restore_gpt(run, config["network"], step=3)
    with pytest.raises(ValueError, match=r"steps must have been evaluated .* got \[2\]"):
        losses_at(run, [0, 2])
