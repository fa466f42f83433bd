"""The papers: what they show, where it is replicated, and the committed results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from rclib import paths
from rclib.study.results import load_results

__all__ = ["PAPER_TITLES", "Item", "Papers", "Record", "Run", "committed_runs", "load_papers"]


PAPER_TITLES = {
    "A": "A Mean Field Ansatz for Zero-Shot Weight Transfer (arXiv 2408.08681)",
    "B": "From Spikes to Heavy Tails (arXiv 2406.04657)",
}


Record = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """A figure, table, algorithm, definition, example or experiment of a paper."""

    paper: str
    item: str
    shows: str
    notebook: str = ""  # its number, e.g. "11"; empty for what code and tests stand for
    figures: Mapping[str, str] = field(default_factory=dict)  # file name -> short title
    beside: Mapping[str, str] = field(default_factory=dict)  # the same, going further
    claims: tuple[str, ...] = ()  # sources or keys; empty: all that name the paper
    code: str = ""
    tests: tuple[str, ...] = ()
    verdict: str = "implemented, tested"  # of what code and tests stand for
    open: str = ""

    def owns(self, claim: Record) -> bool:
        """Whether a claim of its notebook belongs to it."""
        if self.claims:
            return claim["paper"] in self.claims or claim["key"] in self.claims
        return str(claim["paper"]).startswith(f"{self.paper},")


@dataclass(frozen=True)
class Papers:
    """What `papers.yaml` holds: items, titles of further figures, reasons of deviations."""

    items: tuple[Item, ...]
    titles: Mapping[str, str]
    reasons: Mapping[str, Mapping[str, str]]

    def figure_titles(self) -> dict[str, str]:
        """Short titles of all figures: file name -> title."""
        named = [{**item.figures, **item.beside} for item in self.items]
        return {name: title for titles in [*named, self.titles] for name, title in titles.items()}

    def figure_items(self) -> dict[str, str]:
        """What the paper calls what a figure stands for, or stands beside: file name -> label."""
        own = {name: item.item for item in self.items for name in item.figures}
        return own | {name: f"Beside {i.item}" for i in self.items for name in i.beside}


@dataclass(frozen=True)
class Run:
    """The results of one notebook at the largest scale that is committed."""

    profile: str
    record: Record


@cache
def load_papers() -> Papers:
    """The papers' items; ValueError if `papers.yaml` is not as its head says."""
    import yaml

    text = files("rclib.study").joinpath("papers.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    try:
        items = []
        for entry in content["items"]:
            settings = {**entry, "notebook": str(entry.get("notebook", ""))}
            for key in ("claims", "tests"):
                settings[key] = tuple(settings.get(key, ()))
            items.append(Item(**settings))
        reasons = {str(number): dict(by_key) for number, by_key in content["reasons"].items()}
        return Papers(tuple(items), dict(content["titles"]), reasons)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"rclib/papers.yaml is not valid: {error}") from None


def committed_runs() -> dict[str, Run]:
    """Results that are in the repository (every profile but quick): number of the notebook ->
    run. The paper's scale wins over smaller ones. ValueError for an invalid results file."""
    runs: dict[str, Run] = {}
    for profile in sorted(paths.PROFILES, key=lambda name: name == "paper"):
        if profile != "quick":
            for record in load_results(profile):
                runs[record["notebook"][:2]] = Run(profile, record)
    return dict(sorted(runs.items()))
