"""What may stand on a page: HTML from elsewhere is sanitised, and the browser is told to run
nothing but the site's own scripts.

Two walls, each enough alone. `fragment` and `body` send HTML through nh3 (ammonia), which parses
it as a browser does and writes anew what an allow-list knows: no script, no handler, no style, no
frame, no form, no picture from a network, no link but to https, http, mail and places on the
site. `policy` is the Content-Security-Policy of a page, which holds if the first wall did not.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import nh3

__all__ = ["RESERVED", "body", "fragment", "policy", "protect"]


def _names(text: str) -> set[str]:
    return set(text.split())


_TEXT = _names(
    "a abbr b blockquote br caption cite code col colgroup dd del details div dl dt em figcaption "
    "figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li ol p pre q s samp small span strong sub summary "
    "sup table tbody td tfoot th thead tr u ul var wbr"
)
_MATH = _names(
    "math menclose mfrac mi mn mo mover mpadded mphantom mroot mrow mspace msqrt mstyle msub "
    "msubsup msup mtable mtd mtext mtr munder munderover"
)
_DRAWING = {"svg", "g", "path", "rect", "text", "title"}  # those of docs/
# What goes with all that is in it; of another element that is not known the text stays.
_WITH_CONTENT = _names(
    "script style iframe object embed template noscript noembed noframes textarea select "
    "button form"
)
_LINKS = {"https", "http", "mailto"}
_CELLS = {"colspan", "rowspan", "scope", "align"}
_ATTRIBUTES: dict[str, set[str]] = {
    "a": {"href", "title"},
    "img": {"src", "alt", "width", "height", "title"},
    "ol": {"start"},
    "td": _CELLS,
    "th": _CELLS,
    "math": {"display", "xmlns"},
    "menclose": {"notation"},
    "mfrac": {"linethickness"},
    "mi": {"mathvariant"},
    "mo": {
        *("accent", "fence", "form", "largeop", "lspace", "maxsize", "minsize", "movablelimits"),
        *("rspace", "separator", "stretchy", "symmetric"),
    },
    "mover": {"accent"},
    "mpadded": {"depth", "height", "lspace", "voffset", "width"},
    "mspace": {"depth", "height", "linebreak", "width"},
    "mstyle": {"displaystyle", "mathvariant", "scriptlevel"},
    "mtable": {"columnalign", "columnlines", "columnspacing", "displaystyle", "rowlines",
               "rowspacing"},
    "mtd": {"columnalign", "columnspan", "rowspan"},
    "munder": {"accentunder"},
}  # fmt: skip
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
# Names by which the site's own script finds its parts.
RESERVED = {"main", "filter", "shown", "scoreboard", "series"}
# Of text that somebody else wrote: highlighted code, and tables as pandas makes them.
_CLASSES = {
    "div": re.compile("highlight"),
    "span": re.compile("[a-z][a-z0-9]{0,2}"),
    "table": re.compile("dataframe"),
}
_FOREIGN = _ATTRIBUTES | {
    name: _ATTRIBUTES.get(name, set()) | {"class"} for name in ("div", "span", "table")
}
_FOREIGN |= {name: {"id"} for name in _HEADINGS}
# A page as the site's own code puts it together of fragments, escaped text and drawings.
_OWN = _ATTRIBUTES | {
    "*": {"class", "id", "role", "tabindex", "aria-label"},
    "img": _ATTRIBUTES["img"] | {"loading"},
    "td": _CELLS | {"data-label"},
    "g": {"transform"},
    "path": {"d"},
    "rect": {"height", "rx", "width", "x", "y"},
    "svg": {"viewBox", "xmlns"},
    "text": {"x", "y"},
}


def fragment(html: str) -> str:
    """HTML that somebody else wrote (a notebook's output, Markdown) as a page may hold it:
    text, tables, formulas, and pictures that come with it."""
    return nh3.clean(
        html,
        tags=_TEXT | _MATH,
        clean_content_tags=_WITH_CONTENT,
        attributes=_FOREIGN,
        attribute_filter=_foreign,
        url_schemes=_LINKS | {"data"},  # of pictures alone, see _address
    )


def body(html: str) -> str:
    """The main part of a page, put together by the site's own code of fragments and drawings."""
    return nh3.clean(
        html,
        tags=_TEXT | _MATH | _DRAWING,
        clean_content_tags=_WITH_CONTENT,
        attributes=_OWN,
        attribute_filter=_address,
        url_schemes=_LINKS | {"data"},
    )


def _foreign(tag: str, name: str, value: str) -> str | None:
    if name == "class":
        kept = [c for c in value.split() if tag in _CLASSES and _CLASSES[tag].fullmatch(c)]
        return " ".join(kept) or None
    if name == "id" and value in RESERVED:
        return None
    return _address(tag, name, value)


def _address(tag: str, name: str, value: str) -> str | None:
    """An attribute's value; None for an address that leads out of the site, where a page would
    fetch it, or for data that is no picture of pixels."""
    if name not in ("href", "src"):
        return value
    plain = re.sub(r"[\x00-\x20]", "", value).replace("\\", "/").lower()  # as browsers read it
    if name == "src":
        inside = ":" not in plain and not plain.startswith("/")
        return value if inside or _picture(plain) else None
    return None if plain.startswith(("data:", "//")) else value


def _picture(address: str) -> bool:
    return re.match(r"data:image/(png|jpeg|gif|webp);base64,", address) is not None


def policy(scripts: Iterable[str] = (), styles: Iterable[str] = ()) -> str:
    """The Content-Security-Policy of a page: these scripts and nothing but what they load
    themselves; style sheets of the site and these; pictures of the site; nothing from a network.

    A page that is opened from disk cannot check the hash of a script in another file, so the one
    on the page is named by its hash and hands its right on (`strict-dynamic`).
    """
    named = " ".join(f"'sha256-{_digest(text)}'" for text in dict.fromkeys(scripts))
    sheets = "".join(f" 'sha256-{_digest(text)}'" for text in dict.fromkeys(styles))
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {named} 'strict-dynamic'" if named else "script-src 'none'",
            f"style-src 'self'{sheets}",
            "img-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def protect(path: Path) -> None:
    """Give a finished page of another maker, which holds scripts and styles of its own, the
    policy that lets these alone run. Raises ValueError for a page without a head."""
    html = path.read_text(encoding="utf-8")
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts, styles)}">'
    html, found = re.subn(r"<head>", lambda match: match[0] + meta, html, count=1)
    if not found:
        raise ValueError(f"{path} has no head to put a policy into")
    path.write_text(html, encoding="utf-8")
