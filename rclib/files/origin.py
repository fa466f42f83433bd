"""The public address of this project's repository, as git's remote says it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

__all__ = ["address_of", "owner_and_name", "repository_address"]

_FORMS = (
    re.compile(r"(?:https?|ssh|git)://(?:[^@/]*@)?([^/:@]+)(?::\d+)?/(.+?)(?:\.git)?/?"),
    re.compile(r"(?:[^@/\s]+@)([^/:@\s]+):(?!/)(.+?)(?:\.git)?/?"),
)


def address_of(remote: str) -> str:
    """The https address of a remote as git prints it; "" for a folder, or what is no address.

    User names and passwords in it are left out.
    """
    for form in _FORMS:
        found = form.fullmatch(remote.strip())
        if found and re.fullmatch(r"[\w.-]+(/[\w.-]+)+", found[2]):
            return f"https://{found[1]}/{found[2]}"
    return ""


def repository_address(root: Path) -> str:
    """The address of the remote `origin` of the checkout at `root`, or of its only remote; "" where
    there is none (or no git, or no checkout)."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout if done.returncode == 0 else ""

    names = git("remote").split()
    name = "origin" if "origin" in names else next(iter(names), "")
    return address_of(git("remote", "get-url", name)) if name else ""


def owner_and_name(address: str) -> str:
    """OWNER/NAME of a repository at GitHub, which Binder and Colab take; "" for another place."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", address)
    return found[1] if found else ""
