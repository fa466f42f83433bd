"""What this process may use, for errors that libraries do not explain."""

from __future__ import annotations

__all__ = ["ENOUGH_FILES", "few_files"]

ENOUGH_FILES = 256  # open files of a process, far more than a notebook needs


def few_files() -> str:
    """What an error may come from where a process may open few files: libraries do not say so."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= ENOUGH_FILES:
        return ""
    return f" (this process may open {limit} files; with ulimit -n {ENOUGH_FILES} it may work)"
