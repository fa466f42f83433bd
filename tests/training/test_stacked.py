"""training.stacked: against loops of torch.optim over the members, and against other stacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rclib.data.images import load
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.training import classifier
from rclib.training.stacked import epoch_batches, epoch_orders, train_stack
from rclib.training.stacked_optimizers import BLOCK

S = 3
cross_entropy = nn.functional.cross_entropy
KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def networks(members: int = S, d: int = 6, width: int = 5, **options: Any) -> list[MLP]:
    options = {"parametrization": "SP", **options}
    return [MLP(d, width, 4, seed=s, **options).double() for s in range(members)]


def points(n: int = 40, d: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=g).to(dtype), torch.randint(0, 4, (n,), generator=g)


def batches(members: int = S, size: int | None = 8, **options: Any) -> Any:
    return epoch_batches(*points(**options), batch_size=size, seeds=range(members))


def plain(
    models: list[MLP],
    batch: Any,
    steps: int,
    kind: str,
    *,
    lr: list[float],
    schedule: Callable[[int], float] = lambda t: 1.0,
    frozen: tuple[str, ...] = (),
    masks: dict[str, Tensor] | None = None,
    factors: dict[str, float] | None = None,
    updates: list[int] | None = None,
    **settings: list[Any],
) -> tuple[list[dict[str, Tensor]], Tensor]:
    """A loop of torch.optim over the members, one after the other; masks are put on again."""
    ends, losses = [], torch.full((steps, len(models)), math.nan, dtype=torch.float64)
    for s, model in enumerate(models):
        state = {n: p.detach().clone() for n, p in model.named_parameters()}
        leaves = {n: p.requires_grad_() for n, p in state.items() if n not in frozen}
        inside = {n: (m if m.ndim == state[n].ndim else m[s]) for n, m in (masks or {}).items()}
        with torch.no_grad():
            for n, m in inside.items():
                state[n].mul_(m)
        groups = [{"params": [p], "lr": 0.0} for p in leaves.values()]
        optimizer = KINDS[kind](groups, lr=1.0, **{k: v[s] for k, v in settings.items()})
        for t in range(steps):
            x, y = batch(t)
            loss = cross_entropy(
                functional_call(model, state, x[s] if x.ndim == 3 else x),
                y[s] if y.ndim == 2 else y,
            )
            losses[t, s] = loss.detach()
            if updates is not None and t >= updates[s]:
                break
            optimizer.zero_grad()
            loss.backward()
            for group, n in zip(optimizer.param_groups, leaves, strict=True):
                group["lr"] = lr[s] * schedule(t) * (factors or {}).get(n, 1.0)
                for p in group["params"]:  # an entry outside of a mask gets no gradient
                    if n in inside:
                        p.grad.mul_(inside[n])
            optimizer.step()
        ends.append({n: p.detach() for n, p in state.items()})
    return ends, losses


def check(end: Stack, found: Tensor, ends: list[dict[str, Tensor]], losses: Tensor) -> None:
    torch.testing.assert_close(found, losses, rtol=1e-10, atol=1e-12, equal_nan=True)
    for s, state in enumerate(ends):
        for name, value in end.member(s).items():
            torch.testing.assert_close(value, state[name], rtol=1e-9, atol=1e-11)


# --- plain torch -------------------------------------------------------------------------------

RATES = [0.3, 0.01, 0.05]
SETTINGS: list[tuple[str, dict[str, list[Any]]]] = [
    ("sgd", {}),
    ("sgd", {"weight_decay": [0.1, 0.0, 0.02]}),
    ("momentum", {"momentum": [0.9, 0.5, 0.0]}),
    ("momentum", {"momentum": [0.9, 0.5, 0.0], "weight_decay": [0.1, 0.0, 0.02]}),
    ("adam", {}),
    ("adam", {"betas": [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)], "weight_decay": [0.1, 0.0, 0.02]}),
    ("adamw", {"weight_decay": [0.0, 0.0, 0.0]}),
    ("adamw", {"betas": [(0.9, 0.95), (0.5, 0.9), (0.0, 0.99)], "weight_decay": [0.1, 0.0, 0.02]}),
]


def stacked_settings(settings: dict[str, list[Any]]) -> dict[str, Any]:
    """{name: one a member} as `train_stack` takes it: betas as two rows."""
    out: dict[str, Any] = dict(settings)
    if "betas" in out:
        out["betas"] = tuple(list(row) for row in zip(*out["betas"], strict=True))
    return out


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_members_train_as_with_torch_optim(kind: str, settings: dict[str, list[Any]]) -> None:
    torch_settings = {"momentum": [0.9] * S} if kind == "momentum" else {}
    end, found = train_stack(
        stack(networks()), batches(), cross_entropy, steps=23, lr=RATES, optimizer=kind,
        **stacked_settings(settings),
    )  # fmt: skip
    check(
        end,
        found["loss"],
        *plain(networks(), batches(), 23, kind, lr=RATES, **{**torch_settings, **settings}),
    )


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_frozen_masked_scheduled_and_scaled_members_too(
    kind: str, settings: dict[str, list[Any]]
) -> None:
    g = torch.Generator().manual_seed(1)
    masks = {
        "W1": (torch.rand(S, 5, 6, generator=g) < 0.5).double(),  # of each its own
        "W2": (torch.rand(5, 5, generator=g) < 0.5).double(),  # of all
    }
    options: dict[str, Any] = {
        "frozen": ("B1", "W3"),
        "masks": masks,
        "factors": {"W1": 0.5, "B2": 3.0},
    }
    torch_settings = {"momentum": [0.9] * S} if kind == "momentum" else {}
    end, found = train_stack(
        stack(networks()), batches(size=None), cross_entropy, steps=15, lr=torch.tensor(RATES),
        optimizer=kind, lr_schedule=lambda t: 1.0 / (t + 1), **options,
        **stacked_settings(settings),
    )  # fmt: skip
    check(
        end,
        found["loss"],
        *plain(
            networks(), batches(size=None), 15, kind, lr=torch.tensor(RATES).tolist(),
            schedule=lambda t: 1.0 / (t + 1), **options, **{**torch_settings, **settings},
        ),
    )  # fmt: skip
    start = stack(networks())
    for name in options["frozen"]:
        assert torch.equal(end.tensors[name], start.tensors[name])
    for name, mask in masks.items():
        outside = (mask == 0).expand(S, *mask.shape[-2:])
        assert not end.tensors[name][outside].any()
        moved = end.tensors[name] != start.tensors[name]
        assert bool(moved[~outside].view(-1).double().mean() > 0.5)


def test_rates_go_on_beyond_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are worked out for many steps at once; the next ones follow on."""
    monkeypatch.setattr("rclib.training.stacked_optimizers.BLOCK", 4)
    assert BLOCK > 4
    rates = torch.linspace(1.0, 0.1, 11).tolist()
    end, found = train_stack(
        stack(networks()), batches(), cross_entropy, steps=11, lr=RATES, optimizer="adam",
        lr_schedule=rates,
    )  # fmt: skip
    check(
        end,
        found["loss"],
        *plain(networks(), batches(), 11, "adam", lr=RATES, schedule=lambda t: rates[t]),
    )


def test_a_schedule_may_differ_by_member() -> None:
    table = torch.rand(9, S, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    options: dict[str, Any] = {"steps": 9, "optimizer": "momentum"}
    whole, _ = train_stack(
        stack(networks()), batches(), cross_entropy, lr=0.1, lr_schedule=table, **options
    )
    called, _ = train_stack(
        stack(networks()), batches(), cross_entropy, lr=0.1, lr_schedule=lambda t: table[t],
        **options,
    )  # fmt: skip
    for s in range(S):
        alone, _ = train_stack(
            stack([networks()[s]]),
            epoch_batches(*points(), batch_size=8, seeds=[s]),
            cross_entropy,
            lr=0.1,
            lr_schedule=table[:, s],
            **options,
        )
        for name, value in alone.member(0).items():
            assert torch.equal(whole.member(s)[name], value)
            assert torch.equal(called.member(s)[name], value)


def test_mean_field_factors_against_the_classifiers_loop() -> None:
    """The rates of a parametrisation, the classifier's order of batches, and its losses."""
    data = load("digits").subset(150, 60)
    models = [MLP(64, 16, 10, parametrization="MF", seed=s) for s in range(2)]
    end, found = train_stack(
        stack(models),
        epoch_batches(data.x_train, data.y_train, batch_size=32, seeds=[7, 8]),
        cross_entropy,
        steps=10,
        lr=0.5,
        factors=models[0].lr_factors("sgd"),
    )
    for s, model in enumerate(models):
        history = classifier.train(
            model, data, epochs=2, lr=0.5, batch_size=32, seed=7 + s, progress=False
        )
        torch.testing.assert_close(found["loss"][:, s], history.batch_loss, rtol=1e-4, atol=1e-5)
        for name, p in model.named_parameters():
            torch.testing.assert_close(end.member(s)[name], p.detach(), rtol=1e-3, atol=1e-5)


# --- members do not touch each other ------------------------------------------------------------


def float_run(members: list[int], sizes: tuple[int, int, int], kind: str, **options: Any) -> Any:
    """A run in float32 of the members with these seeds, each with rate and data of its own."""
    d, h, n = sizes
    models = [MLP(d, h, 4, seed=s, parametrization="SP", **options) for s in members]
    x, y = points(3 * n, d, torch.float32)
    return train_stack(
        stack(models),
        epoch_batches(x, y, batch_size=n, seeds=members),
        cross_entropy,
        steps=7,
        lr=[0.01 * (1 + s) for s in members],
        optimizer=kind,
        momentum=[0.05 * s for s in members],
        weight_decay=[0.01 * (s % 2) for s in members],
        masks={"W1": torch.ones(h, d).tril()},
    )


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("sizes", "activation"),
    [
        ((20, 50, 32), "tanh"),
        ((7, 13, 11), "relu"),
        ((7, 13, 11), "tanh"),
        ((784, 100, 8), "tanh"),
        ((8, 16, 4), "softplus"),  # a share of 64 numbers: see the docstring of nets.stack
    ],
)
def test_the_bits_of_a_member_do_not_depend_on_the_others(
    sizes: tuple[int, int, int], activation: str, kind: str
) -> None:
    end, found = float_run(list(range(16)), sizes, kind, activation=activation)
    for some in ([0], [0, 1], [0, 1, 2, 3, 4], [9, 3], list(range(15, -1, -1))):
        part, seen = float_run(some, sizes, kind, activation=activation)
        assert torch.equal(seen["loss"], found["loss"][:, some])
        for name, value in part.tensors.items():
            assert torch.equal(value, end.tensors[name][some])


def test_with_softplus_of_odd_sizes_they_do_in_the_last_digit_alone() -> None:
    """The condition of the docstring is needed, and what is lost without it is rounding."""
    end, _ = float_run(list(range(16)), (7, 13, 11), "sgd", activation="softplus")
    part, _ = float_run([0, 1], (7, 13, 11), "sgd", activation="softplus")
    for name, value in part.tensors.items():
        torch.testing.assert_close(value, end.tensors[name][:2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam", "adamw"])
def test_a_member_that_diverges_turns_nan_alone(kind: str) -> None:
    """One member has a damaged input; masks hold even there."""
    x, y = points()
    own = x.repeat(S, 1, 1)
    own[1, 3, 2] = math.nan
    mask = torch.ones(5, 6).tril()
    options: dict[str, Any] = {"steps": 6, "optimizer": kind, "masks": {"W1": mask}}
    end, found = train_stack(
        stack(networks()), lambda t: (own, y), cross_entropy, lr=0.1, **options
    )
    well, seen = train_stack(
        stack(networks()), lambda t: (own.nan_to_num(), y), cross_entropy, lr=0.1, **options
    )
    assert bool(found["loss"][:, 1].isnan().all())
    assert bool(end.tensors["W2"][1].isnan().all())
    assert not end.tensors["W1"][1][mask == 0].any()
    for s in (0, 2):
        assert torch.equal(found["loss"][:, s], seen["loss"][:, s])
        for name, value in well.member(s).items():
            assert torch.equal(end.member(s)[name], value)


def test_a_rate_far_too_large_does_not_stop_the_others() -> None:
    models = networks(activation="identity")
    end, found = train_stack(
        stack(models), batches(), cross_entropy, steps=30, lr=[0.1, 1e200, 0.1]
    )
    assert not bool(end.tensors["W1"][1].isfinite().all())
    assert bool(found["loss"][:, [0, 2]].isfinite().all())
    assert bool((found["loss"][-1, [0, 2]] < found["loss"][0, [0, 2]]).all())


def test_the_start_is_left_as_it_is() -> None:
    start = stack(networks())
    before = {name: value.clone() for name, value in start.tensors.items()}
    masks = {"W1": torch.zeros(5, 6)}
    end, _ = train_stack(start, batches(), cross_entropy, steps=3, lr=0.1, masks=masks)
    for name, value in before.items():
        assert torch.equal(start.tensors[name], value)
        assert not end.tensors[name].requires_grad
    assert not end.tensors["W1"].any()


# --- early stop ---------------------------------------------------------------------------------


def test_a_member_stops_at_its_target_and_the_others_go_on() -> None:
    free, curve = train_stack(
        stack(networks()), batches(size=None), cross_entropy, steps=40, lr=RATES, optimizer="adam"
    )
    # Targets that members 0 and 2 meet on the way, and member 1 never.
    targets = [float(curve["loss"][12, 0]), 0.0, float(curve["loss"][5, 2])]
    expected = [
        next((t for t in range(40) if curve["loss"][t, s] <= targets[s]), 40) for s in range(S)
    ]
    assert 0 < expected[2] < expected[0] < expected[1] == 40
    end, found = train_stack(
        stack(networks()), batches(size=None), cross_entropy, steps=40, lr=RATES, optimizer="adam",
        weight_decay=0.0, stop=targets, record={"W1": lambda s: s.tensors["W1"]}, at=range(41),
    )  # fmt: skip
    assert found["stopped_at"].tolist() == expected
    for s, made in enumerate(expected):
        torch.testing.assert_close(found["loss"][: made + 1, s], curve["loss"][: made + 1, s])
        assert bool(found["loss"][made + 1 :, s].isnan().all())
        assert bool((found["W1"][made:, s] == end.tensors["W1"][s]).all())
        assert bool((found["W1"][:made, s] != end.tensors["W1"][s]).any())
    for name, value in free.member(1).items():
        assert torch.equal(end.member(1)[name], value)
    check(
        end,
        found["loss"],
        *plain(networks(), batches(size=None), 40, "adam", lr=RATES, updates=expected),
    )


@pytest.mark.parametrize("kind", list(KINDS))
def test_nothing_moves_a_stopped_member(kind: str) -> None:
    """Not momentum, not weight decay; and all stopped is the end, but for what is recorded."""
    asked = []

    def batch(t: int) -> tuple[Tensor, Tensor]:
        asked.append(t)
        return points()

    end, found = train_stack(
        stack(networks()), batch, cross_entropy, steps=50, lr=0.05, optimizer=kind,
        weight_decay=0.1, record={"W1": lambda s: s.tensors["W1"]}, at=[0, 2, 7, 50],
        stop=lambda losses, rows: torch.tensor([True, len(losses) > 3, len(losses) > 5]),
    )  # fmt: skip
    assert found["stopped_at"].tolist() == [0, 3, 5]
    assert asked == [0, 1, 2, 3, 4, 5]
    start = stack(networks()).tensors["W1"]
    assert torch.equal(end.tensors["W1"][0], start[0])
    assert bool((end.tensors["W1"][1:] != start[1:]).all())
    assert torch.equal(found["W1"][2], end.tensors["W1"])
    assert torch.equal(found["W1"][3], end.tensors["W1"])
    assert bool((found["W1"][1][1:] != end.tensors["W1"][1:]).all())


def test_a_rule_sees_what_was_recorded_so_far() -> None:
    seen = []

    def rule(losses: Tensor, rows: Any) -> Tensor:
        seen.append((len(losses), rows["norm"].clone()))
        return torch.zeros(S, dtype=torch.bool)

    _, found = train_stack(
        stack(networks()), batches(), cross_entropy, steps=6, lr=0.1, stop=rule, at=[0, 2, 5],
        record={"norm": lambda s: s.tensors["W1"].square().sum((1, 2))},
    )  # fmt: skip
    assert [t for t, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [len(rows) for _, rows in seen] == [1, 1, 2, 2, 2, 3]
    assert torch.equal(seen[-1][1], found["norm"])
    assert found["stopped_at"].tolist() == [6, 6, 6]


# --- records ------------------------------------------------------------------------------------


def test_records_are_of_the_weights_after_so_many_updates() -> None:
    record = {"W3": lambda s: s.tensors["W3"], "logits": lambda s: s(points()[0])}
    end, found = train_stack(
        stack(networks()), batches(), cross_entropy, steps=8, lr=0.1, record=record, at=[8, 0, 3]
    )
    assert (found["W3"].shape, found["logits"].shape) == ((3, S, 4, 5), (3, S, 40, 4))
    for row, t in enumerate((0, 3, 8)):
        then, _ = train_stack(stack(networks()), batches(), cross_entropy, steps=t, lr=0.1)
        assert torch.equal(found["W3"][row], then.tensors["W3"])
    assert torch.equal(found["W3"][-1], end.tensors["W3"])
    assert list(found) == ["loss", "W3", "logits"]


def test_no_steps_give_the_start() -> None:
    record = {"W1": lambda s: s.tensors["W1"]}
    end, found = train_stack(
        stack(networks()), batches(), cross_entropy, steps=0, lr=0.1, record=record, at=[0]
    )
    assert found["loss"].shape == (0, S)
    assert torch.equal(found["W1"][0], end.tensors["W1"])
    assert torch.equal(end.tensors["W1"], stack(networks()).tensors["W1"])


# --- batches ------------------------------------------------------------------------------------


def test_an_order_is_a_function_of_its_seed_alone() -> None:
    alone, among = epoch_orders(10, 4, [5]), epoch_orders(10, 4, [1, 5, 2])
    later = epoch_orders(10, 4, [5])
    for step in range(9):
        assert torch.equal(alone(step)[0], among(step)[1])
    assert torch.equal(later(7), alone(7))  # asked for out of order
    assert torch.equal(later(1), alone(1))
    assert [alone(step).shape[1] for step in range(3)] == [4, 4, 2]
    epochs = [torch.cat([alone(3 * e + i)[0] for i in range(3)]) for e in range(2)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(10))
    assert not torch.equal(*epochs)


def test_members_may_have_subsets_of_the_data() -> None:
    x, y = points()
    subsets = torch.tensor([[0, 3, 5, 7, 9], [1, 2, 11, 12, 30]])
    batch = epoch_batches(x, y, batch_size=2, seeds=[4, 4], subsets=subsets)
    seen = [torch.cat([batch(step)[0][s] for step in range(3)]) for s in range(2)]
    for s in range(2):
        assert {tuple(r) for r in seen[s].tolist()} == {tuple(r) for r in x[subsets[s]].tolist()}
    xs, ys = epoch_batches(x, y, batch_size=None, seeds=[4, 4], subsets=subsets)(3)
    assert torch.equal(xs, x[subsets])
    assert torch.equal(ys, y[subsets])
    whole = epoch_batches(x, y, batch_size=None, seeds=[4, 4])(3)
    assert (whole[0] is x, whole[1] is y) == (True, True)


def test_own_labels_on_shared_inputs_and_the_other_way_round() -> None:
    x, y = points()
    labels = torch.stack([y, y.flip(0), (y + 1) % 4])
    options: dict[str, Any] = {"steps": 5, "lr": 0.1}
    shared, _ = train_stack(stack(networks()), lambda t: (x, labels), cross_entropy, **options)
    own, _ = train_stack(
        stack(networks()), lambda t: (x.repeat(S, 1, 1), labels), cross_entropy, **options
    )
    one, _ = train_stack(stack(networks()), lambda t: (x, labels[2]), cross_entropy, **options)
    for name in shared.tensors:
        assert torch.equal(shared.tensors[name], own.tensors[name])
        assert torch.equal(shared.member(2)[name], one.member(2)[name])
    assert not torch.equal(shared.tensors["W1"][0], one.tensors["W1"][0])


def test_targets_that_could_be_either_must_say() -> None:
    start = Stack({"w": torch.zeros(2, 3, 2)}, lambda values, x: x @ values["w"])
    x, y = torch.eye(2, 3), torch.eye(2)  # two members, two points, two targets

    def error(out: Tensor, target: Tensor) -> Tensor:
        return (out - target).square().mean()

    with pytest.raises(ValueError, match=r"own must say whether y of shape \(2, 2\)"):
        train_stack(start, lambda t: (x, y), error, steps=1, lr=1.0)
    _, found = train_stack(start, lambda t: (x, y), error, steps=1, lr=1.0, own="")
    assert found["loss"].tolist() == [[0.5, 0.5]]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be an integer of at least 0, got -1"),
        ({"lr": [0.1, 0.2]}, r"lr must be one number or 3, one a member, got shape \(2,\)"),
        ({"lr": [0.1, -0.2, 0.1]}, r"lr must not be negative, got -0\.2"),
        ({"lr": math.nan}, "lr must be finite, got nan"),
        ({"optimizer": "rmsprop"}, "optimizer must be one of .* got 'rmsprop'"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1"),
        ({"betas": 0.9}, r"betas must be two, β1 and β2, got 0\.9"),
        ({"betas": (0.9, 1.5)}, r"betas\[1\] must lie in \[0, 1\), got 1\.5"),
        ({"eps": 0.0}, r"eps must be positive and finite, got 0\.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative, got -1"),
        ({"factors": {"W9": 1.0}}, "factors must name tensors of .*, got 'W9'"),
        ({"factors": {"W1": -1.0}}, r"factors\['W1'\] must be finite, not negative, got -1"),
        ({"lr_schedule": [1.0] * 4}, r"lr_schedule must have shape \(2,\) or \(2, 3\), got \(4,\)"),
        ({"lr_schedule": [1.0, -1.0]}, "lr_schedule must not be negative, got -1"),
        ({"lr_schedule": lambda t: -t}, r"lr_schedule\(1\) must not be negative, got -1"),
        ({"frozen": "W1"}, "frozen must name tensors of .*, got 'W1'"),
        ({"frozen": ["W4"]}, "frozen must name tensors of .*, got 'W4'"),
        ({"frozen": ["W1", "B1", "W2", "B2", "W3", "B3"]}, "frozen must leave a tensor to train"),
        ({"masks": {"W9": torch.ones(2)}}, "masks must name tensors of .*, got 'W9'"),
        ({"masks": {"W1": torch.ones(6)}}, r"masks\['W1'\] must have shape \(3, 5, 6\) or \(5, 6"),
        ({"masks": {"W1": torch.full((5, 6), 0.5)}}, r"masks\['W1'\] must hold zeros and ones"),
        ({"stop": [0.1]}, r"stop must be one number or 3, one a member, got shape \(1,\)"),
        ({"stop": lambda losses, rows: True}, r"stop must give a tensor \(3,\) of bool, got True"),
        ({"at": [3]}, "at must hold steps from 0 to 2, got 3"),
        ({"record": {"loss": len}}, "record must not be named 'loss'"),
        (
            {"record": {"n": lambda s: torch.ones(2)}, "at": [1]},
            r"record\['n'\] must give a tensor \(3, \.\.\.\), got Tensor of shape \(2,\)",
        ),
        ({"own": "z"}, "own must be '', 'x', 'y' or 'xy', got 'z'"),
        ({"own": "x"}, r"y must have shape \(8, \.\.\.\) .* got \(3, 8\)"),
    ],
)
def test_bad_arguments_are_named_with_their_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_stack(
            stack(networks()), batches(), cross_entropy, **{"steps": 2, "lr": 0.1, **options}
        )


def test_a_mask_or_batch_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"masks\['W1'\] must be a tensor, got list"):
        train_stack(
            stack(networks()), batches(), cross_entropy, steps=1, lr=0.1,
            masks={"W1": [1.0]},  # type: ignore[dict-item]
        )  # fmt: skip
    x, y = points()
    for batch, name in (((x.numpy(), y), "x"), ((x, y.numpy()), "y")):
        with pytest.raises(TypeError, match=f"{name} must be a torch tensor, got ndarray"):
            train_stack(stack(networks()), lambda t, b=batch: b, cross_entropy, steps=1, lr=0.1)


def test_losses_that_do_not_fit_are_refused() -> None:
    def each(out: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(out, y, reduction="none")

    with pytest.raises(ValueError, match=r"loss must give one number, got shape \(8,\)"):
        train_stack(stack(networks()), batches(), each, steps=1, lr=0.1)
    two = Stack({"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, lambda v, x: x @ v["a"])
    with pytest.raises(ValueError, match="frozen must name 'b': the loss does not depend on it"):
        train_stack(two, lambda t: (torch.ones(4, 3), torch.ones(4)), nn.functional.mse_loss,
                    steps=1, lr=0.1)  # fmt: skip
    with pytest.raises(ValueError, match="loss must depend on a tensor that is trained"):
        train_stack(two, lambda t: (torch.ones(4, 3), torch.ones(4)), lambda o, y: y.sum(),
                    steps=1, lr=0.1)  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: epoch_orders(0, 1, [0]), "n must be a positive integer, got 0"),
        (lambda: epoch_orders(5, 0, [0]), "batch_size must be a positive integer, got 0"),
        (lambda: epoch_orders(5, 1, []), "seeds must hold at least one seed, got none"),
        (lambda: epoch_orders(5, 1, [0, -1]), r"seeds\[1\] must be an integer from 0 .* got -1"),
        (
            lambda: epoch_batches(torch.ones(3), torch.ones(2), batch_size=1, seeds=[0]),
            "x and y must be equally long and not empty, got 3 and 2",
        ),
        (
            lambda: epoch_batches(
                *points(), batch_size=1, seeds=[0, 1], subsets=torch.zeros(3, 2).long()
            ),
            r"subsets must be whole numbers \(2, k\), got Tensor of shape \(3, 2\)",
        ),
        (
            lambda: epoch_batches(*points(), batch_size=1, seeds=[0], subsets=torch.tensor([[40]])),
            "subsets must hold places below 40, got 40",
        ),
    ],
)
def test_batches_that_cannot_be_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
