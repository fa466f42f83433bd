"""pruning.random_*: networks under random masks, measures, frames and panels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset, load
from rclib.experiments.pruning import plots_random as plots
from rclib.experiments.pruning import random_claims as claims
from rclib.experiments.pruning import random_pruning as experiment
from rclib.experiments.pruning import random_runs as stored
from rclib.nets.densities import erdos_renyi
from rclib.nets.masks import apply_masks
from rclib.nets.stack import Stack
from rclib.training.saliency import snip

NET: dict[str, Any] = {"pool": 1, "n": 200, "rate": 1e-2, "batch_size": 50, "steps": 8}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits").subset(300, 100)


def test_starts_have_the_variance_of_he() -> None:
    found = stored.he_networks({"widths": [300, 300]}, [0], 64, 10)
    for name, variance in (("W1", 2 / 64), ("W2", 2 / 300), ("W3", 1 / 300)):
        assert float(found.tensors[name].var()) == pytest.approx(variance, rel=0.1)
    conv = stored.he_networks({"channels": [16, 16], "widths": [64]}, [0], 192, 10)
    for name, variance in (("K1", 2 / 27), ("K2", 2 / 144), ("W1", 2 / 256), ("W2", 1 / 64)):
        assert float(conv.tensors[name].var()) == pytest.approx(variance, rel=0.2)


@pytest.mark.parametrize("scheme", stored.SCHEMES)
def test_schemes_keep_what_they_say(data: Dataset, scheme: str) -> None:
    start = stored.he_networks({"widths": [60, 60, 60]}, [0, 1], 64, 10)
    batch = (data.x_train[None, :50].expand(2, -1, -1), data.y_train[None, :50].expand(2, -1))
    masks = stored.masks_of(scheme, 0.5, start, [0, 1], batch)
    kept = sum(float(m[0].sum()) for m in masks.values())
    total = sum(m[0].numel() for m in masks.values())
    assert kept / total == pytest.approx(1.0 if scheme == "dense" else 0.5, abs=2e-3)
    if scheme.startswith("ER"):
        shapes = {name: tuple(m.shape[1:]) for name, m in masks.items()}
        expected = erdos_renyi(shapes, 0.5)
        found = {name: float(m[0].double().mean()) for name, m in masks.items()}
        assert found == pytest.approx(expected, abs=3e-3)
    if scheme == "SNIP":
        scores = snip(start, *batch, cross_entropy, list(masks), own=True)
        flat = torch.cat([scores[name][0].flatten() for name in masks])
        chosen = torch.cat([masks[name][0].flatten() for name in masks])
        assert float(flat[chosen].min()) >= float(flat[~chosen].max())
        shuffled = stored.masks_of("SNIP shuffled", 0.5, start, [0, 1], batch)
        for name in masks:
            assert int(shuffled[name][0].sum()) == int(masks[name][0].sum())
            assert not torch.equal(shuffled[name], masks[name])
    with pytest.raises(ValueError, match="scheme must be"):
        stored.masks_of("none", 0.5, start, [0, 1], batch)


def test_density_one_is_the_dense_network(data: Dataset) -> None:
    plan = [{"width": 12, "layers": 2, "schemes": {"dense": [1.0], "ER": [1.0], "uniform": [0.3]}}]
    frame = experiment.networks(data, [0, 1], plan, NET)
    assert (experiment.gap(frame, 12, "ER", 1.0, 2) == 0).all()
    weights = experiment.value(frame, "weights", 12, "uniform", 0.3, 2)
    assert weights[0] == pytest.approx(0.3 * experiment.weights_in(64, [12, 12], 10), abs=2)
    with pytest.raises(ValueError, match="width 13, dense, density 1, 2 layers: not run"):
        experiment.gap(frame, 13, "ER", 0.1, 2)


def test_pruned_weights_stay_zero_and_measures_are_those_of_numpy(data: Dataset) -> None:
    start = stored.he_networks({"widths": [16, 16]}, [0], 64, 10)
    batch = (data.x_train[None, :50], data.y_train[None, :50])
    masks = stored.masks_of("ER", 0.2, start, [0], batch)
    begin = Stack(apply_masks(start.tensors, masks), start.one)
    end = Stack({name: 1.5 * t for name, t in begin.tensors.items()}, start.one)
    found = stored._inside(begin, end, masks)
    w0 = begin.tensors["W2"][0].double().numpy()
    values = np.linalg.svd(w0, compute_uv=False)
    share = float(masks["W2"][0].double().mean())
    assert float(found["top"]) == pytest.approx(
        values[0] / (np.sqrt(2 / 16 * share) * 2 * np.sqrt(16))
    )
    assert float(found["stretch"]) == pytest.approx(1.5)
    assert float(found["moved"]) == pytest.approx(0.5)
    assert float(found["spikes"]) == (1.5 * values > 1.02 * values[0]).sum()
    into, out = masks["W1"][0].sum(1).numpy(), masks["W2"][0].sum(0).numpy()
    assert float(found["degrees"]) == pytest.approx(np.corrcoef(into, out)[0, 1])
    flat = stored._inside(begin, end, {"W1": masks["W1"], "W2": masks["W2"]})
    assert torch.isnan(flat["top"]).all()


def test_tests_of_probabilities_are_counted_by_hand() -> None:
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]]).double()
    found = stored.tested(p.log()[None], torch.tensor([0, 1, 1]))
    assert float(found["accuracy"]) == pytest.approx(2 / 3)
    assert float(found["nll"]) == pytest.approx(-np.log([0.9, 0.1, 0.6]).mean())
    # One bin of two, sure of 0.9 and right half of the time; one of one, 0.6 and right.
    assert float(found["ece"]) == pytest.approx((2 * 0.4 + 0.4) / 3)


def test_a_start_is_rescaled_by_its_density(data: Dataset) -> None:
    config = {**NET, "steps": 0, "density": 0.25, "network": {"widths": [40, 40]}}
    runs = {
        scheme: stored.random_pruning_runs(data, group=[{"seed": 0}], scheme=scheme, **config)
        for scheme in ("ER", "ER rescaled")
    }
    share = float(runs["ER"]["kept"][0, 1] / runs["ER"]["sizes"][0, 1])
    ratio = float(runs["ER rescaled"]["top"][0] / runs["ER"]["top"][0])
    assert ratio == pytest.approx(share**-0.5, rel=1e-4)


def test_widths_are_matched_by_their_weights() -> None:
    assert experiment.weights_in(64, [50, 20], 10) == 64 * 50 + 50 * 20 + 20 * 10
    width = experiment.matched_width(64, 3, 10, 5000)
    sizes = [experiment.weights_in(64, [w] * 3, 10) for w in (width - 1, width, width + 1)]
    assert abs(sizes[1] - 5000) == min(abs(s - 5000) for s in sizes)


def test_frames_and_panels(data: Dataset) -> None:
    widths = {
        "8": {"ER": [0.3]},
        "12": {"ER": [0.3, 0.05], "uniform": [0.05], "SNIP": [0.05]},
    }
    plan = [
        {"width": int(w), "layers": 3, "schemes": {"dense": [1.0], **s}} for w, s in widths.items()
    ]
    plan += [{"width": 8, "layers": k, "schemes": {"dense": [1.0], "ER": [0.3]}} for k in (1, 2)]
    frame = experiment.networks(data, [0, 1], plan, NET)
    gaps = experiment.gaps_frame(frame, widths, 3)
    assert len(gaps) == 2 * 4
    one = gaps[(gaps.width == 12) & (gaps.scheme == "uniform") & (gaps.seed == 1)].gap.item()
    assert one == experiment.gap(frame, 12, "uniform", 0.05, 3)[1]
    layers = experiment.layer_densities(64, [12] * 3, 10, 0.3)
    assert set(layers.scheme) == {"uniform", "ER"}  # no room for a dense first layer
    assert "uniform+" in set(experiment.layer_densities(64, [64] * 3, 10, 0.6).scheme)
    equal = experiment.equal_frame(frame, 3)
    assert set(equal.density) == {1.0, 0.3, 0.05}
    inside = experiment.inside_frame(frame, 12, 3)
    assert len(inside) == 2 * 3
    depths = experiment.depth_frame(frame, 8, [1, 2])
    assert depths.layers.tolist() == [1, 1, 2, 2]
    schemes = {"dense": [1.0], "ER": [0.3, 0.05], "GraSP": [0.05]}
    looked = experiment.judged_frame(data, [5, 6], 12, 3, schemes, attack=0.1, **NET)
    arms = experiment.arms_frame(frame, looked, 12, 3)
    assert set(arms.arm) == {"uniform", "SNIP", "GraSP"}
    own = arms[(arms.arm == "SNIP") & (arms.seed == 0)].gain.item()
    by_hand = [experiment.value(frame, "accuracy", 12, s, 0.05, 3)[0] for s in ("SNIP", "ER")]
    assert own == by_hand[0] - by_hand[1]
    chosen = experiment.layer_densities(64, [12] * 3, 10, 0.05, frame, looked)
    assert set(chosen.scheme) == {"uniform", "ER", "SNIP", "GraSP"}
    sizes = np.array([64 * 12, 144, 144, 120])
    for _, rows in chosen.groupby("scheme"):  # each keeps as much in all
        assert (rows.density * sizes).sum() == pytest.approx(0.05 * sizes.sum(), abs=2)
    gains = experiment.judged_gains(looked, 0.3)
    assert len(gains) == 4 * 2
    by = looked.set_index(["scheme", "density", "seed"])
    one = gains[(gains.what == "ece") & (gains.seed == 6)].gain.item()
    assert one == by.ece["ER", 0.3, 6] - by.ece["dense", 1.0, 6]
    assert len(plots.random_panels(gaps, layers, equal).axes) == 3
    assert len(plots.spectra_panels(inside, depths, arms).axes) == 5


def test_a_convolutional_network_is_one_entry_of_the_plan() -> None:
    x = torch.randn(80, 192, generator=torch.Generator().manual_seed(0))
    y = torch.arange(80) % 3
    colours = Dataset("c", "c", x, y, x[:20], y[:20], 3, "0" * 64)
    entry = {
        "channels": [4, 4], "widths": [8], "schemes": {"dense": [1.0], "ER": [0.3]},
        "own": {"steps": 2},
    }  # fmt: skip
    frame = experiment.networks(colours, [0], [entry], NET)
    assert frame.width.tolist() == ["conv", "conv"]
    assert frame.layers.tolist() == [3, 3]
    assert frame.top.isna().all()
    assert frame.weights[1] == pytest.approx(0.3 * frame.weights[0], abs=2)


def test_masked_starts_and_their_edges() -> None:
    frame = experiment.starts_frame(80, [200] * 3, 10, [1.0, 0.3, 0.04], range(8))
    by = frame.groupby("density")
    assert by.share.mean()[1.0] == 1.0
    assert by.share.mean()[0.3] < 0.3  # ER gives more to the ends
    # With no entry missing both laws are one; with few the dense law's edge is too small.
    whole = frame[frame.density == 1.0]
    assert whole.dense_edge.to_numpy() == pytest.approx(whole.sparse_edge.to_numpy(), rel=1e-6)
    assert by.dense_edge.mean()[1.0] == pytest.approx(1.0, abs=0.03)
    assert by.dense_edge.mean()[0.04] > 1.1
    assert by.sparse_edge.mean()[0.04] == pytest.approx(1.0, abs=0.06)
    assert whole.degrees.isna().all()
    assert abs(by.degrees.mean()[0.3]) < 0.1
    again = experiment.starts_frame(80, [200] * 3, 10, [0.04], [3])
    assert again.sparse_edge.item() == frame[frame.density == 0.04].sparse_edge.iloc[3]


def test_claims_are_about_the_arms_they_name(data: Dataset) -> None:
    arms = {"uniform": [0.05], "ER": [0.3, 0.1, 0.05], "ER again": [0.1], "ER rescaled": [0.1],
            "SNIP": [0.05], "SNIP shuffled": [0.05]}  # fmt: skip
    plan = [
        {"width": 12, "layers": 2, "schemes": {"dense": [1.0], **arms}},
        {"width": 8, "layers": 2, "schemes": {"dense": [1.0], "ER": [0.1, 0.05]}},
        {"width": 5, "layers": 2, "schemes": {"dense": [1.0]}},
    ]
    runs = experiment.networks(data, [0, 1, 2], plan, NET)
    found = claims.width_values(runs, small=8, wide=12, narrow=5, collapse=8, layers=2)
    by = runs.set_index(["width", "scheme", "density", "seed"])
    accuracy = by.accuracy
    wide, small = (accuracy[w, "ER", 0.1, 1] - accuracy[w, "dense", 1.0, 1] for w in ("12", "8"))
    assert found["width_closes"][1] == pytest.approx(wide - small)
    equal = accuracy["12", "ER", 0.1, 2] - accuracy["5", "dense", 1.0, 2]
    assert found["sparse_pays"][2] == pytest.approx(equal)
    own = accuracy["12", "SNIP shuffled", 0.05, 0] - accuracy["12", "uniform", 0.05, 0]
    assert found["ratio_of_snip"][0] == pytest.approx(own)
    spikes = by.spikes["12", "ER", 0.1, 0] - by.spikes["12", "dense", 1.0, 0]
    assert found["more_spikes"][0] == spikes
    deep = claims.depth_values(
        runs, width=12, density=0.1, depths=[2, 2], collapse=8, layers=2, classes=10
    )
    assert (deep["depth_closes"] == 0).all()
    share = (accuracy["8", "ER", 0.05, 1] - 0.1) / (accuracy["8", "dense", 1.0, 1] - 0.1)
    assert deep["too_small_share"][1] == pytest.approx(share)
    assert claims.conv_values(runs, {}) == claims.residual_values(None) == {}
    renamed = runs[runs.width == "12"].assign(width="conv")
    conv = claims.conv_values(renamed, {"channels": [], "widths": [1, 1]})
    erk = accuracy["12", "ER", 0.05, 2] - accuracy["12", "uniform", 0.05, 2]
    assert conv["conv_erk"][2] == pytest.approx(erk)
    looked = experiment.judged_frame(
        data, [5, 6], 12, 2, {"dense": [1.0], "ER": [0.3, 0.05], "GraSP": [0.05],
                              "GraSP shuffled": [0.05]}, attack=0.1, **NET,
    )  # fmt: skip
    edges = experiment.starts_frame(64, [12] * 2, 10, [0.3, 0.1, 0.05], [1, 2])
    seen = claims.judged_values(looked, edges, wide=12, layers=2)
    at = looked.set_index(["scheme", "density", "seed"]).accuracy
    places = at["GraSP", 0.05, 6] - at["GraSP shuffled", 0.05, 6]
    assert seen["places_of_grasp"][6] == pytest.approx(places)
    assert seen["dense_edge_fails"][2] == edges[edges.density == 0.05].dense_edge.iloc[1]
    tables = claims.tables(runs, runs, looked, edges, None)
    assert set(tables) == {"judged", "starts", "networks"}
    assert len(tables["judged"]) == 5
    assert len(plots.other_panels(edges, experiment.judged_gains(looked, 0.3)).axes) == 2
