"""Arrays that callers give, as float64: of NumPy, torch, or nested lists, checked by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "real_array", "safe_scale"]

Floats = NDArray[np.float64]


def real_array(name: str, value: Any, *, finite: bool = True) -> Floats:
    """The values as a float64 array, without a copy where they are one already.

    finite: False lets infinite values pass, never NaN.
    Raises ValueError naming the argument for what does not hold real numbers, holds none in
    memory (a tensor on the meta device), or holds NaN or infinite values.
    """
    if hasattr(value, "state_dict") or hasattr(value, "tensors") or isinstance(value, Mapping):
        raise ValueError(
            f"{name} must be an array, got a {type(value).__name__}; pass one weight (of a layer "
            "`layer.weight`), or the whole model to rclib.analyze"
        )
    if hasattr(value, "detach"):  # a torch tensor: NumPy knows neither bfloat16 nor devices
        value = _from_torch(name, value)
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be a masked array: its mask would be lost")
    try:
        raw = np.asarray(value)
    except (ValueError, TypeError) as error:  # lists of different lengths
        raise ValueError(f"{name} must be an array of numbers: {error}") from None
    if raw.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got values of type {raw.dtype}")
    with np.errstate(over="ignore"):  # of a longer type; reported below
        array: Floats = raw.astype(np.float64, copy=False)
    bad = array[~np.isfinite(array)] if finite else array[np.isnan(array)]
    if bad.size:
        raise ValueError(f"{name} must be finite, got {bad[0]} ({bad.size} such values)")
    return array


def _from_torch(name: str, value: Any) -> Any:
    value = value.detach()
    if value.is_complex():
        kind = str(value.dtype).removeprefix("torch.")
        raise ValueError(f"{name} must hold real numbers, got values of type {kind}")
    if value.is_meta:
        raise ValueError(f"{name} must hold values, got a tensor on the meta device")
    if value.is_quantized or str(value.layout) != "torch.strided":
        raise ValueError(f"{name} must be a dense tensor, got {value.layout}, {value.dtype}")
    return value.cpu().double().resolve_neg().numpy()


def safe_scale(values: Floats) -> Floats:
    """Values whose squares float64 holds: divided by the largest one if that is very large or
    small, else as they are. For results that do not depend on the scale."""
    peak = float(np.abs(values).max(initial=0.0))
    return values / peak if peak and not 1e-100 < peak < 1e100 else values
