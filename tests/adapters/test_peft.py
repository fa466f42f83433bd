"""The methods that peft has, against it: merged weights, starts and outputs."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from adapter_methods import drawn
from torch import Tensor, nn

from rclib.adapters.activations import EVA
from rclib.adapters.blocks import Bone
from rclib.adapters.low_rank import LoRA, LowRank, OLoRA, PiSSA

pytestmark = pytest.mark.slow  # its import alone takes seconds
ROWS, COLUMNS, RANK = 8, 12, 4


@pytest.fixture(scope="module")
def peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("peft")


class One(nn.Module):
    """One linear layer."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        with torch.no_grad():
            self.layer.weight.copy_(weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def wrapped(peft: Any, config: Any, weight: Tensor) -> tuple[Any, Any]:
    """peft's model and the layer in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(One(weight), config, autocast_adapter_dtype=False)
    return model, model.base_model.model.layer


def their_parts(layer: Any) -> dict[str, Tensor]:
    return {
        "base": layer.base_layer.weight.detach().clone(),
        "A": layer.lora_A["default"].weight.detach().clone(),
        "B": layer.lora_B["default"].weight.detach().clone(),
    }


@pytest.mark.parametrize("stabilised", [False, True])
def test_lora_and_rslora(peft: Any, stabilised: bool) -> None:
    weight, x = drawn(ROWS, COLUMNS), drawn(20, COLUMNS, seed=1)
    config = peft.LoraConfig(r=RANK, lora_alpha=6, target_modules=["layer"], use_rslora=stabilised)
    model, layer = wrapped(peft, config, weight)
    method = LoRA(RANK, alpha=6.0, stabilised=stabilised)
    parts = their_parts(layer)
    ours = method.start(weight)
    assert {k: p.shape for k, p in ours.items()} == {k: p.shape for k, p in parts.items()}
    assert float(parts["A"].abs().max()) <= COLUMNS**-0.5  # the law that ours is drawn from
    assert not parts["B"].any()
    with torch.no_grad():
        layer.lora_B["default"].weight.copy_(drawn(ROWS, RANK, seed=2))
    parts = their_parts(layer)
    bias = layer.base_layer.bias.detach()
    assert torch.allclose(method.apply(parts, x) + bias, model(x), atol=1e-6)
    layer.merge()
    assert torch.allclose(layer.base_layer.weight, method.merge(parts), atol=1e-6)
    layer.unmerge()
    assert torch.allclose(
        layer.base_layer.weight, method.unmerge(method.merge(parts), parts), atol=1e-6
    )
    trainable, _ = model.get_nb_trainable_parameters()
    assert trainable == method.trained_count(ROWS, COLUMNS)


@pytest.mark.parametrize(
    ("name", "method"), [("pissa", PiSSA(RANK, alpha=6.0)), ("olora", OLoRA(RANK, alpha=6.0))]
)
def test_starts_at_parts_of_the_weight(peft: Any, name: str, method: LowRank) -> None:
    weight = drawn(ROWS, COLUMNS, dtype=torch.float32)  # they take no other
    config = peft.LoraConfig(r=RANK, lora_alpha=6, target_modules=["layer"], init_lora_weights=name)
    _, layer = wrapped(peft, config, weight)
    theirs, ours = their_parts(layer), method.start(weight)
    # Rows and columns up to their sign, so compare what does not depend on it.
    assert torch.allclose(theirs["base"], ours["base"], atol=1e-5)
    for part, axis in (("A", 1), ("B", 0)):
        assert torch.allclose(theirs[part].norm(dim=axis), ours[part].norm(dim=axis), atol=1e-5)
    assert torch.allclose(method.merge(theirs), weight, atol=1e-5)


@pytest.mark.parametrize("whiten", [False, True])
def test_eva(peft: Any, whiten: bool) -> None:
    # Theirs is a randomised decomposition with 2 r directions, exact for as many columns.
    weight = drawn(ROWS, 2 * RANK)
    x = drawn(60, 2 * RANK) @ drawn(2 * RANK, 2 * RANK, seed=1) + 2.0
    config = peft.LoraConfig(
        r=RANK, lora_alpha=RANK, target_modules=["layer"], init_lora_weights="eva",
        eva_config=peft.EvaConfig(rho=1.0, tau=1e-9, whiten=whiten),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(
            One(weight), config, low_cpu_mem_usage=True, autocast_adapter_dtype=False
        )
        peft.initialize_lora_eva_weights(
            model, [{"x": part} for part in x.split(20)], show_progress_bar=False,
            forward_fn=lambda net, inputs: net(inputs["x"]), prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=lambda given, model_input, name: given[0],
        )  # fmt: skip
    theirs = their_parts(model.base_model.model.layer)
    method = EVA(RANK, batch_size=20, tau=1e-9, whiten=whiten)
    ours = method.start(weight, inputs=x)
    signs = torch.sign((theirs["A"] * ours["A"]).sum(1, keepdim=True))
    assert torch.allclose(theirs["A"].double(), signs * ours["A"], atol=1e-4)
    assert not theirs["B"].any()
    assert torch.allclose(theirs["base"], weight)


@pytest.mark.parametrize(("theirs", "form"), [("bat", "guided"), (True, "sum")])
def test_bone(peft: Any, theirs: Any, form: str) -> None:
    weight, x = drawn(ROWS, COLUMNS), drawn(20, COLUMNS, seed=1)
    config = peft.MissConfig(r=RANK, target_modules=["layer"], init_weights=theirs)
    model, layer = wrapped(peft, config, weight)
    method = Bone(RANK, form=form)
    b = drawn(ROWS // RANK, RANK, RANK, seed=2)
    block = layer.miss_block["default"]
    assert not block.any()
    with torch.no_grad():  # theirs of the sum is (r, o): the blocks side by side, transposed
        block.copy_(b if form == "guided" else b.reshape(ROWS, RANK).T)
    parts = {"base": weight, "B": b}
    bias = layer.base_layer.bias.detach()
    assert torch.allclose(method.apply(parts, x) + bias, model(x), atol=1e-6)
    layer.merge()
    assert torch.allclose(layer.base_layer.weight, method.merge(parts), atol=1e-6)
    layer.unmerge()
    assert torch.allclose(layer.base_layer.weight, weight, atol=1e-6)
    trainable, _ = model.get_nb_trainable_parameters()
    assert trainable == method.trained_count(ROWS, COLUMNS)
