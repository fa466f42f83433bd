"""nets.stack: against its members one by one, and stacks that must be refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call

from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack


def networks(members: int = 3, **options: Any) -> list[MLP]:
    return [MLP(6, 5, 4, seed=s, **options) for s in range(members)]


def test_members_start_as_the_modules_bit_for_bit() -> None:
    models = networks()
    made = stack(models)
    assert len(made) == 3
    for s, model in enumerate(models):
        assert list(made.member(s)) == list(model.state_dict())
        for name, value in model.state_dict().items():
            assert torch.equal(made.member(s)[name], value)
    # Copies: neither changes the other, and the modules may go their own way.
    before = models[0].get_parameter("W1").clone()
    made.tensors["W1"].zero_()
    assert torch.equal(models[0].get_parameter("W1"), before)


def test_outputs_are_those_of_the_modules_for_own_and_shared_inputs() -> None:
    models = [m.double() for m in networks(depth=4, activation="relu")]
    made = stack(models)
    x = torch.randn(3, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for s, model in enumerate(models):
        torch.testing.assert_close(made(x)[s], model(x[s]), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(made(x[1])[s], model(x[1]), rtol=1e-12, atol=1e-14)
    # A shared input gives the bits of one that every member has for itself.
    assert torch.equal(made(x[1]), made(x[1].repeat(3, 1, 1)))


def test_a_changed_module_does_not_change_its_stack() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(2))
            self.factor = 2.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * x * self.w

    model = Scaled()
    made = stack([model, Scaled()])
    model.factor = 5.0
    assert torch.equal(made(torch.ones(3, 2)), torch.full((2, 3, 2), 2.0))


def test_images_and_tokens_say_whether_they_are_shared() -> None:
    models = [nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()) for _ in range(2)]
    made = stack(models)
    x = torch.randn(2, 5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    for s, model in enumerate(models):
        torch.testing.assert_close(made(x, own=True)[s], model(x[s]))
        torch.testing.assert_close(made(x[0], own=False)[s], model(x[0]))
    with pytest.raises(ValueError, match="own must say whether x of 4 axes has one of members"):
        made(x[0])
    with pytest.raises(ValueError, match=r"x must have a first axis of 2 members, got .*\(5, 1"):
        made(x[0], own=True)
    with pytest.raises(ValueError, match="own must be True or False, got 1"):
        made(x, own=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="x must be a torch tensor, got list"):
        made([1.0])  # type: ignore[arg-type]


def test_tied_parameters_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            g = torch.Generator().manual_seed(seed)
            self.a = nn.Parameter(torch.randn(4, 4, generator=g))
            self.b = self.a

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x @ self.a) @ self.b

    models = [Tied(s) for s in range(2)]
    made = stack(models)
    assert list(made.tensors) == ["a"]
    x = torch.ones(3, 4)
    for s, model in enumerate(models):
        torch.testing.assert_close(made(x)[s], model(x))


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("sizes", [(20, 50, 32), (7, 13, 11), (784, 100, 8)])
def test_a_members_bits_depend_neither_on_the_number_nor_on_its_place(
    sizes: tuple[int, int, int], own: bool
) -> None:
    d, h, n = sizes
    models = [MLP(d, h, 10, seed=s) for s in range(16)]
    x = torch.randn(16, n, d, generator=torch.Generator().manual_seed(0))
    whole = stack(models)(x if own else x[0])
    for members in (1, 2, 5):
        part = stack(models[:members])(x[:members] if own else x[0])
        assert torch.equal(part, whole[:members])
    backwards = stack(models[::-1])(x.flip(0) if own else x[0])
    assert torch.equal(backwards.flip(0), whole)


# --- what is refused ---------------------------------------------------------------------------


def test_buffers_are_refused_by_name() -> None:
    models = [nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2)]
    with pytest.raises(
        ValueError,
        match=r"models\[0\] has buffers.*: 1\.running_mean, 1\.running_var, "
        r"1\.num_batches_tracked \(BatchNorm: track_running_stats=False\)",
    ):
        stack(models)
    # As the message says: the statistics of the batch alone.
    models = [
        nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))
        for _ in range(2)
    ]
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stack(models)(x)[1], models[1](x[1]))


def test_random_modules_are_refused_while_they_draw() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.25))
    with pytest.raises(ValueError, match=r"random numbers in 1 \(Dropout, p = 0\.25\)"):
        stack([model])
    assert stack([model.eval()])(torch.ones(2, 3)).shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "at least one module, got none"),
        ([nn.ReLU()], r"models\[0\], a ReLU, has no parameters"),
        (
            [MLP(6, 5, 4), MLP(6, 7, 4)],
            r"models\[1\] and models\[0\] differ in sizes: \(6, 7, 7, 4\) and \(6, 5",
        ),
        ([MLP(6, 5, 4), MLP(6, 5, 4).double()], "differ in W1: .*float64.*float32"),
        ([MLP(6, 5, 4), MLP(6, 5, 4, bias="none")], "differ in bias: 'none' and 'random'"),
        (
            [MLP(6, 5, 4), MLP(6, 5, 4), MLP(6, 5, 4, activation="relu")],
            r"models\[2\] and models\[0\] differ in activation: 'relu' and 'tanh'",
        ),
        ([nn.Linear(2, 3, bias=False), nn.Linear(2, 3)], "differ in bias: '.3,.* and 'absent'"),
        (
            [nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.ReLU())],
            "only one has a part '1'",
        ),
        (
            [nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Sequential(nn.Linear(2, 2), nn.ReLU())],
            r"differ in 1\.type: 'ReLU' and 'Tanh'",
        ),
    ],
)
def test_modules_that_are_not_of_one_shape_are_refused(
    models: list[nn.Module], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stack(models)


def test_parametrisations_of_one_shape_are_told_apart() -> None:
    """Mean field and standard multipliers give the same shapes and other functions."""
    with pytest.raises(ValueError, match=r"models\[1\] and models\[0\] differ in parametrization"):
        stack([MLP(6, 5, 4, parametrization="MF"), MLP(6, 5, 4, parametrization="SP")])


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"models\[1\] must be a torch module, got dict"):
        stack([MLP(6, 5, 4), {}])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "at least one tensor"),
        ({"w": torch.ones(2), "v": torch.ones(3)}, r"'v' must have a first axis .* \(3,\)"),
        ({"w": torch.tensor(1.0)}, r"'w' must have a first axis .* \(\)"),
        ({"w": torch.ones(0, 2)}, r"'w' must have a first axis .* \(0, 2\)"),
        ({"w": torch.ones(2, dtype=torch.int64)}, "'w' must be dense and floating, got torch.int"),
        ({"w": torch.ones(2), "v": torch.ones(2).double()}, "'v' is torch.float64 on cpu, the fir"),
    ],
)
def test_tensors_that_make_no_stack_are_refused(
    tensors: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Stack(tensors, lambda values, x: x)
    with pytest.raises(TypeError, match="'w' is a list, not a tensor"):
        Stack({"w": [1.0]}, lambda values, x: x)  # type: ignore[dict-item]


def test_a_stack_of_a_plain_function() -> None:
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    made = Stack({"w": weights}, lambda values, x: x @ values["w"])
    assert made(torch.eye(2)).tolist() == weights.tolist()
    with pytest.raises(IndexError):
        made.member(2)


def test_a_stack_can_be_copied_and_its_function_is_that_of_the_module() -> None:
    model = MLP(6, 5, 4)
    made = copy.deepcopy(stack([model]))
    x = torch.ones(2, 6)
    torch.testing.assert_close(made.one(dict(model.named_parameters()), x), model(x))
    torch.testing.assert_close(functional_call(model, made.member(0), x), model(x))
