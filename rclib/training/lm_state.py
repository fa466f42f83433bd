"""State of a language-model run on disk: one safetensors file with its JSON record inside.

Tensors and record are one file, written under a temporary name and renamed, so that they always
belong together; nothing is pickled, and a checksum of both is compared on reading. The record says
what run the state belongs to: resuming another one is refused with the settings that differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rclib.files.atomic import write_atomically

__all__ = [
    "StateError",
    "adam_moments",
    "check_same_run",
    "digest",
    "load_state",
    "save_state",
    "set_adam_moments",
]

FORMAT = 2  # 1 had no checksum
MOMENTS = ("exp_avg", "exp_avg_sq")


class StateError(RuntimeError):
    """A saved state is damaged, or belongs to another run. The message says which and how."""


def save_state(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able record to one file, whole or not at all."""
    text = json.dumps({"format": FORMAT, **record}, sort_keys=True, allow_nan=False)
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    seal = _seal(text, plain)
    write_atomically(path, save(plain, metadata={"record": text, "sha256": seal}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of `save_state`; StateError if the file is damaged."""
    try:
        if not path.is_file():  # a pipe would not answer
            raise ValueError("no plain file")
        with safe_open(path, framework="pt") as handle:
            meta = handle.metadata() or {}
            record = json.loads(meta["record"])
            if not isinstance(record, dict):
                raise ValueError("its record is no object")
            if record.get("format") != FORMAT:
                raise StateError(
                    f"saved state {path} has format {record.get('format')!r}, not {FORMAT}; "
                    "delete it to start anew"
                )
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        if _seal(meta["record"], tensors) != meta.get("sha256"):
            raise ValueError("its checksum is another")
    except StateError:
        raise
    except Exception as error:  # a damaged header can say anything
        raise StateError(
            f"saved state {path} cannot be read ({type(error).__name__}: {error}); "
            "delete it to start anew"
        ) from None
    return tensors, record


def _seal(record: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of a record and of tensors of any type."""
    total = hashlib.sha256(record.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def check_same_run(path: Path, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """StateError listing every setting in which a saved run differs from the one asked for."""
    a, b = _flat(saved), _flat(json.loads(json.dumps(dict(asked))))
    different = [
        f"{key}: saved {a.get(key, 'nothing')!r}, asked {b.get(key, 'nothing')!r}"
        for key in sorted(a.keys() | b.keys())
        if key not in a or key not in b or a[key] != b[key]
    ]
    if different:
        raise StateError(f"saved state {path} is of another run: {'; '.join(different)}")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    out: dict[str, Any] = {}
    for key, one in value.items():
        out |= _flat(one, f"{prefix}.{key}" if prefix else str(key))
    return out


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of named tensors, their types and shapes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{array.dtype}|{tuple(array.shape)}|".encode())
        total.update(array.numpy().tobytes())
    return total.hexdigest()


def adam_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's running means by parameter name: `exp_avg/<name>`, `exp_avg_sq/<name>` of the
    parameter's shape and `step/<name>`, a scalar. Empty before the first step and for SGD."""
    out: dict[str, Tensor] = {}
    for name, p in model.named_parameters():
        state = optimizer.state.get(p, {})
        out |= {f"{key}/{name}": state[key] for key in (*MOMENTS, "step") if key in state}
    return out


def set_adam_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]
) -> None:
    """Give an optimiser the running means of `adam_moments`, copied to the parameters' devices.

    Raises ValueError when one is missing or has another shape than its parameter.
    """
    for name, p in model.named_parameters():
        state: dict[str, Tensor] = {}
        for key in (*MOMENTS, "step"):
            full = f"{key}/{name}"
            if full not in moments:
                raise ValueError(f"moments must hold {full!r}, got {len(moments)} other tensors")
            value = moments[full].detach().to(device=p.device, dtype=torch.float32, copy=True)
            if key in MOMENTS and value.shape != p.shape:
                raise ValueError(
                    f"moments: {full!r} has shape {tuple(value.shape)}, "
                    f"its parameter {tuple(p.shape)}"
                )
            state[key] = value if key == "step" else value.to(p.dtype)
        optimizer.state[p] = state
