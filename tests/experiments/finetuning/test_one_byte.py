"""finetuning.one_byte_*: codes, slopes, machines and frames of notebook 85 against other routes."""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from rclib.data.images import load
from rclib.data.text import TextData
from rclib.experiments.finetuning import one_byte as experiment
from rclib.experiments.finetuning import one_byte_codes as codes
from rclib.experiments.finetuning import one_byte_executors as executors
from rclib.experiments.finetuning import one_byte_machines as machines
from rclib.experiments.finetuning import one_byte_nets as nets
from rclib.experiments.finetuning import one_byte_rounds as rounds
from rclib.experiments.finetuning import one_byte_runs as runs
from rclib.experiments.finetuning import one_byte_text as text
from rclib.experiments.finetuning import one_byte_weights as weights
from rclib.experiments.finetuning import plots_one_byte as plots
from rclib.spectral.spectra import stable_rank

DIGITS = load("digits")
NET = {"n_train": 100, "hidden": 6, "steps": 5, "rate": 3e-3, "batch": 16}
PLAN: dict[str, Any] = {
    "machines": 3, "samples": 2, "rounds": 5, "rate": 1e-2, "epsilon": 1e-3, "batch": 8,
}  # fmt: skip
Array = np.ndarray[Any, np.dtype[Any]]


def task() -> nets.Task:
    draw = np.random.default_rng(0)
    return nets.drawn_task(draw.standard_normal((300, 7)), np.arange(300) % 10, seed=1, n_train=90)


def plan(**changed: Any) -> rounds.Plan:
    return rounds.Plan(**{"seed": 3, "code": "byte", **PLAN, **changed})


# --- codes -----------------------------------------------------------------------------------

INSIDE = {"9 bits": (3.6e-4, 2.8e3), "byte": (3.9e-4, 2.6e3), "4 bits": (0.045, 11.3)}


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.booleans())
def test_a_code_is_read_as_it_was_sent(place: float, negative: bool) -> None:
    """Inside its range up to half a step of the logarithm, with its sign."""
    for name, half_step in (("9 bits", 1 / 32), ("byte", 1 / 16), ("4 bits", math.log(2) / 2)):
        low, high = INSIDE[name]
        value = low * (high / low) ** place * (-1 if negative else 1)
        (read,) = codes.code_of(name).read([value])
        assert abs(math.log(read / value)) <= half_step * (1 + 1e-9)
    assert codes.code_of("sign").read([value]).tolist() == [math.copysign(1, value)]
    assert codes.FLOAT.read([value]).tolist() == [float(np.float32(value))]


def test_powers_are_fixed_points_and_zero_stays() -> None:
    for name, steps, most in (("9 bits", 16, 127), ("byte", 8, 63)):
        powers = np.exp(np.arange(-most, most + 1) / steps)
        both = np.concatenate([-powers, [0.0], powers])
        code = codes.code_of(name)
        assert code.read(both).tolist() == pytest.approx(both.tolist(), rel=1e-12)
        assert len(set(code.symbols(both).tolist())) == 2 * len(powers) + 1 <= 2**code.bits
        # Smaller ones become the smallest, larger ones the largest; only zero is zero.
        ends = code.read([1e-9, -1e9])
        assert ends.tolist() == pytest.approx([powers[0], -powers[-1]])
    # What the released code calls a byte has more symbols than a byte.
    assert 2 * codes.CODES["9 bits"].powers == 510 > 2**8
    assert 2 * codes.CODES["byte"].powers == 254
    twos = [2.0**p for p in range(-4, 4)]
    assert codes.code_of("4 bits").read(twos).tolist() == pytest.approx(twos)


def test_codes_keep_the_order() -> None:
    values = np.sort(np.random.default_rng(0).standard_normal(400) * 30)
    for code in codes.CODES.values():
        assert (np.diff(code.read(values)) >= 0).all()


def test_messages_are_as_long_as_they_must_be() -> None:
    values = np.random.default_rng(1).standard_normal(11)
    for name, length in (("float", 44), ("9 bits", 13), ("byte", 11), ("4 bits", 6), ("sign", 2)):
        code = codes.code_of(name)
        message = code.packed(code.symbols(values))
        assert len(message) == length == code.length(11)
        assert (code.unpacked(message, 11) == code.symbols(values)).all()
        with pytest.raises(ValueError, match="message must have"):
            code.unpacked(message + b"x", 11)
    with pytest.raises(ValueError, match="values must be finite"):
        code.symbols([math.nan])
    with pytest.raises(ValueError, match="code must be one of"):
        codes.code_of("two bytes")


# --- networks --------------------------------------------------------------------------------


def test_loss_and_gradient_against_torch() -> None:
    own, d, hidden = task(), 7, 4
    theta = np.random.default_rng(2).standard_normal(4 * 7 + 4 + 5 * 4 + 5)
    w1, b1, w2, b2 = (
        torch.from_numpy(part.copy()).requires_grad_() for part in nets.parts(theta, d)
    )
    assert w1.shape == (hidden, d)
    x, y = torch.from_numpy(own.x).double(), torch.from_numpy(own.y)
    found = cross_entropy(torch.relu(x @ w1.T + b1) @ w2.T + b2, y)
    assert float(nets.loss(theta, own.x.astype(float), own.y)) == pytest.approx(found.item())
    found.backward()  # type: ignore[no-untyped-call]
    by_torch = np.concatenate([p.grad.numpy().ravel() for p in (w1, b1, w2, b2)])  # type: ignore
    np.testing.assert_allclose(
        nets.gradient(theta, own.x.astype(float), own.y), by_torch, atol=1e-12
    )


def test_a_stack_of_losses_has_the_bits_of_each() -> None:
    own = task()
    thetas = np.random.default_rng(2).standard_normal((6, 57)).astype(np.float32)
    x, y = own.x[:60].reshape(3, 20, 7), own.y[:60].reshape(3, 20)
    both = nets.loss(thetas.reshape(2, 3, 57), x, y)
    for k in range(2):
        for i in range(3):
            alone = nets.loss(thetas[3 * k + i], x[i], y[i])
            assert both[k, i].tobytes() == alone.tobytes()


def test_a_task_has_other_classes_before_and_its_own_after() -> None:
    own = task()
    assert len(own.x) == 90
    assert len(own.x) + len(own.test_x) == 150 == len(own.before_x)
    assert set(own.y) == set(own.test_y) == set(own.before_y) == set(range(5))
    with pytest.raises(ValueError, match="n_train must be"):
        nets.drawn_task(own.x, own.y, seed=0, n_train=90)
    start = nets.pretrained(own, seed=0, hidden=4, steps=150, rate=1e-2, batch=30)
    _, _, w2, b2 = nets.parts(start, 7)
    assert 0 < np.abs(w2).max() < 0.05
    assert not b2.any()
    assert float(nets.loss(start, own.x, own.y)) == pytest.approx(math.log(5), abs=0.05)


# --- rounds ----------------------------------------------------------------------------------


def test_slopes_are_exact_for_quadratic_and_linear_losses() -> None:
    """½θᵀHθ has the slope zᵀHθ for every ε, aᵀθ the slope aᵀz everywhere."""
    draw = np.random.default_rng(0)
    theta, z = draw.standard_normal(6), draw.standard_normal((4, 6)).astype(np.float32)
    half = draw.standard_normal((6, 6))
    h = half @ half.T
    for epsilon in (1e-3, 0.5, 4.0):
        found = rounds.slopes(
            theta, z, epsilon, lambda at: np.einsum("...i,ij,...j", at, h, at) / 2
        )
        np.testing.assert_allclose(found, z @ h @ theta, rtol=2e-5)
    a = draw.standard_normal(6)
    for at in (theta, 10 * theta):
        np.testing.assert_allclose(rounds.slopes(at, z, 0.1, lambda w: w @ a), z @ a, rtol=1e-5)


def test_the_mean_step_on_a_quadratic_is_that_of_the_gradient() -> None:
    """E[(zᵀg) z] = g, over many directions."""
    own = plan(machines=40, samples=100, rate=1.0, code="float", rounds=1)
    theta = np.array([1.0, -2.0, 0.5])
    z = np.concatenate([rounds.directions(own, 0, m, 3) for m in range(40)])
    number = rounds.slopes(theta, z, 0.1, lambda at: (at**2).sum(-1) / 2)
    moved = theta.copy()
    rounds.step(own, 0, moved, number, z)
    # The variance of a component is (|θ|² + θ_i²) / N.
    error = np.abs(moved - 0) / np.sqrt((theta @ theta + theta**2) / 4000)
    assert error.max() < 4.5
    assert np.abs(theta).min() > 6 * np.sqrt((theta @ theta + 4) / 4000)  # it could have failed


def test_directions_are_of_their_place_alone() -> None:
    own = plan()
    every = {(t, m, j): rounds.direction(own, t, m, j, 5) for t in (0, 1) for m, j in own.places}
    assert len({z.tobytes() for z in every.values()}) == len(every)
    again = rounds.direction(replace(own, machines=9, rounds=77), 1, 2, 1, 5)
    assert again.tobytes() == every[1, 2, 1].tobytes()
    common = replace(own, directions="shared")
    one, other = (rounds.direction(common, 1, m, 0, 5) for m in (0, 2))
    assert (one == other).all()


def test_a_step_is_the_sum_written_out_and_a_replay_repeats_it() -> None:
    own, d = plan(), 11
    start = np.random.default_rng(0).standard_normal(d).astype(np.float32)
    log = np.random.default_rng(1).standard_normal((own.rounds, 6))
    theta, exact = start.copy(), start.astype(np.float64)
    for t, arrived in enumerate(log):
        rounds.step(own, t, theta, arrived)
        for (m, j), number in zip(own.places, arrived, strict=True):
            exact -= 1e-2 / 6 * number * rounds.direction(own, t, m, j, d).astype(np.float64)
    np.testing.assert_allclose(theta, exact, atol=1e-6)
    assert rounds.replay(own, start, log).tobytes() == theta.tobytes()
    # The receivers of the wrong seeds take another step.
    other = rounds.replay(replace(own, directions="wrong"), start, log)
    assert np.abs(other - theta).max() > 1e-3


def test_in_place_steps_leave_rounding_that_a_replay_does_not_have() -> None:
    """+ε z, -2 ε z, +ε z in float32, as the released code has it, does not lead back."""
    theta = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    z, epsilon = rounds.direction(plan(), 0, 0, 0, 1000), np.float32(1e-3)
    moved = theta.copy()
    for factor in (1, -2, 1):
        moved += np.float32(factor) * epsilon * z
    assert 0 < np.abs(moved - theta).max() < 1e-6
    kept = theta.copy()
    rounds.slopes(kept, z[None], 1e-3, lambda at: at.sum(-1))
    assert kept.tobytes() == theta.tobytes()


def test_shares() -> None:
    y = np.arange(40) % 5
    assert all((own == np.arange(40)).all() for own in rounds.shares(y, 3, "all"))
    for how, count in (("iid", 7), ("class", 7), ("class", 10)):
        parts = rounds.shares(y, count, how)
        assert len(parts) == count
        assert sorted(np.concatenate(parts).tolist()) == list(range(40))
    assert [set(y[own]) for own in parts] == [{m % 5} for m in range(10)]
    with pytest.raises(ValueError, match="machines must be fewer"):
        rounds.shares(y, 41, "class")
    with pytest.raises(ValueError, match="shares must be one of"):
        rounds.shares(y, 2, "other")
    with pytest.raises(ValueError, match="directions must be one of"):
        plan(directions="other")
    with pytest.raises(ValueError, match="rounds must be positive"):
        plan(rounds=0)


# --- machines --------------------------------------------------------------------------------


def crew(gradients: bool = False, **changed: Any) -> list[machines.Machine]:
    own, agreed = task(), plan(**changed)
    start = nets.pretrained(own, seed=0, hidden=4, steps=5, rate=1e-2, batch=20)
    parts = rounds.shares(own.y, agreed.machines, "iid")
    return [
        machines.Machine(m, agreed, start, own.x[p], own.y[p], gradients)
        for m, p in enumerate(parts)
    ]


@pytest.mark.parametrize("code", ["byte", "sign", "float", "gradients"])
def test_machines_end_equal_and_bytes_are_counted(code: str) -> None:
    members = crew(code == "gradients", code="byte" if code == "gradients" else code)
    with ThreadPoolExecutor(3) as pool:
        found = machines.exchange(pool, members)
        cut = machines.exchange(pool, members, lost=(1, 2))
    each = {"byte": 2, "sign": 1, "float": 8, "gradients": 4 * len(members[0].start)}[code]
    back = each if code == "gradients" else 3 * each
    assert found.up.tolist() == [5 * each] * 3
    assert found.down.tolist() == [5 * back] * 3
    assert found.joined.tolist() == found.caught.tolist() == [0, 0, 0]
    for one in (found, cut):
        assert one.log == found.log
        assert all(end.tobytes() == found.ends[0].tobytes() for end in one.ends)
    assert np.abs(found.ends[0] - members[0].start).max() > 0
    # One that loses its line comes back to round 3, with the log of three rounds.
    assert cut.joined.tolist() == [0, 3, 0]
    assert cut.up.tolist() == found.up.tolist()
    assert cut.caught.tolist() == [0, 3 * back, 0]
    assert cut.down[1] == found.down[1] - back
    if code != "gradients":
        numbers = [members[0].numbers(message) for message in found.log]
        replayed = rounds.replay(members[0].plan, members[0].start, numbers)
        assert replayed.tobytes() == found.ends[0].tobytes()


def test_strangers_are_turned_away() -> None:
    members = crew(machines=1)
    relay = machines._Relay(members[0], None, False)
    assert relay.door.getsockname()[0] == "127.0.0.1"
    address = relay.door.getsockname()
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(relay.serve)
        for token, number in ((secrets.token_bytes(16), 0), (relay.token, 5)):
            with socket.create_connection(address, timeout=20) as line:
                line.sendall(machines.HELLO.pack(token, number, os.getpid()))
                assert line.recv(1) == b""  # closed without a word
        end, joined = machines.machine_run(address, relay.token, members[0])
        served.result(timeout=20)
    assert joined == 0
    assert relay.error is None
    assert np.isfinite(end).all()


def test_an_error_of_one_machine_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    members = crew()
    members[1] = replace(members[1], x=np.full_like(members[1].x, np.nan))
    begin = time.monotonic()
    with (
        ThreadPoolExecutor(3) as pool,
        pytest.raises(ValueError, match="values must be finite"),
        np.errstate(invalid="ignore"),
    ):
        machines.exchange(pool, members)
    assert time.monotonic() - begin < machines.WAIT  # nobody waited for the line to fall silent


@pytest.mark.slow
def test_a_killed_process_comes_back_with_the_same_bits() -> None:
    members = crew()
    with ThreadPoolExecutor(3) as pool:
        calm = machines.exchange(pool, members)
    with executors.executor_for("processes", 3) as processes:
        lost = machines.exchange(processes, members, lost=(2, 1), kill=True)
    assert lost.joined.tolist() == [0, 0, 2]
    assert all(end.tobytes() == calm.ends[0].tobytes() for end in lost.ends)


@pytest.mark.slow
def test_a_lost_worker_of_dask_comes_back_with_the_same_bits() -> None:
    pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    members = crew()
    with ThreadPoolExecutor(3) as pool:
        calm = machines.exchange(pool, members)
    with executors.executor_for("dask", 3) as cluster:
        lost = machines.exchange(cluster, members, lost=(1, 2), kill=True)
    assert lost.joined.tolist() == [0, 3, 0]
    assert all(end.tobytes() == calm.ends[0].tobytes() for end in lost.ends)


def test_processes_return_and_raise() -> None:
    processes = executors.Processes()
    fine, wrong = processes.submit(math.hypot, 3, 4), processes.submit(math.sqrt, -1)
    dead: Future[Any] = executors.Processes(again=0).submit(os.abort)
    assert fine.result(timeout=60) == 5
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        wrong.result(timeout=60)
    with pytest.raises(RuntimeError, match="process ended with -6"):
        dead.result(timeout=60)
    with pytest.raises(ValueError, match="where must be one of"), executors.executor_for("x", 1):
        pass


# --- stored runs -----------------------------------------------------------------------------


def tuned(**changed: Any) -> dict[str, Array]:
    own = {"seed": 0, "net": NET, "plan": PLAN, "code": "byte", "share": "iid"}
    return runs.tune_run(DIGITS, **{**own, "directions": "own", "at": [0, 2], **changed})


@pytest.mark.parametrize("code", ["byte", "gradients"])
def test_one_process_is_as_good_as_many(code: str) -> None:
    far = runs.machines_run(
        DIGITS, seed=0, net=NET, plan=PLAN, code=code, share="iid", where="threads", lost=[0, 1]
    )
    near = tuned(code=code)
    assert all(end.tobytes() == near["end"].tobytes() for end in [*far["ends"], far["late"]])
    apart = np.abs(far["backwards"] - near["end"]).max()
    assert (0 < apart < 1e-5) == (code != "gradients")


def test_arms_differ_in_what_they_say() -> None:
    own = tuned()
    assert len(own["loss"]) == len(own["accuracy"]) == 3
    assert len(own["size"]) == 5
    for changed in ({"code": "sign"}, {"share": "class"}, {"directions": "shared"}):
        assert (tuned(**changed)["start"] == own["start"]).all()
        assert np.abs(tuned(**changed)["end"] - own["end"]).max() > 1e-4
    # The numbers of the first round are measured before anybody takes another direction.
    wrong = tuned(directions="wrong")
    assert wrong["size"][0] == own["size"][0]
    assert wrong["loss"][0] == own["loss"][0]
    assert tuned(code="sign")["size"].tolist() == [1.0] * 5


def test_the_squared_cosine_has_its_law() -> None:
    """(N + 2) / (N + d + 1) with own directions and 3 / (d + 2) with one, d = 425."""
    found = runs.alignment_run(DIGITS, seed=0, net=NET, counts=[1, 24], draws=150, epsilon=1e-3)
    d = 6 * 70 + 5
    own, shared = (found[key][:, 0] / found[key][:, 1] for key in ("own", "shared"))
    assert own[1] == pytest.approx(26 / (25 + d), rel=0.2)
    assert own[0] == shared[0]
    assert shared[1] == pytest.approx(3 / (d + 2), rel=0.9)
    # E|ĝ|² / |g|² = (N + d + 1) / N.
    assert found["own"][1, 2] == pytest.approx((25 + d) / 24, rel=0.2)


TINY_TEXT = text.TINY["text_run"]


def numbers() -> TextData:
    letters = torch.tensor(list(b"The Cat sat. ")).repeat(80).byte()
    return TextData("letters", "letters", letters, 900, "0" * 64)


def test_capitals_are_folded() -> None:
    raw = torch.tensor([*b"Az[@Z{", 200])
    assert bytes(text.folded(raw).tolist()) == b"az[@z{" + bytes([104])


def test_a_language_model_is_one_vector() -> None:
    model, windows = text.Model(TINY_TEXT["net"], 0), torch.arange(14).view(2, 7)
    other = model.theta + 0.1
    before = model.theta.clone()
    found = model.at(other, windows)
    assert torch.equal(model.theta, before)
    with torch.no_grad():
        for p in model.gpt.parameters():
            p.add_(0.1)
        assert torch.equal(model.theta, other)
        assert float(model.loss(windows)) == found


def test_text_is_learned_from_numbers_as_from_gradients() -> None:
    plan_of = {**TINY_TEXT["plan"], "rounds": 16, "machines": 4, "rate": 0.03}
    own = {**TINY_TEXT, "before": {"steps": 30, "rate": 1e-2, "batch": 4}, "every": 8}
    found = {
        code: text.text_run(numbers(), **{**own, "plan": plan_of, "code": code})
        for code in ("float", "byte", "gradients")
    }
    first = {code: run["loss"][0] for code, run in found.items()}
    assert len(set(first.values())) == 1
    assert all(run["loss"][-1] < run["loss"][0] for run in found.values())
    assert abs(found["byte"]["loss"][-1] - found["float"]["loss"][-1]) < 0.05
    assert found["gradients"]["loss"][-1] < found["float"]["loss"][-1]


# --- frames and figures ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        settings_of = {"net": NET, "plan": PLAN, "at": [0, 2]}
        grids = {"float": [1e-9, 1e-2], "sign": [0.02], "gradients": [0.1]}
        best = experiment.best_rates(DIGITS, [5, 6], grids, settings_of)
        arms = experiment.arms_of(
            PLAN, [1, 2], best, [0.1], most=12, per_machine=1e-3, old_rate=0.05
        )
        found = experiment.runs_of(DIGITS, [0, 1], arms, settings_of)
        yield {
            "arms": arms, "runs": found, "best": best,
            "frame": experiment.curves(found, arms, [0, 1], settings_of),
            "along": experiment.alignment_frame(
                DIGITS, [0, 1], {"net": NET, "counts": [1, 2], "draws": 2, "epsilon": 1e-3}
            ),
        }  # fmt: skip


def test_arms_and_their_rates(study: dict[str, Any]) -> None:
    arms = study["arms"]
    assert study["best"] == {"float": 1e-2, "sign": 0.02, "gradients": 0.1}
    assert arms["M = 2"] == {"machines": 2, "rate": 2e-3}
    many = experiment.arms_of(PLAN, [16], study["best"], [], most=12, per_machine=1e-3, old_rate=1)
    assert many["M = 16"]["rate"] == pytest.approx(12e-3)
    assert arms["class, long"] == {"share": "class", "rate": PLAN["rate"] / 3, "rounds": 10}
    assert set(study["frame"].arm) == set(arms)


def test_curves_and_bytes(study: dict[str, Any]) -> None:
    frame, own = study["frame"], study["runs"]["byte"][1]
    one = frame[(frame.arm == "byte") & (frame.seed == 1)]
    assert one["round"].tolist() == [0, 2, 5]
    assert one.loss.tolist() == own["loss"].tolist()
    assert one.sent.tolist() == [0, 12, 30]
    sent = {arm: experiment.last(frame, arm, "sent")[0] for arm in ("float", "4 bits", "sign")}
    assert sent == {"float": 120, "4 bits": 15, "sign": 3.75}
    d = len(own["end"])
    assert experiment.last(frame, "gradients, old rate", "sent")[0] == 5 * 4 * d * 3
    with pytest.raises(ValueError, match="arm and round must be"):
        experiment.last(frame, "other")
    table = experiment.end_table(frame).set_index("arm")
    assert table.loss["byte"] == pytest.approx(
        np.mean([run["loss"][-1] for run in study["runs"]["byte"]]), abs=1e-4
    )


def test_what_claims_are_made_of(study: dict[str, Any]) -> None:
    found = experiment.rising(study["frame"], [1, 2], 2)
    own, fewer = study["runs"]["M = 2"], study["runs"]["M = 1"]
    by_hand = [a["loss"][1] - b["loss"][1] for a, b in zip(own, fewer, strict=True)]
    assert found[2].tolist() == by_hand
    ratio = experiment.slope_ratio(study["runs"], "class", "iid", [0, 1])
    sizes = [study["runs"][arm][0]["size"] for arm in ("class", "iid")]
    assert ratio[0] == pytest.approx(np.linalg.norm(sizes[0]) / np.linalg.norm(sizes[1]))
    along = study["along"]
    assert along.law[0] == pytest.approx(3 / (2 + 425))
    assert along[along.N == 1].own.tolist() == along[along.N == 1].shared.tolist()


def test_weights_of_noise_and_of_gradients(study: dict[str, Any]) -> None:
    frame = weights.weights_frame(study["runs"], ["float", "gradients, old rate"], [0, 1])
    run = study["runs"]["float"][0]
    change = (run["end"].astype(float) - run["start"])[: 6 * 64].reshape(6, 64)
    row = frame.iloc[0]
    draw = np.random.default_rng(5)
    noise = np.mean([stable_rank(draw.standard_normal((6, 64))) for _ in range(300)])
    assert row["rank"] == pytest.approx(stable_rank(change) / noise, rel=0.02)
    start = run["start"][: 6 * 64]
    assert row["distance"] == pytest.approx(np.linalg.norm(change) / np.linalg.norm(start))
    # The softmax's gradient sums to zero over classes, so every column of ΔW2 does.
    assert weights.of_weights(frame, "gradients, old rate", "columns").max() < 1e-4
    assert weights.of_weights(frame, "float", "columns").min() > 0.05
    values = weights.eigenvalue_frame(study["runs"], ["float"], [0, 1])
    total = values.groupby("seed").eigenvalue.sum()
    assert total.tolist() == pytest.approx([64.0, 64.0])  # |ΔW|² over h times the variance
    law = weights.noise_density(32)
    assert np.trapezoid(law.density, law.x) == pytest.approx(1, abs=0.01)


def test_machines_frame() -> None:
    settings_of = {"net": NET, "plan": PLAN}
    found = experiment.machines_frame(
        DIGITS, 7, {"byte": 1, "gradients": 1}, settings_of, where="threads", lost=[1, 2]
    )
    assert found[["apart", "one_process", "late"]].to_numpy().max() == 0
    byte = found[found.kind == "byte"]
    assert byte.up.tolist() == [5, 5, 5]
    assert byte.joined.tolist() == [0, 3, 0]
    assert (byte.backwards > 0).all()
    assert byte.log.tolist() == [0, 9, 0]


def test_figures_show_what_they_are_given(study: dict[str, Any]) -> None:
    best = ["float, best rate", "gradients, old rate"]
    shown = experiment.panels(study["frame"], study["along"], [1, 2], best, [0.1])
    figure = plots.byte_panels(**shown, dashed="gradients", single=3 / 427)
    labels = [panel.get_title() for panel in figure.axes]
    assert labels == [
        "(a) number of machines", "(b) what is sent", "(c) estimates", "(d) arms and controls"
    ]  # fmt: skip
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    of_two = shown["machines"].query("number == 2").groupby("round").loss.mean()
    np.testing.assert_allclose(np.asarray(lines["M = 2"].get_ydata(), float), of_two, rtol=1e-4)
    names = [label.get_text() for label in figure.axes[3].get_yticklabels()]
    assert names == list(dict.fromkeys(shown["ends"].arm))
    changed = weights.weights_frame(study["runs"], ["float"], [0, 1])
    values = weights.eigenvalue_frame(study["runs"], ["float"], [0, 1])
    read = experiment.text_frame(
        numbers(), [0, 1], {"byte": 0.01},
        {key: TINY_TEXT[key] for key in ("net", "before", "plan", "every", "windows")},
    )  # fmt: skip
    assert read["round"].tolist() == [0, 2, 3] * 2
    for spoken, count in ((read, 3), (read.iloc[:0], 2)):
        figure = plots.weight_panels(values, weights.noise_density(6), changed, spoken)
        assert len(figure.axes) == count
    assert isinstance(changed, pd.DataFrame)
