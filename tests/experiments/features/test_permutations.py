"""features.permutations: the law of wide networks on unit vectors, ensembles, trained networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from rclib.experiments.features import permutation_nets as finite
from rclib.experiments.features import permutation_runs as runs
from rclib.experiments.features import permutation_theory as theory
from rclib.experiments.features import permutations as experiment
from rclib.experiments.features import plots_permutations as plots
from rclib.nets.permutation_net import start, train_last

NET: dict[str, Any] = {
    "k": 4, "width": 64, "n_networks": 6, "scaling": "NTK", "activation": "relu",
    "layers": "last layer", "zero_start": False, "rate": 2.0, "steps": 60,
}  # fmt: skip


# --- theory --------------------------------------------------------------------------------


def test_kernels_at_angle_zero_and_at_a_right_angle() -> None:
    unit = 2 * np.pi * 3
    e = np.eye(3)
    np.testing.assert_allclose(theory.kernel(e, e, "last layer") * unit, 1 + (np.pi - 1) * e)
    np.testing.assert_allclose(theory.kernel(e, e, "all layers") * unit, 1 + (2 * np.pi - 1) * e)
    with pytest.raises(ValueError, match="which must be one of"):
        theory.kernel(e, e, "first layer")


@pytest.mark.slow
def test_the_tangent_kernel_is_that_of_one_wide_network() -> None:
    """By torch.func.jacrev, one output of a network of 8192 units; the last layer's part alone is
    the conjugate kernel."""
    k, width = 3, 8192
    x = torch.tensor(theory.unit(np.array([[1.0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]])))
    net = start(k, width, generators=[torch.Generator().manual_seed(0)])

    def output(W1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
        return (x @ W1.T / k**0.5).relu() @ w2 / width**0.5

    first, last = torch.func.jacrev(output, argnums=(0, 1))(net.W1[0], net.W2[0, 0])
    of_last = last @ last.T
    whole = of_last + first.flatten(1) @ first.flatten(1).T
    for found, which in ((of_last, "last layer"), (whole, "all layers")):
        np.testing.assert_allclose(found, theory.kernel(x.numpy(), x.numpy(), which), rtol=0.05)


def test_plain_layers_with_scaled_starts_train_their_last_layer() -> None:
    """As in the authors' code: the factors k^(-1/2) and n^(-1/2) stand in the start. The first
    layer's part of the tangent kernel is then k / n of the last one's, and not all of it."""
    k, width = 4, 4096
    x = torch.eye(k, dtype=torch.float64)
    net = start(k, width, generators=[torch.Generator().manual_seed(0)])
    for plain in (True, False):
        inner, outer = (1.0, 1.0) if plain else (k**-0.5, width**-0.5)
        W1 = net.W1[0] * (k**-0.5 if plain else 1.0)
        w2 = net.W2[0, 0] * (width**-0.5 if plain else 1.0)
        before = inner * x @ W1.T
        of_last = (outer * before.relu()).square().sum(1)
        of_first = (outer * inner * w2 * (before > 0)).square().sum(1)
        ratio = float((of_first / of_last).mean())
        assert ratio == pytest.approx(k / width if plain else 1.0, rel=0.1)


@pytest.mark.parametrize("which", theory.KERNELS)
@pytest.mark.parametrize("k", [2, 5, 9])
def test_closed_means_are_those_of_the_kernel_matrices(which: str, k: int) -> None:
    for ones in range(1, k + 1):
        x = np.zeros((1, k))
        x[0, :ones] = 1
        mean = theory.trained(theory.unit(x), which).mean[0]
        on, off = theory.closed_means(k, ones, which)
        np.testing.assert_allclose(mean[:ones], on, atol=1e-12)
        np.testing.assert_allclose(mean[ones:], off, atol=1e-12)
        # The difference is r = (a - c) / (d - c), whatever k is.
        unit = 2 * np.pi * k
        a = theory.kernel(theory.unit(x), np.eye(k)[:1], which)[0, 0] * unit
        d = np.pi if which == "last layer" else 2 * np.pi
        assert on - off == pytest.approx((a - 1) / (d - 1))
        assert (on > 0 > off) if ones > 1 else (on, off) == pytest.approx((1, 0), abs=1e-12)
    with pytest.raises(ValueError, match="ones must lie in 1 to k"):
        theory.closed_means(k, k + 1, which)


@pytest.mark.parametrize("which", theory.KERNELS)
def test_means_are_kernel_regression_and_alike_for_all_bits(which: str) -> None:
    k = 5
    x = theory.unit(theory.all_inputs(k))
    ridge = KernelRidge(alpha=1e-12, kernel="precomputed")
    ridge.fit(theory.kernel(np.eye(k), np.eye(k), which), np.eye(k))
    expected = ridge.predict(theory.kernel(x, np.eye(k), which))
    mean = theory.trained(x, which).mean
    np.testing.assert_allclose(mean, expected, atol=1e-9)
    order = np.random.default_rng(0).permutation(k)
    np.testing.assert_allclose(theory.trained(x[:, order], which).mean, mean[:, order], atol=1e-12)


def test_the_covariance_is_that_of_trained_networks_and_zero_where_they_were_trained() -> None:
    k, count = 3, 1500
    inputs = theory.unit(np.concatenate([theory.two_bit_inputs(k), np.ones((1, k)), np.eye(k)]))
    law = theory.trained(inputs, "last layer")
    np.testing.assert_allclose(law.covariance[-k:], 0, atol=1e-14)
    generators = [torch.Generator().manual_seed(s) for s in range(count)]
    nets = train_last(start(k, 400, generators=generators), torch.eye(k, dtype=torch.float64))
    outputs = nets(torch.tensor(inputs)).numpy()[:, :4] - law.mean[:4]  # (count, 4, k)
    found = np.einsum("sic,sjc->ij", outputs, outputs) / (count * k)
    np.testing.assert_allclose(found, law.covariance[:4, :4], atol=0.06 * law.covariance.max())
    # Another covariance for a network that is trained in all layers.
    other = theory.trained(inputs, "all layers").covariance[:4, :4]
    assert np.abs(other - law.covariance[:4, :4]).max() > 0.01 * law.covariance.max()


@pytest.mark.parametrize("which", theory.KERNELS)
def test_the_mean_of_an_off_bit_falls_like_1_over_k_and_the_spread_like_its_root(
    which: str,
) -> None:
    ks = (200, 400)
    x = [np.eye(k)[:1] + np.eye(k)[1:2] for k in ks]
    spreads = [theory.trained(theory.unit(one), which).covariance[0, 0] for one in x]
    assert np.log2(spreads[0] / spreads[1]) == pytest.approx(1, abs=0.02)  # of the variance
    off = [theory.closed_means(k, 2, which)[1] for k in ks]
    assert np.log2(off[0] / off[1]) == pytest.approx(1, abs=0.02)
    # So the size is like k ln k: its slope is 1 + 1 / ln k, up to the logarithm's logarithm.
    sizes = [theory.closed_size(k, 2, which, 0.9) for k in ks]
    assert np.log2(sizes[1] / sizes[0]) == pytest.approx(1 + 1 / np.log(283), abs=0.06)


@pytest.mark.parametrize("which", theory.KERNELS)
@pytest.mark.parametrize("ones", [2, 4, 6])
def test_a_closed_size_has_its_share_right(which: str, ones: int) -> None:
    """By drawn ensembles of that size, at one input of six bits."""
    k, share = 6, 0.8
    x = np.zeros((1, k))
    x[0, :ones] = 1
    law = theory.trained(theory.unit(x), which)
    size = theory.closed_size(k, ones, which, share)
    noise = np.random.default_rng(ones).standard_normal((40_000, k))
    outputs = law.mean + noise * (law.covariance[0, 0] / size) ** 0.5
    right = ((outputs > 0) == (x > 0)).all(1).mean()
    assert right == pytest.approx(share, abs=0.01)
    with pytest.raises(ValueError, match="share must lie between"):
        theory.closed_size(k, ones, which, 1.0)
    with pytest.raises(ValueError, match="ones must be an integer of at least 2"):
        theory.closed_size(k, 1, which, share)


def test_drawn_sizes_lie_at_the_closed_one() -> None:
    """The first size that passes is, on average, a little below the one that does on average."""
    settings = {"n_inputs": 1000, "targets": [0.9], "most": 900}
    frame = experiment.size_frame(list(range(10)), [15], "two bits", settings)
    for which in theory.KERNELS:
        found = experiment.one_size(frame, which, 0.9)[15].median()
        assert 0.75 < found / theory.closed_size(15, 2, which, 0.9) < 1.1


def test_the_authors_outputs_are_those_of_a_trained_last_layer() -> None:
    frame = experiment.authors_outputs()
    for name in ("on", "off"):
        last = (frame[name] - frame[f"{name}, last layer"]).abs()
        whole = (frame[name] - frame[f"{name}, all layers"]).abs()
        assert last.max() < 0.005
        assert (whole > 5 * last).all()


def test_inputs_are_all_and_different() -> None:
    assert theory.two_bit_inputs(6).shape == (15, 6)
    every = theory.all_inputs(6)
    assert every.shape == (2**6 - 7, 6)
    assert len(np.unique(every, axis=0)) == len(every)
    assert every.sum(1).min() == 2
    with pytest.raises(ValueError, match="k must be at most 16"):
        theory.all_inputs(17)
    with pytest.raises(ValueError, match="no row of zeros"):
        theory.unit(np.zeros((1, 3)))


def test_a_root_gives_the_covariance_back() -> None:
    law = theory.trained(theory.unit(theory.all_inputs(5)), "all layers")
    root = law.root()
    np.testing.assert_allclose(root @ root.T, law.covariance, atol=1e-10)


# --- ensembles -----------------------------------------------------------------------------


def test_sizes_are_those_of_a_plain_loop() -> None:
    """All inputs, whose test set needs no draw: the same stream of normals, one network after
    another."""
    k, seed, which = 4, 3, "all layers"
    found = runs.first_sizes(
        None, seed=seed, k=k, which=which, test="all inputs", n_inputs=1, targets=[0.5, 1.0],
        most=2000,
    )["sizes"]  # fmt: skip
    random = np.random.default_rng([seed, k, 1, 2])
    bits = np.unique(theory.all_inputs(k), axis=0)
    held = theory.two_bit_inputs(k)[random.integers(0, k * (k - 1) // 2)]
    law = theory.trained(theory.unit(np.concatenate([bits, held[None]])), which)
    root, total, size = law.root(), np.zeros((len(bits) + 1, k)), 0
    first = [0, 0]
    while not all(first):
        for noise in random.standard_normal((len(total), 32, k)).transpose(1, 0, 2):
            total, size = total + noise, size + 1
            mean = law.mean + root @ total / size
            share = ((mean[:-1] > 0) == (bits > 0)).all(1).mean()
            first = [
                f or (size if share >= t else 0) for f, t in zip(first, (0.5, 1.0), strict=True)
            ]
    assert found[0].tolist() == first
    assert np.isfinite(found[1]).all()  # the midpoint is reached before
    assert np.isnan(found[2]).all()  # and for other tests than two ones nothing is estimated
    assert (found[1] <= found[0]).all()


def test_drawn_tests_have_two_ones_or_more_and_a_cap_leaves_sizes_open() -> None:
    random = np.random.default_rng(0)
    pairs = runs._test_inputs("two bits", 5, 200, random)
    assert (pairs.sum(1) == 2).all()
    assert len(np.unique(pairs, axis=0)) == 10
    mixed = runs._test_inputs("random bits", 5, 200, random)
    assert len(mixed) == 200
    assert mixed.sum(1).min() == 2
    few = {"seed": 0, "k": 8, "which": "all layers", "n_inputs": 50, "targets": [1.0], "most": 2}
    sizes = runs.first_sizes(None, test="two bits", **few)["sizes"]
    assert np.isnan(sizes[0, 0])
    assert (sizes[1:] == 1).all()
    with pytest.raises(ValueError, match="test must be one of"):
        runs.first_sizes(None, test="three bits", **few)


def test_averages_have_their_mean_and_their_spread() -> None:
    k, size = 5, 400
    frame = experiment.average_frame(list(range(20)), "all layers", k=k, at=[1, size])
    on, off = theory.closed_means(k, 2, "all layers")
    spread = theory.trained(theory.unit(theory.two_bit_inputs(k)), "all layers").covariance[0, 0]
    for number in (1, size):
        own = frame[frame["size"] == number]
        for is_on, mean in ((True, on), (False, off)):
            outputs = own[own.on == is_on].output
            sd = (spread / number) ** 0.5
            assert outputs.std() == pytest.approx(sd, rel=0.2)
            assert outputs.mean() == pytest.approx(mean, abs=sd)
    assert set(zip(frame["first"], frame.second, strict=True)) == {
        (i, j) for i in range(k) for j in range(i + 1, k)
    }


def test_a_bit_that_was_left_out_has_zero_mean() -> None:
    k, bit = 6, 2
    bits = theory.two_bit_inputs(k)
    for which in theory.KERNELS:
        mean = theory.trained(theory.unit(bits), which, without=bit).mean
        np.testing.assert_allclose(mean[:, bit], 0, atol=1e-14)
        others = np.delete(np.arange(k), bit)
        holds = bits[:, bit] > 0
        # With it off-bits are positive, so every such input is wrong; without it all is as before.
        assert mean[holds][:, others][bits[holds][:, others] == 0].min() > 0
        off = mean[~holds][:, others][bits[~holds][:, others] == 0]
        assert off.max() < 0
    frame = experiment.average_frame([0, 1], "last layer", k=k, at=[2000], without=bit)
    assert experiment.right(frame, 2000, holds=bit).max() == 0
    assert experiment.right(frame, 2000, lacks=bit, skip=bit).min() == 1
    assert experiment.right(frame, 2000, lacks=bit).max() < 1


def test_a_share_counts_inputs_and_not_bits() -> None:
    rows = [
        (0, 1, 0, 1, bit, bit < 2, value) for bit, value in enumerate([0.5, 0.1, -0.1, -0.2])
    ] + [(0, 1, 2, 3, bit, bit > 1, value) for bit, value in enumerate([0.1, -0.1, 0.4, 0.4])]
    columns = ["seed", "size", "first", "second", "bit", "on", "output"]
    frame = pd.DataFrame(rows, columns=columns)
    assert experiment.right(frame, 1).tolist() == [0.5]
    assert experiment.right(frame, 1, holds=0).tolist() == [1.0]
    assert experiment.right(frame, 1, lacks=0).tolist() == [0.0]
    assert experiment.right(frame, 1, lacks=0, skip=0).tolist() == [1.0]
    heights = experiment.histogram_frame(frame)
    assert heights.groupby(["size", "on"]).height.max().eq(1).all()


def test_frames_of_sizes() -> None:
    settings = {"n_inputs": 60, "targets": [0.9], "most": 900}
    frame = experiment.size_frame([0, 1], [5, 10], "two bits", settings)
    table = experiment.one_size(frame, "last layer", 0.9)
    assert table.shape == (2, 2)
    slopes = experiment.size_slopes(frame, "last layer", 0.9, least=5)
    np.testing.assert_allclose(slopes, np.log(table[10] / table[5]) / np.log(2))
    away = experiment.distances(frame, "last layer", 0.9, least=10)
    np.testing.assert_allclose(away[10], np.log(69 / table[10]))
    with pytest.raises(ValueError, match="frame must hold"):
        experiment.one_size(frame, "last layer", 0.5)
    published = experiment.published_frame()
    assert len(published) == 29 + 7
    assert published[(published.target == 0.9) & (published.k == 30)]["size"].item() == 175
    tests = experiment.tests_frame(frame, frame, frame.assign(target=1.0))
    assert tests.groupby("test").size().tolist() == [4, 4, 4]
    law = experiment.law_frame([4])
    assert list(law[["which", "ones"]].itertuples(index=False, name=None)) == [
        (which, ones) for which in theory.KERNELS for ones in (2, 3)
    ]
    signs = experiment.sign_margins([4])
    assert (signs.on > 0).all()
    assert (signs.off < 0).all()
    assert signs.off.tolist() == pytest.approx(
        [max(g.mu0) for _, g in law.groupby("which", sort=False)]
    )


# --- trained networks ----------------------------------------------------------------------


def test_a_linear_network_is_the_permutation() -> None:
    settings = {**NET, "activation": "identity", "layers": "all layers", "steps": 300}
    run = runs.networks(None, seed=0, **settings)
    np.testing.assert_allclose(
        run["outputs"], np.broadcast_to(run["bits"] / 2**0.5, (6, 6, 4)), atol=1e-6
    )
    frame = finite.network_frame([0], {"linear": settings})
    assert frame.right_middle.item() == 1
    assert frame.off_largest.item() < 1e-6


def test_outputs_are_named_by_the_bit_they_belong_to() -> None:
    for seed in range(3):  # other permutations
        run = runs.networks(None, seed=seed, **{**NET, "width": 2000})
        on = run["bits"] > 0
        assert run["outputs"][:, on].mean() > 0.4
        assert abs(run["outputs"][:, ~on].mean()) < 0.1
        assert run["residual"].max() < 1e-9


def test_groups_have_the_numbers_of_single_networks() -> None:
    """48 networks of 64 units are trained 32 at once, and give what the first six alone give."""
    settings = {**NET, "layers": "all layers", "steps": 5}
    many = runs.networks(None, seed=1, **{**settings, "n_networks": 48})
    few = runs.networks(None, seed=1, **settings)
    for name in ("outputs", "change", "correlation", "top", "residual", "correlation_start"):
        np.testing.assert_allclose(many[name][:6], few[name], rtol=1e-5, atol=1e-6)
    assert (few["change"] > 0).all()
    assert np.isnan(
        runs.networks(None, seed=1, **{**settings, "zero_start": True})["correlation_start"]
    ).all()


def test_weights_are_measured_as_by_numpy() -> None:
    k, width = 4, 30
    random = np.random.default_rng(0)
    first, W1 = random.standard_normal((2, width, k))
    W2 = random.standard_normal((k, width)) + 2 * W1.mean(1)
    change, correlation, top = runs._measured(*map(torch.tensor, (W1, W2, first)))
    assert change == pytest.approx(np.linalg.norm(W1 - first) / np.linalg.norm(first))
    assert correlation == pytest.approx(np.corrcoef(W1.mean(1), W2.mean(0))[0, 1])
    largest = np.linalg.eigvalsh(W1.T @ W1 / width)[-1]
    assert top == pytest.approx(largest / (1 + (k / width) ** 0.5) ** 2)


def test_risk_is_that_of_every_group_that_fits() -> None:
    arms = {"averaged": NET, "one:64": NET, "one:128": {**NET, "width": 128}}
    frame = finite.risk_frame([0, 1], arms, ["averaged"])
    averaged = frame[(frame.arm == "averaged") & (frame.seed == 0)]
    assert averaged.features.tolist() == [64, 128, 256]
    assert averaged.networks.tolist() == [1, 2, 4]
    assert set(frame[frame.arm == "one"].features) == {64, 128}
    run = runs.networks(None, seed=0, **NET)
    on = run["bits"] > 0
    single = 1 - ((run["outputs"] > 0) == on).all(-1).mean()
    assert averaged.risk.iloc[0] == pytest.approx(single)
    pairs = run["outputs"].reshape(3, 2, 6, 4).astype(float).mean(1)
    assert averaged.risk.iloc[1] == pytest.approx(1 - ((pairs > 0) == on).all(-1).mean())


def test_arms_are_what_their_names_say() -> None:
    arms = finite.judged_arms(
        k=5, widths=[8, 16], n_networks=2, mean=[8, 3], link=[8, 16], n_link=2
    )
    assert list(arms) == ["n = 8", "n = 16", "mean", "linear", "NTK 8", "NTK 16", "MF 8", "MF 16"]
    small = {name: {**arm, "steps": 3} for name, arm in arms.items()}
    frame = finite.network_frame([0, 1], small)
    weights = finite.weights_frame(frame)
    assert weights.groupby("scaling").size().to_dict() == {"MF": 4, "NTK": 4}
    slopes = finite.width_slopes(frame, ["NTK 8", "NTK 16"], "change")
    table = frame[frame.arm.isin(["NTK 8", "NTK 16"])].pivot(
        index="seed", columns="width", values="change"
    )
    np.testing.assert_allclose(slopes, np.log2(table[16] / table[8]))
    risky, averaged = finite.risk_arms(k=5, ensemble=[8, 4], one=[8, 16], moved=[8])
    assert averaged == ["ensemble, last layer", "ensemble, all layers"]
    assert [arm for arm in risky if arm not in averaged] == [
        "zero start, last layer:8", "zero start, last layer:16", "mean-field, all layers:8",
    ]  # fmt: skip
    figure = plots.learned_panels(
        finite.risk_frame([0, 1], {n: {**a, "steps": 3} for n, a in risky.items()}, averaged),
        weights,
    )
    assert len(figure.axes) == 4


def test_the_figure_of_sizes_has_the_authors_counts() -> None:
    settings = {"n_inputs": 60, "targets": [0.9], "most": 900}
    pairs = experiment.size_frame([0, 1], [5, 10], "two bits", settings)
    tests = experiment.tests_frame(pairs, pairs, pairs.assign(target=1.0))
    outputs = experiment.average_frame([0, 1], "all layers", k=5, at=[1, 4])
    published = experiment.published_frame()
    published = published[published.target == 0.9]
    law = experiment.law_frame([5, 10])
    law = law[law.ones == 2]
    figure = plots.size_panels(
        pairs, published, experiment.histogram_frame(outputs), tests, law,
        means=theory.closed_means(5, 2, "all layers"), k=5,
    )  # fmt: skip
    (crosses,) = [line for line in figure.axes[0].lines if line.get_label() == "authors' counts"]
    np.testing.assert_array_equal(crosses.get_ydata(), published["size"])
    (closed,) = [line for line in figure.axes[0].lines if line.get_label() == "closed form"]
    sizes = law[law.which == "last layer"]["size"]
    np.testing.assert_allclose(np.asarray(closed.get_ydata(), dtype=float), sizes, rtol=1e-5)
