"""nets.experts against a loop over tokens and experts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rclib.nets.experts import Experts, switch_loss, with_experts
from rclib.nets.gpt import build_gpt


def test_the_output_is_that_of_the_chosen_experts() -> None:
    experts = Experts(6, E=5, hidden=4, K=2, seed=3)
    experts.double()
    for p in experts.parameters():
        p.requires_grad_(False)
    experts.shifts.copy_(torch.tensor([0.2, -0.3, 0.0, 0.5, -0.1]))
    h = torch.randn(3, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = experts(h)
    for out, token in zip(found.reshape(-1, 6), h.reshape(-1, 6), strict=True):
        affinity = torch.sigmoid(experts.Wr @ token)
        expected = torch.zeros(6, dtype=torch.float64)
        for k in sorted(range(5), key=lambda k: -float(affinity[k] + experts.shifts[k]))[:2]:
            hidden = functional.gelu(experts.Wup[k] @ token)
            expected += affinity[k] * (experts.Wdown[k] @ hidden)
        torch.testing.assert_close(out, expected)
    assert float(experts.loads().sum()) == 2 * 21


def test_shifts_choose_and_do_nothing_else() -> None:
    """A constant changes nothing; shifts and experts that were not chosen get no gradient."""
    experts = Experts(6, E=4, hidden=3, K=1, seed=0)
    h = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    plain = experts(h)
    experts.shifts += 0.5
    torch.testing.assert_close(experts(h), plain)
    experts.shifts[2] += 10.0
    experts(h).square().sum().backward()
    assert experts.shifts.grad is None
    assert experts.loads().tolist() == [0, 0, 10, 0]
    for p in (experts.Wup, experts.Wdown, experts.Wr):
        assert p.grad is not None
        assert p.grad[[0, 1, 3]].abs().sum() == 0
        assert p.grad[2].abs().sum() > 0


def test_switch_loss_is_one_at_balance_and_pulls_towards_it() -> None:
    experts = Experts(4, E=4, hidden=2, K=2, seed=0)
    experts.affinities = torch.full((8, 4), 0.5)
    experts.chosen = torch.tensor([[True, True, False, False], [False, False, True, True]] * 4)
    assert float(switch_loss(experts)) == pytest.approx(1.0)
    affinities = torch.tensor([[0.9, 0.5, 0.1, 0.1]] * 3, requires_grad=True)
    experts.affinities = affinities
    experts.chosen = torch.tensor([[True, True, False, False]] * 3)
    loss = switch_loss(experts)
    assert loss.item() == pytest.approx(4 * (0.5 * 0.9 + 0.5 * 0.5) / 1.6)
    loss.backward()
    assert affinities.grad is not None
    assert (affinities.grad[:, :2] > 0).all()
    assert (affinities.grad[:, 2:] < 0).all()


def test_a_gpt_with_experts_is_causal_and_keeps_its_attention() -> None:
    options = {"width": 16, "blocks": 2, "context": 6, "head_size": 8, "parametrization": "SP"}
    model, twin = build_gpt(options), build_gpt(options)
    placed = with_experts(model, E=4, hidden=8, K=2, seed=5)
    torch.testing.assert_close(
        model.get_parameter("blocks.1.Wq"), twin.get_parameter("blocks.1.Wq")
    )
    assert not torch.equal(placed[0].Wr, placed[1].Wr)
    tokens = torch.arange(12).view(2, 6)
    before = model(tokens)
    changed = tokens.clone()
    changed[:, 4:] += 50
    torch.testing.assert_close(model(changed)[:, :4], before[:, :4])
    assert not torch.allclose(model(changed)[:, 4:], before[:, 4:])
    names = {name for name, _ in model.named_parameters()}
    assert "blocks.0.experts.Wr" in names
    assert "blocks.0.Wup" not in names
    # Without what the experts add, it is the GPT without its MLP branch.
    for place, experts in enumerate(placed):
        torch.nn.init.zeros_(experts.Wdown)
        torch.nn.init.zeros_(twin.get_parameter(f"blocks.{place}.Wdown"))
    torch.testing.assert_close(model(tokens), twin(tokens))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"E": 0}, "E must be a positive integer, got 0"),
        ({"hidden": True}, "hidden must be a positive integer, got True"),
        ({"K": 5}, "K must be at most E = 4, got 5"),
    ],
)
def test_sizes_that_do_not_fit(changed: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Experts(4, **{"E": 4, "hidden": 2, "K": 1, **changed})
