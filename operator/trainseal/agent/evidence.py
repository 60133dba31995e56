"""What a finding about a file carries: digests, size and how the text differs. Bounded."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace

from trainseal.agent.files import Content, Tree
from trainseal.agent.observed import Observation
from trainseal.agent.scene import Scene
from trainseal.api.evidenceitem import MAX_KEPT
from trainseal.api.findings import FindingId

#: Texts longer than this are not compared; bytes.
MAX_TEXT = 256 * 1024
#: Longer differences are cut; characters.
MAX_DIFFERENCE = 8192
_CONTEXT = 3
#: Beyond so many lines on a side the differing part is shown whole: finding what two long texts
#: have in common takes time that grows with the square of their length.
_MOST_COMPARED = 400
_HUNK = re.compile(r"@@ -(\d+)(,\d+)? \+(\d+)(,\d+)? @@")
_WITH_CONTENT = frozenset(
    {
        FindingId.FILE_CHANGED,
        FindingId.FILE_CREATED,
        FindingId.FILE_RENAMED,
        FindingId.IMPORT_CHANGED,
        FindingId.EXEC_FOREIGN,
        FindingId.BYTECODE_MISMATCH,
    }
)
_WITH_TEXT = _WITH_CONTENT - {FindingId.EXEC_FOREIGN, FindingId.BYTECODE_MISMATCH}


def with_evidence(observation: Observation, scene: Scene) -> Observation:
    """The observation with what its file says now; it may have no file any more.

    The file is read once: digest, difference and the bytes that are kept are of one state of it.
    """
    path = observation.path
    if path is None or observation.finding not in _WITH_CONTENT:
        return observation
    found = dict(observation.evidence)
    status = scene.root.status(path)
    if status is not None:
        found["size"] = str(status.st_size)
        target = scene.root.link_target(path)
        if target is not None:
            found["link to"] = target
    content = scene.root.content(path, MAX_KEPT)
    if content is not None:
        found["digest"] = content.digest
    else:
        found["digest"] = "gone" if status is None else "not a file"
    image = scene.layers.image_tree(path) if scene.layers is not None else None
    if scene.signed(path) and image is not None:
        found["signed digest"] = image.digest(path) or "not a file"
    difference = None
    if observation.finding in _WITH_TEXT:
        now = _text_of(content) if content is not None or status is not None else b""
        difference = text_difference(_text(image, path), now, path)
    return replace(observation, evidence=found, difference=difference or None, content=content)


def _text(tree: Tree | None, path: str) -> bytes | None:
    if tree is None or tree.status(path) is None:
        return b""
    return tree.read(path, MAX_TEXT)


def _text_of(content: Content | None) -> bytes | None:
    return content.head if content and content.whole and content.size <= MAX_TEXT else None


def text_difference(was: bytes | None, now: bytes | None, path: str) -> str | None:
    """A unified diff of at most MAX_DIFFERENCE characters; None where either is no short text."""
    old, new = _lines(was), _lines(now)
    if old is None or new is None or old == new:
        return None
    shorter = min(len(old), len(new))
    start = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    most = shorter - start
    same = 0
    while same < most and old[-1 - same] == new[-1 - same]:
        same += 1
    first = max(0, start - _CONTEXT)
    after = max(0, same - _CONTEXT)
    a, b = old[first : len(old) - after], new[first : len(new) - after]
    if len(a) > _MOST_COMPARED or len(b) > _MOST_COMPARED:
        body = [f"@@ -{first + 1},{len(a)} +{first + 1},{len(b)} @@"]
        body += [f"-{line}" for line in a] + [f"+{line}" for line in b]
    else:
        body = list(difflib.unified_diff(a, b, n=_CONTEXT, lineterm=""))[2:]
        body = [
            _HUNK.sub(lambda m: _moved(m, first), line) if line[0] == "@" else line for line in body
        ]
    text = "\n".join((f"--- {path} (signed)" if old else "--- /dev/null", f"+++ {path}", *body))
    return text if len(text) <= MAX_DIFFERENCE else f"{text[: MAX_DIFFERENCE - 1]}…"


def _moved(hunk: re.Match[str], by: int) -> str:
    old, new = int(hunk[1]) + by, int(hunk[3]) + by
    return f"@@ -{old}{hunk[2] or ''} +{new}{hunk[4] or ''} @@"


def _lines(data: bytes | None) -> list[str] | None:
    if data is None or b"\0" in data:
        return None
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    return lines if lines[-1] else lines[:-1]
