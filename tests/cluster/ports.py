"""Ports to listen on, below those that the kernel gives to whoever connects.

Between a look and the listening a port can be taken. One that the kernel gives out can go to any
connection; these only to another of our processes, and each begins at another place.
"""

from __future__ import annotations

import itertools
import random
import socket

#: Above what a node's own programs listen on, below NodePorts and the kernel's own range.
_RANGE = range(11_000, 30_000)
_order = itertools.cycle([*_RANGE[(start := random.randrange(len(_RANGE))) :], *_RANGE[:start]])


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """TCP ports of that address that nobody listens on now; none is given twice in a process."""
    ports = itertools.islice(_order, len(_RANGE))
    return list(itertools.islice((p for p in ports if _free(host, p)), count))


def free_port(host: str = "127.0.0.1") -> int:
    """One of them."""
    return free_ports(1, host)[0]


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
