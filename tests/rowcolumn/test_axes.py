"""rowcolumn.axes: the index sets of paper A's 3-layer network, and what sharing an index means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rclib.nets.mlp import MLP
from rclib.rowcolumn.axes import gamma_sets, index_sizes, mlp_axes

# Example 3.3: f(x) = 1/N Σ_i W3[:, i] σ(1/N Σ_j W2[i, j] σ(W1[j, :]·x + B1[j]) + B2[i]) + B3.
THREE_LAYERS = {
    "W1": ("h1", "x"),
    "B1": ("h1",),
    "W2": ("h2", "h1"),
    "B2": ("h2",),
    "W3": ("y", "h2"),
    "B3": ("y",),
}
ROWS, COLUMNS = 0, 1


def test_example_3_3_index_sets_of_the_3_layer_network() -> None:
    assert mlp_axes(3) == THREE_LAYERS
    sets = gamma_sets(mlp_axes(3))
    assert set(sets["h1"]) == {("W1", ROWS), ("B1", 0), ("W2", COLUMNS)}
    assert set(sets["h2"]) == {("W2", ROWS), ("B2", 0), ("W3", COLUMNS)}
    assert set(sets) == {"x", "h1", "h2", "y"}


def test_example_1_2_index_sets_of_the_2_layer_network() -> None:
    # f(x) = 1/N Σ_i W2[:, i] σ(W1[i, :]·x + B1[i]) + B2: one set of hidden neurons.
    sets = gamma_sets(mlp_axes(2))
    assert set(sets["h1"]) == {("W1", ROWS), ("B1", 0), ("W2", COLUMNS)}
    assert set(sets["y"]) == {("W2", ROWS), ("B2", 0)}


def test_without_biases_only_the_matrices_are_left() -> None:
    with_bias, without = mlp_axes(5), mlp_axes(5, bias=False)
    assert without == {name: axes for name, axes in with_bias.items() if name[0] == "W"}
    assert len(with_bias) == 2 * len(without) == 10


@given(
    st.dictionaries(
        st.text("ABC", min_size=1, max_size=3),
        st.lists(st.sampled_from("ijk"), max_size=3).map(tuple),
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_definition_3_2_every_axis_lies_in_the_set_of_its_index(
    table: dict[str, tuple[str, ...]],
) -> None:
    sets = gamma_sets(table)
    places = [(index, *place) for index, group in sets.items() for place in group]
    assert len(places) == len(set(places)) == sum(map(len, table.values()))
    assert all(table[name][axis] == index for index, name, axis in places)


@pytest.mark.parametrize("bias", ["none", "random"])
@pytest.mark.parametrize("widths", [(), (7,), (7, 6), (7, 6, 5, 4)])
def test_sizes_of_indices_are_the_layer_sizes_of_a_network(
    widths: tuple[int, ...], bias: str
) -> None:
    model = MLP(9, widths, 3, depth=len(widths) + 1, bias=bias)
    names = ["x", *(f"h{i}" for i in range(1, len(widths) + 1)), "y"]
    expected = dict(zip(names, (9, *widths, 3), strict=True))
    assert index_sizes(model.axes, model.state_dict()) == expected


@pytest.mark.parametrize("index", ["h1", "h2"])
def test_renaming_the_neurons_of_an_index_everywhere_leaves_the_function_alone(index: str) -> None:
    # What "two axes run over the same neurons" says: one permutation for the whole set is no
    # change, a permutation of any single member is one.
    torch.manual_seed(0)
    model = MLP(5, (6, 7), 3, seed=1).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    state = model.state_dict()
    order = torch.randperm(index_sizes(model.axes, state)[index])

    def outputs(places: list[tuple[str, int]]) -> torch.Tensor:
        other = MLP(5, (6, 7), 3).double()
        moved = dict(state)
        for name, axis in places:
            moved[name] = moved[name].index_select(axis, order)
        other.load_state_dict(moved)
        with torch.no_grad():
            result: torch.Tensor = other(x)
        return result

    before = model(x).detach()
    places = list(gamma_sets(model.axes)[index])
    torch.testing.assert_close(outputs(places), before, rtol=1e-12, atol=1e-12)
    for place in places:
        assert (outputs([place]) - before).abs().max() > 1e-3, place


def test_an_index_may_occur_twice_in_one_tensor() -> None:
    table = {"A": ("r", "r"), "b": ("r",)}
    assert gamma_sets(table) == {"r": (("A", 0), ("A", 1), ("b", 0))}
    assert index_sizes(table, {"A": torch.ones(4, 4), "b": torch.ones(4)}) == {"r": 4}
    with pytest.raises(ValueError, match=r"index 'r' has size 4 in 'A' and 5 in 'A'"):
        index_sizes(table, {"A": torch.ones(4, 5), "b": torch.ones(4)})


def test_tensors_that_do_not_fit_the_table_are_refused() -> None:
    tensors = {name: torch.ones([2] * len(axes)) for name, axes in THREE_LAYERS.items()}
    assert index_sizes(THREE_LAYERS, tensors) == {"h1": 2, "x": 2, "h2": 2, "y": 2}
    missing = {name: t for name, t in tensors.items() if name != "B2"}
    with pytest.raises(ValueError, match="tensor 'B2' of the axes table is missing"):
        index_sizes(THREE_LAYERS, missing)
    with pytest.raises(ValueError, match=r"'W2' has shape \(2,\), its axes are \('h2', 'h1'\)"):
        index_sizes(THREE_LAYERS, {**tensors, "W2": torch.ones(2)})
    with pytest.raises(ValueError, match="index 'h1' has size 2 in 'W1' and 3 in 'W2'"):
        index_sizes(THREE_LAYERS, {**tensors, "W2": torch.ones(2, 3)})


@pytest.mark.parametrize("depth", [0, -3, 2.0, "3", None])
def test_depth_must_be_a_positive_integer(depth: object) -> None:
    with pytest.raises(ValueError, match=f"depth must be a positive integer, got {depth!r}"):
        mlp_axes(depth)  # type: ignore[arg-type]
