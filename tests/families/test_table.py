"""rclib.families.table: tables as files, names with prefixes, sizes from a config, bad tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from rclib.families.layout import FamilyError, known_families, layout
from rclib.families.matching import TABLES
from rclib.families.table import read_family

OWN = """
family: my_model
tensors:
  embed.weight: vocab stream
  blk.{b}.qkv.weight: "[q: head.{b} qk.{b} | k: head.{b} qk.{b} | v: head.{b} vo.{b}] <- stream"
  blk.{b}.out.weight: stream <- (head.{b} vo.{b})
  blk.{b}.up.weight: mlp.{b} <- stream
  blk.{b}.down.weight: stream <- mlp.{b}
  blk.{b}.expert.{e}.up.weight: expert.{b}.{e} <- stream
sets: {stream: stream, MLP hidden: mlp, channels: head vo}
sizes: {head: [n_head, heads / copies]}
ignore: ["blk.{b}.mask"]
"""


def state(heads: int = 2) -> dict[str, torch.Tensor]:
    shapes = {
        "embed.weight": (11, 6), "blk.0.qkv.weight": (3 * 4 * heads, 6),
        "blk.0.out.weight": (6, 4 * heads), "blk.0.up.weight": (9, 6), "blk.0.down.weight": (6, 9),
        "blk.0.expert.7.up.weight": (5, 6), "blk.0.mask": (4, 4),
    }  # fmt: skip
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def write(folder: Path, text: str) -> Path:
    path = folder / "table.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    family = read_family(write(tmp_path, OWN))
    found = layout(state(), {"n_head": 2}, family=family)
    assert (found.family, found.ignored, found.blocks) == ("my_model", ("blk.0.mask",), (0,))
    assert found.axes["blk.0.qkv.weight:v"] == ("head.0", "vo.0", "stream")
    assert found.axes["blk.0.expert.7.up.weight"] == ("expert.0.7", "stream")
    assert found.sizes == {
        "vocab": 11, "stream": 6, "head.0": 2, "qk.0": 4, "vo.0": 4, "mlp.0": 9, "expert.0.7": 5,
    }  # fmt: skip
    assert found.weights["blk.0.up.weight"].label == "up"
    assert found.sets["channels"] == ("head", "vo")


def test_sizes_come_from_the_config_or_are_given(tmp_path: Path) -> None:
    family = read_family(write(tmp_path, OWN))
    assert layout(state(3), {"heads": 6, "copies": 2}, family=family).sizes["qk.0"] == 4
    assert layout(state(3), {"n_head": 1}, family=family, sizes={"head": 3}).sizes["qk.0"] == 4
    for config in ({}, {"n_head": "2"}, {"n_head": True}, {"n_head": 0}, {"heads": 3, "copies": 2}):
        with pytest.raises(FamilyError, match=r"size of head, qk, vo: give --size head=NUMBER, or"):
            layout(state(), config, family=family)
    with pytest.raises(FamilyError, match=r"'blk.0.out.weight'.*axis of 8.*head.0 = 3, vo.0 = \?"):
        layout(state(), {"n_head": 3}, family=family)
    with pytest.raises(FamilyError, match="unknown index 'heads'; 'my_model' has "):
        layout(state(), family=family, sizes={"heads": 3})


def test_a_table_without_sizes_says_where_they_go(tmp_path: Path) -> None:
    """All three were asked for, although the number of heads tells the others."""
    text = "".join(line for line in OWN.splitlines(True) if not line.startswith("sizes:"))
    family = read_family(write(tmp_path, text))
    wanted = r"--size vo=NUMBER \(one may tell the others\), or `sizes` in a table"
    with pytest.raises(FamilyError, match=wanted):
        layout(state(), {}, family=family)
    family = read_family(write(tmp_path, f"{text}sizes: {{head: 2}}\n"))
    assert layout(state(), {}, family=family).sizes["vo.0"] == 4


def test_names_with_prefixes_and_old_endings() -> None:
    # What DataParallel, torch.compile and the first BERT releases put around a name.
    (bert,) = [f for f in known_families() if f.name == "bert"]
    row = "encoder.layer.{b}.output.LayerNorm.weight"
    for name in (
        "encoder.layer.3.output.LayerNorm.weight",
        "bert.encoder.layer.3.output.LayerNorm.weight",
        "module.bert.encoder.layer.3.output.LayerNorm.gamma",
        "module._orig_mod.bert.encoder.layer.3.output.LayerNorm.weight",
    ):
        assert bert.find(name) == (row, {"b": "3"})
    for name in (
        "gpt.encoder.layer.3.output.LayerNorm.weight",
        "encoder.layer.x.output.dense.bias",
    ):
        assert bert.find(name) is None
    assert bert.ignores("bert.embeddings.position_ids")


def test_every_shipped_table_can_be_read_and_compares_its_main_indices() -> None:
    families = known_families()
    names = {family.name for family in families}
    assert names == {path.stem for path in TABLES.glob("*.yaml")}
    assert {"gpt2", "gpt_neox", "llama", "bert", "rclib_gpt"} <= names
    kinds = [kind for family in families for kind in family.model_types]
    assert len(kinds) == len(set(kinds))
    assert {"gpt2", "gpt_neox", "llama", "mistral", "qwen2", "bert"} <= set(kinds)
    for family in families:
        images = "resnet" in family.name or "vit" in family.name
        assert {"stage" if "resnet" in family.name else "stream"} <= set(family.sets)
        assert images or "vocabulary" in family.sets
        hidden = {"MLP hidden", "hidden of all experts", "inner channels"} & set(family.sets)
        assert hidden, family.name


def test_unknown_layouts_name_what_is_unmatched_and_how_to_describe_it() -> None:
    tensors = {
        **{f"net.{i}.up.weight": torch.zeros(8, 4) for i in range(3)}, "net.out": torch.zeros(4),
    }  # fmt: skip
    with pytest.raises(FamilyError) as caught:
        layout(tensors)
    message = str(caught.value)
    assert "net.{b}.up.weight (8x4, 3 times), net.out (4)" in message
    assert "--axes FILE.yaml" in message
    assert "`net.{b}.up.weight: mlp.{b} <- stream`" in message
    assert "\n" not in message
    # A known kind with one row too few names that row alone.
    config = {"model_type": "gpt2", "n_head": 1}
    with pytest.raises(FamilyError, match=r"table 'gpt2' .* has no row for extra \(4\); describe"):
        layout({"wte.weight": torch.zeros(5, 4), "extra": torch.zeros(4)}, config)


def test_two_stacks_with_the_same_numbers_are_told_apart(tmp_path: Path) -> None:
    rows = "tensors:\n  enc.{b}.up: mlp.{b} <- stream\n  dec.{b}.up: mlp.{b} <- stream\n"
    tensors = {f"{stack}.{b}.up": torch.zeros(4, 3) for stack in ("enc", "dec") for b in (0, 1)}
    found = layout(tensors, family=read_family(write(tmp_path, rows)))
    assert [w.label for w in found.weights.values()] == list(tensors)


def test_names_that_are_no_text_for_a_terminal() -> None:
    tensors = {"a\x1b[31m\nb": torch.zeros(2, 2), "x" * 5000: torch.zeros(2, 2)}
    with pytest.raises(FamilyError) as caught:
        layout(tensors)
    message = str(caught.value)
    assert message.isprintable()
    assert "a?[31m?b (2x2)" in message
    assert len(message) < 1000


def test_integers_are_no_weights_and_nothing_at_all_is_an_error() -> None:
    tensors = {"wte.weight": torch.zeros(5, 4), "steps": torch.zeros(3, dtype=torch.int64)}
    assert layout(tensors, {"model_type": "gpt2"}).ignored == ("steps",)
    with pytest.raises(FamilyError):
        layout({"steps": torch.zeros(3, dtype=torch.int64)})


def test_one_row_describes_one_tensor() -> None:
    tensors = {"wte.weight": torch.zeros(5, 4), "transformer.wte.weight": torch.zeros(5, 4)}
    with pytest.raises(FamilyError, match=r"'wte.weight' and 'transformer.wte.weight' are "):
        layout(tensors, {"model_type": "gpt2"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensors": None}, "tensors must map names to values, got NoneType"),
        ({"tensors": {}}, "tensors must have at least one row"),
        ({"tensors": {"a": 3}}, "tensors: 'a' must be text, got int"),
        ({"tensors": {"a": "x <-"}}, "axes 'x <-': expected an index, got the end"),
        ({"tensors": {"a": "x.{b}"}}, r"row 'a': its name has no placeholder \{b\}"),
        ({"tensors": {"a.{1}": "x"}}, "placeholders must be names"),
        ({"tensors": {1: "x"}}, "tensors must map names to values"),
        ({"sets": {"s": "nothing"}}, "sets: index 'nothing' occurs in no row"),
        ({"sets": {"s": ""}}, "every set needs indices"),
        ({"sizes": {"x": "a/b/c"}}, "'x' must be a number or keys"),
        ({"sizes": {"x": [0]}}, "'x' must be a number or keys"),
        ({"ordered": {"y": "why"}}, "ordered: index 'y' occurs in no row"),
        ({"ignore": "a"}, "ignore must be a list"),
        ({"model_types": [1]}, "model_types must be a list of texts"),
        ({"family": []}, "family must be text, got list"),
        ({"tied": {"head": "a"}}, "tied must have the keys"),
        (
            {"tied": {"head": "a", "embedding": "z", "default": True, "scaled": []}},
            "tied: 'z' is no row",
        ),
        ({"axes": {}}, "unknown key 'axes'; known are"),
    ],
)
def test_bad_tables_name_file_and_fault(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    table = {"tensors": {"a": "x"}, **change}
    path = write(tmp_path, yaml.safe_dump(table))
    with pytest.raises(FamilyError, match=message) as caught:
        read_family(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"a: [", b"\xff\xfe\x00", b"- 1\n- 2", b"", b"!!python/object/apply:os.system ['true']",
        b"a: &a [*a", b"x" * (1 << 20) + b"yy",
    ],
)  # fmt: skip
def test_what_is_no_table_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.yaml"
    path.write_bytes(content)
    with pytest.raises(FamilyError) as caught:
        read_family(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(FamilyError, match="cannot be read"):
        read_family(tmp_path / "missing.yaml")


def test_aliases_that_grow_without_end_stay_small(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path = write(tmp_path, "\n".join([*lines, "tensors: {w: *a11}"]))
    with pytest.raises(FamilyError) as caught:
        read_family(path)
    assert len(str(caught.value)) < 500
