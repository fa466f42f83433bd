"""Which files of a directory hold a checkpoint's weights.

    model.safetensors                                       one file
    model.safetensors.index.json                            shards, {"weight_map": {tensor: file}}
    pytorch_model.bin, pytorch_model.bin.index.json         the same as pickles
    NAME-00001-of-00003.safetensors (.bin, .gguf, ...)      shards without an index, if complete
    any one file of weights                                 whatever its name

An index comes from whoever made the checkpoint, so the files that it names must lie in the
directory itself: no `..`, no absolute path. Links are followed for names that the format fixes;
what else an index names may be no link that leads out.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.folders import explained, sorted_names
from rclib.checkpoints.safetensors_file import read_json
from rclib.checkpoints.tensor_file import brief_line

__all__ = ["WEIGHTS", "Shard", "check_name", "indexed", "inside", "read_index", "weight_files"]

# In this order of preference.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Endings of files that may hold weights, by preference.
ENDINGS = (
    (".safetensors",),
    (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".tar"),
    (".gguf",),
)
# What lies beside weights under such an ending.
BESIDE = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state\w*|tokenizer|random_states_\w+)"
    r"\.(bin|pt|pth|pkl)"
)
OF = re.compile(r"(?P<stem>.*?)[-_.]?(?P<i>[0-9]{1,6})-of-(?P<n>[0-9]{1,6})(?P<end>\.[a-z.]{1,20})")
MAX_SHARDS = 10_000

# A file and the tensors that its index puts there, None without an index.
Shard = tuple[Path, frozenset[str] | None]


def check_name(name: str, where: str) -> None:
    """Raise CheckpointError unless `name` is a plain relative path that leads nowhere up."""
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or set("\\:\0") & set(name):
        raise CheckpointError(f"{where}: file {brief_line(name)} lies outside the directory")


def inside(folder: Path, name: str) -> Path:
    """Path of a file in a folder. Raises CheckpointError if it is missing or lies elsewhere.

    A link out of the folder is followed where its name is one that the format fixes, so that it
    is the user's own (a shared disk, DVC, git-annex), and into the `blobs` of a Hugging Face
    cache, since every snapshot there is made of such links; any other is refused.
    """
    check_name(name, str(folder))
    path = folder / name
    if not path.is_file():
        if path.is_symlink() and not path.exists():
            raise CheckpointError(f"{folder}: file {brief_line(name)} is a link to nothing")
        if path.exists() and not path.is_dir():
            return path  # a pipe or device, which its reader refuses by name
        raise CheckpointError(f"{folder}: file {brief_line(name)} is missing")
    if name in WEIGHTS or OF.fullmatch(name):
        return path
    root, real = folder.resolve(), path.resolve()
    homes = [root]
    if root.parent.name == "snapshots":
        model = root.parent.parent
        homes += [model / "blobs", model.parent / "blobs"]
    if not any(real.is_relative_to(home.resolve()) for home in homes):
        raise CheckpointError(f"{folder}: file {brief_line(name)} is a link that leads outside")
    return path


def read_index(path: Path) -> dict[str, frozenset[str]]:
    """{file: tensors} of an index, files in their order by name. Raises CheckpointError."""
    weights = read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(v, str) for v in weights.values()):
        raise CheckpointError(f"{path}: weight_map must map tensors to files")
    if not weights:
        raise CheckpointError(f"{path}: weight_map is empty")
    shards: dict[str, set[str]] = {}
    for name, file in weights.items():
        check_name(file, str(path))
        shards.setdefault(file, set()).add(name)
    return {file: frozenset(shards[file]) for file in sorted(shards)}


def weight_files(folder: Path) -> tuple[list[Shard], str]:
    """The weight files of a directory, with what its index says about each; a note for the user
    where there was a choice.

    Raises CheckpointError (one line) when nothing is found, with what is there instead, or a
    shard is missing.
    """
    for name in WEIGHTS:
        if (folder / name).is_symlink() or (folder / name).exists():
            path = inside(folder, name)
            return (indexed(path) if name.endswith(".json") else [(path, None)]), ""
    names = sorted_names(folder)
    indices = [n for n in names if n.endswith((".safetensors.index.json", ".bin.index.json"))]
    if len(indices) == 1:  # diffusers: diffusion_pytorch_model.safetensors.index.json
        return indexed(folder / indices[0]), ""
    explained(folder, names)
    for endings in ENDINGS:
        found = [n for n in names if n.endswith(endings) and not BESIDE.fullmatch(n)]
        found = [n for n in found if not (folder / n).is_dir()]
        if found:
            return _chosen(folder, found)
    raise CheckpointError(
        f"{folder}: none of {', '.join(WEIGHTS)} there, nor another file of weights, only "
        f"{brief_line(names, 200)}"
    )


def indexed(path: Path) -> list[Shard]:
    """The shards that an index names."""
    return [(inside(path.parent, f), tensors) for f, tensors in read_index(path).items()]


def _chosen(folder: Path, names: list[str]) -> tuple[list[Shard], str]:
    if len(names) == 1 and not OF.fullmatch(names[0]):
        return [(folder / names[0], None)], ""
    parts = [OF.fullmatch(name) for name in names]
    sets = {(p["stem"], int(p["n"]), p["end"]) for p in parts if p is not None}
    if len(sets) == 1 and all(parts):
        [(_, count, _)] = sets
        found = {int(p["i"]): p.string for p in parts if p is not None}
        if len(found) < len(names):
            raise CheckpointError(f"{folder}: two files for one shard: {brief_line(names, 200)}")
        return _complete(folder, found, count), ""
    # One precision or copy beside the default one: X.safetensors, X.fp16.safetensors.
    shortest = min(names, key=len)
    stem, _, end = shortest.rpartition(".")
    others = [n for n in names if n != shortest]
    if all(n.startswith(f"{stem}.") and n.endswith(f".{end}") for n in others):
        return [(folder / shortest, None)], (
            f"read {brief_line(shortest)}; beside it in the folder: {brief_line(others, 200)}"
        )
    if all(re.fullmatch(r"consolidated\.[0-9]+\.pth", n) for n in names):
        raise CheckpointError(
            f"{folder}: {len(names)} tensor-parallel parts (consolidated.*.pth), each with a piece "
            "of every matrix; convert them first (convert_llama_weights_to_hf.py of transformers)"
        )
    raise CheckpointError(
        f"{folder}: several files and no index: {brief_line(names, 200)}; pass one of them by its "
        "path"
    )


def _complete(folder: Path, found: dict[int, str], count: int) -> list[Shard]:
    first = 0 if 0 in found else 1
    if not 0 < count <= MAX_SHARDS:
        raise CheckpointError(f"{folder}: shards of {count}, as their names say, are not read")
    missing = [i for i in range(first, first + count) if i not in found]
    if missing:
        known = next(iter(found.values()))
        raise CheckpointError(
            f"{folder}: shard {missing[0]} of {count} is missing (there is {brief_line(known)}, "
            "and no index)"
        )
    return [(folder / found[i], None) for i in range(first, first + count)]
