"""How the documentation is built: `python -m sphinx -W -n -c docs . build/docs`, as tests/test_docs.py does.

Pages may lie anywhere in the repository, so that what has its place beside the code, as the tour of the
kernels, is a page where it stands. The text is Markdown (MyST); what is said of a function stands in its
docstring, and only there. Docstrings are plain text, as `help` shows them: `definition_lists` makes lists of
what is aligned.
"""

import re

import ssimloss

project = "ssimloss"
version = release = ssimloss.__version__
copyright = "the ssimloss authors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"ssimloss {version}"
html_show_sourcelink = False
html_static_path, html_css_files = ["static"], ["wide.css"]
html_extra_path = ["start"]  # build/docs/index.html, which leads to docs/index.html
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "csrc/README.md",
    "benchmarks/results/*.md",
    "examples/networks/README.md",
    "examples/results/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
suppress_warnings = ["myst.header"]  # the tables of benchmarks/ begin at ###
smartquotes = False  # quotes in the text are Python's
maximum_signature_line_length = 90
autodoc_typehints_format = "short"
autodoc_default_options = {"exclude-members": "forward"}  # of modules: the same for all
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Types of other packages: no page here describes them.
nitpick_ignore_regex = [("py:.*", r"(torch|numpy|collections|np|nn|optional$|Module$|Tensor$|Any$).*")]

OPTION = re.compile(r"^(\w[\w, ]*?) {2,}(\S.*)$")
OURS = re.compile(r"\bssimloss(?:\.\w+)+")
DOI = re.compile(r"\bdoi:(10\.\d+/[\w.]*\w)")


def inline(text: str) -> str:
    """reStructuredText of one line of plain text: code in backticks, names of ours and DOIs as links."""
    parts = text.split("`")
    for index, part in enumerate(parts):
        if index % 2:
            parts[index] = f"``{part}``"
            continue
        part = re.sub(r"([\\*_|])", r"\\\1", part)
        part = OURS.sub(lambda m: f":py:obj:`{m[0]}`", part.replace(r"\_", "_"))
        part = re.sub(r"(?<![\\\w:`.])(\w*)_(?=\W|$)", r"\1\\_", part)  # or it would be a reference
        parts[index] = DOI.sub(r"`doi:\1 <https://doi.org/\1>`__", part)
    return "".join(parts)


def definition_lists(app, what, name, obj, options, lines: list[str]) -> None:
    """What is aligned behind a name is its definition, what is indented is code; the rest are paragraphs."""
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        rows = paragraph.split("\n")
        if rows[0].startswith("    "):
            out += [".. code-block:: python", "", *(f"   {row}" for row in rows)]
        elif OPTION.match(rows[0]):
            for row in rows:
                option = OPTION.match(row)
                text = option[2] if option else row.strip()
                out += [f"``{option[1]}``"] if option else []
                out += [f"   {inline(text)}"]
        else:
            out += [inline(row) for row in rows]
        out.append("")
    lines[:] = out


def setup(app) -> None:
    app.connect("autodoc-process-docstring", definition_lists)
