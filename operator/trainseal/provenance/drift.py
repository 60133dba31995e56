"""What policies say about findings: which are expected, and what happens for the others.

Pure. A finding is expected only where every policy of its namespace says so, and the strongest of
their responses counts: adding a policy never makes a namespace laxer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trainseal.api.findings import FindingId, Severity
from trainseal.api.policy import DriftException, DriftRules, Response

#: From the weakest to the strongest.
STRENGTH: tuple[Response, ...] = (
    "Record",
    "Alert",
    "Freeze",
    "Suspend",
    "Quarantine",
    "Terminate",
)
#: These stop the pods where they stand and leave the engine as it is.
FREEZING: frozenset[str] = frozenset({"Freeze", "Quarantine"})
_DEFAULT: Mapping[Severity, Response] = {"Critical": "Alert", "Warning": "Alert", "Info": "Record"}
_FREEZE_SECONDS = 300


class PatternError(ValueError):
    """A path pattern cannot be used."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an exception is compared with: the file itself, never a former name of it."""

    finding: FindingId
    path: str | None
    executable: str | None


@dataclass(frozen=True, slots=True)
class CompiledException:
    """One exception of one policy, its patterns compiled."""

    name: str
    findings: frozenset[FindingId]
    paths: tuple[re.Pattern[str], ...] | None
    executables: tuple[re.Pattern[str], ...] | None

    def covers(self, seen: Seen) -> bool:
        """Whether all that it names matches."""
        return (
            seen.finding in self.findings
            and _matches(self.paths, seen.path)
            and _matches(self.executables, seen.executable)
        )


@dataclass(frozen=True, slots=True)
class CompiledDrift:
    """One policy's part about drift. ``freeze_seconds`` bounds a freeze; ``then`` follows it."""

    exceptions: tuple[CompiledException, ...] = ()
    responses: tuple[tuple[Severity, Response], ...] = tuple(_DEFAULT.items())
    freeze_seconds: int = _FREEZE_SECONDS
    then: Literal["Suspend", "Quarantine", "Terminate"] = "Suspend"


def compile_drift(rules: DriftRules | None) -> CompiledDrift:
    """Makes the rules ready. Raises PatternError with the place of a pattern that is none."""
    if rules is None:
        return CompiledDrift()
    given = rules.responses.wire() if rules.responses else {}
    freeze = rules.freeze
    return CompiledDrift(
        exceptions=tuple(_exception(e) for e in rules.exceptions or ()),
        responses=tuple(
            (severity, next((r for r in STRENGTH if r == given.get(severity.lower())), default))
            for severity, default in _DEFAULT.items()
        ),
        freeze_seconds=(freeze and freeze.max_duration_seconds) or _FREEZE_SECONDS,
        then=(freeze and freeze.then) or "Suspend",
    )


def excepted_by(seen: Seen, policies: Sequence[CompiledDrift]) -> tuple[str, ...]:
    """Names of the exceptions that cover it, one a policy; empty unless every policy has one."""
    names = []
    for policy in policies:
        name = next((e.name for e in policy.exceptions if e.covers(seen)), None)
        if name is None:
            return ()
        names.append(name)
    return tuple(names)


def response_to(severity: Severity, policies: Iterable[CompiledDrift]) -> Response:
    """The strongest response of all policies; without a policy the default."""
    wanted = [dict(policy.responses)[severity] for policy in policies]
    return max(wanted or [_DEFAULT[severity]], key=STRENGTH.index)


def path_pattern(text: str) -> re.Pattern[str]:
    """Compiles ``/a/*/b`` (any run of characters within one part) and ``/a/**`` (any number of
    parts). Raises PatternError where the text is not absolute or steps back.
    """
    parts = text.split("/")
    if parts[0] or len(parts) < 2 or "." in parts or ".." in parts or "" in parts[1:]:
        raise PatternError(
            f"{text!r} is no path pattern: write an absolute path without '.', '..' or empty "
            "parts, with '*' within a part and '**' for any number of parts"
        )
    found = ""
    for part in parts[1:]:
        if part == "**":
            found += "(/[^/]+)+"
        elif "**" in part:
            raise PatternError(f"{text!r}: '**' stands alone between slashes")
        else:
            found += "/" + "[^/]*".join(re.escape(piece) for piece in part.split("*"))
    return re.compile(found)


def _exception(spec: DriftException) -> CompiledException:
    try:
        return CompiledException(
            name=spec.name,
            findings=frozenset(spec.findings),
            paths=None if spec.paths is None else tuple(map(path_pattern, spec.paths)),
            executables=None
            if spec.executables is None
            else tuple(map(path_pattern, spec.executables)),
        )
    except PatternError as error:
        raise PatternError(f"drift exception {spec.name}: {error}") from None


def _matches(patterns: tuple[re.Pattern[str], ...] | None, text: str | None) -> bool:
    if patterns is None:
        return True
    return text is not None and any(p.fullmatch(text) for p in patterns)
