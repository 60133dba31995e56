"""``trainseal gate``: the first init container of every training pod.

It fetches code, reads config, compares each byte with what was signed and sealed, and only then
ends with 0, so that Kubernetes starts the trainer. Its word is one line, on standard error and in
the container's termination message, from where the controller takes it into the job's status.

Exit codes: 0 all is as signed; 1 refuted; 2 undetermined (registry down after patient retries,
disk full); 64 the plan is no plan.

It runs as any uid with a read-only root and writes to its targets alone. Memory (measured): 60 MiB,
and 7 bytes for each byte of the largest bundle, which has at most 8 MiB (30,000 files: 4.9 MB, 93
MiB in all); layers and files of any size pass through in chunks of 1 MiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from trainseal.api.gateplan import GatePlan, PlannedCode
from trainseal.api.model import problems_of
from trainseal.gate.code import Registry, open_code
from trainseal.gate.configuration import copy_config
from trainseal.gate.outcomes import GateError, RefusedError, UndeterminedError
from trainseal.gate.own import OwnFiles
from trainseal.gate.pullsecrets import pull_secrets_lookup, what_to_do
from trainseal.gate.resumed import check_resumed
from trainseal.provenance.verdicts import Outcome
from trainseal.registry.client import RegistryClient
from trainseal.registry.errors import AccessDenied, RegistryError, RegistryUnavailable, quoted
from trainseal.registry.references import Reference
from trainseal.registry.transport import Options

TERMINATION_LOG = Path("/dev/termination-log")
#: Of the kubelet, for one container.
MAX_TERMINATION_BYTES = 4096
MAX_LINE_BYTES = 2048
USAGE = 64

#: Pauses in seconds between tries; a registry that restarts is back within them. Each try is
#: itself bounded by the client's deadline.
PAUSES = (2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)

Sleep = Callable[[float], Awaitable[None]]
Connect = Callable[[GatePlan], AbstractAsyncContextManager[Registry]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a registry that does not answer is waited for."""

    pauses: tuple[float, ...] = PAUSES
    sleep: Sleep = asyncio.sleep


def run_text(plan: str, *, termination_log: Path = TERMINATION_LOG) -> int:
    """``run`` with the plan as JSON text; the exit code is ``USAGE`` where it is no plan."""
    try:
        parsed = GatePlan.model_validate_json(plan)
    except ValidationError as error:
        problems = "; ".join(str(problem) for problem in problems_of(error))
        _say(f"trainseal gate: the plan is not valid: {quoted(problems)}", termination_log)
        return USAGE
    return run(parsed, termination_log=termination_log)


def run(
    plan: GatePlan,
    *,
    termination_log: Path = TERMINATION_LOG,
    patience: Patience | None = None,
    connect: Connect | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Opens the gate for ``plan``; the exit code. ``clock`` in seconds."""
    started = clock()
    try:
        opened = asyncio.run(open_gate(plan, patience or Patience(), connect or connected))
    except GateError as error:
        line, code = f"trainseal gate: {error.word}: {error}", error.exit_code
    except Exception as error:  # noqa: BLE001 - the last line before the kernel: never exit 1,
        # which says "refuted", for a fault of our own.
        line, code = f"trainseal gate: undetermined: fault in the gate itself: {error!r}", 2
    else:
        parts = [f"{len(plan.code)} code trees ({opened.files} files, {_size(opened.bytes)})"]
        if plan.resume is not None:
            parts.append(f"a checkpoint of {len(plan.resume.files)} files")
        if opened.own:
            parts.append(f"{opened.own} files of the run's own checkpoints")
        if plan.config is not None:
            parts.append(f"{len(plan.config.files)} config files")
        line, code = f"trainseal gate: as signed: {', '.join(parts)}", 0
        line += f" in {clock() - started:.1f} s"
    _say(line, termination_log)
    return code


@dataclass(frozen=True, slots=True)
class Found:
    """What is in place: files and bytes of code, and files of the run's own checkpoints."""

    files: int
    bytes: int
    own: int


async def open_gate(plan: GatePlan, patience: Patience, connect: Connect) -> Found:
    """Everything the plan names, in place and as signed. Raises GateError."""
    if plan.config is not None:
        try:
            copy_config(plan.config)
        except OSError as error:
            raise _not_kept("config", error) from None
    if plan.resume is not None:
        check_resumed(plan.resume)
    own = await OwnFiles(plan.own).check(patience.sleep) if plan.own is not None else 0
    files = size = 0
    if plan.code:
        async with connect(plan) as registry:
            for code in plan.code:
                try:
                    opened = await _patiently(partial(open_code, code, registry), patience)
                except AccessDenied as error:
                    raise _denied(error, code, plan) from None
                except GateError as error:
                    raise error.within(f"code {code.name}") from None
                except OSError as error:
                    raise _not_kept(f"code {code.name}", error) from None
                files, size = files + opened.files, size + opened.bytes
    return Found(files, size, own)


@asynccontextmanager
async def connected(plan: GatePlan) -> AsyncIterator[Registry]:
    """A client for the plan's registries, with the plan's authorities and pull secrets alone."""
    options = Options(plain_http=frozenset(plan.plain_http), ca_data=plan.registry_ca or "")
    async with RegistryClient(options, pull_secrets_lookup(plan.pull_secrets)) as client:
        yield client


async def _patiently(attempt: Callable[[], Awaitable[T]], patience: Patience) -> T:
    pauses = iter(patience.pauses)
    while True:
        try:
            return await attempt()
        except RegistryUnavailable as error:
            pause = next(pauses, None)
            if pause is None:
                raise _of_registry(error) from None
            sys.stderr.write(f"trainseal gate: {_one_line(str(error))}; again in {pause:.0f} s\n")
            await patience.sleep(pause)
        except AccessDenied:
            raise
        except RegistryError as error:
            raise _of_registry(error) from None


def _denied(error: AccessDenied, code: PlannedCode, plan: GatePlan) -> UndeterminedError:
    """The registry's refusal, with what became of each pull secret."""
    return UndeterminedError(
        f"code {code.name}: {error.subject}",
        error.found,
        expected=error.expected,
        remedy=what_to_do(plan.pull_secrets, Reference.parse(code.reference)),
    )


def _of_registry(error: RegistryError) -> GateError:
    kind = RefusedError if error.outcome is Outcome.REFUTED else UndeterminedError
    return kind(error.subject, error.found, expected=error.expected, remedy=error.remedy)


def _not_kept(subject: str, error: OSError) -> UndeterminedError:
    return UndeterminedError(
        subject,
        f"cannot be written or read ({error.strerror or type(error).__name__})",
        expected="volumes with room for code and config",
        remedy="look at the size limits of the pod's volumes and at the node's disk",
    )


def _size(count: int) -> str:
    return f"{count / 1_000_000:.1f} MB"


def _one_line(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text)
    if len(printable.encode()) <= MAX_LINE_BYTES:
        return printable
    return printable.encode()[: MAX_LINE_BYTES - 3].decode(errors="ignore") + "…"


def _say(line: str, termination_log: Path) -> None:
    text = _one_line(line)
    sys.stderr.write(f"{text}\n")
    # Not there outside of Kubernetes; and what is said above is said.
    with contextlib.suppress(OSError):
        descriptor = os.open(termination_log, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode()[:MAX_TERMINATION_BYTES])
