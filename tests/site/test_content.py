"""What a site is made from: the claims of a notebook over its profiles."""

from __future__ import annotations

from rclib.site.content import Notebook


def _record(**verdicts: str) -> dict[str, list[dict[str, str]]]:
    return {"claims": [{"key": key, "verdict": verdict} for key, verdict in verdicts.items()]}


def test_a_notebook_counts_each_claim_at_the_largest_profile_that_makes_it() -> None:
    records = {
        "paper": _record(both="reproduced"),
        "laptop": _record(both="undecided", laptop_only="not reproduced"),
        "quick": _record(both="undecided", quick_only="undecided"),
    }
    made = Notebook("15_x", "Title", "A", records).claims
    assert {claim["key"]: claim["verdict"] for claim in made} == {
        "both": "reproduced",
        "laptop_only": "not reproduced",
    }


def test_the_quick_profile_makes_claims_where_it_is_alone() -> None:
    made = Notebook("15_x", "Title", "A", {"quick": _record(one="undecided")}).claims
    assert [claim["key"] for claim in made] == ["one"]
