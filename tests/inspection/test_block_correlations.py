"""inspection.block_correlations.

Vectors by explicit slices, chance by simulation, planted structure.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from rclib.checkpoints.opening import CheckpointError, open_checkpoint
from rclib.families.layout import Layout, layout
from rclib.families.table import read_family
from rclib.inspection.block_correlations import block_correlations, block_vectors, expected_largest
from rclib.rowcolumn.measure import chance_level

N, HEADS, D, HIDDEN, VOCABULARY = 24, 6, 4, 40, 30


def gpt2_state(blocks: int = 2, seed: int = 0, n: int = N) -> dict[str, Tensor]:
    """GPT-2's tensors with i.i.d. entries, gains and biases included; float64."""
    generator = torch.Generator().manual_seed(seed)
    block = {
        "ln_1.weight": (n,), "ln_1.bias": (n,), "attn.c_attn.weight": (n, 3 * n),
        "attn.c_attn.bias": (3 * n,), "attn.c_proj.weight": (n, n), "attn.c_proj.bias": (n,),
        "ln_2.weight": (n,), "ln_2.bias": (n,), "mlp.c_fc.weight": (n, HIDDEN),
        "mlp.c_fc.bias": (HIDDEN,), "mlp.c_proj.weight": (HIDDEN, n), "mlp.c_proj.bias": (n,),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (VOCABULARY, n), "wpe.weight": (9, n)}
    for b in range(blocks):
        shapes |= {f"h.{b}.{name}": shape for name, shape in block.items()}
    shapes |= {"ln_f.weight": (n,), "ln_f.bias": (n,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def gpt2_layout(state: dict[str, Tensor]) -> Layout:
    return layout(state, {"model_type": "gpt2", "n_head": HEADS})


def measured(state: dict[str, Tensor], described: Layout | None = None, **options: object):  # type: ignore[no-untyped-def]
    with open_checkpoint(state) as checkpoint:
        described = described or gpt2_layout(state)
        return block_correlations(checkpoint, described, **{"biases": True, **options})


# The vectors -----------------------------------------------------------------------------------


def test_vectors_of_a_gpt2_block_by_slices() -> None:
    state = gpt2_state()
    with open_checkpoint(state) as checkpoint:
        vectors = block_vectors(checkpoint, gpt2_layout(state), biases=True)
    w = {name.removeprefix("h.1."): t.numpy() for name, t in state.items() if "h.1." in name}
    q, k, v = np.split(w["attn.c_attn.weight"], 3, axis=1)  # (in, out) as stored
    bq, bk, bv = np.split(w["attn.c_attn.bias"], 3)
    stream = {
        "ln_1.weight": w["ln_1.weight"], "ln_1.bias": w["ln_1.bias"],
        "attn.c_attn.q.R": q.mean(1), "attn.c_attn.k.R": k.mean(1), "attn.c_attn.v.R": v.mean(1),
        "attn.c_proj.C": w["attn.c_proj.weight"].mean(0), "attn.c_proj.bias": w["attn.c_proj.bias"],
        "ln_2.weight": w["ln_2.weight"], "ln_2.bias": w["ln_2.bias"],
        "mlp.c_fc.R": w["mlp.c_fc.weight"].mean(1),
        "mlp.c_proj.C": w["mlp.c_proj.weight"].mean(0), "mlp.c_proj.bias": w["mlp.c_proj.bias"],
    }  # fmt: skip
    hidden = {
        "mlp.c_fc.C": w["mlp.c_fc.weight"].mean(0), "mlp.c_fc.bias": w["mlp.c_fc.bias"],
        "mlp.c_proj.R": w["mlp.c_proj.weight"].mean(1),
    }  # fmt: skip
    channels = {
        "attn.c_attn.v.C": v.mean(0), "attn.c_attn.bias.v": bv,
        "attn.c_proj.R": w["attn.c_proj.weight"].mean(1),
    }  # fmt: skip
    heads = {
        "attn.c_attn.q.C": [q[:, h * D : (h + 1) * D].mean() for h in range(HEADS)],
        "attn.c_attn.k.C": [k[:, h * D : (h + 1) * D].mean() for h in range(HEADS)],
        "attn.c_attn.v.C": [v[:, h * D : (h + 1) * D].mean() for h in range(HEADS)],
        "attn.c_attn.bias.q": bq.reshape(HEADS, D).mean(1),
        "attn.c_attn.bias.k": bk.reshape(HEADS, D).mean(1),
        "attn.c_attn.bias.v": bv.reshape(HEADS, D).mean(1),
        "attn.c_proj.R": w["attn.c_proj.weight"].reshape(HEADS, -1).mean(1),
    }
    for key, wanted in (
        ((1, "stream", ("stream",)), stream),
        ((1, "MLP hidden", ("mlp.1",)), hidden),
        ((1, "value-output channels", ("head.1", "vo.1")), channels),
        ((1, "heads", ("head.1",)), heads),
    ):
        assert set(vectors[key]) == set(wanted)
        for label, vector in wanted.items():
            np.testing.assert_allclose(vectors[key][label], vector, rtol=0, atol=1e-7)


def test_vectors_of_interleaved_and_of_grouped_heads() -> None:
    generator = torch.Generator().manual_seed(1)
    fused = torch.randn(HEADS * 3 * D, N, generator=generator)
    state = {"layers.0.attention.query_key_value.weight": fused,
             "layers.0.attention.dense.weight": torch.randn(N, HEADS * D)}  # fmt: skip
    config = {"model_type": "gpt_neox", "num_attention_heads": HEADS}
    with open_checkpoint(state) as checkpoint:
        vectors = block_vectors(checkpoint, layout(state, config))
    cut = fused.double().view(HEADS, 3, D, N)
    for i, part in enumerate("qkv"):
        found = vectors[0, "stream", ("stream",)][f"attention.query_key_value.{part}.R"]
        torch.testing.assert_close(found, cut[:, i].mean((0, 1)), rtol=0, atol=1e-7)
    found = vectors[0, "query-key channels", ("head.0", "qk.0")]["attention.query_key_value.k.C"]
    torch.testing.assert_close(found, cut[:, 1].mean(-1).flatten(), rtol=0, atol=1e-7)

    # 2 key-value heads of 3 query heads each: q's channels are averaged over the group.
    kv, group = 2, 3
    shapes = {
        "q": (kv * group * D, N),
        "k": (kv * D, N),
        "v": (kv * D, N),
        "o": (N, kv * group * D),
    }
    name = "model.layers.0.self_attn.{}_proj.weight"
    llama = {name.format(p): torch.randn(s, generator=generator) for p, s in shapes.items()}
    config = {"model_type": "llama", "num_attention_heads": 6, "num_key_value_heads": 2}
    with open_checkpoint(llama) as checkpoint:
        vectors = block_vectors(checkpoint, layout(llama, config))
    q = llama[name.format("q")].double().mean(1).view(kv, group, D)
    o = llama[name.format("o")].double().mean(0).view(kv, group, D)
    qk = (0, "query-key channels", ("kv.0", "qk.0"))
    vo = (0, "value-output channels", ("kv.0", "vo.0"))
    heads = vectors[0, "query heads", ("kv.0", "group.0")]
    for found, wanted in (
        (vectors[qk]["self_attn.q_proj.C"], q.mean(1).flatten()),
        (vectors[vo]["self_attn.o_proj.R"], o.mean(1).flatten()),
        (heads["self_attn.q_proj.C"], q.mean(2).flatten()),
        (heads["self_attn.o_proj.R"], o.mean(2).flatten()),
        (vectors[0, "key-value heads", ("kv.0",)]["self_attn.o_proj.R"], o.mean((1, 2))),
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)


def test_tensors_of_three_axes_and_experts_of_their_own(tmp_path: Path) -> None:
    table = tmp_path / "table.yaml"
    table.write_text(
        """
tensors:
  b.{b}.q: head.{b} dim.{b} <- stream
  b.{b}.bias: head.{b} dim.{b}
  b.{b}.e.{e}.up: mlp.{b}.{e} <- stream
  b.{b}.e.{e}.down: stream <- mlp.{b}.{e}
sets: {stream: stream, channels: dim head, hidden: mlp}
""",
        encoding="utf-8",
    )
    state = {
        "b.0.q": torch.randn(3, 5, 7), "b.0.bias": torch.randn(3, 5),
        "b.0.e.0.up": torch.randn(6, 7), "b.0.e.0.down": torch.randn(7, 6),
        "b.0.e.1.up": torch.randn(8, 7), "b.0.e.1.down": torch.randn(7, 8),
    }  # fmt: skip
    described = layout(state, family=read_family(table))
    with open_checkpoint(state) as checkpoint:
        vectors = block_vectors(checkpoint, described, biases=True)
    channels = vectors[0, "channels", ("dim.0", "head.0")]  # the set's order: dim slowest
    wanted = state["b.0.q"].double().mean(2).t().flatten()
    torch.testing.assert_close(channels["q.C"], wanted, rtol=0, atol=1e-7)
    assert torch.equal(channels["bias"], state["b.0.bias"].double().t().flatten())
    wanted = state["b.0.q"].double().mean((0, 1))
    torch.testing.assert_close(vectors[0, "stream", ("stream",)]["q.R"], wanted, rtol=0, atol=1e-7)
    stream = vectors[0, "stream", ("stream",)]
    assert set(stream) == {"q.R", *(f"e.{e}.{m}" for e in "01" for m in ("up.R", "down.C"))}
    # Neurons of different experts are different neurons.
    found = measured(state, described)
    assert {r.set: r.n for r in found.rows} == {
        "stream": 7, "channels": 15, "hidden mlp.0.0": 6, "hidden mlp.0.1": 8,
    }  # fmt: skip


# The largest correlation -----------------------------------------------------------------------


def test_rows_of_the_table_by_numpy() -> None:
    state = gpt2_state(seed=4)
    found = measured(state)
    assert [(r.block, r.set) for r in found.rows] == [
        (b, s)
        for b in (0, 1)
        for s in ("stream", "MLP hidden", "heads", "query-key channels", "value-output channels")
    ] + [(None, "stream")]
    with open_checkpoint(state) as checkpoint:
        vectors = block_vectors(checkpoint, gpt2_layout(state), biases=True)
    group = vectors[0, "stream", ("stream",)]
    matrix = np.corrcoef(np.stack([v.numpy() for v in group.values()]))
    np.fill_diagonal(matrix, 0)
    row = found.rows[0]
    i, j = np.unravel_index(np.abs(matrix).argmax(), matrix.shape)
    assert {row.first, row.second} == {list(group)[i], list(group)[j]}
    assert row.value == pytest.approx(abs(matrix[i, j]), abs=1e-9)
    assert row.correlation == pytest.approx(matrix[i, j], abs=1e-9)
    assert (row.n, row.vectors, row.pairs) == (N, 12, 66)
    assert row.chance == chance_level(N, 66)
    pair = group[row.first].numpy(), group[row.second].numpy()
    assert row.rank_correlation == pytest.approx(stats.spearmanr(*pair).statistic)
    single = float(stats.pearsonr(*pair).pvalue)
    assert row.p_value == pytest.approx(1 - (1 - single) ** 66, rel=1e-6)
    largest = row.by_vector()
    assert max(v for v, _ in largest.values()) == row.value
    assert largest[row.first] == (row.value, row.second)
    table = found.table()
    assert list(table.block[:5]) == [0] * 5
    assert table.block.isna().sum() == 1
    assert len(found.vector_table()) == sum(r.vectors for r in found.rows)


def test_the_means_of_matrices_alone() -> None:
    # The paper's .C and .R; gains and biases are not means.
    state = gpt2_state(seed=4)
    found = measured(state, biases=False)
    labels = {row.set: set(row.found.labels) for row in found.rows if row.block == 1}
    parts = [f"attn.c_attn.{p}" for p in "qkv"]
    assert labels == {
        "stream": {*(f"{p}.R" for p in parts), "attn.c_proj.C", "mlp.c_fc.R", "mlp.c_proj.C"},
        "MLP hidden": {"mlp.c_fc.C", "mlp.c_proj.R"},
        "heads": {*(f"{p}.C" for p in parts), "attn.c_proj.R"},
        "query-key channels": {"attn.c_attn.q.C", "attn.c_attn.k.C"},
        "value-output channels": {"attn.c_attn.v.C", "attn.c_proj.R"},
    }
    assert {(row.block, row.set) for row in found.rows if row.block is None} == {(None, "stream")}
    everything = {(r.block, r.set): r for r in measured(state).rows}
    for row in found.rows:
        other = everything[row.block, row.set].found
        places = [other.labels.index(label) for label in row.found.labels]
        torch.testing.assert_close(row.found.matrix, other.matrix[places][:, places])


def test_a_planted_neuron_variable_is_found_where_it_is() -> None:
    state = gpt2_state(seed=5)
    neurons = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state["h.1.mlp.c_fc.weight"] += neurons  # every row of one output neuron moves
    state["h.1.mlp.c_proj.weight"] -= neurons[:, None]
    rows = {(r.block, r.set): r for r in measured(state).rows}
    planted = rows[1, "MLP hidden"]
    assert {planted.first, planted.second} == {"mlp.c_fc.C", "mlp.c_proj.R"}
    assert planted.correlation < -0.8
    assert planted.p_value < 1e-6
    assert planted.rank_correlation < -0.7
    others = [r for key, r in rows.items() if key != (1, "MLP hidden")]
    assert min(r.p_value for r in others) > 0.05 / len(others) / 10


def test_expected_largest_in_closed_form_and_by_simulation() -> None:
    for n in (4, 10, 300):  # E|r| of one pair
        log = math.lgamma((n - 1) / 2) - math.lgamma(n / 2) - 0.5 * math.log(math.pi)
        assert expected_largest(n) == pytest.approx(math.exp(log), rel=1e-6)
    n, k, draws = 20, 8, 4000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(draws, k, n, generator=generator, dtype=torch.float64)
    x = x - x.mean(2, keepdim=True)
    x = x / x.norm(dim=2, keepdim=True)
    above = torch.triu_indices(k, k, 1)
    largest = (x @ x.transpose(1, 2))[:, above[0], above[1]].abs().max(1).values
    error = float(largest.std()) / math.sqrt(draws)
    # Pairs that share a vector are dependent only in high order: the formula takes them as free.
    assert abs(expected_largest(n, 28) - float(largest.mean())) < 5 * error
    share = float((largest > chance_level(n, 28)).double().mean())
    assert abs(share - 0.05) < 4 * math.sqrt(0.05 * 0.95 / draws)


def test_iid_weights_pass_the_chance_level_about_as_often_as_it_says() -> None:
    over, tests = 0, 0
    for seed in range(40):
        for row in measured(gpt2_state(blocks=2, seed=100 + seed)).rows:
            over += row.value > row.chance
            assert (row.p_value < 0.05) == (row.value > row.chance)
            tests += 1
    assert tests == 440
    assert stats.binomtest(over, tests, 0.05).pvalue > 0.001


def test_constant_and_twice_stored_vectors_are_left_out() -> None:
    state = gpt2_state(seed=6)
    state["h.0.ln_1.weight"] = torch.ones(N, dtype=torch.float64)
    state["h.0.mlp.c_proj.bias"] = torch.zeros(N, dtype=torch.float64)
    state["lm_head.weight"] = state["wte.weight"]
    rows = {(r.block, r.set): r for r in measured(state).rows}
    assert rows[0, "stream"].left_out == ("ln_1.weight (constant)", "mlp.c_proj.bias (constant)")
    assert rows[0, "stream"].vectors == 10
    assert rows[None, "stream"].left_out == ("lm_head.R (the same as wte.R)",)
    assert (None, "vocabulary") not in rows  # one vector alone


def test_some_blocks_read_no_others() -> None:
    state = gpt2_state(blocks=3)
    read: list[int] = []
    found = measured(state, blocks=[1], progress=read.append)
    assert {r.block for r in found.rows} == {1}
    assert sum(read) == sum(8 * t.numel() for name, t in state.items() if name.startswith("h.1."))
    everything = measured(state)
    assert [r.value for r in everything.rows if r.block == 1] == [r.value for r in found.rows]


def test_weights_that_cannot_be_compared() -> None:
    state = gpt2_state()
    state["h.1.mlp.c_fc.weight"][3, 4] = float("nan")
    with pytest.raises(CheckpointError, match=r"h\.1\.mlp\.c_fc\.weight"):
        measured(state)
    for alone in ({"ln_f.weight": torch.randn(N)}, {"wpe.weight": torch.randn(9, N)}):
        with pytest.raises(ValueError, match="state dict: no index set has two vectors"):
            measured(alone, biases=False)
    with pytest.raises(ValueError, match="state dict: no index set has two vectors"):
        measured(alone)
    with pytest.raises(ValueError, match=r"no block 5, it has \[0, 1\]"):
        measured(gpt2_state(), blocks=[0, 5])
    with pytest.raises(ValueError, match="n must be at least 3"):
        expected_largest(2)
