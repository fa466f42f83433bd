"""Every family's axes on real models: renaming neurons everywhere leaves the outputs alone.

The models are tiny, randomly initialised and built from their config; nothing is downloaded.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import transformers
from torch import Tensor, nn

from rclib.families.layout import FamilyError, Layout, base, layout
from rclib.nets.gpt import GPT, gpt_axes
from rclib.resizing.checkpoint import apply_maps, resize_checkpoint
from rclib.rowcolumn.transfer import draw_index_maps

VOCABULARY, CONTEXT = 40, 16
ROTARY = ("gpt_neox", "gpt_neox_sequential", "gpt_neox_tied", "gptj")
N, HEADS, KV = 24, 6, 2
FREE = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": VOCABULARY}
PLAIN = {
    "hidden_size": N, "num_attention_heads": HEADS, "num_hidden_layers": 2,
    "intermediate_size": 36, "max_position_embeddings": CONTEXT, **FREE,
}  # fmt: skip
GROUPED = {**PLAIN, "num_key_value_heads": KV}
EXPERTS = {
    "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 28,
}  # fmt: skip
LATENT = PLAIN | {
    "kv_lora_rank": 9, "q_lora_rank": 11, "qk_nope_head_dim": 3, "qk_rope_head_dim": 2,
    "v_head_dim": 5, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 20, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "num_key_value_heads": HEADS,
}  # fmt: skip
OPT = {
    "hidden_size": N, "num_hidden_layers": 2, "ffn_dim": 36, "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT, **FREE,
}  # fmt: skip
T5 = {
    "d_model": N, "d_kv": 5, "d_ff": 36, "num_layers": 2, "num_heads": HEADS,
    "relative_attention_num_buckets": 8, "decoder_start_token_id": 0, "vocab_size": VOCABULARY,
}  # fmt: skip
FALCON = {
    "hidden_size": N, "num_hidden_layers": 2, "num_attention_heads": HEADS,
    "ffn_hidden_size": 36, "new_decoder_architecture": False, **FREE,
}  # fmt: skip
GPT2 = {"n_embd": N, "n_head": HEADS, "n_layer": 2, "n_positions": CONTEXT, "n_inner": 36, **FREE}

transformers.logging.set_verbosity_error()


def gpt2(**options: Any) -> tuple[type, Any]:
    size = {"n_embd": N, "n_head": HEADS, "n_layer": 2, "n_positions": CONTEXT, "n_inner": 36}
    return transformers.GPT2LMHeadModel, transformers.GPT2Config(**size | FREE | options)


def other(kind: str, config: str, given: dict[str, Any], **options: Any) -> tuple[type, Any]:
    return getattr(transformers, kind), getattr(transformers, config)(**given | options)


MODELS: dict[str, Any] = {
    "gpt2": gpt2,
    "gpt2_untied": lambda **o: gpt2(tie_word_embeddings=False, **o),
    "gpt_neox": lambda **o: (
        transformers.GPTNeoXForCausalLM,
        transformers.GPTNeoXConfig(**PLAIN | {"rotary_pct": 0.5} | o),
    ),
    "gpt_neox_sequential": lambda **o: (
        transformers.GPTNeoXForCausalLM,
        transformers.GPTNeoXConfig(**PLAIN | {"use_parallel_residual": False} | o),
    ),
    "gpt_neox_tied": lambda **o: (
        transformers.GPTNeoXForCausalLM,
        transformers.GPTNeoXConfig(**PLAIN | {"tie_word_embeddings": True} | o),
    ),
    "llama": lambda **o: (transformers.LlamaForCausalLM, transformers.LlamaConfig(**GROUPED | o)),
    "llama_biases": lambda **o: (
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(**PLAIN | {"attention_bias": True, "mlp_bias": True} | o),
    ),
    "mistral": lambda **o: (
        transformers.MistralForCausalLM,
        transformers.MistralConfig(**GROUPED | o),
    ),
    "qwen2": lambda **o: (transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**GROUPED | o)),
    "qwen2_tied": lambda **o: (
        transformers.Qwen2ForCausalLM,
        transformers.Qwen2Config(**GROUPED | {"tie_word_embeddings": True} | o),
    ),
    "qwen3": lambda **o: (
        transformers.Qwen3ForCausalLM,
        transformers.Qwen3Config(**GROUPED | {"head_dim": 8} | o),
    ),
    "phi3": lambda **o: (transformers.Phi3ForCausalLM, transformers.Phi3Config(**GROUPED | o)),
    "bert": lambda **o: (transformers.BertForPreTraining, transformers.BertConfig(**PLAIN | o)),
    "minilm": lambda **o: (transformers.BertModel, transformers.BertConfig(**PLAIN | o)),
    **{
        name: partial(other, kind, config, given)
        for name, kind, config, given in (
            ("gemma", "GemmaForCausalLM", "GemmaConfig", GROUPED | {"head_dim": 8}),
            ("gemma2", "Gemma2ForCausalLM", "Gemma2Config", GROUPED | {"head_dim": 8}),
            ("gemma3", "Gemma3ForCausalLM", "Gemma3TextConfig", GROUPED | {"head_dim": 8}),
            ("granite", "GraniteForCausalLM", "GraniteConfig", GROUPED),
            ("stablelm", "StableLmForCausalLM", "StableLmConfig", GROUPED),
            ("starcoder2", "Starcoder2ForCausalLM", "Starcoder2Config", GROUPED),
            ("smollm3", "SmolLM3ForCausalLM", "SmolLM3Config", GROUPED),
            ("cohere", "CohereForCausalLM", "CohereConfig", GROUPED),
            ("olmo2", "Olmo2ForCausalLM", "Olmo2Config", GROUPED),
            ("mixtral", "MixtralForCausalLM", "MixtralConfig", GROUPED | {"num_local_experts": 3}),
            ("qwen2_moe", "Qwen2MoeForCausalLM", "Qwen2MoeConfig", GROUPED | EXPERTS),
            ("qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3MoeConfig", GROUPED | EXPERTS),
            ("olmoe", "OlmoeForCausalLM", "OlmoeConfig", GROUPED | EXPERTS),
            ("gpt_oss", "GptOssForCausalLM", "GptOssConfig",
             GROUPED | {"num_local_experts": 3, "head_dim": 8, "num_experts_per_tok": 2}),
            ("deepseek_v3", "DeepseekV3ForCausalLM", "DeepseekV3Config", LATENT),
            ("phi", "PhiForCausalLM", "PhiConfig", PLAIN),
            ("opt", "OPTForCausalLM", "OPTConfig", OPT | {"word_embed_proj_dim": N}),
            ("opt_350m", "OPTForCausalLM", "OPTConfig",
             OPT | {"word_embed_proj_dim": 10, "do_layer_norm_before": False}),
            ("t5", "T5ForConditionalGeneration", "T5Config", T5),
            ("t5_gated", "T5ForConditionalGeneration", "T5Config",
             T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
            ("falcon_7b", "FalconForCausalLM", "FalconConfig", FALCON | {"multi_query": True}),
            ("falcon_40b", "FalconForCausalLM", "FalconConfig",
             FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
            ("falcon_rw", "FalconForCausalLM", "FalconConfig",
             FALCON | {"multi_query": False, "alibi": True, "bias": True, "parallel_attn": False}),
            ("bloom", "BloomForCausalLM", "BloomConfig",
             {"hidden_size": N, "n_layer": 2, "n_head": HEADS, **FREE}),
            ("bigcode_one", "GPTBigCodeForCausalLM", "GPTBigCodeConfig", GPT2),
            ("bigcode_many", "GPTBigCodeForCausalLM", "GPTBigCodeConfig",
             GPT2 | {"multi_query": False}),
            ("gptj", "GPTJForCausalLM", "GPTJConfig", GPT2 | {"rotary_dim": 2}),
            ("gpt_neo", "GPTNeoForCausalLM", "GPTNeoConfig",
             {"hidden_size": N, "num_layers": 2, "num_heads": HEADS, "intermediate_size": 36,
              "attention_types": [[["global", "local"], 1]], "max_position_embeddings": CONTEXT,
              **FREE}),
            ("mpt", "MptForCausalLM", "MptConfig",
             {"d_model": N, "n_heads": HEADS, "n_layers": 2, "max_seq_len": CONTEXT, **FREE}),
            ("roberta", "RobertaForMaskedLM", "RobertaConfig",
             PLAIN | {"max_position_embeddings": CONTEXT + 2}),
            ("electra", "ElectraForMaskedLM", "ElectraConfig", PLAIN | {"embedding_size": 10}),
            ("distilbert", "DistilBertForMaskedLM", "DistilBertConfig",
             {"dim": N, "n_layers": 2, "n_heads": HEADS, "hidden_dim": 36,
              "max_position_embeddings": CONTEXT, **FREE}),
            ("vit", "ViTForImageClassification", "ViTConfig",
             {"hidden_size": N, "num_hidden_layers": 2, "num_attention_heads": HEADS,
              "intermediate_size": 36, "image_size": 16, "patch_size": 4}),
        )
    },
    "rclib_gpt": lambda **o: (GPT, o),
    "rclib_gpt_rotary": lambda **o: (GPT, {"positions": "rotary", "norm": "rms"} | o),
}  # fmt: skip


def build(name: str, **options: Any) -> nn.Module:
    """The model in float64 with every parameter random, gains and biases included."""
    kind, config = MODELS[name](**options)
    torch.manual_seed(0)
    if kind is GPT:
        model: nn.Module = GPT(
            config.pop("width", N), blocks=2, context=CONTEXT, vocabulary=VOCABULARY, head_size=4,
            **config,
        )  # fmt: skip
    else:
        model = kind(config)
    if hasattr(model, "config"):
        model.config._experts_implementation = "eager"  # the fast one knows no float64
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


@cache
def small(name: str) -> nn.Module:
    return build(name)


def configuration(model: nn.Module) -> Mapping[str, Any] | None:
    config = getattr(model, "config", None)
    return None if config is None else config.to_dict()


def outputs(model: nn.Module) -> Tensor:
    tokens = torch.randint(3, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(1))
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        if isinstance(model, GPT):
            found: Any = model(tokens)
        elif isinstance(model, transformers.ViTForImageClassification):
            found = model(images)
        elif isinstance(model, transformers.T5ForConditionalGeneration):
            found = model(tokens, decoder_input_ids=tokens[:, :7], use_cache=False).logits
        elif isinstance(model, transformers.RobertaForMaskedLM | transformers.BertPreTrainedModel):
            found = model(tokens)
        elif "use_cache" in inspect.signature(model.forward).parameters:
            found = model(tokens, use_cache=False)
        else:
            found = model(tokens)
    if isinstance(found, Tensor):
        return found
    # BERT's two heads, or the hidden states and the pooled one, side by side.
    return torch.cat([t.flatten(1) for t in found.values() if isinstance(t, Tensor)], dim=1)


def with_state(model: nn.Module, state: Mapping[str, Tensor]) -> Tensor:
    """Outputs with other weights of the same sizes; the model is left as it was."""
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(dict(state))
    try:
        return outputs(model)
    finally:
        model.load_state_dict(kept)


def plan(model: nn.Module) -> Layout:
    return layout(model.state_dict(), configuration(model))


def hidden(name: str, described: Layout) -> set[str]:
    """Indices whose order is the model's own business: all but those seen at its ends."""
    ends = {
        "vocab", "vocabulary", "position", "type", "next", "label", "colour", "one", "x", "y",
        "bucket", "expert", "rope",
    }  # fmt: skip
    inside = {base(i) for i in described.sizes} - ends
    bigcode = name.startswith("bigcode")
    if name in ROTARY or name == "rclib_gpt_rotary" or ("kv" in inside and not bigcode):
        inside -= {"qk", "query"}  # rotary positions
    if name in ("bloom", "mpt", "falcon_rw"):
        inside -= {"head", "kv"}  # slopes by head
    if name == "minilm":
        inside -= {"stream", "pooled"}  # its output
    return inside


def permutations(described: Layout, indices: set[str], seed: int = 0) -> Any:
    return draw_index_maps(
        described.axes,
        described.sizes,
        {i: n for i, n in described.sizes.items() if base(i) in indices},
        replacement=False,
        generator=torch.Generator().manual_seed(seed),
    )


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_is_matched(name: str) -> None:
    model = small(name)
    described = plan(model)
    parameters = {n for n, p in model.named_parameters(remove_duplicate=False)}
    assert parameters <= set(described.weights)
    assert described.blocks == (0, 1)
    stream = [w for w in described.axes.values() if "stream" in w]
    assert described.sizes["stream"] == N
    assert len(stream) > 10


@pytest.mark.parametrize("name", MODELS)
def test_renaming_all_neurons_at_once_leaves_the_outputs_alone(name: str) -> None:
    model = small(name)
    described = plan(model)
    maps = permutations(described, hidden(name, described))
    moved = apply_maps(model.state_dict(), described, maps)
    changed = [n for n, t in model.state_dict().items() if not torch.equal(t, moved[n])]
    assert len(changed) > (0.4 if name == "minilm" else 0.8) * len(moved)
    # Some models take the root mean square in float32, whatever the type of their weights.
    assert distance(with_state(model, moved), outputs(model)) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_renaming_one_index_in_one_piece_alone_changes_the_outputs(name: str) -> None:
    # The control: the same permutation on any single place of any index is another function.
    model = small(name)
    described = plan(model)
    before = outputs(model)
    for index in sorted(i for i in described.sizes if base(i) in hidden(name, described)):
        if described.sizes[index] == 1:
            continue
        shifted = torch.arange(described.sizes[index]).roll(1)
        places = [
            (piece, axis)
            for piece, indices in described.axes.items()
            for axis, own in enumerate(indices)
            # A key's bias without rotary positions shifts all scores alike: softmax is blind to it.
            if own == index
            and described.weights[piece.partition(":")[0]].axes.arrow
            # A tied embedding is loaded twice, the second time as the output matrix.
            and not (described.tied and described.tied.tied and piece == described.tied.embedding)
        ]
        assert len(places) > 1
        for place in (places[0], places[-1]):
            alone = apply_maps(model.state_dict(), described, {place: shifted})
            assert distance(with_state(model, alone), before) > 1e-4, (index, place)


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "mistral", "qwen2", "phi3"])
def test_rotary_entries_have_an_order(name: str) -> None:
    model = small(name)
    described = plan(model)
    moved = apply_maps(model.state_dict(), described, permutations(described, {"qk"}))
    assert distance(with_state(model, moved), outputs(model)) > 1e-3
    with pytest.raises(FamilyError, match="index 'qk' cannot be resized: rotary"):
        resize_checkpoint(model.state_dict(), described, {"qk": 2})


TWICE = {"n_embd": 2 * N, "n_head": 2 * HEADS, "n_inner": 72}
TWICE_FALCON = {
    "hidden_size": 2 * N, "num_attention_heads": 2 * HEADS, "num_kv_heads": 4,
    "ffn_hidden_size": 72,
}  # fmt: skip
WIDER: dict[str, dict[str, int]] = {
    "gpt2": TWICE,
    "gptj": TWICE,
    "bigcode_one": TWICE,
    "bigcode_many": TWICE,
    "rclib_gpt": {"width": 2 * N},
    "opt": {
        "hidden_size": 2 * N, "num_attention_heads": 2 * HEADS, "ffn_dim": 72,
        "word_embed_proj_dim": 2 * N,
    },
    "opt_350m": {"hidden_size": 2 * N, "num_attention_heads": 2 * HEADS, "ffn_dim": 72},
    "gpt_neo": {"hidden_size": 2 * N, "num_heads": 2 * HEADS, "intermediate_size": 72},
    "distilbert": {"dim": 2 * N, "n_heads": 2 * HEADS, "hidden_dim": 72},
    "deepseek_v3": {"hidden_size": 2 * N, "intermediate_size": 72},
    "falcon_7b": TWICE_FALCON,
    "falcon_40b": TWICE_FALCON,
}  # fmt: skip
# What growing cannot leave alone: a width in the forward pass, slopes that depend on the heads, a
# norm's width, a router's experts.
NOT_GROWN = (
    "minilm", "gemma", "gemma2", "gemma3", "t5", "t5_gated", "bloom", "mpt", "falcon_rw",
)  # fmt: skip
PLAIN_WIDER: dict[str, int] = {
    "hidden_size": 2 * N,
    "num_attention_heads": 2 * HEADS,
    "intermediate_size": 72,
}


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(NOT_GROWN)))
def test_growing_by_a_whole_multiple_keeps_the_function(name: str) -> None:
    # Every neuron, head and group is copied equally often: sums over inputs keep their values
    # with entries divided by the multiple, norms and embeddings need no change.
    model = small(name)
    described = plan(model)
    sizes = {base(i): n for i, n in described.sizes.items()}
    target = {i: 2 * sizes[i] for i in ("stream", "mlp", "head", "kv") if i in sizes}
    if name in ("mixtral", "olmoe", "gpt_oss"):
        target["slot"] = 72
    if name == "deepseek_v3":
        del target["head"]  # the width of a key is no head's share
    if name.startswith(("falcon_7b", "bigcode_one")):  # one key-value head stays one
        target |= {"kv": 1, "group": 2 * HEADS}
    options = dict(WIDER.get(name.removesuffix("_untied").removesuffix("_rotary"), PLAIN_WIDER))
    if "kv" in sizes and "num_kv_heads" not in options and not name.startswith("bigcode"):
        options["num_key_value_heads"] = 2 * sizes["kv"]
    if name == "bert":
        target["pooled"] = 2 * N
    wide = build(name, **options)
    exponents = model.fan_in_exponents() if isinstance(model, GPT) else None
    state = resize_checkpoint(
        model.state_dict(), described, target, replacement=False, fan_in_exponents=exponents
    )
    assert distance(with_state(wide, state), outputs(model)) < 1e-5


def test_query_heads_grow_inside_their_groups() -> None:
    model = small("mistral")
    described = plan(model)
    wide = build("mistral", num_attention_heads=2 * HEADS, head_dim=N // HEADS)
    state = resize_checkpoint(
        model.state_dict(), described, {"group": 2 * HEADS // KV}, replacement=False
    )
    assert distance(with_state(wide, state), outputs(model)) < 1e-5


def test_shrinking_keeps_the_shared_index() -> None:
    # Rows of up, entries of its bias and columns of down come from the same neurons.
    model = small("gpt2")
    described, state = plan(model), model.state_dict()
    moved = resize_checkpoint(state, described, {"mlp": 10}, replacement=False, seed=5)
    up, down = "transformer.h.1.mlp.c_fc.", "transformer.h.1.mlp.c_proj."
    old, new = state[up + "bias"], moved[up + "bias"]
    source = [int((old == entry).nonzero()) for entry in new]
    assert len(set(source)) == 10
    assert torch.equal(moved[up + "weight"], state[up + "weight"][:, source])
    scaled = state[down + "weight"][source] * (36 / 10)
    torch.testing.assert_close(moved[down + "weight"], scaled, rtol=1e-12, atol=0)
    assert torch.equal(moved["transformer.wte.weight"], state["transformer.wte.weight"])
    with pytest.raises(FamilyError, match=r"unknown index 'heads'; this model has \['head', "):
        resize_checkpoint(state, described, {"heads": 3})


def test_a_head_moves_as_a_whole_in_fused_matrices() -> None:
    model = small("gpt_neox")
    described, state = plan(model), model.state_dict()
    moved = apply_maps(state, described, permutations(described, {"head"}, seed=2))
    name = "gpt_neox.layers.0.attention.query_key_value.weight"
    before, after = (t[name].view(HEADS, 3 * N // HEADS, N) for t in (state, moved))
    order = [next(i for i in range(HEADS) if torch.equal(before[i], head)) for head in after]
    assert sorted(order) == list(range(HEADS))
    assert order != list(range(HEADS))


def test_tables_tell_the_family_without_a_config() -> None:
    # Head counts are in no shape of these; the names say the family, the sizes are given.
    for name, family, sizes in (
        ("gpt2", "gpt2", {"head": HEADS}),
        ("gpt_neox", "gpt_neox", {"head": HEADS}),
        ("qwen2", "llama", {"kv": KV}),
        ("bert", "bert", {"head": HEADS}),
        ("rclib_gpt", "rclib_gpt", {}),
    ):
        model = small(name)
        found = layout(model.state_dict(), sizes=sizes)
        assert found.family == family
        assert found.sizes == plan(model).sizes
        if sizes:
            (index,) = sizes
            with pytest.raises(FamilyError, match=rf"give .*--size {index}=NUMBER"):
                layout(model.state_dict())


def test_axes_of_this_projects_gpt_are_its_own() -> None:
    for options in ({}, {"positions": "rotary", "norm": "rms"}, {"bias": "none"}):
        model = build("rclib_gpt", **options)
        found = layout(model.state_dict())
        wanted = gpt_axes(2, **{k: v for k, v in options.items() if k != "bias"},
                          bias=options.get("bias") != "none")  # fmt: skip
        assert found.axes == wanted == model.axes


def test_repr_says_what_was_found() -> None:
    state = {"h.0.mlp.c_fc.weight": torch.randn(12, 30), "h.1.mlp.c_fc.weight": torch.randn(12, 28)}
    found = layout(state, {"model_type": "gpt2"})
    assert repr(found) == (
        "<Layout gpt2: 2 tensors, 2 blocks, sets " + ", ".join(found.sets) + "; sizes "
        "stream 12, mlp 28/30>"
    )


def test_sizes_come_in_the_order_of_the_tensors() -> None:
    """Maps are drawn index by index: one seed draws the same in every process."""
    state = {f"h.{b}.{n}.weight": torch.zeros(s) for b in range(8) for n, s in GPT2_BLOCK.items()}
    state |= {"wte.weight": torch.zeros(30, 8), "wpe.weight": torch.zeros(9, 8)}
    found = layout(state, {"model_type": "gpt2", "n_head": 2}, partial=True)
    for index in ("head", "mlp"):
        assert [i for i in found.sizes if i.startswith(index)] == [f"{index}.{b}" for b in range(8)]


GPT2_BLOCK = {
    "attn.c_attn": (8, 24), "attn.c_proj": (8, 8), "mlp.c_fc": (8, 32), "mlp.c_proj": (32, 8),
}  # fmt: skip
