"""What people write for a model of the hub: an id, its address in a browser, a name of old."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["hub_id", "split_id"]

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./+-]+))?", re.ASCII)
_URL = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(?:models/)?"
    r"(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:/(?:tree|blob|resolve)/(?P<revision>[\w.+-]+)(?:/.*)?)?",
    re.ASCII,
)
# Models that had no owner in the hub's first years.
_OWNERS = {
    "openai-community": "gpt2 gpt2-medium gpt2-large gpt2-xl openai-gpt",
    "distilbert": "distilgpt2 distilbert-base-uncased distilbert-base-cased distilroberta-base "
    "distilbert-base-multilingual-cased distilbert-base-uncased-finetuned-sst-2-english",
    "google-bert": "bert-base-uncased bert-base-cased bert-large-uncased bert-large-cased "
    "bert-base-multilingual-cased bert-base-multilingual-uncased bert-base-chinese",
    "FacebookAI": "roberta-base roberta-large roberta-large-mnli xlm-roberta-base "
    "xlm-roberta-large xlm-mlm-en-2048",
    "google-t5": "t5-small t5-base t5-large t5-3b t5-11b",
    "albert": "albert-base-v1 albert-base-v2 albert-large-v2 albert-xlarge-v2 albert-xxlarge-v2",
    "xlnet": "xlnet-base-cased xlnet-large-cased",
    "transfo-xl": "transfo-xl-wt103",
}
_OLD = {name: f"{owner}/{name}" for owner, names in _OWNERS.items() for name in names.split()}


def split_id(source: str) -> tuple[str, str | None] | None:
    """(owner/name, revision) of an id such as `owner/name@v1`, None if it is no id."""
    found = _ID.fullmatch(source)
    if not found or source.startswith((".", "/")):
        return None
    return found["repo"], found["revision"]


def hub_id(source: str) -> tuple[str, str | None] | None:
    """As `split_id`, for a model's address and names without owner (gpt2) as well."""
    text = unquote(source.strip()).partition("?")[0].partition("#")[0].rstrip("/")
    address = _URL.fullmatch(text)
    name, revision = (address["repo"], address["revision"]) if address else (text, None)
    if not address and "@" in name and "/" not in name.partition("@")[0]:
        name, _, revision = name.partition("@")
    if name in _OLD:
        return _OLD[name], revision or None
    if address and "/" in name:
        return name, revision
    return None if address else split_id(source)
