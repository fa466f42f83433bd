"""Mathematics of Markdown cells as MathML, which browsers draw without a script or a network."""

from __future__ import annotations

import re
import warnings
from html import escape

from latex2mathml.converter import convert

__all__ = ["mathml"]


def mathml(latex: str, *, block: bool = False) -> str:
    """HTML of a formula. What cannot be converted is shown as its source, with a warning."""
    source = latex.strip()
    try:
        html = str(convert(source, display="block" if block else "inline"))
        unknown = re.search(r">(\\[A-Za-z]+)<", html)  # the converter passes commands on
        if unknown is None:
            return html
        problem = f"{unknown[1]} is not known"
    except Exception as error:  # the converter's errors have no common base
        problem = type(error).__name__
    warnings.warn(f"formula {source!r} is shown as its source: {problem}", stacklevel=2)
    return f"<code>{escape(source)}</code>"
