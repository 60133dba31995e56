"""Which ranks of a role are not like the others, by what their nodes' agents say of them. Pure.

Each agent tells what a container has beside what was sealed, whether a policy excepts it or not
(``ContainerProfile``). The rules, for each container of the template and each kind of thing:

1. Most ranks have a thing: then those that have it with another value than most of these are odd,
   and those that lack it, but for *code*: it counts since the start, and a rank may come to it
   later. Where no value is most of them's, each has its own by nature: none is odd for its value.
2. No more than half have it: they are odd.
3. Where more is there than is listed, the digests over all stand for the single things; of code,
   what is listed has to do.

So of two ranks that have one thing with two values nobody can say which is odd: neither is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainseal.api.driftreport import ContainerProfile, ProfilePart

_MOST_WORDS = 8
_TEXT = 240


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank that is told of: ``key`` is its caller's own."""

    key: str
    profiles: tuple[ContainerProfile, ...]


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    words: str
    #: Whether a rank that lacks what most have is odd.
    lacking: bool


_KINDS = (
    _Kind("files", "files", True),
    _Kind("code", "code that ran", False),
    _Kind("environment", "variables of the first process", True),
)


def odd_profiles(ranks: Sequence[Rank]) -> Mapping[str, Mapping[str, str]]:
    """The odd ones by key, each with what is odd in words, by kind and container."""
    found: dict[str, dict[str, str]] = {}
    names = dict.fromkeys(p.container for rank in ranks for p in rank.profiles)
    for container in names:
        for kind in _KINDS:
            parts = dict(_parts(ranks, container, kind))
            for key, words in _odd(parts, lacking=kind.lacking):
                found.setdefault(key, {})[f"{kind.words}, {container}"] = words
    return found


def _parts(ranks: Sequence[Rank], container: str, kind: _Kind) -> Iterator[tuple[str, ProfilePart]]:
    for rank in ranks:
        for profile in rank.profiles:
            part = getattr(profile, kind.name)
            if profile.container == container and isinstance(part, ProfilePart):
                yield rank.key, part


def _odd(parts: Mapping[str, ProfilePart], *, lacking: bool) -> Iterator[tuple[str, str]]:
    if len({p.digest for p in parts.values()}) < 2:
        return
    if lacking and any(p.count > len(p.entries or ()) for p in parts.values()):
        yield from _by_digest(parts)
        return
    entries = {k: {e.name: e.value for e in p.entries or ()} for k, p in parts.items()}
    odd: dict[str, list[str]] = {}
    for name in sorted({name for has in entries.values() for name in has}):
        for key, words in _by_name(name, {k: has.get(name) for k, has in entries.items()}, lacking):
            odd.setdefault(key, []).append(words)
    for key, all_words in odd.items():
        more = len(all_words) - _MOST_WORDS
        shown = all_words[:_MOST_WORDS]
        yield key, ", ".join(shown if more <= 0 else [*shown, f"{more} more"])


def _by_name(
    name: str, values: Mapping[str, str | None], lacking: bool
) -> Iterator[tuple[str, str]]:
    having = {key: value for key, value in values.items() if value is not None}
    if 2 * len(having) <= len(values):
        for key, value in having.items():
            yield key, f"has {_shown(name, value)}"
        return
    usual, times = Counter(having.values()).most_common(1)[0]
    if 2 * times > len(having):
        for key, value in having.items():
            if value != usual:
                yield key, f"has {_shown(name, value)} where others have {_short(usual)}"
    if lacking:
        for key in values.keys() - having.keys():
            yield key, f"lacks {_short(name)}"


def _by_digest(parts: Mapping[str, ProfilePart]) -> Iterator[tuple[str, str]]:
    usual, times = Counter(p.digest for p in parts.values()).most_common(1)[0]
    if 2 * times <= len(parts):
        return
    like_most = next(p for p in parts.values() if p.digest == usual)
    known = set(_listed(like_most))
    for key, part in parts.items():
        if part.digest == usual:
            continue
        own = [_shown(*entry) for entry in _listed(part) if entry not in known]
        some = f", among them {', '.join(own[:_MOST_WORDS])}" if own else ""
        yield key, f"has {part.count} where others have {like_most.count}, not the same{some}"


def _short(text: str) -> str:
    """For a message: of a long path its end tells most."""
    shown = repr(text)
    return shown if len(shown) <= _TEXT else f"{shown[:40]}…{shown[40 - _TEXT :]}"


def _listed(part: ProfilePart) -> list[tuple[str, str]]:
    return [(e.name, e.value) for e in part.entries or ()]


def _shown(name: str, value: str) -> str:
    return f"{_short(name)} ({_short(value)})" if value else _short(name)
