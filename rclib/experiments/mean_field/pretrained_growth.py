"""A pretrained language model before and after it is resized: its perplexity on a text.

The model is SmolLM2 (`rclib.data.packaged_models`), resized by `rclib.resizing.folder` as the
command `python -m rclib resize` does it, and run by `transformers`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rclib.checkpoints.opening import Checkpoint
from rclib.data.packaged_models import packaged_path
from rclib.data.text import TextData
from rclib.experiments.mean_field.pretrained import opened
from rclib.families.layout import Layout
from rclib.resizing.folder import resize_folder

__all__ = [
    "SETTINGS",
    "SOURCE",
    "differences",
    "losses_of",
    "perplexity_table",
    "resize_settings",
    "token_windows",
]

SOURCE = "as trained"
NAME = "smollm2"
# (name in figures, sizes, method). 522 is a tenth less than 576, the nearest multiple of its nine
# heads; the heads of a shrunk model stay, since 9 in groups of 3 have no tenth and no half.
SETTINGS: tuple[tuple[str, dict[str, int], str], ...] = (
    ("576 to 768, duplication", {"width": 768}, "duplication"),
    ("576 to 1152, duplication", {"width": 1152}, "duplication"),
    ("576 to 768, RC sampling", {"width": 768}, "rc"),
    ("576 to 1152, RC sampling", {"width": 1152}, "rc"),
    ("576 to 522, RC sampling", {"width": 522, "heads": 9, "mlp": 1392}, "rc"),
    ("576 to 522, subset", {"width": 522, "heads": 9, "mlp": 1392}, "duplication"),
    ("576 to 288, RC sampling", {"width": 288, "heads": 9, "mlp": 768}, "rc"),
    ("576 to 288, subset", {"width": 288, "heads": 9, "mlp": 768}, "duplication"),
)


def _transformers() -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def token_windows(data: TextData, *, windows: int, context: int) -> Tensor:
    """Token windows (windows, context) int64 from the held-out part of a text, one after the other.

    Raises ValueError for a text that is too short.
    """
    path = packaged_path(NAME)
    tokenizer = _transformers().AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # A token has about four bytes; the first character may be cut.
    raw = bytes(data.validation[: 12 * windows * context].numpy())
    text = raw.decode("utf-8", errors="ignore")
    tokens = torch.tensor(tokenizer(text)["input_ids"])
    if len(tokens) < windows * context:
        raise ValueError(f"{data.name!r} has {len(tokens)} tokens, {windows * context} are needed")
    return tokens[: windows * context].view(windows, context)


def losses_of(model: nn.Module, windows: Tensor) -> np.ndarray:
    """Mean negative log-likelihood of each window's tokens after its first, nats; (windows,)."""
    found = []
    with torch.inference_mode():
        for window in windows:
            logits = model(window[None, :-1]).logits[0].float()
            found.append(float(nn.functional.cross_entropy(logits, window[1:])))
    return np.array(found)


def resize_settings(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """`SETTINGS` for every seed; duplication to a larger width, which keeps the function, for the
    first alone."""
    found = []
    for how, sizes, method in SETTINGS:
        exact = how.endswith("duplication")
        for seed in seeds[:1] if exact else seeds:
            found.append({"how": how, "method": method, "seed": seed, **sizes})
    return found


def perplexity_table(
    data: TextData, settings: Sequence[Mapping[str, Any]], *, windows: int, context: int
) -> pd.DataFrame:
    """One row a model: how, method, seed, width, heads, mlp, parameters, loss, perplexity.

    settings : of `resize_settings`: keywords of `resize_folder` and `how`, its name in figures.
    The first row is the model as trained. loss : nats per token, mean over all windows.
    """
    tokens = token_windows(data, windows=windows, context=context)
    with opened(NAME) as (checkpoint, described):
        rows = [_row({"how": SOURCE, "method": "", "seed": 0}, _original(checkpoint), tokens)]
        for setting in settings:
            rows.append(_row(setting, _resized(checkpoint, described, setting), tokens))
    return pd.DataFrame(rows)


def _original(checkpoint: Checkpoint) -> nn.Module:
    transformers = _transformers()
    model: nn.Module = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**dict(checkpoint.config or {}))
    )
    state = {name: checkpoint.tensor(name) for name in checkpoint.tensors}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:  # one tensor with the embedding
        raise ValueError(f"weights do not fit: {missing[:3]}, {unexpected[:3]}")
    model.tie_weights()  # type: ignore[operator]
    return model.eval()


def _resized(checkpoint: Checkpoint, described: Layout, setting: Mapping[str, Any]) -> nn.Module:
    options = {key: value for key, value in setting.items() if key != "how"}
    with tempfile.TemporaryDirectory(prefix="rclib-resized-") as scratch:
        folder = Path(scratch) / "model"
        resize_folder(checkpoint, described, folder, **options)
        model: nn.Module = _transformers().LlamaForCausalLM.from_pretrained(
            folder, dtype=torch.float32
        )
    return model.eval()


def _row(setting: Mapping[str, Any], model: nn.Module, tokens: Tensor) -> dict[str, Any]:
    config: Any = model.config
    loss = float(losses_of(model, tokens).mean())
    return {
        "how": setting["how"],
        "method": setting["method"],
        "seed": setting["seed"],
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "mlp": config.intermediate_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss,
        "perplexity": math.exp(loss),
    }


def differences(table: pd.DataFrame, how: str) -> pd.Series[float]:
    """Loss minus that of the model as trained, one a seed. Raises ValueError for an unknown
    `how`."""
    chosen = table[table.how == how]
    if chosen.empty:
        raise ValueError(f"the table has no row {how!r}, it has {sorted(set(table.how))}")
    before = float(table[table.how == SOURCE].loss.iloc[0])
    return (chosen.loss - before).set_axis(pd.Index(chosen.seed, name="seed"))
