"""dynamics.grokking_*: energies on groups against brute force and autograd, and their networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sympy.combinatorics.named_groups import DihedralGroup, SymmetricGroup

from rclib.experiments.dynamics import grokking_energies as units
from rclib.experiments.dynamics import grokking_li2 as experiment
from rclib.experiments.dynamics import grokking_networks as networks
from rclib.experiments.dynamics import grokking_theory as theory
from rclib.experiments.dynamics import plots_grokking as plots

GROUPS = ["Z5", "Z6", "S3", "D4", "D5", "Q8", "S3xZ3", "Z2xZ4"]


def sphere(units: int, m: int, seed: int = 0) -> np.ndarray:
    w = np.random.default_rng(seed).standard_normal((units, 2 * m))
    return np.asarray(w / np.linalg.norm(w, axis=1, keepdims=True))


def task(group: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = theory.group_table(group)
    x, labels = theory.inputs_of(table)
    return table, x, theory.targets_of(labels, len(table))


# --- groups --------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS)
def test_tables_are_those_of_groups_and_components_are_theirs(group: str) -> None:
    table = theory.group_table(group)
    m = len(table)
    everyone = np.arange(m)
    np.testing.assert_array_equal(table[0], everyone)  # the identity
    np.testing.assert_array_equal(table[:, 0], everyone)
    assert (table[table] == table[everyone[:, None, None], table[None]]).all()  # (ab)c = a(bc)
    for line in (table, table.T):
        np.testing.assert_array_equal(np.sort(line, axis=1), np.tile(everyone, (m, 1)))
    parts = theory.components(table)
    # They are orthogonal, whole, and commute with the group's action from both sides.
    np.testing.assert_allclose(sum(one.projection for one in parts), np.eye(m), atol=1e-10)
    for one in parts:
        np.testing.assert_allclose(one.projection @ one.projection, one.projection, atol=1e-10)
        for g in (1, m - 1):
            for action in (np.eye(m)[table[g]].T, np.eye(m)[table[:, g]].T):
                np.testing.assert_allclose(
                    action @ one.projection, one.projection @ action, atol=1e-10
                )
    pairs = {"complex": 2}
    assert sum(pairs.get(one.kind, 1) * one.degree**2 for one in parts) == m
    assert [one.kind for one in parts].count("trivial") == 1
    assert parts[0].kind == "trivial"
    abelian = bool((table == table.T).all())
    assert abelian == all(one.degree == 1 for one in parts)


def test_tables_are_those_of_sympy_and_the_kinds_those_of_the_books() -> None:
    for name, other in (("S3", SymmetricGroup(3)), ("D5", DihedralGroup(5))):
        table = theory.group_table(name)
        orders = [_order(table, g) for g in range(len(table))]
        assert sorted(orders) == sorted(g.order() for g in other.elements)
        classes = {frozenset(c) for c in other.conjugacy_classes()}
        complex_pairs = sum(one.kind == "complex" for one in theory.components(table))
        assert len(theory.components(table)) + complex_pairs == len(classes)
    kinds = {
        g: [(o.kind, o.degree) for o in theory.components(theory.group_table(g))[1:]]
        for g in GROUPS
    }
    assert kinds["S3"] == [("real", 1), ("real", 2)]
    assert kinds["Q8"] == [("real", 1)] * 3 + [("quaternionic", 2)]
    assert kinds["D4"] == [("real", 1)] * 3 + [("real", 2)]
    assert kinds["Z5"] == [("complex", 1)] * 2
    assert ("complex", 2) in kinds["S3xZ3"]
    for wrong in ("S4", "Z1", "D", "", "Zx3"):
        with pytest.raises(ValueError, match="group must be"):
            theory.group_table(wrong)


def _order(table: np.ndarray, g: int) -> int:
    found, steps = g, 1
    while found != 0:
        found, steps = int(table[found, g]), steps + 1
    return steps


# --- energies ------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["Z5", "S3", "Q8"])
def test_the_energy_and_its_gradient_by_brute_force_and_autograd(group: str) -> None:
    table, x, y = task(group)
    m = len(table)
    w = sphere(3, m)
    for s in range(3):
        u, v, z = w[s, :m], w[s, m:], np.zeros(m)
        for g in range(m):
            for h in range(m):
                z[table[g, h]] += (u[g] + v[h]) ** 2
        assert theory.energies(w, x, y)[s] == pytest.approx(0.5 * np.square(z - z.mean()).sum())
    for activation, function in (("square", torch.square), ("relu", torch.relu)):
        leaf = torch.from_numpy(w.copy()).requires_grad_()
        inner = function(leaf @ torch.from_numpy(x).T) @ torch.from_numpy(y)
        (grad,) = torch.autograd.grad(0.5 * inner.square().sum(), leaf)
        found = theory.gradients(w, x, y, activation)
        np.testing.assert_allclose(found, grad.numpy(), atol=1e-12)
    with pytest.raises(ValueError, match="activation must be one of"):
        theory.energies(w, x, y, "gelu")
    with pytest.raises(ValueError, match="rule must be one of"):
        theory.ascend(w, x, y, steps=1, rate=0.1, rule="adam")


@pytest.mark.parametrize("m", [5, 6, 11])
def test_the_closed_form_and_what_leaves_the_energy_as_it_is(m: int) -> None:
    _, x, y = task(f"Z{m}")
    w = sphere(4, m, seed=m)
    energy = theory.energies(w, x, y)
    np.testing.assert_allclose(theory.closed_energy(w), energy, rtol=1e-10)
    u, v = w[:, :m], w[:, m:]
    for other in ((np.roll(u, 2, 1), v), (u, np.roll(v, 1, 1)), (v, u), (u, -v)):
        moved = np.concatenate(other, axis=1)
        np.testing.assert_allclose(theory.energies(moved, x, y), energy, rtol=1e-10)


def test_single_frequencies_have_a_quarter_and_the_alternating_vector_a_half() -> None:
    """The derived M/4 and M/2, not the printed M/16 and M/8; the phases of u and v are free."""
    for m in (11, 12):
        _, x, y = task(f"Z{m}")
        for k in range(1, (m + 1) // 2):
            u, v = (np.cos(2 * np.pi * k * np.arange(m) / m + phase) for phase in (0.3, 1.9))
            w = np.concatenate([u, v])[None] / np.sqrt(2) / np.linalg.norm(u)
            assert theory.energies(w, x, y)[0] == pytest.approx(m / 4)
    alternating = np.tile((-1.0) ** np.arange(12), 2)[None] / np.sqrt(24)
    assert theory.energies(alternating, x, y)[0] == pytest.approx(6.0)
    parts = theory.components(theory.group_table("Z12"))
    assert sorted(one.energy for one in parts) == [0.0] + [3.0] * 5 + [6.0]


@pytest.mark.parametrize("group", GROUPS)
def test_no_unit_of_one_component_has_more_than_its_energy(group: str) -> None:
    """And matrices that fit reach it: ascent within the component does."""
    table, x, y = task(group)
    m = len(table)
    for one in theory.components(table)[1:]:
        halves = sphere(12, m).reshape(12, 2, m) @ one.projection
        w = (halves / np.linalg.norm(halves, axis=2, keepdims=True) / np.sqrt(2)).reshape(12, -1)
        assert theory.energies(w, x, y).max() < one.energy * (1 + 1e-9)
        w = theory.ascend(w, x, y, steps=300, rate=1.0 / m)
        np.testing.assert_allclose(theory.energies(w, x, y), one.energy, rtol=1e-3)
        np.testing.assert_allclose(theory.powers(w, [one]), 1.0, rtol=1e-6)


def test_random_units_end_at_one_component_and_those_of_a_random_table_do_not() -> None:
    frame = units.energy_frame([0, 1], ["Z7", "S3"], units=20, steps=400)
    assert (units.hit_share(frame, ["Z7", "S3"]) == 1.0).all()
    assert (units.hit_share(frame, ["Z7", "S3"], factor=0.25) == 0.0).all()
    assert (units.hit_share(frame, ["random"]) == 0.0).all()
    levels = units.level_frame(frame)
    assert set(levels[levels.group == "Z7"].level) == {0.25}
    assert set(levels[levels.group == "S3"].level) == {0.25, 0.5}
    np.testing.assert_allclose(levels.groupby("group").share.sum(), 1.0)
    # v = ± P u is a choice, not a rule: |cos| of free phases is above 0.99 for 9 percent.
    assert 0.0 < (frame[frame.group == "Z7"].mirror > 0.99).mean() < 0.5


def test_one_class_is_memorised_and_muon_covers_more() -> None:
    frame = units.one_class_frame([0, 1], m=6, units=8, steps=400).set_index("activation")
    assert (frame.share["square"] > 0.999).all()  # the likeliest pair alone
    assert (frame.cosine["relu"] > 0.999).all()  # all pairs, by their probabilities
    assert (frame.cosine["square"] < 0.9).all()
    cover = units.cover_frame(range(4), m=11, units=10, steps=300)
    assert (cover.muon >= cover.gradient).all()
    assert cover.muon.mean() >= cover.gradient.mean() + 0.5
    kept = units.kept_frame([0], sizes=[7], shares=[0.2, 0.5, 1.0], units=8, steps=200)
    assert kept.value.is_monotonic_increasing
    assert kept.value.iloc[-1] == pytest.approx(1.0)
    assert kept.value.iloc[0] < 0.5


# --- the leaked gradient -------------------------------------------------------------------


def test_the_ridge_gradient_is_that_of_the_solved_top_layer() -> None:
    """Against `torch.linalg.solve` and autograd; and its early slope from V = 0 is ỸỸᵀF̃."""
    _, x, y = task("Z5")
    features = np.square(x @ sphere(8, 5).T)
    features = torch.from_numpy(features - features.mean(0)).requires_grad_()
    targets, decay = torch.from_numpy(y), 0.03
    gram = (features.T @ features).detach() + decay * torch.eye(8, dtype=torch.float64)
    v = torch.linalg.solve(gram, features.detach().T @ targets)
    (sent,) = torch.autograd.grad(0.5 * (targets - features @ v).square().sum(), features)
    found = theory.ridge_gradient(features.detach().numpy(), y, decay)
    np.testing.assert_allclose(found, -sent.numpy(), atol=1e-8)
    f = features.detach().numpy()
    # η = 0 and more features than samples: nothing leaks.
    wide = np.square(x @ sphere(60, 5).T)
    wide = wide - wide.mean(0)
    sizes = [np.linalg.norm(theory.ridge_gradient(wide, y, eta)) for eta in (1e-2, 1e-4, 1e-6)]
    assert sizes[0] > 50 * sizes[1] > 2500 * sizes[2]
    step = 1e-6
    early = step * f.T @ y  # V after one small step from zero
    np.testing.assert_allclose((y - f @ early) @ early.T / step, y @ y.T @ f, atol=1e-4)


def test_similar_units_repel_by_the_sign_of_their_partial_correlation() -> None:
    """Theorem 6: off the diagonal of (F̃ᵀF̃ + ηI)⁻¹ the signs are those of minus f_jᵀ P f_l."""
    f = np.random.default_rng(0).standard_normal((20, 6))
    f, eta = f - f.mean(0), 0.1
    b = np.linalg.inv(f.T @ f + eta * np.eye(6))
    for j in range(6):
        for k in range(j):
            rest = np.delete(f, [j, k], axis=1)
            inner = np.linalg.inv(rest.T @ rest + eta * np.eye(4))
            partial = f[:, j] @ (np.eye(20) - rest @ inner @ rest.T) @ f[:, k]
            assert np.sign(b[j, k]) == -np.sign(partial)


def test_what_is_learned_vanishes_from_the_energy() -> None:
    """Theorem 7: with units of one frequency fitted, maxima are at the missing ones alone."""
    m, learned = 7, 2
    table, x, y = task(f"Z{m}")
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, (2, 12, 1))
    waves = np.cos(2 * np.pi * learned * np.arange(m) / m + phases)
    features = np.square(x @ np.concatenate([*waves], axis=1).T)
    features = features - features.mean(0)
    inner = features.T @ features + 1e-6 * np.eye(12)
    left = y - features @ np.linalg.solve(inner, features.T @ y)
    parts, start = theory.components(table), sphere(60, m)
    strongest = []
    for targets in (y, left):
        ended = theory.ascend(start, x, targets, steps=500, rate=1.0 / m)
        power = theory.powers(ended, parts)
        assert power.max(1).min() > 0.99
        spectrum = np.abs(np.fft.rfft(ended[:, :m], axis=1))
        strongest.append(set(spectrum.argmax(1).tolist()))
    assert strongest == [{1, 2, 3}, {1, 3}]


def test_two_complex_features_a_character_reconstruct_the_targets() -> None:
    """Theorem 3 for an Abelian group: K = 2 (M - 1) features (u, ± u)."""
    m = 7
    _, x, y = task(f"Z{m}")
    waves = np.exp(2j * np.pi * np.outer(np.arange(m), np.arange(1, m)) / m)  # (m, k)
    both = np.concatenate(
        [np.square(x @ np.concatenate([waves, sign * waves])) for sign in (1, -1)], axis=1
    )
    both = both - both.mean(0)

    def error(features: np.ndarray) -> float:
        v = np.linalg.lstsq(features, y.astype(complex), rcond=None)[0]
        return float(np.abs(features @ v - y).max())

    assert both.shape[1] == 2 * (m - 1)
    assert error(both) < 1e-10
    assert error(np.delete(both, [0, m - 1], axis=1)) > 0.05  # without one of the characters


# --- networks ------------------------------------------------------------------------------

SMALL: dict[str, Any] = {"m": 5, "width": 32, "share": 0.8, "rate": 5e-3, "steps": 40, "every": 20}


def test_networks_train_as_torch_does() -> None:
    group = [{"seed": 3, "decay": 1e-2, "zero": False, "labels": "group"}]
    run = networks.train_networks(None, group=group, after=0.0, **SMALL)
    random = np.random.default_rng([3, 5, 5])
    kept = np.sort(random.permutation(25)[:20])
    first = torch.from_numpy(run["first"][0]).clone().requires_grad_()
    random.uniform(-1, 1, (10, 32))
    v = random.uniform(-1, 1, (32, 5)) / np.sqrt(32)
    last = torch.from_numpy(v).float().requires_grad_()
    x, labels = theory.inputs_of(theory.group_table("Z5"))
    inputs, classes = torch.from_numpy(x).float(), torch.from_numpy(labels)
    adam = torch.optim.Adam([first, last], lr=5e-3, weight_decay=1e-2)
    for _ in range(40):
        out = (inputs[kept] @ first).square() @ last
        out = out - out.mean(1, keepdim=True)
        own = out.gather(1, classes[kept, None])[:, 0]
        loss = (out.square().sum(1) - 2 * own + 1 - 1 / 5).mean()  # as the authors write it
        first.grad, last.grad = torch.autograd.grad(loss, [first, last])
        adam.step()
    np.testing.assert_allclose(run["last"][0], first.detach().numpy(), atol=2e-4)
    right = ((inputs @ first).square() @ last).argmax(1) == classes
    tested = np.setdiff1d(np.arange(25), kept)
    assert run["train"][0, -1] == pytest.approx(float(right[kept].float().mean()), abs=1e-6)
    assert run["test"][0, -1] == pytest.approx(float(right[tested].float().mean()), abs=1e-6)


def test_members_do_not_depend_on_the_group_they_are_trained_in() -> None:
    group = [
        {"seed": s, "decay": d, "zero": z, "labels": "group"}
        for s, d, z in ((0, 2e-4, False), (1, 0.0, True), (2, 1e-3, False))
    ]
    shared = SMALL | {"after": 1.0, "m": 7}
    together = networks.train_networks(None, group=group, **shared)
    for s, one in enumerate(group):
        alone = networks.train_networks(None, group=[one], **shared)
        for name in (*networks.MEASURES, "last"):
            np.testing.assert_array_equal(together[name][s], alone[name][0], err_msg=name)


def test_measures_of_weights_and_features_against_what_is_known() -> None:
    m, k = 6, 40
    grid = np.arange(m)
    wave = np.tile(np.cos(2 * np.pi * grid / m), 2)[:, None] * np.ones(k)
    v = torch.ones(k, m)
    found = networks.of_weights(torch.from_numpy(wave).float(), v)
    assert found[:2] == pytest.approx((1.0, 1.0))
    assert found[2] == pytest.approx(0.0, abs=1e-12)
    assert found[3] == pytest.approx(1.0)  # one direction
    alternating = np.tile((-1.0) ** grid, 2)[:, None] + 1.0 + np.zeros(k)
    found = networks.of_weights(torch.from_numpy(alternating).float(), v)
    assert (found[0], found[2]) == pytest.approx((0.5, 0.5))
    random = np.random.default_rng(0)
    noise = torch.from_numpy(random.standard_normal((60, 400))).float()
    purity, plain, constant, rank, spikes, structure = networks.of_weights(
        noise, torch.ones(400, 30)
    )
    assert constant == pytest.approx(1 / 30, abs=0.01)
    assert rank == pytest.approx(60 / (1 + 60 / 400), rel=0.03)
    assert spikes == 0.0
    assert structure == pytest.approx(1.0, abs=0.25)
    assert purity == pytest.approx(plain, abs=0.02)

    x, labels = theory.inputs_of(theory.group_table("Z5"))
    y = np.eye(5)[labels] - 0.2
    tensors = {"W": torch.from_numpy(sphere(16, 5).T).float(), "V": torch.zeros(16, 5)}
    features = np.square(x @ sphere(16, 5).T)
    decay = 2e-2
    penalty = decay * len(x) / 2
    best = np.linalg.solve(features.T @ features + penalty * np.eye(16), features.T @ y)
    tensors["V"] = torch.from_numpy(best).float()
    given = torch.from_numpy(x).float(), torch.from_numpy(y).float(), tensors
    overlap, leaked, signal, ridge = networks.of_features(*given, decay)
    assert ridge == pytest.approx(1.0, abs=1e-4)
    sent = (y - features @ best) @ best.T
    assert leaked == pytest.approx(np.linalg.norm(sent) / np.linalg.norm(y), rel=1e-3)
    assert -1.0 <= signal <= 1.0
    correlated = np.abs(np.cov(features.T))
    off = (correlated.sum() - np.trace(correlated)) / (16 * 15)
    assert overlap == pytest.approx(off / (np.trace(correlated) / 16), rel=1e-3)
    assert networks.of_features(*given, 0.0)[3] == 0.0


def test_muon_moves_like_that_of_torch() -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 4))).float()
    u = networks.polar(matrix)
    torch.testing.assert_close(u.T @ u, torch.eye(4), atol=1e-5, rtol=0)
    symmetric = u.T @ matrix
    torch.testing.assert_close(symmetric, symmetric.T, atol=1e-5, rtol=0)
    assert (torch.linalg.eigvalsh(symmetric) > 0).all()
    # torch's iteration stops early: singular values of its step lie between 0.7 and 1.2.
    leaf = torch.zeros(6, 4, requires_grad=True)
    leaf.grad = matrix.clone()
    muon: Any = torch.optim.Muon([leaf], lr=1.0, weight_decay=0.0)
    muon.step()
    moved = -leaf.detach() / (6 / 4) ** 0.5
    cosine = (moved * u).sum() / (moved.norm() * u.norm())
    assert float(cosine) > 0.98
    frame = experiment.narrow_frame([0, 1], m=5, width=6, share=0.8, steps=30)
    assert list(frame.rule) == ["adam", "adam", "muon", "muon"]
    assert frame.test.between(0, 1).all()
    assert (frame.found >= 1).all()
    with pytest.raises(ValueError, match="rule must be one of"):
        networks.narrow_network(None, seed=0, m=5, width=6, share=0.8, rule="sgd", steps=1)


@pytest.mark.slow
def test_networks_grok_with_decay_and_frames_say_when() -> None:
    shared = {"m": 11, "width": 64, "share": 0.85, "rate": 5e-3, "steps": 600, "every": 50}
    grown, decays = "η = 8e-4", {"η = 8e-4": 8e-4, "η = 4e-4": 4e-4}
    arms: dict[str, dict[str, Any]] = {name: {"decay": decay} for name, decay in decays.items()}
    arms |= {"η = 0": {"decay": 0.0}, "zero start": {"decay": 8e-4, "zero": True}}
    arms |= {"random": {"decay": 8e-4, "labels": "random"}}
    frame = experiment.network_frame([0, 1, 2], arms, after=1.0, **shared)
    values = experiment.network_values(frame, grown=grown, decays=decays, steps=600, lazy=0.5)
    assert all(list(one.index) == [0, 1, 2] and one.notna().all() for one in values.values())
    assert values["stage_order"].min() > 2
    assert values["time_law"].max() < 0
    assert values["random_labels"].max() < 0.5
    assert values["zero_start_faster"].mean() < 1
    ended = frame[frame.arm == grown].groupby("seed").last()
    assert (ended.test >= networks.GROKKED).all()
    assert (ended.step < 600).all()  # it stopped when it had grokked
    course = experiment.course(frame, [grown], ["test", "rank"])
    assert (course.low <= course["mean"]).all()
    weights = experiment.shown_weights(0, after=1.0, **shared)
    assert weights["last"].shape == (6, 64)
    assert weights["last"].max() == weights["first"].max() == 1.0
    assert (np.diff(weights["last"].argmax(0)) >= 0).all()
    moments = experiment.times(frame)
    marks = pd.DataFrame({"name": ["fitted", "grokked"], "step": [20.0, 300.0]})
    slow = moments[moments.arm.isin(decays)].assign(decay=lambda f: f.arm.map(decays))
    levels = units.level_frame(units.energy_frame([0], ["Z5"], units=4, steps=50))
    data = pd.DataFrame({"m": [5, 7], "share": [0.5, 0.6], "value": [0.2, 1.0], "at": 2.0})
    columns = ["train", "test", "purity", "rank", "structure", "constant"]
    curves = experiment.course(frame, [grown, "η = 0"], columns)
    figure = plots.grokking_panels(curves, marks, levels, data, weights, slow)
    assert len(figure.axes) == 7
    cosines = experiment.course(frame, [grown, "η = 0"], ["ridge", "signal", "leaked"])
    critical = pd.DataFrame({"what": "networks", "m": [5, 7], "share": [0.5, 0.4]})
    cover = pd.DataFrame({"seed": [0], "gradient": [3.0], "muon": [4.0], "most": 5})
    assert len(plots.gradient_panels(cosines, marks, critical, cover).axes) == 3


def test_times_slopes_and_critical_shares_by_hand() -> None:
    assert experiment.crossing([0, 10, 20], [0.0, 0.5, 1.0], 0.75) == 15.0
    assert experiment.crossing([5, 10], [1.0, 1.0], 0.9) == 5.0
    assert np.isnan(experiment.crossing([5, 10], [0.0, 0.1], 0.9))
    times = pd.DataFrame({
        "arm": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "fitted": [10.0] * 4,
        "grokked": [100.0, 200.0, 50.0, np.nan],
    })  # fmt: skip
    slopes = experiment.time_slopes(times, {"a": 2e-4, "b": 4e-4}, at_most=300)
    assert slopes.tolist() == pytest.approx([-1.0, np.log2(150 / 200)])
    ratio = experiment.ratio_of_times(times, ("b", "grokked"), ("a", "fitted"), at_most=300)
    assert ratio.tolist() == [5.0, 30.0]
    rows = [
        (m, seed, share, float(share >= c * np.log(m) / m))
        for seed, c in ((0, 2.0), (1, 2.5)) for m in (11, 23, 31)
        for share in np.linspace(0.02, 0.98, 97)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["m", "seed", "share", "value"])
    table = experiment.critical_shares(frame)
    expected = 2.0 * np.log(23) / 23
    assert table.loc[0, 23] == pytest.approx(expected, abs=0.01)
    assert experiment.largest_deviation(frame).max() < 0.05
    # ln M over these sizes: slope about 0.35; a fixed share has slope one.
    assert experiment.exponents(frame).tolist() == pytest.approx([0.35, 0.35], abs=0.05)
    fixed = frame.assign(value=(frame.share >= 0.5).astype(float))
    assert experiment.exponents(fixed).tolist() == pytest.approx([1.0, 1.0], abs=0.02)
    assert experiment.typical_load(frame) == pytest.approx(2.25, rel=0.03)
    long = experiment.critical_frame({"networks": frame, "energies": fixed})
    assert set(long.columns) == {"seed", "m", "share", "what"}
    assert len(long) == 12


def test_data_frame_is_of_the_asked_loads() -> None:
    frame = experiment.data_frame(
        [0], sizes=[5, 7], loads=[1.0, 2.0, 4.0], width=32, rate=5e-3, steps=20, every=20, after=0.0
    )
    assert set(zip(frame.m, frame.load, strict=True)) == {(5, 1.0), (5, 2.0), (7, 1.0), (7, 2.0)}
    np.testing.assert_allclose(frame.share, frame.load * np.log(frame.m) / frame.m)
    assert networks.recorded_steps(3, 1) == [0, 1, 2, 3]
    assert networks.recorded_steps(130, 100)[-3:] == [60, 100, 130]


def test_the_written_gradient_is_autograds() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.double)  # noqa: E731
    tensors, x, y = {"W": drawn(3, 8, 6), "V": drawn(3, 6, 4)}, drawn(3, 10, 8), drawn(3, 10, 4)
    losses, found = networks.squares_gradients(tensors, x, y)
    for s in range(3):
        one = {name: tensor[s].clone().requires_grad_() for name, tensor in tensors.items()}
        loss = networks.network_loss(networks.squares(one, x[s]), y[s])
        torch.testing.assert_close(losses[s], loss.detach(), rtol=1e-12, atol=0.0)
        for name, grad in zip(one, torch.autograd.grad(loss, list(one.values())), strict=True):
            torch.testing.assert_close(found[name][s], grad, rtol=1e-10, atol=1e-12)
