"""rclib.analyze: one call on whatever a model comes as."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import rclib
from rclib.analysis.call import Analysis
from rclib.analysis.model import COLUMNS
from rclib.inspection.vocabulary import MEANINGS
from rclib.nets.gpt import GPT


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def state(seed: int = 0, moved: float = 0.0) -> dict[str, torch.Tensor]:
    """A GPT-2 of two blocks; `moved` writes rows and columns into its MLP."""
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (50, 24)}
    for b in range(2):
        shapes |= {
            f"h.{b}.attn.c_attn.weight": (24, 72), f"h.{b}.attn.c_proj.weight": (24, 24),
            f"h.{b}.mlp.c_fc.weight": (24, 36), f"h.{b}.mlp.c_proj.weight": (36, 24),
            f"h.{b}.ln_1.weight": (24,),
        }  # fmt: skip
    found = {n: noise(*s, seed=seed + i) for i, (n, s) in enumerate(shapes.items())}
    hidden = noise(36, seed=99)
    for b in range(2):
        found[f"h.{b}.mlp.c_fc.weight"] += moved * hidden
        found[f"h.{b}.mlp.c_proj.weight"] += moved * hidden[:, None]
    return found


def test_a_pure_gaussian_stands_beside_its_noise_and_is_not_heavy_tailed() -> None:
    found = rclib.analyze({"w.weight": noise(512, 512)})
    (row,) = found.to_dict("records")
    assert row["alpha_hill"] == pytest.approx(2.13, abs=0.03)
    assert row["alpha_noise"] == pytest.approx(2.13, abs=0.01)
    assert (row["verdict"], row["spikes"]) == ("not heavy-tailed", 0)
    assert found.sentence == "0 of 1 matrix is heavy-tailed beyond noise, 0 have spikes"
    assert "no correlations" in found.notes[0] or found.correlations.empty


def test_the_same_numbers_from_a_module_a_state_dict_and_a_path(tmp_path: Path) -> None:
    model = GPT(24, blocks=2, context=8, vocabulary=30, head_size=4, parametrization="SP")
    save_file(dict(model.state_dict()), tmp_path / "model.safetensors")
    tables = [
        rclib.analyze(source, workers=workers)
        for source, workers in ((model, 1), (dict(model.state_dict()), 3), (tmp_path, None))
    ]
    assert isinstance(tables[0], pd.DataFrame)
    assert isinstance(tables[0], Analysis)
    assert tuple(tables[0].columns) == COLUMNS
    assert set(COLUMNS) <= set(MEANINGS)
    first, *others = (pd.DataFrame(t).sort_values("layer", ignore_index=True) for t in tables)
    for other in others:
        pd.testing.assert_frame_equal(first, other)
    assert list(tables[0].block.dropna().unique()) == [0, 1]
    assert type(tables[0][tables[0].spikes >= 0]) is pd.DataFrame


def test_the_configuration_of_a_module_is_used() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = nn.Module()
            for name, tensor in state().items():
                *path, last = name.split(".")
                inside: nn.Module = self.transformer
                for part in path:
                    if not hasattr(inside, part):
                        inside.add_module(part, nn.Module())
                    inside = getattr(inside, part)
                inside.register_parameter(last, nn.Parameter(tensor))

    model = Model()
    without = rclib.analyze(model)
    assert "head=NUMBER" in " ".join(without.notes)
    assert "heads" not in set(without.correlations["set"])  # all others are there
    assert {"stream", "MLP hidden"} <= set(without.correlations["set"])
    model.config = {"model_type": "gpt2", "n_head": 4}
    found = rclib.analyze(model)
    assert "heads" in set(found.correlations["set"])
    assert found.correlation.notna().sum() > 8
    again = rclib.analyze(model, sizes={"head": 4})
    pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(again))


def test_two_models_give_the_change_as_well() -> None:
    before, after = state(), state(moved=1.0)
    found = rclib.analyze(after, against=before)
    assert list(found.columns) == ["of", *COLUMNS]
    assert list(dict.fromkeys(found.of)) == ["before", "after", "change"]
    change = found[found.of == "change"].set_index("layer")
    row = change.loc["h.0.mlp.c_fc.weight"]
    assert row["rank"] == 1
    assert pd.isna(row.alpha_hill)
    assert pd.isna(row.verdict)
    assert row.correlation == pytest.approx(1.0, abs=1e-6)
    assert row.chance < 1
    alone = rclib.analyze(after)
    own = found[found.of == "after"].drop(columns="of").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, pd.DataFrame(alone))
    assert set(found.correlations.of) == {"before", "after", "change"}
    assert found.sentence.count(";") >= 2


def test_models_of_other_shapes_have_no_change_and_say_so() -> None:
    before = {"a.weight": noise(20, 12), "b.weight": noise(12, 11)}
    after = {"a.weight": noise(30, 12), "b.weight": noise(12, 14)}
    found = rclib.analyze(after, against=before)
    assert set(found.of) == {"before", "after"}
    assert "no change: state dict and state dict share no matrix" in " ".join(found.notes)
    bias = {"c": noise(5)}  # shared, and no matrix
    found = rclib.analyze(after | bias, against=before | bias)
    assert set(found.of) == {"before", "after"}
    assert any(note.startswith("no change: ") for note in found.notes)


def test_a_bad_tensor_is_left_out_with_a_warning() -> None:
    model = state()
    model["h.0.mlp.c_fc.weight"][0, 0] = float("nan")
    with pytest.warns(UserWarning, match=r"left out: h\.0\.mlp\.c_fc\.weight"):
        found = rclib.analyze(model, sizes={"head": 4})
    assert list(found.left_out) == ["h.0.mlp.c_fc.weight"]
    assert len(found) == 12
    assert "h.1.mlp.c_fc.weight" in set(found.layer)
    with pytest.raises(ValueError, match="no matrix to take the spectrum of"):
        rclib.analyze({"bias": noise(30)})
    with pytest.raises(ValueError, match=r"no block 7, it has \[0, 1\]"):
        rclib.analyze(state(), blocks=[7])
    with pytest.raises(ValueError, match="workers must be a positive integer"):
        rclib.analyze(state(), workers=0)


@pytest.mark.slow
def test_a_resnet_needs_nothing_but_itself() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18()
    keep = {n: t for n, t in model.state_dict().items() if not n.startswith(("layer3", "layer4"))}
    found = rclib.analyze(keep)
    assert set(found.kind) == {"convolution", "matrix"}
    convolution = found.set_index("layer").loc["layer2.0.conv1.weight"]
    assert convolution["shape"] == "128 x 576"
    assert set(found.verdict) == {"not heavy-tailed"}  # nobody trained it
    assert found.correlation.notna().sum() >= 8


def test_plot_and_what_is_shown() -> None:
    found = rclib.analyze(state(moved=1.0), against=state(), sizes={"head": 4})
    figure = found.plot()
    assert [p.get_ylabel() for p in figure.axes] == [
        "α hill", "tail ratio", "spikes", "|correlation|",
    ]  # fmt: skip
    drawn = np.concatenate([line.get_ydata() for line in figure.axes[3].lines[::2]])
    assert np.nanmax(drawn) == pytest.approx(found.correlation.abs().max())
    one = rclib.analyze(state())
    assert one.plot().axes
    assert repr(one).endswith(one.sentence)
    for word in ("alpha_hill", "alpha_noise", "verdict", "p_value"):  # none hidden by "..."
        assert word in repr(one).splitlines()[0]
    assert f"[{len(one)} rows x {one.shape[1]} columns" in repr(one)
    assert one.sentence in str(one._repr_html_())


def test_a_model_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(30, 20)
    found = rclib.analyze(model)
    assert found.report(tmp_path / "a" / "report.html").is_file()
    with torch.no_grad():
        model.weight.mul_(1.1)
    with pytest.raises(ValueError, match="not what it was when it was analysed"):
        found.report(tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()
    with pytest.raises(ValueError, match="is a folder"):
        found.report(tmp_path)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and nothing is said where all is well
        rclib.analyze({"w": noise(20, 15)}, workers=2, threads=1)
    assert torch.get_num_threads() == before


def test_heads_that_are_not_known_stop_only_what_needs_them() -> None:
    """Thirds of a fused matrix are the same for any number of heads, unless they alternate."""
    known = rclib.analyze(state(), sizes={"head": 4})
    found = rclib.analyze(state())
    rows = [a.correlations[a.correlations["set"] == "stream"] for a in (known, found)]
    pd.testing.assert_frame_equal(*(r.reset_index(drop=True) for r in rows))
    neox = {
        "embed_in.weight": noise(60, 20),
        "layers.0.attention.query_key_value.weight": noise(60, 20, seed=1),
        "layers.0.attention.dense.weight": noise(20, 20, seed=2),
        "layers.0.mlp.dense_h_to_4h.weight": noise(80, 20, seed=3),
    }
    refused = rclib.analyze(neox)
    assert refused.correlations.empty
    assert "--size head=NUMBER" in " ".join(refused.notes)
    assert not rclib.analyze(neox, sizes={"head": 4}).correlations.empty
