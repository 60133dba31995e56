"""The sweeps over real processes in a real container: each attack beside what must stay silent."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import timeit
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.agent.sweeplab import PYTHON, Lab, eventually, seen, started
from trainseal.agent.freezer import Freezer
from trainseal.agent.observed import Observation, Profile
from trainseal.agent.processes import Processes
from trainseal.agent.procfiles import parse_stat
from trainseal.agent.sessions import Command, Sessions
from trainseal.agent.sweeps import Sources, Sweeps
from trainseal.api.accessrecord import AccessRecord

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root: namespaces"
)
SLEEP = "import time; time.sleep(1000)"
_MEMFD = """
import os, shutil, sys
fd = os.memfd_create("payload", 0)
os.write(fd, open(shutil.which("sleep"), "rb").read())
os.execve(f"/proc/self/fd/{fd}", ["sleep", "1001"], {})
"""
_MAP = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
held = mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
if len(sys.argv) > 3: os.unlink(sys.argv[1])
time.sleep(1000)
"""
_MAP_SHARED = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
held = mmap.mmap(fd, 0)
time.sleep(1000)
"""
_JIT = """
import mmap, os, time
code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
both = mmap.mmap(-1, 4096, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, 7)
fd = os.memfd_create("tensors"); os.ftruncate(fd, 4096)
data = mmap.mmap(fd, 4096)
shm = os.open("/dev/shm/sem.x", os.O_RDWR | os.O_CREAT); os.ftruncate(shm, 4096)
sem = mmap.mmap(shm, 4096)
own = open("/proc/self/mem", "r+b")
time.sleep(1000)  # jit
"""
_OPEN_MEM = "import os, sys, time; f = os.open(sys.argv[1], os.O_RDWR); time.sleep(1000)"
_TRACE = """
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(16, int(sys.argv[1]), 0, 0) == 0
print("attached", flush=True)
time.sleep(1000)
"""
_DOUBLE_FORK = """
import os, time
if os.fork() == 0:
    time.sleep(0.4)
    {setsid}
    os.execvp("sleep", ["sleep", "777"])
time.sleep(0.2)
"""


@dataclass
class World:
    """A container, and sweeps over it; ``now`` is the clock."""

    lab: Lab
    sweeps: Sweeps
    processes: Processes
    records: list[AccessRecord]
    probes: list[Command]
    later: timedelta = timedelta()
    clock: list[float] = field(default_factory=lambda: [0.0])
    profile: Profile | None = None

    def sweep(self) -> list[Observation]:
        self.clock[0] += 10
        found = self.sweeps.look([self.lab.watched])
        seen = [one[1] for one in found if one is not None]
        self.profile = next((one for one in seen if isinstance(one, Profile)), self.profile)
        return [one for one in seen if isinstance(one, Observation)]

    def until(self, finding: str) -> Observation:
        """Sweeps until there is one of that id."""
        return eventually(lambda: next((o for o in self.sweep() if o.finding == finding), None))

    def member(self, last_word: str) -> int:
        return self.lab.member(self.processes, last_word).pid

    def record(self, *command: str, user: str = "mallory", ago: float = 1.0) -> None:
        spec = {
            "pod": {"name": self.lab.watched.pod, "uid": self.lab.watched.pod_uid},
            "node": "node-1",
            "sealedRun": "char-lm",
            "action": "Exec",
            "username": user,
            "command": list(command),
            "container": "trainer",
            "allowed": True,
            "time": (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(),
        }
        name = f"record-{len(self.records)}"
        obj = {
            "apiVersion": "trainseal.dev/v1alpha1",
            "kind": "AccessRecord",
            "metadata": {"name": name, "namespace": "research"},
            "spec": spec,
        }
        self.records.append(AccessRecord.parse(obj))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with started(tmp_path / "layers") as lab:
        processes = Processes()
        records: list[AccessRecord] = []
        probes: list[Command] = []
        clock = [0.0]
        made: list[World] = []
        sweeps = Sweeps(
            processes,
            Sessions(),
            Sources(lambda _: records, lambda _: probes),
            lambda: datetime.now(UTC) + made[0].later,
            node=lab.node,
            monotonic=lambda: clock[0],
        )
        made.append(World(lab, sweeps, processes, records, probes, clock=clock))
        assert made[0].sweep() == []  # the first process's variables, as they are now, are given
        yield made[0]
        sweeps.close()


def test_a_trainer_with_workers_compilers_and_shared_memory_is_silent(world: World) -> None:
    world.lab.python(_JIT)
    world.lab.python(SLEEP, {"PYTHONPATH": "/usr/lib/python3:", "OMPI_COMM_WORLD_RANK": "1"})
    world.lab.python(SLEEP + "  # preload", {"LD_PRELOAD": _library()})
    world.lab.child("sh", "-c", "sleep 900 & exec sleep 901")
    for word in (_JIT, SLEEP, "901", "900"):
        world.member(word)
    for _ in range(3):
        assert seen(world.sweep()) == []


def test_a_sweep_says_since_when_a_thing_can_have_been_so(world: World) -> None:
    world.sweep()
    world.sweep()
    done = datetime.now(UTC)
    world.lab.python(_MEMFD)
    world.member("1001")  # it is the payload by now
    (found,) = [o for o in world.sweep() if o.finding == "exec.memory"]
    assert found.not_before is not None
    assert world.lab.watched.started < found.not_before <= done
    # What is judged more seldom was looked at longer ago.
    world.lab.run(f"cp {_library()} /scratch/z.so")
    world.lab.child(PYTHON, "-c", _MAP, "/scratch/z.so", "mapped")
    mapped = world.until("map.foreign").not_before
    assert mapped is not None
    assert mapped < found.not_before


def test_a_program_run_from_memory_is_found(world: World) -> None:
    world.lab.python(_MEMFD)
    found = world.until("exec.memory")
    assert found.path == "/memfd:payload"
    assert found.evidence["digest"].startswith("sha256:")
    assert found.lineage
    assert found.lineage.chain[-1].pid == world.lab.watched.pid


@pytest.mark.parametrize("place", ["/scratch/tool", "/opt/tool", "/dev/shm/tool"])
def test_a_dropped_program_is_found(world: World, place: str) -> None:
    world.lab.run(f"cp $(command -v sleep) {place}")
    world.lab.child(place, "1002")
    found = world.until("exec.foreign")
    assert (found.path, found.subject) == (place, place), "or its event's would be another finding"


@pytest.mark.parametrize("place", ["/scratch/evil.py", "/opt/evil.py"])
def test_a_program_that_an_interpreter_reads_is_found(world: World, place: str) -> None:
    world.lab.run(f"echo '{SLEEP}' > {place}")
    world.lab.child(PYTHON, "-u", place, "1013")
    found = world.until("exec.foreign")
    assert (found.path, found.subject) == (place, place)
    assert (found.evidence["script"], found.evidence["interpreter"]) == (place, PYTHON)


def test_a_program_of_a_relative_name_is_found_where_its_process_is(world: World) -> None:
    world.lab.run(f"echo '{SLEEP}' > /scratch/evil.py; ln -s /scratch/evil.py /opt/link.py")
    world.lab.child(PYTHON, "evil.py", "1014", cwd="/scratch")
    assert world.until("exec.foreign").path == "/scratch/evil.py"
    world.lab.child(PYTHON, "link.py", "1015", cwd="/opt")
    pid = world.member("1015")
    assert pid in {o.lineage.chain[0].pid for o in world.sweep() if o.lineage}


@pytest.mark.parametrize(
    ("word", "cwd"),
    [
        ("/proc/self/root/scratch/evil.py", "/"),
        ("/proc/thread-self/root/scratch/evil.py", "/"),
        ("/proc/self/cwd/evil.py", "/scratch"),
        ("/proc/1/root/scratch/evil.py", "/scratch"),
        ("/proc/1/cwd/scratch/evil.py", "/scratch"),
        ("/opt/link.py", "/"),
        ("/opt/deep/../evil.py", "/"),
    ],
)
def test_a_program_is_found_by_whatever_links_of_the_kernels_it_is_named(
    world: World, word: str, cwd: str
) -> None:
    world.lab.run(
        f"mkdir /scratch/a; echo '{SLEEP}' > /scratch/evil.py; ln -s /scratch/a /opt/deep;"
        "ln -s /proc/self/root/scratch/evil.py /opt/link.py"
    )
    world.lab.child(PYTHON, word, "1020", cwd=cwd)
    found = world.until("exec.foreign")
    assert (found.path, found.evidence["script"]) == ("/scratch/evil.py", word)


def test_a_program_of_the_image_is_silent_by_whatever_links_it_is_named(world: World) -> None:
    path = Path(timeit.__file__)
    acts = ("-n1", "-r1", SLEEP)
    world.lab.child(PYTHON, f"/proc/self/root{path}", *acts, "pass", cwd="/scratch")
    world.lab.child(PYTHON, f"/proc/self/cwd/{path.name}", *acts, "0", cwd=str(path.parent))
    world.lab.child(PYTHON, f"/proc/1/cwd{path}", *acts, "1", cwd="/scratch")
    for word in ("pass", "0", "1"):
        world.member(word)
    assert seen(world.sweep()) == []


def test_a_program_below_an_open_directory_is_found(world: World) -> None:
    world.lab.run(f"echo '{SLEEP}' > /scratch/evil.py")
    script = f"exec 3< /scratch; exec {PYTHON} /proc/self/fd/3/evil.py 1021"
    world.lab.child("sh", "-c", script)
    assert world.until("exec.foreign").path == "/scratch/evil.py"


def test_programs_of_the_image_are_silent_wherever_their_process_works(world: World) -> None:
    world.lab.run(f"echo '{SLEEP}' > /scratch/data.py")
    spawn = "from multiprocessing.spawn import spawn_main, os; os.read(0, 1) or __import__"
    world.lab.child(PYTHON, "-c", f"{spawn}('time').sleep(1000)  # /scratch/data.py", "1016")
    world.lab.child(PYTHON, "-c", SLEEP, "/scratch/data.py", cwd="/scratch")
    world.lab.child("sh", "-c", "sleep 1017; exit", "/scratch/data.py", cwd="/scratch")
    world.lab.child(PYTHON, "-m", "timeit", "-n1", "-r1", SLEEP, cwd="/scratch")
    for word in ("1016", "/scratch/data.py", SLEEP):
        world.member(word)
    for _ in range(2):
        assert seen(world.sweep()) == []


def test_a_program_whose_file_is_deleted_is_found(world: World) -> None:
    world.lab.run("cp $(command -v sleep) /scratch/tool")
    world.lab.child("/scratch/tool", "1003")
    world.member("1003")
    world.lab.run("rm /scratch/tool")
    assert world.until("exec.deleted").path == "/scratch/tool"


def test_a_program_that_is_only_called_deleted_is_not_taken_for_one(world: World) -> None:
    world.lab.run("cp $(command -v sleep) '/scratch/tool (deleted)'")
    world.lab.child("/scratch/tool (deleted)", "1004")
    world.member("1004")
    assert seen(world.sweep()) == [("exec.foreign", "/scratch/tool (deleted)")]


def test_a_program_mounted_over_one_of_the_image_is_found(world: World) -> None:
    world.lab.run("cp $(command -v sleep) /scratch/evil; mount --bind /scratch/evil /usr/bin/tail")
    world.lab.child("/usr/bin/tail", "1005")
    found = world.until("exec.foreign")
    assert (found.path, "mounted after" in found.message) == ("/usr/bin/tail", True)


def test_a_program_of_another_mount_namespace_is_not_believed_its_path(world: World) -> None:
    script = "mount --bind /scratch/evil /usr/bin/tail; exec /usr/bin/tail 1006"
    world.lab.run("cp $(command -v sleep) /scratch/evil")
    world.lab.child("unshare", "--mount", "sh", "-c", script)
    found = world.until("exec.foreign")
    assert (found.path, "another file" in found.message) == ("/usr/bin/tail", True)


def test_a_library_loaded_from_scratch_is_found(world: World) -> None:
    world.lab.run(f"cp {_library()} /scratch/x.so")
    world.lab.child(PYTHON, "-c", _MAP, "/scratch/x.so", "mapped")
    found = world.until("map.foreign")
    assert found.path == "/scratch/x.so"
    assert found.evidence["mapping"] == "executable"


def test_a_library_deleted_after_loading_is_found(world: World) -> None:
    world.lab.run(f"cp {_library()} /scratch/y.so")
    world.lab.child(PYTHON, "-c", _MAP, "/scratch/y.so", "mapped", "unlink")
    assert world.until("map.deleted").path == "/scratch/y.so"


def test_code_mapped_from_memory_is_found_whatever_it_calls_itself(world: World) -> None:
    script = _MAP.replace(
        "fd = os.open(sys.argv[1], os.O_RDONLY)",
        "fd = os.memfd_create('doublemapper'); os.ftruncate(fd, 4096)",
    )
    world.lab.child(PYTHON, "-c", script, "-", "mapped")
    assert world.until("map.memory").path == "/memfd:doublemapper"


def test_a_signed_file_mapped_for_writing_is_found(world: World) -> None:
    world.lab.child(PYTHON, "-c", _MAP_SHARED, "/etc/passwd")
    found = world.until("map.writable")
    assert found.path == "/etc/passwd"
    assert found.evidence["digest"].startswith("sha256:")


def test_a_scratch_file_mapped_for_writing_is_silent(world: World) -> None:
    world.lab.run("echo data > /scratch/data; echo new > /opt/new")
    for path in ("/scratch/data", "/opt/new"):
        world.lab.child(PYTHON, "-c", _MAP_SHARED, path)
        world.member(path)
    assert seen(world.sweep()) == []


def test_a_child_that_preloads_from_scratch_is_found(world: World) -> None:
    world.lab.run(f"cp {_library()} /scratch/p.so; ln -s /scratch /opt/link")
    world.lab.python(SLEEP, {"LD_PRELOAD": "/opt/link/p.so"})
    found = world.until("env.loader")
    assert found.evidence["variable"] == "LD_PRELOAD"
    assert found.evidence["sealed value"] == "(none)"


def test_an_import_path_through_the_working_directory_is_found(world: World) -> None:
    world.lab.child(PYTHON, "-c", SLEEP, env={"PYTHONPATH": "/usr/lib:"}, cwd="/scratch")
    assert "/scratch" in world.until("env.loader").message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOME", "/scratch/h"),
        ("HOME", "."),
        ("XDG_CONFIG_HOME", "/opt/c"),
        ("R_LIBS", "/dev/shm/r"),
    ],
)
def test_a_session_that_finds_code_in_a_home_that_nobody_signed_is_found(
    world: World, name: str, value: str
) -> None:
    world.lab.run("mkdir -p /opt/c")
    world.record("sh", "-c", "cd /scratch; exec sleep 1022")
    world.lab.enter("sh", "-c", "cd /scratch; exec sleep 1022", env={name: value})
    found = world.until("env.loader")
    assert (found.evidence["variable"], found.evidence["value"]) == (name, value)
    assert found.lineage
    assert found.lineage.session


def test_homes_of_the_image_as_sealed_of_signed_code_and_caches_are_silent(world: World) -> None:
    world.lab.run("mkdir -p /scratch/sealed /scratch/h")
    caches = {"TORCHINDUCTOR_CACHE_DIR": "/scratch/t", "XDG_CACHE_HOME": "/dev/shm/c"}
    world.record("sleep", "1023")
    world.lab.enter("sleep", "1023", env={"HOME": "/root", "R_LIBS": "/scratch/sealed", **caches})
    world.lab.python(SLEEP, {"HOME": "/scratch/h", **caches})
    for word in ("1023", SLEEP):
        world.member(word)
    assert seen(world.sweep()) == [("process.entered", None)]


def test_a_cache_that_is_not_the_pods_own_is_found_in_a_session(world: World) -> None:
    world.lab.run("mount -t tmpfs others /mnt")
    world.lab.enter("sleep", "1024", env={"TORCHINDUCTOR_CACHE_DIR": "/mnt/cache"})
    assert world.until("env.loader").evidence["variable"] == "TORCHINDUCTOR_CACHE_DIR"


def test_the_profile_has_changed_files_and_foreign_code_and_nothing_of_scratch(
    world: World,
) -> None:
    world.lab.run("echo '# evil' >> /etc/passwd")
    for path in ("/scratch/x.so", "/dev/shm/y.so"):
        world.lab.run(f"cp {_library()} {path}")
        world.lab.child(PYTHON, "-c", _MAP, path, "mapped")

    def told() -> Profile | None:
        world.sweep()
        found = world.profile
        return found if found and found.code and "/etc/passwd" in (found.files or {}) else None

    profile = eventually(told)
    assert list(profile.code) == ["/dev/shm/y.so"]
    assert profile.files
    assert profile.files["/etc/passwd"].startswith("sha256:")
    # What the container was made with is no difference.
    assert not [path for path in profile.files if path.startswith("/scratch")]
    # What the seal does not know before the start is the same word in every rank.
    assert profile.environment["LD_LIBRARY_PATH"] == "as known at run time"


def test_a_tracer_is_found(world: World) -> None:
    world.lab.python(SLEEP)
    tracer = world.lab.aside(PYTHON, "-c", _TRACE, str(world.member(SLEEP)))
    assert tracer.stdout
    assert tracer.stdout.readline() == "attached\n"
    found = world.until("process.traced")
    assert found.lineage
    assert found.lineage.chain[0].pid == tracer.pid


def test_a_stopped_process_of_the_trainer_is_found_in_the_second_sweep(world: World) -> None:
    world.lab.python(SLEEP)
    pid = world.member(SLEEP)
    with _stopped(pid):
        assert seen(world.sweep()) == []
        (found,) = world.sweep()
        assert found.finding == "process.stopped"
        assert found.evidence["stopped"].startswith(f"{pid}: ")
    assert seen(world.sweep()) == []


def test_a_job_stopped_in_the_session_that_began_it_is_silent(world: World) -> None:
    world.record("sh", "-c", "sleep 1012 & wait")
    world.lab.enter("sh", "-c", "sleep 1012 & wait")
    with _stopped(world.member("1012")):
        for _ in range(3):
            assert {o.finding.value for o in world.sweep()} <= {"process.entered"}


def test_a_container_that_the_agent_froze_has_no_stopped_process(world: World) -> None:
    world.lab.python(SLEEP)
    pid = world.member(SLEEP)
    Freezer().freeze(world.lab.group)
    try:
        for _ in range(3):
            assert seen(world.sweep()) == []
    finally:
        Freezer().thaw(world.lab.group)
    eventually(lambda: _state(pid) == "S")
    for _ in range(3):
        assert seen(world.sweep()) == []


def test_memory_opened_for_writing_from_the_node_is_found(world: World) -> None:
    world.lab.python(SLEEP)
    holder = world.lab.aside(PYTHON, "-c", _OPEN_MEM, f"/proc/{world.member(SLEEP)}/mem")
    found = world.until("process.memory-opened")
    assert found.evidence["holder"].startswith(f"{holder.pid}:")


def test_memory_opened_for_writing_from_within_is_found(world: World) -> None:
    world.lab.child(PYTHON, "-c", _OPEN_MEM, "/proc/1/mem")
    found = world.until("process.memory-opened")
    assert found.evidence["memory of"].startswith(f"{world.lab.watched.pid}:")


def test_a_recorded_session_names_the_person(world: World) -> None:
    world.record("sleep", "1007")
    pid = world.lab.enter("sleep", "1007")
    found = world.until("process.entered")
    assert (found.evidence["user"], found.evidence["access record"]) == ("mallory", "record-0")
    assert found.lineage
    assert found.lineage.session
    assert found.lineage.session.pid == pid


def test_a_session_without_a_record_is_given_a_moment_and_then_found(world: World) -> None:
    world.lab.enter("sleep", "1008")
    world.member("1008")
    assert seen(world.sweep()) == []
    world.later = timedelta(seconds=10)
    assert "control group" in world.until("process.unrecorded").message


def test_a_probe_of_the_sealed_template_is_silent(world: World) -> None:
    world.probes.append(("sh", "-c", "test -e / && sleep 1009"))
    world.lab.enter("sleep", "1009")
    world.member("1009")
    world.later = timedelta(seconds=10)
    assert seen(world.sweep()) == []


def test_nsenter_from_the_node_is_found_though_a_record_fits(world: World) -> None:
    world.record("sleep", "1010")
    world.lab.aside("nsenter", f"--target={world.lab.watched.pid}", "--mount", "sleep", "1010")
    found = world.until("process.unrecorded")
    assert "nsenter does" in found.message
    assert "python" in found.evidence["parents"]  # this test is its parent


def test_an_orphan_of_a_session_is_still_of_it(world: World) -> None:
    session = world.lab.enter(PYTHON, "-c", _DOUBLE_FORK.format(setsid=""))
    eventually(lambda: os.getsid(session) == session)
    world.processes.lineage(session, world.lab.watched)
    orphan = world.lab.member(Processes(), "777").pid  # nobody looked at it before
    lineage = world.processes.lineage(orphan, world.lab.watched)
    assert lineage
    assert lineage.session
    assert lineage.session.pid == session
    assert [p.pid for p in lineage.chain] == [orphan, session]


def test_an_orphan_in_a_process_session_of_its_own_is_known_if_it_was_looked_at(
    world: World,
) -> None:
    session = world.lab.enter(PYTHON, "-c", _DOUBLE_FORK.format(setsid="os.setsid()"))
    eventually(lambda: len(world.processes.members([world.lab.watched])[_id(world)]) == 3)
    orphan = world.member("777")
    lineage = world.processes.lineage(orphan, world.lab.watched)
    assert lineage
    assert lineage.session
    assert lineage.session.pid == session


def test_an_orphan_of_what_entered_past_the_control_group_is_no_descendant(world: World) -> None:
    script = _DOUBLE_FORK.format(setsid="os.setsid()")
    enter = ("nsenter", f"--target={world.lab.watched.pid}", "--mount", "--pid")
    world.lab.aside(*enter, PYTHON, "-c", script)
    orphan = world.lab.member(Processes(), "777").pid  # nobody looked while its parents lived
    lineage = world.processes.lineage(orphan, world.lab.watched)
    assert lineage
    assert lineage.session


def test_an_orphan_with_a_login_of_the_node_is_no_descendant(world: World) -> None:
    script = _DOUBLE_FORK.format(setsid="os.setsid()")
    group = world.lab.group / "cgroup.procs"
    enter = f"nsenter --target={world.lab.watched.pid} --mount --pid"
    act = f'echo 1000 > /proc/self/loginuid; echo $$ > {group}; exec {enter} "$@"'
    world.lab.aside("sh", "-c", act, "sh", PYTHON, "-c", script)
    orphan = world.lab.member(Processes(), "777").pid  # nobody looked while its parents lived
    lineage = world.processes.lineage(orphan, world.lab.watched)
    assert lineage
    assert lineage.session
    assert world.processes.login(orphan) == 1000


def test_an_orphan_of_the_trainer_is_no_session(world: World) -> None:
    world.lab.python(_DOUBLE_FORK.format(setsid="os.setsid()"))
    lineage = world.processes.lineage(world.member("777"), world.lab.watched)
    assert lineage
    assert lineage.session is None


def test_a_process_that_executes_something_else_is_read_again(world: World) -> None:
    world.lab.child("sh", "-c", "sleep 1; exec sleep 1011")
    before = world.lab.member(world.processes, "sleep 1; exec sleep 1011")
    pid = world.member("1011")
    assert pid == before.pid
    after = world.processes.read(pid)
    assert after
    assert after.command == ("sleep", "1011")
    assert after.started == before.process.started


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: _state(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: _state(pid) != "T")


def _state(pid: int) -> str:
    return parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).state


def _library() -> str:
    listed = subprocess.run(["ldd", PYTHON], capture_output=True, text=True, check=True).stdout
    return next(word for word in listed.split() if word.startswith("/") and "libm" in word)


def _id(world: World) -> str:
    return world.lab.watched.container_id
