"""resizing.new_neurons: copies are RC sampling, no bandwidth is copying, each law keeps its own."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.nets.mlp import MLP
from rclib.resizing import laws
from rclib.resizing.new_neurons import (
    Neurons,
    _assembled,
    bandwidths,
    draw_network,
    fitted_mixtures,
    neurons_of,
)
from rclib.rowcolumn.transfer import IndexMaps, gather
from rclib.training.classifier import make_step

D, CLASSES = 8, 3


def inputs() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(300, D, generator=g) * torch.linspace(2.0, 0.1, D)
    return x, (x[:, 0].abs() > 1).long() + (x[:, 1] > 1).long()


@functools.cache
def trained(parametrization: str = "MF", width: int = 48, depth: int = 3) -> tuple[MLP, MLP]:
    start, model = (
        MLP(D, width, CLASSES, depth=depth, parametrization=parametrization, seed=1)
        for _ in range(2)
    )
    x, y = inputs()
    step = make_step(model, lr=1.0 if parametrization != "SP" else 0.05)
    for _ in range(200):
        step(x, y)
    return model, start


def w2(model: MLP) -> Tensor:
    return model.get_parameter("W2").detach().double()


def neurons(parametrization: str = "MF", depth: int = 3, products: int = 3) -> Neurons:
    model, start = trained(parametrization, depth=depth)
    return neurons_of(model, start, inputs()[0], directions=5, products=products)


@pytest.mark.parametrize("parametrization", ["MF", "muP", "SP"])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_copied_neurons_with_copied_entries_are_rc_sampling(
    parametrization: str, depth: int
) -> None:
    found = neurons(parametrization, depth)
    model, g = found.model, torch.Generator().manual_seed(5)
    got = draw_network(found, 70, law="copies", entries="copied", seed=5)
    maps: IndexMaps = {}
    for layer in range(1, depth):
        index = laws.copies(found.layers[layer - 1], 70, generator=g)
        maps |= {(f"W{layer}", 0): index, (f"B{layer}", 0): index, (f"W{layer + 1}", 1): index}
    wanted = gather(model.state_dict(), model.axes, maps, fan_in_exponents=model.fan_in_exponents())
    for name, tensor in got.state_dict().items():
        assert torch.allclose(tensor, wanted[name], rtol=1e-5, atol=1e-5), name


def test_no_bandwidth_is_copying() -> None:
    found = neurons()
    for bandwidth in (0.0, [0.0, 0.0]):
        smooth = draw_network(found, 30, law="smoothed", bandwidth=bandwidth, seed=2)
        for name in ("B1", "W3"):
            # The streams of random numbers are the same up to the entries' own parts.
            copy = draw_network(found, 30, law="copies", seed=2)
            assert torch.equal(smooth.state_dict()[name], copy.state_dict()[name]), name
        assert torch.equal(w2(smooth), w2(copy))


def test_variables_and_own_parts_are_the_matrix() -> None:
    found = neurons()
    first, second = found.layers
    u, v = second[:, :3], first[:, found.joint[0] - 3 : found.joint[0]]
    assert torch.allclose(u @ v.t() + found.own[0], w2(found.model))
    assert u.square().sum(0).tolist() == pytest.approx(v.square().sum(0).tolist())
    assert first.shape == (48, 5 + 1 + 3 + D)
    assert second.shape == (48, 3 + 1 + CLASSES)
    # What training did is in the variables: the own parts are the start, mostly.
    change = w2(found.model) - w2(trained()[1])
    left = found.own[0] - w2(trained()[1])
    assert float(left.square().sum() / change.square().sum()) < 0.02


@pytest.mark.parametrize("parametrization", ["MF", "muP", "SP"])
def test_new_entries_have_the_scale_of_a_start_at_the_new_width(parametrization: str) -> None:
    model, start = trained(parametrization)
    found = neurons_of(model, start, inputs()[0], directions=5, products=8)
    found = type(found)(**{**vars(found), "layers": [0 * one for one in found.layers]})
    new = draw_network(found, 400, law="copies", seed=1)
    fresh = MLP(D, 400, CLASSES, parametrization=parametrization, seed=9)
    assert float(w2(new).std() / w2(fresh).std()) == pytest.approx(1, abs=0.1)


@torch.no_grad()
def test_all_laws_draw_networks_and_independent_columns_lose_the_function() -> None:
    x, y = inputs()
    model, start = trained()
    own, begin = (float(cross_entropy(m(x), y)) for m in (model, start))
    losses = {}
    for law in ("copies", "smoothed", "normal", "mixture", "independent"):
        drawn = draw_network(neurons(), 400, law=law, seed=4)
        assert drawn.sizes == (D, 400, 400, CLASSES)
        losses[law] = (float(cross_entropy(drawn(x), y)) - own) / (begin - own)
        again = draw_network(neurons(), 400, law=law, seed=4)
        assert torch.equal(w2(drawn), w2(again))
    assert losses["copies"] < 0.2
    assert losses["independent"] > 0.8
    # This law is far from normal. One draw does not tell the three from independent columns.
    for law in ("smoothed", "normal", "mixture"):
        assert losses["copies"] + 0.2 < losses[law] < 1.1


def test_axes_are_the_principal_ones_however_they_are_found() -> None:
    x, _ = inputs()
    model, start = trained()
    axes = neurons_of(model, start, x, directions=D, products=1).axes
    assert torch.allclose(axes.t() @ axes, torch.eye(D, dtype=torch.float64), atol=1e-10)
    strengths = (x.double() @ axes).square().mean(0)
    assert strengths.tolist() == sorted(strengths.tolist(), reverse=True)
    one = neurons_of(model, start, x, directions=1, products=1).axes  # by Lanczos
    assert abs(float(one[:, 0] @ axes[:, 0])) == pytest.approx(1)


def test_bandwidths_are_those_of_the_joint_columns() -> None:
    found = neurons()
    assert bandwidths(found) == [
        laws.held_out_bandwidth(layer[:, :joint])
        for layer, joint in zip(found.layers, found.joint, strict=True)
    ]
    assert all(h in laws.BANDWIDTHS for h in bandwidths(found))


def test_errors_name_the_argument() -> None:
    (model, start), x = trained(), inputs()[0]
    found = neurons()
    with pytest.raises(TypeError, match="start must be an MLP"):
        neurons_of(model, None, x, directions=2, products=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="start must have sizes"):
        neurons_of(model, MLP(D, 9, CLASSES), x, directions=2, products=2)
    bare = MLP(D, 9, CLASSES, bias="none")
    with pytest.raises(ValueError, match="biases"):
        neurons_of(bare, bare, x, directions=2, products=2)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 8\)"):
        neurons_of(model, start, x[:, :3], directions=2, products=2)
    with pytest.raises(ValueError, match="directions must be at most the 8"):
        neurons_of(model, start, x, directions=9, products=2)
    with pytest.raises(ValueError, match="products must be at most the width 48"):
        neurons_of(model, start, x, directions=2, products=49)
    with pytest.raises(ValueError, match="law must be one of"):
        draw_network(found, 9, law="magic")
    with pytest.raises(ValueError, match="copied with the law 'copies'"):
        draw_network(found, 9, law="normal", entries="copied")
    with pytest.raises(ValueError, match="bandwidth is of the law 'smoothed'"):
        draw_network(found, 9, law="normal", bandwidth=1.0)
    with pytest.raises(ValueError, match="one for each of 2 layers"):
        draw_network(found, 9, law="smoothed", bandwidth=[1.0])
    fitted = fitted_mixtures(found)
    with pytest.raises(ValueError, match="mixtures are of the law 'mixture'"):
        draw_network(found, 9, law="normal", mixtures=fitted)
    with pytest.raises(ValueError, match="one for each of 2 layers"):
        draw_network(found, 9, law="mixture", mixtures=fitted[:1])
    with pytest.raises(ValueError, match="bandwidth must not be negative"):
        draw_network(found, 9, law="smoothed", bandwidth=-math.pi)


@pytest.mark.parametrize("width", [48, 192])
def test_own_parts_are_noise_under_mf_and_belong_to_the_neurons_under_mup(width: int) -> None:
    """Every neuron kept, new own parts alone: under MF they average out, like 1/N; under μP their
    sum over a row is of order one at every width, and what a neuron sends is fitted to it."""
    x, y = inputs()
    lost = {}
    for parametrization in ("MF", "muP"):
        model, start = trained(parametrization, width=width)
        found = neurons_of(model, start, x, directions=5, products=8)
        e = found.own[0]
        places = torch.randint(e.numel(), e.shape, generator=torch.Generator().manual_seed(1))
        new = _assembled(found, width, found.layers, [e.flatten()[places]], copied=False)
        same = _assembled(found, width, found.layers, [e], copied=True)
        with torch.no_grad():
            begin, own, kept, after = (
                float(cross_entropy(m(x), y)) for m in (start, model, same, new)
            )
        assert kept == pytest.approx(own, abs=1e-5)
        lost[parametrization] = (after - own) / (begin - own)
    assert lost["MF"] < 0.01
    assert lost["muP"] > 0.04
