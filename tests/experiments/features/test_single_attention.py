"""features.single_attention and attention_runs: targets, fits, spikes and trained layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import special_ortho_group
from sklearn.kernel_ridge import KernelRidge

from rclib.experiments.features import attention_runs as runs
from rclib.experiments.features import plots_attention as plots
from rclib.experiments.features import single_attention as experiment
from rclib.nets.random_attention import attention_features, attention_kernel, query_keys

SMALL: dict[str, Any] = {
    "d": 4, "keys": 3, "sizes": [60, 120], "n_test": 80, "heads": 30,
    "targets": ["T1_2", "T2_1", "T3_1", "T4"],
}  # fmt: skip


def test_targets_are_those_of_a_loop() -> None:
    x = runs.sphere(0, 4, 5, 3, 4)
    assert np.linalg.norm(x, axis=-1) == pytest.approx(np.ones((5, 4)))
    assert runs.sphere(0, 4, 9, 3, 4)[:5].tolist() == x.tolist()
    beta, rotation = runs.direction(0, 4)
    assert np.linalg.norm(beta) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(4), atol=1e-12)
    for n in range(5):
        query, keys = x[n, 0], x[n, 1:]
        wanted = {
            "T1_2": np.mean([(beta @ key) ** 2 for key in keys]),
            "T2_1": np.mean([(query @ key) * (beta @ key) for key in keys]),
            "T2_3": np.mean([(query @ key) ** 3 * (beta @ key) for key in keys]),
            "T3_1": np.mean([(query @ (rotation @ key)) * (beta @ key) for key in keys]),
            "T4": (beta @ keys[0]) * (beta @ keys[1]),
        }
        for name, value in wanted.items():
            found = runs.target(name, x, beta, rotation)[n]
            assert found == pytest.approx(float(value)), name
    with pytest.raises(ValueError, match="target"):
        runs.target("T5_1", x, beta, rotation)


def test_a_run_is_what_scikit_learn_fits_with_the_best_penalty() -> None:
    run = runs.layer_run(None, seed=1, **{**SMALL, "models": ["RFA", "RFA kernel"]})
    x, fresh = (runs.sphere(1, place, n, 3, 4) for place, n in ((4, 120), (5, 80)))
    pair = runs.direction(1, 4)
    y, wanted = (runs.target("T2_1", p, *pair) for p in (x, fresh))
    mean, scale = wanted.mean(), wanted.std()
    y, wanted = (y - mean) / scale, (wanted - mean) / scale
    weights = query_keys(1, 30, 4)
    H, others = (attention_features(p, weights).reshape(len(p), -1) / 30**0.5 for p in (x, fresh))
    kernels = [(H @ H.T, others @ H.T), (attention_kernel(x, x), attention_kernel(fresh, x))]
    for place, (kernel, beside) in enumerate(kernels):
        errors = []
        for kept, tested, labels, at in (
            (slice(40, 120), kernel[:40, 40:], y[:40], y[40:]), (slice(0, 120), beside, wanted, y),
        ):  # fmt: skip
            own = kernel[kept, kept]
            fits = [
                KernelRidge(alpha=eta * np.diag(own).mean(), kernel="precomputed")
                .fit(own, at - at.mean()).predict(tested) + at.mean()
                for eta in runs.PENALTIES
            ]  # fmt: skip
            errors.append([np.mean((fit - labels) ** 2) for fit in fits])
        best = int(np.argmin(errors[0]))
        assert run["penalty"][place, 1, 1] == best
        assert run["error"][place, 1, 1] == pytest.approx(errors[1][best], rel=2e-2)


def test_attention_cannot_see_positions_and_the_network_can() -> None:
    settings = {**SMALL, "sizes": [400], "n_test": 300, "targets": ["T4"]}
    frame = experiment.layer_frame([0, 1], {**settings, "models": ["RFA kernel", "RFMLP kernel"]})
    errors = frame.groupby("model").error.mean()
    assert errors["RFA kernel"] > 0.75  # of three keys, the mean over all pairs has a third
    assert errors["RFMLP kernel"] < errors["RFA kernel"] - 0.2


def test_a_spike_is_found_where_one_is_planted() -> None:
    generator = np.random.default_rng(0)
    beta = special_ortho_group.rvs(6, random_state=1)[0]
    values = generator.standard_normal((500, 6)) + 4 * generator.standard_normal((500, 1)) * beta
    share, beyond, cosine = runs._spike(values, beta)
    assert share == pytest.approx(17 / 22, abs=0.05)
    assert beyond > 5
    assert cosine > 0.99
    share, beyond, _ = runs._spike(generator.standard_normal((500, 6)), beta)
    assert share < 0.25
    assert beyond < 1.2


def test_spikes_are_those_of_ridge_coefficients() -> None:
    """V of the kernel's fit is that of normal equations in the features, with the same penalty."""
    settings = {**SMALL, "targets": ["T1_2"], "sizes": [120], "heads": 8}
    run = runs.layer_run(None, seed=2, **{**settings, "models": ["RFA"]})
    x, fresh = (runs.sphere(2, place, n, 3, 4) for place, n in ((4, 120), (5, 80)))
    pair = runs.direction(2, 4)
    y, wanted = (runs.target("T1_2", p, *pair) for p in (x, fresh))
    y = (y - wanted.mean()) / wanted.std()
    H = attention_features(x, query_keys(2, 8, 4)).reshape(120, -1) / 8**0.5
    eta = runs.PENALTIES[int(run["penalty"][0, 0, 0])] * np.mean(np.sum(H * H, axis=1))
    v = np.linalg.solve(H.T @ H + eta * np.eye(40), H.T @ (y - y.mean())).reshape(8, 5)[:, :-1]
    eigenvalues, vectors = np.linalg.eigh(v.T @ v)
    assert run["share"][0, 0] == pytest.approx(eigenvalues[-1] / eigenvalues.sum(), rel=1e-2)
    assert run["cosine"][0, 0] == pytest.approx(abs(vectors[:, -1] @ pair[0]), rel=1e-2)


def test_the_trained_layer_is_the_frozen_one_where_it_starts() -> None:
    x, weights = runs.sphere(3, 4, 6, 3, 4), query_keys(3, 5, 4)
    values = np.random.default_rng(0).standard_normal((5, 5))
    wanted = np.einsum("nmb,mb->n", attention_features(x, weights), values)
    inputs = torch.from_numpy(np.concatenate([x, np.ones((6, 4, 1))], -1))
    found = runs._output(inputs, torch.from_numpy(weights), torch.from_numpy(values))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-10)


@pytest.mark.slow
def test_training_learns_and_finds_the_rotation() -> None:
    settings = {"d": 4, "keys": 3, "n": 400, "n_test": 300, "heads": 16, "rate": 0.03,
                "steps": 300}  # fmt: skip
    frame = experiment.trained_frame([0], settings, ["T3_1"])
    row = frame.iloc[0]
    assert row.error < row.frozen
    assert row.error < 0.2
    assert row.aligned > 0.4 > row.start
    assert row.features == 80
    layer = runs.layer_run(None, seed=0, d=4, keys=3, sizes=[400], n_test=300, heads=16,
                           targets=["T3_1"], models=["RFA"])  # fmt: skip
    assert row.frozen == pytest.approx(float(layer["error"][0, 0, 0]), rel=1e-6)


def test_alignment_and_ties_of_planted_matrices() -> None:
    weights = np.zeros((2, 5, 5))
    weights[0, :4, :4] = -2 * np.eye(4)
    weights[1, 0, 1] = 1.0
    assert runs._aligned(weights, np.eye(4)) == pytest.approx(0.5)
    generator = np.random.default_rng(0)
    both = generator.standard_normal((40, 9))
    outer = both[:, :, None] + both[:, None, :]
    assert runs._tied(outer) == 1.0
    assert runs._tied(generator.standard_normal((400, 9, 9))) == pytest.approx(0.05, abs=0.04)


def test_samples_needed_and_exponents() -> None:
    rows = [
        (d, seed, "RFA", n, "T1_2", 0.5 * (n / (4 * d * d)) ** -1.0)
        for d in (4, 8) for seed in (0, 1) for n in (16, 64, 256, 1024)
    ]  # fmt: skip
    rows += [(4, 0, "RFA", n, "T4", 1.0) for n in (16, 64)]
    frame = pd.DataFrame(rows, columns=["d", "seed", "model", "n", "target", "error"])
    needed = experiment.needed(frame, level=0.5)
    four = needed[(needed.d == 4) & (needed.target == "T1_2")].samples
    assert four.tolist() == pytest.approx([64.0, 64.0])
    assert needed[needed.target == "T4"].samples.isna().all()
    table = experiment.exponents(needed).set_index("target")
    assert table.exponent["T1_2"] == pytest.approx(2.0)
    assert table["d = 8"]["T1_2"] == pytest.approx(256.0)
    assert np.isnan(table.exponent["T4"])


@pytest.mark.slow
def test_frames_and_panels() -> None:
    models = ["RFA", "BRFA", "RFMLP"]
    layers = experiment.layer_frame([0, 1], {**SMALL, "models": models})
    assert len(layers) == 2 * 3 * 2 * 4
    assert experiment.chosen(layers, model="RFA", target="T4", n=60).index.tolist() == [0, 1]
    with pytest.raises(ValueError, match="need one row a seed"):
        experiment.chosen(layers, model="RFA")
    smallest = experiment.least(layers, ["RFA", "BRFA"], "T4")
    own = layers[(layers.target == "T4") & (layers.model != "RFMLP") & (layers.seed == 1)]
    assert smallest[1] == own.error.min()
    first, second = (
        experiment.chosen(layers, model="RFA", target=t, n=60) for t in ("T1_2", "T2_1")
    )
    steps = experiment.steps_up(layers, ["T1_2", "T2_1"], model="RFA", n=60)
    assert steps.tolist() == pytest.approx((second - first).tolist())
    spikes = experiment.spikes_frame([0, 1], {**SMALL, "models": models})
    assert set(spikes.model) == {"RFA", "BRFA"}
    by_keys = experiment.keys_frame(
        [0, 1],
        {"d": 4, "sizes": [40], "n_test": 40, "heads": 1, "targets": ["T1_2"],
         "models": ["RFA kernel", "RFMLP kernel"]}, [2, 3],
    )  # fmt: skip
    assert sorted(set(by_keys["keys"])) == [2, 3]
    heads = experiment.heads_frame(
        [0, 1],
        {"d": 4, "keys": 3, "n": 60, "n_test": 60, "heads": [2, 8], "targets": ["T1_2", "T2_1"],
         "models": models},
    )  # fmt: skip
    assert sorted(set(heads.features)) == [10, 40]
    training = {"d": 4, "keys": 3, "n": 60, "n_test": 60, "heads": 8, "rate": 0.02, "steps": 20}
    learned = experiment.trained_frame([0, 1], training, ["T2_1", "T3_1"])
    excess = experiment.excess_frame(heads, learned)
    assert set(excess.arm) == {*models, "trained"}
    assert set(excess[excess.arm == "trained"].target) == {"T2_1"}
    ratio = experiment.excess_ratio(excess, "trained", "RFA", 40, target="T2_1")
    after = learned[learned.target == "T2_1"].set_index("seed").error
    before = experiment.chosen(heads, model="RFA", features=40, target="T2_1")
    assert ratio.tolist() == pytest.approx(np.log10(after / before).tolist())
    dimensions = experiment.dimensions_frame([0], {**SMALL, "models": ["RFA"]}, [2, 3], level=0.5)
    assert sorted(set(dimensions.d)) == [2, 3]
    assert len(plots.attention_panels(layers, by_keys, names=SMALL["targets"]).axes) == 6
    assert len(plots.inside_panels(excess, spikes, learned).axes) == 4
