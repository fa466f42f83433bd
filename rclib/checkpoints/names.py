"""Names of tensors without what wrappers put into them.

DataParallel, torch.compile, FSDP, activation checkpointing and trainers each add a part to the
names, in whatever order they were applied, at the front or around an inner module:

    _orig_mod.module.transformer.h.0.attn.c_attn.weight
    model._fsdp_wrapped_module.layers.3._checkpoint_wrapped_module.mlp.up_proj.weight
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["shorter_names", "unwrapped"]

# Parts that only wrappers use, taken off wherever they stand.
INSIDE = frozenset(
    {
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_fpw_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
        "_original_module",
        "_flat_param",
    }
)
# Words that modules use as well, taken off at the front alone.
FRONT = frozenset(
    {
        "module", "model", "net", "network", "backbone", "encoder_q", "student", "teacher", "ema",
        "ema_model", "_model", "_module", "wrapped", "base_model", "state_dict", "lm", "llm",
    }
)  # fmt: skip


def unwrapped(name: str) -> str:
    """The name without the parts that wrappers alone use, `module` inside of it included."""
    parts = [part for part in name.split(".") if part not in INSIDE]
    return ".".join(p for i, p in enumerate(parts) if p != "module" or i == len(parts) - 1)


@lru_cache(1 << 16)  # every table of a family asks for all names
def shorter_names(name: str) -> tuple[str, ...]:
    """The name, without wrappers, and without one after another of the words at its front."""
    plain = unwrapped(name)
    names = list(dict.fromkeys([name, plain]))
    parts = plain.split(".")
    while len(parts) > 1 and parts[0] in FRONT:
        parts = parts[1:]
        names.append(".".join(parts))
    return tuple(names)
