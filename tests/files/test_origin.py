"""rclib.files.origin: the address of the repository from git's remote."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rclib.files.origin import address_of, owner_and_name, repository_address


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/own/it.git", "https://github.com/own/it"),
        ("https://github.com/own/it/", "https://github.com/own/it"),
        ("https://user:secret@github.com/own/it.git", "https://github.com/own/it"),
        ("http://git.example.org:8080/a/b/c", "https://git.example.org/a/b/c"),
        ("git@github.com:own/it.name.git", "https://github.com/own/it.name"),
        ("ssh://git@github.com:22/own/it.git\n", "https://github.com/own/it"),
        ("git://github.com/own/it", "https://github.com/own/it"),
        ("/srv/git/it.git", ""),
        ("../it", ""),
        ("file:///srv/it", ""),
        ("https://github.com/", ""),
        ("https://github.com/own/it?x=<script>", ""),
        ("", ""),
    ],
)
def test_address_of_a_remote(remote: str, address: str) -> None:
    assert address_of(remote) == address


def test_owner_and_name_are_githubs_alone() -> None:
    assert owner_and_name("https://github.com/own/it") == "own/it"
    assert owner_and_name("https://gitlab.com/own/it") == ""
    assert owner_and_name("https://github.com/own/it/more") == ""
    assert owner_and_name("") == ""


def test_address_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert repository_address(tmp_path) == ""  # no checkout
    git("init", "-q")
    assert repository_address(tmp_path) == ""  # no remote
    git("remote", "add", "elsewhere", "git@github.com:other/it.git")
    assert repository_address(tmp_path) == "https://github.com/other/it"
    git("remote", "add", "origin", "https://github.com/own/it.git")
    assert repository_address(tmp_path) == "https://github.com/own/it"
    git("remote", "set-url", "origin", str(tmp_path))
    assert repository_address(tmp_path) == ""
    monkeypatch.setenv("PATH", "")
    assert repository_address(tmp_path) == ""  # no git
