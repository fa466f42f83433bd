"""Which files of a directory hold a checkpoint's weights.

    model.safetensors                                       one file
    model.safetensors.index.json                            shards, {"weight_map": {tensor: file}}
    pytorch_model.bin, pytorch_model.bin.index.json         the same as pickles

An index comes from whoever made the checkpoint, so the files that it names must lie in its own
directory: no `..`, no absolute path, no link that leads out.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.safetensors_file import brief_line, read_json

__all__ = ["WEIGHTS", "Shard", "check_name", "inside", "read_index", "weight_files"]

# In this order of preference.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# A file and the tensors that its index puts there, None without an index.
Shard = tuple[Path, frozenset[str] | None]


def check_name(name: str, where: str) -> None:
    """Raise CheckpointError unless `name` is a plain relative path that leads nowhere up."""
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or set("\\:\0") & set(name):
        raise CheckpointError(f"{where}: file {brief_line(name)} lies outside the directory")


def inside(folder: Path, name: str) -> Path:
    """Path of a file in a folder. Raises CheckpointError if it is missing or lies elsewhere.

    A link out of the folder is refused as well, except into the `blobs` of a Hugging Face cache
    (of the model, or shared by all), since every snapshot there is made of such links.
    """
    check_name(name, str(folder))
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{folder}: file {brief_line(name)} is missing")
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


def weight_files(folder: Path) -> list[Shard]:
    """The weight files of a directory, with what its index says about each.

    Without one of the names in `WEIGHTS`, a single safetensors file of any name will do.
    Raises CheckpointError when nothing is found or a shard is missing.
    """
    for name in WEIGHTS:
        if (folder / name).is_symlink() or (folder / name).exists():
            path = inside(folder, name)
            if name.endswith(".json"):
                return [(inside(folder, f), tensors) for f, tensors in read_index(path).items()]
            return [(path, None)]
    try:
        found = sorted(p.name for p in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}") from None
    single = [name for name in found if name.endswith(".safetensors")]
    if len(single) == 1:
        return [(inside(folder, single[0]), None)]
    if single:
        raise CheckpointError(f"{folder}: several files and no index: {brief_line(single, 200)}")
    raise CheckpointError(
        f"{folder}: none of {', '.join(WEIGHTS)} there, only {brief_line(found, 200)}"
    )
