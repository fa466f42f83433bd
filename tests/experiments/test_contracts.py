"""What every experiment and every notebook owes, looked at for all of them; new ones are found.

A new experiment writes down a tiny configuration of each stored function (`TINY` in its module, see
`tests/support/stored_runs.py`), its notebook declares a control. Nothing is to be added here.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stored_runs
import torch

from rclib import experiments, paths
from rclib.execution import looks, runner, scaffold
from rclib.runs import store, sweep
from rclib.stats.sequential import LOOKS
from rclib.study import results
from rclib.study.papers import Run, committed_runs, load_papers

ROOT = Path(__file__).parents[2]
NOTEBOOKS = [name for name in runner.notebook_names() if name >= "10"]
STORED = stored_runs.stored_functions()

# Series 1 and 2 were written before claims said which of them are controls. These are they; three
# notebooks have none, which is for them to mend and not for a new one to repeat.
CONTROLS = {
    "10_table_1_parametrizations": "SP_change_grows",
    "11_figure_4_1_heat_maps": "start_is_noise",
    "12_figure_4_2_correlations": "between_at_chance",
    "13_figure_4_3_transfer": "r1_one_destroys",
    "15_figure_4_4_checkpoints": "untrained_at_chance",
    "16_figure_4_5_row_means": "SP_row_means",
    "17_growing_language_models": "r1_one_destroys",
    "20_spikes_one_configuration": "start_is_not_heavy_tailed",
    "21_spikes_learning_rate_sweep": "golden_control",
}
WITHOUT_CONTROL = {
    "22_spikes_schedule_and_overlaps",
    "23_spikes_n_ridge_noise_decay",
    "24_spikes_width_scaling",
}


@pytest.fixture(autouse=True)
def _committed_results(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RCLIB_OUT", raising=False)  # the committed results are looked at
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- stored runs ---------------------------------------------------------------------------


def test_there_are_stored_functions_and_no_table_of_one_that_is_gone() -> None:
    assert "mean_field.mlp_runs.train_mlp" in STORED
    assert set(stored_runs.OLDER) <= set(STORED)


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + " changed"
        case [first, *rest]:
            return [changed(first), *rest]
        case {}:
            key = min(value)
            return {**value, key: changed(value[key])}
        case _:
            return "something"


def swept(which: str) -> Iterator[tuple[str, ast.Call]]:
    """(module, call) of the sweeps of a stored function."""
    for module in stored_runs.modules():
        for name, call in stored_runs.calls(module):
            what = call.func.attr if isinstance(call.func, ast.Attribute) else "sweep_stacked"
            if name == which and what in ("run", "sweep", "sweep_stacked"):
                yield f"{experiments.__name__}.{module}", call


def needs_of(module: str, call: ast.Call) -> sweep.Needs:
    """What a sweep is given as `needs`, which must not depend on where it is called."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    assert "needs" in given, f"{module}, line {call.lineno}: its runs fetch others, without needs"
    found: sweep.Needs = eval(ast.unparse(given["needs"]), vars(importlib.import_module(module)))
    return found


def seed_lists(value: Any, name: str = "") -> Iterator[str]:
    """Names that hold several seeds, in a configuration."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from seed_lists(inner, key)
    elif isinstance(value, list) and "seed" in name:
        yield name


@pytest.mark.parametrize("which", STORED)
def test_a_stored_run_is_of_one_seed(which: str) -> None:
    """So seeds add up: more seeds find the runs of fewer in the store."""
    names = inspect.signature(stored_runs.function_of(which)).parameters
    assert [name for name in names if name.endswith("seeds")] == []
    assert list(seed_lists(stored_runs.tiny(which))) == []
    assert list(seed_lists({"a": {"seeds": [0, 1]}})) == ["seeds"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_seeds_under_the_rule_come_in_whole_looks(name: str) -> None:
    """The quick profile spends all its seeds at once, so that its stored verdicts stand; others
    begin with the first look."""
    cell = runner.parameters_of(name)
    if looks.CAP not in cell.values:
        return
    for profile in ("quick", "laptop", "paper"):
        if name in runner.profile_names(profile):
            parameters = {**cell.values, **runner.profile_parameters(name, profile)}
            caps = looks.caps_of(parameters, cell.seeds)
            assert set(caps.values()) <= set(LOOKS)
            for seeds, cap in caps.items():
                assert len(parameters[seeds]) == (cap if profile == "quick" else LOOKS[0])
                # Lists that grow do not run into others.
                grown = set(range(parameters[seeds][0], parameters[seeds][0] + cap))
                others = [set(parameters[other]) for other in cell.seeds if other != seeds]
                assert not any(grown & other for other in others)


@pytest.mark.parametrize("which", STORED)
def test_a_stored_function_keeps_its_contract(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, config = stored_runs.function_of(which), stored_runs.tiny(which)
    data = stored_runs.tiny_data(which)
    # Called as the store calls it: data first, the rest by name, all of it plain JSON.
    first, *others = inspect.signature(function).parameters.values()
    assert first.name == "data"
    assert {p.kind for p in others} == {inspect.Parameter.KEYWORD_ONLY}
    assert config.keys() <= {p.name for p in others}
    assert json.loads(json.dumps(config)) == config

    # Arrays of numbers, the same bits again from an empty store, and the configuration untouched.
    fetched: set[str] = set()
    real = store.fetch

    def fetch(other: Any, one: Any, **options: Any) -> store.Arrays:
        fetched.add(store.run_key(other, one, data=options.get("data")))
        return real(other, one, **options)

    monkeypatch.setattr(store, "fetch", fetch)
    results = []
    for folder in ("one", "two"):
        monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / folder))
        stored_runs.forget(which)
        given = copy.deepcopy(config)
        results.append(function(data, **given))
        assert given == config
    found, again = results
    COMPUTED[which] = found
    assert found
    assert list(found) == list(again)
    for name, array in found.items():
        assert isinstance(name, str)
        assert isinstance(array, np.ndarray), name
        assert array.dtype.kind in "biuf", name
        assert (array.dtype, array.shape) == (again[name].dtype, again[name].shape)
        assert array.tobytes() == again[name].tobytes(), name

    # The store takes it, and every argument counts for the key.
    key = store.run_key(function, config, data=data)
    store.keep(function, config, found, key=key, seconds=0.0, data=data)
    assert store.lookup(function, config, data=data) is not None
    keys = {store.run_key(function, {**config, n: changed(config[n])}, data=data) for n in config}
    assert len(keys | {key}) == 1 + len(config)

    # Runs that it fetches are what its sweeps need: else every worker of a cluster would compute
    # them for itself.
    assert fetched or which not in FETCHING
    for module, call in swept(which) if fetched else ():
        needed = needs_of(module, call)(config)
        assert {store.run_key(other, one, data=data) for other, one in needed} == fetched


FETCHING = {
    "mean_field.mlp_runs.transferred_run",
    "mean_field.mlp_runs.zero_shot",
    "mean_field.growth_runs.resized_run",
    "mean_field.asked_again.resized_losses",
}


COMPUTED: dict[str, store.Arrays] = {}  # by the test above: twice with the same bits


def lonely(
    function: store.Experiment,
    data: Any,
    config: dict[str, Any],
    together: store.Arrays | None = None,
) -> list[str]:
    """Arrays of a group in which a member has other numbers than alone (`rclib.runs.stacked`)."""
    members = config["group"]
    assert len(members) > 1, "a group of one shows nothing"
    if together is None:
        together = function(data, **config)
    return [
        name
        for place, member in enumerate(members)
        for name, array in function(data, **{**config, "group": [member]}).items()
        if np.asarray(together[name][place]).tobytes() != array[0].tobytes()
    ]


GROUPED = [which for which in STORED if "group" in stored_runs.tiny(which)]


@pytest.mark.parametrize("which", GROUPED)
def test_members_of_a_group_have_the_numbers_they_have_alone(which: str) -> None:
    data, config = stored_runs.tiny_data(which), stored_runs.tiny(which)
    function = stored_runs.function_of(which)
    assert lonely(function, data, config, COMPUTED.get(which)) == []


def test_a_group_that_mixes_its_members_is_found() -> None:
    def mixing(data: None, *, group: list[dict[str, int]]) -> store.Arrays:
        seeds = np.array([member["seed"] for member in group])
        return {"own": seeds, "mixed": seeds - seeds.mean()}

    assert lonely(mixing, None, {"group": [{"seed": 0}, {"seed": 2}]}) == ["mixed", "mixed"]


# --- notebooks -----------------------------------------------------------------------------


@functools.cache
def code_cells(name: str) -> tuple[str, ...]:
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    return tuple("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")


def nodes(cells: Sequence[str]) -> Iterator[ast.AST]:
    for cell in cells:
        yield from ast.walk(ast.parse(cell))


def declarations(cells: Sequence[str]) -> list[dict[str, ast.expr]]:
    """Arguments by name of every call of `declare`."""
    return [
        {str(keyword.arg): keyword.value for keyword in node.keywords}
        for node in nodes(cells)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "declare"
    ]


def has_control(cells: Sequence[str]) -> bool:
    values = [given.get("control") for given in declarations(cells)]
    return any(isinstance(value, ast.Constant) and value.value is True for value in values)


def faults(cells: Sequence[str]) -> list[str]:
    """What a notebook of series 3 and on does that it must not."""
    lines = [len(cell.splitlines()) for cell in cells]
    declared = declarations(cells)
    found = {
        "no control": not has_control(cells),
        "a claim without item": any("item" not in given for given in declared),
        "a claim without seeds": any(not given.keys() & {"seeds", "unit"} for given in declared),
        "more than 14 code cells": len(lines) > 14,
        "more than 130 lines of code": sum(lines) > 130,
        "a cell of more than 25 lines": max(lines) > 25,
        "a definition": any(isinstance(n, (ast.FunctionDef, ast.ClassDef)) for n in nodes(cells)),
    }
    return [fault for fault, there in found.items() if there]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_an_experiment_of_its_theme(name: str) -> None:
    themes = {str(series.digit): series.theme for series in load_papers().series}
    modules = {
        f"{node.module}.{alias.name}".removeprefix("rclib.experiments.")
        for node in nodes(code_cells(name))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rclib.experiments.")
        for alias in node.names
    }
    known = {".".join(module.split(".")[:2]) for module in modules} & set(stored_runs.modules())
    assert {module.split(".")[0] for module in known} == {themes[name[0]]}


# Two were added after the first run, and none that came out otherwise than predicted is taken out.
MANY = {
    "19_asked_once_more": 12,  # four claims of three notebooks, what each rests on, and controls
    "32_what_transfer_keeps": 9,
    "33_law_of_the_gap": 13,
    "34_sampling_better_than_copying": 9,
    "40_lottery_ticket": 14,
    "41_rethinking_pruning": 24,
    "42_random_pruning": 28,
    "43_layer_lottery": 31,
    "44_random_search_sparse": 19,
    "45_data_diet": 18,
    "46_what_pruning_keeps": 12,
    "47_asked_again": 10,  # eight, and two of them with a finer grid that was added later
    "50_mixture_growth": 18,
    "51_learngene_sws": 14,
    "52_rich_lazy_rank": 13,
    "53_gg_priors": 21,
    "54_gnn_init": 26,
    "55_spectral_bottleneck": 18,
    "56_batchnorm_only": 20,
    "57_what_survives": 18,
    "58_asked_again": 11,  # claims of three notebooks, a control each, DeepShape's bits and cost
    "60_deep_linear": 20,
    "61_generalization_dynamics": 15,
    "62_grokking_li2": 20,
    "63_train_longer": 15,
    "64_universality_lens": 18,
    "65_inductive_bias": 12,
    "66_laws_in_w": 12,
    "68_asked_again": 12,  # five asked again, five new, two controls
    "70_bandlimited": 24,
    "71_single_attention": 25,
    "72_permutations": 29,
    "73_locality_weight_sharing": 31,
    "74_relative_representations": 29,
    "75_rich_features": 26,
    "76_what_features_have": 18,
    "80_loldu": 29,
    "81_eva": 33,
    "82_svfit": 40,
    "83_bone": 30,
    "84_denseshift": 42,
    "85_one_byte": 38,
    "86_where_updates_write": 12,
    "87_asked_again": 9,  # five asked again, two at one rate, two controls
    "90_never_from_scratch": 36,
    "91_decision_making": 30,
    "92_awrs": 36,
    "93_alf_lb": 27,
    "94_dataset_distillation": 34,
    "95_triplane_fields": 25,
    "96_what_pretraining_leaves": 20,
    "97_asked_again": 11,  # eight, two of them by a second rule that was added later, a control
}


@functools.cache  # 68 results files, read once
def committed() -> dict[str, Run]:
    return dict(committed_runs())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_declares_a_control(name: str) -> None:
    """A claim that must fail if the effect is absent."""
    cells = code_cells(name)
    rows = committed()[name].record["claims"] if name in committed() else []
    if name in CONTROLS:
        assert CONTROLS[name] in {row["key"] for row in rows}
    elif name in WITHOUT_CONTROL:
        assert not has_control(cells), f"{name} has a control: take it out of WITHOUT_CONTROL"
    else:
        assert faults(cells) == []
        assert not rows or any(row["control"] for row in rows)
        most = MANY.get(name, 8)
        assert not rows or 4 <= len(rows) <= most, f"{name}: 4 to {most} claims, not {len(rows)}"


def test_faults_are_found() -> None:
    """On what `make new` writes, whole and spoiled."""
    notebook = scaffold.template("notebook").replace("@", "")
    blocks = [block.split("\n", 1) for block in notebook.split("%% ")[1:]]
    cells = [source for head, source in blocks if head.startswith("code")]
    assert faults(cells) == []
    for old, new, fault in (
        ("control=True", "control=False", "no control"),
        ('item="Example of NAME", ', "", "a claim without item"),
        ('seeds=seeds, unit="seed"', "note=1", "a claim without seeds"),
        ("study.close().name", "\n" * 25, "a cell of more than 25 lines"),
        ("study.close().name", "def f(): pass", "a definition"),
    ):
        spoiled = [cell.replace(old, new) for cell in cells]
        assert spoiled != cells
        assert faults(spoiled) == [fault]
    assert faults([*cells, *["x = 1"] * 15]) == ["more than 14 code cells"]
    assert faults([*cells, *["x = 1\n" * 25] * 4]) == ["more than 130 lines of code"]


def test_statements_and_quantities_tell_the_claims_of_a_notebook_apart() -> None:
    """replication.md and the site show these two, not the keys."""
    for profile in paths.PROFILES:
        if profile != "quick":
            for record in results.load_results(profile):
                told = [(c["statement"], c["quantity"]) for c in record["claims"]]
                assert len(set(told)) == len(told), record["notebook"]
