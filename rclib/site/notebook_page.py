"""One notebook as the body of a page, by nbconvert with a template of our own.

Pictures of the outputs become files, mathematics becomes MathML, every cell has an anchor
(`#cell-<id>`). All HTML of outputs and Markdown goes through `rclib.site.clean`, and so does the
whole page: no script, style or picture from elsewhere is left.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from traitlets.config import Config

from rclib.files.plain import read_plain
from rclib.files.strict import parse_json
from rclib.files.terminal import printable
from rclib.site import clean, links
from rclib.site.content import first_sentence
from rclib.site.images import size_of
from rclib.site.mathml import mathml

__all__ = ["Page", "Saved", "declaring_cells", "digest", "markdown", "read_notebook", "render"]

TEMPLATE = """\
{%- extends 'base/display_priority.j2' -%}
{%- block codecell -%}
{%- set hidden = "install" in cell.metadata.get("tags", []) -%}
<div class="cell code{% if not cell.outputs %} quiet{% endif %}" id="cell-{{ cell.id | escape }}">
{% if hidden %}<details><summary>Installs rclib where it is absent</summary>{% endif %}
{{ super() }}
{% if hidden %}</details>{% endif %}
</div>
{%- endblock codecell -%}
{%- block input -%}{{ cell.source | highlight_code(metadata=cell.metadata) }}{%- endblock input -%}
{%- block output -%}<div class="output">{{ super() }}</div>{%- endblock output -%}
{%- block stream_stdout -%}<pre tabindex="0">{{ output.text | ansi2html }}</pre>{%- endblock -%}
{%- block stream_stderr -%}<pre tabindex="0">{{ output.text | ansi2html }}</pre>{%- endblock -%}
{%- block traceback_line -%}<pre tabindex="0">{{ line | ansi2html }}</pre>{%- endblock -%}
{%- block execute_result -%}
{%- block data_priority scoped -%}{{ super() }}{%- endblock -%}
{%- endblock execute_result -%}
{%- block data_png -%}
{%- set picture = output.metadata.rclib -%}
<figure><img src="{{ picture.file }}" alt="{{ picture.alt | escape }}"
 width="{{ picture.width }}" height="{{ picture.height }}" loading="lazy">
{%- if picture.caption %}<figcaption>{{ picture.caption | escape }}</figcaption>{% endif -%}
</figure>
{%- endblock data_png -%}
{%- block data_html -%}
<div class="scroll" tabindex="0">{{ output.data['text/html'] | clean }}</div>
{%- endblock data_html -%}
{%- block data_markdown -%}{{ output.data['text/markdown'] | markdown2html }}{%- endblock -%}
{%- block data_latex -%}{{ output.data['text/latex'] | markdown2html }}{%- endblock -%}
{%- block data_text -%}
<pre tabindex="0">{{ output.data['text/plain'] | ansi2html }}</pre>
{%- endblock data_text -%}
{%- block markdowncell -%}
<div class="cell prose" id="cell-{{ cell.id | escape }}">{{ cell.source | markdown2html }}</div>
{%- endblock markdowncell -%}
"""

Saved = tuple[str, int, int]  # address of a picture on the site, width, height
WIDGET = "application/vnd.jupyter.widget-view+json"
_MAX_BYTES = 2**26  # of a notebook, outputs included
PRIORITY = ["text/html", "text/markdown", "image/png", "text/latex", "text/plain"]


@dataclass(frozen=True)
class Page:
    """HTML of a notebook's cells and the pictures it shows: file name -> bytes."""

    html: str
    pictures: Mapping[str, bytes]


class _Renderer(IPythonRenderer):
    """Markdown whose formulas become MathML."""

    def multiline_math(self, text: str) -> str:
        return mathml(re.sub(r"^\$\$|\$\$$|^\\\\\[|\\\\\]$", "", text.strip()), block=True)

    def block_math(self, body: str) -> str:
        return mathml(body, block=True)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)

    def inline_math(self, body: str) -> str:
        return mathml(body)


class _Exporter(HTMLExporter):
    """HTML of the cells alone."""

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        """Those of nbconvert, and what HTML of others goes through."""
        yield from super().default_filters()
        yield "clean", clean.fragment

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """The filter that the template calls."""
        return markdown(source)


def markdown(source: str) -> str:
    """Safe HTML of Markdown text; formulas become MathML."""
    renderer = _Renderer(escape=False, exclude_anchor_links=True)
    return clean.fragment(str(MarkdownWithMath(renderer=renderer).render(source)))


def read_notebook(path: Path) -> NotebookNode:
    """The notebook in a file; ValueError naming the file if it holds none."""
    try:
        text = read_plain(path, _MAX_BYTES).decode("utf-8")
        parse_json(text)  # refuses what the library would not survive: nesting, keys twice
        notebook: NotebookNode = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # a damaged notebook can raise nearly anything
        line = _line(error).removeprefix(f"{path} ")
        raise ValueError(f"{path} is not a notebook that can be read: {line}") from None
    return notebook


def _line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return printable(line[:200])


@cache
def _exporter() -> _Exporter:
    return _Exporter(
        raw_template=TEMPLATE,
        config=Config({"NbConvertBase": {"display_data_priority": PRIORITY}}),
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )


def render(
    notebook: NotebookNode,
    *,
    pictures: str,
    saved: Mapping[str, Saved] | None = None,
    known: Mapping[str, Saved] | None = None,
    resolver: links.Resolver | None = None,
) -> Page:
    """The notebook's cells as HTML.

    pictures : folder, relative to the page, in which the page's pictures will lie.
    saved : figures that lie on the site already, name -> (address, width, height); a cell that
        saves one of them shows that file.
    known : the same by the digest of a picture's bytes, for cells that show one.
    resolver : what becomes of links and pictures of the Markdown cells.
    Raises ValueError for what cannot be shown.
    """
    node = nbformat.from_dict(notebook)
    try:
        found = _take_pictures(node, pictures, saved or {}, known or {})
        html, _ = _exporter().from_notebook_node(node)
        return Page(clean.body(_tidy(html, resolver)), found)
    except Exception as error:  # outputs are of any form, and nbconvert finds it out in many ways
        raise ValueError(_line(error)) from None


def _take_pictures(
    notebook: NotebookNode, folder: str, saved: Mapping[str, Saved], lying: Mapping[str, Saved]
) -> dict[str, bytes]:
    """Pictures of the outputs, which are told where they will lie and what they show.

    The caption that a cell returns stands below its picture instead of above it. Widgets, which
    need a kernel, are left out.
    """
    found: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
        pictures = [o for o in outputs if "image/png" in o.get("data", {})]
        captions = [o for o in outputs if pictures and _is_caption(o)]
        cell.outputs = [o for o in outputs if o not in captions]
        caption = ast.literal_eval(captions[-1].data["text/plain"]) if captions else ""
        known = _saved_in(cell.source) if len(pictures) == 1 else []
        for output in pictures:
            if len(known) == 1 and known[0] in saved:
                file, width, height = saved[known[0]]
            else:
                payload = base64.b64decode(output.data["image/png"])
                name = digest(payload)
                if name in lying:
                    file, width, height = lying[name]
                else:
                    found[f"{name}.png"] = payload
                    file, (width, height) = f"{folder}/{name}.png", size_of(payload)
            output.metadata["rclib"] = {
                "file": file,
                "alt": first_sentence(caption) or "Picture drawn by the cell above.",
                "caption": caption,
                "width": width,
                "height": height,
            }
    return found


def digest(payload: bytes) -> str:
    """What tells pictures apart."""
    return hashlib.sha256(payload).hexdigest()[:16]


def _saved_in(source: str) -> list[str]:
    """Names of the figures that a cell saves (`study.save_figure(figure, "name", ...)`)."""
    return [
        call.args[1].value
        for call in ast.walk(_tree(source))
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", "") == "save_figure"
        and len(call.args) > 1
        and isinstance(call.args[1], ast.Constant)
        and isinstance(call.args[1].value, str)
    ]


def _tree(source: str) -> ast.Module:
    """A cell's syntax; nothing of a cell with IPython's own commands."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module([], [])


def _is_caption(output: NotebookNode) -> bool:
    """Whether a cell returned text, as `Study.save_figure` does."""
    text = output.get("data", {}).get("text/plain", "")
    return output.output_type == "execute_result" and text[:1] in ("'", '"')


def _tidy(html: str, resolver: links.Resolver | None) -> str:
    """The HTML with links of the site, made for reading aloud: names of regions, scopes of table
    heads."""
    # Marks of names and punctuation have no colour of their own, and are half of a page.
    html = re.sub(r'<span class="(?:n|p|o|w|nn)">([^<]*)</span>', r"\1", html)
    soup = BeautifulSoup(html, "html.parser")
    if resolver is not None:
        for cell in soup.select("div.prose"):
            links.relink(cell, "notebooks", "../../", resolver)
    for table in soup.find_all("table"):
        for cell in table.find_all("th"):
            cell["scope"] = "col" if cell.find_parent("thead") else "row"
    for number, region in enumerate(soup.select("div.scroll, pre[tabindex]"), 1):
        region["role"] = "region"
        region["aria-label"] = f"Output {number}"
    for code in soup.select("div.highlight pre"):
        code["tabindex"] = "0"
    return str(soup)


def declaring_cells(notebook: NotebookNode, keys: list[str]) -> dict[str, str]:
    """The code cell that declares each claim: key -> id of the cell.

    A key may be written out or put together (`f"{name}_stable"`). Keys that no cell declares
    are left out.
    """
    cells: list[tuple[str, set[str], list[str]]] = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and "declare(" in cell.source:
            literals, patterns = _strings(cell.source)
            cells.append((cell.id, literals, patterns))
    found = {}
    for key in keys:
        exact = [identity for identity, literals, _ in cells if key in literals]
        built = [i for i, _, patterns in cells if any(re.fullmatch(p, key) for p in patterns)]
        if exact or built:
            found[key] = (exact + built)[0]
    return found


def _strings(source: str) -> tuple[set[str], list[str]]:
    """String literals of a cell, and patterns of its f-strings that begin or end in text."""
    literals: set[str] = set()
    patterns = []
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            literals.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"\w+"
                for part in node.values
            ]
            if any(part != r"\w+" for part in parts):
                patterns.append("".join(parts))
    return literals, patterns
