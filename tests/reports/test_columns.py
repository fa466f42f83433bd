"""docs/columns.md is current, and what it says of weightwatcher's columns is so."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import rclib
from rclib.inspection.vocabulary import MEANINGS, VERSION, heading
from rclib.reports import columns

ROOT = Path(__file__).parents[2]


def test_the_page_is_current(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (ROOT / "docs" / "columns.md").read_text(encoding="utf-8") == columns.page()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert columns.main() == columns.main() == 0
    assert (tmp_path / "docs" / "columns.md").read_text(encoding="utf-8") == columns.page()


def test_every_word_is_explained_and_the_changelog_has_the_version() -> None:
    text = columns.page()
    for word in MEANINGS:
        assert f"| `{word}` | {heading(word)} | " in text
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"vocabulary {VERSION}" in changes
    assert all(ours in ("", *MEANINGS) for ours, _ in columns.WEIGHTWATCHER.values())


@pytest.mark.slow
def test_weightwatchers_columns_are_those_that_the_page_names() -> None:
    pytest.importorskip("weightwatcher")
    generator = torch.Generator().manual_seed(0)
    shapes = ((120, 80), (60, 120))
    model = torch.nn.Sequential(*(torch.nn.Linear(n, m, bias=False) for m, n in shapes))
    for layer, (m, n) in zip(model, shapes, strict=True):
        scale = torch.rand(n, generator=generator) ** -0.5
        layer.weight.data = torch.randn(m, n, generator=generator) * scale
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import weightwatcher

        watcher = weightwatcher.WeightWatcher(model=model, log_level=logging.ERROR)
        theirs = watcher.analyze(randomize=True)
    assert set(columns.WEIGHTWATCHER) <= set(theirs.columns)
    ours = rclib.analyze(model)
    largest = [s.largest for s in ours.parts[0].spectra]
    for name, values in {
        "alpha": ours.alpha_ks,
        "num_pl_spikes": ours["tail"],
        "stable_rank": ours.stable_rank,
        "matrix_rank": ours["rank"],
        "num_evals": ours["rank"],
        "lambda_max": largest,
        "spectral_norm": largest,
        "xmax": largest,
        "sv_max": np.sqrt(largest),
        "sigma": (ours.alpha_ks_high - ours.alpha_ks) / 1.959964,
    }.items():
        np.testing.assert_allclose(
            theirs[name].astype(float), np.asarray(values, dtype=float), rtol=1e-4, err_msg=name
        )
    assert list(zip(theirs.N, theirs.M, strict=True)) == [(120, 80), (120, 60)]
