"""What a model's configuration says, in one flat mapping.

Image-text models keep the sizes of their language model under `text_config`; Falcon and GPT-BigCode
say with `multi_query` that there is one key-value head, whatever other keys hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["TEXT_CONFIGS", "flat_config"]

# Where the sizes of a language model stand, in the order in which they are looked for.
TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")


def flat_config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The configuration with the language model's own values on top.

    None gives {}. Values of other kinds than expected are passed over: they are the business of
    whoever uses them.
    """
    found = dict(config or {})
    # nanoGPT's checkpoint and others keep the sizes beside the weights.
    if isinstance(found.get("model_args"), Mapping):
        found = {**found, **found["model_args"]}
    for key in TEXT_CONFIGS:
        inner = found.get(key)
        if isinstance(inner, Mapping) and inner:
            found = {**found, **flat_config(inner)}
            break
    heads = next((found[k] for k in ("num_attention_heads", "n_head") if k in found), None)
    one = found.get("multi_query")
    if isinstance(one, bool) and not found.get("new_decoder_architecture"):
        kv = 1 if one else heads
        found |= {"num_key_value_heads": kv, "num_kv_heads": kv, "n_head_kv": kv}
    return found
