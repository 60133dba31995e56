"""What an act on a file amounts to: each attack beside its benign twin."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from trainseal.agent.bytecode import Bytecode
from trainseal.agent.judge import Facts, judge
from trainseal.agent.ledger import key_of
from trainseal.agent.observed import (
    Act,
    FileEvent,
    Lineage,
    Process,
    RoleMount,
    WatchedContainer,
)
from trainseal.api.findings import FindingId as F

CONTAINER = WatchedContainer(
    namespace="research",
    pod="char-lm-worker-0",
    pod_uid="uid",
    seal="char-lm",
    container="trainer",
    container_id="c" * 64,
    pid=100,
    started=datetime(2026, 1, 1, tzinfo=UTC),
    mounts=(
        RoleMount("/workspace", "code", "trainer"),
        RoleMount("/etc/training", "config", "config"),
        RoleMount("/data", "data", "shards"),
        RoleMount("/tmp", "scratch", "scratch-0"),
        RoleMount("/checkpoints", "checkpoints", "checkpoints"),
    ),
    env={},
)
ADAM = "/usr/lib/python3/dist-packages/torch/optim/adam.py"
PYC = "/usr/lib/python3/dist-packages/torch/optim/__pycache__/adam.cpython-311.pyc"
SIGNED = Facts(signed=True)
NEW = Facts(written=True)


def found(act: Act, path: str, facts: Facts, *, directory: bool = False) -> F | None:
    observation = judge(FileEvent(act, path, 7, directory), CONTAINER, facts)
    if observation is None:
        return None
    assert observation.path == path
    assert path in observation.message
    return observation.finding


ATTACKS = {
    "the installed optimizer is written": (Act.WRITTEN, ADAM, SIGNED, F.FILE_CHANGED),
    "it is written and put back": (
        Act.WRITTEN,
        ADAM,
        Facts(signed=True, same=True),
        F.FILE_CHANGED,
    ),
    "it is changed through a mapping": (
        Act.CLOSED,
        ADAM,
        Facts(signed=True, same=False),
        F.FILE_CHANGED,
    ),
    "an editor replaces it": (
        Act.MOVED_TO,
        ADAM,
        Facts(signed=True, from_beside=True),
        F.FILE_CHANGED,
    ),
    "it is removed and made anew": (Act.CREATED, ADAM, SIGNED, F.FILE_CHANGED),
    "it is removed": (Act.DELETED, ADAM, Facts(kind=None, signed=True), F.FILE_REMOVED),
    "it is moved away": (Act.MOVED_FROM, ADAM, Facts(kind=None, signed=True), F.FILE_REMOVED),
    "a file from elsewhere is moved over it": (Act.MOVED_TO, ADAM, SIGNED, F.FILE_RENAMED),
    "a file is linked beside it": (Act.CREATED, ADAM, Facts(links=2), F.FILE_RENAMED),
    "byte code is moved in": (
        Act.MOVED_TO,
        PYC,
        Facts(bytecode=Bytecode(True, "fits")),
        F.FILE_RENAMED,
    ),
    "a module is added": (Act.CREATED, ADAM, Facts(imports=True), F.IMPORT_CHANGED),
    "a module is added and gone": (
        Act.CREATED,
        ADAM,
        Facts(kind=None, imports=True),
        F.IMPORT_CHANGED,
    ),
    "byte code does not match": (
        Act.CREATED,
        PYC,
        Facts(bytecode=Bytecode(False, "poisoned")),
        F.BYTECODE_MISMATCH,
    ),
    "the signed byte code is replaced by another": (
        Act.MOVED_TO,
        PYC,
        Facts(signed=True, from_beside=True, bytecode=Bytecode(False, "poisoned")),
        F.BYTECODE_MISMATCH,
    ),
    "another file is added": (Act.CREATED, "/opt/tool", NEW, F.FILE_CREATED),
    "its mode is changed": (
        Act.ATTRIBUTES,
        ADAM,
        Facts(signed=True, attributes={"mode": "signed 0644, now 0666"}),
        F.FILE_ATTRIBUTES,
    ),
    "the code is written": (Act.WRITTEN, "/workspace/train.py", SIGNED, F.FILE_CHANGED),
    "the config is written": (Act.WRITTEN, "/etc/training/config.yaml", SIGNED, F.FILE_CHANGED),
    "a shard is written": (Act.WRITTEN, "/data/shard-0", SIGNED, F.FILE_CHANGED),
    "code is open for writing": (Act.CLOSED, "/workspace/train.py", SIGNED, F.FILE_CHANGED),
    "a written program runs": (Act.EXECUTED, "/opt/tool", NEW, F.EXEC_FOREIGN),
    "a changed program runs": (
        Act.EXECUTED,
        "/usr/bin/python3",
        Facts(signed=True, written=True, same=False),
        F.EXEC_FOREIGN,
    ),
    "a program runs from scratch": (Act.EXECUTED, "/tmp/tool", Facts(), F.EXEC_FOREIGN),
    "a program runs from checkpoints": (Act.EXECUTED, "/checkpoints/t", Facts(), F.EXEC_FOREIGN),
    "a program runs that was put into the file for the last message": (
        Act.EXECUTED,
        "/dev/termination-log",
        Facts(platform=True, writable=True),
        F.EXEC_FOREIGN,
    ),
    "a program runs from memory": (
        Act.EXECUTED,
        "/dev/shm/tool",
        Facts(platform=True, memory=True),
        F.EXEC_FOREIGN,
    ),
}

BENIGN = {
    "scratch is written": (Act.WRITTEN, "/tmp/torchinductor/a.py", NEW),
    "a module is made in scratch": (Act.CREATED, "/tmp/a.py", Facts(imports=True)),
    "a checkpoint is renamed into place": (Act.MOVED_TO, "/checkpoints/step-2.pt", NEW),
    "a checkpoint is removed": (Act.DELETED, "/checkpoints/step-1.pt", Facts(kind=None)),
    "a file is opened for writing and left": (Act.CLOSED, ADAM, Facts(signed=True, same=True)),
    "Python makes a name for its byte code": (Act.CREATED, f"{PYC}.140234", NEW),
    "byte code still has to be compared": (
        Act.MOVED_TO,
        PYC,
        Facts(from_beside=True, bytecode=Bytecode(None, "header")),
    ),
    "a new file is removed again": (Act.DELETED, "/opt/new", Facts(kind=None)),
    "a removed file is back": (Act.DELETED, ADAM, SIGNED),
    "an attribute is as signed": (Act.ATTRIBUTES, ADAM, SIGNED),
    "a new file gets a mode": (Act.ATTRIBUTES, "/opt/new", Facts(attributes={"mode": "0600"})),
    "the image's program runs": (Act.EXECUTED, "/usr/bin/python3", SIGNED),
    "a touched program of the image runs": (
        Act.EXECUTED,
        "/usr/bin/python3",
        Facts(signed=True, written=True, same=True),
    ),
    "the code's own program runs": (Act.EXECUTED, "/workspace/run.sh", SIGNED),
    "a program that the device toolkit mounts runs": (
        Act.EXECUTED,
        "/usr/bin/nvidia-smi",
        Facts(platform=True),
    ),
    "the kubelet renews the hosts file": (
        Act.WRITTEN,
        "/etc/hosts",
        Facts(platform=True, writable=True),
    ),
    "shared memory is written": (Act.WRITTEN, "/dev/shm/nccl-1", NEW),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_attack(case: str) -> None:
    act, path, facts, finding = ATTACKS[case]
    assert found(act, path, facts) is finding


@pytest.mark.parametrize("case", BENIGN)
def test_benign(case: str) -> None:
    assert found(*BENIGN[case]) is None


@pytest.mark.parametrize(
    ("act", "finding"), [(Act.WRITTEN, F.FILE_CHANGED), (Act.EXECUTED, F.EXEC_FOREIGN)]
)
def test_a_file_that_only_another_view_leads_to_has_no_path_that_could_be_excepted(
    act: Act, finding: F
) -> None:
    seen = judge(FileEvent(act, "/tmp/view/adam.py", 7), CONTAINER, Facts(hidden=True))
    assert seen is not None
    assert (seen.finding, seen.path) == (finding, None)
    assert seen.evidence == {"seen as": "/tmp/view/adam.py"}


def test_a_program_is_one_finding_whether_its_caller_was_seen_or_itself() -> None:
    event = FileEvent(Act.EXECUTED, "/tmp/tool", 7)
    seen = judge(event, CONTAINER, Facts())
    assert seen is not None
    keys = {
        key_of("trainer", replace(seen, lineage=Lineage((_process(executable),))))
        for executable in ("/usr/bin/dash", "/tmp/tool")
    }
    assert keys == {key_of("trainer", seen)}


def _process(executable: str) -> Process:
    return Process(7, 1, datetime(2026, 1, 1, tzinfo=UTC), executable, (executable,), 0, "c" * 64)


def test_byte_code_that_matches_is_only_mentioned() -> None:
    facts = Facts(from_beside=True, bytecode=Bytecode(True, "fits"))
    assert found(Act.MOVED_TO, PYC, facts) is F.BYTECODE_WRITTEN


def test_a_new_directory_is_no_difference_but_a_removed_or_emptied_one_is() -> None:
    path = "/usr/lib/python3/dist-packages/torch/optim"
    made = Facts(kind="directory", written=True)
    gone = Facts(kind=None, signed=True)
    emptied = Facts(kind="directory", signed=True, emptied=True)
    assert found(Act.CREATED, path, made, directory=True) is None
    assert found(Act.DELETED, path, gone, directory=True) is F.FILE_REMOVED
    assert found(Act.DELETED, path, emptied, directory=True) is F.FILE_REMOVED
