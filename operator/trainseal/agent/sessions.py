"""Who opened an exec session: a process that entered, joined with the record of an access. Pure.

The API server's record and the node's process share no number, so they are joined by pod,
container, command and time. A record explains one session at most; attach and port-forward start
no process and explain none. What entered past the control group (nsenter) is never explained.

The kubelet enters too, for probes and lifecycle hooks. Their commands are sealed: they are silent.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import groupby
from typing import Literal

from pydantic import JsonValue

from trainseal.agent.masking import named_by
from trainseal.agent.observed import Lineage, Observation, Process, WatchedContainer
from trainseal.api.accessrecord import AccessRecord
from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object
from trainseal.provenance.commandlines import may_become_another

#: From the record to the process; and how far the node's clock may be behind the API server's.
WINDOW = timedelta(seconds=15)
SKEW = timedelta(seconds=2)
#: How long a record may take to the agent before its process counts as unrecorded.
GRACE = timedelta(seconds=5)
_MOST = 4096
_WORD = 1024
_WORDS = 64
_SHEBANG = (1, 2)
#: What runc, crun and youki call themselves between joining the container and the program.
_HELPERS = frozenset({"runc", "crun", "youki", "exe"})
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_EXPANDED = re.compile(r"[$`*?~\[]")
_REFERENCE = re.compile(r"\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")

Command = tuple[str, ...]
How = Literal["command", "what its command runs", "time only"]


@dataclass(frozen=True, slots=True)
class Opened:
    """The record that explains a session. ``others`` are people whose records fit as well."""

    record: str
    user: str
    how: How
    others: tuple[str, ...] = ()


def explained(
    session: Process,
    container: str | None,
    records: Iterable[AccessRecord],
    used: Callable[[str], bool] = lambda _: False,
    *,
    exactly: bool = False,
    late: bool = False,
) -> Opened | None:
    """The record of the pod that explains this session, which is in the container's group;
    ``exactly``: by its command word by word.

    None while it is still the runtime's own helper: its command says nothing of the session's.
    ``late``: it will be seen as nothing else any more, so the time must tell. What one person
    asked for several times may then have been any of these.
    """
    helper = is_helper(session)
    if helper and not late:
        return None
    fitting = [
        r
        for r in records
        if r.spec.action == "Exec"
        and r.spec.allowed
        and (r.spec.container is None or container is None or r.spec.container == container)
        and -SKEW <= session.started - r.spec.time <= WINDOW
        and not used(r.metadata.name)
    ]
    # The latest one before the process; another of the same command belongs to an earlier process.
    fitting.sort(key=lambda r: r.spec.time, reverse=True)
    for how, fits in _HELPERS_WAY if helper else _WAYS[:1] if exactly else _WAYS:
        found = [r for r in fitting if fits(r, session.command)]
        if not found:
            continue
        others = {r.spec.username for r in found} - {found[0].spec.username}
        if how == "time only" and (others or (len(found) > 1 and not helper)):
            continue
        return Opened(
            found[0].metadata.name, found[0].spec.username, how, tuple(sorted(others)[:4])
        )
    return None


def is_helper(session: Process) -> bool:
    """Whether this is the runtime's own on its way into the container (``runc init``). One that
    ended soon after may never have been seen as what it became.
    """
    command = session.command
    return command[-1:] == ("init",) and command[0].rpartition("/")[2] in _HELPERS


class Sessions:
    """Which record explains which session, on one node. May be asked from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: OrderedDict[tuple[int, datetime], Opened] = OrderedDict()
        self._used: OrderedDict[str, None] = OrderedDict()

    def opened_by(
        self,
        session: Process,
        container: str | None,
        records: Iterable[AccessRecord],
        *,
        exactly: bool = False,
        late: bool = False,
    ) -> Opened | None:
        """Who opened it; None where no record says. The answer stays once there is one: asked
        ``exactly`` while a session is what the record says, it is right whatever runs there next.
        ``late`` is as `explained` has it.
        """
        if session.container_id is None:
            return None
        with self._lock:
            key = (session.pid, session.started)
            found = self._opened.get(key)
            if found is None:
                used = self._used.__contains__
                found = explained(session, container, records, used, exactly=exactly, late=late)
                if found is not None:
                    self._opened[key] = found
                    self._used[found.record] = None
                    for kept in (self._opened, self._used):
                        if len(kept) > _MOST:
                            kept.popitem(last=False)
            return found

    def known(self) -> dict[tuple[int, datetime], str]:
        """Names of the records that explained sessions, by the session's pid and start."""
        with self._lock:
            return {key: opened.record for key, opened in self._opened.items()}

    def judge(
        self,
        lineage: Lineage,
        container: WatchedContainer,
        records: Iterable[AccessRecord],
        own: Iterable[Command],
        now: datetime,
        *,
        current: bool = True,
    ) -> Observation | None:
        """What is to be said of a session; None where it is the kubelet's (``own``: the sealed
        commands of probes and hooks), or so young that its record may still be on its way.

        ``lineage`` ends with the session, or goes on with its parents on the node. Where the
        records are not ``current``, the API server being away, its record may be one of those that
        are not known yet: then nothing is said of it until they are.
        """
        session = lineage.session
        if session is None:
            return None
        grouped = session.container_id == container.container_id
        if grouped and any(becomes(command, session.command) for command in own):
            return None
        # The runtime's helper joins the namespaces before all else, for the kubelet's probes too.
        waits = not current or now - session.started < GRACE
        opened = (
            self.opened_by(session, container.container, records, late=not waits)
            if grouped
            else None
        )
        if opened is not None:
            return _entered(session, lineage, opened)
        if (grouped or is_helper(session)) and waits:
            return None
        return _unrecorded(session, lineage, grouped)


def becomes(command: Sequence[str], argv: Sequence[str]) -> bool:
    """Whether a process begun with ``command`` shows as ``argv``.

    As it is; or as a script, which Linux runs by its interpreter; or, for ``sh -c TEXT``, as a
    command of that text, which shells run in their own place where it is the last.
    """
    if not command or not argv:
        return False
    if tuple(command) == tuple(argv) or _is_script(command, argv):
        return True
    script = _shell_text(command)
    if script is None:
        return False
    # A line's end within quotes is one of the text's ends of commands there.
    flat = [word.replace("\n", ";") for word in argv]
    return any(_same_words(words, flat) or _is_script(words, flat) for words in _commands(script))


def own_commands(container: JsonObject, env: Mapping[str, str | None]) -> frozenset[Command]:
    """What the kubelet runs within a container: exec probes and lifecycle hooks of its sealed
    spec. ``$(NAME)`` in probes is the kubelet's to expand (``env``: the sealed variables).
    """
    lifecycle = json_object(container.get("lifecycle"))
    probes = [
        _command(container.get(f"{name}Probe")) for name in ("liveness", "readiness", "startup")
    ]
    hooks = [_command(lifecycle.get(name)) for name in ("postStart", "preStop")]
    expanded = [tuple(_expanded(word, env) for word in command) for command in probes]
    return frozenset(command for command in (*expanded, *hooks) if command)


def _command(handler: JsonValue) -> Command:
    command = json_object(json_object(handler).get("exec")).get("command")
    return tuple(str(word) for word in command) if isinstance(command, list) else ()


def _expanded(word: str, env: Mapping[str, str | None]) -> str:
    return _REFERENCE.sub(lambda m: value if (value := env.get(m[1])) is not None else m[0], word)


def _by_command(record: AccessRecord, argv: Command) -> bool:
    command = record.spec.command or []
    if record.spec.command_digest is not None:
        if record.spec.command_digest == _digest(argv):
            return True
        # Longer than what is kept of a process: by what there is of both. The last word is cut.
        last = len(command) - 1
        return len(argv) >= _WORDS > last >= 0 and all(
            mine.startswith(theirs) if number == last else mine[:_WORD] == theirs[:_WORD]
            for number, (mine, theirs) in enumerate(zip(argv, command, strict=False))
        )
    return tuple(command) == argv or _is_script(command, argv)


def _by_text(record: AccessRecord, argv: Command) -> bool:
    return becomes(record.spec.command or (), argv)


def _by_time(record: AccessRecord, argv: Command) -> bool:
    del argv
    return may_become_another(record.spec.command or ())


_WAYS: tuple[tuple[How, Callable[[AccessRecord, Command], bool]], ...] = (
    ("command", _by_command),
    ("what its command runs", _by_text),
    ("time only", _by_time),
)


#: Of who ended before it was seen as what it became.
_HELPERS_WAY: tuple[tuple[How, Callable[[AccessRecord, Command], bool]], ...] = (
    ("time only", lambda _, __: True),
)


def _digest(argv: Command) -> str:
    data = "".join(f"{word}\0" for word in argv).encode("utf-8", "surrogateescape")
    return f"sha256:{sha256(data).hexdigest()}"


def _is_script(command: Sequence[str], argv: Sequence[str]) -> bool:
    """Whether ``argv`` is ``INTERPRETER [OPTION] /path/of/COMMAND ARGUMENTS`` (execve(2))."""
    return any(
        len(argv) == len(command) + before
        and list(argv[before + 1 :]) == list(command[1:])
        and argv[before].rpartition("/")[2] == command[0].rpartition("/")[2]
        for before in _SHEBANG
    )


def _shell_text(command: Sequence[str]) -> str | None:
    if not re.fullmatch(r"(?:.*/)?(?:ba|da|z|k|a)?sh", command[0]):
        return None
    for number, word in enumerate(command[1:], start=1):
        if re.fullmatch(r"-[a-zA-Z]*c", word):
            return command[number + 1] if number + 1 < len(command) else None
        if not word.startswith("-"):
            return None
    return None


def _commands(script: str) -> Iterator[Command]:
    """The simple commands of a shell script, without assignments and ``exec``."""
    try:
        lexer = shlex.shlex(script.replace("\n", ";"), posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:
        return
    for separator, group in groupby(words, key=lambda w: not w.strip("();|&")):
        if separator:
            continue
        found = list(group)
        while found and (found[0] in ("exec", "then", "do", "else") or _ASSIGNMENT.match(found[0])):
            found.pop(0)
        redirected = next((i for i, w in enumerate(found) if not w.strip("<>")), len(found))
        if found[:redirected]:
            yield tuple(found[:redirected])


def _same_words(words: Sequence[str], argv: Sequence[str]) -> bool:
    """Equal, where a word that the shell would have expanded stands for any one word."""
    return len(words) == len(argv) and all(
        theirs == mine or (number > 0 and _EXPANDED.search(theirs) is not None)
        for number, (theirs, mine) in enumerate(zip(words, argv, strict=True))
    )


def _entered(session: Process, lineage: Lineage, opened: Opened) -> Observation:
    evidence = {"access record": opened.record, "user": opened.user, "joined by": opened.how}
    if opened.others:
        evidence["may also be"] = ", ".join(opened.others)
    return Observation(
        FindingId.PROCESS_ENTERED,
        f"{opened.user} opened a session by exec: {named_by(session)}",
        lineage=lineage,
        evidence=evidence,
        subject=opened.record,
    )


def _unrecorded(session: Process, lineage: Lineage, grouped: bool) -> Observation:
    how = (
        "it is in the container's control group, as the container runtime puts it"
        if grouped
        else "it entered the container's namespaces from elsewhere on the node, as nsenter does"
    )
    above = lineage.chain[lineage.chain.index(session) + 1 :] if session in lineage.chain else ()
    evidence = {"entered": how, "command": named_by(session)}
    if above:
        evidence["parents"] = " < ".join(f"{p.pid} {named_by(p, 120)}" for p in above)[:1024]
    return Observation(
        FindingId.PROCESS_UNRECORDED,
        f"{named_by(session)} entered the pod and no access record explains it: {how}",
        lineage=lineage,
        evidence=evidence,
        # Whatever it executes on: it is one session.
        subject=f"process {session.pid}",
    )
