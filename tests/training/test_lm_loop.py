"""training.lm_recipe, lm_train and lm_state: one training loop, stopped anywhere and resumed."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from rclib.data.text import TextData, load_text
from rclib.nets.gpt import GPT
from rclib.training import lm_loop as lm_train
from rclib.training import lm_state
from rclib.training.lm_loop import (
    DivergedRunError,
    LMHistory,
    evaluate_lm,
    flops_per_token,
    matrix_means,
    peak_flops,
    train_lm,
)
from rclib.training.lm_recipe import Recipe, learning_rate, make_optimizer
from rclib.training.lm_state import StateError

RECIPE = Recipe(
    steps=12,
    lr=0.02,
    batch_size=4,
    warmup=5,
    schedule="cosine",
    weight_decay=0.1,
    seed=3,
    eval_steps=(0, 6, 12),
    eval_batches=2,
    mean_steps=(0, 5, 12),
    snapshot_steps=(4, 12),
    snapshot_moments=True,
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def text() -> TextData:
    return load_text()


def small(**options: Any) -> GPT:
    arguments = {"width": 16, "blocks": 2, "context": 12, "head_size": 8, **options}
    return GPT(arguments.pop("width"), **arguments)


def run(text: TextData, recipe: Recipe = RECIPE, **options: Any) -> tuple[GPT, LMHistory]:
    model = small(**options.pop("model", {}))
    return model, train_lm(model, text, recipe, progress=False, **options)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def assert_same(first: tuple[GPT, LMHistory], second: tuple[GPT, LMHistory]) -> None:
    """Bit for bit: weights, losses, means, snapshots with Adam's means."""
    assert same(dict(first[0].state_dict()), dict(second[0].state_dict()))
    a, b = first[1], second[1]
    assert (a.step, a.eval_loss) == (b.step, b.eval_loss)
    assert torch.equal(a.train_loss, b.train_loss)
    for group, other in ((a.means, b.means), (a.snapshots, b.snapshots)):
        assert group.keys() == other.keys()
        assert all(same(group[s], other[s]) for s in group)


# --- the loop against a loop written here --------------------------------------------------------


@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_against_the_rule_written_out(text: TextData, name: str, optimizer: str) -> None:
    lr = 0.02 if optimizer == "adam" else 0.05
    recipe = replace(RECIPE, optimizer=optimizer, lr=lr, mean_steps=(), snapshot_steps=())
    model, history = run(text, recipe, model={"parametrization": name, "seed": 5})
    other = small(parametrization=name, seed=5)
    factors = other.lr_factors(optimizer)
    first = {n: torch.zeros_like(p) for n, p in other.named_parameters()}
    second = {n: torch.zeros_like(p) for n, p in other.named_parameters()}
    losses = []
    for s in range(12):
        windows = text.batch(s, seed=3, batch_size=4, context=12)
        loss = functional.cross_entropy(other(windows[:, :-1]).transpose(1, 2), windows[:, 1:])
        losses.append(float(loss.detach()))
        grads = torch.autograd.grad(loss, list(other.parameters()))
        eta = lr * min(1.0, (s + 1) / 5) * (0.1 + 0.9 * (1 + math.cos(math.pi * s / 12)) / 2)
        with torch.no_grad():
            for (n, p), g in zip(other.named_parameters(), grads, strict=True):
                if optimizer == "sgd":
                    g = g + 0.1 / factors[n] * p  # torch's SGD adds the decay to the gradient
                    p -= eta * factors[n] * g
                    continue
                first[n] = 0.9 * first[n] + 0.1 * g
                second[n] = 0.95 * second[n] + 0.05 * g**2
                m, v = first[n] / (1 - 0.9 ** (s + 1)), second[n] / (1 - 0.95 ** (s + 1))
                p -= eta * 0.1 * p + eta * factors[n] * m / (v.sqrt() + 1e-15)
    np.testing.assert_allclose(history.train_loss.numpy(), losses, rtol=2e-4)
    for (n, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        if not n.endswith("Bk"):  # its gradient is rounding alone, and Adam takes its sign
            torch.testing.assert_close(p, q, rtol=2e-3, atol=2e-4)


def test_learning_rate_of_the_schedules() -> None:
    constant = Recipe(steps=10, lr=1.0, warmup=4)
    assert [learning_rate(constant, s) for s in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    cosine = Recipe(steps=10, lr=1.0, schedule="cosine", final_lr=0.2)
    assert learning_rate(cosine, 0) == 1.0
    assert learning_rate(cosine, 5) == pytest.approx(0.6)
    assert learning_rate(cosine, 10) == pytest.approx(0.2)
    later = Recipe(steps=10, lr=1.0, warmup=2, first_step=6)  # a grown network warms up anew
    assert [learning_rate(later, s) for s in (6, 7, 8)] == [0.5, 1.0, 1.0]


def test_one_group_for_each_factor() -> None:
    mf = make_optimizer(small(), RECIPE)
    assert [g["base"] for g in mf.param_groups] == [0.02]
    mup = make_optimizer(small(parametrization="muP"), RECIPE)
    assert sorted(g["base"] for g in mup.param_groups) == [0.02 / 64, 0.02 / 16, 0.02]
    # Decoupled decay η λ, whatever the factor: torch takes rate times decay.
    assert all(g["base"] * g["weight_decay"] == pytest.approx(0.002) for g in mup.param_groups)


def test_accumulated_parts_make_the_same_step(text: TextData) -> None:
    _, whole = run(text)
    for parts in (2, 4):
        _, split = run(text, replace(RECIPE, accumulation=parts))
        torch.testing.assert_close(split.train_loss, whole.train_loss, rtol=1e-4, atol=1e-4)


def test_what_the_history_holds(text: TextData) -> None:
    model, history = run(text)
    assert history.step == 12
    assert history.train_loss.shape == (12,)
    assert list(history.eval_loss) == [0, 6, 12]
    assert history.eval_loss[12] < history.eval_loss[0]
    assert same(history.means[12], matrix_means(model))
    assert same(history.means[0], matrix_means(small()))
    kept = history.snapshots[12]
    assert same({n: kept[n] for n in model.state_dict()}, dict(model.state_dict()))
    assert float(kept["step/blocks.0.Wup"]) == 12.0
    assert kept["exp_avg_sq/blocks.0.Wup"].shape == (64, 16)
    # A grown network goes on where its source stopped: steps 6 to 11 of the same batches.
    _, later = run(
        text, replace(RECIPE, first_step=6, eval_steps=(6,), mean_steps=(), snapshot_steps=())
    )
    assert (later.step, len(later.train_loss)) == (12, 6)


def test_means_are_those_of_the_matrices() -> None:
    model = small(seed=2)
    means = matrix_means(model)
    for name, w in model.matrices().items():
        expected = w.numpy().astype(np.float64)
        np.testing.assert_allclose(means[f"{name}.C"], expected.mean(1), atol=1e-7)
        np.testing.assert_allclose(means[f"{name}.R"], expected.mean(0), atol=1e-7)
    assert len(means) == 2 * len(model.matrices())


def test_validation_loss_is_the_mean_over_the_windows(text: TextData) -> None:
    model = small()
    windows = torch.cat(list(text.validation_batches(3, batch_size=5, context=12)))
    logits = model(windows[:, :-1]).detach().double()
    picked = torch.log_softmax(logits, -1).gather(2, windows[:, 1:, None])
    found = evaluate_lm(model, text, context=12, batches=3, batch_size=5)
    assert found == pytest.approx(-float(picked.mean()), rel=1e-5)


def test_operations_per_token_by_hand() -> None:
    n, context, blocks = 16, 12, 2
    entries = blocks * 12 * n * n + 256 * n  # embedding and positions are looked up
    assert flops_per_token(small()) == 6 * entries + 12 * blocks * n * context
    assert 1e8 < peak_flops(torch.device("cpu"), torch.float32, seconds=0.02) < 1e15


# --- stopping and going on ---------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("stops", [(1,), (4, 5), (0, 6, 11), (12,)])
def test_resumed_equals_uninterrupted_bit_for_bit(
    text: TextData, tmp_path: Path, stops: tuple[int, ...], optimizer: str
) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, snapshot_moments=optimizer == "adam")
    whole = run(text, recipe)
    for stop in stops:
        _, part = run(text, recipe, checkpoint=tmp_path, stop_at=stop)
        assert part.step == stop
        assert torch.equal(part.train_loss, whole[1].train_loss[:stop])
    assert_same(run(text, recipe, checkpoint=tmp_path), whole)
    assert_same(run(text, recipe, checkpoint=tmp_path), whole)  # a finished run is read


def test_a_killed_run_goes_on_from_its_last_state(
    text: TextData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(text)
    monkeypatch.setattr(lm_train, "CHECK_EVERY", 3)
    steps = 0

    def interrupted(*args: Any, **options: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps > 8:
            raise KeyboardInterrupt
        return original(*args, **options)

    original = TextData.batch
    with monkeypatch.context() as patch:
        patch.setattr(TextData, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(text, checkpoint=tmp_path, checkpoint_seconds=0.0)
    _, record = lm_state.load_state(tmp_path / "state.safetensors")
    assert record["step"] == 6
    assert_same(run(text, checkpoint=tmp_path), whole)


def test_grown_networks_resume_with_the_means_they_started_with(
    text: TextData, tmp_path: Path
) -> None:
    model, history = run(text)
    moments = {n: t for n, t in history.snapshots[12].items() if "/" in n}
    recipe = replace(
        RECIPE, steps=20, first_step=12, eval_steps=(20,), mean_steps=(), snapshot_steps=()
    )

    start = {n: p.clone() for n, p in model.state_dict().items()}
    first = train_lm(model.like(16, start), text, recipe, moments=moments, progress=False)
    fresh = train_lm(model.like(16, start), text, recipe, progress=False)
    assert not torch.equal(first.train_loss, fresh.train_loss)
    options: dict[str, Any] = {"moments": moments, "progress": False, "checkpoint": tmp_path}
    train_lm(model.like(16, start), text, recipe, stop_at=15, **options)
    second = train_lm(model.like(16, start), text, recipe, **options)
    assert torch.equal(first.train_loss, second.train_loss)
    # Going on with the means is going on: the same as one run of 20 steps, which has no schedule.
    flat = replace(
        RECIPE, schedule="constant", warmup=0, eval_steps=(), mean_steps=(), snapshot_steps=(12,)
    )
    middle, half = run(text, flat)
    kept = {n: t for n, t in half.snapshots[12].items() if "/" in n}
    on = train_lm(
        middle,
        text,
        replace(flat, steps=20, first_step=12, snapshot_steps=()),
        moments=kept,
        progress=False,
    )
    _, straight = run(text, replace(flat, steps=20, snapshot_steps=()))
    assert torch.equal(on.train_loss, straight.train_loss[12:])
    with pytest.raises(ValueError, match="moments must hold 'exp_avg/embedding'"):
        train_lm(small(), text, recipe, moments={"x": torch.ones(1)}, progress=False)
    with pytest.raises(ValueError, match=r"'exp_avg/embedding' has shape \(16, 256\)"):
        train_lm(small(width=32), text, recipe, moments=moments, progress=False)


def test_state_is_one_file_of_plain_tensors_and_json(text: TextData, tmp_path: Path) -> None:
    run(text, checkpoint=tmp_path, stop_at=5)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "snapshot-4.safetensors",
        "state.safetensors",
    ]
    with safe_open(tmp_path / "state.safetensors", framework="np") as handle:
        record = json.loads(handle.metadata()["record"])
        names = set(handle.keys())
    assert record["step"] == 5
    assert record["settings"]["model"]["width"] == 16
    assert {"model/W", "adam/exp_avg/W", "train_loss", "means/0/W.C"} <= names


@pytest.mark.parametrize(
    ("recipe", "model", "difference"),
    [
        (replace(RECIPE, lr=0.03), {}, r"recipe\.lr: saved 0\.02, asked 0\.03"),
        (replace(RECIPE, steps=13), {}, r"recipe\.steps: saved 12, asked 13"),
        (RECIPE, {"width": 32}, r"model\.width: saved 16, asked 32"),
        (RECIPE, {"seed": 1}, r"model\.seed: saved 0, asked 1; start: saved"),
        (RECIPE, {"parametrization": "SP"}, "model.parametrization: saved 'MF', asked 'SP'"),
    ],
)
def test_state_of_another_run_is_refused(
    text: TextData, tmp_path: Path, recipe: Recipe, model: dict[str, Any], difference: str
) -> None:
    run(text, checkpoint=tmp_path, stop_at=2)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(StateError, match=f"is of another run: .*{difference}"):
        run(text, recipe, model=model, checkpoint=tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_state_of_another_text_start_or_format_is_refused(text: TextData, tmp_path: Path) -> None:
    run(text, checkpoint=tmp_path, stop_at=2)
    other = load_text(validation=0.2)
    with pytest.raises(StateError, match="of another run: text: saved"):
        run(other, checkpoint=tmp_path)
    changed = small()
    with torch.no_grad():
        changed.get_parameter("W")[0, 0] += 1.0
    with pytest.raises(StateError, match="of another run: start: saved"):
        train_lm(changed, text, RECIPE, checkpoint=tmp_path, progress=False)
    path = tmp_path / "state.safetensors"
    tensors, record = lm_state.load_state(path)
    lm_state.save_state(path, tensors, record | {"format": 99})
    with pytest.raises(StateError, match="has format 99, not 2"):
        run(text, checkpoint=tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_damaged_state_is_named(text: TextData, tmp_path: Path, keep: int) -> None:
    run(text, checkpoint=tmp_path, stop_at=2)
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StateError, match=r"state\.safetensors cannot be read .*delete it"):
        run(text, checkpoint=tmp_path)


def test_a_state_is_written_whole_or_not_at_all(
    text: TextData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(text, checkpoint=tmp_path, stop_at=2)
    before = (tmp_path / "state.safetensors").read_bytes()

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="no space left"):
            run(text, checkpoint=tmp_path, stop_at=3)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.safetensors"]


# --- what goes wrong -----------------------------------------------------------------------------


def test_diverging_run_says_where_and_loses_nothing(
    text: TextData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, lr=1e36, warmup=0, schedule="constant", weight_decay=0.0)
    monkeypatch.setattr(lm_train, "CHECK_EVERY", 1)
    message = r"at step \d+ with learning rate 1e\+36 and width 16 \(SP, sgd\)"
    with pytest.raises(DivergedRunError, match=message) as caught:
        run(
            text,
            replace(recipe, optimizer="sgd"),
            model={"parametrization": "SP"},
            checkpoint=tmp_path,
            checkpoint_seconds=0.0,
        )
    error = caught.value
    assert error.history.step == error.step == len(error.history.train_loss)
    assert torch.isfinite(error.history.train_loss).all()
    assert error.history.eval_loss[0] == pytest.approx(5.5, abs=0.6)
    assert set(error.history.means) == {0}
    tensors, record = lm_state.load_state(tmp_path / "state.safetensors")
    assert record["step"] <= error.step
    assert all(torch.isfinite(t).all() for n, t in tensors.items() if n == "train_loss")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps must be an integer >= 0, got -1"),
        ({"steps": 5, "first_step": 6, "eval_steps": ()}, "steps must be an integer >= 6, got 5"),
        ({"lr": 0.0}, r"lr must be positive and finite, got 0\.0"),
        ({"lr": math.nan}, "lr must be positive and finite, got nan"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"accumulation": 3}, "accumulation must divide batch_size = 4, got 3"),
        ({"optimizer": "lion"}, r"optimizer must be one of \('adam', 'sgd'\), got 'lion'"),
        ({"schedule": "step"}, "schedule must be one of .* got 'step'"),
        ({"final_lr": 2.0}, r"final_lr must lie in \[0, 1\], got 2\.0"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers in \[0, 1\)"),
        ({"eval_steps": (0, 13)}, r"eval_steps must lie in 0 \.\.\. 12, got \[13\]"),
        ({"snapshot_steps": (-1,)}, r"snapshot_steps must lie in 0 \.\.\. 12, got \[-1\]"),
    ],
)
def test_bad_recipes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **change)


def test_bad_arguments_are_named(text: TextData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"precision must be .* got 'half'"):
        run(text, precision="half")
    with pytest.raises(ValueError, match="stop_at needs a checkpoint folder"):
        run(text, stop_at=3)
    with pytest.raises(ValueError, match=r"stop_at must lie in 0 \.\.\. 12, got 13"):
        run(text, stop_at=13, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"vocabulary must hold byte .* got 100"):
        run(text, model={"vocabulary": 100})
    short = tmp_path / "short.txt"
    short.write_bytes(b"0123456789" * 10)
    with pytest.raises(ValueError, match="context must be shorter than the validation part"):
        run(load_text(short))


def test_bfloat16_autocast_stays_close_to_float32(text: TextData) -> None:
    _, exact = run(text)
    model, rough = run(text, precision="bfloat16")
    assert model.get_parameter("W").dtype == torch.float32
    assert not torch.equal(rough.train_loss, exact.train_loss)
    torch.testing.assert_close(rough.train_loss, exact.train_loss, rtol=0.01, atol=0.0)


@pytest.mark.parametrize(
    ("device", "accumulation", "mode"),
    [("cuda", 1, "reduce-overhead"), ("cuda", 2, "default"), ("cpu", 1, "default")],
)
def test_cuda_graphs_where_no_gradient_has_to_wait(
    device: str, accumulation: int, mode: str
) -> None:
    recipe = replace(RECIPE, accumulation=accumulation)
    assert lm_train._compile_mode(torch.device(device), recipe) == mode


@pytest.mark.slow
@pytest.mark.skipif(lm_train.cpp_compiler() is None, reason="no C++ compiler is installed")
def test_compiled_on_a_cpu_it_is_the_same_training(
    text: TextData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # else in the temporary folder
    # Without looks at the validation loss, which would be compiled for themselves, and by gradient
    # descent: Adam makes whole steps of the last bits where a gradient is zero (biases of keys).
    recipe = replace(RECIPE, eval_steps=(), snapshot_steps=(), optimizer="sgd", weight_decay=0.0)
    model = {"blocks": 1}
    plain, one = run(text, recipe, model=model)
    other, same_run = run(text, recipe, model=model, compiled=True)
    assert torch.allclose(one.train_loss, same_run.train_loss, rtol=1e-5)
    for name, p in plain.state_dict().items():
        assert torch.allclose(p, other.state_dict()[name], rtol=1e-3, atol=1e-4), name


def test_without_a_compiler_that_is_refused(
    text: TextData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="compiled must be False on a CPU without"):
        run(text, compiled=True)
    (tmp_path / "none").touch(mode=0o755)
    assert lm_train.cpp_compiler() == str(tmp_path / "none")
    # torch does not go on to another one.
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(lm_train.sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "clang++").touch(mode=0o755)
    assert lm_train.cpp_compiler() is None
    (tmp_path / "g++").touch(mode=0o755)
    assert lm_train.cpp_compiler() == str(tmp_path / "g++")


def test_bar_shows_tokens_per_second_utilisation_and_loss(
    text: TextData, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    real = lm_train.tqdm
    monkeypatch.setattr(
        lm_train, "tqdm", lambda **o: real(**{**o, "disable": False, "file": out, "mininterval": 0})
    )
    monkeypatch.setattr(lm_train, "CHECK_EVERY", 2)
    _, shown = run(text, replace(RECIPE, steps=40))
    _, hidden = run(text, replace(RECIPE, steps=40))
    assert torch.equal(shown.train_loss, hidden.train_loss)
    last = [line for line in out.getvalue().split("\r") if "MFU" in line][-1]
    tokens = re.search(r"([\d.]+)k/([\d.]+)k \[.*, *([\d.]+)k?tok/s", last)
    assert tokens is not None, last
    assert tokens[1] == tokens[2] == "1.92"  # 40 steps of 4 windows of 12
    found = re.search(r"MFU=(\d+)%, loss=([\d.]+)|loss=([\d.]+), MFU=(\d+)%", last)
    assert found is not None, last
