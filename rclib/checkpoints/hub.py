"""Models of the Hugging Face hub, fetched into the hub client's own cache.

The client honours HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_TOKEN (or the token of a login).
Only config.json and the weights are asked for: safetensors where the model has them, pickles
otherwise. Code that a repository may hold is never fetched.
"""

from __future__ import annotations

from pathlib import Path

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.shards import WEIGHTS, read_index
from rclib.checkpoints.tensor_file import brief_line

__all__ = ["NotFoundError", "fetch_model"]


class NotFoundError(CheckpointError):
    """Nothing of this name: it may have been meant as a path."""


def fetch_model(repo: str, revision: str | None = None) -> Path:
    """Folder of the client's cache that holds config.json (if any) and the weights of a model.

    All files are of one commit. Without network, or in offline mode, what the cache holds of the
    revision is used. Raises CheckpointError with one line for a model or revision that does not
    exist, a gated model without access, and files that are neither reachable nor in the cache.
    """
    model = _Model(repo, revision)
    model.fetch("config.json")
    for name in WEIGHTS:
        path = model.fetch(name)
        if path is None:
            continue
        if name.endswith(".json"):
            for shard in read_index(path):
                if not shard.isprintable():  # the client's progress bars show names as they are
                    raise CheckpointError(
                        f"{model.title}: shard {brief_line(shard)} of {name} is no printable name"
                    )
                if model.fetch(shard) is None:
                    raise CheckpointError(
                        f"{model.title}: shard {brief_line(shard)} of {name} is not {model.place}"
                    )
        return path.parent
    kind = CheckpointError if model.files is not None else NotFoundError
    raise kind(f"{model.title}: none of {', '.join(WEIGHTS)} is {model.place}")


class _Model:
    """One commit of a model, on the hub or in the cache."""

    def __init__(self, repo: str, revision: str | None) -> None:
        # A slow import, of use to ids only. It reads the environment when it is imported.
        from huggingface_hub import HfApi, constants

        self.repo, self.revision = repo, revision
        self.title = repo if revision is None else f"{repo}@{revision}"
        self.place = "in the repository"
        self.files: frozenset[str] | None = None  # None: the hub could not be asked
        try:
            info = HfApi().model_info(
                repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        except Exception as error:  # of the client or of its network library
            self._raise_for(error)
            if constants.HF_HUB_OFFLINE:
                reason = "HF_HUB_OFFLINE forbids to ask the hub"
            else:
                reason = f"{constants.ENDPOINT} cannot be reached: {_line(error)}"
            self.place = f"in the cache, and {reason}"
            return
        self.files = frozenset(file.rfilename for file in info.siblings or ())

    def fetch(self, name: str) -> Path | None:
        """Path of a file in the cache; None if the repository (or, offline, the cache) lacks it."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        if self.files is not None and name not in self.files:
            return None
        try:
            found = hf_hub_download(
                self.repo,
                name,
                revision=self.revision,
                local_files_only=self.files is None,
            )
        except LocalEntryNotFoundError as error:
            if self.files is None:
                return None
            raise CheckpointError(f"{self.title}: {name}: {_line(error.__cause__)}") from None
        except Exception as error:  # network, disk space
            self._raise_for(error)
            raise CheckpointError(f"{self.title}: {name}: {_line(error)}") from None
        path = Path(found)
        # The client notes which commit the revision is; from here on that commit is asked for.
        self.revision = path.parents[name.count("/")].name
        return path

    def _raise_for(self, error: Exception) -> None:
        """Raise what the hub's answer means, if it is definite."""
        from huggingface_hub import constants
        from huggingface_hub.errors import (
            GatedRepoError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if isinstance(error, GatedRepoError):
            reason = (
                f"gated model; accept its terms at {constants.ENDPOINT}/{self.repo} and set "
                "HF_TOKEN to a token of that account"
            )
        elif isinstance(error, RevisionNotFoundError):
            reason = "the model has no such revision"
        elif isinstance(error, RepositoryNotFoundError):
            raise NotFoundError(
                f"{self.title}: no such model at {constants.ENDPOINT}, or it is private "
                "(set HF_TOKEN)"
            ) from None
        else:
            return
        raise CheckpointError(f"{self.title}: {reason}") from None


def _line(error: BaseException | None) -> str:
    """The first line of an error's message."""
    lines = str(error).strip().splitlines() if error is not None else []
    return brief_line(lines[0] if lines else type(error).__name__, 160)
