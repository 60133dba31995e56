"""Ports to listen on: nobody's, not the kernel's to give away, never the same twice."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.cluster import ports
from tests.cluster.ports import free_port, free_ports


def test_no_port_is_given_twice() -> None:
    given = [*free_ports(20), *(free_port() for _ in range(20))]
    assert len(set(given)) == 40


def test_a_connection_that_goes_out_cannot_take_one() -> None:
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < least for port in free_ports(20))


def test_one_that_somebody_listens_on_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first, second = taken.getsockname()[1], free_port()
        monkeypatch.setattr(ports, "_order", iter([first, second]))
        assert free_port() == second
