"""Every method of `rclib.adapters` in one form each, and parts that have moved."""

from __future__ import annotations

import torch
from torch import Tensor

from rclib.adapters.activations import EVA
from rclib.adapters.blocks import Bone
from rclib.adapters.diagonal import LoLDU, RandomFrames, SingularValues
from rclib.adapters.low_rank import LoRA, OLoRA, PiSSA
from rclib.adapters.method import Full, Linear, Method

METHODS: dict[str, Method] = {
    "full": Full(),
    "linear": Linear(),
    "lora": LoRA(4),
    "lora of rank 1": LoRA(1),
    "lora, alpha": LoRA(4, alpha=16.0),
    "rslora": LoRA(4, alpha=16.0, stabilised=True),
    "unit lora": LoRA(4, unit=True),
    "orthonormal lora": LoRA(4, orthonormal=True),
    "pissa": PiSSA(4, alpha=2.0),
    "olora": OLoRA(4),
    "eva": EVA(4),
    "eva, bottom": EVA(4, which="bottom"),
    "eva, permuted": EVA(4, which="permuted", whiten=True),
    "eva, fewer ranks": EVA(4, kept=2, centred=False),
    "loldu": LoLDU(6),
    "loldu, scaled": LoLDU(6, alpha=1.0, order="largest"),
    "loldu, repaired": LoLDU(6, z_start="zeros", repaired=True),
    "loldu, slip": LoLDU(6, z_start="zeros"),
    "singular values": SingularValues(6),
    "smallest": SingularValues(6, which="bottom", alpha=2.0),
    "mispaired": SingularValues(6, which="mispaired"),
    "random": RandomFrames(6),
    "random, orthonormal": RandomFrames(6, frames_like="orthonormal"),
    **{f"bone, {form}": Bone(4, form=form) for form in ("guided", "sum", "product", "two")},
    "bone, columns": Bone(4, index="columns"),
    "bone, sum of columns": Bone(4, index="columns", form="sum"),
    "bone, permuted": Bone(4, guide="permuted"),
    "bone, normal": Bone(4, guide="normal", form="product"),
}


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def moved(method: Method, parts: dict[str, Tensor], size: float = 0.1) -> dict[str, Tensor]:
    """The parts with what is trained somewhere else."""
    return parts | {
        name: parts[name] + size * drawn(*parts[name].shape, seed=9, dtype=parts[name].dtype)
        for name in method.trained
    }
