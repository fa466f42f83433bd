"""The gallery: a static site of figures, verdicts, notebooks and the API.

`python -m rclib.site` builds it from the results files and the executed notebooks. It opens
from disk and asks nothing of a network: styles and scripts are copied in, mathematics is
turned into MathML while the site is built.

- `content` reads the results and arranges them; `build` writes the pages and is whole or not
  there; `notebook_page` renders one notebook; `mathml` and `images` are its tools; `api` makes
  the pages on `rclib` itself.
"""
