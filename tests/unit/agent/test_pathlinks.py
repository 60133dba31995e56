"""A path is followed as the kernel does it for the process that uses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.pathlinks import followed, of_a_process

LINKS = {
    "/bin": "usr/bin",
    "/opt/link": "/tmp/a/b",
    "/opt/l.py": "/proc/self/root/tmp/evil.py",
    "/opt/up.py": "../tmp/evil.py",
    "/opt/loop": "loop",
    "/dev/fd": "/proc/self/fd",
    # What the process that asks would be led to.
    "/proc/self": "7",
    "/proc/7/root": "/agent",
}
KERNELS = {
    (None, "root"): "/",
    (None, "cwd"): "/home",
    (None, "fd/3"): "/tmp",
    (None, "fd/4"): "pipe:[7]",
    (50, "root"): "/jail",
    (50, "cwd"): "/tmp/d",
}


def leads(path: str) -> str:
    return followed(path, LINKS.get, lambda process, name: KERNELS.get((process, name)))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/usr//lib/./a.py", "/usr/lib/a.py"),
        ("/bin/sh", "/usr/bin/sh"),
        ("/../bin/../lib", "/usr/lib"),
        ("/opt/link/../evil.py", "/tmp/a/evil.py"),
        ("/opt/up.py", "/tmp/evil.py"),
        ("/proc/self/root/tmp/evil.py", "/tmp/evil.py"),
        ("/proc/thread-self/root/tmp/evil.py", "/tmp/evil.py"),
        ("/proc/self/task/9/cwd/evil.py", "/home/evil.py"),
        ("/proc/self/cwd/../tmp/evil.py", "/tmp/evil.py"),
        ("/proc/self/root/proc/self/root/bin/sh", "/usr/bin/sh"),
        ("/proc/50/root/evil.py", "/jail/evil.py"),
        ("/proc/50/cwd/evil.py", "/tmp/d/evil.py"),
        ("/opt/l.py", "/tmp/evil.py"),
        ("/dev/fd/3/evil.py", "/tmp/evil.py"),
        ("/dev/fd/3/../evil.py", "/evil.py"),
        ("/dev/fd/3", "/proc/self/fd/3"),
        ("/proc/self/fd/4/evil.py", "/proc/self/fd/4/evil.py"),
        ("/proc/51/cwd/evil.py", "/proc/51/cwd/evil.py"),
        ("/proc/self/status", "/proc/self/status"),
        ("/opt/loop/x", "/opt/loop/x"),
    ],
)
def test_a_path_leads_where_the_process_is_led(path: str, place: str) -> None:
    assert leads(path) == place


def test_what_a_process_that_is_gone_led_to_is_known_as_such() -> None:
    for path in ("/proc/51/cwd/evil.py", "/proc/self/fd/4/x", "/proc/51/task/52/root/x"):
        assert of_a_process(path)
    for path in ("/proc/self/fd/4", "/proc/51/cwd", "/proc/self/status", "/tmp/proc/5/cwd/x"):
        assert not of_a_process(path)


@given(st.lists(st.sampled_from(["..", ".", "", "opt", "loop", "link", "proc", "self", "root"])))
def test_every_path_leads_somewhere(parts: list[str]) -> None:
    place = leads("/" + "/".join(parts))
    assert place.startswith("/")
    assert not {"..", "."} & set(place.split("/"))
