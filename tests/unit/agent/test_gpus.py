"""Whose processes are on the GPUs of sealed pods, and what is said where nobody can tell."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainseal.agent import nvml
from trainseal.agent.gpus import Gpu, UnseenError, intruders
from trainseal.agent.nvml import Nvml, has_nvidia_gpus
from trainseal.agent.observed import Lineage, Observation, Process, WatchedContainer
from trainseal.agent.processes import Member, Processes
from trainseal.agent.sweep_gpus import AGAIN_SECONDS, GpuSweep
from trainseal.api.findings import FindingId

SEALED, OTHER = "6a6956fe-0000-4000-8000-000000000000", "7b6956fe-0000-4000-8000-000000000000"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
TRAINER, WORKER, SERVER, MINER = 100, 101, 200, 300


def gpu(uuid: str, *pids: int) -> Gpu:
    return Gpu(uuid, "NVIDIA H100", frozenset(pids))


# The decision -------------------------------------------------------------------------------------


def found(gpus: Iterable[Gpu], members: Mapping[str, set[int]], outside: set[int]) -> list[object]:
    return [(i.container_id, i.gpu.uuid, i.pid) for i in intruders(gpus, members, outside)]


def test_a_stranger_on_a_pods_gpu_is_told_on_that_pod() -> None:
    gpus = [gpu("GPU-0", TRAINER, MINER), gpu("GPU-1", WORKER)]
    assert found(gpus, {"a": {TRAINER}, "b": {WORKER}}, {MINER}) == [("a", "GPU-0", MINER)]


def test_a_gpu_that_two_sealed_pods_share_is_no_finding_and_a_stranger_is_one_on_both() -> None:
    members = {"a": {TRAINER}, "b": {WORKER}}
    assert found([gpu("GPU-0", TRAINER, WORKER)], members, {MINER}) == []
    shared = found([gpu("GPU-0", TRAINER, WORKER, MINER)], members, {MINER})
    assert shared == [("a", "GPU-0", MINER), ("b", "GPU-0", MINER)]


def test_who_uses_a_gpu_that_no_sealed_pod_is_on_is_nobodys_business() -> None:
    assert found([gpu("GPU-0", TRAINER), gpu("GPU-1", MINER)], {"a": {TRAINER}}, {MINER}) == []


def test_a_process_of_a_sealed_pod_that_is_not_watched_yet_is_no_stranger() -> None:
    assert found([gpu("GPU-0", TRAINER, 555)], {"a": {TRAINER}}, set()) == []


# The sweep ----------------------------------------------------------------------------------------


class Rooted(WatchedContainer):
    """A container whose root is a folder of the test's."""

    @property
    def root(self) -> str:
        return self.namespace


@dataclass
class Node:
    """A node's /proc in a folder, its driver, and a trainer in a sealed pod on GPU-0."""

    folder: Path
    driver: UnseenError | None = None
    gpus: list[Gpu] = field(default_factory=list)
    present: bool = True
    clock: float = 0.0
    sessions: int = 0

    def __post_init__(self) -> None:
        (self.folder / "root" / "dev").mkdir(parents=True)
        (self.folder / "root" / "dev" / "nvidiactl").touch()
        self.process(TRAINER, "python3", SEALED)
        self.gpus = [gpu("GPU-0", TRAINER)]
        self.processes = Processes(self.folder)
        mounts, root = (), str(self.folder / "root")
        self.container = Rooted(root, "p", SEALED, "s", "trainer", "c", TRAINER, NOW, mounts, {})

    def process(self, pid: int, program: str, pod: str | None, started: int = 10) -> None:
        place = self.folder / str(pid)
        place.mkdir(exist_ok=True)
        numbers = ["0"] * 48
        numbers[0], numbers[18] = "1", str(started)
        (place / "stat").write_text(f"{pid} ({program}) S {' '.join(numbers)}\n")
        (place / "status").write_text("Uid:\t0\t0\t0\t0\nTracerPid:\t0\n")
        (place / "cmdline").write_text(f"{program}\0--fast\0")
        group = f"/kubepods/pod{pod}/{'c' * 64}" if pod else "/system.slice/x.service"
        (place / "cgroup").write_text(f"0::{group}\n")
        (place / "exe").unlink(missing_ok=True)
        (place / "exe").symlink_to(f"/usr/bin/{program}")

    # The driver.

    def open(self) -> Node:
        if self.driver is not None:
            raise self.driver
        self.sessions += 1
        return self

    def read(self) -> Sequence[Gpu]:
        if self.driver is not None:
            raise self.driver
        return self.gpus

    def close(self) -> None:
        self.sessions -= 1

    # The agent.

    def sweep(self) -> GpuSweep:
        return GpuSweep(
            self.processes, self.open, lambda uid: uid == SEALED,
            present=self.present, monotonic=lambda: self.clock,
        )  # fmt: skip

    def run(self, sweep: GpuSweep) -> list[Observation]:
        self.clock += 10
        seat = self.processes.seat(TRAINER)
        assert seat is not None
        process = Process(TRAINER, 1, NOW, "/usr/bin/python3", (), 0, "c")
        member = Member(seat, process, Lineage((process,)), grouped=True)
        found = list(sweep.run({"c": self.container}, {"c": [member]}))
        assert {container for container, _ in found} <= {"c"}
        return [observation for _, observation in found]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_trainer_alone_on_its_gpu_is_silent(node: Node) -> None:
    sweep = node.sweep()
    assert node.run(sweep) == node.run(sweep) == []
    assert sweep.lacking == ()


@pytest.mark.parametrize(
    ("pod", "words"), [(OTHER, f"pod {OTHER}, which is not sealed"), (None, "no pod")]
)
def test_a_stranger_is_told_once_it_was_there_twice_with_program_and_home(
    node: Node, pod: str | None, words: str
) -> None:
    node.process(MINER, "xmrig", pod)
    node.gpus = [gpu("GPU-0", TRAINER, MINER)]
    sweep = node.sweep()
    assert node.run(sweep) == []
    (seen,) = node.run(sweep)
    assert seen.finding is FindingId.GPU_FOREIGN
    assert seen.evidence["belongs to"] == words
    assert "GPU-0" in seen.evidence["gpu"]
    assert seen.lineage is not None
    assert (seen.lineage.chain[0].pid, seen.lineage.session) == (MINER, None)
    # The same again has the same subject: it counts up.
    assert [o.subject for o in node.run(sweep)] == [seen.subject]


def test_another_process_of_the_sealed_pod_is_no_stranger(node: Node) -> None:
    node.process(WORKER, "python3", SEALED)
    node.gpus = [gpu("GPU-0", TRAINER, WORKER)]
    sweep = node.sweep()
    assert node.run(sweep) == node.run(sweep) == []


def test_a_process_that_is_gone_and_one_that_has_its_pid_now_are_not_told_of(node: Node) -> None:
    node.gpus = [gpu("GPU-0", TRAINER, MINER)]  # the driver still lists it
    sweep = node.sweep()
    assert node.run(sweep) == node.run(sweep) == []
    node.process(MINER, "xmrig", OTHER, started=10)
    assert node.run(sweep) == []
    node.process(MINER, "other", OTHER, started=20)
    assert node.run(sweep) == []


def test_the_driver_is_held_only_while_a_sealed_container_has_a_gpu(node: Node) -> None:
    sweep = node.sweep()
    assert node.sessions == 0
    node.run(sweep)
    assert node.sessions == 1
    (node.folder / "root" / "dev" / "nvidiactl").unlink()
    node.run(sweep)
    assert node.sessions == 0
    sweep.close()
    assert node.sessions == 0


def test_what_the_driver_does_not_tell_is_said_from_the_start_and_asked_for_again(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.driver = UnseenError("the driver's library is not here")
    sweep = node.sweep()
    (words,) = sweep.lacking
    assert "library is not here" in words
    assert words in caplog.text
    node.driver = None
    node.run(sweep)
    assert list(sweep.lacking) == [words], "not before its time"
    node.clock += AGAIN_SECONDS
    node.run(sweep)
    assert list(sweep.lacking) == []


def test_a_driver_that_stops_answering_is_said(node: Node) -> None:
    sweep = node.sweep()
    node.run(sweep)
    node.driver = UnseenError("GPU is lost")
    assert node.run(sweep) == []
    assert "GPU is lost" in sweep.lacking[0]
    assert node.sessions == 0


def test_a_node_without_gpus_lacks_nothing_and_asks_no_driver(node: Node) -> None:
    node.driver, node.present = UnseenError("never asked"), False
    sweep = node.sweep()
    assert sweep.lacking == ()
    assert node.run(sweep) == []


def test_a_flood_of_strangers_is_bounded(node: Node) -> None:
    many = range(1000, 1100)
    for pid in many:
        node.process(pid, f"xmrig{pid}", OTHER)
    node.gpus = [gpu("GPU-0", TRAINER, *many)]
    sweep = node.sweep()
    node.run(sweep)
    assert len(node.run(sweep)) == 16


# The driver's library -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "kind", "there"),
    [
        ("0x10de", "0x030200", True),
        ("0x10de", "0x030000", True),
        ("0x10de", "0x040300", False),  # its sound
        ("0x1002", "0x030000", False),
    ],
)
def test_the_nodes_gpus_are_known_from_its_bus(
    tmp_path: Path, vendor: str, kind: str, there: bool
) -> None:
    place = tmp_path / "0000:41:00.0"
    place.mkdir()
    (place / "vendor").write_text(f"{vendor}\n")
    (place / "class").write_text(f"{kind}\n")
    assert has_nvidia_gpus(tmp_path) is there
    assert not has_nvidia_gpus(tmp_path / "none")


class FaultError(Exception):
    """The library's own error."""


class NotFoundError(FaultError):
    """Nothing at that place."""


class NotSupportedError(FaultError):
    """Not with this device."""


class Library:
    """As the module of the driver's library: a whole card, and one of three places, two taken."""

    NVMLError = FaultError
    NVMLError_NotFound = NotFoundError
    NVMLError_NotSupported = NotSupportedError
    NVMLLibraryMismatchError = RuntimeError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self) -> None:
        self.sessions = 0
        self.fault: Exception | None = None

    def nvmlInit(self) -> None:  # noqa: N802
        if self.fault is not None:
            raise self.fault
        self.sessions += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.sessions -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return ("whole", "parted")[index]

    def nvmlDeviceGetName(self, device: str) -> str:  # noqa: N802
        return f"NVIDIA {device}"

    def nvmlDeviceGetUUID(self, device: str) -> str:  # noqa: N802
        return f"GPU-{device}"

    def nvmlDeviceGetMigMode(self, device: str) -> list[int]:  # noqa: N802
        if device == "whole":
            raise NotSupportedError
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, _: str) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: str, index: int) -> str:  # noqa: N802
        if index == 1:
            raise NotFoundError
        return f"{device}-{index}"

    def nvmlDeviceGetComputeRunningProcesses(self, device: str) -> list[Any]:  # noqa: N802
        if self.fault is not None:
            raise self.fault
        assert device != "parted", "of a partitioned card its partitions are asked"
        return [SimpleNamespace(pid=len(device))]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: str) -> list[Any]:  # noqa: N802
        if device != "whole":
            raise NotSupportedError
        return [SimpleNamespace(pid=77)]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(nvml, "import_module", lambda _: made)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    return made


def test_a_partition_is_a_gpu_of_its_own_and_its_card_is_not(library: Library) -> None:
    session = Nvml()
    assert session.read() == (
        Gpu("GPU-whole", "NVIDIA whole", frozenset({5, 77})),
        Gpu("GPU-parted-0", "NVIDIA parted", frozenset({8})),
        Gpu("GPU-parted-2", "NVIDIA parted", frozenset({8})),
    )
    session.close()
    session.close()
    assert library.sessions == 0


@pytest.mark.parametrize("fault", [FaultError("Not Permitted"), RuntimeError("driver too old")])
def test_what_the_library_refuses_is_not_seen_rather_than_nobody(
    library: Library, fault: Exception
) -> None:
    session = Nvml()
    library.fault = fault
    with pytest.raises(UnseenError, match=str(fault)):
        session.read()


def test_a_driver_that_does_not_answer_is_not_seen(library: Library) -> None:
    library.fault = FaultError("Driver Not Loaded")
    with pytest.raises(UnseenError, match="Driver Not Loaded"):
        Nvml()


def test_without_the_drivers_library_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise AssertionError("imported")

    monkeypatch.setattr(nvml, "import_module", refuse)
    monkeypatch.setattr(nvml, "_LIBRARY", "libno-such-library.so.1")
    with pytest.raises(UnseenError, match=r"libno-such-library\.so\.1 is not here"):
        Nvml()


def test_the_installed_module_has_every_name_that_is_used() -> None:
    module = pytest.importorskip("pynvml", reason="requirements/dev.txt is newer than this")
    used = [name for name in vars(Library) if name.lower().startswith("nvml")]
    assert [name for name in used if not hasattr(module, name)] == []
    assert issubclass(module.NVMLError_NotFound, module.NVMLError)
