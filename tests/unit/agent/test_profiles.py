"""What of one rank is compared with the others: what is its own looks like everybody's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from trainseal.agent.observed import Lineage, Observation, Process, RoleMount, WatchedContainer
from trainseal.agent.origins import Origin
from trainseal.agent.profiles import Gathering, report_of, wire_of
from trainseal.api.driftreport import ContainerProfile
from trainseal.api.findings import FindingId

NOW = datetime(2026, 11, 1, tzinfo=UTC)
MOUNTS = (
    RoleMount("/workspace", "code", "code-trainer"),
    RoleMount("/corpus", "data", "data-corpus"),
    RoleMount("/checkpoints", "checkpoints", "checkpoints"),
    RoleMount("/tmp", "scratch", "scratch-0"),
)
DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
PACKAGES = "/usr/lib/python3/dist-packages"


def rank(number: int, env: Mapping[str, str | None] | None = None) -> Gathering:
    uid = f"6a6956fe-0000-4000-8000-00000000000{number}"
    name = f"char-lm-worker-{number}-x7kq{number}"
    found = WatchedContainer(
        "research", name, uid, "s", "trainer", "c", 1, NOW, MOUNTS, dict(env or {})
    )
    return Gathering(found)


def mapped(path: str, finding: FindingId = FindingId.MAP_FOREIGN) -> Observation:
    return Observation(finding, "it runs", path, evidence={"digest": DIGEST})


def code(gathering: Gathering) -> Mapping[str, str]:
    return gathering.profile({}, {}).code


# Code ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/tmp/torchinductor_root/ab/x.so", "/checkpoints/x.so", "/corpus/env/lib/y.so"]
)
def test_libraries_in_mounts_for_writing_or_for_all_are_left_out(path: str) -> None:
    one = rank(0)
    one.saw(mapped(path), "mount:scratch", named=False)
    assert code(one) == {}


def test_ranks_that_load_other_files_of_one_cache_are_alike() -> None:
    found = []
    for number, kernels in enumerate((("ab", "cd"), ("cd", "ef", "01"))):
        one = rank(number)
        for kernel in kernels:
            one.saw(mapped(f"/root/.triton/cache/{kernel}/launcher.so"), "upper", named=False)
        found.append(dict(code(one)))
    assert found[0] == found[1] == {"/root/.triton/…": ""}


def test_a_library_dropped_beside_no_cache_counts_by_its_name() -> None:
    one = rank(0)
    one.saw(mapped("/opt/evil.so"), "upper", named=False)
    assert code(one) == {"/opt/evil.so": ""}


def test_names_that_a_process_or_a_rank_made_up_are_alike() -> None:
    paths = (
        (f"/dev/shm/torch_{number}41_x.so", f"/memfd:jit-{number}", f"/var/tmp/tmpx7kq2_{number}")
        for number in range(2)
    )
    found = []
    for number, (shm, memory, temporary) in enumerate(paths):
        one = rank(number)
        one.saw(mapped(shm), "mount:other", named=False)
        one.saw(mapped(memory, FindingId.MAP_MEMORY), "unknown", named=False)
        one.saw(mapped(f"{temporary}/k.so"), "upper", named=False)
        found.append(dict(code(one)))
    assert found[0] == found[1]
    assert sorted(found[0]) == ["/dev/shm/torch_#_x.so", "/memfd:jit-#", "/var/tmp/…"]


def test_a_library_of_the_images_name_counts_by_its_digest() -> None:
    one = rank(0)
    one.saw(mapped("/usr/lib/libm.so.6", FindingId.MAP_DELETED), "upper", named=True)
    assert code(one) == {"/usr/lib/libm.so.6": DIGEST}


def test_what_the_files_say_already_is_not_said_twice() -> None:
    """A rank that has loaded a new library is like one that has it and may yet load it."""
    one, path = rank(0), f"{PACKAGES}/fast.so"
    one.saw(mapped(path), "upper", named=True)
    assert one.profile({path: DIGEST}, {}).code == {}
    assert one.profile({path: OTHER}, {}).code == {path: DIGEST}


def test_a_signed_tree_that_was_changed_counts_though_a_policy_excepts_it() -> None:
    seen = Observation(
        FindingId.TREE_CHANGED, "x", "/workspace/train.py", evidence={"found": OTHER}
    )
    one = rank(0)
    one.saw(seen, "mount:code", named=False)
    assert code(one) == {"/workspace/train.py": OTHER}


def test_variables_of_other_processes_count_with_their_program() -> None:
    python = Process(7, 1, NOW, "/usr/bin/python3.11", ("python3",), 0, "c")
    found = []
    for number in range(2):
        evidence = {"variable": "LD_PRELOAD", "value": f"/tmp/rank{number}/x.so"}
        one = rank(number)
        one.saw(
            Observation(FindingId.ENV_LOADER, "x", lineage=Lineage((python,)), evidence=evidence),
            "image",
            named=False,
        )
        found.append(dict(code(one)))
    assert found[0] == found[1] == {"LD_PRELOAD of python3.11": "/tmp/rank#/x.so"}


ELSEWHERE: dict[FindingId, Origin] = {
    FindingId.PROCESS_TRACED: "image",
    FindingId.MAP_WRITABLE: "image",
}


@pytest.mark.parametrize("finding", ELSEWHERE)
def test_findings_that_are_no_code_are_left_out(finding: FindingId) -> None:
    one = rank(0)
    one.saw(mapped("/usr/lib/x", finding), ELSEWHERE[finding], named=True)
    assert code(one) == {}


def test_a_flood_of_code_is_bounded() -> None:
    one = rank(0)
    for number in range(1000):
        letters = "".join(chr(97 + int(c)) for c in str(number))
        one.saw(mapped(f"/dev/shm/{letters}"), "mount:other", named=False)
    assert len(code(one)) == 512


# Variables ----------------------------------------------------------------------------------------


def environment(one: Gathering, **loaders: str) -> Mapping[str, str]:
    return one.profile({}, {n: (v,) for n, v in loaders.items()}).environment


def test_variables_that_tell_the_rank_are_alike() -> None:
    def of(number: int) -> Mapping[str, str]:
        own = f"/tmp/char-lm-worker-{number}-x7kq{number}/rank{number}"
        return environment(rank(number), PYTHONPYCACHEPREFIX=own, LD_LIBRARY_PATH="/opt/lib")

    assert of(0) == of(1)
    assert of(0) == {"PYTHONPYCACHEPREFIX": "/tmp/*/rank#", "LD_LIBRARY_PATH": "/opt/lib"}


def test_variables_as_sealed_and_switches_are_left_out() -> None:
    one = rank(0, {"PYTHONPATH": "/workspace"})
    loaders = {"PYTHONPATH": "/workspace", "PYTHONOPTIMIZE": "1", "OMPI_COMM_WORLD_RANK": "3"}
    assert environment(one, **loaders) == {}
    assert environment(one, PYTHONPATH="/opt:/workspace") == {"PYTHONPATH": "/opt:/workspace"}


def test_of_a_variable_that_is_known_at_run_time_only_the_name_counts() -> None:
    env = {"LD_LIBRARY_PATH": None}
    found = [environment(rank(n, env), LD_LIBRARY_PATH=f"/nodes/{'ab'[n]}") for n in range(2)]
    assert found[0] == found[1]
    assert set(found[0]) == {"LD_LIBRARY_PATH"}


# The report ---------------------------------------------------------------------------------------


def reported(files: Mapping[str, str] | None) -> ContainerProfile:
    return report_of("trainer", NOW, rank(0).profile(files, {}))


def test_equal_profiles_have_equal_digests_in_whatever_order_they_came() -> None:
    one = reported({"/a": DIGEST, "/b": OTHER})
    assert one.files == reported({"/b": OTHER, "/a": DIGEST}).files
    assert one.files != reported({"/a": OTHER, "/b": DIGEST}).files
    assert one.files is not None
    assert (one.files.count, one.code.count) == (2, 0)


def test_what_is_not_known_is_not_told_as_nothing() -> None:
    assert reported(None).files is None
    empty = reported({}).files
    assert empty is not None
    assert empty.count == 0


def test_of_many_things_the_last_are_listed_and_all_are_in_the_digest() -> None:
    many = {f"/m{n:03}": DIGEST for n in range(100)}
    one, other = reported(many).files, reported(many | {"/m000": OTHER}).files
    assert one is not None
    assert other is not None
    assert one.count == 100
    assert [e.name for e in one.entries or ()] == [f"/m{n:03}" for n in range(68, 100)]
    assert one.entries == other.entries
    assert one.digest != other.digest


def test_names_that_are_no_text_can_be_written() -> None:
    found = reported({"/bad\udcff": DIGEST, "/" + "x" * 5000: DIGEST})
    again = ContainerProfile.model_validate(found.wire())
    assert again == found
    assert "udcff" in found.model_dump_json()


def test_the_profiles_of_a_pod_have_room_in_its_report_whatever_is_in_its_containers() -> None:
    many = {f"/{n}{'x' * 5000}": "y" * 5000 for n in range(100)}
    made = [report_of(f"c{n}", NOW, rank(0).profile(many, {})) for n in range(100)]
    wire = wire_of(made)
    assert len(wire) == 64
    assert len(json.dumps(wire)) < 300 * 1024
    first, last = (ContainerProfile.model_validate(w) for w in (wire[0], wire[-1]))
    assert first == made[0]
    assert last.files is not None
    assert (last.files.entries, last.files.count) == (None, 100)
