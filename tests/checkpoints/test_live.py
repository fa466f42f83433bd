"""rclib.checkpoints.live: configurations of models in memory, in the forms that people have."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from rclib.checkpoints.live import config_of
from rclib.checkpoints.opening import open_checkpoint


@dataclass
class GPTConfig:
    n_head: int = 4


class Transformers:
    def to_dict(self) -> dict[str, Any]:
        return {"n_head": 4}


@pytest.mark.parametrize(
    "config", [GPTConfig(), Transformers(), {"n_head": 4}, SimpleNamespace(n_head=4)]
)
def test_every_form_and_wrappers(config: object) -> None:
    inner = nn.Linear(3, 2)
    inner.config = config
    assert config_of(inner) == {"n_head": 4}
    outer = nn.Module()
    outer.module = nn.Module()
    outer.module._orig_mod = inner
    assert config_of(outer) == {"n_head": 4}
    with open_checkpoint(outer) as checkpoint:
        assert checkpoint.config == {"n_head": 4}


@pytest.mark.parametrize("config", [None, "small", 3, GPTConfig, nn.Linear(2, 2)])
def test_what_is_no_configuration(config: object) -> None:
    model = nn.Linear(3, 2)
    model.config = config
    assert config_of(model) is None
    assert open_checkpoint(model).config is None
    model.model = model.config = None
    assert config_of(model) is None


def test_repr_of_a_checkpoint() -> None:
    model = nn.Linear(30, 20)
    model.config = {"model_type": "gpt2"}
    with open_checkpoint(model) as checkpoint:
        assert repr(checkpoint) == ("<Checkpoint Linear: 2 tensors, 2.48e-06 GB, model_type gpt2>")
    assert repr(checkpoint).endswith(", closed>")
