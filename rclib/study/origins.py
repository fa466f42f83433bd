"""Whose a verdict "not reproduced" is: the paper's statement, the scale, or our own choice.

`origin` in the file of a paper (`rclib.study.papers`) gives each such claim one of the words below,
judged after the value by somebody who had not written the claim.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ORIGINS", "check_origins"]

# In the order of the tables; docs/verdicts.md explains each.
ORIGINS: Mapping[str, str] = {
    "paper": "theory, the authors' code or a measurement at the paper's setting contradicts it",
    "scale": "something measured here says the setting is too small, too short or too easy for it",
    "data": "it holds here on one data set or system and not on another",
    "criterion": "the statement, or the number in it, is ours and not the paper's",
    "implementation": "our estimator, baseline, choice of rates or form of the method decides it",
    "unknown": "the paper's statement fails here, and nothing measured says why",
}

Texts = Mapping[str, Mapping[str, str]]  # notebook -> key -> text


def check_origins(origin: Texts, reasons: Texts) -> None:
    """ValueError for a word that is none of ORIGINS, and for a claim without a reason."""
    for notebook, by_key in origin.items():
        for key, word in by_key.items():
            if word not in ORIGINS:
                raise ValueError(
                    f"origin of {key!r} in {notebook} is {word!r}, none of {', '.join(ORIGINS)}"
                )
            if not reasons.get(notebook, {}).get(key):
                raise ValueError(f"origin of {key!r} in {notebook} stands without a reason")
