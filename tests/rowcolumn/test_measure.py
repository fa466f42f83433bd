"""rowcolumn.measure: numpy, scipy and analysis of variance by hand; chance values by simulation."""

from __future__ import annotations

import math
import warnings
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import Tensor

from rclib.rowcolumn import measure
from rclib.rowcolumn.axes import mlp_axes
from rclib.rowcolumn.measure import (
    Correlations,
    chance_level,
    correlations,
    heat_map,
    largest_correlation,
    leading_share,
    leading_shares,
    mean_vectors,
    row_column_share,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def of(*vectors: Tensor, index: str = "h") -> Correlations:
    return correlations({index: {str(k): v for k, v in enumerate(vectors)}})


# Mean vectors ----------------------------------------------------------------------------------


def test_mean_vectors_of_the_3_layer_network_by_loops() -> None:
    d, n1, n2, c = 2, 3, 4, 5
    w1, b1, w2, b2, w3, b3 = (
        noise(*shape, seed=k)
        for k, shape in enumerate([(n1, d), (n1,), (n2, n1), (n2,), (c, n2), (c,)])
    )
    tensors = {"W1": w1, "B1": b1, "W2": w2, "B2": b2, "W3": w3, "B3": b3}
    found = mean_vectors(tensors, mlp_axes(3))
    assert {index: set(group) for index, group in found.items()} == {
        "x": {"W1.R"},
        "h1": {"W1.C", "B1", "W2.R"},
        "h2": {"W2.C", "B2", "W3.R"},
        "y": {"W3.C", "B3"},
    }
    for j in range(n1):
        # .C: the mean of row j; .R: the mean of column j.
        assert float(found["h1"]["W1.C"][j]) == pytest.approx(sum(w1[j].tolist()) / d)
        assert float(found["h1"]["W2.R"][j]) == pytest.approx(sum(w2[:, j].tolist()) / n2)
        assert float(found["h1"]["B1"][j]) == float(b1[j])
    for i in range(n2):
        assert float(found["h2"]["W2.C"][i]) == pytest.approx(sum(w2[i].tolist()) / n1)
        assert float(found["h2"]["W3.R"][i]) == pytest.approx(sum(w3[:, i].tolist()) / c)


def test_mean_vectors_of_a_tensor_with_more_axes() -> None:
    kernel = noise(3, 4, 5)
    found = mean_vectors({"K": kernel}, {"K": ("out", "in", "place")})
    np.testing.assert_allclose(found["out"]["K.0"], kernel.numpy().mean((1, 2)))
    np.testing.assert_allclose(found["in"]["K.1"], kernel.numpy().mean((0, 2)))
    np.testing.assert_allclose(found["place"]["K.2"], kernel.numpy().mean((0, 1)))


def test_means_are_taken_in_float64() -> None:
    # In float32 the sum 2^24 + 1 is lost; the mean of this row is exactly 1/4.
    row = torch.tensor([[2.0**24, 1.0, -(2.0**24), 0.0]])
    found = mean_vectors({"W": row}, {"W": ("a", "b")})["a"]["W.C"]
    assert found.dtype == torch.float64
    assert float(found) == 0.25


def test_tensors_that_disagree_with_the_table_are_refused() -> None:
    with pytest.raises(ValueError, match="index 'h1' has size 3 in 'W1' and 4 in 'B1'"):
        mean_vectors({"W1": noise(3, 2), "B1": noise(4)}, {"W1": ("h1", "x"), "B1": ("h1",)})


# Correlations ----------------------------------------------------------------------------------


def test_correlations_against_numpy() -> None:
    base = noise(50)
    vectors = [base, base + noise(50, seed=1), -base, 1e6 + 1e-3 * noise(50, seed=2)]
    found = of(*vectors)
    expected = np.corrcoef(torch.stack(vectors).numpy())
    np.testing.assert_allclose(found.matrix.numpy(), expected, atol=1e-8)
    assert found.labels == ("0", "1", "2", "3")
    assert found.n == 50


def test_the_most_common_length_is_used() -> None:
    groups = {
        "x": {"W1.R": noise(9)},
        "h1": {"W1.C": noise(20, seed=1), "B1": noise(20, seed=2)},
        "h2": {"W2.C": noise(20, seed=3)},
        "y": {"B3": noise(9, seed=4)},
    }
    found = correlations(groups)
    assert (found.labels, found.indices, found.n) == (
        ("W1.C", "B1", "W2.C"),
        ("h1", "h1", "h2"),
        20,
    )
    assert correlations(groups, 9).labels == ("W1.R", "B3")


def test_constant_vectors_are_left_out() -> None:
    third = torch.full((30,), 1 / 3, dtype=torch.float64)
    rounded = third * (1 + 2.0**-53 * noise(30, seed=1).round())  # constant but for rounding
    tiny = 1e-9 * noise(30, seed=2)  # small, yet it varies
    found = of(noise(30), third, torch.zeros(30), rounded, tiny)
    assert found.labels == ("0", "4")
    assert bool(torch.isfinite(found.matrix).all())


def test_what_has_no_mean_or_no_correlation_is_named() -> None:
    with pytest.raises(ValueError, match=r"tensor 'W' must hold entries, its shape is .*0, 3"):
        mean_vectors({"W": torch.ones(0, 3)}, {"W": ("o", "i")})
    with pytest.raises(ValueError, match=r"vector 'a' must have one axis, its shape is .*3, 2"):
        correlations({"h": {"a": noise(3, 2)}})


def test_nothing_that_varies_is_an_error() -> None:
    with pytest.raises(ValueError, match="vectors must hold one that varies over n = 3 neurons"):
        of(torch.ones(3))
    with pytest.raises(ValueError, match="vectors must hold one that varies over n = 7 neurons"):
        correlations({"h": {"a": noise(3)}}, 7)
    with pytest.raises(ValueError, match="vectors must not be empty"):
        correlations({})


# Chance ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(4, 2), (10, 3), (30, 2), (30, 7)])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_chance_level_against_simulation(n: int, k: int, level: float) -> None:
    # K independent Gaussian vectors have K (K - 1) / 2 pairs. The pairs are not quite
    # independent, hence a few percent beside the binomial error.
    trials, pairs = 4000, k * (k - 1) // 2
    z = np.random.default_rng(n * k).standard_normal((trials, k, n))
    z -= z.mean(2, keepdims=True)
    z /= np.linalg.norm(z, axis=2, keepdims=True)
    r = np.abs(z @ z.transpose(0, 2, 1))[:, *np.triu_indices(k, 1)].max(1)
    below = float((r < chance_level(n, pairs, level=level)).mean())
    error = math.sqrt(level * (1 - level) / trials)
    assert below == pytest.approx(level, abs=4 * error + (0.02 if pairs > 1 else 0.0))


def test_chance_level_against_the_law_of_r() -> None:
    # scipy's own p-value of a Pearson correlation comes from the beta law of r.
    for n in (3, 5, 40):
        r = chance_level(n, 1, level=0.9)
        beta = stats.beta(n / 2 - 1, n / 2 - 1, loc=-1, scale=2)
        assert 2 * beta.sf(r) == pytest.approx(0.1, rel=1e-9)
    # For wide vectors: a normal variable over √n.
    assert chance_level(10**6) * 1e3 == pytest.approx(stats.norm.isf(0.025), rel=1e-3)


def test_chance_level_for_very_many_pairs() -> None:
    many = [chance_level(200, m) for m in (1, 10, 10**4, 10**8, 10**15)]
    assert many == sorted(many)
    assert 0 < many[0] < many[-1] < 1
    t = many[-1] * math.sqrt(198 / (1 - many[-1] ** 2))
    # Each of 10^15 pairs exceeds the level with probability -log(0.95) / 10^15.
    assert 2 * stats.t.sf(t, 198) == pytest.approx(-math.log(0.95) / 1e15, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((2,), {}, "n must be at least 3, got 2"),
        ((10, 0), {}, "pairs must be at least 1, got 0"),
        ((10,), {"level": 1.0}, r"level must lie in \(0, 1\), got 1\.0"),
        ((10,), {"level": math.nan}, r"level must lie in \(0, 1\), got nan"),
    ],
)
def test_chance_level_names_bad_arguments(
    arguments: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        chance_level(*arguments, **options)


def test_largest_correlation_against_scipy() -> None:
    a, b, c = noise(25), noise(25, seed=1), noise(25, seed=2)
    vectors = {"h1": {"a": a, "b": b, "mix": a - 0.4 * b}, "h2": {"c": c}}
    found = largest_correlation(correlations(vectors))
    r, p = stats.pearsonr(a.numpy(), (a - 0.4 * b).numpy())
    assert found.pair == ("a", "mix")
    assert found.value == pytest.approx(r)
    assert found.pairs == 6
    assert found.p_value == pytest.approx(1 - (1 - p) ** 6, rel=1e-6)
    assert found.chance == chance_level(25, 6)
    # A negative correlation is as large as a positive one.
    opposite = largest_correlation(of(a, -(a - 0.4 * b)))
    assert opposite.value == pytest.approx(r)
    assert opposite.p_value == pytest.approx(p, rel=1e-6)


def test_pairs_within_and_across_indices() -> None:
    a = noise(40)
    vectors = {
        "h1": {"a": a, "b": noise(40, seed=1)},
        "h2": {"c": a + 0.1 * noise(40, seed=2), "d": noise(40, seed=3)},
    }
    c = correlations(vectors)
    within, across = largest_correlation(c, within=True), largest_correlation(c, within=False)
    assert (within.pairs, across.pairs, largest_correlation(c).pairs) == (2, 4, 6)
    assert set(within.pair) in ({"a", "b"}, {"c", "d"})
    assert across.pair == ("a", "c")
    assert across.value > across.chance > within.value
    with pytest.raises(
        ValueError, match=r"no pair of vectors with within=False among \['0', '1'\]"
    ):
        largest_correlation(of(a, vectors["h1"]["b"]), within=False)


def test_p_values_are_uniform_when_nothing_is_there() -> None:
    rng = np.random.default_rng(3)
    p = [
        largest_correlation(of(*torch.from_numpy(rng.standard_normal((3, 8))))).p_value
        for _ in range(400)
    ]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_p_value_and_chance_level_agree() -> None:
    # At the chance level itself the p-value is 5 percent.
    n, r = 12, chance_level(12, 3)
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, 1] = matrix[1, 0] = r
    found = largest_correlation(Correlations(("a", "b", "c"), ("h", "h", "h"), matrix, n))
    assert found.p_value == pytest.approx(0.05, rel=1e-9)


def test_p_values_of_extremes() -> None:
    a = noise(30)
    assert largest_correlation(of(a, 2 * a + 1)).p_value < 1e-80
    square = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    nothing = largest_correlation(of(*square))
    assert nothing.value == pytest.approx(0.0, abs=1e-12)
    assert nothing.p_value == pytest.approx(1.0)


# Heat maps -------------------------------------------------------------------------------------


def test_heat_map_is_normalised_and_reordered() -> None:
    w = 3 + 2 * noise(6, 5)
    found = heat_map(w)
    array = w.numpy()
    np.testing.assert_allclose(found, (array - array.mean()) / array.std(ddof=1), rtol=1e-10)
    rows, columns = torch.randperm(6), torch.randperm(5)
    moved = heat_map(w, rows=rows, columns=columns)
    for i in range(6):
        for j in range(5):
            assert moved[i, j] == found[rows[i], columns[j]]


def test_heat_map_refuses_what_it_cannot_normalise() -> None:
    with pytest.raises(ValueError, match="w must vary"):
        heat_map(torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"w must be a matrix of at least 2 x 2, got shape \(4,\)"):
        heat_map(noise(4))


# Row-column share ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 7), (6, 6), (2, 9)])
def test_row_column_share_against_least_squares(shape: tuple[int, int]) -> None:
    # Two-way analysis of variance without interaction is a regression on row and column dummies.
    m, n = shape
    w = noise(m, n) + noise(m, 1, seed=1) + 2.0
    rows, columns = np.indices(shape)
    design = np.concatenate([np.eye(m)[rows.ravel()], np.eye(n)[columns.ravel()]], axis=1)
    y = w.numpy().ravel()
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    expected = 1 - ((y - fitted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert row_column_share(w).value == pytest.approx(expected, rel=1e-9)


def test_row_column_share_of_special_matrices() -> None:
    r, c = noise(6, 1), noise(1, 8, seed=1)
    assert row_column_share(5 + r + c).value == pytest.approx(1.0)
    # An outer product of centred vectors is pure interaction.
    assert row_column_share((r - r.mean()) * (c - c.mean())).value == pytest.approx(0.0, abs=1e-12)
    shifted = row_column_share(noise(6, 8) + 1e3).value
    assert shifted == pytest.approx(row_column_share(noise(6, 8)).value, rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 2), (5, 9), (20, 20)])
@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_chance_of_the_row_column_share_by_simulation(shape: tuple[int, int], law: str) -> None:
    rng = np.random.default_rng(1)
    found = [
        row_column_share(torch.from_numpy(getattr(rng, f"standard_{law}")(shape)))
        for _ in range(600)
    ]
    values = np.array([f.value for f in found])
    error = values.std() / math.sqrt(len(values))
    assert values.mean() == pytest.approx(found[0].chance, abs=4 * error)


# Leading share ---------------------------------------------------------------------------------


def test_leading_shares_against_numpy_svd() -> None:
    w = noise(7, 5)
    s2 = np.linalg.svd(w.numpy(), compute_uv=False) ** 2
    np.testing.assert_allclose(leading_shares(w), np.cumsum(s2) / (w.numpy() ** 2).sum())
    for k in (1, 3, 5):
        assert leading_share(w, k).value == pytest.approx(s2[:k].sum() / s2.sum())
        assert leading_share(w.T, k).value == pytest.approx(leading_share(w, k).value)


def test_leading_share_of_a_sum_of_outer_products() -> None:
    # 3 outer products on top of no noise: all of ‖W‖² lies in the first 3.
    w = noise(40, 3) @ noise(3, 30, seed=1)
    assert leading_share(w, 3).value == pytest.approx(1.0)
    assert leading_share(w, 2).value < 0.999


@pytest.mark.parametrize(
    ("shape", "k"), [((150, 150), 15), ((150, 150), 75), ((60, 240), 6), ((240, 60), 30)]
)
def test_chance_of_the_leading_share_by_simulation(shape: tuple[int, int], k: int) -> None:
    values = [leading_share(noise(*shape, seed=s), k) for s in range(8)]
    mean = float(np.mean([v.value for v in values]))
    # The Marchenko-Pastur law is the limit; 60 singular values are within about a percent.
    assert mean == pytest.approx(values[0].chance, rel=0.015)


def test_chance_of_the_leading_share_at_the_ends() -> None:
    assert leading_share(noise(9, 30), 9).chance == pytest.approx(1.0, abs=1e-3)
    assert leading_share(noise(9, 30), 9).value == pytest.approx(1.0)
    # A very wide matrix has singular values all alike: k of m hold k / m.
    assert leading_share(noise(5, 100_000), 1).chance == pytest.approx(1 / 5, rel=0.02)


def test_shares_refuse_what_has_none() -> None:
    with pytest.raises(ValueError, match="w must vary: all its entries are equal"):
        row_column_share(torch.full((3, 4), 2.0))
    with pytest.raises(ValueError, match="w must not be zero"):
        leading_share(torch.zeros(3, 4), 1)
    for k in (0, 4):
        with pytest.raises(ValueError, match=rf"k must lie in 1 \.\.\. 3, got {k}"):
            leading_share(noise(3, 5), k)
    for function in (row_column_share, leading_shares):
        with pytest.raises(ValueError, match=r"at least 2 x 2, got shape \(1, 5\)"):
            function(noise(1, 5))
        with pytest.raises(ValueError, match=r"at least 2 x 2, got shape \(2, 3, 4\)"):
            function(noise(2, 3, 4))


def test_nan_is_refused_and_named() -> None:
    bad = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    bad[2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"'W\.C' must be finite"):
        measure.correlations({"h": {"W.C": bad.mean(1), "B": torch.arange(6.0)}})
    for function in (measure.row_column_share, measure.leading_shares, measure.heat_map):
        with pytest.raises(ValueError, match="w must be finite"):
            function(bad)


# What lies at the edge of the domain ------------------------------------------------------------


def test_mean_vectors_belong_to_nobody_else() -> None:
    bias, weight = noise(3), noise(1, 1)
    found = mean_vectors({"b": bias, "W": weight}, {"b": ("h",), "W": ("y", "x")})
    assert found["y"]["W.C"].tolist() == found["x"]["W.R"].tolist() == [float(weight)]
    found["h"]["b"].add_(1.0)
    assert torch.equal(bias, noise(3))
    with pytest.raises(ValueError, match=r"tensor 'b' must hold real numbers, got torch\.complex"):
        mean_vectors({"b": torch.ones(3) * 1j}, {"b": ("h",)})


def test_of_two_lengths_as_common_the_longer_is_used() -> None:
    short = {"a": noise(5), "b": noise(5, seed=1)}
    long = {"c": noise(8, seed=2), "d": noise(8, seed=3)}
    for groups in ({"h": short, "g": long}, {"g": long, "h": short}):
        assert correlations(groups).n == 8
        assert correlations(groups).labels == ("c", "d")


def test_two_neurons_correlate_fully_and_fewer_not_at_all() -> None:
    found = of(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 3.0]))
    assert found.matrix.tolist() == [[1.0, pytest.approx(-1.0)], [pytest.approx(-1.0), 1.0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (0, 1):
            with pytest.raises(ValueError, match=f"vectors must hold one .* n = {n} neurons"):
                of(noise(n), noise(n, seed=1))
            with pytest.raises(ValueError, match=f"vectors must hold one .* n = {n} neurons"):
                correlations({"h": {"a": noise(3)}}, n)
    with pytest.raises(ValueError, match="n must be an integer of at least 0, got -1"):
        correlations({"h": {"a": noise(3)}}, -1)


def test_correlations_stay_within_one() -> None:
    for seed in range(20):
        a = noise(7, seed=seed)
        matrix = of(a, 3 * a, a / 7, -11 * a, a + 1).matrix
        assert float(matrix.max()) == 1.0
        assert float(matrix.min()) == pytest.approx(-1.0)
        assert float(matrix.min()) >= -1.0
        assert matrix.diagonal().tolist() == [1.0] * 5


def test_constant_vectors_are_left_out_whatever_their_sign_and_size() -> None:
    rounding = 1 + 2.0**-53 * noise(30, seed=1).round()
    for value in (-1 / 3, 1e5, -1e-20, 1e-20):
        found = of(noise(30), value * rounding, value * noise(30, seed=2))
        assert found.labels == ("0", "2")


def test_vectors_of_no_use_are_named() -> None:
    with pytest.raises(TypeError, match="vectors must be a mapping, got list"):
        correlations([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="vectors of 'h' must be a mapping, got Tensor"):
        correlations({"h": noise(3)})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="vector 'a' must be a torch tensor, got list"):
        correlations({"h": {"a": [1.0, 2.0]}})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="c must be of type Correlations, got dict"):
        largest_correlation({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="within must be True or False, got 1"):
        largest_correlation(of(noise(9), noise(9, seed=1)), within=1)  # type: ignore[arg-type]


def test_chance_level_at_the_ends_of_its_domain() -> None:
    assert chance_level(40) == chance_level(40, 1, level=0.95) < chance_level(40, 2)
    assert type(chance_level(40)) is float
    # For n = 3 the correlation is cos θ of a uniform angle.
    assert chance_level(3, level=0.5) == pytest.approx(math.cos(math.pi / 4))
    assert 0 < chance_level(2**53) < 1e-7
    assert chance_level(10) < chance_level(10, 2**53) < 1
    for arguments, message in (
        ((2**54,), r"n must be at most 2\^53, got 1\.80144e\+16"),
        ((10, 2**54), r"pairs must be at most 2\^53, got 1\.80144e\+16"),
        ((2.5,), r"n must be at least 3, got 2\.5"),
        ((10, 0.5), r"pairs must be at least 1, got 0\.5"),
        ((math.nan,), "n must be at least 3, got nan"),
        (("x",), "n must be a number, got 'x'"),
        ((10, "x"), "pairs must be a number, got 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            chance_level(*arguments)  # type: ignore[arg-type]
    for level, message in (
        (0.0, r"must lie in \(0, 1\), got 0\.0"),
        ("x", "must be a number, got 'x'"),
    ):
        with pytest.raises(ValueError, match=f"level {message}"):
            chance_level(10, level=level)  # type: ignore[arg-type]


def test_p_values_of_a_full_and_of_no_correlation() -> None:
    def with_value(r: float) -> Correlations:
        matrix = torch.tensor([[1.0, r], [r, 1.0]], dtype=torch.float64)
        return Correlations(("a", "b"), ("h", "h"), matrix, 12)

    for r in (1.0, -1.0):
        found = largest_correlation(with_value(r))
        assert (found.value, found.p_value) == (1.0, 0.0)
    assert largest_correlation(with_value(0.0)).p_value == pytest.approx(1.0)
    # scipy's Student law by the textbook formula, at a value in between.
    r = 0.3
    expected = 2 * stats.t.sf(r * math.sqrt(10 / (1 - r * r)), 10)
    found = largest_correlation(with_value(-r))
    assert found.p_value == pytest.approx(expected)
    assert {type(found.value), type(found.p_value), type(found.chance)} == {float}


def test_orders_that_are_no_permutation_are_named() -> None:
    w = noise(3, 4)
    for bad in ([0, 0, 1], [0, 1], [0, 1, 2, 3], [1, 2, 3], [0.0, 0.5, 2.0], [[0, 1, 2]]):
        with pytest.raises(ValueError, match=r"rows must be a permutation of 0 \.\.\. 2, got \["):
            heat_map(w, rows=bad)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"columns must be a permutation of 0 \.\.\. 3, got Tensor"
    ):
        heat_map(w, columns=torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"rows must be a permutation of 0 \.\.\. 2, got Tensor"):
        heat_map(w, rows=torch.tensor(0))
    with pytest.raises(ValueError, match="rows must hold real numbers"):
        heat_map(w, rows=["a", "b", "c"])  # type: ignore[arg-type]


def test_shares_take_whole_ranks_alone_and_give_floats() -> None:
    w = noise(3, 5)
    assert leading_share(w, np.int64(2)) == leading_share(w, 2)  # type: ignore[arg-type]
    for bad in (True, 2.0, "2", -1):
        with pytest.raises(ValueError, match=rf"k must lie in 1 \.\.\. 3, got {bad!r}"):
            leading_share(w, bad)  # type: ignore[arg-type]
    for share in (leading_share(w, 2), row_column_share(w)):
        assert (type(share.value), type(share.chance)) == (float, float)
    for function in (row_column_share, leading_shares, heat_map):
        with pytest.raises(TypeError, match="w must be a torch tensor, got list"):
            function([[1.0, 2.0], [3.0, 5.0]])  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"at least 2 x 2, got shape \(5,\)"):
        leading_share(noise(5), 1)
    tiny = leading_shares(1e-3 * torch.eye(2))
    assert tiny.tolist() == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize(("shape", "k"), [((60, 240), 6), ((240, 60), 45), ((50, 50), 5)])
def test_chance_of_the_leading_share_against_quadrature(shape: tuple[int, int], k: int) -> None:
    """The density √((b - x)(x - a)) / (2 π c x) as it stands, and its quantile by root finding."""
    c = min(shape) / max(shape)
    a, b = (1 - math.sqrt(c)) ** 2, (1 + math.sqrt(c)) ** 2

    def above(q: float, power: int) -> float:
        def density(x: float) -> float:
            return math.sqrt((b - x) * (x - a)) / (2 * math.pi * c * x) * x**power

        return float(integrate.quad(density, q, b, limit=200)[0])

    q = optimize.brentq(lambda q: above(q, 0) - k / min(shape), a + 1e-9, b)
    # The law has mean one; the grid of angles is 1.6e-4 wide.
    assert leading_share(noise(*shape), k).chance == pytest.approx(above(q, 1), abs=3e-4)


def test_results_stay_as_they_are() -> None:
    c = of(noise(9), noise(9, seed=1))
    with pytest.raises(FrozenInstanceError):
        c.n = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        largest_correlation(c).value = 0.0  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        row_column_share(noise(3, 3)).value = 0.0  # type: ignore[misc]


def test_refusals_begin_with_the_argument() -> None:
    for call, message in (
        (lambda: measure.correlations({}), "^vectors must not be empty$"),
        (lambda: measure.leading_share(torch.zeros(3, 3), 1), "^w must not be zero$"),
        (lambda: measure.leading_share("x", 1), "^w must be"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()


def test_correlations_take_the_commonest_length() -> None:
    short = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([2.0, 1.0])}
    long = {"c": torch.tensor([3.0, 1.0, 2.0])}
    assert measure.correlations({"h": {**short, **long}}).n == 2


def test_mean_vectors_need_axes() -> None:
    with pytest.raises(ValueError, match="axes must name the axes of at least one tensor"):
        mean_vectors({"W": noise(3, 4)}, {})
