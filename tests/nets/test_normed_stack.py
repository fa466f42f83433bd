"""nets.normed_stack against torch's modules and autograd, and the covariance of a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rclib.nets.normed_stack import NormedStack


def module(net: NormedStack, s: int) -> nn.Sequential:
    """One member as torch's modules, in training mode."""
    parts: list[nn.Module] = []
    for place, w in enumerate(net.weights):
        last = place == len(net.weights) - 1
        linear = nn.Linear(w.shape[2], w.shape[1], bias=last, dtype=w.dtype)
        linear.weight.data.copy_(w[s])
        parts.append(linear)
        if last:
            linear.bias.data.copy_(net.bias[s])
        else:
            norm = nn.BatchNorm1d(w.shape[1], dtype=w.dtype)
            norm.weight.data.copy_(net.gains[place][s])
            norm.bias.data.copy_(net.shifts[place][s])
            parts += [norm, nn.ReLU()]
    return nn.Sequential(*parts)


def small(
    norm: bool = True, seeds: tuple[int, ...] = (0, 1, 2)
) -> tuple[NormedStack, Tensor, Tensor]:
    net = NormedStack.start([6, 8, 7, 4], seeds, norm=norm)
    for name in ("weights", "gains", "shifts"):
        setattr(net, name, [t.double() for t in getattr(net, name)])
    generator = torch.Generator().manual_seed(5)
    for tensors in (net.gains, net.shifts):
        for t in tensors:
            t += 0.3 * torch.randn(t.shape, generator=generator, dtype=t.dtype)
    net.bias = net.bias.double()
    net.running = [(m.double(), v.double()) for m, v in net.running]
    x = torch.randn(len(seeds), 24, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (len(seeds), 24), generator=generator)
    return net, x, y


def repeated(net: NormedStack, members: int) -> NormedStack:
    """A stack of one network, many times."""
    lists = [
        [t.expand(members, *t.shape[1:]) for t in each]
        for each in (net.weights, net.gains, net.shifts)
    ]
    return NormedStack(*lists, net.bias.expand(members, -1), net.running)


def test_gradients_and_statistics_are_the_mean_of_separate_passes_of_torch() -> None:
    """The authors' way: chunks one after the other, gradients added and divided by their number."""
    net, x, y = small()
    ghost, k = 8, 3
    ours, found = net.gradients(x, y, ghost=ghost)
    net.follow(found, 0.1)
    for s in range(3):
        theirs = module(net, s)
        for part, labels in zip(x[s].split(ghost), y[s].split(ghost), strict=True):
            nn.functional.cross_entropy(theirs(part), labels).backward()
        norms: list[Any] = [m for m in theirs if isinstance(m, nn.BatchNorm1d)]
        linear: list[Any] = [m for m in theirs if isinstance(m, nn.Linear)]
        expected = [m.weight.grad for m in linear] + [m.weight.grad for m in norms]
        expected += [m.bias.grad for m in norms] + [linear[-1].bias.grad]
        for name, mine, other in zip(net.tensors, ours, expected, strict=True):
            torch.testing.assert_close(mine[s], other / k, msg=name)
        for (mean, variance), norm in zip(net.running, norms, strict=True):
            torch.testing.assert_close(mean[s], norm.running_mean)
            torch.testing.assert_close(variance[s], norm.running_var)
        torch.testing.assert_close(net.outputs(x)[s], theirs.eval()(x[s]))


def test_statistics_of_all_data_are_those_of_one_batch_of_it() -> None:
    net, x, _ = small()
    outputs = net.outputs(x, net.recomputed(x))
    for s in range(3):
        torch.testing.assert_close(outputs[s], module(net, s)(x[s]))
    assert (outputs - net.outputs(x)).abs().max() > 0.1


def test_without_a_norm_ghosts_change_nothing() -> None:
    net, x, y = small(norm=False)
    whole, nothing = net.gradients(x, y, ghost=24)
    parts, _ = net.gradients(x, y, ghost=8)
    assert nothing == [] == net.recomputed(x)
    for name, a, b in zip(net.tensors, whole, parts, strict=True):
        assert torch.equal(a, b), name
    leaves = [t.clone().requires_grad_() for t in net.tensors.values()]
    free = NormedStack(leaves[:3], leaves[3:5], leaves[5:7], leaves[7], [])
    for s in range(3):
        h = x[s]
        for w, gain, shift in zip(free.weights, free.gains, free.shifts, strict=False):
            h = torch.relu(h @ w[s].T * gain[s] + shift[s])
        nn.functional.cross_entropy(h @ free.weights[-1][s].T + free.bias[s], y[s]).backward()
    for leaf, mine in zip(leaves, whole, strict=True):
        torch.testing.assert_close(mine, leaf.grad)
    with_norm, x, y = small()
    a, _ = with_norm.gradients(x, y, ghost=24)
    b, _ = with_norm.gradients(x, y, ghost=8)
    assert (a[0] - b[0]).abs().max() > 1e-4


def test_a_member_has_the_bits_it_has_alone() -> None:
    both = NormedStack.start([6, 8, 4], [0, 4])
    alone = NormedStack.start([6, 8, 4], [4])
    x, y = torch.randn(2, 12, 6), torch.randint(4, (2, 12))
    for a, b in zip(both.gradients(x, y, ghost=4)[0], alone.gradients(x[1:], y[1:], ghost=4)[0],
                    strict=True):  # fmt: skip
        assert torch.equal(a[1:], b)
    with pytest.raises(ValueError, match="sizes must have a hidden layer and seeds one seed"):
        NormedStack.start([6, 4], [0])


@pytest.mark.parametrize(("norm", "ghosts"), [(False, False), (True, True)])
def test_the_covariance_of_a_step_stays_under_the_root_rule(norm: bool, ghosts: bool) -> None:
    """trace Cov(η g_B) is the same for (η, B) and (η √k, k B), drawn with replacement; with a norm
    it holds for ghosts, which are independent, and not under the linear rule."""
    torch.manual_seed(0)
    net, x, y = small(norm=norm, seeds=(7,))
    draws, batch, k = 6000, 12, 4

    def trace(rows: int, ghost: int) -> float:
        places = torch.randint(24, (draws, rows))
        found = repeated(net, draws)
        gradients, _ = found.gradients(x[0][places], y[0][places], ghost=ghost)
        return float(sum(g.flatten(1).var(0).sum() for g in gradients))

    small_batch = trace(batch, batch)
    large_batch = k * trace(k * batch, batch if ghosts else k * batch)
    assert large_batch == pytest.approx(small_batch, rel=0.05)
    linear = k**2 * trace(k * batch, batch if ghosts else k * batch)  # the linear rule
    assert linear > 3 * small_batch


def test_without_replacement_the_covariance_is_smaller_by_the_share_left() -> None:
    net, x, y = small(norm=False, seeds=(7,))
    singles, _ = repeated(net, 24).gradients(x[0].unsqueeze(1), y[0].unsqueeze(1), ghost=2)
    of_one = torch.cat([g.flatten(1) for g in singles], 1)
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([torch.randperm(24, generator=generator) for _ in range(4000)])
    means = of_one[orders[:, :12]].mean(1)
    total = float(of_one.var(0).sum())
    assert float(means.var(0).sum()) == pytest.approx(total / 12 * (1 - 12 / 24), rel=0.05)
