"""A claim's note as a reader should see it.

A note may carry what the system said when a claim could not be tested: numbers of errors, names of
exceptions, addresses of pools of connections. The record keeps it; a page, a table and a report say
the same in words. Needs the standard library alone.
"""

from __future__ import annotations

import re

__all__ = ["plain_note"]

# What the system says -> what it means, first match wins.
_MEANINGS = (
    (r"Name or service not known|getaddrinfo|name resolution|nodename nor servname", "no network"),
    (r"Connection refused|Connection reset|Network is unreachable|Max retries", "no network"),
    (r"timed out|Timeout", "no answer in time"),
    (r"No space left", "the disk is full"),
    (r"No such file", "the file is not there"),
    (r"Permission denied|\b40[13]\b", "access is refused"),
    (r"out of memory|Cannot allocate memory|MemoryError", "not enough memory"),
    (r"CERTIFICATE|SSL", "no secure connection"),
)
# A system's error: its number, an exception with its arguments, a nested error in angle brackets.
_RAW = re.compile(
    r"""["']?(?:
        <[^<>]*\b(?:error|Errno|Exception)\b[^<>]*>
      | \w*(?:ConnectionPool|Error|Exception)\(.*\)[^;]*
      | \[(?:Errno|WinError|SSL)[^\]]*\][^;]*
      | (?:\w+\.)*\w+(?:Error|Exception|Warning):[ ][^;]*
    )["']?""",
    re.VERBOSE,
)
_TRACE = re.compile(
    r"Traceback \(most recent call last\):.*?(?=\w+(?:Error|Exception)\b)", re.DOTALL
)


def plain_note(text: str) -> str:
    """`text` with every raw error of the system replaced by what it means."""

    def meaning(found: re.Match[str]) -> str:
        for pattern, words in _MEANINGS:
            if re.search(pattern, found[0], re.IGNORECASE):
                return words
        return "an error of the system"

    made = _RAW.sub(meaning, _TRACE.sub("", text))
    # A cache and a site that cannot be reached are one thing to a reader.
    made = re.sub(
        r"(\S+): none of .* is in the cache, and (\S+) cannot be reached: no network",
        r"\1 is not in the cache of this machine, and \2 could not be reached",
        made,
    )
    return " ".join(made.split())
