"""Methods on a stack: members are their own, and training leaves what is frozen."""

from __future__ import annotations

import pytest
import torch
from adapter_methods import METHODS, drawn, moved
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.adapters.low_rank import LoRA, PiSSA
from rclib.adapters.method import Full
from rclib.adapters.wrap import Adapted, Product, adapt, parts_of
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.training.stacked import epoch_batches, train_stack

D, WIDTH, CLASSES = 8, 12, 3


def network(tensors: dict[str, Tensor], x: Tensor, product: Product) -> Tensor:
    """MLP of the standard parametrisation, by hand."""
    h = torch.relu(product("W1", x) + tensors["B1"])
    h = torch.relu(product("W2", h) + tensors["B2"])
    return product("W3", h) + tensors["B3"]


def base(seeds: list[int]) -> Stack:
    nets = [
        MLP(D, WIDTH, CLASSES, parametrization="SP", activation="relu", seed=s).float()
        for s in seeds
    ]
    return stack(nets)


def wrapped(name: str, seeds: list[int], factored: bool = True) -> Adapted:
    x = torch.stack([drawn(30, D, seed=s, dtype=torch.float32) for s in seeds])
    hidden = torch.stack([drawn(30, WIDTH, seed=s, dtype=torch.float32) for s in seeds])
    return adapt(
        base(seeds), {"W1": METHODS[name], "W2": METHODS[name]}, seeds=seeds,
        inputs={"W1": x, "W2": hidden}, network=network if factored else None, train=["W3", "B3"],
    )  # fmt: skip


def trained(of: Adapted, seeds: list[int]) -> Stack:
    x = drawn(64, D, seed=5, dtype=torch.float32)
    y = torch.arange(64) % CLASSES
    batch = epoch_batches(x, y, batch_size=16, seeds=seeds)
    end, _ = train_stack(
        of.stack, batch, cross_entropy, steps=6, lr=0.01, optimizer="adam", frozen=of.frozen
    )
    return end


@pytest.mark.parametrize("name", METHODS)
def test_members_have_the_bits_that_they_have_alone(name: str) -> None:
    seeds = [3, 5, 8]
    together = trained(wrapped(name, seeds), seeds)
    for place, seed in enumerate(seeds):
        alone = trained(wrapped(name, [seed]), [seed])
        for key, tensor in alone.tensors.items():
            assert torch.equal(tensor[0], together.tensors[key][place]), key


@pytest.mark.parametrize("name", METHODS)
def test_a_wrapped_stack_starts_and_merges_as_the_network(name: str) -> None:
    seeds, x = [3, 5], drawn(20, D, seed=7, dtype=torch.float32)
    plain, factored, merging = base(seeds), wrapped(name, seeds), wrapped(name, seeds, False)
    method = METHODS[name]
    if method.preserves:
        assert torch.allclose(factored.stack(x), plain(x), atol=1e-5)
    end = trained(factored, seeds)
    assert set(factored.frozen) | {"W3", "B3"} | {
        f"W{k}/{part}" for k in (1, 2) for part in method.trained
    } == set(end.tensors)
    for key in factored.frozen:
        assert torch.equal(end.tensors[key], factored.stack.tensors[key])
    for key in set(end.tensors) - factored.frozen - {"W1/A", "W2/A"}:
        assert not torch.equal(end.tensors[key], factored.stack.tensors[key])
    again = factored.merged_stack(end, plain)
    assert list(again.tensors) == list(factored.merged(end))
    assert torch.allclose(again(x), end(x), atol=1e-5)
    assert torch.allclose(trained(merging, seeds)(x), end(x), atol=1e-4)
    assert (
        factored.trained_counts
        == (sum(method.trained_count(*plain.tensors[w].shape[1:]) for w in ("W1", "W2")),) * 2
    )


def test_full_fine_tuning_is_training_the_network() -> None:
    seeds = [3, 5]
    x, y = drawn(64, D, seed=5, dtype=torch.float32), torch.arange(64) % CLASSES
    plain, _ = train_stack(
        base(seeds), epoch_batches(x, y, batch_size=16, seeds=seeds), cross_entropy,
        steps=6, lr=0.01, optimizer="adam", frozen=["B1", "B2"],
    )  # fmt: skip
    of = wrapped("full", seeds)
    merged = of.merged(trained(of, seeds))
    for key, tensor in plain.tensors.items():
        assert torch.allclose(tensor, merged[key], atol=1e-5), key


def test_layers_and_members_draw_apart() -> None:
    of = adapt(base([0, 0]), {"W2": LoRA(2), "W3": LoRA(2)}, seeds=[0, 1])
    a = of.stack.tensors["W2/A"]
    assert not torch.equal(a[0], a[1])
    assert not torch.equal(a, of.stack.tensors["W3/A"])
    assert set(parts_of(of.stack.tensors, "W2")) == {"base", "A", "B"}
    tensors = moved(LoRA(2), parts_of(of.stack.member(0), "W2"))
    assert torch.allclose(LoRA(2).merge(tensors).double(), LoRA(2).merge(tensors).double())


@pytest.mark.parametrize(
    "names",
    [
        ("loldu", "random", "singular values", "loldu, slip"),
        ("lora", "pissa", "eva, permuted"),
        ("bone, permuted", "bone, permuted"),
    ],
)
def test_members_may_have_methods_of_a_kin(names: tuple[str, ...]) -> None:
    methods = [METHODS[n] if n != "pissa" else PiSSA(4) for n in names]
    seeds = list(range(len(methods)))
    x = torch.stack([drawn(30, WIDTH, seed=s, dtype=torch.float32) for s in seeds])
    options = {"network": network, "train": ["W3", "B3"]}
    together = adapt(base(seeds), {"W2": methods}, seeds=seeds, inputs={"W2": x}, **options)
    end = trained(together, seeds)
    for s, method in zip(seeds, methods, strict=True):
        alone = adapt(base([s]), {"W2": method}, seeds=[s], inputs={"W2": x[s : s + 1]}, **options)
        for key, tensor in trained(alone, [s]).tensors.items():
            assert torch.equal(tensor[0], end.tensors[key][s]), key


def test_what_is_refused() -> None:
    start = base([0, 1])
    for given, message in (
        ({"methods": {"W9": Full()}}, "methods must name"),
        ({"methods": {"W1": Full()}, "train": ["W9"]}, "train must name"),
        ({"methods": {"W1": Full()}, "train": ["W1"]}, "it is adapted"),
        ({"methods": {"W1": Full()}, "seeds": [0]}, "seeds must be 2"),
        ({"methods": {"W1": [Full(), LoRA(2)]}}, "of equal kin"),
        ({"methods": {"W1": [Full()]}}, "2 of equal kin"),
        ({"methods": {"W1": Full()}, "inputs": {"W1": torch.zeros(1, 4, D)}}, "2 members"),
    ):
        with pytest.raises(ValueError, match=message):
            adapt(start, **{"seeds": [0, 1], **given})
