"""Kubernetes' own ``$(NAME)`` in commands and variables, expanded as the kubelet does it.

Source: third_party/forked/golang/expansion of Kubernetes, and ``makeEnvironmentVariables`` of the
kubelet. Laws: a text without ``$`` stays as it is; ``$$`` is a literal ``$``, so that a text whose
``$`` are doubled expands to the text; a name that is not known stays as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Stands for a value that is not in what was signed. No process can be given one with a NUL.
UNSIGNED = "\0"
#: Characters that a text may expand to: what refers to itself over and over has no end.
MAX_EXPANDED = 64 * 1024


class ExpandsTooFarError(ValueError):
    """A text that expands to more than is read."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """The text with each ``$(NAME)`` of a known variable replaced by its value, once.

    Raises ExpandsTooFarError.
    """
    parts: list[str] = []
    length = done = 0
    last = text.rfind(")")
    while (at := text.find("$", done)) >= 0 and at + 1 < len(text):
        following = text[at + 1]
        if following == "(" and at < last:
            end = text.index(")", at)
            found = variables.get(text[at + 2 : end], text[at : end + 1])
        else:
            end = at + 1
            found = "$" if following == "$" else f"${following}"
        parts += [text[done:at], found]
        done = end + 1
        length += len(parts[-1]) + len(parts[-2])
        if length > MAX_EXPANDED:
            raise ExpandsTooFarError(f"more than {MAX_EXPANDED} characters once it is expanded")
    return "".join((*parts, text[done:]))
