"""pruning.data_scores: scores against torch's per-sample gradients, counts, windows."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from rclib.experiments.pruning import data_scores as scores

SIZES = [7, 6, 5, 4]
Tensors = dict[str, torch.Tensor]


def networks(members: int) -> tuple[dict[str, torch.Tensor], list[nn.Sequential]]:
    """Stacked tensors, and the same networks as plain modules, in float64."""
    generator = torch.Generator().manual_seed(1)
    tensors: dict[str, torch.Tensor] = {}
    for layer, (a, b) in enumerate(pairwise(SIZES), 1):
        tensors[f"W{layer}"] = torch.randn(members, b, a, generator=generator, dtype=torch.float64)
        tensors[f"B{layer}"] = torch.randn(members, b, generator=generator, dtype=torch.float64)
    plain = []
    for s in range(members):
        net = nn.Sequential(
            nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)
        ).double()
        with torch.no_grad():
            for layer, place in enumerate((0, 2, 4), 1):
                net.get_parameter(f"{place}.weight").copy_(tensors[f"W{layer}"][s])
                net.get_parameter(f"{place}.bias").copy_(tensors[f"B{layer}"][s])
        plain.append(net)
    return tensors, plain


def test_gradient_norms_are_those_of_per_sample_gradients() -> None:
    """An independent route: torch.func.vmap of grad, every gradient formed."""
    tensors, plain = networks(3)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(11, 7, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (3, 11), generator=generator)
    hidden = scores.activations(tensors, x)
    found = scores.grand(tensors, hidden, y)
    assert found.shape == (3, 11)
    for s, net in enumerate(plain):

        def loss(
            p: dict[str, torch.Tensor], one: torch.Tensor, label: torch.Tensor
        ) -> torch.Tensor:
            return cross_entropy(functional_call(net, p, one), label)  # noqa: B023

        each = vmap(grad(loss), in_dims=(None, 0, 0))(dict(net.named_parameters()), x, y[s])
        norms = torch.stack([g.flatten(1).square().sum(1) for g in each.values()]).sum(0).sqrt()
        assert torch.allclose(found[s], norms.detach(), rtol=1e-10, atol=1e-12)
        assert torch.allclose(hidden[-1][s], net(x), rtol=1e-10)
        # The last layer alone gives EL2N times the norm of what enters it.
        last = each["4.weight"].flatten(1).square().sum(1) + each["4.bias"].square().sum(1)
        alone = scores.el2n(hidden[-1], y)[s] * (hidden[-2][s].square().sum(1) + 1).sqrt()
        assert torch.allclose(alone, last.sqrt(), rtol=1e-10)
    own = scores.activations(tensors, x.expand(3, -1, -1))
    assert all(torch.equal(a, b) for a, b in zip(own, hidden, strict=True))
    with pytest.raises(ValueError, match=r"tensors must be W1, B1, \.\.\. of every layer"):
        scores.activations({"W1": tensors["W1"]}, x)


def test_el2n_has_its_bounds_and_is_the_gradient_in_the_outputs() -> None:
    generator = torch.Generator().manual_seed(3)
    outputs = 5 * torch.randn(200, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(6, (200,), generator=generator)
    found = scores.el2n(outputs, y)
    assert float(found.min()) >= 0
    assert float(found.max()) <= math.sqrt(2)
    flat = scores.el2n(torch.full((5, 6), 0.3, dtype=torch.float64), y[:5])
    assert flat.numpy() == pytest.approx(math.sqrt(1 - 1 / 6), abs=1e-12)
    # Finite differences of the cross-entropy in the outputs.
    step, slopes = 1e-6, torch.zeros_like(outputs)
    for k in range(6):
        shift = torch.zeros(6, dtype=torch.float64)
        shift[k] = step
        up, down = (cross_entropy(outputs + sign * shift, y, reduction="none") for sign in (1, -1))
        slopes[:, k] = (up - down) / (2 * step)
    assert torch.allclose(found, slopes.norm(dim=1), atol=1e-7)


def test_forgetting_counts_what_a_plain_loop_counts() -> None:
    random = np.random.default_rng(0)
    forgetting = scores.Forgetting(2, 9)
    last, ever = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
    events, seen = np.zeros((2, 9)), np.zeros((2, 9))
    for _ in range(60):
        places = np.stack([random.permutation(9)[:4] for _ in range(2)])
        right = random.random((2, 4)) < 0.5
        right &= places != 8  # never right
        for s in range(2):
            for place, fits in zip(places[s], right[s], strict=True):
                events[s, place] += last[s, place] and not fits
                seen[s, place] += 1
                last[s, place] = fits
                ever[s, place] |= fits
        forgetting.see(torch.from_numpy(places), torch.from_numpy(right))
    assert ever[:, :8].all()
    expected = np.where(ever, events, seen)
    assert np.array_equal(forgetting.events.numpy(), expected)
    assert expected[0, 8] == seen[0, 8] > 0
    with pytest.raises(ValueError, match="members must be"):
        scores.Forgetting(0, 3)


def test_wrong_labels_are_all_wrong_and_as_many_as_asked_for() -> None:
    y = np.random.default_rng(1).integers(0, 10, 1000)
    given, wrong = scores.wrong_labels(y, 0.13, 10, 7)
    assert wrong.sum() == 130
    assert ((given != y) == wrong).all()
    assert given.min() >= 0
    assert given.max() <= 9
    shifts = np.bincount((given - y)[wrong] % 10, minlength=10)
    assert stats.chisquare(shifts[1:]).pvalue > 1e-3
    assert (scores.wrong_labels(y, 0.13, 10, 8)[1] != wrong).any()
    assert (scores.wrong_labels(y, 0.0, 10, 7)[0] == y).all()
    with pytest.raises(ValueError, match="share must lie in"):
        scores.wrong_labels(y, 1.1, 10, 7)


def test_windows_of_the_order() -> None:
    values = np.array([3.0, 1.0, 2.0, 0.0, 5.0, 4.0, 2.0, 7.0, 6.0, 9.0])
    assert scores.window(values, 0.3, 0.7).tolist() == [7, 8, 9]
    assert scores.window(values, 0.3, 0.0).tolist() == [1, 2, 3]  # of equal ones the first
    assert scores.window(values, 0.2, 0.4).tolist() == [0, 5]
    assert scores.window(values, 1.0, 0.0).tolist() == list(range(10))
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    balanced = scores.window(values, 0.5, 0.5, labels)
    assert len(balanced) == 5
    assert np.bincount(labels[balanced]).min() >= 1
    # Whatever the classes are: as many as without them, and each about its share.
    random = np.random.default_rng(0)
    for _ in range(20):
        y, share = random.integers(0, 7, 101), float(random.uniform(0.1, 0.9))
        kept = scores.window(random.random(101), share, 1 - share, y)
        assert len(kept) == round(101 * share) == len({*kept.tolist()})
        assert np.abs(np.bincount(y[kept], minlength=7) - share * np.bincount(y)).max() < 1
    for share, offset in ((0.0, 0.0), (1.2, 0.0), (0.5, 0.6), (0.5, -0.1)):
        with pytest.raises(ValueError, match="must be a window in"):
            scores.window(values, share, offset)


def test_auc_is_the_count_of_pairs_and_sklearns() -> None:
    random = np.random.default_rng(2)
    values, positive = random.integers(0, 8, 60).astype(float), random.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in values[positive] for b in values[~positive]]
    found = scores.auc(values, positive)
    assert found == pytest.approx(np.mean(pairs), abs=1e-12)
    assert found == pytest.approx(roc_auc_score(positive, values), abs=1e-12)
    with pytest.raises(ValueError, match="positive must hold both kinds"):
        scores.auc(values, np.zeros(60, bool))


def test_rank_correlations() -> None:
    random = np.random.default_rng(3)
    a, b = random.random(50), random.random(50)
    frame = np.argsort(np.argsort(a)), np.argsort(np.argsort(b))
    assert scores.rank_correlation(a, b) == pytest.approx(np.corrcoef(*frame)[0, 1])
    assert scores.rank_correlation(a, np.exp(a)) == pytest.approx(1.0)
    assert scores.rank_correlation(a, np.ones(50)) == 0.0
    shared = random.random(4000)
    nets = shared + random.normal(0, 1, (10, 4000))
    # Spearman-Brown: with reliability r of a half, five nets of variances 1/12 and 1.
    expected = (1 / 12) / (1 / 12 + 1 / 5)
    assert scores.split_half(nets) == pytest.approx(expected, abs=0.05)
    with pytest.raises(ValueError, match="scores must be of at least two"):
        scores.split_half(nets[:1])
