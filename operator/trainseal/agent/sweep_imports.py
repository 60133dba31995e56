"""The sweep of what a start or an import would take code from, as the upper layer now has it.

For what gives no event: a file put straight into the overlay's upper directory from the node, or
one made while events were lost. It names modules, ``.pth`` files, ``sitecustomize``, byte code
without its source or other than it, what the dynamic linker and NCCL read, and signed files of the
image whose content is another now. An entry is judged once it is the same in two passes and the
events have not told of it: what events see first is theirs, with the process that did it.

What lies in mounts is not looked at here. In code and config mounts the signed tree is read again;
in scratch and checkpoint mounts any file may be made, and a ``.py`` there is seen only if a
variable or a command line leads to it, a ``.so`` if it is mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainseal.agent.judge import judge, unjudged
from trainseal.agent.layers import Entry
from trainseal.agent.observed import Act, FileEvent, Observation, WatchedContainer
from trainseal.agent.runtimeleavings import left_by_runtime
from trainseal.agent.scene import Scene

_Signature = tuple[int, int, int, int]
_MOST = 50_000


class ImportSweep:
    """The upper layer of one container, pass after pass.

    ``told`` says whether the events have seen an entry as it is.
    """

    def __init__(
        self,
        container: WatchedContainer,
        scene: Scene,
        told: Callable[[Entry], bool] = lambda _: False,
    ) -> None:
        self._container = container
        self._scene = scene
        self._told = told
        self._seen: dict[str, _Signature] = {}
        self._judged: dict[str, _Signature] = {}
        self._work: Iterator[Observation | None] = iter(())
        self.passes = 0

    def step(self, entries: int) -> list[Observation]:
        """Looks at so many further entries, or at those that are left of the pass."""
        found: list[Observation] = []
        for _ in range(entries):
            try:
                seen = next(self._work)
            except StopIteration:
                self._work = self._pass()
                break
            if seen is not None:
                found.append(seen)
        return found

    def _pass(self) -> Iterator[Observation | None]:
        if self._scene.layers is None:
            return
        now: dict[str, _Signature] = {}
        for entry in self._scene.layers.walk():
            signature = _signature(entry)
            if len(now) < _MOST:
                now[entry.path] = signature
            if self._judged.get(entry.path) == signature or self._seen.get(entry.path) != signature:
                yield None
                continue
            self._judged[entry.path] = signature
            yield self._judge(entry)
        self._seen = now
        self._judged = {path: s for path, s in self._judged.items() if path in now}
        self.passes += 1

    def _judge(self, entry: Entry) -> Observation | None:
        path = entry.path
        if entry.kind not in ("file", "link") or unjudged(path, self._container):
            return None
        signed = self._scene.signed(path) and entry.kind == "file"
        if not (signed or self._scene.loaders.imports(path) or path.endswith(".pyc")):
            return None
        if self._told(entry):
            return None
        if left_by_runtime(self._scene.left(entry), self._container.started):
            return None
        event = FileEvent(Act.CLOSED if signed else Act.CREATED, path, 0)
        facts = self._scene.facts(event)
        found = judge(event, self._container, facts)
        if found is None and facts.bytecode is not None and facts.bytecode.matches is None:
            compared = self._scene.compiled(path)
            facts = type(facts)(bytecode=compared, from_beside=True)
            found = judge(FileEvent(Act.CREATED, path, 0), self._container, facts)
        return found


def _signature(entry: Entry) -> _Signature:
    status = entry.status
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
