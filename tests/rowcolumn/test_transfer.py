"""rowcolumn.transfer.

The definition by explicit loops, and functions that growing must not change.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from rclib.nets.init import Init
from rclib.nets.mlp import MLP
from rclib.resizing.mlp import resize, resize_maps
from rclib.rowcolumn.axes import gamma_sets, mlp_axes
from rclib.rowcolumn.transfer import IndexMaps, draw_index_maps, gather, transfer
from rclib.training.backprop import sgd_step


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(n: int = 8, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=seeded(11), dtype=torch.float64)


def function(axes_state: dict[str, Tensor], like: MLP, widths: tuple[int, ...]) -> Tensor:
    """f on the probe inputs in float64, for weights of another width."""
    model = MLP(
        like.sizes[0],
        widths,
        like.sizes[-1],
        depth=like.depth,
        parametrization=like.parametrization,
        activation=like.activation,
        bias=like.bias,
    ).double()
    model.load_state_dict(axes_state)
    with torch.no_grad():
        result: Tensor = model(inputs(d=like.sizes[0]))
    return result


# The definition --------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.0, 0.5, 1.0])
def test_example_3_5_transfer_of_a_2_by_2_matrix_by_hand(a: float) -> None:
    # W'[i, j] = r2 (N / N')^(1 - a) W[π_row(i), π_col(j)], with N → N' the columns.
    w, b = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([7.0, 11.0])
    rows, columns = [1, 0, 1], [0, 1, 1, 0, 1]
    maps = {
        ("W2", 0): torch.tensor(rows),
        ("B2", 0): torch.tensor(rows),
        ("W2", 1): torch.tensor(columns),
    }
    found = gather(
        {"W2": w, "B2": b},
        {"W2": ("h2", "h1"), "B2": ("h2",)},
        maps,
        norm_rate=0.5,
        fan_in_exponents={"W2": a},
    )
    assert found["W2"].shape == (3, 5)
    for i in range(3):
        assert float(found["B2"][i]) == 0.5 * float(b[rows[i]])
        for j in range(5):
            expected = 0.5 * (2 / 5) ** (1 - a) * float(w[rows[i], columns[j]])
            assert float(found["W2"][i, j]) == pytest.approx(expected, rel=1e-6)


def test_example_6_1_transfer_of_the_3_layer_network_by_loops() -> None:
    d, n1, n2, classes, m1, m2 = 3, 4, 5, 2, 6, 3
    tensors = {
        name: torch.randn([{"x": d, "h1": n1, "h2": n2, "y": classes}[i] for i in axes],
                          generator=seeded(k), dtype=torch.float64)
        for k, (name, axes) in enumerate(mlp_axes(3).items())
    }  # fmt: skip
    kept = {name: t.clone() for name, t in tensors.items()}
    target = {"h1": m1, "h2": m2}
    exponents = {"W1": 0.5, "W2": 1.0, "W3": 0.0}
    found = transfer(tensors, mlp_axes(3), target, fan_in_exponents=exponents, generator=seeded(9))
    sizes = {"x": d, "h1": n1, "h2": n2, "y": classes}
    maps = draw_index_maps(mlp_axes(3), sizes, target, generator=seeded(9))
    p, q = maps["W1", 0].tolist(), maps["W2", 0].tolist()
    assert maps["W2", 1].tolist() == maps["B1", 0].tolist() == p
    assert maps["B2", 0].tolist() == maps["W3", 1].tolist() == q
    assert (len(p), len(q)) == (m1, m2)
    for j in range(m1):
        assert torch.equal(found["W1"][j], tensors["W1"][p[j]])  # its fan-in d does not change
        assert found["B1"][j] == tensors["B1"][p[j]]
    for i in range(m2):
        assert found["B2"][i] == tensors["B2"][q[i]]
        for j in range(m1):  # multiplier 1/N: entries as they are
            assert found["W2"][i, j] == tensors["W2"][q[i], p[j]]
        for c in range(classes):  # no multiplier: entries shrink by N / N'
            assert float(found["W3"][c, i]) == pytest.approx(
                n2 / m2 * float(tensors["W3"][c, q[i]])
            )
    assert torch.equal(found["B3"], tensors["B3"])
    found["B3"].add_(1.0)
    assert all(torch.equal(tensors[name], t) for name, t in kept.items())  # inputs untouched


# Functions that must survive -------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bias", ["random", "none"])
@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
def test_growing_by_whole_multiples_keeps_the_function(
    name: str, bias: str, activation: str
) -> None:
    # Every neuron is used equally often, so every average over neurons stays what it is.
    model = MLP(
        5, (4, 6, 3), 2, depth=4, parametrization=name, bias=bias, activation=activation, seed=1
    ).double()
    widths = (12, 6, 15)
    target = dict(zip(("h1", "h2", "h3"), widths, strict=True))
    before = function(model.state_dict(), model, (4, 6, 3))
    for replacement in (False, True):
        state = transfer(
            model.state_dict(),
            model.axes,
            target,
            fan_in_exponents=model.fan_in_exponents(),
            replacement=replacement,
            generator=seeded(3),
        )
        after = function(state, model, widths)
        if replacement:  # independent draws: a sample, not the same function
            assert (after - before).abs().max() > 1e-3
        else:
            torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)


def test_growing_another_architecture() -> None:
    # A residual network has one index on both sides of a sum, and W2 carries two hidden ones:
    # f(x) = 1/R Σ_r a_r (h_r + 1/N Σ_n V[r, n] tanh(1/R Σ_s U[n, s] h_s)),  h = tanh(E x).
    r, n, d = 4, 3, 5
    axes = {"E": ("r", "x"), "U": ("n", "r"), "V": ("r", "n"), "a": ("y", "r")}
    exponents = {"E": 0.5, "U": 1.0, "V": 1.0, "a": 1.0}
    sizes = {"r": r, "n": n, "x": d, "y": 1}
    tensors = {
        name: torch.randn([sizes[i] for i in indices], generator=seeded(k), dtype=torch.float64)
        for k, (name, indices) in enumerate(axes.items())
    }

    def f(t: dict[str, Tensor]) -> Tensor:
        h = torch.tanh(inputs() @ t["E"].T)
        inner = torch.tanh(h @ t["U"].T / h.shape[1])
        return (h + inner @ t["V"].T / inner.shape[1]) @ t["a"].T / h.shape[1]

    def grown(**options: Any) -> dict[str, Tensor]:
        return transfer(
            tensors,
            axes,
            {"r": 3 * r, "n": 2 * n},
            fan_in_exponents=exponents,
            replacement=False,
            generator=seeded(0),
            **options,
        )

    torch.testing.assert_close(f(grown()), f(tensors), rtol=1e-12, atol=1e-12)
    assert (f(grown(random_rate=1.0)) - f(tensors)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
def test_growing_commutes_with_training_where_the_rates_scale(name: str) -> None:
    # MF and μP: copies of a neuron stay copies and the wide network follows the narrow one step
    # by step. SP: the same rate moves the wide network's output layer N'/N times as far.
    x, y = inputs(20), torch.randint(3, (20,), generator=seeded(5))
    narrow = MLP(5, (4, 3), 3, parametrization=name, seed=2).double()
    wide = MLP(5, (8, 9), 3, parametrization=name).double()
    wide.load_state_dict(
        transfer(
            narrow.state_dict(),
            narrow.axes,
            {"h1": 8, "h2": 9},
            fan_in_exponents=narrow.fan_in_exponents(),
            replacement=False,
            generator=seeded(6),
        )
    )
    start = narrow(x).detach()
    for model in (narrow, wide):
        rates = {p: 0.5 * factor for p, factor in model.lr_factors().items()}
        for _ in range(8):
            sgd_step(model, x, y, rates)
    with torch.no_grad():
        gap = float((wide(x) - narrow(x)).abs().max())
        moved = float((narrow(x) - start).abs().max())
    assert moved > 0.2
    assert gap > 0.1 * moved if name == "SP" else gap < 1e-10


def test_shrinking_a_network_of_copies_gives_the_original_back() -> None:
    # Duplicates hold one function at every width, whichever of the copies are drawn.
    for name in ("MF", "muP", "SP"):
        one = MLP(5, 1, 2, parametrization=name, seed=4).double()
        scale = {weight: 24 ** (a - 1.0) for weight, a in one.fan_in_exponents().items()}
        wide = {
            "W1": one.get_parameter("W1").expand(24, 5),
            "B1": one.get_parameter("B1").expand(24),
            "W2": scale["W2"] * one.get_parameter("W2").expand(24, 24),
            "B2": one.get_parameter("B2").expand(24),
            "W3": scale["W3"] * one.get_parameter("W3").expand(2, 24),
            "B3": one.get_parameter("B3"),
        }
        for replacement in (True, False):
            small = transfer(
                wide,
                one.axes,
                {"h1": 7, "h2": 3},
                fan_in_exponents=one.fan_in_exponents(),
                replacement=replacement,
                generator=seeded(1),
            )
            expected = function(one.state_dict(), one, (1, 1))
            torch.testing.assert_close(function(small, one, (7, 3)), expected)


def test_sampling_error_falls_with_the_width() -> None:
    # Independent draws: the transferred output is a Monte Carlo mean, so its error is 1/√N'.
    model = MLP(5, 50, 1, depth=2, seed=0)
    x = inputs().float()
    target = model(x).detach()
    error = {
        n: np.mean(
            [
                float((resize(model, n, seed=s)(x).detach() - target).square().mean())
                for s in range(60)
            ]
        )
        ** 0.5
        for n in (100, 1600)
    }
    assert math.log(error[1600] / error[100]) / math.log(16) == pytest.approx(-0.5, abs=0.1)


# Random rate and norm rate ---------------------------------------------------------------------


def shared(maps: IndexMaps, a: tuple[str, int], b: tuple[str, int]) -> float:
    return float((maps[a] == maps[b]).double().mean())


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("replacement", [True, False])
def test_random_rate_breaks_that_share_of_the_index(rate: float, replacement: bool) -> None:
    n, m = 50, 4000
    maps = draw_index_maps(
        mlp_axes(3),
        {"h1": n, "h2": n},
        {"h1": m, "h2": m},
        random_rate=rate,
        replacement=replacement,
        generator=seeded(2),
    )
    for group in (g for i, g in gamma_sets(mlp_axes(3)).items() if i in ("h1", "h2")):
        for k, a in enumerate(group):
            for b in group[k + 1 :]:
                # A broken neuron still has the same source on both sides once in n times.
                chance = rate * (1 / n)
                spread = math.sqrt(chance * m) / m
                assert shared(maps, a, b) == pytest.approx(1 - rate + chance, abs=5 * spread + 1e-9)
        # All tensors break the same neurons, so no more than that share differs anywhere.
        sources = torch.stack([maps[p] for p in group])
        differs = int((sources != sources[0]).any(0).sum())
        assert differs <= round(rate * m)
        assert differs >= 0.95 * rate * m
    # Different indices are drawn independently of each other, at every rate.
    assert shared(maps, ("W1", 0), ("W2", 0)) == pytest.approx(1 / n, abs=5 * (n * m) ** -0.5)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_marginals_survive_every_random_rate(rate: float) -> None:
    # Every source neuron is drawn with the same probability, on every axis: χ² test.
    n, m = 20, 8000
    maps = draw_index_maps(
        mlp_axes(3),
        {"h1": n, "h2": n},
        {"h1": m, "h2": m},
        random_rate=rate,
        generator=seeded(4),
    )
    assert len(maps) == 6
    for place, source in maps.items():
        counts = torch.bincount(source, minlength=n).numpy()
        assert len(counts) == n
        assert stats.chisquare(counts).pvalue > 1e-4, place


def test_full_random_rate_keeps_each_tensor_and_breaks_their_relation() -> None:
    # A network whose three vectors of index h1 are one function of the neuron.
    u = torch.linspace(-1, 1, 300, dtype=torch.float64)
    tensors = {"W1": torch.stack([u, u], 1), "B1": u, "W2": torch.stack([u, u], 0)}
    axes = {"W1": ("h1", "x"), "B1": ("h1",), "W2": ("y", "h1")}

    def vectors(rate: float) -> np.ndarray:
        new = transfer(
            tensors,
            axes,
            {"h1": 5000},
            random_rate=rate,
            fan_in_exponents={"W2": 1.0},
            generator=seeded(0),
        )
        return torch.stack([new["W1"][:, 0], new["B1"], new["W2"][1]]).numpy()

    for rate, expected in ((0.0, 1.0), (0.4, 0.6), (1.0, 0.0)):
        found = vectors(rate)
        off = np.corrcoef(found)[np.triu_indices(3, 1)]
        np.testing.assert_allclose(off, expected, atol=5 / math.sqrt(5000))
        for row in found:  # the marginal law
            assert stats.kstest(row, stats.uniform(-1, 2).cdf).statistic < 0.03


def test_norm_rate_multiplies_weights_and_biases_that_are_transferred() -> None:
    model = MLP(5, 4, 3, seed=1)
    with torch.no_grad():
        model.get_parameter("B3").fill_(2.0)
    plain = resize(model, 6, seed=8).state_dict()
    scaled = resize(model, 6, seed=8, norm_rate=1.5).state_dict()
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], (1.0 if name == "B3" else 1.5) * value)


# Draws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(5, 20), (5, 23), (20, 7), (6, 6), (1, 4), (9, 1)])
def test_without_replacement_every_neuron_is_used_equally_often(n: int, m: int) -> None:
    maps = draw_index_maps(
        {"b": ("h",)}, {"h": n}, {"h": m}, replacement=False, generator=seeded(n)
    )
    counts = torch.bincount(maps["b", 0], minlength=n)
    assert int(counts.sum()) == m
    assert set(counts.tolist()) <= {m // n, -(-m // n)}


def test_without_replacement_the_order_is_random() -> None:
    # Each neuron is the source of each new position equally often, and any two positions share
    # a source with the chance of a uniformly shuffled list: 1 of the 7 others has the same.
    draws, table = 800, np.zeros((4, 8))
    neighbours = 0
    for s in range(draws):
        maps = draw_index_maps(
            {"b": ("h",)}, {"h": 4}, {"h": 8}, replacement=False, generator=seeded(s)
        )
        source = maps["b", 0].numpy()
        table[source, np.arange(8)] += 1
        neighbours += int(source[0] == source[1])
    assert stats.chisquare(table.ravel(), ddof=10).pvalue > 1e-4
    assert stats.binomtest(neighbours, draws, 1 / 7).pvalue > 1e-4


def test_a_broken_index_is_drawn_anew_and_not_shuffled() -> None:
    # With a single new neuron there is nothing to shuffle; its sources still part.
    n, draws = 10, 500
    together = 0
    for s in range(draws):
        maps = draw_index_maps(
            mlp_axes(2), {"h1": n}, {"h1": 1}, random_rate=1.0, generator=seeded(s)
        )
        together += int(maps["W1", 0] == maps["W2", 1])
    assert stats.binomtest(together, draws, 1 / n).pvalue > 1e-4


def test_indices_left_out_stay_as_they_are() -> None:
    model = MLP(5, 4, 3, seed=1)
    state = transfer(
        {**model.state_dict(), "extra": torch.ones(2)},
        model.axes,
        {"h2": 6},
        fan_in_exponents=model.fan_in_exponents(),
        generator=seeded(0),
    )
    for name in ("W1", "B1", "B3"):
        assert torch.equal(state[name], model.state_dict()[name])
    assert torch.equal(state["extra"], torch.ones(2))  # no row in the table: copied
    assert state["W2"].shape == (6, 4)
    assert state["W3"].shape == (3, 6)


def test_same_seed_same_network() -> None:
    model = MLP(5, 4, 3, seed=1)
    options: dict[str, Any] = {"random_rate": 0.5, "norm_rate": 0.9}
    first, again, other = (resize(model, 9, seed=s, **options).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["W2"], other["W2"])


@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("replacement", [True, False])
def test_resize_uses_the_maps_it_reports(rate: float, replacement: bool) -> None:
    model = MLP(5, 4, 3, parametrization="MF", init=Init("gaussian"), seed=1)
    options: dict[str, Any] = {"random_rate": rate, "replacement": replacement, "seed": 3}
    wide, maps = resize(model, 10, **options), resize_maps(model, 10, **options)
    assert wide.sizes == (5, 10, 10, 3)
    for (name, axis), source in maps.items():
        old, new = model.get_parameter(name).detach(), wide.get_parameter(name).detach()
        other = 1 - axis if old.ndim == 2 else None
        expected = old.index_select(axis, source)
        if other is not None and (name, other) in maps:
            expected = expected.index_select(other, maps[name, other])
        assert torch.equal(new, expected)


# Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"target": {"h9": 4}},
            r"index 'h9' is not in the axes table, which has \['h1', 'x', 'h2', 'y'\]",
        ),
        ({"target": {"h1": 0}}, "target size of 'h1' must be a positive integer, got 0"),
        ({"target": {"h1": 2.0}}, r"target size of 'h1' must be a positive integer, got 2\.0"),
        ({"target": {"h1": True}}, "target size of 'h1' must be a positive integer, got True"),
        ({"random_rate": -0.1}, r"random_rate must lie in \[0, 1\], got -0\.1"),
        ({"random_rate": 1.01}, r"random_rate must lie in \[0, 1\], got 1\.01"),
        ({"random_rate": math.nan}, r"random_rate must lie in \[0, 1\], got nan"),
        ({"norm_rate": 0.0}, r"norm_rate must be positive and finite, got 0\.0"),
        ({"norm_rate": -2.0}, r"norm_rate must be positive and finite, got -2\.0"),
        ({"norm_rate": math.inf}, "norm_rate must be positive and finite, got inf"),
    ],
)
def test_bad_arguments_are_named_with_their_value(change: dict[str, Any], message: str) -> None:
    state = MLP(3, 4, 2).state_dict()
    options: dict[str, Any] = {"target": {"h1": 6}, "generator": seeded(0), **change}
    target = options.pop("target")
    with pytest.raises(ValueError, match=message):
        transfer(state, mlp_axes(3), target, **options)


def test_tensors_that_disagree_with_the_table_are_refused() -> None:
    state = MLP(3, 4, 2).state_dict()
    with pytest.raises(ValueError, match="index 'h1' has size 4 in 'W1' and 5 in 'W2'"):
        transfer({**state, "W2": torch.ones(4, 5)}, mlp_axes(3), {"h1": 6}, generator=seeded(0))
    with pytest.raises(ValueError, match=r"'B1' has shape \(4, 1\), its axes are \('h1',\)"):
        transfer({**state, "B1": torch.ones(4, 1)}, mlp_axes(3), {"h1": 6}, generator=seeded(0))
    del state["W3"]
    with pytest.raises(ValueError, match="tensor 'W3' of the axes table is missing"):
        transfer(state, mlp_axes(3), {"h1": 6}, generator=seeded(0))


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="target size of 'h1' must be a positive integer, got 0"):
        resize(MLP(3, 4, 2), 0)


def test_maps_that_point_outside_the_source_are_refused() -> None:
    with pytest.raises(ValueError, match=r"map of 'b', axis 0, must hold indices 0 \.\.\. 1"):
        gather({"b": torch.ones(2)}, {"b": ("h",)}, {("b", 0): torch.tensor([0, 2])})


@pytest.mark.parametrize("sources", [[-1, 1], [0, 2], [], [[0], [1]], [0.0, 1.0]])
def test_maps_that_name_no_neurons_are_refused(sources: list[Any]) -> None:
    maps = {("b", 0): torch.tensor(sources)}
    with pytest.raises(ValueError, match=r"map of 'b', axis 0, must hold indices 0 \.\.\. 1$"):
        gather({"b": torch.ones(2)}, {"b": ("h",)}, maps)


def test_a_map_of_an_axis_that_the_tensor_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="map of 'b', axis 1, must hold indices"):
        gather({"b": torch.ones(2)}, {"b": ("h", "g")}, {("b", 1): torch.tensor([0])})


def test_what_is_no_dense_tensor_is_refused_by_name_and_type() -> None:
    with pytest.raises(TypeError, match="'b' must be a dense torch tensor, got list"):
        gather({"b": [1.0]}, {"b": ("h",)}, {})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="'W' must be a dense torch tensor, got Tensor"):
        gather({"W": torch.eye(2).to_sparse()}, {"W": ("o", "i")}, {})


def test_the_source_must_give_sizes_of_all_indices_to_change() -> None:
    source = MappingProxyType({"g": 3})
    with pytest.raises(ValueError, match=r"source must give a size for index 'h', got \{'g': 3\}$"):
        draw_index_maps({"b": ("h",)}, source, {"h": 2}, generator=seeded(0))
    with pytest.raises(ValueError, match="source size of 'h' must be a positive integer, got 0"):
        draw_index_maps({"b": ("h",)}, {"h": 0}, {"h": 2}, generator=seeded(0))


def test_generators_of_no_use_are_refused() -> None:
    class Elsewhere(torch.Generator):
        device = torch.device("meta")

    with pytest.raises(ValueError, match="generator must be one of the CPU, got meta"):
        draw_index_maps({"b": ("h",)}, {"h": 3}, {"h": 2}, generator=Elsewhere())
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
        draw_index_maps({"b": ("h",)}, {"h": 3}, {"h": 2}, generator=0)  # type: ignore[arg-type]


def test_a_resize_of_another_model_is_refused_with_its_type() -> None:
    with pytest.raises(TypeError, match="model must be an MLP, got Linear"):
        resize_maps(torch.nn.Linear(2, 3), 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"seed must be an integer from 0 .*, got -1"):
        resize(MLP(3, 4, 2), 5, seed=-1)


# Factors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [-9.0, 0.5, 9.0])
def test_the_fan_in_of_a_tensor_with_three_axes_is_the_last(a: float) -> None:
    kernel = torch.randn(2, 3, 4, generator=seeded(0), dtype=torch.float64)
    rows, columns = torch.tensor([2, 0, 1, 0, 0, 1]), torch.tensor([3, 1])
    found = gather(
        {"K": kernel},
        {"K": ("place", "out", "in")},
        {("K", 1): rows, ("K", 2): columns},
        fan_in_exponents={"K": a},
    )["K"]
    # 4 inputs become 2; the outputs, 3 to 6, do not count.
    torch.testing.assert_close(found, 2.0 ** (1 - a) * kernel[:, rows][:, :, columns])


@pytest.mark.parametrize("a", [9.5, -9.5, math.nan])
def test_exponents_out_of_range_are_refused(a: float) -> None:
    maps = {("W", 1): torch.tensor([0])}
    with pytest.raises(ValueError, match=r"fan_in_exponents of 'W' must lie in \[-9, 9\]"):
        gather({"W": torch.eye(2)}, {"W": ("o", "i")}, maps, fan_in_exponents={"W": a})
    with pytest.raises(ValueError, match="fan_in_exponents of 'W' must be a number, got 'one'"):
        gather({"W": torch.eye(2)}, {"W": ("o", "i")}, maps, fan_in_exponents={"W": "one"})  # type: ignore[dict-item]


def test_norm_rates_end_below_1e30() -> None:
    tensors, maps = {"b": torch.ones(2, dtype=torch.float64)}, {("b", 0): torch.tensor([1])}
    assert float(gather(tensors, {"b": ("h",)}, maps, norm_rate=9e29)["b"]) == 9e29
    assert float(gather(tensors, {"b": ("h",)}, maps, norm_rate=1e-30)["b"]) == 1e-30
    with pytest.raises(ValueError, match=r"norm_rate must be positive and finite, got 1e\+30"):
        gather(tensors, {"b": ("h",)}, maps, norm_rate=1e30)


def test_complex_weights_are_rescaled_and_integers_named() -> None:
    maps = {("b", 0): torch.tensor([1, 1, 0])}
    found = gather({"b": torch.tensor([1j, 2.0])}, {"b": ("h",)}, maps, norm_rate=0.5)["b"]
    assert found.tolist() == [1.0, 1.0, 0.5j]
    with pytest.raises(ValueError, match=r"'b' must be floating point .*, got torch\.int64"):
        gather({"b": torch.tensor([1, 2])}, {"b": ("h",)}, maps, norm_rate=0.5)


def test_float16_may_overflow_nowhere_but_keeps_what_was_infinite() -> None:
    maps = {("b", 0): torch.tensor([1, 0])}
    one = {"b": torch.tensor([1.0, 60_000.0]).half()}
    with pytest.raises(
        ValueError, match=r"'b' leaves the range of torch\.float16 when multiplied by 2\.0"
    ):
        gather(one, {"b": ("h",)}, maps, norm_rate=2.0)
    infinite = {"b": torch.tensor([1.0, math.inf]).half()}
    assert gather(infinite, {"b": ("h",)}, maps, norm_rate=2.0)["b"].tolist() == [math.inf, 2.0]
    shape = gather({"b": one["b"].to("meta")}, {"b": ("h",)}, maps, norm_rate=2.0)["b"]
    assert (shape.shape, shape.dtype, shape.is_meta) == ((2,), torch.float16, True)


# What resize stands for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"random_rate": 0.5}, {"replacement": False}, {"seed": 3}, {"norm_rate": 0.5}],
)
def test_resize_is_the_transfer_of_all_hidden_indices(options: dict[str, Any]) -> None:
    model = MLP(5, 4, 3, depth=4, parametrization="SP", seed=1)
    full: dict[str, Any] = {"random_rate": 0.0, "norm_rate": 1.0, "replacement": True, "seed": 0}
    full |= options
    generator = seeded(full.pop("seed"))
    expected = transfer(
        model.state_dict(),
        model.axes,
        {"h1": 9, "h2": 9, "h3": 9},
        fan_in_exponents=model.fan_in_exponents(),
        generator=generator,
        **full,
    )
    found = resize(model, 9, **options).state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    if "norm_rate" in options:
        return
    full.pop("norm_rate")
    sizes = {"h1": 4, "h2": 4, "h3": 4}
    again = seeded(options.get("seed", 0))
    maps = draw_index_maps(model.axes, sizes, dict.fromkeys(sizes, 9), generator=again, **full)
    reported = resize_maps(model, 9, **options)
    assert reported.keys() == maps.keys()
    assert all(torch.equal(reported[place], maps[place]) for place in maps)


def test_tensors_without_an_exponent_have_no_multiplier() -> None:
    axes = {"W": ("o", "i"), "V": ("o", "i")}
    tensors = {"W": torch.ones(2, 2), "V": torch.ones(2, 2)}
    places = [(name, axis) for name in axes for axis in (0, 1)]
    maps = dict.fromkeys(places, torch.tensor([0, 1, 0, 1]))
    found = gather(tensors, axes, maps, fan_in_exponents={"W": 1.0})
    # (2 / 4)^(1 - a): a = 1 where given, else 0.
    assert torch.equal(found["W"], torch.ones(4, 4))
    assert torch.equal(found["V"], torch.full((4, 4), 0.5))


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("random_rate", "half", "^random_rate must be a number, got 'half'"),
        ("replacement", 2, "^replacement must be True or False, got 2"),
        ("source", [3], "^source must be a mapping, got list"),
        ("target", [3], "^target must be a mapping, got list"),
    ],
)
def test_arguments_of_maps_are_refused_by_name(name: str, bad: Any, message: str) -> None:
    good: dict[str, Any] = {"axes": {"b": ("h",)}, "source": {"h": 3}, "target": {"h": 2}}
    with pytest.raises((TypeError, ValueError), match=message):
        draw_index_maps(**{**good, "generator": seeded(0), name: bad})


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("norm_rate", "one", "^norm_rate must be a number, got 'one'"),
        ("fan_in_exponents", [1.0], "^fan_in_exponents must be a mapping, got list"),
        ("maps", [1.0], "^maps must be a mapping, got list"),
        ("tensors", [1.0], "^tensors must be a mapping, got list"),
    ],
)
def test_arguments_of_gather_are_refused_by_name(name: str, bad: Any, message: str) -> None:
    good: dict[str, Any] = {"tensors": {"b": torch.ones(2)}, "axes": {"b": ("h",)}, "maps": {}}
    with pytest.raises((TypeError, ValueError), match=message):
        gather(**{**good, name: bad})
