"""features.relative_*: coders, stitching, and what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.images import Dataset, load
from rclib.experiments.features import plots_relative as plots
from rclib.experiments.features import relative_nets as nets
from rclib.experiments.features import relative_representations as experiment
from rclib.experiments.features import relative_runs as runs
from rclib.experiments.features import relative_weights as inside
from rclib.experiments.features.spaces import relative
from rclib.resizing.mlp import resize
from rclib.rowcolumn.measure import chance_level
from rclib.runs import sweep

SETTINGS: dict[str, Any] = {
    "kind": "autoencoder", "latent": 6, "anchors": 0, "hidden": 16, "channels": [], "pool": 1,
    "batch": 32, "rate": 1e-2, "steps": 60,
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits").subset(400, 60)


def turned(coders: experiment.Coders, seed: int = 5) -> experiment.Coders:
    """The first network, and the same with its latent space turned and its decoder turned back."""
    d = coders.shape.latent
    q = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed)))[0]
    first, other = coders.ends[0], nets.Coder(coders.shape)
    state = dict(first.state_dict())
    state |= {"E": q @ state["E"], "bE": q @ state["bE"]}
    if not coders.shape.anchors:
        decoder = "D1" if coders.shape.kind == "autoencoder" else "D"
        state[decoder] = state[decoder] @ q.T
    other.load_state_dict(state)
    ends = [first, other.requires_grad_(False)]
    return experiment.Coders(
        coders.shape, [0, 1], ends, ends, coders.fit, coders.x, coders.y
    )  # fmt: skip


@pytest.mark.parametrize("kind", nets.KINDS)
def test_stitching_with_itself_is_the_network(data: Dataset, kind: str) -> None:
    for anchors in (0, 10):
        coders = experiment.trained(data, [3], SETTINGS, kind=kind, anchors=anchors)
        frame = experiment.stitched(coders, coders)
        whole = coders.ends[0](torch.cat([coders.fit[:anchors], coders.x]))
        (z, a) = (coders.ends[0].encode(part) for part in (coders.x, coders.fit[:anchors]))
        parts = coders.ends[0].decode(coders.ends[0].code(z, a))
        assert torch.allclose(parts, whole, atol=1e-5)
        assert frame.own.tolist() == [True]
        assert frame.error[0] == pytest.approx(experiment.losses(whole, coders), rel=1e-4)


@pytest.mark.parametrize("kind", nets.KINDS)
def test_a_turned_copy(data: Dataset, kind: str) -> None:
    """Relative codes fit it, absolute ones do not, Procrustes is exact; CKA sees one space."""
    for anchors in (0, 10):
        pair = turned(experiment.trained(data, [3], SETTINGS, kind=kind, anchors=anchors))
        own = experiment.of_encoders(experiment.stitched(pair, pair), own=True)[0]
        found = experiment.stitched(pair, pair)
        other = experiment.of_encoders(found).to_numpy()
        if anchors:
            assert other == pytest.approx([own, own], rel=1e-4)
        else:
            assert (other > 1.5 * own).all()
            for join in ("Procrustes", "linear"):
                joined = experiment.stitched(pair, pair, join=join, anchors=30)
                assert experiment.of_encoders(joined).to_numpy() == pytest.approx(
                    [own, own], rel=1e-3
                )
        maps = experiment.alignment(pair)
        assert maps[["rotation", "linear", "cka"]].to_numpy() == pytest.approx(1.0, abs=1e-4)
        frame = experiment.comparison(pair, 10, k=5).set_index(["seed", "arm"])
        for arm in ("relative", "Procrustes", "linear"):
            assert frame.loc[(0, arm), "mrr"] == 1.0
        assert frame.loc[(0, "absolute"), "mrr"] < 0.5
        assert frame.loc[(0, "shuffled"), "mrr"] < 0.5


def test_training_is_torchs_with_anchors_held(data: Dataset) -> None:
    """One relative network by hand: no gradient through the anchors, Adam, batches by seed."""
    settings = {**SETTINGS, "anchors": 8, "steps": 5}
    coders = experiment.trained(data, [3], settings)
    model = nets.Coder(coders.shape, seed=3)
    x, _ = runs.images(data, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    for step in range(5):
        batch = x[order[32 * step : 32 * step + 32]]
        optimizer.zero_grad()
        z = model.encode(batch)
        with torch.no_grad():
            anchors = model.encode(x[:8])
        code = torch.nn.functional.cosine_similarity(z[:, None], anchors[None], dim=2)
        (model.decode(code) - batch).square().mean().backward()
        optimizer.step()
    for name, value in coders.ends[0].named_parameters():
        assert torch.allclose(value, model.get_parameter(name), atol=1e-5), name


def test_convolutions_halve_the_side() -> None:
    shape = nets.Shape("classifier", 3 * 16 * 16, 5, 0, 7, (4, 6), 3)
    model = nets.Coder(shape, seed=1)
    assert model.get_parameter("E").shape == (5, 6 * 4 * 4)
    x = torch.randn(3, 768)
    h = torch.nn.functional.gelu(
        torch.nn.functional.conv2d(x.view(3, 3, 16, 16), model.K1, model.bK1, stride=2, padding=1)
    )
    h = torch.nn.functional.gelu(
        torch.nn.functional.conv2d(h, model.K2, model.bK2, stride=2, padding=1)
    )
    assert torch.allclose(model.encode(x), h.flatten(1) @ model.E.T + model.bE, atol=1e-5)
    with pytest.raises(ValueError, match="kind must be one of"):
        nets.Shape("language", 64, 4)


def test_images_are_centred_and_mixed(data: Dataset) -> None:
    x, x_test = runs.images(data, 1)
    assert float(x.mean(0).abs().max()) < 1e-5
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(x)))
    middle = data.x_train.mean(0)
    assert torch.allclose(x[5], data.x_train[order[5]] - middle)
    assert torch.allclose(x_test[5], data.x_test[5] - middle)
    assert torch.equal(runs.labels(data)[:9], data.y_train[order[:9]])


def test_partners_are_of_the_same_block() -> None:
    found = list(experiment.pairs(7))
    assert len(found) == 5 * 4 + 2
    assert all(i != j and i // 5 == j // 5 for i, j in found)
    assert list(experiment.pairs(10))[:20] == found[:20]  # more seeds change no old value


def test_frames(data: Dataset) -> None:
    seeds = [0, 1, 2]
    plain = experiment.trained(data, seeds, SETTINGS)
    wide = experiment.trained(data, seeds, SETTINGS, latent=8)
    coded, coded_wide = (
        experiment.trained(data, seeds, SETTINGS, anchors=16, latent=n) for n in (6, 8)
    )
    assert float(experiment.invariance(plain, 16).max()) < 1e-5
    joined = experiment.joins([plain, wide], [coded, coded_wide], 16)
    assert len(joined) == (1 + 2 * 4) * 3
    own = experiment.of_encoders(experiment.stitched(coded, coded), own=True)
    found = experiment.join_of(joined, "autoencoder", "relative")
    assert found.own.tolist() == own.tolist()
    both = [
        experiment.of_encoders(experiment.stitched(*p))
        for p in ((coded, coded_wide), (coded_wide, coded))
    ]
    other = experiment.join_of(joined, "autoencoder", "relative", "other")
    assert other.error.to_numpy() == pytest.approx((both[0] + both[1]).to_numpy() / 2)
    swept = experiment.anchor_sweep(data, seeds, SETTINGS, [4, 16], plain)
    table = experiment.by_anchors(swept, "own")
    assert table[16].tolist() == own.tolist()
    best = experiment.of_encoders(experiment.stitched(plain, plain), own=True)
    assert experiment.by_anchors(swept, "excess")[4].tolist() == (table[4] - best).tolist()
    planes = experiment.pictures(experiment.trained(data, seeds, SETTINGS, latent=2), 16, n=20)
    assert len(planes) == 3 * 2 * 20
    assert set(planes["class"]) <= {0, 1, 2, 3}
    matrices = pd.concat([
        experiment.stitched(one, one).assign(codes=name)
        for name, one in (("absolute", plain), ("relative", coded))
    ])  # fmt: skip
    assert len(plots.space_panels(planes, matrices, swept).axes) >= 9
    retrieved = experiment.comparison(plain, 16).assign(space="trained")
    resized = pd.DataFrame({
        "arm": ["resized", "resized", "separate", "separate"], "width": [4, 8] * 2, "seed": 0,
        "distance": [0.2, 0.1, 0.3, 0.3],
    })  # fmt: skip
    assert len(plots.measure_panels(retrieved, joined, swept, resized).axes) == 4


def test_starts_are_untrained(data: Dataset) -> None:
    coders = experiment.trained(data, [4], SETTINGS)
    start = nets.Coder(coders.shape, seed=4)
    found = coders.of_starts().ends[0]
    assert all(torch.equal(found.get_parameter(n), v) for n, v in start.named_parameters())
    assert not torch.equal(coders.ends[0].get_parameter("E"), start.get_parameter("E"))


def test_weights_of_copies_and_of_strangers(data: Dataset) -> None:
    coders = experiment.trained(data, [0, 1], SETTINGS)
    one = coders.ends[0]
    same = experiment.Coders(
        coders.shape, [0, 1], [one, one], [one, one], coders.fit, coders.x, coders.y
    )
    frame = inside.weights(same)
    assert frame.entries.tolist() == pytest.approx([1, 1])
    assert frame.means.to_numpy() * chance_level(16) == pytest.approx([1, 1])
    assert frame.spectra.tolist() == [0, 0]
    e1, e = one.get_parameter("E1"), one.get_parameter("E")
    by_hand = abs(np.corrcoef(e1.mean(1), e.mean(0))[0, 1]) / chance_level(16)
    assert frame.inside.tolist() == pytest.approx([by_hand] * 2, rel=1e-4)
    assert inside.weights(coders).entries.max() < 0.5
    deep = nets.Coder(nets.Shape("classifier", 3 * 64, 5, 0, 7, (4, 6), 3)).requires_grad_(False)
    kernel = deep.K2.mean((1, 2, 3))
    last = deep.E.view(5, 6, 4).mean((0, 2))
    assert inside.inner_means(deep)[0] == pytest.approx(np.corrcoef(kernel, last)[0, 1], rel=1e-4)
    assert inside.inner_means(deep)[1] == 6


def test_first_neurons_of_a_resized_network_are_the_sources_by_the_map(data: Dataset) -> None:
    settings = {"pool": 1, "steps": 40, "batch": 32, "rate": 0.05}
    frame = inside.resized(
        data, [0, 1], settings, width=24, widths=[12, 48, 96], anchors=20, draws=2, n_test=40
    )
    assert len(frame) == 2 * 3 * 4
    table = {arm: inside.distances(frame, arm) for arm in frame.arm.unique()}
    assert (table["broken maps"] > 2 * table["resized"])[[48, 96]].to_numpy().all()
    logs = np.log(table["resized"].loc[0].to_numpy())
    by_hand = np.polyfit(np.log([12, 48, 96]), logs, 1)[0]
    assert inside.law(frame, "resized")[0] == pytest.approx(by_hand)
    # Doubling without replacement keeps the function, and with it the codes.
    (source,) = inside._mean_field(data, [0], settings, 24)
    x, _ = runs.images(data, 1)
    twice = resize(source, 48, replacement=False, seed=3)
    spaces = [
        (inside._last_hidden(m, x[20:40]), inside._last_hidden(m, x[:20])) for m in (source, twice)
    ]
    assert torch.allclose(relative(*spaces[0]), relative(*spaces[1]), atol=1e-5)


def test_words_of_one_embedding_find_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    q = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    both = [{"vectors": vectors.numpy()}, {"vectors": (2 * vectors @ q).numpy()}]
    monkeypatch.setattr(sweep, "run", lambda *_, **__: both)
    frame: Any = inside.words(None, [0, 1], windows=[2, 10], anchors=12, k=3)  # type: ignore[arg-type]
    table = frame.pivot(index="seed", columns="arm", values="mrr")
    assert table[["relative", "Procrustes", "linear"]].to_numpy() == pytest.approx(1.0)
    assert float(table[["absolute", "shuffled"]].max().max()) < 0.6
