"""Whether an answer is what a page shows, and what the page's stand-ins stand for.

Words must be the same and in the same order; between the lines of a table other lines may stand.
What differs each time is told by its form: digests, names that the cluster makes up, times, ages,
amounts. An ellipsis stands for anything. A digest or made-up name stands for the same in all of a
page, as for somebody who copies it from the answer into the next command; and two of them that
look different on the page are different.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: What stands for something else; the first form that fits counts.
_VOLATILE = re.compile(
    r"""
    (?P<digest> sha256:(?:[0-9a-f]*…|[0-9a-f]{4,}))
  | (?P<cut>    (?<=@)[0-9a-f]{4,}…)
  | (?P<time>   \d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\ UTC)? | \b\d\d:\d\d:\d\d\b)
  | (?P<name>   -[0-9a-f]{8}(?:-[0-9a-f]{8})?(?:-[0-9a-f]{12,16})?(?![0-9a-z])
              | -(?=[a-z]*\d)(?=\d*[a-z])[0-9a-z]{5}(?![0-9a-z]))
  | (?P<ready>  (?<=Running:\ )\d+(?=/\d+\ workers\ ready))
  | (?P<node>   \bnode-\d+\b)
  | (?P<age>    \b\d+[smhd]\b)
  | (?P<amount> \b\d[\d,]*\.\d+\b | \b\d{1,3}(?:,\d{3})+\b | \b\d{4,}\b | \b\d+(?=\ bytes))
  | (?P<elided> …|\.\.\.)
  | (?P<space>  \s+)
    """,
    re.VERBOSE,
)
_FORM = {
    "digest": r"sha256:(?:[0-9a-f]+|…)",
    "cut": r"[0-9a-f]+",
    "time": r"(?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| UTC)?",
    "ready": r"\d+",
    "node": r"[0-9a-z.-]+",
    "age": r"(?:\d+[smhd])+",
    "amount": r"\d[\d,]*(?:\.\d+)?",
    "elided": r".*?",
    "space": r"\s+",
}
#: A line of `kubectl get -o name`.
_NAMED = re.compile(r"[a-z0-9.-]+/[a-z0-9.-]+")
_NEXT_ROW = r"\s+?(?:.*?\n)??\s*"
#: They stand for the same all over a page.
_BOUND = ("digest", "name")


def stand_ins(shown: str, said: str, known: Mapping[str, str]) -> dict[str, str] | None:
    """What the stand-ins of ``shown`` stand for, by ``said``; None where that is not shown.

    Those that are ``known`` must stand for what they stood for. What the page shows may be a part
    of what was said.
    """
    order: list[str] = []
    pattern = "".join(_pieces(shown.strip(), known, order))
    found = re.search(pattern, said, flags=re.DOTALL)
    if found is None:
        return None
    bound = {stand_in: found[f"b{number}"] for number, stand_in in enumerate(order)}
    values = [*known.values(), *bound.values()]
    return bound if len(set(values)) == len(values) else None


def filled(text: str, known: Mapping[str, str]) -> str:
    """The text with each stand-in that is known as what it stands for."""
    for stand_in in sorted(known, key=len, reverse=True):
        text = text.replace(stand_in, known[stand_in])
    return text


def _pieces(shown: str, known: Mapping[str, str], order: list[str]) -> list[str]:
    pieces, at = [], 0
    table = shown.startswith("NAME ") or all(map(_NAMED.fullmatch, shown.splitlines()))
    for token in _VOLATILE.finditer(shown):
        pieces.append(re.escape(shown[at : token.start()]))
        at = token.end()
        kind, text = str(token.lastgroup), token[0]
        if kind not in _BOUND:
            pieces.append(_NEXT_ROW if table and "\n" in text else _FORM[kind])
        elif text in known:
            pieces.append(re.escape(known[text]))
        elif text in order:
            pieces.append(f"(?P=b{order.index(text)})")
        else:
            pieces.append(f"(?P<b{len(order)}>{_form(kind, text)})")
            order.append(text)
    return [*pieces, re.escape(shown[at:])]


def _form(kind: str, text: str) -> str:
    """A made-up name has as many parts as it is shown with, each of the same length."""
    if kind == "digest":
        return _FORM[kind]
    return "".join(f"-[0-9a-z]{{{len(part)}}}" for part in text.split("-")[1:])
