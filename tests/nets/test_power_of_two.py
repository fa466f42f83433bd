"""Codes of signed powers of two: values, gradients, start, shifts."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from rclib.nets.power_of_two import (
    Code,
    DenseShift,
    Float,
    PowerQuantiser,
    ShiftWithZero,
    exponent_counts,
)

CODES: list[Code] = [
    Float(), *(DenseShift(b) for b in (1, 2, 3, 4)), DenseShift(3, "exponential"),
    DenseShift(3, scale=4.0), *(ShiftWithZero(b) for b in (2, 3, 4)), ShiftWithZero(3, "root"),
    *(PowerQuantiser(b, zero) for b in (1, 2, 3) for zero in (False, True)),
]  # fmt: skip


def patterns(code: Code) -> dict[str, Tensor]:
    """Latents of every combination of signs, and zeros among the positive ones."""
    words = list(itertools.product((-0.5, 0.0), repeat=len(code.names)))
    return dict(zip(code.names, torch.tensor(words).T, strict=True))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_values_of_a_code(bits: int) -> None:
    code = DenseShift(bits)
    found = sorted(set(code.value(patterns(code)).tolist()))
    assert found == list(code.values)
    assert len(found) == 2**bits
    assert 0.0 not in found
    assert {abs(v) for v in found} == {2.0**s for s in range(2 ** (bits - 1))}
    if bits > 1:
        zero = ShiftWithZero(bits)
        found = sorted(set(zero.value(patterns(zero)).tolist()))
        assert found == list(zero.values)
        assert len(found) == 2**bits - 1
        assert 0.0 in found
        assert max(found) == max(code.values) / 2


def test_three_bits_with_zero_are_the_product_that_the_paper_writes() -> None:
    code = ShiftWithZero(3)
    latents = patterns(code)
    h = {name: (t >= 0).float() for name, t in latents.items()}
    # The last t is the outer one.
    by_hand = (2 * h["sign"] - 1) * h["value"] * 2 ** (h["t2"] * (h["t1"] + 1))
    assert torch.equal(code.value(latents), by_hand)


def test_a_latent_of_zero_counts_as_positive() -> None:
    code = DenseShift(3)
    zeros = dict.fromkeys(code.names, torch.zeros(1))
    assert code.value(zeros).item() == 8.0
    assert bool(code.positive(zeros))


class _Straight(torch.autograd.Function):
    """H with a derivative of one."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


def surrogate(code: Code, latents: dict[str, Tensor]) -> Tensor:
    """The weight as autograd is to see it, written by the definition."""
    step = _Straight.apply
    if isinstance(code, (Float, PowerQuantiser)):
        return latents["w"]
    # A sign has a derivative of one too, not of two.
    sign = latents["sign"] + ((2 * (latents["sign"] >= 0).double() - 1) - latents["sign"]).detach()
    s = torch.zeros_like(sign)
    for name in code.names:
        if name.startswith("t"):
            s = (s + 1) * step(latents[name])
    assert isinstance(code, (DenseShift, ShiftWithZero))
    size = torch.sqrt(s + 1) if code.surrogate == "root" else torch.exp(math.log(2) * s)
    if isinstance(code, DenseShift):
        return sign * size * code.scale
    return sign * size * step(latents["value"])


@pytest.mark.parametrize("code", CODES, ids=str)
def test_gradients_of_latents_against_autograd(code: Code) -> None:
    generator = torch.Generator().manual_seed(3)
    latents = {n: t.double() for n, t in code.start((40, 30), 1.0, generator).items()}
    gradient = torch.randn(40, 30, generator=generator).double()
    found = code.pull(latents, gradient)
    leaves = {n: t.clone().requires_grad_() for n, t in latents.items()}
    loss = (gradient * surrogate(code, leaves)).sum()
    if isinstance(code, ShiftWithZero):
        loss = loss + code.penalty * torch.clamp_min(-leaves["value"], 0).sum()
    expected = torch.autograd.grad(loss, list(leaves.values()))
    for name, want in zip(leaves, expected, strict=True):
        assert torch.allclose(found[name], want, atol=1e-12), name
    assert list(found) == list(code.names)


def test_gradients_by_hand() -> None:
    """s_1 = 1, s_2 = 0, s = s_3 = 1 and σ = -1."""
    code = DenseShift(3)
    latents = {
        n: torch.tensor([v]) for n, v in zip(code.names, (-0.1, 0.2, -0.3, 0.4), strict=True)
    }
    assert code.value(latents).item() == -2.0
    found = {n: g.item() for n, g in code.pull(latents, torch.tensor([10.0])).items()}
    root = 2**0.5
    assert found["sign"] == pytest.approx(10 * root)
    assert found["t3"] == pytest.approx(-10 * 1 / (2 * root))  # (s_2 + 1) σ / (2 √(s + 1))
    assert found["t2"] == pytest.approx(-10 * 2 / (2 * root))  # (s_1 + 1) H(t_3) of it
    assert found["t1"] == 0.0  # H(t_2) = 0
    latents["t3"] = torch.tensor([-0.4])
    found = {n: g.item() for n, g in code.pull(latents, torch.tensor([10.0])).items()}
    assert found["t1"] == found["t2"] == 0.0


def test_moments_of_the_start() -> None:
    """E w² = 11.5 and E w⁴ / (E w²)² = 548.5 / 132.25 at three bits, by counting and by drawing."""
    counts = exponent_counts(3)
    total = sum(counts.values())
    assert [n / total for n in counts.values()] == [1 / 2, 1 / 4, 1 / 8, 1 / 8]
    second, fourth = (sum(n * 2.0 ** (p * s) for s, n in counts.items()) / total for p in (2, 4))
    assert (second, fourth) == (11.5, 548.5)
    code = DenseShift(3)
    w = code.value(code.start((600, 600), 1e-3, torch.Generator().manual_seed(0))).double()
    assert float(w.mean()) == pytest.approx(0, abs=4 * 11.5**0.5 / 600)
    assert float(w.square().mean()) == pytest.approx(11.5, rel=0.02)
    kurtosis = float(w.pow(4).mean() / w.square().mean().square())
    assert kurtosis == pytest.approx(4.147, abs=0.05)
    assert sum(exponent_counts(4).values()) == 2**7
    assert exponent_counts(1) == {0: 1}


def test_the_spectrum_of_the_start_is_that_of_gaussian_entries() -> None:
    """Universality: heavy discrete entries of variance 11.5, Marchenko-Pastur all the same."""
    m, n = 300, 600
    code = DenseShift(3)
    w = code.value(code.start((m, n), 1e-3, torch.Generator().manual_seed(1))).double()
    values = torch.linalg.svdvals(w)
    root = 11.5**0.5
    assert float(values[0]) == pytest.approx(root * (m**0.5 + n**0.5), rel=0.03)
    assert float(values[-1]) == pytest.approx(root * (n**0.5 - m**0.5), rel=0.06)
    assert float(values.square().mean()) == pytest.approx(11.5 * n, rel=0.02)


def test_a_product_adds_to_the_exponent() -> None:
    generator = torch.Generator().manual_seed(2)
    code = DenseShift(4)
    w = code.value(code.start((64,), 1.0, generator))
    x = torch.randn(64, generator=generator)
    mantissa, exponent = torch.frexp(x)
    shift = torch.log2(w.abs()).round().int()
    assert torch.equal(w * x, torch.ldexp(torch.sign(w) * mantissa, exponent + shift))


def test_one_latent_is_rounded_in_the_logarithm() -> None:
    w = torch.randn(2000, generator=torch.Generator().manual_seed(4)).double() * 0.5
    code = PowerQuantiser(3)
    k = torch.log2(w.abs()).round().clamp(-3, 0)
    assert torch.equal(code.value({"w": w}), torch.sign(w) * torch.exp2(k))
    zero = PowerQuantiser(3, zero=True)
    small = torch.log2(w.abs()).round() <= -3
    found = zero.value({"w": w})
    assert torch.equal(found == 0, small)
    assert torch.equal(found[~small], code.value({"w": w})[~small])
    assert len(zero.values) == 7
    assert len(code.values) == 8
    # Odd, and equivariant under powers of two inside the range.
    assert torch.equal(code.value({"w": -w}), -code.value({"w": w}))
    inside = w[(w.abs() > 0.1) & (w.abs() < 0.7)]
    assert torch.equal(code.value({"w": 2 * inside}), 2 * code.value({"w": inside}))


@pytest.mark.parametrize("wrong", [
    lambda: DenseShift(0), lambda: DenseShift(5), lambda: ShiftWithZero(1),
    lambda: PowerQuantiser(9), lambda: DenseShift(3, "none"), lambda: DenseShift(3, scale=0.0),
    lambda: ShiftWithZero(3, "none"), lambda: ShiftWithZero(3, penalty=-1.0),
    lambda: exponent_counts(7),
    lambda: Float().start((2,), 0.0, torch.Generator()),
])  # fmt: skip
def test_refusals(wrong: object) -> None:
    with pytest.raises(ValueError, match="must"):
        wrong()  # type: ignore[operator]
    assert Float().values == ()
