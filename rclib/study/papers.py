"""The papers and the series: what they show, where it is replicated, and the committed results.

What the papers hold is data, one file a paper in the folder `papers` beside this module
(`a.yaml`, `b.yaml`, then `arxiv-<number>.yaml`), the series are in `papers/series.yaml`. A file of
a paper:

    id, title, short, authors, year, source    short: two or three words for menus
    items       every figure, table, algorithm and statement that is replicated, in order
        item        what the paper calls it         shows    what is seen there
        notebook    the notebook's full name        figures  drawn file -> short title
                                                    beside   the same, going further than the paper
        claims      keys or sources of the claims that belong to it; without it, all claims of
                    the notebook that name the paper and, where they name an item, this one
        code        where it is implemented         tests    what proves it (file::test)
        open        what the sources leave open, and what was chosen
        verdict     for what code and tests stand for: "implemented, tested", unless said otherwise
    titles      notebook -> figure -> short title, for figures that stand for no item
    reasons     notebook -> key -> why a claim did not come out as stated; one that was not
                reproduced must have an entry
    origin      notebook -> key -> whose it is that the claim was not reproduced, a word of
                `rclib.study.origins.ORIGINS`; each stands beside a reason
    simplified  notebook -> what is smaller or simpler than in the paper, and why
    finding     what the replication found out about the paper as a whole: a paragraph
    shown       notebook -> figure -> keys of the claims that can be read off it; without it, a
                figure shows the claims of its item
    terms       a term of its claims and figures that the glossary lacks -> its meaning

`papers/findings.yaml` holds what is told first, on the README and the start page of the site
(`rclib.study.findings`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from rclib import paths
from rclib.files.strict import parse_yaml
from rclib.study.findings import Finding, read_findings
from rclib.study.origins import check_origins
from rclib.study.results import load_results

__all__ = [
    "Item",
    "Paper",
    "Papers",
    "Record",
    "Run",
    "Series",
    "committed_runs",
    "load_papers",
]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """A figure, table, algorithm, definition, example or experiment of a paper."""

    paper: str
    item: str
    shows: str
    notebook: str = ""  # its full name; empty for what code and tests stand for
    figures: Mapping[str, str] = field(default_factory=dict)  # file name -> short title
    beside: Mapping[str, str] = field(default_factory=dict)  # the same, going further
    claims: tuple[str, ...] = ()
    code: str = ""
    tests: tuple[str, ...] = ()
    verdict: str = "implemented, tested"  # of what code and tests stand for
    open: str = ""

    def owns(self, claim: Record) -> bool:
        """Whether a claim of its notebook belongs to it."""
        if self.claims:
            return claim["paper"] in self.claims or claim["key"] in self.claims
        if claim.get("item"):
            return bool(claim["item"] == self.item)
        return str(claim["paper"]).startswith(f"{self.paper},")


@dataclass(frozen=True)
class Paper:
    """One file of the folder `papers`."""

    id: str
    title: str
    short: str
    authors: str
    year: int
    source: str
    items: tuple[Item, ...]
    titles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reasons: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    simplified: Mapping[str, str] = field(default_factory=dict)
    finding: str = ""
    shown: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    terms: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_origins(self.origin, self.reasons)


@dataclass(frozen=True)
class Series:
    """The notebooks whose names begin with one digit."""

    digit: int
    theme: str
    title: str
    question: str
    papers: tuple[str, ...]
    says: str = ""

    def holds(self, notebook: str) -> bool:
        """Whether a notebook belongs to it."""
        return notebook.startswith(str(self.digit))


@dataclass(frozen=True)
class Papers:
    """All papers, in the order of the series, the series, and what is told first."""

    papers: tuple[Paper, ...]
    series: tuple[Series, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __iter__(self) -> Iterator[Item]:
        """All items of all papers."""
        return (item for paper in self.papers for item in paper.items)

    def figure_titles(self) -> dict[tuple[str, str], str]:
        """Short titles of all figures: (notebook, figure) -> title."""
        found = {
            (item.notebook, name): title
            for item in self
            for name, title in {**item.figures, **item.beside}.items()
        }
        for paper in self.papers:
            for notebook, titles in paper.titles.items():
                found |= {(notebook, name): title for name, title in titles.items()}
        return found

    def figure_items(self) -> dict[tuple[str, str], str]:
        """What the paper calls what a figure stands for, or stands beside."""
        own = {(i.notebook, name): i.item for i in self for name in i.figures}
        return own | {(i.notebook, name): f"Beside {i.item}" for i in self for name in i.beside}

    def claims_shown(self, notebook: str, figure: str) -> tuple[str, ...] | None:
        """Keys of the claims that can be read off a figure; None where no paper says."""
        for paper in self.papers:
            if figure in paper.shown.get(notebook, {}):
                return tuple(paper.shown[notebook][figure])
        return None

    def reason(self, notebook: str, key: str) -> str:
        """Why a claim did not come out as stated; "" if none is written down."""
        return _told((paper.reasons for paper in self.papers), notebook, key)

    def origin(self, notebook: str, key: str) -> str:
        """Whose it is that a claim was not reproduced; "" if nobody has judged it."""
        return _told((paper.origin for paper in self.papers), notebook, key)


def _told(texts: Iterable[Mapping[str, Mapping[str, str]]], notebook: str, key: str) -> str:
    """What the first paper that says something says of a claim; "" if none does."""
    found = (text.get(notebook, {}).get(key, "") for text in texts)
    return next(filter(None, found), "")


@dataclass(frozen=True)
class Run:
    """The results of one notebook at the largest scale that is committed.

    smaller : key -> (profile, claim), for claims that only a smaller scale could test.
    """

    profile: str
    record: Record
    smaller: Mapping[str, tuple[str, Record]] = field(default_factory=dict)


@cache
def load_papers() -> Papers:
    """All papers and series; ValueError naming the file if one is not as this module says."""
    folder = files("rclib.study").joinpath("papers")
    texts = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    series = tuple(_series(entry) for entry in _parsed("series.yaml", texts.pop("series.yaml")))
    findings = _findings(texts.pop("findings.yaml"))
    papers = {paper.id: paper for paper in (_paper(name, texts[name]) for name in sorted(texts))}
    if len(papers) != len(texts):
        raise ValueError("two files of rclib/study/papers have one id")
    order = [id_ for one in series for id_ in one.papers]
    if sorted(order) != sorted(papers):
        raise ValueError(
            "rclib/study/papers/series.yaml must name every paper once: "
            f"it names {sorted(order)}, there are {sorted(papers)}"
        )
    return Papers(tuple(papers[id_] for id_ in order), series, findings)


def _findings(text: str) -> tuple[Finding, ...]:
    try:
        return read_findings(_parsed("findings.yaml", text))
    except ValueError as error:
        name = "rclib/study/papers/findings.yaml"
        raise ValueError(
            f"{name} is not valid: {str(error).partition('valid: ')[2] or error}"
        ) from None


def _parsed(name: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"rclib/study/papers/{name} is not valid: {error}") from None


def _paper(name: str, text: str) -> Paper:
    content = _parsed(name, text)
    try:
        items = []
        for entry in content["items"]:
            settings = {**entry, "paper": content["id"]}
            for key in ("claims", "tests"):
                settings[key] = tuple(settings.get(key, ()))
            items.append(Item(**settings))
        return Paper(**{**content, "items": tuple(items)})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"rclib/study/papers/{name} is not valid: {error}") from None


def _series(entry: Any) -> Series:
    try:
        return Series(**{**entry, "papers": tuple(entry["papers"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"rclib/study/papers/series.yaml is not valid: {error}") from None


def committed_runs() -> dict[str, Run]:
    """Results that are in the repository (every profile but quick): full name of the notebook ->
    run. The paper's scale wins over smaller ones; a claim that only a smaller one has made comes
    along and says so. ValueError for an invalid results file."""
    runs: dict[str, Run] = {}
    for profile in sorted(paths.PROFILES, key=lambda name: name == "paper"):
        if profile != "quick":
            for record in load_results(profile):
                before = runs.get(record["notebook"])
                smaller = _only_there(before, record) if before else {}
                if before:
                    record = {**record, "claims": [*record["claims"], *_alone(before, record)]}
                runs[record["notebook"]] = Run(profile, record, smaller)
    return dict(sorted(runs.items()))


def _alone(before: Run, record: Record) -> list[Record]:
    """Claims of `before` that `record` does not know."""
    known = {claim["key"] for claim in record["claims"]}
    return [
        {**claim, "statement": f"{claim['statement']} ({before.profile} profile)"}
        for claim in before.record["claims"]
        if claim["key"] not in known
    ]


def _only_there(before: Run, record: Record) -> dict[str, tuple[str, Record]]:
    """Claims that `before` could test and `record` cannot."""
    tested = {c["key"]: c for c in before.record["claims"] if c["value"] is not None}
    untested = [c["key"] for c in record["claims"] if c["value"] is None]
    return {key: (before.profile, tested[key]) for key in untested if key in tested}
