"""What the site shows: series, notebooks, figures, claims and papers, each once.

One figure (or claim) may exist at several profiles; the profiles stand side by side and the
most complete one leads. A figure's identity is its notebook's full name with its own: two
notebooks may have a figure of one name. `rclib.site.loading` fills these from the results files;
nothing is drawn or computed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclib.study.claims import VERDICTS
from rclib.study.findings import MOST, Told, measured, told
from rclib.study.papers import Item, Paper, Papers, Series
from rclib.study.wording import plain_note

__all__ = [
    "BEYOND",
    "KEPT",
    "KINDS",
    "ClaimRow",
    "Figure",
    "Gallery",
    "Notebook",
    "Outcome",
    "Variant",
    "first_sentence",
    "leading_first",
    "paper_of_claim",
    "series_of",
]

KINDS = ("png", "pdf", "csv")
KEPT = "json.xz"  # what `python -m rclib redraw` draws from; figures from before it lack it
BEYOND = "beyond"  # in place of a paper's id


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
        return measured({"value": self.value, "low": self.low, "high": self.high})

    @property
    def remarks(self) -> str:
        """Repeats, share of sets of seeds with this verdict, and the note, as one line."""
        parts = [f"{self.repeats} repeats"] if self.repeats > 1 else []
        if self.seeds:
            same, total = self.seeds.split("/")
            parts.append(f"{same} of {total} sets of seeds agree")
        return "; ".join([*parts, *([plain_note(self.note)] if self.note else [])])


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
    item: str | None = None  # of the paper, where the claim names one
    control: bool = False  # it must fail if the effect is absent
    seen: str = ""  # for a criterion that was written after a value was seen: on which seeds

    @property
    def anchor(self) -> str:
        """Its place on the page of all claims."""
        return re.sub(r"[^\w.-]", "-", f"{self.notebook}.{self.key}")

    @property
    def profile(self) -> str:
        """The most complete profile at which it was measured."""
        return next(iter(self.outcomes))

    @property
    def lead(self) -> Outcome:
        """Its outcome there."""
        return self.outcomes[self.profile]

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
    def redraw(self) -> str:
        """The command that draws it again without training, "" where its data were not kept."""
        if KEPT not in self.files:
            return ""
        scale = "" if self.profile == "paper" else f" --profile {self.profile}"
        return f"python -m rclib redraw {self.record['notebook']}{scale}"

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

    name: str  # its full name
    title: str
    paper: str  # id of the paper that it replicates, or BEYOND
    records: Mapping[str, Mapping[str, Any]]

    @property
    def label(self) -> str:
        """What the paper calls it: the title up to its colon."""
        return self.title.partition(":")[0].strip()

    @property
    def leading(self) -> str:
        """The most complete profile that has results."""
        return next(iter(self.records))

    @property
    def claims(self) -> list[Mapping[str, Any]]:
        """Its claims there, and those that only a smaller profile makes; as in the reports, the
        quick one makes none where there is another."""
        made: dict[str, Mapping[str, Any]] = {}
        for profile, record in self.records.items():
            if profile == self.leading or profile != "quick":
                for claim in record["claims"]:
                    made.setdefault(claim["key"], claim)
        return list(made.values())


@dataclass(frozen=True)
class Figure:
    """A figure with its variants, the leading profile first."""

    name: str
    notebook: Notebook
    title: str  # a few words
    label: str  # what the paper calls it; "Beside ..." for one that goes further
    variants: Mapping[str, Variant]
    own: tuple[str, ...] = ()  # keys of the claims that can be read off it
    owner: str = ""  # whose claims these are where nothing says more: its item of the paper

    @property
    def key(self) -> tuple[str, str]:
        """Its identity: (notebook, figure)."""
        return self.notebook.name, self.name

    @property
    def path(self) -> str:
        """Its identity as a path, "<notebook>/<figure>"."""
        return f"{self.notebook.name}/{self.name}"

    @property
    def page(self) -> str:
        """Its page on the site."""
        return f"figures/{self.path}.html"

    @property
    def thumbnail(self) -> str:
        """Its small picture on the site."""
        return f"thumbnails/{self.path}.webp"

    @property
    def lead(self) -> Variant:
        """The variant that is shown first."""
        return next(iter(self.variants.values()))

    @property
    def sentence(self) -> str:
        """First sentence of the caption."""
        return first_sentence(self.lead.caption)

    def file(self, profile: str, kind: str = "") -> str:
        """One of its files on the site; without a kind the picture: as it was saved at the leading
        profile, smaller and with the same pixels (WebP) at others."""
        kind = kind or ("png" if profile == self.lead.profile else "webp")
        return f"figures/{profile}/{self.path}.{kind}"


@dataclass(frozen=True)
class Gallery:
    """All that the site shows. `profiles` have results; `missing` have none; `problems` names
    every file that could not be read, whose content is left out."""

    notebooks: tuple[Notebook, ...]
    figures: tuple[Figure, ...]
    claims: tuple[ClaimRow, ...]
    profiles: tuple[str, ...]
    missing: tuple[str, ...]
    papers: Papers
    problems: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[Series, ...]:
        """The series that have results."""
        return series_of(self.papers, (notebook.name for notebook in self.notebooks))

    def notebooks_in(self, series: Series) -> tuple[Notebook, ...]:
        """The notebooks of a series."""
        return tuple(n for n in self.notebooks if series.holds(n.name))

    def figures_of(self, notebook: str) -> tuple[Figure, ...]:
        """The figures of one notebook."""
        return tuple(f for f in self.figures if f.notebook.name == notebook)

    def claims_of(self, notebook: str) -> tuple[ClaimRow, ...]:
        """The claims of one notebook."""
        return tuple(c for c in self.claims if c.notebook == notebook)

    def own_claims(self, figure: Figure) -> tuple[ClaimRow, ...]:
        """The claims that belong to a figure; others of its notebook do not."""
        return tuple(c for c in self.claims_of(figure.notebook.name) if c.key in figure.own)

    def notebooks_of(self, paper: Paper) -> tuple[Notebook, ...]:
        """The notebooks that replicate a paper."""
        return tuple(n for n in self.notebooks if n.paper == paper.id)

    def claims_of_paper(self, paper: Paper) -> list[ClaimRow]:
        """The claims that name a paper, or whose notebook replicates it."""
        return [claim for claim in self.claims if claim.paper == paper.id]

    def claims_of_item(self, item: Item) -> list[ClaimRow]:
        """The claims that belong to an item of a paper."""
        return [
            claim
            for claim in self.claims_of(item.notebook)
            if item.owns({"paper": claim.source, "key": claim.key, "item": claim.item})
        ]

    def figures_of_item(self, item: Item) -> list[Figure]:
        """The figures that stand for an item of a paper."""
        return [f for f in self.figures_of(item.notebook) if f.name in item.figures]

    def findings(self) -> tuple[Told, ...]:
        """What is told first, of the results beyond the quick profile."""
        leading = {n.name: n.records[n.leading] for n in self.notebooks if n.leading != "quick"}
        return told(self.papers.findings, leading)[:MOST]

    def figure(self, notebook: str, name: str) -> Figure | None:
        """A figure by its notebook and name."""
        return next((f for f in self.figures_of(notebook) if f.name == name), None)

    def paper(self, key: str) -> Paper | None:
        """A paper by its id; None for `BEYOND`."""
        return next((paper for paper in self.papers.papers if paper.id == key), None)

    def paper_name(self, key: str) -> str:
        """Two or three words for a paper, or for what belongs to none."""
        paper = self.paper(key)
        return paper.short if paper else "Beyond the papers"

    def cover(self, series: Series | None = None) -> Figure | None:
        """The figure that stands for a series, or for the site: the first that a paper calls a
        figure, or else the first."""
        figures = [f for f in self.figures if series is None or series.holds(f.notebook.name)]
        named = [figure for figure in figures if figure.label.startswith("Figure")]
        return next(iter([*named, *figures]), None)


def series_of(papers: Papers, notebooks: Iterable[str]) -> tuple[Series, ...]:
    """The series of these notebooks, by their first digit; one that series.yaml does not know
    has its digit for a title."""
    known = {series.digit: series for series in papers.series}
    digits = sorted({int(name[0]) for name in notebooks})
    titles = {0: "Overview"}
    return tuple(
        known.get(digit) or Series(digit, "", titles.get(digit, f"Series {digit}"), "", ())
        for digit in digits
    )


def first_sentence(text: str) -> str:
    """Text up to its first full stop that another sentence follows."""
    end = r"(?<!i\.i\.d\.)(?<!e\.g\.)(?<=[.!?])\s+(?=[^\W\d_a-z])"
    return re.split(end, text.strip(), maxsplit=1)[0]


def leading_first(profiles: Sequence[str]) -> tuple[str, ...]:
    """The papers' scale first, the quick profile last, what lies between in between."""
    place = {"paper": 0, "quick": 2}
    return tuple(sorted(profiles, key=lambda profile: place.get(profile, 1)))


def paper_of_claim(source: str, owner: str, known: Iterable[str]) -> str:
    """Id of the paper of a claim's source, e.g. "A, Figure 4.1" or "beyond the paper"; `owner`
    where the source names none."""
    identity, comma, _ = source.partition(",")
    if comma and identity in known:
        return identity
    return BEYOND if source.startswith(BEYOND) else owner
