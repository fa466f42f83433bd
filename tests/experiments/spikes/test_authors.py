"""The authors' own numbers: their source, how ours are compared, and that ours are theirs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rclib.experiments.spikes import authors
from rclib.teacher.evaluation import evaluate_both
from rclib.teacher.problem import make_problem


def test_the_file_says_where_its_numbers_come_from() -> None:
    told = authors.provenance()
    assert told["commit"] == "901ee634e80f2151d2b4f92c08acf3649fb2a871"
    for key in ("repository", "command", "protocol", "seeds", "versions", "machine", "date"):
        assert told[key]
    frame = authors.authors_sweep()
    assert np.isfinite(frame[list(authors.QUANTITIES)]).all(axis=None)
    last = frame[frame.step == 10]
    assert last.groupby(["optimizer", "rate"]).seed.nunique().tolist() == [5] * 18
    assert sorted(frame[frame.step == 0].seed) == [0, 1, 2, 3, 4]


def test_z_is_as_rare_as_its_t() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=5), rng.normal(0.7, 3.0, size=7)
    z = authors.welch_z(first, second)
    p = stats.ttest_ind(first, second, equal_var=False).pvalue
    assert 2 * stats.norm.sf(abs(z)) == pytest.approx(p, rel=1e-9)
    assert np.sign(z) == np.sign(first.mean() - second.mean())
    assert authors.welch_z(second, first) == pytest.approx(-z)
    assert authors.welch_z([1.0, 1.0], [1.0, 1.0]) == 0.0
    assert authors.welch_z([1.0, 1.0], [2.0, 2.0]) == -np.inf
    with pytest.raises(ValueError, match="first and second need two values each, got 1 and 2"):
        authors.welch_z([1.0], [1.0, 2.0])


def test_equal_laws_pass_three_as_often_as_they_should() -> None:
    rng = np.random.default_rng(1)
    z = [authors.welch_z(*rng.normal(size=(2, 5))) for _ in range(2000)]
    assert np.mean(np.abs(z) > 3) < 0.006  # normal: 0.0027; plain t of five and five: 0.017
    assert np.std(z) == pytest.approx(1.0, abs=0.08)


def test_comparison_takes_the_start_once_and_every_setting() -> None:
    theirs = authors.authors_sweep()
    same = authors.compare(theirs, theirs)
    assert len(same) == 19 * len(authors.QUANTITIES)
    assert set(same.setting) >= {"start", "gd 0.001", "adam 3000"}
    assert (same.z == 0).all()
    np.testing.assert_array_equal(same.ours, same.theirs)
    moved = theirs.assign(kta=theirs.kta + (theirs.optimizer == "adam") * 0.5)
    found = authors.compare(moved, theirs).set_index(["setting", "quantity"]).z
    assert (found.xs("kta", level=1).filter(like="adam") > 3).any()
    assert (found.xs("kta", level=1).filter(like="gd") == 0).all()
    assert (found.drop("kta", level=1) == 0).all()


def test_the_start_as_released_is_the_authors() -> None:
    """At the authors' size: five starts by both evaluations against theirs."""
    theirs = authors.authors_sweep()
    start = theirs[theirs.step == 0]
    found = {"equations": [], "released": []}
    for seed in range(5):
        p = make_problem(seed, n_test=2000)
        for way, evaluation in evaluate_both(p, p.W0).items():
            found[way].append(vars(evaluation))
    written, released = (pd.DataFrame(found[way]) for way in ("equations", "released"))
    for name in ("train_loss", "test_loss", "kta"):
        assert abs(authors.welch_z(released[name], start[name])) < 3, name
    for name in ("train_loss", "test_loss"):
        assert abs(authors.welch_z(written[name], start[name])) > 3, name
