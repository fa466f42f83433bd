"""experiments.language.decision_*: what arms start from, inputs, gathering, frames, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rclib.data.household import (
    OBJECTS,
    RECEPTACLES,
    VERBS,
    Episodes,
    demonstrations,
    draw_episodes,
)
from rclib.data.text import TextData
from rclib.experiments.language import decision_gathering as gathering
from rclib.experiments.language import decision_inputs as given
from rclib.experiments.language import decision_making as frames
from rclib.experiments.language import decision_runs as runs
from rclib.experiments.language import decision_texts as texts
from rclib.experiments.language import plots_decision as plots
from rclib.nets.pointer_policy import HEADS, PADDING
from rclib.nets.stack import Stack

NET: dict[str, Any] = {"width": 8, "blocks": 2, "head_size": 4, "context": 20}
LANGUAGE: dict[str, Any] = {"marks": [3], "default": 3, "batch_size": 2, "rate": 0.01}
ALL = torch.ones(OBJECTS, RECEPTACLES, dtype=torch.bool)
WORDS = b"some words and their order, and more of them for a text that is long enough. " * 40


@pytest.fixture
def data() -> TextData:
    tokens = torch.frombuffer(bytearray(WORDS), dtype=torch.uint8)
    return TextData("words", "words", tokens, 2800, "7" * 64)


def test_kinds_of_language(data: TextData) -> None:
    own = texts.symbols(data)
    common = torch.bincount(own.text, minlength=64)
    assert bool((common.diff() <= 0)[:20].all())  # by frequency
    assert torch.equal(common, torch.bincount(own.words, minlength=64))
    assert not torch.equal(own.text, own.words)
    inside = {tuple(w.tolist()) for w in own.text.unfold(0, 21, 1)}
    assert all(tuple(w.tolist()) in inside for w in texts.windows(own, "text", 9, 20, 1))
    drawn = texts.windows(own, "i.i.d.", 3000, 20, 1)
    assert drawn.shape == (3000, 21)
    shares = torch.bincount(drawn.flatten(), minlength=64) / drawn.numel()
    assert torch.allclose(shares, common / common.sum(), atol=0.01)
    copies = texts.windows(own, "copies", 9, 20, 1)
    assert torch.equal(copies[:, :10], copies[:, 10:20])
    pairs = texts.windows(own, "pairs", 9, 20, 1)[:, :20].unflatten(1, (2, 5, 2))
    for first, second in pairs.tolist():
        assert sorted(first) == sorted(second)
    with pytest.raises(ValueError, match=r"kind must be one of .* got 'verse'"):
        texts.windows(own, "verse", 2, 20, 1)


def test_a_token_that_looks_for_its_equal() -> None:
    tensors = texts.start_tensors({**NET, "width": 32, "head_size": 8}, 0)
    for name in ("Wq", "Wk"):
        tensors[f"blocks.0.{name}"] = torch.eye(32).view(4, 8, 32)
    assert torch.equal(texts.query_key(tensors, 0), torch.eye(32, dtype=torch.float64))
    assert texts.matching(tensors, 0) == pytest.approx(32**0.5)
    by_hand = sum(
        tensors["blocks.1.Wq"][h].T @ tensors["blocks.1.Wk"][h] for h in range(4)
    )  # fmt: skip
    assert torch.allclose(texts.query_key(tensors, 1).float(), torch.as_tensor(by_hand), atol=1e-6)
    found = np.array([
        texts.measures(texts.start_tensors({**NET, "width": 32, "head_size": 16}, s), (0, 1))
        for s in range(20)
    ])  # fmt: skip
    matching, spikes, qkv, rc = found.mean((0, 1))
    assert abs(matching) < 0.1  # standard deviation 1/√32, forty of them
    assert max(spikes, qkv) < 0.5
    assert abs(rc) < 0.1
    marked = texts.start_tensors({**NET, "width": 32, "head_size": 16}, 0)
    marked["blocks.0.Wdown"] = marked["blocks.0.Wdown"] + 0.1
    assert texts.measures(marked, (0,))[0, 1] >= 1


def test_arms_start_from_what_they_say(data: TextData) -> None:
    def start(arm: str) -> dict[str, torch.Tensor]:
        return runs.start_of(data, arm, [1, 2], NET, LANGUAGE)

    lm, small, large = start("LM"), start("scratch, small"), start("scratch")
    for arm in runs.ARMS:
        if arm in ("MLP", "LM, 250", "LM, 1000", "LM, 1500"):
            continue
        found = start(arm)
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in lm.items()}
        assert all(torch.equal(found[name], lm[name]) for name in HEADS)
    same = {n for n in lm if torch.equal(large[n], small[n])}
    assert set(lm) - same == {"embedding"}
    assert torch.allclose(large["embedding"], 5 * small["embedding"])
    trunk, table = start("trunk only"), start("embeddings only")
    for name in set(lm) - set(HEADS) - {"embedding"}:
        assert torch.equal(trunk[name], lm[name])
        assert name.endswith(("gain", "gain1", "gain2")) or not torch.equal(table[name], lm[name])
    assert torch.equal(table["embedding"], lm["embedding"])
    assert not torch.equal(trunk["embedding"], lm["embedding"])
    names, mixed = start("names permuted"), start("entries shuffled")
    assert torch.equal(names["blocks.0.Wq"], lm["blocks.0.Wq"])
    columns = {tuple(c.tolist()) for c in lm["embedding"][0].T}
    assert columns == {tuple(c.tolist()) for c in names["embedding"][0].T}
    assert torch.equal(mixed["blocks.1.Wup"][1].flatten().sort().values,
                       lm["blocks.1.Wup"][1].flatten().sort().values)  # fmt: skip
    alone = runs.start_of(data, "LM", [2], NET, LANGUAGE)  # members do not touch each other
    assert all(torch.allclose(alone[n][0], lm[n][1], atol=1e-6) for n in lm)
    with pytest.raises(ValueError, match=r"arm must be one of .* got 'BERT'"):
        start("BERT")


def test_orders_of_the_input() -> None:
    e = draw_episodes(40, ALL, (1, 2, 3), 3)
    plain, fixed, anew = (given.inputs(e, order, 5) for order in given.ORDERS)
    for x in (plain, fixed, anew):
        assert x.shape == (40, 18, 4)
        assert x[..., 1].sort(1).values.unique(dim=0).tolist() == [list(range(18))]
        padding = (x[..., 3] == PADDING).long()
        assert bool((padding.diff(dim=1) >= 0).all())  # it stands last
        short = given.shortened(x)
        assert torch.equal(short, x[:, : short.shape[1]])
        assert int((x[:, short.shape[1] :, 3] != PADDING).sum()) == 0
        entities = x[x[..., 3] >= 0].view(40, 8, 4)
        by_number = entities.gather(1, entities[..., 3].argsort(1)[..., None].expand(-1, -1, 4))
        assert torch.equal(by_number[..., 0], e.names)
        assert torch.equal(by_number[..., 2], e.states())
    words = plain[0][plain[0, :, 3] == -1][:, 0]
    assert words.tolist() == e.goal[0][e.goal[0] >= 0].tolist()
    places = [dict(zip(x[:, 3].tolist(), x[:, 1].tolist(), strict=True)) for x in fixed]
    assert len({p[0] for p in places}) == 1  # one order for all
    assert len({int(x[x[:, 3] == 0][0, 1]) for x in anew}) > 5
    assert torch.equal(given.inputs(e, "fixed", 5), fixed)
    with pytest.raises(ValueError, match=r"order must be one of .* got 'backwards'"):
        given.inputs(e, "backwards")


def expert_stack(wanted: list[Episodes]) -> Stack:
    """A policy that knows the goal's entities: logits by the world's own expert."""

    def logits(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(*x.shape[:2], 11)
        for s, e in enumerate(wanted):
            action = e.expert()
            out[s].scatter_(1, action[:, :1], 1.0)
            out[s].scatter_(1, len(VERBS) + action[:, 1:], 1.0)
        return out

    class Known(Stack):
        def __call__(self, x: torch.Tensor, *, own: bool | None = None) -> torch.Tensor:
            return logits(x)

    return Known({"none": torch.zeros(len(wanted), 1)}, lambda tensors, x: x)


def test_success_is_that_of_the_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = [draw_episodes(30, ALL, (2,), s) for s in (1, 2)]
    monkeypatch.setattr(Episodes, "copy", lambda self: self)  # the expert sees what is played
    found = given.success(expert_stack(episodes), episodes, "sequence", [1, 2])
    assert found.tolist() == [1, 1]


def played(episodes: Episodes, moves: list[tuple[int, int]]) -> gathering.Played:
    p = gathering.Played([], [], [], episodes)
    for move in moves:
        p.before.append(p.end.copy())
        p.action.append(torch.tensor([move]))
        p.changed.append(p.end.step(p.action[-1]))
    return p


def test_pieces_get_the_goal_that_they_reached() -> None:
    e = draw_episodes(1, ALL, (1,), 0)
    wanted = e.places()[0, 0].tolist()
    objects = [k for k in range(8) if e.names[0, k] < OBJECTS and k != wanted[0]]
    open_ = [k for k in range(8) if e.names[0, k] >= OBJECTS]
    e.closed[0, open_] = False
    other, to = objects[0], open_[0]
    moves = [(2, to), (0, other), (1, to), (0, wanted[0]), (2, to), (0, other), (2, to),
             (0, wanted[0]), (2, wanted[1])]  # fmt: skip
    p = played(e, moves)
    assert bool(p.end.reached)
    x, y = gathering.pieces(p, ALL, relabel=True)
    assert y.tolist() == [[0, other], [2, to], [0, wanted[0]], [2, wanted[1]]]
    names = p.end.names[0]
    assert x[0, :2, 0].tolist() == [names[other], names[to]]
    assert x[2, :2, 0].tolist() == names[wanted].tolist()
    assert (x[:, 2:, 3] != -1).all()  # no history
    x, y = gathering.pieces(p, ALL, relabel=False)
    assert y.tolist() == [[0, wanted[0]], [2, wanted[1]]]
    none = torch.zeros_like(ALL)
    assert len(gathering.pieces(p, none, relabel=True)[0]) == 2  # its own goal is always one
    assert len(gathering.pieces(played(draw_episodes(1, ALL, (1,), 0), [(2, 0)]), ALL,
                                relabel=True)[0]) == 0  # fmt: skip


def test_cloning_learns_and_members_without_examples_stay(data: TextData) -> None:
    net = {**NET, "width": 16, "head_size": 8}
    seeds = [1, 2]
    now = runs._network(data, "scratch, small", seeds, net, LANGUAGE, 8)
    seen, done, going = demonstrations(draw_episodes(40, ALL, (1,), 1))
    x = torch.cat([given.inputs(e)[on] for e, on in zip(seen, going, strict=True)])
    y = torch.cat([a[on] for a, on in zip(done, going, strict=True)])
    expected = given.expert_steps(draw_episodes(40, ALL, (1,), 1), "sequence", 0)
    assert torch.equal(x, expected[0])
    assert torch.equal(y, expected[1])
    end, found = runs.cloned(
        now, [(x, y), (x[:0], y[:0])], {"batch": 16, "rate": 0.01}, place=0, steps=60,
        record={}, at=(), seeds=seeds,
    )  # fmt: skip
    assert float(found["loss"][-1, 0]) < float(found["loss"][0, 0]) - 0.7
    assert all(torch.equal(t[1], now.tensors[n][1]) for n, t in end.tensors.items())


def test_frames_values_and_figures(
    data: TextData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    tiny = runs.TINY["policy_runs"]
    settings = {"net": NET, "language": LANGUAGE, "cloning": tiny["cloning"]}
    arms = ["scratch", "scratch, small", "LM", "LM, i.i.d.", "MLP", "frozen"]
    found = frames.policies(data, [1, 2, 3], arms, settings)
    ends, curves = frames.arm_frame(found), frames.curve_frame(found, [1, 2])
    assert len(ends) == 18
    assert len(curves) == 36
    last = curves[curves.step == 2].success.to_numpy()
    assert np.allclose(last, ends["novel pairs"])  # the last checkpoint is the end
    values = frames.main_values(ends, curves, 1) | frames.more_values(ends)
    assert set(values) == {
        "lm_helps", "scale_early", "scale_late", "iid", "learned", "gap", "three",
        "matching_cloned", "mlp", "frozen",
    }  # fmt: skip
    by = ends.pivot(index="seed", columns="arm", values="novel pairs")
    assert np.allclose(values["lm_helps"], by.LM - by["scratch, small"])
    languages = frames.language_frame(data, [1, 2, 3], ["text", "i.i.d."], settings)
    start = languages[languages.steps == 0].pivot(
        index=["seed", "block"], columns="kind", values="matching"
    )
    assert np.allclose(start.text, start["i.i.d."])  # one start
    weights = frames.language_values(languages)
    assert len(weights["rc_text"]) == 3
    tiny = gathering.TINY["gathering_runs"]["gathering"]
    gathered = frames.gathering_frame(data, [1, 2, 3], {**settings, "gathering": tiny})
    assert len(gathered) == 12
    assert (gathered[gathered.relabelled].examples.to_numpy()
            >= gathered[~gathered.relabelled].examples.to_numpy()).all()  # fmt: skip
    assert set(frames.gathering_values(gathered)) == {
        "relabelled", "gathering_lm", "gathering_two"
    }  # fmt: skip
    looked = frames.attention_frame(found["LM", 1])
    assert set(looked.groupby("entity").size()) == {4}  # two pairs
    assert (looked.weight >= 0).all()
    tests = ["in distribution", "novel pairs", "three pairs"]
    figure = plots.success_panels(curves, ends[["arm", "seed", *tests]], looked)
    assert len(figure.axes) == 4
    success, first, shown = frames.origin_frames(ends, languages, gathered)
    assert set(first.kind) == {"text", "i.i.d.", "start"}
    assert len(first) == 9
    assert np.allclose(success.success, ends["novel pairs"])
    figure = plots.origin_panels(success, first, shown, {"scratch, small": 0, "LM": 3})
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [
        plots.LABELS[arm] for arm in plots.LABELS if arm in arms
    ]
    none = frames.gathering_frame(data, [1], {**settings, "gathering": {}})
    assert frames.gathering_values(none) == {}
    empty = frames.origin_frames(ends, languages, none)[2]
    assert empty.empty
    assert len(plots.origin_panels(success, first, empty, {}).axes) == 4
    means = frames.over_seeds(ends, ["arm"])
    assert means["novel pairs"].to_numpy() == pytest.approx(
        ends.groupby("arm", sort=False)["novel pairs"].mean().to_numpy(), abs=6e-4
    )
    with pytest.raises(ValueError, match="frame must hold"):
        frames.gathering_values(gathered[gathered.arm == "LM"])
