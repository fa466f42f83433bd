"""starts.gnn_init: one walk for all starts, training, and what the claims are judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data.images import load
from rclib.experiments.starts import gnn_init as experiment
from rclib.experiments.starts import gnn_init_runs as runs
from rclib.experiments.starts import gnn_training as training
from rclib.experiments.starts import plots_gnn_init as plots
from rclib.experiments.starts.gnn_graphs import graph
from rclib.nets.graphs import aggregation, start_variances
from rclib.spectral.spectra import esd, outliers

PLANS = {"planted": {"n": 60}, "preferential": {"n": 60}, "neighbours": {"n": 60}}
NETWORKS: dict[str, dict[str, Any]] = {
    name: {
        "kind": "neighbours" if name == "images" else "planted",
        "features": "images" if name == "images" else "gaussian",
        "aggregation_kind": "sum" if name == "sum" else "symmetric", "plan": {"n": 60},
        "layers": 3, "arms": ["Xavier", "Kaiming", "Virgo", "Virgo, plain mean"], "rate": 0.01,
        "steps": 6,
    }
    for name in ("planted", "sum", "images", "16 layers")
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        yield


@pytest.fixture(scope="module")
def begun() -> experiment.Runs:
    return experiment.starts(load("digits"), [0, 1], PLANS, [5, 4], width=16, draws=2)


@pytest.fixture(scope="module")
def trained() -> experiment.Runs:
    return training.trained(load("digits"), [0, 1], NETWORKS, width=16, decay=1e-3, early=2)


def _dense(own: Any, how: str, arm: str, *, seed: int, count: int, layers: int, width: int) -> Any:
    """Weights of an arm, drawn as the runs do, and Â, all dense and float64."""
    rule, by_own = runs.ARMS[arm]
    matrix = aggregation(own.adjacency, how)
    paths = matrix if by_own else aggregation(own.adjacency, "symmetric")
    v = start_variances(rule, paths, own.features, layers=layers, width=width, classes=own.classes)
    generator = torch.Generator().manual_seed(seed)
    sizes = [own.features.shape[1], *[width] * (layers - 1), own.classes]
    weights = [
        (2 * torch.rand(count, a, b, generator=generator, dtype=torch.float64) - 1) * (3 * s) ** 0.5
        for a, b, s in zip(sizes, sizes[1:], v, strict=False)
    ]
    return weights, torch.from_numpy(matrix)


@pytest.mark.parametrize("arm", ["Xavier", "Virgo", "Virgo, as released"])
@pytest.mark.parametrize("how", ["mean", "sum"])
def test_all_starts_follow_from_one_walk(begun: experiment.Runs, how: str, arm: str) -> None:
    """By a network of that start, dense and layer by layer."""
    own = graph(None, "planted", "words", seed=1, n=60)
    weights, matrix = _dense(own, how, arm, seed=1, count=2, layers=5, width=16)
    expected, h = [], torch.from_numpy(own.features)
    for w in weights[:-1]:
        h = torch.relu(matrix @ h @ w)
        expected.append(float(h.square().mean(2).log10().mean()))
    frame = experiment.curves(begun)
    chosen = frame[
        (frame.graph == "planted") & (frame.features == "words") & (frame.aggregation == how)
        & (frame.depth == 5) & (frame.seed == 1) & (frame.arm == arm)
    ]  # fmt: skip
    assert chosen["size"].tolist() == pytest.approx(expected)
    assert chosen.layer.tolist() == [1, 2, 3, 4]


def test_neighbours_gates_and_centred_variance_by_hand() -> None:
    run = runs.start_runs(
        None, seed=2, kind="planted", features="gaussian", aggregation_kind="symmetric",
        plan={"n": 40}, layers=3, width=32, draws=1,
    )  # fmt: skip
    own = graph(None, "planted", "gaussian", seed=2, n=40)
    weights, matrix = _dense(own, "symmetric", "Kaiming", seed=2, count=1, layers=3, width=32)
    h = torch.relu(matrix @ torch.from_numpy(own.features) @ weights[0])[0].numpy()
    edges = [(i, j) for i in range(40) for j in range(i) if own.adjacency[i, j]]
    by_hand = np.mean([np.corrcoef(h[i], h[j])[0, 1] for i, j in edges])
    assert run["near"][0] == pytest.approx(by_hand)
    assert run["open"][0] == pytest.approx(np.mean(h > 0))
    assert run["spread"][0] == pytest.approx(np.mean(np.log10(h.var(1))))


def test_gates_are_open_half_of_the_time_and_relu_keeps_one_minus_one_over_pi() -> None:
    """Of a symmetric z, relu opens half; of a normal one Var / E h² is 1 - 1/π."""
    run = runs.start_runs(
        None, seed=3, kind="planted", features="gaussian", aggregation_kind="symmetric",
        plan={"n": 100}, layers=4, width=512, draws=12,
    )  # fmt: skip
    assert run["open"] == pytest.approx([0.5] * 3, abs=0.03)
    assert 10 ** (run["spread"] - run["size"]) == pytest.approx([1 - 1 / np.pi] * 3, abs=0.03)


@pytest.mark.parametrize("how", ["symmetric", "mean"])
def test_outputs_and_gradients_are_those_of_dense_matrices(how: str) -> None:
    own = graph(None, "preferential", "gaussian", seed=0, n=30, d=5)
    drawn = [torch.randn(3, a, b, dtype=torch.float64) for a, b in ((5, 4), (4, 4), (4, 3))]
    sparse, dense = ([w.clone().requires_grad_() for w in drawn] for _ in range(2))
    matrix = aggregation(own.adjacency, how)
    x = torch.from_numpy(own.features)
    pair = runs._sparse(matrix, torch.float64)
    out, hidden = runs.outputs(sparse, pair[0] @ x, pair)
    a, h = torch.from_numpy(matrix), x
    for place, w in enumerate(dense):
        h = a @ h @ w
        if place < 2:
            h = torch.relu(h)
            assert torch.allclose(hidden[place], h)
    assert torch.allclose(out, h)
    for one, other in zip(
        torch.autograd.grad(out.sin().sum(), sparse), torch.autograd.grad(h.sin().sum(), dense),
        strict=True,
    ):  # fmt: skip
        assert torch.allclose(one, other)


def test_training_is_that_of_torch(trained: experiment.Runs) -> None:
    """One arm alone, dense, with torch's Adam."""
    own = graph(None, "planted", "gaussian", seed=1, n=60)
    weights, matrix = _dense(own, "sum", "Virgo", seed=1, count=1, layers=3, width=16)
    now = [w[0].float().requires_grad_() for w in weights]
    optimizer = torch.optim.Adam(now, lr=0.01, weight_decay=1e-3)
    x, a, y = torch.from_numpy(own.features).float(), matrix.float(), torch.from_numpy(own.labels)
    seen, rest = torch.from_numpy(own.part == 0), torch.from_numpy(own.part == 2)
    losses, right = [], []
    for t in range(7):
        h = torch.relu(a @ torch.relu(a @ x @ now[0]) @ now[1])
        out = a @ h @ now[2]
        loss = cross_entropy(out[seen], y[seen])
        losses.append(loss.item())
        right.append(float((out[rest].argmax(1) == y[rest]).float().mean()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if t == 0:
            squares = [float(w.grad.square().mean()) for w in now if w.grad is not None]
        if t < 6:
            optimizer.step()
    frame = training.learning(trained)
    chosen = frame[(frame.setting == "sum") & (frame.seed == 1) & (frame.arm == "Virgo")]
    assert chosen.loss.tolist() == pytest.approx(losses, rel=1e-3)
    assert chosen.test.tolist() == pytest.approx(right, abs=0.03)
    logs = training.gradients(trained, "sum")
    logs = logs[(logs.seed == 1) & (logs.arm == "Virgo")].square
    assert logs.tolist() == pytest.approx(np.log10(squares), abs=1e-3)
    start = weights[0][0].numpy()
    end = now[0].detach().double().numpy()
    ends = training.matrices(trained)
    row = ends[(ends.setting == "sum") & (ends.seed == 1) & (ends.arm == "Virgo")].iloc[0]
    moved = np.linalg.norm(end - start) / np.linalg.norm(start)
    assert row.moved_1 == pytest.approx(moved, rel=1e-3)
    cosine = np.sum(end * start) ** 2 / (np.sum(end**2) * np.sum(start**2))
    assert row.kept_1 == pytest.approx(cosine, rel=1e-3)
    v = start_variances("virgo", matrix.numpy(), own.features, layers=3, width=16, classes=3)
    assert row.first_end == outliers(esd(end), rows=len(end), variance=float(v[0])).count


def test_an_update_of_rank_one_is_a_spike_and_a_start_has_none() -> None:
    random = np.random.default_rng(0)
    start = [torch.from_numpy(random.uniform(-1, 1, (1, 40, 40)) * 3**0.5) for _ in range(3)]
    u = np.ones((40, 1)) / 40**0.5
    grown = [w + torch.from_numpy(30 * u @ u.T) for w in start]
    v = np.ones((1, 3))
    found = runs._weights([start, start, grown], v, 0)
    assert found["spikes"].tolist() == [[0, 0], [0, 0], [1, 1]]
    assert found["means"][0] < 1.5  # near chance
    assert found["moved"] == pytest.approx([30 / float(start[0].norm())] * 2, rel=0.05)
    shared = random.standard_normal(40)
    structured = [start[0] + torch.from_numpy(shared), start[1] + torch.from_numpy(shared)[:, None]]
    assert runs._weights([start, start, [*structured, start[2]]], v, 0)["means"][1] > 1.5


def test_where_the_graph_is_silent_virgo_forward_is_kaiming() -> None:
    for regular in (False, True):
        found = experiment.graph_free([0, 1], regular=regular, n=40, layers=6, width=16)
        assert found.index.tolist() == [0, 1]
        assert found.max() < 1e-12
    # The control must be able to fail: edges that are not even.
    own = graph(None, "preferential", "gaussian", seed=0, n=40)
    matrix = aggregation(own.adjacency, "symmetric")
    ours, plain = (
        start_variances(rule, matrix, own.features, layers=6, width=16, classes=3)
        for rule in ("forward", "kaiming")
    )
    assert np.abs(ours / plain - 1).max() > 0.1


def test_patience_is_that_of_the_authors_code() -> None:
    valid = [0.0, 0.3, 0.5, 0.5, 0.4, 0.6, 0.6, 0.7]
    frame = pd.DataFrame({
        "setting": "planted", "seed": 0, "arm": "Virgo", "step": range(8), "valid": valid,
        "test": np.arange(8) / 10,
    })  # fmt: skip
    stopped = training.best(frame, 2)  # 0.5 after two updates, not bettered by the next two
    assert stopped[["test", "stopped"]].values.tolist() == [[0.2, 4]]
    assert training.best(frame, 3)[["test", "stopped"]].values.tolist() == [[0.7, 7]]
    assert training.best(frame, None)[["test", "stopped"]].values.tolist() == [[0.7, 7]]
    both = training.stopped(frame, 2)
    assert dict(zip(both.rule, both.test, strict=True)) == {"patience": 0.2, "all updates": 0.7}


def test_slopes_are_decades_a_layer(begun: experiment.Runs) -> None:
    frame = experiment.curves(begun)
    made = frame.assign(size=0.5 - 0.3 * frame.layer + 0.1 * (frame.features == "words"))
    found = experiment.slopes(made)
    assert found.slope.to_numpy() == pytest.approx(-0.3)
    named = experiment.named_slopes(found)
    # Two graphs with two kinds of features and images, three aggregations; one of them at 4 layers.
    assert len(named) == 5 * 3 + 3
    assert list(named.columns[-8:]) == list(runs.ARMS)
    short = experiment.slopes(frame[frame.layer < 3])
    assert short.empty


def test_values_of_starts_are_the_extremes_over_places(begun: experiment.Runs) -> None:
    inside = experiment.layers_frame(begun)
    slopes = experiment.slopes(experiment.curves(begun))
    values = experiment.start_values(slopes, inside)
    own = slopes[(slopes.seed == 1) & (slopes.graph != "neighbours") & (slopes.depth == 5)]
    xavier = own[(own.aggregation == "symmetric") & (own.arm == "Xavier")].slope
    assert len(xavier) == 4
    assert values["xavier_vanishes"][1] == xavier.max()
    virgo = own[(own.aggregation == "sum") & (own.arm == "Virgo")].slope
    assert values["sum_own"][1] == virgo.abs().max()
    released = own[(own.aggregation == "sum") & (own.arm == "Virgo, as released")].slope
    assert values["sum_released"][1] == released.abs().min()
    words = own[(own.aggregation == "symmetric") & (own.features == "words")]
    size = words.set_index("arm").slope.abs().groupby("arm").mean()
    assert values["over_kaiming_words"][1] == pytest.approx(size["Kaiming"] - size["Virgo"])
    near = inside[
        (inside.graph == "planted") & (inside.features == "gaussian") & (inside.depth == 5)
        & (inside.aggregation == "symmetric") & (inside.seed == 0)
    ].set_index("layer").near  # fmt: skip
    assert (values["near_first"][0], values["near_last"][0]) == (near[1], near[4])


def test_values_of_training_by_hand(trained: experiment.Runs) -> None:
    learning, ends = training.learning(trained), training.matrices(trained)
    stops, gradients = training.stopped(learning, 2), training.gradients(trained, "planted")
    values = training.training_values(learning, stops, gradients, ends, early=2, late=6)
    at = learning[(learning.setting == "planted") & (learning.seed == 0) & (learning.step == 2)]
    test = at.set_index("arm").test
    assert values["early"][0] == test["Virgo"] - test["Xavier"]
    best = stops[(stops.setting == "16 layers") & (stops.seed == 1) & (stops.rule == "all updates")]
    best = best.set_index("arm").test
    assert values["deep"][1] == best["Virgo"] - best["Kaiming"]
    place = int(np.flatnonzero(trained.keys.setting == "planted")[0])
    squares = np.log10(trained.runs[place]["gradients"])  # arms in the order of NETWORKS
    assert values["gradient_size"][0] == pytest.approx(squares[2, 0] - squares[0, 0])
    even = [abs(squares[a, 0] - squares[a, 1]) for a in (2, 0)]  # the last one is the output's
    assert values["gradient_even"][0] == pytest.approx(even[0] - even[1])
    own = ends[(ends.setting == "planted") & (ends.seed == 1)].set_index("arm")
    spikes = own.loc[["Virgo", "Kaiming"], ["first_end", "last_end"]].min().min()
    assert values["spikes_learned"][1] == spikes
    assert values["means_at_chance"][1] == own.means_start["Virgo"]
    numbers = training.three_numbers(learning, ends, "Kaiming")
    plain = numbers[numbers.arm == "Kaiming"]
    assert plain[["gained", "lead"]].to_numpy() == pytest.approx(0)
    flat = training.flat(ends.groupby("arm")[["kept_1"]].agg(["mean", "std"]))
    assert flat.columns.tolist() == ["arm", "kept_1_mean", "kept_1_std"]


def test_panels_draw(begun: experiment.Runs, trained: experiment.Runs) -> None:
    sizes, inside = experiment.curves(begun), experiment.layers_frame(begun)
    learning, ends = training.learning(trained), training.matrices(trained)
    how = {"planted": "symmetric", "sum": "sum"}
    shown = learning[learning.setting.isin(how)].assign(aggregation=lambda f: f.setting.map(how))
    planted = sizes[sizes.graph == "planted"]
    assert len(plots.start_panels(planted[planted.arm.isin(plots.MAIN)], shown).axes) == 6
    slopes = experiment.slopes(planted[planted.features == "gaussian"])
    figure = plots.inside_panels(
        slopes, inside[inside.depth == 5], training.gradients(trained, "planted"),
        ends[ends.setting == "planted"], training.stopped(learning, 2),
    )  # fmt: skip
    assert len(figure.axes) == 5
    bands = experiment.over_seeds(shown, ["arm", "step"], "test")
    assert (bands["min"] <= bands["mean"]).all()
