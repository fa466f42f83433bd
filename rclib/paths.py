"""Where the project keeps things: one place that knows the folders.

Every folder can be moved by an environment variable, so that tests write to a temporary
folder and users keep data on another disk. A relative path in such a variable starts at the
project, because notebooks run in another working directory than `make`.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = [
    "FolderError",
    "cache_dir",
    "data_dir",
    "expanded",
    "figures_dir",
    "in_checkout",
    "project_root",
    "results_dir",
]


class FolderError(RuntimeError):
    """A folder that a variable or argument names cannot be found; one line."""


PROFILES = ("quick", "laptop", "paper")


def project_root() -> Path:
    """Nearest folder at or above the working directory that holds notebooks/ and pyproject.toml.

    Falls back to the working directory, so that the library works outside a checkout. Raises
    FolderError where notebooks/ is a link to a folder elsewhere: a notebook runs in its own folder,
    so its results would go to what lies above that one.
    """
    return _checkout() or Path.cwd()


def in_checkout() -> bool:
    """Whether the working directory is inside of such a folder."""
    return _checkout() is not None


def _checkout() -> Path | None:
    here = Path.cwd()
    for folder in (here, *here.parents):
        notebooks = folder / "notebooks"
        if (folder / "pyproject.toml").is_file() and notebooks.is_dir():
            if notebooks.is_symlink() and folder.resolve() not in notebooks.resolve().parents:
                raise FolderError(
                    f"{notebooks} is a link to {notebooks.resolve()}: results would go there; "
                    "copy the folder, or work where it lies"
                )
            return folder
    return None


def expanded(text: str, what: str) -> Path:
    """A path with the home folder for `~`. Raises FolderError naming `what` for a user that the
    system does not know."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise FolderError(f"{what}: no home folder is known for {text.split('/')[0]!r}") from None


def _folder(variable: str, *default: str) -> Path:
    value = os.environ.get(variable)
    if value:
        return project_root() / expanded(value, variable)  # an absolute path replaces the root
    return project_root().joinpath(*default)


def cache_dir() -> Path:
    """Store of finished runs: `$RCLIB_CACHE`, default `.cache/runs`."""
    return _folder("RCLIB_CACHE", ".cache", "runs")


def data_dir() -> Path:
    """Data sets on disk: `$RCLIB_DATA`, default `data`."""
    return _folder("RCLIB_DATA", "data")


def results_dir(profile: str) -> Path:
    """Numbers behind the figures: `$RCLIB_OUT/results/<profile>`, default in the project."""
    return _folder("RCLIB_OUT") / "results" / _checked(profile)


def figures_dir(profile: str, notebook: str = "") -> Path:
    """Drawn figures: `$RCLIB_OUT/figures/<profile>/<notebook>`, default in the project; without
    a notebook the folder of all."""
    return _folder("RCLIB_OUT") / "figures" / _checked(profile) / notebook


def _checked(profile: str) -> str:
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    return profile
