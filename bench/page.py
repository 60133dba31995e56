"""docs/reference/figures.md: words by hand, and between marks what the benches measured."""

from __future__ import annotations

import re


def replaced(page: str, name: str, body: str) -> str:
    """The page with another part between this bench's marks; ValueError where it has none."""
    begin, end = f"<!-- make bench: {name} -->\n", "<!-- end -->"
    found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if len(found.findall(page)) != 1:
        raise ValueError(f"found no part {name}, expected one that begins with {begin.strip()}")
    return found.sub(lambda _: f"{begin}{body.strip()}\n\n{end}", page)
