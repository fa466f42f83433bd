"""Tensors that callers give, checked by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["dense_real", "safe_scale", "with_values"]


def dense_real(name: str, value: Any) -> Tensor:
    """The tensor, detached; it may be on the meta device, of any real dtype.

    Raises TypeError naming the argument for what is no torch tensor, ValueError for complex,
    sparse or quantised ones.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}")
    if value.is_complex():
        raise ValueError(f"{name} must hold real numbers, got {value.dtype}")
    if value.is_quantized or value.layout != torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got {value.layout}, {value.dtype}")
    return value.detach()


def with_values(name: str, value: Any) -> Tensor:
    """`dense_real` as float64, of a device that holds values, all of them finite.

    Raises as `dense_real`, and ValueError for the meta device, NaN or infinite values.
    """
    tensor = dense_real(name, value)
    if tensor.is_meta:
        raise ValueError(f"{name} must hold values, got a tensor on the meta device")
    tensor = tensor.double()
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} must be finite, it holds NaN or infinity")
    return tensor


def safe_scale(tensor: Tensor) -> Tensor:
    """The float64 values divided by the largest one if their squares would leave float64, else
    as they are. For results that do not depend on the scale."""
    peak = float(tensor.abs().max()) if tensor.numel() else 0.0
    return tensor / peak if peak and not 1e-100 < peak < 1e100 else tensor
