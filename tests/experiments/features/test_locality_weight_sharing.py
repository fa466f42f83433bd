"""features.locality_*: tasks, networks and numbers of samples of notebook 73 by other routes."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm, special_ortho_group
from torch import Tensor
from torch.nn.functional import conv1d, softplus, softshrink

from rclib.data.images import Dataset
from rclib.experiments.features import locality_nets as nets
from rclib.experiments.features import locality_runs as runs
from rclib.experiments.features import locality_tasks as tasks
from rclib.experiments.features import locality_weight_sharing as experiment
from rclib.experiments.features import plots_locality as plots
from rclib.rowcolumn.measure import row_column_share

K, D = 4, 3
bayes = functools.cache(tasks.bayes_accuracy)
SETTINGS: dict[str, Any] = {
    "sigma": 0.3, "rates": {"CNN": [0.3], "LCN": [0.3, 1.0], "FCN": [0.1]}, "bias": [0.1, 0.3],
    "steps": 3, "at": [1, 3], "n_valid": 20, "n_test": 30,
}  # fmt: skip


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turned(size: int, seed: int = 0) -> Tensor:
    found = special_ortho_group.rvs(size, random_state=np.random.RandomState(seed))
    return torch.from_numpy(np.asarray(found)).float()


def labels(n: int) -> Tensor:
    return drawn(n, seed=9).sign()


def trained(
    net: nets.Nets, x: Tensor, y: Tensor, *, rate: float = 0.3, steps: int = 30
) -> nets.Nets:
    copies = len(net.b)
    return nets.train(
        net, x, y, rates=[rate] * copies, bias_rates=[0.1] * copies, steps=steps, momentum=0.9,
        at=[], look=lambda _: None,
    )  # fmt: skip


# --- networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("b", [-0.7, -0.1, 0.0, 0.4])
def test_the_activation_by_its_definition(b: float) -> None:
    z, bias = drawn(200), torch.tensor(b)
    found = nets.activation(z, bias)
    torch.testing.assert_close(found, torch.relu(z - b) - torch.relu(-z - b))
    torch.testing.assert_close(nets.activation(-z, bias), -found)
    if b >= 0:
        torch.testing.assert_close(found, softshrink(z, b))
    if b == 0:
        assert torch.equal(found, z)


def test_each_network_is_one_of_the_next() -> None:
    """A CNN is a convolution of stride d, an LCN with equal filters, an FCN of blocks."""
    x, w, b = drawn(7, K, D), drawn(1, 1, D, seed=1), torch.tensor([0.3])
    cnn = nets.Nets(w, b, K, True)(x)
    by_torch = softshrink(conv1d(x.reshape(7, 1, K * D), w, stride=D)[:, 0], 0.3).sum(1)
    torch.testing.assert_close(cnn[0], by_torch)
    torch.testing.assert_close(nets.Nets(w.repeat(1, K, 1), b, K, True)(x), cnn)
    blocks = torch.block_diag(*[w[0]] * K)[None]
    torch.testing.assert_close(nets.Nets(blocks, b, K, False)(x), cnn)


def test_groups_of_patches_share_a_filter() -> None:
    x, w, b = drawn(7, K, D), drawn(1, 2, D, seed=1), torch.tensor([-0.2])
    half = nets.Nets(w, b, K, True)(x)
    whole = nets.Nets(w.repeat_interleave(K // 2, 1), b, K, True)(x)
    torch.testing.assert_close(half, whole)
    with pytest.raises(ValueError, match="units must divide the 4 patches"):
        nets.start(k=K, d=D, units=3, local=True, copies=1, scale=0.2, b=0.1, seed=0)


def by_autograd(
    net: nets.Nets, x: Tensor, y: Tensor, *, steps: int, optimizer: str = "sgd"
) -> tuple[Tensor, Tensor]:
    """W and b after training with torch, by the definition of φ."""
    w, b = net.W[:1].clone().requires_grad_(), net.b[:1].clone().requires_grad_()
    groups: Any = [{"params": [w], "lr": 0.3}, {"params": [b], "lr": 0.1}]
    if optimizer == "adam":
        update: torch.optim.Optimizer = torch.optim.Adam([w, b], lr=0.05)
    else:
        update = torch.optim.SGD(groups, momentum=0.9)
    for _ in range(steps):
        update.zero_grad()
        if net.local:
            each = w[0].repeat_interleave(net.k // w.shape[1], 0)
            z = torch.einsum("nkd,kd->nk", x, each)
        else:
            z = x.flatten(1) @ w[0].T
        f = (torch.relu(z - b) - torch.relu(-z - b)).sum(1)
        softplus(-y * f).mean().backward()
        update.step()
    return w.detach(), b.detach()


@pytest.mark.parametrize(("local", "units"), [(True, 1), (True, 2), (True, K), (False, 5)])
@pytest.mark.parametrize("b", [0.3, -0.3])
def test_training_is_torchs(local: bool, units: int, b: float) -> None:
    net = nets.start(k=K, d=D, units=units, local=local, copies=2, scale=0.8, b=b, seed=1)
    x, y = drawn(40, K, D), labels(40)
    found = trained(net, x, y, steps=12)
    w, bias = by_autograd(net, x, y, steps=12)
    for copy in (0, 1):
        torch.testing.assert_close(found.W[copy], w[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.b[copy], bias[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(net.b, torch.full((2,), b))  # what was given stays
    assert float((found.W - net.W).abs().max()) > 0.05


def test_gradient_descent_does_not_see_rotations_and_adam_does() -> None:
    x, y = drawn(40, K, D), labels(40)
    net = nets.start(k=K, d=D, units=K, local=False, copies=1, scale=0.8, b=0.2, seed=1)
    q = turned(K * D)
    moved = (x.flatten(1) @ q).view_as(x)
    there = nets.Nets(net.W @ q, net.b, K, False)
    torch.testing.assert_close(
        trained(there, moved, y)(moved), trained(net, x, y)(x), rtol=0, atol=1e-4
    )
    ends = []
    for one, inputs in ((net, x), (there, moved)):
        w, b = by_autograd(one, inputs, y, steps=30, optimizer="adam")
        ends.append(nets.Nets(w, b, K, False)(inputs))
    assert float((ends[0] - ends[1]).abs().max()) > 0.05


def test_local_networks_do_not_see_rotations_of_patches() -> None:
    """An LCN none of each patch by itself, a CNN none of all patches alike and no other."""
    x, y = drawn(40, K, D), labels(40)
    each = torch.stack([turned(D, seed) for seed in range(K)])
    lcn = nets.start(k=K, d=D, units=K, local=True, copies=1, scale=0.8, b=0.2, seed=1)
    moved = torch.einsum("nkd,kde->nke", x, each)
    there = nets.Nets(torch.einsum("rkd,kde->rke", lcn.W, each), lcn.b, K, True)
    torch.testing.assert_close(
        trained(there, moved, y)(moved), trained(lcn, x, y)(x), rtol=0, atol=1e-4
    )
    cnn = nets.start(k=K, d=D, units=1, local=True, copies=1, scale=0.8, b=0.2, seed=1)
    alike = nets.Nets(cnn.W @ each[0], cnn.b, K, True)
    there_too = trained(alike, x @ each[0], y)(x @ each[0])
    torch.testing.assert_close(there_too, trained(cnn, x, y)(x), rtol=0, atol=1e-4)
    assert float((trained(alike, moved, y)(moved) - trained(cnn, x, y)(x)).abs().max()) > 0.05


def test_b_at_zero_stays_there_only_if_it_has_no_rate() -> None:
    net = nets.start(k=K, d=D, units=1, local=True, copies=1, scale=0.5, b=0.0, seed=0)
    x, y = drawn(40, K, D), labels(40)
    fixed = nets.train(
        net, x, y, rates=[0.3], bias_rates=[0.0], steps=5, momentum=0.9, at=[], look=lambda _: None
    )
    torch.testing.assert_close(fixed(2 * x), 2 * fixed(x))  # linear
    assert float(trained(net, x, y, steps=5).b) != 0.0


# --- tasks ---------------------------------------------------------------------------------


def sample(task: str = "moving", part: str = "train", n: int = 50, seed: int = 1) -> tasks.Samples:
    return tasks.samples(None, task, part, seed=seed, k=K, d=D, n=n, sigma=0.3)


def test_samples_hold_the_signal_and_noise() -> None:
    own = tasks.samples(None, "moving", "test", seed=1, k=K, d=D, n=20_000, sigma=0.3)
    w = tasks.signals(1, K, D)[0]
    assert np.linalg.norm(w) == pytest.approx(1.0)
    mean = (own.x * own.y[:, None, None]).double().mean(0).numpy()
    np.testing.assert_allclose(mean, np.tile(w / K, (K, 1)), atol=0.015)
    assert abs(float(own.y.mean())) < 0.03
    noise = own.x.double().numpy() @ (np.eye(D) - np.outer(w, w))
    assert noise.var() * D / (D - 1) == pytest.approx(0.09, rel=0.02)
    assert own.scores is not None
    np.testing.assert_allclose(own.scores, own.x.double().numpy() @ w, atol=1e-6)


def test_more_samples_begin_with_the_fewer_and_parts_differ() -> None:
    for task in ("moving", "own", "rotated", "still"):
        few, many = sample(task), sample(task, n=80)
        torch.testing.assert_close(few.x, many.x[:50])
        assert torch.equal(few.y, many.y[:50])
    assert not torch.equal(sample().x, sample(part="valid").x)
    with pytest.raises(ValueError, match="task must be"):
        sample("moved")
    with pytest.raises(ValueError, match="part must be"):
        sample(part="rest")
    with pytest.raises(ValueError, match="data must hold images"):
        sample("images")


def test_controls_change_what_they_say() -> None:
    moving, own, rotated, still = (sample(task) for task in ("moving", "own", "rotated", "still"))
    q = tasks.rotation(1, K * D)
    np.testing.assert_allclose(q @ q.T, np.eye(K * D), atol=1e-12)
    there = moving.x.flatten(1).double().numpy() @ q
    np.testing.assert_allclose(rotated.x.flatten(1).numpy(), there, atol=1e-6)
    w = tasks.signals(1, K, D, own=True)
    changed = (own.x - moving.x).abs().sum(2) > 0
    assert changed.sum(1).max() == 1  # the patch of the signal alone
    assert len(np.unique(w[:, 0])) == K
    np.testing.assert_array_equal(w[0], tasks.signals(1, K, D)[0])
    assert (changed[:, 1:].sum(1) + (~changed).all(1) == 1).all()  # the first has the same signal
    assert still.scores is not None
    assert (still.scores[:, 0] * still.y.numpy()).mean() == pytest.approx(1.0, abs=0.15)
    assert abs((still.scores[:, 1:] * still.y.numpy()[:, None]).mean()) < 0.15


def test_the_bayes_rule_by_densities() -> None:
    """Posterior odds of the whole input, patch by patch, against the rule of the scores."""
    sigma, own = 0.3, sample(n=400)
    w, x = tasks.signals(1, K, D)[0], own.x.double().numpy()
    parts = {}
    for y in (-1, 1):
        each = []
        for i in range(K):
            mean = np.zeros((K, D))
            mean[i] = y * w
            each.append(norm.logpdf(x, mean, sigma).sum((1, 2)))
        parts[y] = np.logaddexp.reduce(each, axis=0)
    right = float(((parts[1] - parts[-1]) * own.y.numpy() > 0).mean())
    assert own.scores is not None
    assert tasks.reference(own.scores, own.y.numpy(), sigma)[0] == right


def test_accuracies_of_the_rules() -> None:
    own = tasks.samples(None, "moving", "test", seed=3, k=10, d=4, n=20_000, sigma=0.3)
    assert own.scores is not None
    bayes, linear = tasks.reference(own.scores, own.y.numpy(), 0.3)
    assert tasks.linear_accuracy(10, 0.3) == pytest.approx(0.854, abs=5e-4)
    assert linear == pytest.approx(tasks.linear_accuracy(10, 0.3), abs=0.008)
    assert bayes == pytest.approx(tasks.bayes_accuracy(10, 0.3), abs=0.006)
    assert tasks.bayes_accuracy(1, 0.5) == pytest.approx(norm.cdf(2.0), abs=2e-3)
    assert tasks.bayes_accuracy(10, 0.3) == pytest.approx(0.955, abs=0.003)


@pytest.mark.parametrize("k", [5, 10])
def test_no_linear_rule_is_better(k: int) -> None:
    """Σ a_j s_j is right with probability mean_j Φ(a_j / (σ |a|)), most for equal a_j."""

    def wrong(a: Any) -> float:
        return -float(norm.cdf(a / (0.3 * np.linalg.norm(a))).mean())

    for seed in range(4):
        first = np.abs(np.random.RandomState(seed).standard_normal(k))
        found = minimize(wrong, first)
        assert -found.fun <= tasks.linear_accuracy(k, 0.3) + 1e-9
    assert -wrong(np.ones(k)) == pytest.approx(tasks.linear_accuracy(k, 0.3))


def test_images_have_norm_one_and_stand_in_one_patch(digits: Dataset) -> None:
    shown = tasks.pictures(digits, "train", 16)
    np.testing.assert_allclose(np.linalg.norm(shown, axis=1), 1.0)
    np.testing.assert_allclose(shown.mean(1), 0.0, atol=1e-12)
    zeros = digits.x_train[digits.y_train == 0]
    assert len(shown) == len(zeros)
    by_hand = zeros[5].double().view(4, 2, 4, 2).mean((1, 3)).flatten().numpy()
    by_hand = by_hand - by_hand.mean()
    np.testing.assert_allclose(shown[5], by_hand / np.linalg.norm(by_hand), atol=1e-12)
    both = [len(tasks.pictures(digits, part, 16)) for part in ("valid", "test")]
    assert sum(both) == int((digits.y_test == 0).sum())
    assert abs(both[0] - both[1]) <= 1
    for d in (15, 9):
        with pytest.raises(ValueError, match="d must be the square of a divisor of 8"):
            tasks.pictures(digits, "train", d)
    own = tasks.samples(digits, "images", "train", seed=0, k=K, d=16, n=60, sigma=1e-6)
    sizes = own.x.norm(dim=2)
    assert own.scores is None
    torch.testing.assert_close(sizes.max(1).values, torch.ones(60), rtol=0, atol=1e-4)
    assert float(sizes.sum(1).max()) < 1.001


# --- numbers of samples --------------------------------------------------------------------


def test_crossings() -> None:
    sizes, values = [10, 20, 40, 80], [0.6, 0.7, 0.65, 0.9]
    assert experiment.crossing(sizes, values, 0.65) == pytest.approx(10 * 2**0.5)
    by_interp = np.exp(np.interp(0.8, values[2:], np.log(sizes[2:])))
    assert experiment.crossing(sizes, values, 0.8) == pytest.approx(by_interp)
    assert experiment.crossing(sizes, values, 0.5) == 10.0
    assert experiment.crossing(sizes, values, 0.95) == 80.0


def made(samples: dict[tuple[str, int, int], float], seeds: int = 6) -> pd.DataFrame:
    """Accuracies p + 0.1 log2(n / samples), with p 0.06 below the Bayes rule's, and noise."""
    random, rows = np.random.RandomState(0), []
    for (arch, k, d), wanted in samples.items():
        p = bayes(k, 0.3) - 0.06
        for seed in range(seeds):
            for n in (5, 20, 80, 320, 1280, 5120):
                value = p + 0.1 * np.log2(n / wanted) + 0.002 * random.standard_normal()
                rows.append(("moving", arch, k, d, n, seed, value))
    return pd.DataFrame(rows, columns=["task", "arch", "k", "d", "n", "seed", "accuracy"])


def test_estimates_find_what_was_put_in() -> None:
    frame = made({
        ("CNN", 5, 20): 40.0, ("CNN", 10, 20): 60.0, ("LCN", 5, 20): 200.0,
        ("LCN", 10, 20): 420.0, ("LCN", 10, 40): 840.0,
    })  # fmt: skip
    p = bayes(10, 0.3) - 0.06
    value, low, high = experiment.ratio(frame, "LCN", "CNN", k=10, d=20, p=p)(6, 0.05)
    assert value == pytest.approx(7.0, rel=0.05)
    assert low < value < high < 1.2 * low
    narrow = experiment.ratio(frame, "LCN", "CNN", k=10, d=20, p=p)(6, 0.5)
    assert low < narrow[1] < narrow[2] < high
    shapes = [(5, 20), (10, 20)]
    for arch, ratio in (("LCN", 2.1), ("CNN", 1.5)):
        slope = experiment.growth(frame, arch, shapes, along="k", sigma=0.3, gap=0.06)(6, 0.05)
        assert slope[0] == pytest.approx(np.log2(ratio), abs=0.06)
    along_d = experiment.growth(frame, "LCN", [(10, 20), (10, 40)], along="d", sigma=0.3, gap=0.06)
    assert along_d(6, 0.05)[0] == pytest.approx(1.0, abs=0.06)
    same = made(
        {
            (a, k, 20): n
            for a, k, n in (("F", 5, 50.0), ("L", 5, 25.0), ("F", 10, 300.0), ("L", 10, 60.0))
        }
    )
    shift = bayes(10, 0.3) - bayes(5, 0.3)  # one p for both k
    same.loc[same.k == 5, "accuracy"] += shift
    grown = experiment.ratio_growth(same, "F", "L", ks=[5, 10], d=20, p=p)(6, 0.05)
    assert grown[0] == pytest.approx(5.0 / 2.0, rel=0.06)


def test_thresholds_say_where_they_are_bounds() -> None:
    frame = made({("CNN", 5, 20): 40.0, ("LCN", 5, 20): 1.0, ("FCN", 5, 20): 1e5})
    table = experiment.thresholds(frame, sigma=0.3, gap=0.06).set_index("arch")
    assert list(table.bound) == ["", "at most", "at least"]
    assert table.samples["CNN"] == pytest.approx(40.0, rel=0.05)
    assert table.low["CNN"] < table.samples["CNN"] < table.high["CNN"]
    assert list(table.samples[1:]) == pytest.approx([5.0, 5120.0])
    fixed = experiment.thresholds(frame, sigma=0.3, gap=0.06, fixed=0.5).set_index("arch")
    assert fixed.samples["CNN"] < table.samples["CNN"]


# --- weights -------------------------------------------------------------------------------


def test_sides_add_up_to_the_librarys_share() -> None:
    w = drawn(8, 20).double() + drawn(20, seed=1).double() + 0.3 * drawn(8, 1, seed=2).double()
    rows, columns = experiment.sided(w.numpy())
    assert rows + columns == pytest.approx(row_column_share(w).value)
    noise = [experiment.sided(drawn(10, 20, seed=seed).double().numpy()) for seed in range(300)]
    assert np.mean(noise, 0) == pytest.approx([9 / 199, 19 / 199], rel=0.1)


def frame_of(w: Tensor, arch: str, task: str = "moving") -> pd.DataFrame:
    row = {
        "task": task,
        "arch": arch,
        "units": len(w),
        "k": K,
        "d": D,
        "n": 9,
        "seed": 2,
        "W": w.numpy(),
    }
    return pd.DataFrame([row])


def test_weights_of_filters_that_are_the_signal() -> None:
    w = torch.from_numpy(tasks.signals(2, K, D))
    rank_one = torch.tensor([1.0, 2.0, 0.5, 1.0]).double()[:, None] * w
    found = experiment.weights_of(frame_of(rank_one, "LCN")).iloc[0]
    assert (found.leading, found.cosine) == pytest.approx((1.0, 1.0))
    own = torch.linalg.qr(drawn(K, K).double())[0][:, :D]
    spread = experiment.weights_of(frame_of(own, "LCN", "own")).iloc[0]
    assert spread.leading == pytest.approx(1 / 3)


def test_share_of_a_patch() -> None:
    local = torch.block_diag(*[torch.ones(1, D)] * K)
    assert experiment.share_frame(frame_of(local, "FCN"), K).patch.tolist() == [1.0]
    assert experiment.share_frame(frame_of(torch.ones(K, K * D), "FCN"), K).patch.tolist() == [
        1 / K
    ]


# --- runs and frames -----------------------------------------------------------------------


def run(**changed: Any) -> dict[str, Any]:
    rates = {"rates": [0.1, 1.0]}
    given = {"task": "moving", "arch": "LCN", "units": K, "seed": 1, "k": K, "d": D, "n": 30}
    return dict(runs.patch_run(None, **{**SETTINGS, **rates, **given, **changed}))


@pytest.mark.parametrize(("arch", "units"), [("CNN", 1), ("LCN", K), ("FCN", 3)])
def test_the_chosen_network_is_the_best_on_validation_samples(arch: str, units: int) -> None:
    found = run(arch=arch, units=units, steps=20, at=[5, 20])
    moment, place = found["chosen"]
    assert found["valid"].shape == found["test"].shape == found["b"].shape == (2, 2)
    assert found["valid"][moment, place] == found["valid"].max()
    b = torch.tensor([found["b"][moment, place]])
    net = nets.Nets(torch.from_numpy(found["W"])[None], b, K, arch != "FCN")
    for part, n in (("valid", 20), ("test", 30)):
        own = sample(part=part, n=n)
        right = float((net(own.x)[0] * own.y > 0).double().mean())
        assert right == pytest.approx(found[part][moment, place])
    own = sample(part="test", n=30)
    assert own.scores is not None
    rules = tasks.reference(own.scores, own.y.numpy(), 0.3)
    assert found["reference"].tolist() == pytest.approx(rules)
    assert run(task="rotated")["reference"].tolist() == pytest.approx(rules)


def test_rates_share_a_start_and_nothing_else() -> None:
    both = run()
    for place, rate in enumerate((0.1, 1.0)):
        alone = run(rates=[rate])
        np.testing.assert_allclose(alone["b"][:, 0], both["b"][:, place], rtol=1e-5)
    with pytest.raises(ValueError, match="arch must be"):
        run(arch="MLP")


def test_a_cnn_passes_the_linear_rule_and_a_linear_one_does_not() -> None:
    options: dict[str, Any] = {"arch": "CNN", "units": 1, "k": 10, "d": 10, "n": 300, "steps": 80,
                               "at": [80], "n_test": 2000, "rates": [0.3]}  # fmt: skip
    found, linear = run(**options), run(**options, bias=[0.0, 0.0])
    assert found["test"][0, 0] > found["reference"][1] + 0.03
    assert linear["test"][0, 0] < found["reference"][1] + 0.01
    assert float(found["b"][-1, 0]) > 0.5
    assert float(np.abs(linear["b"]).max()) == 0.0


def test_frames_and_figures(digits: Dataset) -> None:
    arms = experiment.point_arms(
        K,
        D,
        n=16,
        more=24,
        few=8,
        fewest=6,
        some=12,
        filters=[1, 2],
        hidden=[2, 6],
        shares=[16, 24],
    )
    assert len({tuple(arm.values()) for arm in arms}) == len(arms)
    points = experiment.runs_frame(None, [0, 1], arms, SETTINGS)
    value = experiment.chosen(points, "own", "LCN", 16)[1]
    again = run(task="own", n=16, rates=[0.3, 1.0])
    assert value == again["test"][tuple(again["chosen"])]
    assert experiment.chosen(points, "linear", "FCN", 24, "last").tolist() == [0.0, 0.0]
    assert experiment.chosen(points, "moving", "LCN", 16, units=2).index.tolist() == [0, 1]
    with pytest.raises(ValueError, match="must be one arm"):
        experiment.chosen(points, "own", "LCN", 17)
    gap = experiment.difference(points, 16, ("own", "LCN"), ("moving", "LCN"))
    assert gap[1] == value - experiment.chosen(points, "moving", "LCN", 16)[1]

    excess = experiment.excess_frame(points, 16)
    assert sorted(set(zip(excess.arm, excess.features, strict=True))) == [
        ("full", 2), ("full", 4), ("full", 6), ("local", 1), ("local", 2), ("local", 4),
    ]  # fmt: skip
    first = excess[(excess.arm == "local") & (excess.features == K)].set_index("seed").excess
    row = points[(points.task == "moving") & (points.arch == "LCN") & (points.n == 16)]
    row = row[(row.units == K) & (row.seed == 0)].iloc[0]
    assert first[0] == row.bayes - row.accuracy
    bars = experiment.bars_frame(points, 16)
    assert len(bars) == 3 * 3 * 2
    assert set(bars.control) == set(experiment.CONTROLS.values())

    curves = [
        [arch, k, d, [8, 16]] for arch in runs.ARCHITECTURES for k, d in ((4, 3), (2, 3), (4, 2))
    ]
    grown = experiment.runs_frame(None, [0, 1, 2], experiment.curve_arms(curves), SETTINGS)
    table = experiment.thresholds(grown, sigma=0.3, gap=0.06)
    assert len(table) == 9
    pasted = [[arch, 4, 16, [8]] for arch in runs.ARCHITECTURES]
    images = experiment.runs_frame(
        digits, [0, 1], experiment.curve_arms(pasted, "images"), SETTINGS
    )
    assert images.bayes.isna().all()
    weights = experiment.weights_of(points)
    assert sorted(set(weights.n)) == [8, 16, 24]
    figure = plots.curve_panels(
        grown[(grown.k == 4) & (grown.d == 3)], table[table.d == 3], bars, k=4, d=3, bayes=0.95,
        linear=0.9, band=[10.0, 20.0],
    )  # fmt: skip
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]
    assert names == list(runs.ARCHITECTURES)
    spikes = weights.assign(signals=weights.task)
    figure = plots.inside_panels(excess, spikes, table[table.k == 4], images, guides=[0.35, 0.6])
    assert [panel.get_title()[:3] for panel in figure.axes] == ["(a)", "(b)", "(c)", "(d)"]
