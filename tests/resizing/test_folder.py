"""`resize_folder`: what `transformers` computes with the folder that was written.

The models are tiny, of random weights, built from their configurations; nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rclib.__main__ import main
from rclib.checkpoints.opening import Checkpoint, CheckpointError, open_checkpoint
from rclib.families.layout import FamilyError, layout
from rclib.resizing import folder
from rclib.resizing.checkpoint import resize_checkpoint
from rclib.resizing.folder import Resized, resize_folder

transformers.logging.set_verbosity_error()

N, HEADS, KV, MLP, VOCABULARY, CONTEXT = 24, 6, 2, 36, 40, 16
FREE = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": VOCABULARY}
PLAIN = {
    "hidden_size": N, "num_attention_heads": HEADS, "num_hidden_layers": 2,
    "intermediate_size": MLP, "max_position_embeddings": CONTEXT, **FREE,
}  # fmt: skip
GROUPED = PLAIN | {"num_key_value_heads": KV}
GPT2 = {"n_embd": N, "n_head": HEADS, "n_layer": 2, "n_positions": CONTEXT, "n_inner": MLP, **FREE}
OPT = {
    "hidden_size": N, "num_hidden_layers": 2, "ffn_dim": MLP, "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT, "word_embed_proj_dim": N, **FREE,
}  # fmt: skip
DISTIL = {
    "dim": N, "n_layers": 2, "n_heads": HEADS, "hidden_dim": MLP,
    "max_position_embeddings": CONTEXT, **FREE,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "LlamaForCausalLM": ("LlamaConfig", GROUPED),
    "MistralForCausalLM": ("MistralConfig", GROUPED | {"tie_word_embeddings": True}),
    "Qwen2ForCausalLM": ("Qwen2Config", GROUPED | {"tie_word_embeddings": True}),
    "Qwen3ForCausalLM": ("Qwen3Config", GROUPED | {"head_dim": 8}),
    "Phi3ForCausalLM": ("Phi3Config", GROUPED),
    "GraniteForCausalLM": ("GraniteConfig", GROUPED | {"logits_scaling": 2.0}),
    "StableLmForCausalLM": ("StableLmConfig", GROUPED),
    "Starcoder2ForCausalLM": ("Starcoder2Config", GROUPED),
    "GPT2LMHeadModel": ("GPT2Config", GPT2),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", PLAIN | {"rotary_pct": 0.5}),
    "BertForPreTraining": ("BertConfig", PLAIN),
    "RobertaForSequenceClassification": ("RobertaConfig", PLAIN | {"max_position_embeddings": 18}),
    "DistilBertForMaskedLM": ("DistilBertConfig", DISTIL),
    "PhiForCausalLM": ("PhiConfig", PLAIN),
    "OPTForCausalLM": ("OPTConfig", OPT),
}  # fmt: skip
# Under RMSNorm any sizes; under LayerNorm any but the width, which is a whole multiple.
ANY = {"width": 45, "heads": 9, "kv_heads": 3, "mlp": 50}
TWICE = {"width": 2 * N, "mlp": 50}
RMS = ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3", "Granite")


def build(name: str, **options: Any) -> nn.Module:
    """The model in float64 with every parameter random, gains and biases included."""
    config, given = MODELS[name]
    torch.manual_seed(0)
    made = getattr(transformers, config)(**given | options)
    model: nn.Module = getattr(transformers, name)(made)
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


def saved(name: str, path: Path, **options: Any) -> nn.Module:
    model: Any = build(name, **options)
    model.save_pretrained(path)
    return model  # type: ignore[no-any-return]


def outputs(model: nn.Module) -> Tensor:
    tokens = torch.randint(3, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: Any = model(tokens)
    return torch.cat([t.flatten(1) for t in found.values() if isinstance(t, Tensor)], dim=1)


def loaded(name: str, path: Path) -> nn.Module:
    model, info = getattr(transformers, name).from_pretrained(
        path, dtype=torch.float64, output_loading_info=True
    )
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    assert not info["mismatched_keys"], info
    return model.eval()  # type: ignore[no-any-return]


def resized(source: Path, out: Path, **options: Any) -> Resized:
    with open_checkpoint(str(source)) as checkpoint:
        described = layout(checkpoint.tensors, checkpoint.config)
        return resize_folder(checkpoint, described, out, **options)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_duplication_keeps_the_logits(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "a")
    sizes = ANY if name.startswith(RMS) else TWICE
    done = resized(tmp_path / "a", tmp_path / "b", **sizes, seed=3)
    assert done.plan.exact
    grown = loaded(name, tmp_path / "b")
    assert distance(outputs(grown), outputs(model)) < 1e-5
    assert sum(p.numel() for p in grown.parameters()) > sum(p.numel() for p in model.parameters())
    # The control: with the multipliers left out it is another function.
    with torch.no_grad():
        for parameter_name, parameter in grown.named_parameters():
            if parameter_name in done.plan.layout.weights and parameter.ndim > 1:
                low_high = done.plan.multipliers(parameter_name)
                if low_high is not None and low_high[0] < 1:
                    parameter /= low_high[0]
    assert distance(outputs(grown), outputs(model)) > 1e-2


@pytest.mark.parametrize("option", [{"heads": 8, "kv_heads": 2}, {"heads": 12}, {"mlp": 37}])
def test_heads_and_mlp_alone(option: dict[str, int], tmp_path: Path) -> None:
    model = saved("LlamaForCausalLM", tmp_path / "a")
    done = resized(tmp_path / "a", tmp_path / "b", **option)
    assert done.plan.exact
    assert distance(outputs(loaded("LlamaForCausalLM", tmp_path / "b")), outputs(model)) < 1e-5
    config = json.loads((tmp_path / "b" / "config.json").read_text("utf-8"))
    assert (config["hidden_size"], config["head_dim"]) == (N, N // HEADS)
    assert config["num_attention_heads"] == option.get("heads", HEADS)
    assert config["num_key_value_heads"] == option.get("kv_heads", 4 if "heads" in option else KV)
    assert config["intermediate_size"] == option.get("mlp", MLP)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "BertForPreTraining", "GPTNeoXForCausalLM"])
def test_layernorm_and_no_multiple_of_the_width_is_said(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "a")
    done = resized(tmp_path / "a", tmp_path / "b", width=28)
    assert not done.plan.exact
    assert "4 channels of the stream count 2 times" in done.plan.notes[0]
    assert distance(outputs(loaded(name, tmp_path / "b")), outputs(model)) > 1e-4


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPT2LMHeadModel", "GPTNeoXForCausalLM"])
@pytest.mark.parametrize("sizes", [{"width": 48}, {"width": 12}], ids=["grown", "shrunk"])
def test_rc_sampling_is_that_of_the_tensors_alone(
    name: str, sizes: dict[str, int], tmp_path: Path
) -> None:
    """Against `resize_checkpoint`, which cuts tensors into pieces and holds them whole."""
    saved(name, tmp_path / "a")
    done = resized(tmp_path / "a", tmp_path / "b", **sizes, method="rc", seed=5)
    assert not done.plan.exact
    with open_checkpoint(str(tmp_path / "a")) as checkpoint:
        state = {n: checkpoint.tensor(n) for n in checkpoint.tensors}
        target = {i: after for i, (_, after) in done.plan.sizes.items()}
        wanted = resize_checkpoint(state, done.plan.layout, target, seed=5)
    found = load_file(tmp_path / "b" / "model.safetensors")
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-14, atol=0)
    loaded(name, tmp_path / "b")
    drawn = json.loads((tmp_path / "b" / "resize.json").read_text("utf-8"))["drawn"]
    assert drawn == {i: p.tolist() for i, p in done.plan.maps.items()}


def test_shrinking_by_duplication_keeps_a_subset_in_order(tmp_path: Path) -> None:
    saved("LlamaForCausalLM", tmp_path / "a")
    done = resized(tmp_path / "a", tmp_path / "b", mlp=30)
    assert not done.plan.exact
    assert "random subset of mlp" in done.plan.notes[0]
    kept = done.plan.maps["mlp.1"]
    assert torch.equal(kept, kept.unique())
    name = "model.layers.1.mlp.down_proj.weight"
    before = load_file(tmp_path / "a" / "model.safetensors")[name]
    after = load_file(tmp_path / "b" / "model.safetensors")[name]
    torch.testing.assert_close(after, before[:, kept] * (36 / 30))


def test_pieces_and_shards_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "Phi3ForCausalLM"
    model: Any = saved(name, tmp_path / "a")
    resized(tmp_path / "a", tmp_path / "b", **ANY)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    monkeypatch.setattr(folder, "WHOLE", 0)
    monkeypatch.setattr(folder, "PIECE", 1000)
    done: list[int] = []
    found = resized(
        tmp_path / "shards", tmp_path / "c", **ANY, shard_bytes=20_000, progress=done.append
    )
    assert sum(done) == found.nbytes
    index = json.loads((tmp_path / "c" / "model.safetensors.index.json").read_text("utf-8"))
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert index["metadata"]["total_size"] == found.nbytes
    whole = load_file(tmp_path / "b" / "model.safetensors")
    parts = {n: t for file in files for n, t in load_file(tmp_path / "c" / file).items()}
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[n], whole[n]) for n in whole)
    assert distance(outputs(loaded(name, tmp_path / "c")), outputs(model)) < 1e-5


class NanoGPT(nn.Module):
    """The model of nanoGPT, written after its description: pre-norm, GELU, tied, no head size."""

    class Block(nn.Module):
        def __init__(self, n: int, heads: int, bias: bool) -> None:
            super().__init__()
            self.heads = heads
            self.ln_1, self.ln_2 = nn.LayerNorm(n, bias=bias), nn.LayerNorm(n, bias=bias)
            self.attn = nn.ModuleDict({
                "c_attn": nn.Linear(n, 3 * n, bias=bias), "c_proj": nn.Linear(n, n, bias=bias),
            })  # fmt: skip
            self.mlp = nn.ModuleDict({
                "c_fc": nn.Linear(n, 4 * n, bias=bias), "c_proj": nn.Linear(4 * n, n, bias=bias),
            })  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            parts = self.attn["c_attn"](self.ln_1(x)).chunk(3, -1)
            q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.attn["c_proj"](y.transpose(1, 2).flatten(2))
            hidden = nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)))
            return x + self.mlp["c_proj"](hidden)

    def __init__(
        self, n_embd: int, n_head: int, n_layer: int, block_size: int, vocab_size: int, bias: bool
    ) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(vocab_size, n_embd), "wpe": nn.Embedding(block_size, n_embd),
            "h": nn.ModuleList(self.Block(n_embd, n_head, bias) for _ in range(n_layer)),
            "ln_f": nn.LayerNorm(n_embd, bias=bias),
        })  # fmt: skip
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, tokens: Tensor) -> Tensor:
        t = self.transformer
        x = t["wte"](tokens) + t["wpe"](torch.arange(tokens.shape[1]))
        for block in t["h"]:  # type: ignore[union-attr]
            x = block(x)
        return self.lm_head(t["ln_f"](x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("bias", [True, False])
def test_nanogpt_from_its_own_file_to_its_own_file(bias: bool, tmp_path: Path) -> None:
    arguments = {
        "n_embd": N, "n_head": HEADS, "n_layer": 2, "block_size": CONTEXT, "vocab_size": 40,
        "bias": bias,
    }  # fmt: skip
    torch.manual_seed(0)
    model = NanoGPT(**arguments).double()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    state = {f"_orig_mod.{n}": t for n, t in model.state_dict().items()}
    torch.save(
        {"model": state, "model_args": arguments, "iter_num": 7, "config": {"dataset": "x"}},
        tmp_path / "ckpt.pt",
    )
    done = resized(tmp_path / "ckpt.pt", tmp_path / "b", width=3 * N)
    assert done.plan.exact
    made = torch.load(tmp_path / "b" / "ckpt.pt", weights_only=True)
    assert made["model_args"] == arguments | {"n_embd": 3 * N, "n_head": 3 * HEADS}
    grown = NanoGPT(**made["model_args"]).double()
    grown.load_state_dict({n.removeprefix("_orig_mod."): t for n, t in made["model"].items()})
    tokens = torch.randint(40, (2, CONTEXT))
    with torch.no_grad():
        assert distance(grown(tokens), model(tokens)) < 1e-5
    # The folder is read again, and resized back.
    back = resized(tmp_path / "b", tmp_path / "c", width=N)
    assert json.loads((tmp_path / "c" / "config.json").read_text("utf-8"))["model_args"] == (
        arguments | {"n_embd": N, "n_head": HEADS}
    )
    assert not back.plan.exact
    with pytest.raises(ValueError, match="mlp must be 4 times the width"):
        resized(tmp_path / "ckpt.pt", tmp_path / "d", width=2 * N, mlp=100)


def test_tokenizer_files_are_copied_and_others_named(tmp_path: Path) -> None:
    saved("LlamaForCausalLM", tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "a" / "modules.json").write_text("[]", encoding="utf-8")
    done = resized(tmp_path / "a", tmp_path / "b", mlp=40)
    assert set(done.copied) == {"tokenizer.json", "generation_config.json"}
    assert done.beside == ("modules.json",)
    assert sorted(done.files) == sorted(p.name for p in (tmp_path / "b").iterdir())


REFUSED: list[tuple[str, dict[str, int], str]] = [
    ("LlamaForCausalLM", {}, "nothing to resize: give width"),
    ("LlamaForCausalLM", {"width": N}, "nothing to resize: the model has these sizes"),
    ("LlamaForCausalLM", {"width": 25}, "heads must be given: 6 times 25/24"),
    (
        "LlamaForCausalLM",
        {"width": 25, "heads": 5, "kv_heads": 1},
        "mlp must be given: 36 times 25/24",
    ),
    ("LlamaForCausalLM", {"heads": 8}, "heads must be a multiple of 3, which share"),
    ("LlamaForCausalLM", {"heads": 8, "kv_heads": 3}, "heads must be a multiple of kv_heads"),
    ("LlamaForCausalLM", {"mlp": 0}, "mlp must be"),
    ("LlamaForCausalLM", {"heads": 9}, r"width must be a multiple of the heads \(9\).* 18 and 27"),
    ("GPT2LMHeadModel", {"width": 30}, "width must be a multiple of 4, the size of a head"),
    ("GPT2LMHeadModel", {"heads": 8}, "heads must be width / 4"),
    ("GPT2LMHeadModel", {"width": 48, "kv_heads": 4}, "kv_heads must be None for gpt2"),
]


@pytest.mark.parametrize(("name", "sizes", "message"), REFUSED)
def test_sizes_that_do_not_fit(
    name: str, sizes: dict[str, int], message: str, tmp_path: Path
) -> None:
    saved(name, tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        resized(tmp_path / "a", tmp_path / "b", **sizes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_models_that_cannot_be_resized_as_folders(tmp_path: Path) -> None:
    source, out = tmp_path / "a", tmp_path / "b"
    saved("LlamaForCausalLM", source)
    config = json.loads((source / "config.json").read_text("utf-8"))

    def refused(change: dict[str, Any], error: type[ValueError], message: str) -> None:
        (source / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
        with pytest.raises(error, match=message):
            resized(source, out, mlp=40)
        assert not out.exists()

    refused({"quantization_config": {"quant_method": "gptq"}}, FamilyError, r"quantised \(gptq\)")
    refused({"hidden_size": 99}, FamilyError, "config.json says hidden_size = 99, the weights 24")
    refused({"hidden_size": None}, FamilyError, "says hidden_size = None")
    weights = load_file(source / "model.safetensors")
    save_file(weights | {"extra.weight": torch.ones(3, 3)}, source / "model.safetensors")
    refused({}, FamilyError, "no row for extra.weight")
    eight = {n: t.to(torch.float8_e4m3fn) for n, t in weights.items()}
    save_file(eight, source / "model.safetensors")
    refused({}, CheckpointError, "holds float8_e4m3fn; resizing scales")
    with open_checkpoint(weights) as checkpoint:
        found = layout(checkpoint.tensors, sizes={"kv": KV, "group": HEADS // KV})
        with pytest.raises(FamilyError, match=r"no config.json beside the weights"):
            resize_folder(checkpoint, found, out, mlp=40)


@pytest.mark.parametrize(("name", "config", "given"), [
    ("GemmaForCausalLM", "GemmaConfig", GROUPED | {"head_dim": 8}),
    ("BloomForCausalLM", "BloomConfig", {"hidden_size": N, "n_layer": 2, "n_head": HEADS, **FREE}),
])  # fmt: skip
def test_families_whose_code_depends_on_the_width(
    name: str, config: str, given: dict[str, Any], tmp_path: Path
) -> None:
    made = getattr(transformers, name)(getattr(transformers, config)(**given))
    made.save_pretrained(tmp_path / "a")
    with pytest.raises(FamilyError, match=r"are not resized as folders.*known are bert, distilb"):
        resized(tmp_path / "a", tmp_path / "b", width=48)


def test_blocks_of_different_sizes_are_refused(tmp_path: Path) -> None:
    saved("LlamaForCausalLM", tmp_path / "a")
    state = load_file(tmp_path / "a" / "model.safetensors")
    for part in ("gate_proj", "up_proj", "down_proj"):
        name = f"model.layers.1.mlp.{part}.weight"
        state[name] = state[name][:, :30] if part == "down_proj" else state[name][:30]
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "a" / "model.safetensors")
    with pytest.raises(FamilyError, match=r"blocks differ in 'mlp' \(36 and 30\)"):
        resized(tmp_path / "a", tmp_path / "b", mlp=40)


def test_half_precision_is_kept_or_refused(tmp_path: Path) -> None:
    model: Any = build("GPT2LMHeadModel").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "a")
    assert resized(tmp_path / "a", tmp_path / "b", width=2 * N).plan.exact
    grown = loaded("GPT2LMHeadModel", tmp_path / "b")
    # Halves are exact in bfloat16, so the function is kept in float64 arithmetic.
    assert distance(outputs(grown), outputs(model.double())) < 1e-5
    model.half().save_pretrained(tmp_path / "c")
    state = load_file(tmp_path / "c" / "model.safetensors")
    state["transformer.h.0.mlp.c_proj.weight"][:] = 6e4
    save_file(state, tmp_path / "c" / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"'.*mlp.c_proj.weight' leaves the range of torch.float16"
    ):
        resized(tmp_path / "c", tmp_path / "d", width=12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


def test_folders_that_are_there_stay(tmp_path: Path) -> None:
    saved("GPT2LMHeadModel", tmp_path / "a")
    (tmp_path / "b").mkdir()
    assert resized(tmp_path / "a", tmp_path / "b", width=48).folder == tmp_path / "b"
    before = (tmp_path / "b" / "model.safetensors").read_bytes()
    for out in (tmp_path / "b", tmp_path / "a" / "config.json"):
        with pytest.raises(ValueError, match=r"is not empty|is no folder"):
            resized(tmp_path / "a", out, width=72)
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == before


def test_unknown_methods_and_models_in_memory(tmp_path: Path) -> None:
    model: Any = build("LlamaForCausalLM")
    with open_checkpoint(model) as opened:
        readers = list(opened._readers)
        checkpoint = Checkpoint("live", readers, model.config.to_dict())
        found = layout(checkpoint.tensors, checkpoint.config)
        with pytest.raises(ValueError, match="method must be one of"):
            resize_folder(checkpoint, found, tmp_path / "x", mlp=40, method="net2net")
        resize_folder(checkpoint, found, tmp_path / "b", mlp=40)
    assert distance(outputs(loaded("LlamaForCausalLM", tmp_path / "b")), outputs(model)) < 1e-5


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = saved("LlamaForCausalLM", tmp_path / "a")
    assert main(["resize", "a", "--out", "b", "--width", "45", "--heads", "9", "--mlp", "50"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("a: layout llama, by duplication, seed 0; the function is kept")
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert rows["stream"][1:6] == ["24", "45", "24", "1", "to"]
    assert rows["mlp, 2 draws"][3:7] == ["36", "50", "36", "1"]
    assert rows["model.layers.{b}.mlp.down_proj.weight"][-2:] == ["0.484123", "1.36931"]
    assert distance(outputs(loaded("LlamaForCausalLM", tmp_path / "b")), outputs(model)) < 1e-5
    assert main(["resize", "a", "--out", "c", "--width", "12", "--method", "rc", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["sizes"]["mlp"] == [36, 18]
    assert not record["function_kept"]
    assert record["multipliers"]["model.layers.{b}.self_attn.o_proj.weight"] == [2.0, 2.0]
    assert main(["resize", "a", "--out", "b", "--width", "48"]) == 2
    assert capsys.readouterr().err == "error: out 'b' is not empty; give a new folder\n"
    assert main(["resize", "a", "--out", "d", "--width", "48", "--shard-size", "0"]) == 2
    assert "--shard-size must be positive GB" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    """An embedding of 300 MB becomes one of 600 MB within much less."""
    vocabulary = 600_000
    small = build(
        "LlamaForCausalLM", num_hidden_layers=1, hidden_size=132, tie_word_embeddings=True
    )
    state = {
        n: t.float().contiguous() for n, t in small.state_dict().items() if n != "lm_head.weight"
    }
    state["model.embed_tokens.weight"] = torch.ones(vocabulary, 132)
    (tmp_path / "a").mkdir()
    save_file(state, tmp_path / "a" / "model.safetensors")
    config = small.config.to_dict() | {"vocab_size": vocabulary}  # type: ignore[union-attr, operator]
    (tmp_path / "a" / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")
    del state
    code = (
        "import resource, sys; from rclib.__main__ import main; "
        "import rclib.resizing.folder, rclib.families.layout; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "status = main(['resize', 'a', '--out', 'b', '--width', '264', '--json']); "
        "now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "print(now - before, file=sys.stderr); sys.exit(status)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[-1]) < 150_000  # kB
    assert (tmp_path / "b" / "model.safetensors").stat().st_size > 600_000_000
