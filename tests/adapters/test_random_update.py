"""Random updates of a method's form: their norm, their span, and a full one's independence."""

from __future__ import annotations

import pytest
import torch
from adapter_methods import METHODS, drawn

from rclib.adapters.blocks import Bone
from rclib.adapters.low_rank import LoRA, PiSSA
from rclib.adapters.method import Full, Linear
from rclib.adapters.random_update import random_update


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.trained])
def test_norm_is_as_asked_and_the_seed_decides(name: str) -> None:
    method = METHODS[name]
    parts = method.start(drawn(12, 12), seed=3, inputs=drawn(40, 12, seed=1))
    for norm in (0.01, 5.0):
        update = random_update(method, parts, norm, seed=1)
        assert float(update.norm()) == pytest.approx(norm, rel=1e-9)
    assert torch.equal(update, random_update(method, parts, norm, seed=1))
    assert not torch.equal(update, random_update(method, parts, norm, seed=2))


def test_forms() -> None:
    weight = drawn(12, 8)
    small = random_update(LoRA(2), LoRA(2).start(weight, seed=0), 1e-6, seed=1)
    a = LoRA(2).start(weight, seed=0)["A"]
    rows = torch.linalg.qr(a.T)[0]
    assert torch.allclose(small @ rows @ rows.T, small, atol=1e-11)  # B moves first
    large = random_update(LoRA(2), LoRA(2).start(weight, seed=0), 1e6, seed=1)
    assert torch.linalg.matrix_rank(large) == 2
    found = random_update(PiSSA(2), PiSSA(2).start(weight), 1e-6, seed=1)
    u, _, vh = torch.linalg.svd(weight, full_matrices=True)
    assert float((u[:, 2:].T @ found @ vh[2:].T).abs().max()) < 1e-11  # left or right at the top
    blocks = random_update(Bone(4, form="sum"), Bone(4, form="sum").start(weight), 1.0, seed=1)
    assert torch.allclose(blocks[:, :4], blocks[:, 4:])
    whole = random_update(Full(), Full().start(weight), 1.0, seed=1)
    drawn_again = torch.randn(
        12, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    assert torch.allclose(whole, drawn_again / drawn_again.norm())


def test_what_is_refused() -> None:
    parts = Full().start(drawn(4, 4))
    with pytest.raises(ValueError, match="norm must be"):
        random_update(Full(), parts, 0.0, seed=0)
    with pytest.raises(ValueError, match="train something"):
        random_update(Linear(), Linear().start(drawn(4, 4)), 1.0, seed=0)
