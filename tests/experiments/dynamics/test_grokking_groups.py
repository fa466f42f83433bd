"""dynamics.grokking_groups: tables of groups, what units and outputs are made of, networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sympy.combinatorics.named_groups import AlternatingGroup, SymmetricGroup

from rclib.experiments.dynamics import grokking_groups as experiment
from rclib.experiments.dynamics import grokking_representations as runs
from rclib.experiments.dynamics import grokking_theory as theory
from rclib.experiments.dynamics import plots_grokking_groups as plots

SMALL: dict[str, Any] = {"width": 24, "share": 0.7, "rate": 5e-3, "steps": 40, "every": 20}


@pytest.mark.parametrize(
    ("name", "other", "degrees"),
    [
        ("S4", SymmetricGroup(4), [1, 2, 3, 3]),
        ("A4", AlternatingGroup(4), [1, 3]),
        ("A5", AlternatingGroup(5), [3, 3, 4, 5]),
    ],
)
def test_tables_of_permutations_are_those_of_sympy(
    name: str, other: Any, degrees: list[int]
) -> None:
    table = runs.table_of(name)
    m, everyone = len(table), np.arange(len(table))
    assert m == other.order()
    np.testing.assert_array_equal(table[0], everyone)
    np.testing.assert_array_equal(table[:, 0], everyone)
    assert (table[table] == table[everyone[:, None, None], table[None]]).all()  # associative
    parts = theory.components(table)
    assert [one.degree for one in parts[1:]] == degrees  # as the books have them
    pairs = sum(one.kind == "complex" for one in parts)
    assert len(parts) + pairs == len(other.conjugacy_classes())
    assert runs.table_of("S3").tolist() == theory.group_table("S3").tolist()
    with pytest.raises(ValueError, match="group must be"):
        runs.table_of("A6")


@pytest.mark.parametrize("group", ["S3", "A4", "Q8", "Z6"])
def test_energies_are_those_of_all_pairs_written_out(group: str) -> None:
    table = runs.table_of(group)
    m = len(table)
    w = np.random.default_rng(0).standard_normal((5, 2 * m))
    x, labels = theory.inputs_of(table)
    expected = theory.energies(w, x, theory.targets_of(labels, m))
    np.testing.assert_allclose(runs.unit_energies(w, table), expected, rtol=1e-10)


def test_units_at_a_maximum_are_pure_and_have_reached_it() -> None:
    table = runs.table_of("S4")
    m, parts = len(table), theory.components(table)
    x, labels = theory.inputs_of(table)
    random = np.random.default_rng(1)
    start = random.standard_normal((12, 2 * m))
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    ended = theory.ascend(start, x, theory.targets_of(labels, m), steps=2500, rate=1.0 / m)
    v = random.standard_normal((12, m))
    (purity, reached, constant), mass = runs.of_units((2.0 * ended).T, v, table, parts)
    assert purity == pytest.approx(1.0, abs=1e-4)
    assert reached == pytest.approx(1.0, abs=1e-3)
    assert constant == pytest.approx(0.0, abs=1e-6)
    assert sum(mass) == pytest.approx(1.0)
    (noise, low, _), _ = runs.of_units(start.T, v, table, parts)
    assert noise < 0.8
    assert low < 0.3
    # A dead unit counts for nothing; dead units alone are all alike.
    one_dead = np.concatenate([2.0 * ended, np.zeros((1, 2 * m))]).T
    again, _ = runs.of_units(one_dead, np.concatenate([v, np.ones((1, m))]), table, parts)
    assert again == pytest.approx((purity, reached, constant))
    (_, none, _), _ = runs.of_units(np.zeros((2 * m, 2)), np.zeros((2, m)), table, parts)
    assert none == 0.0


def test_what_outputs_have_learned_of_each_irrep() -> None:
    table = runs.table_of("S3")
    parts, labels = theory.components(table), table.ravel()
    wanted = np.eye(6)[labels] - 1 / 6
    assert runs.learned(wanted, labels, parts) == pytest.approx([0.0, 1.0, 1.0])
    # The sign's part alone, and what a shift of all outputs of a pair changes: nothing.
    sign = parts[1].projection[labels] + np.arange(36.0)[:, None]
    assert runs.learned(sign, labels, parts) == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)
    some = np.array([0, 5, 7, 11])
    assert runs.learned(wanted[some], labels[some], parts) == pytest.approx([0.0, 1.0, 1.0])


def test_networks_train_as_torch_does_and_alone_as_together() -> None:
    members = [
        {"seed": 3, "decay": 1e-2, "labels": "group"},
        {"seed": 4, "decay": 0.0, "labels": "random"},
    ]
    together = runs.train_on_group(None, group=members, of="S3", after=0.0, **SMALL)
    for s, one in enumerate(members):
        alone = runs.train_on_group(None, group=[one], of="S3", after=0.0, **SMALL)
        for name, value in together.items():
            np.testing.assert_array_equal(value[s], alone[name][0], err_msg=name)
    random = np.random.default_rng([3, 6, 7])
    kept = np.sort(random.permutation(36)[:25])
    first = torch.from_numpy(random.uniform(-1, 1, (12, 24)) / 12**0.5).float().requires_grad_()
    last = torch.from_numpy(random.uniform(-1, 1, (24, 6)) / 24**0.5).float().requires_grad_()
    x, labels = theory.inputs_of(theory.group_table("S3"))
    inputs, classes = torch.from_numpy(x).float(), torch.from_numpy(labels)
    adam = torch.optim.Adam([first, last], lr=5e-3, weight_decay=1e-2)
    for _ in range(40):
        out = (inputs[kept] @ first).square() @ last
        wanted = torch.eye(6)[classes[kept]] - 1 / 6
        loss = (out - out.mean(1, keepdim=True) - wanted).square().sum(1).mean()
        first.grad, last.grad = torch.autograd.grad(loss, [first, last])
        adam.step()
    out = ((inputs @ first).square() @ last).detach()
    tested = np.setdiff1d(np.arange(36), kept)
    right = (out.argmax(1) == classes).float()
    assert together["train"][0, -1] == pytest.approx(float(right[kept].mean()), abs=1e-6)
    assert together["test"][0, -1] == pytest.approx(float(right[tested].mean()), abs=1e-6)
    known = runs.learned(
        out.double().numpy()[tested], labels[tested], theory.components(theory.group_table("S3"))
    )
    np.testing.assert_allclose(together["learned"][0, -1], known, atol=2e-3)
    assert runs.moments(40, 40) == [0, 40]
    assert runs.moments(40, 20)[-1] == 40


@pytest.mark.slow
def test_networks_grok_and_frames_say_what_they_are_made_of() -> None:
    groups = {"D5": {"width": 48, "share": 0.8}, "S3xZ2": {"width": 48, "share": 0.8}}
    shared: dict[str, Any] = {
        "rate": 5e-3, "steps": 800, "every": 100, "after": 3.0, "n_control": 60,
    }  # fmt: skip
    nets, irreps = experiment.group_frames([0, 1], groups, **shared)
    assert set(nets.arm) == set(experiment.ARMS)
    assert nets[nets.arm == "η = 0"].step.max() == 60
    grown = irreps[(irreps.arm == "η = 2e-4") & (irreps.irrep != "trivial")]
    assert set(grown[grown.group == "D5"].irrep) == {"1", "2", "2'"}
    masses = irreps.groupby(["group", "arm", "seed", "step"]).mass.sum()
    np.testing.assert_allclose(masses, 1.0)
    values = experiment.values_of(nets, irreps, groups=list(groups), steps=800)
    assert all(list(one.index) == [0, 1] and one.notna().all() for one in values.values())
    assert values["random_table"].max() < values["one_irrep"].min()
    ended = nets[nets.arm == "η = 2e-4"].groupby(["group", "seed"]).last()
    start = nets[(nets.arm == "η = 2e-4") & (nets.step == 0)]
    assert ended.purity.min() > start.purity.max()
    assert ended.reached.min() > start.reached.max()
    worst = pd.concat([experiment.least_mass(irreps, g) for g in groups], axis=1).min(axis=1)
    np.testing.assert_allclose(values["all_irreps"], worst)
    ends, critical = experiment.critical_frame(
        [0, 1], groups=["Z6", "S3"], loads=[1.0, 2.0, 9.0], width=32, rate=5e-3, steps=100,
        every=100, after=0.0,
    )  # fmt: skip
    assert sorted(ends.load.unique()) == [1.0, 2.0]  # more pairs than there are is left out
    assert critical.load.between(1.0, 2.0).all()
    ratio = experiment.ratio_of_shares(critical, "S3", "Z6")
    assert list(ratio.index) == [0, 1]
    halves = experiment.irreps_table(irreps)
    curves = experiment.course(nets, ["train", "test", "purity", "reached"])
    figure = plots.group_panels(curves, experiment.irrep_course(irreps), halves, ends)
    assert len(figure.axes) == 6


def test_orders_by_hand() -> None:
    rows = [
        ("G", "η = 2e-4", seed, step, name, degree, float(step >= at), 0.5)
        for seed in (0, 1)
        for name, degree, at in (("1", 1, 10), ("2", 2, 40), ("3", 3, 1000))
        for step in range(0, 101, 10)
    ]
    columns = ["group", "arm", "seed", "step", "irrep", "degree", "learned", "mass"]
    frame = pd.DataFrame(rows, columns=columns)
    halves = experiment.half_steps(frame, "G")
    assert halves[halves.irrep == "2"].step.tolist() == [35.0, 35.0]
    assert halves[halves.irrep == "3"].step.isna().all()
    slopes = experiment.degree_slope(frame, "G", at_most=200.0)
    expected = np.polyfit(np.log([1, 2, 3]), np.log([5.0, 35.0, 200.0]), 1)[0]
    assert slopes.tolist() == pytest.approx([expected] * 2)
    kinds = theory.components(theory.group_table("Q8"))
    assert experiment.irrep_names(kinds) == ["trivial", "1", "1'", "1''", "2q"]
    nets = pd.DataFrame({
        "group": "G", "arm": "η = 2e-4", "seed": 0, "step": [0, 10, 100],
        "train": [0.0, 1.0, 1.0], "test": [0.0, 0.0, 0.9],
    })  # fmt: skip
    assert experiment.stage_ratio(nets, "G", at_most=300).tolist() == pytest.approx([300 / 9.9])
    assert experiment.end_of(nets, "G", "η = 2e-4", "test", "max").tolist() == [0.9]
