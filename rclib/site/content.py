"""What the gallery shows, read from the results files: notebooks, figures, claims.

One figure (or claim) may exist at several profiles; the profiles stand side by side and the
most complete one leads. Nothing is drawn or computed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.study.claims import VERDICTS
from rclib.study.papers import load_papers
from rclib.study.results import load_results, tally
from rclib.study.seeds import claim_rows

__all__ = [
    "KINDS",
    "PAPERS",
    "ClaimRow",
    "Figure",
    "Gallery",
    "Notebook",
    "Outcome",
    "Variant",
    "first_sentence",
    "leading_first",
    "load_gallery",
    "paper_of_claim",
]

# What the gallery can be filtered by: key -> name.
PAPERS = {
    "A": "A Mean Field Ansatz",
    "B": "From Spikes to Heavy Tails",
    "beyond": "Beyond the papers",
}
KINDS = ("png", "pdf", "csv")
_BY_NUMBER = {"1": "A", "2": "B"}  # notebooks 1x, 2x; all others go beyond the papers
# The end that `rclib.study.study.Study.save_figure` adds to a caption.
_DATA_NOTE = re.compile(r"\s*Data: .*; profile: \w+\.$", re.DOTALL)


@dataclass(frozen=True)
class Outcome:
    """A claim as measured at one profile; numbers are None when nothing was measured."""

    verdict: str
    value: float | None
    low: float | None
    high: float | None
    repeats: int
    note: str
    seeds: str = ""  # in how many sets of seeds the verdict came out, "9/10"; "" if not known

    @property
    def text(self) -> str:
        """Measured value with its interval, e.g. "0.41 [0.39, 0.43]"."""
        if self.value is None:
            return "not measured"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    @property
    def remarks(self) -> str:
        """Repeats, share of sets of seeds with this verdict, and the note, as one line."""
        parts = [f"{self.repeats} repeats"] if self.repeats > 1 else []
        if self.seeds:
            same, total = self.seeds.split("/")
            parts.append(f"{same} of {total} sets of seeds agree")
        return "; ".join([*parts, *([self.note] if self.note else [])])


@dataclass(frozen=True)
class ClaimRow:
    """One claim of a notebook with its outcomes: profile -> outcome."""

    notebook: str
    key: str
    source: str
    paper: str
    statement: str
    quantity: str
    criterion: str
    outcomes: Mapping[str, Outcome]

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts that occur, in the order of `rclib.study.claims.VERDICTS`."""
        found = {outcome.verdict for outcome in self.outcomes.values()}
        return tuple(verdict for verdict in VERDICTS if verdict in found)


@dataclass(frozen=True)
class Variant:
    """One figure at one profile: caption, files by kind, the record it belongs to."""

    profile: str
    caption: str
    files: Mapping[str, Path]
    record: Mapping[str, Any]

    @property
    def data(self) -> str:
        """The data set it was made from."""
        return str(self.record["data"]["description"])

    @property
    def core_seconds(self) -> float:
        """Seconds on one core that the training runs of its notebook took."""
        return float(self.record["core_seconds"])


@dataclass(frozen=True)
class Notebook:
    """A notebook with its results: profile -> record."""

    name: str
    title: str
    paper: str
    records: Mapping[str, Mapping[str, Any]]

    @property
    def label(self) -> str:
        """What the paper calls it: the title up to its colon."""
        return self.title.partition(":")[0].strip()

    @property
    def leading(self) -> str:
        """The most complete profile that has results."""
        return next(iter(self.records))


@dataclass(frozen=True)
class Figure:
    """A figure with its variants, the leading profile first."""

    name: str
    notebook: Notebook
    title: str  # a few words
    label: str  # what the paper calls it; "Beside ..." for one that goes further
    variants: Mapping[str, Variant]

    @property
    def lead(self) -> Variant:
        """The variant that is shown first."""
        return next(iter(self.variants.values()))

    @property
    def sentence(self) -> str:
        """First sentence of the caption."""
        return first_sentence(self.lead.caption)

    @property
    def verdicts(self) -> Mapping[str, int]:
        """Verdicts of the notebook's claims at the leading profile: verdict -> count."""
        return tally(c["verdict"] for c in self.lead.record["claims"])


@dataclass(frozen=True)
class Gallery:
    """All that the site shows. `profiles` have results; `missing` have none."""

    notebooks: tuple[Notebook, ...]
    figures: tuple[Figure, ...]
    claims: tuple[ClaimRow, ...]
    profiles: tuple[str, ...]
    missing: tuple[str, ...]

    def claims_of(self, notebook: str) -> tuple[ClaimRow, ...]:
        """The claims of one notebook."""
        return tuple(c for c in self.claims if c.notebook == notebook)


def first_sentence(text: str) -> str:
    """Text up to its first full stop that another sentence follows."""
    return re.split(r"(?<=[.!?])\s+(?=[^\W\d_a-z])", text.strip(), maxsplit=1)[0]


def leading_first(profiles: Sequence[str]) -> tuple[str, ...]:
    """The papers' scale first, the quick profile last, what lies between in between."""
    place = {"paper": 0, "quick": 2}
    return tuple(sorted(profiles, key=lambda profile: place.get(profile, 1)))


def paper_of_claim(source: str, notebook_paper: str) -> str:
    """Key of `PAPERS` for a claim's source, e.g. "A, Figure 4.1" or "beyond the paper"."""
    letter, comma, _ = source.partition(",")
    if comma and letter in PAPERS:
        return letter
    return "beyond" if source.startswith("beyond") else notebook_paper


def load_gallery() -> Gallery:
    """Everything that the results files of all profiles hold.

    Raises ValueError naming the file when a results file is not valid or when a figure that
    it names is not there.
    """
    profiles = leading_first(paths.PROFILES)
    records = {profile: load_results(profile) for profile in profiles}
    by_notebook: dict[str, dict[str, Mapping[str, Any]]] = {}
    for profile, found in records.items():
        for record in found:
            by_notebook.setdefault(record["notebook"], {})[profile] = record
    notebooks = tuple(
        Notebook(name, lead["title"], _paper(name, lead["title"]), kinds)
        for name, kinds in sorted(by_notebook.items())
        for lead in [next(iter(kinds.values()))]
    )
    return Gallery(
        notebooks=notebooks,
        figures=tuple(figure for notebook in notebooks for figure in _figures(notebook)),
        claims=tuple(claim for notebook in notebooks for claim in _claims(notebook)),
        profiles=tuple(profile for profile in profiles if records[profile]),
        missing=tuple(profile for profile in profiles if not records[profile]),
    )


def _paper(name: str, title: str) -> str:
    if title.lower().startswith("beyond"):
        return "beyond"
    return _BY_NUMBER.get(name[0], "beyond")


def _figures(notebook: Notebook) -> list[Figure]:
    variants: dict[str, dict[str, Variant]] = {}
    for profile, record in notebook.records.items():
        for figure in record["figures"]:
            name = figure["name"]
            folder = paths.figures_dir(profile, notebook.name)
            files = {kind: folder / f"{name}.{kind}" for kind in KINDS}
            for path in files.values():
                if not path.is_file():
                    raise ValueError(
                        f"figure {path} is missing, but the results of {notebook.name} name it; "
                        f"run `make figures PROFILE={profile}`"
                    )
            caption = _DATA_NOTE.sub("", figure["caption"])
            variants.setdefault(name, {})[profile] = Variant(profile, caption, files, record)
    titles, items = load_papers().figure_titles(), load_papers().figure_items()
    return [
        Figure(
            name=name,
            notebook=notebook,
            title=titles.get((notebook.name, name), name.replace("_", " ").capitalize()),
            label=items.get((notebook.name, name), notebook.label),
            variants=found,
        )
        for name, found in variants.items()
    ]


def _claims(notebook: Notebook) -> list[ClaimRow]:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for profile, record in notebook.records.items():
        for claim in claim_rows([dict(record)]):
            found.setdefault(claim["key"], {})[profile] = claim
    rows = []
    for key, by_profile in found.items():
        lead = next(iter(by_profile.values()))
        outcomes = {
            profile: Outcome(
                verdict=c["verdict"],
                value=c["value"],
                low=c["low"],
                high=c["high"],
                repeats=int(c["repeats"]),
                note=c["note"],
                seeds=c["seeds"],
            )
            for profile, c in by_profile.items()
        }
        rows.append(
            ClaimRow(
                notebook=notebook.name,
                key=key,
                source=lead["paper"],
                paper=paper_of_claim(lead["paper"], notebook.paper),
                statement=lead["statement"],
                quantity=lead["quantity"],
                criterion=lead["criterion"],
                outcomes=outcomes,
            )
        )
    return rows
