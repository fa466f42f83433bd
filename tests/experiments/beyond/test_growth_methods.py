"""beyond.growth_methods: runs against loops for one network, tables against made curves."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from rclib.data import images
from rclib.data.text import TextData
from rclib.experiments.beyond import growth_methods as experiment
from rclib.experiments.beyond import growth_networks, growth_tasks
from rclib.experiments.beyond import plots_growth_methods as draw
from rclib.nets.gpt import GPT
from rclib.nets.mlp import MLP
from rclib.resizing.growing import GROWTH, SHRINKING, Given
from rclib.training.classifier import train
from rclib.training.lm_loop import flops_per_token
from rclib.training.lm_recipe import Recipe, make_optimizer


def words() -> TextData:
    numbers = torch.randint(97, (4000,), generator=torch.Generator().manual_seed(0)).byte()
    return TextData("numbers", "numbers", numbers, 3000, "0" * 64)


# --- runs ----------------------------------------------------------------------------------


def test_a_run_is_the_network_alone_grown_and_trained_on() -> None:
    """Against the loop for one network; the last bits differ, since products are others."""
    data = images.load("digits")
    config: dict[str, Any] = growth_networks.TINY["mlp_run"]
    plan = {**config["plan"], "before": 3, "after": 6, "every": 3, "small_steps": 9}
    run = growth_networks.mlp_run(data, **{**config, "plan": plan})
    part, seed = data.subset(48, 20), 1

    def loss(model: MLP) -> float:
        with torch.no_grad():
            return float(cross_entropy(model(part.x_test), part.y_test))

    def network(width: int, start: int, epochs: int, *, order: int = seed) -> MLP:
        model = MLP(64, width, 10, depth=4, parametrization="muP", seed=10_000 * start + width)
        options = {"epochs": epochs, "lr": 0.1, "batch_size": 16, "seed": order, "progress": False}
        train(model, part, **options)  # type: ignore[arg-type]
        return model

    # An epoch is three steps.
    source, large = network(8, seed, 1), network(16, seed, 1)
    second = network(8, seed + growth_networks.SECOND, 1, order=seed + growth_networks.SECOND)
    assert run["at_source"][1] == pytest.approx([loss(source), loss(large)], rel=1e-4)
    assert run["small"][1] == pytest.approx([loss(network(8, seed, e)) for e in range(4)], rel=1e-4)
    assert run["large"][1] == pytest.approx(
        [loss(network(16, seed, e)) for e in range(4)], rel=1e-4
    )
    fresh = [
        network(n, s, 0) for n, s in ((8, seed), (8, seed + growth_networks.SECOND), (16, seed))
    ]
    starts = fresh[0].state_dict(), fresh[1].state_dict()
    given = Given(source, fresh[2], seed, second, starts)
    for place, (name, method) in enumerate(GROWTH.items()):
        model = large.like(16, method.make(given))
        assert run["grown"][1, place, 0] == pytest.approx(loss(model), rel=1e-3), name
    back = Given(large, fresh[0], seed, x=part.x_train[:256])
    for place, (name, method) in enumerate(SHRINKING.items()):
        model = source.like(8, method.make(back))
        assert run["shrunk"][1, place, 0] == pytest.approx(loss(model), rel=1e-3), name
    # Duplicated without noise and trained on with the batches that follow.
    model = large.like(16, GROWTH["FPI"].make(given))
    order = torch.Generator().manual_seed(seed)
    torch.randperm(48, generator=order)  # those of the source's epoch
    factors = model.lr_factors("sgd")
    for _ in range(2):
        for chosen in torch.randperm(48, generator=order).split(16):
            model.zero_grad()
            cross_entropy(model(part.x_train[chosen]), part.y_train[chosen]).backward()
            with torch.no_grad():
                for name, p in model.named_parameters():
                    assert p.grad is not None
                    p -= 0.1 * factors[name] * p.grad
    place = list(GROWTH).index("FPI")
    assert run["grown"][1, place, -1] == pytest.approx(loss(model), rel=1e-3)
    assert run["rank"][1, place] == pytest.approx([0.5, 0.5])
    assert run["rank"][1, list(GROWTH).index("LEMON")] == pytest.approx([1.0, 1.0], abs=0.07)
    assert run["changed"][1, place] < 1e-5 < run["changed"][1, list(GROWTH).index("AKI")]


def test_a_language_model_is_trained_as_one_alone_is() -> None:
    """A stack under Adam with warm-up against the recipe's optimiser, step by step."""
    options = {"blocks": 1, "context": 8, "head_size": 4, "parametrization": "muP"}
    task = growth_tasks.Text(words(), 0.02, 4, 3, 4, **options)
    models = [task.build(8, s) for s in (0, 1)]
    end, found = task.train(models, [5, 6], first=2, steps=4, at=[0, 4], kept=2)
    model = task.build(8, 1)
    assert isinstance(model, GPT)
    assert not model.get_parameter("W").any()
    optimizer = make_optimizer(model, Recipe(steps=4, lr=0.02))

    def loss() -> float:
        with torch.no_grad():
            return float(cross_entropy(model(task.looked_at).flatten(0, 1), task.answers.flatten()))

    assert float(found["test"][0, 1]) == pytest.approx(loss(), rel=1e-5)
    for step in range(4):
        if step == 2:
            for name, p in model.named_parameters():
                if name.endswith("Bk"):  # softmax does not see it: its gradient is rounding alone
                    continue
                torch.testing.assert_close(found[name][1], p.detach(), rtol=1e-3, atol=1e-5)
        x, y = task.batches([6])(2 + step)
        for g in optimizer.param_groups:
            g["lr"] = g["base"] * min(1.0, (step + 1) / 3)
        optimizer.zero_grad()
        cross_entropy(model(x[0]).flatten(0, 1), y[0].flatten()).backward()
        optimizer.step()
    assert float(found["test"][1, 1]) == pytest.approx(loss(), rel=1e-3)
    torch.testing.assert_close(
        end.member(1)["W"], model.get_parameter("W").detach(), rtol=1e-2, atol=1e-4
    )


def test_images_are_averaged_in_squares() -> None:
    data = images.load("digits").subset(60, 30)
    x, y, x_test, _ = growth_tasks.pooled(data, 1, 40, 20)
    assert torch.equal(x, data.subset(40, 20).x_train)
    assert torch.equal(y, data.subset(40, 20).y_train)
    assert len(x_test) == 20
    coloured = images.Dataset(
        "c", "c", torch.arange(2 * 3072.0).view(2, 3072), data.y_train[:2],
        torch.arange(3072.0)[None], data.y_test[:1], 10, "0" * 64,
    )  # fmt: skip
    x, _, x_test, _ = growth_tasks.pooled(coloured, 4, 1, 1)
    assert x.shape == x_test.shape == (1, 192)
    square = coloured.x_test.view(3, 32, 32)[1, 4:8, 8:12]
    assert float(x_test.view(3, 8, 8)[1, 1, 2]) == float(square.mean())


def test_evaluations() -> None:
    assert growth_tasks.evaluations(10, 4) == [0, 4, 8, 10]
    assert growth_tasks.evaluations(8, 4) == [0, 4, 8]


# --- tables --------------------------------------------------------------------------------


def test_operations_are_those_of_the_networks() -> None:
    model = MLP(64, 12, 10, depth=4)
    entries = sum(p.numel() for n, p in model.named_parameters() if n[0] == "W")
    found = experiment.mlp_operations(12, inputs=64, classes=10, batch_size=5)
    assert found == 6 * 5 * entries
    lm = GPT(16, blocks=3, context=8, head_size=4)
    found = experiment.gpt_operations(16, blocks=3, context=8, batch_size=5)
    assert found == 5 * 8 * flops_per_token(lm)


def made() -> pd.DataFrame:
    """From scratch 10 - c for c operations, the small one 9 - c / 2, grown at 2 (or two: 4)."""
    head = {"kind": "network", "parametrization": "SP", "seed": 0}
    rows = [
        {
            "way": "from scratch",
            "method": "from scratch",
            "step": c,
            "loss": 10.0 - c,
            "own": c,
            "all": c,
        }
        for c in range(9)
    ]
    rows += [
        {
            "way": "stays small",
            "method": "stays small",
            "step": c,
            "loss": 9 - c / 2,
            "own": c,
            "all": c,
        }
        for c in range(7)
    ]
    for method, paid, first in (("LEMON", 2, 6.0), ("recombination", 4, 5.0)):
        rows += [
            {
                "way": "grown",
                "method": method,
                "step": s,
                "loss": first - s,
                "own": s,
                "all": s + paid,
            }
            for s in (0, 2, 4 if method == "LEMON" else 3)
        ]
    rows += [
        {
            "way": "shrunk",
            "method": "truncation",
            "step": s,
            "loss": 8.0 - s,
            "own": s,
            "all": s + 2,
        }
        for s in (0, 3)
    ]
    return pd.DataFrame([head | row for row in rows])


def test_equal_compute_by_hand() -> None:
    found = experiment.equal_compute(made(), account="all").set_index("method")
    assert found.loss.to_dict() == {"LEMON": 2.0, "recombination": 2.0}
    assert found.scratch.to_dict() == {"LEMON": 4.0, "recombination": 3.0}  # after 6 and 7
    assert found.gain.to_dict() == {"LEMON": 2.0, "recombination": 1.0}
    assert found.ahead["LEMON"] == 6.0 - 2.0
    assert np.isnan(found.ahead["recombination"])  # the small one never spends 7
    own = experiment.equal_compute(made(), account="own").set_index("method")
    assert own.gain.to_dict() == {"LEMON": 4.0, "recombination": 5.0}


def test_saved_by_hand() -> None:
    found = experiment.saved(made(), account="all").set_index(
        "method"
    )  # down to 2, at 8 operations
    assert found.saved.to_dict() == {"LEMON": 1 - 6 / 8, "recombination": 1 - 7 / 8}
    assert found.reached.all()
    own = experiment.saved(made(), account="own").set_index("method")
    assert own.saved.to_dict() == {"LEMON": 1 - 4 / 8, "recombination": 1 - 3 / 8}
    worse = made()
    worse.loc[worse.way == "grown", "loss"] += 1
    never = experiment.saved(worse, account="all")
    assert never.saved.isna().all()
    assert not never.reached.any()
    at_once = made()
    at_once.loc[at_once.way == "grown", "loss"] -= 5
    assert experiment.saved(at_once, account="own").saved.eq(1.0).all()
    for table in (experiment.saved, experiment.equal_compute):
        with pytest.raises(ValueError, match="account must be one of own, all, got 'other'"):
            table(made(), account="other")


def test_shrunk_rows_by_hand() -> None:
    growths = pd.DataFrame(
        [{"kind": "network", "parametrization": "SP", "seed": 0, "way": "shrunk",
          "method": "truncation", "lost": 0.3}]
    )  # fmt: skip
    found = experiment.shrunk_rows(made(), growths, before=2)
    assert found.lost.tolist() == [0.3]
    assert found.end.tolist() == [5.0 - (9 - 5 / 2)]


@pytest.mark.slow
def test_sweeps_tables_and_figures() -> None:
    seeds, group = [0, 1], 2
    tiny: dict[str, Any] = {n: {**c} for n, c in growth_networks.TINY.items()}
    frames = []
    for sweep, name, data in (
        (experiment.sweep_mlps, "mlp_run", images.load("digits")),
        (experiment.sweep_gpts, "gpt_run", words()),
    ):
        config = tiny[name]
        plan = {k: config["plan"][k] for k in ("small", "large", "before", "after", "every")}
        rest = {
            k: v for k, v in config.items() if k not in ("group", "plan", "parametrization", "lr")
        }
        found = sweep(data, rates={"SP": 0.02, "MF": 0.1}, seeds=seeds, group=group, **plan, **rest)  # type: ignore[operator]
        frames.append(found)
    curves, growths = (pd.concat(part, ignore_index=True) for part in zip(*frames, strict=True))
    assert len(growths) == 2 * 2 * 2 * (len(GROWTH) + len(SHRINKING))
    assert not curves.isna().any().any()
    grown = growths[growths.way == "grown"]
    assert not grown.isna().any().any()
    kept = grown[grown.method.isin(["FPI", "LEMON"])]
    assert (kept.changed < 1e-5).all()
    np.testing.assert_allclose(kept.loss, kept.source, rtol=1e-5)
    # What all have spent at growth: one source, or two.
    first = curves[(curves.way == "grown") & (curves.step == 0)]
    assert (first.own == 0).all()
    for _, part in first.groupby(["kind", "parametrization", "seed"]):
        paid = part.set_index("method")["all"]
        assert paid["recombination"] == 2 * paid["FPI"] > 0
    # The small network may spend what a grown one spends, its source included.
    for _, part in curves.groupby(["kind", "parametrization", "seed"]):
        small, lemon = (part[part.method == m]["all"].max() for m in ("stays small", "LEMON"))
        assert small == pytest.approx(lemon, rel=0.2)
    found = experiment.at_growth(growths, "FPI", "lost", kind="network", parametrization="MF")
    assert list(found.index) == seeds
    with pytest.raises(ValueError, match="one row a seed"):
        experiment.at_growth(growths, "FPI", "lost", kind="network")
    table = experiment.summary(curves, growths)
    assert len(table) == 2 * 2 * len(GROWTH)
    assert {"gain_own", "gain_all", "saved_all", "ahead", "rank"} <= set(table.columns)
    means = curves[curves.way != "shrunk"].groupby(["kind", "parametrization", "method", "step"])
    drawn = means[["all", "loss"]].mean().reset_index()
    missing = (drawn.kind == "language model") & (drawn.parametrization == "MF")
    figure = draw.compute_curves(drawn[~missing])
    assert [p.get_visible() for p in figure.axes].count(False) == 1
    plt.close(figure)
    gains = experiment.equal_compute(curves, account="all").rename(columns={"gain": "all"})
    figure = draw.method_points(grown, gains.assign(own=gains["all"]))
    # The pivoted table of gains has the methods in another order: rows must not follow it.
    by_name = gains.sort_values("method").assign(own=0.0)
    again = draw.method_points(grown, by_name)
    for one in (figure, again):
        assert [t.get_text() for t in one.axes[0].get_yticklabels()] == [*GROWTH]
    lines = [np.array(f.axes[2].get_lines()[0].get_xdata(), float) for f in (figure, again)]
    np.testing.assert_allclose(lines[0], lines[1])
    plt.close(figure)
    plt.close(again)
    shrunk = experiment.shrunk_rows(curves, growths, before=2)
    assert len(shrunk) == 2 * 2 * 2 * len(SHRINKING)
    figure = draw.shrinking_points(shrunk)
    assert len(figure.axes) == 4
    plt.close(figure)
