"""The documents as a site: `make docs`. Sphinx reads this file.

The sources are plain Markdown that also reads well in the repository; what a site needs besides is
added here. Built with `-n -W`: a link, an anchor or a page that nothing leads to stops it.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "TrainSeal"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns: list[str] = []
# As GitHub makes them, so that a link to a heading is the same in both.
myst_heading_anchors = 6
# Blocks in words of no language: what a person types, or a program prints.
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure"]
html_theme = "furo"
html_title = f"TrainSeal {release}"
html_copy_source = False
html_show_sourcelink = False

#: Where the repository is read, `https://git.example/trainseal/blob/main`. Empty: what lies outside
#: docs/ is named and not linked.
REPOSITORY = os.environ.get("DOCS_REPOSITORY", "")
_FENCED = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def setup(app: Sphinx) -> None:
    """Sphinx's hook."""
    app.connect("source-read", _links_outside)


def _links_outside(_: Sphinx, name: str, source: list[str]) -> None:
    """Links that leave docs/ lead into the repository. Raises FileNotFoundError."""
    page = HERE / f"{name}.md"
    parts = _FENCED.split(source[0])
    source[0] = "".join(
        part if at % 2 else _LINK.sub(lambda m: _outside(page, m), part)
        for at, part in enumerate(parts)
    )


def _outside(page: Path, link: re.Match[str]) -> str:
    words, path, anchor = link[1], link[2], link[3] or ""
    target = (page.parent / path).resolve()
    if target.is_relative_to(HERE):
        return link[0]
    if not target.exists():
        raise FileNotFoundError(f"{page}: {path}: no such file")
    place = target.relative_to(ROOT).as_posix()
    return f"[{words}]({REPOSITORY}/{place}{anchor})" if REPOSITORY else f"{words} (`{place}`)"
