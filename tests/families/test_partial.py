"""Tables against what people have: other storage, towers, one name too many, and no table at all.

Every input is built here, under the names that real checkpoints use.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from rclib.checkpoints.opening import open_checkpoint
from rclib.families.infer import table_text
from rclib.families.layout import FamilyError, Layout, base, layout, read_family
from rclib.inspection.block_correlations import block_correlations
from rclib.resizing.checkpoint import apply_maps, resize_checkpoint
from rclib.rowcolumn.transfer import draw_index_maps

State = dict[str, Tensor]


def r(*shape: int) -> Tensor:
    return torch.randn(*shape)


def gpt2_names(d: int = 48, *, linear: bool, bias: bool = True) -> State:
    t = {"transformer.wte.weight": r(96, d), "transformer.wpe.weight": r(32, d)}
    for b in range(2):
        p = f"transformer.h.{b}."
        for name, o, i in (
            ("attn.c_attn", 3 * d, d), ("attn.c_proj", d, d),
            ("mlp.c_fc", 4 * d, d), ("mlp.c_proj", d, 4 * d),
        ):  # fmt: skip
            t[f"{p}{name}.weight"] = r(o, i) if linear else r(i, o)
            if bias:
                t[f"{p}{name}.bias"] = r(o)
        t |= {p + "ln_1.weight": r(d), p + "ln_2.weight": r(d)}
    return {**t, "transformer.ln_f.weight": r(d), "lm_head.weight": r(96, d)}


def llama(
    prefix: str = "model.", d: int = 64, heads: int = 4, kv: int = 2, size: int = 16
) -> State:
    t = {prefix + "embed_tokens.weight": r(80, d), prefix + "norm.weight": r(d)}
    for b in range(2):
        p = f"{prefix}layers.{b}."
        for name, o, i in (
            ("self_attn.q_proj", heads * size, d), ("self_attn.k_proj", kv * size, d),
            ("self_attn.v_proj", kv * size, d), ("self_attn.o_proj", d, heads * size),
            ("mlp.gate_proj", 96, d), ("mlp.up_proj", 96, d), ("mlp.down_proj", d, 96),
        ):  # fmt: skip
            t[f"{p}{name}.weight"] = r(o, i)
        t |= {p + "input_layernorm.weight": r(d), p + "post_attention_layernorm.weight": r(d)}
    return t


CONFIG = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2}


def sides(found: Layout, name: str) -> str:
    axes = found.weights[name].axes
    return " <- ".join(
        " ".join(" ".join(axes.axes[p].names()) for p in places)
        for places in (
            [p for p in range(len(axes.axes)) if p not in axes.inputs],
            list(axes.inputs),
        )
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("config", [None, {"model_type": "gpt2", "n_head": 4}, {"n_head": 4}])
def test_nanogpt_is_told_by_its_storage(config: Any, bias: bool) -> None:
    for linear, family in ((True, "nanogpt"), (False, "gpt2")):
        found = layout(gpt2_names(linear=linear, bias=bias), config, sizes={"head": 4})
        assert found.family == family
        assert sides(found, "transformer.h.0.mlp.c_fc.weight") == "mlp.0 <- stream"
        assert found.sizes["mlp.1"] == 192


def test_sizes_in_text_config_and_a_tower_beside() -> None:
    tower = {"multi_modal_projector.linear_1.weight": r(64, 32), "vision_tower.x.weight": r(3, 3)}
    config = {"model_type": "llava", "text_config": CONFIG}
    for prefix in ("language_model.model.", "model.language_model.", "language_model."):
        state = llama(prefix) | {"language_model.lm_head.weight": r(80, 64)} | tower
        found = layout(state, config, partial=True)
        assert (found.family, found.sizes["kv.1"], found.sizes["group.0"]) == ("llama", 2, 2)
        assert found.left_out == tuple(tower)
        with pytest.raises(FamilyError, match="no row for multi_modal_projector"):
            layout(state, config)


def test_one_unmatched_gain_does_not_hide_the_matrices() -> None:
    state = llama() | {f"model.layers.{b}.extra_norm.weight": r(64) for b in range(2)}
    found = layout(state, CONFIG, partial=True)
    assert found.left_out == tuple(f"model.layers.{b}.extra_norm.weight" for b in range(2))
    with open_checkpoint(state) as checkpoint:
        rows = block_correlations(checkpoint, found).rows
    assert {row.block for row in rows if row.set == "stream"} == {0, 1}
    with pytest.raises(FamilyError, match="it has tensors without a row"):
        resize_checkpoint(state, found, {"mlp": 192})


def test_gemma_2_is_llama_with_two_more_gains_a_block() -> None:
    plain = llama()
    more = {
        f"model.layers.{b}.{name}_feedforward_layernorm.weight": r(64)
        for b in range(2)
        for name in ("pre", "post")
    }
    found = layout(plain | more, {**CONFIG, "model_type": "gemma2", "head_dim": 16})
    assert (found.family, found.left_out) == ("gemma", ())
    assert all(found.axes[name] == ("stream",) for name in more)
    with open_checkpoint(plain | more) as one, open_checkpoint(plain) as other:
        ours, llamas = (
            block_correlations(one, found),
            block_correlations(other, layout(plain, CONFIG)),
        )
        assert ours.table().equals(llamas.table())
        gains = block_correlations(one, found, biases=True).vector_table()
    stream = gains[(gains.block == 1) & (gains.set == "stream")]
    own = {name.removeprefix("model.layers.1.") for name in more if ".1." in name}
    assert own <= set(stream.vector)


def test_a_padded_output_matrix_is_left_out_and_named() -> None:
    state = llama() | {"lm_head.weight": r(128, 64)}
    found = layout(state, CONFIG, partial=True)
    assert (found.family, found.left_out) == ("llama", ("lm_head.weight",))
    with pytest.raises(FamilyError, match=r"'lm_head.weight' of shape \(128, 64\)"):
        layout(state, CONFIG)


def test_metas_own_names() -> None:
    state: State = {"tok_embeddings.weight": r(80, 64), "norm.weight": r(64), "rope.freqs": r(8)}
    for b in range(2):
        p = f"layers.{b}."
        for name, o, i in (
            ("attention.wq", 64, 64), ("attention.wk", 32, 64), ("attention.wv", 32, 64),
            ("attention.wo", 64, 64), ("feed_forward.w1", 96, 64), ("feed_forward.w2", 64, 96),
            ("feed_forward.w3", 96, 64),
        ):  # fmt: skip
            state[f"{p}{name}.weight"] = r(o, i)
        state |= {p + "attention_norm.weight": r(64), p + "ffn_norm.weight": r(64)}
    state["output.weight"] = r(80, 64)
    found = layout(state, {"dim": 64, "n_heads": 4, "n_kv_heads": 2})
    assert (found.family, found.sizes["kv.0"], found.sizes["qk.0"]) == ("meta_llama", 2, 16)
    assert found.ignored == ("rope.freqs",)


def test_one_key_value_head_and_no_number_of_them() -> None:
    one = {**CONFIG, "model_type": "gemma", "num_key_value_heads": 1, "head_dim": 32}
    assert layout(llama(kv=1, size=32), one).sizes["qk.0"] == 32
    old = {"model_type": "llama", "num_attention_heads": 4}
    state = llama(kv=4) | {"model.layers.0.self_attn.rotary_emb.inv_freq": r(8)}
    found = layout(state, old)
    assert (found.sizes["kv.0"], found.sizes["group.0"]) == (4, 1)
    assert found.ignored == ("model.layers.0.self_attn.rotary_emb.inv_freq",)


def test_mixtral_as_it_lies_on_disk() -> None:
    state = {k: v for k, v in llama().items() if ".mlp." not in k}
    for b in range(2):
        p = f"model.layers.{b}.block_sparse_moe."
        state[p + "gate.weight"] = r(4, 64)
        for e in range(4):
            for name, o, i in (("w1", 96, 64), ("w2", 64, 96), ("w3", 96, 64)):
                state[f"{p}experts.{e}.{name}.weight"] = r(o, i)
    found = layout(state, {**CONFIG, "model_type": "mixtral"})
    assert found.family == "mixtral"
    with open_checkpoint(state) as checkpoint:
        rows = block_correlations(checkpoint, found).rows
    experts = [row for row in rows if row.set.startswith("expert hidden")]
    assert len(experts) == 8
    assert {(row.n, row.vectors) for row in experts} == {(96, 3)}


@pytest.mark.parametrize(
    ("kind", "family"),
    [("resnet18", "resnet"), ("resnet50", "resnet_bottleneck"), ("cifar", "resnet")],
)
def test_resnets_inner_channels_can_be_renamed(kind: str, family: str) -> None:
    torch.manual_seed(0)
    if kind == "cifar":
        model: nn.Module = Cifar()
    else:
        model = getattr(torchvision.models, kind)(num_classes=5)
    model = model.double().eval()
    state = model.state_dict()
    found = layout(state)
    assert found.family == family
    parameters = {n for n, _ in model.named_parameters()}
    assert parameters <= set(found.weights)
    assert set(found.blocks) <= {1, 2, 3, 4}
    assert found.weights["layer2.0.conv1.weight"].block == 2
    maps = draw_index_maps(
        found.axes,
        found.sizes,
        {i: n for i, n in found.sizes.items() if base(i) in ("mid", "stage", "stem")
         and i != f"stage.{max(found.blocks)}"},
        replacement=False,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    images = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    with torch.no_grad():
        before = model(images)
        model.load_state_dict(apply_maps(state, found, maps))
        torch.testing.assert_close(model(images), before, rtol=1e-8, atol=1e-8)
    if kind != "resnet50":
        grown = resize_checkpoint(state, found, {"mid": 128}, replacement=False)
        assert grown["layer1.0.conv1.weight"].shape[0] == 128
    with pytest.raises(FamilyError, match="index 'stage' cannot be resized"):
        resize_checkpoint(state, found, {"stage": 128})


class Cifar(nn.Module):
    """The ResNet of CIFAR scripts: `shortcut`, `linear`, three stages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        sizes = ((8, 8, 1), (8, 12, 2), (12, 16, 2))
        for s, (i, o, stride) in enumerate(sizes, 1):
            setattr(self, f"layer{s}", nn.Sequential(CifarBlock(i, o, stride), CifarBlock(o, o, 1)))
        self.linear = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        found: Tensor = self.linear(x.mean((2, 3)))
        return found


class CifarBlock(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        self.shortcut = nn.Sequential()
        if i != o:
            self.shortcut = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        found = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(found + self.shortcut(x))


def timm(d: int = 24) -> State:
    t = {
        "cls_token": r(1, 1, d),
        "pos_embed": r(1, 17, d),
        "patch_embed.proj.weight": r(d, 3, 4, 4),
    }
    for b in range(2):
        p = f"blocks.{b}."
        for name, o, i in (
            ("attn.qkv", 3 * d, d), ("attn.proj", d, d), ("mlp.fc1", 36, d), ("mlp.fc2", d, 36),
        ):  # fmt: skip
            t |= {f"{p}{name}.weight": r(o, i), f"{p}{name}.bias": r(o)}
        t |= {p + "norm1.weight": r(d), p + "norm2.bias": r(d)}
    return t | {"norm.weight": r(d), "head.weight": r(10, d), "head.bias": r(10)}


def test_timms_vision_transformers() -> None:
    found = layout(timm(), sizes={"head": 6})
    assert (found.family, found.sizes["qk.0"], found.sizes["position"]) == ("timm_vit", 4, 17)


def unknown(d: int = 40, *, inputs_first: bool = False, square: bool = True) -> State:
    """Blocks under names that no table has."""
    t: State = {"core.tok_table.emb.weight": r(90, d)}
    for b in range(3):
        p = f"core.unit.{b}."
        k = d if square else d // 2
        for name, o, i in (
            ("mixing_attn.query", d, d), ("mixing_attn.key", k, d), ("mixing_attn.value", k, d),
            ("mixing_attn.out_proj", d, d), ("perceptron.expand", 100, d),
            ("perceptron.contract", d, 100),
        ):  # fmt: skip
            t[f"{p}{name}.weight"] = r(i, o) if inputs_first else r(o, i)
            t[f"{p}{name}.bias"] = r(o)
        t |= {p + "scale_a.gain": r(d), p + "odd.thing": r(7, 11)}
    return t | {"core.readout.weight": r(90, d)}


@pytest.mark.parametrize("inputs_first", [False, True])
def test_axes_are_inferred_where_no_table_fits(inputs_first: bool) -> None:
    state = unknown(inputs_first=inputs_first)
    found = layout(state, partial=True)
    assert (found.family, found.inferred) == ("inferred", True)
    p = "core.unit.1."
    assert {
        name: sides(found, f"{p}{name}.weight")
        for name in ("mixing_attn.query", "mixing_attn.value", "mixing_attn.out_proj",
                     "perceptron.expand", "perceptron.contract")
    } == {
        "mixing_attn.query": "qk.1 <- stream", "mixing_attn.value": "vo.1 <- stream",
        "mixing_attn.out_proj": "stream <- vo.1", "perceptron.expand": "mlp.1 <- stream",
        "perceptron.contract": "stream <- mlp.1",
    }  # fmt: skip
    assert found.weights[p + "perceptron.expand.bias"].axes.indices() == ("mlp.1",)
    assert found.weights[p + "scale_a.gain"].axes.indices() == ("stream",)
    assert found.left_out == tuple(f"core.unit.{b}.odd.thing" for b in range(3))
    assert found.sizes["vocab"] == 90
    with pytest.raises(FamilyError, match="unknown layout"):
        layout(state)


def test_fewer_key_channels_than_queries_share_nothing_with_them() -> None:
    found = layout(unknown(square=False), partial=True)
    p = "core.unit.0.mixing_attn."
    assert sides(found, p + "query.weight") == "query.0 <- stream"
    assert sides(found, p + "key.weight") == "key.0 <- stream"
    assert sides(found, p + "value.weight") == "value.0 <- stream"
    assert sides(found, p + "out_proj.weight") == "stream <- mixed.0"


def test_nothing_is_inferred_without_a_stream() -> None:
    for state in ({f"a.{b}.w": r(3 + b, 5 + 2 * b) for b in range(4)}, {"x.W": r(4, 4)}):
        with pytest.raises(FamilyError, match="unknown layout"):
            layout(state, partial=True)


def test_the_written_table_is_read_back_with_the_same_axes(tmp_path: Path) -> None:
    for state in (unknown(), unknown(inputs_first=True), llama(), timm(), gpt2_names(linear=True)):
        sizes = {"head": 4} if any("attn.c_attn" in n or "qkv" in n for n in state) else {}
        found = layout(state, {"num_attention_heads": 4, "num_key_value_heads": 2},
                       sizes=sizes, partial=True)  # fmt: skip
        assert found.table is not None
        path = tmp_path / "axes.yaml"
        text = table_text(found.table, state, inferred=found.inferred)
        path.write_text(text, encoding="utf-8")
        again = layout(
            state, {"num_attention_heads": 4, "num_key_value_heads": 2},
            family=read_family(path), sizes=sizes, partial=True,
        )  # fmt: skip
        assert again.axes == found.axes
        assert again.left_out == found.left_out
        if found.left_out:
            # What stands as a remark is accepted as soon as the sign is taken away.
            path.write_text(re.sub(r"(?m)^#  ", "  ", text), encoding="utf-8")
            whole = layout(state, family=read_family(path), sizes=sizes, partial=True)
            assert not whole.left_out


@pytest.mark.parametrize(
    "name",
    [
        "net.3.up.weight",
        "plain.weight",
        "tok.emb.weight",
        "x.gain",
        "conv.weight",
        "a.1.b.2.w",
        "e.0.x",
    ],
)
def test_what_an_error_proposes_is_accepted(name: str, tmp_path: Path) -> None:
    shape = {"x.gain": (6,), "conv.weight": (4, 3, 5, 5), "e.0.x": (2, 3, 4)}.get(name, (6, 5))
    state = {name: r(*shape)}
    with pytest.raises(FamilyError) as caught:
        layout(state, partial=True)
    row = re.search(r"such as `([^`]+)`", str(caught.value))
    assert row is not None
    path = tmp_path / "axes.yaml"
    path.write_text(f"tensors:\n  {row[1]}\n", encoding="utf-8")
    assert name in layout(state, family=read_family(path)).weights
