"""What runs in the sealed pods of the bench of the watch: it idles, acts or trains as it is told.

The file is pushed and signed as the job's code; only the standard library and PyTorch are there.
Orders come as JSON, a line each, over a socket in the checkpoint mount, where nothing is judged,
so that no exec and no other helper takes part in what is measured. The first 24 bytes of a file
beside it, mapped, tell what has to be known of a process that was stopped: when it acted, when it
last counted, and whether it may stop counting. Times are nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path("/checkpoints")
SOCKET, SLATE = "orders", "slate"
#: The slate's numbers: time of the act, of the last count, and the word to end the counting.
ACTED, COUNTED, ENOUGH = 0, 8, 16
_NUMBER = struct.Struct("<q")
_COUNT_SECONDS = 20.0
#: Of mallopt(3): what was freed is kept, and nothing is mapped for it anew.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _GIB = -1, -3, 1 << 30
_PAGE = b"x" * 4096


def main() -> None:
    """Obeys until it is ended."""
    # As the allocator of a GPU does. Else a step waits for the kernel to clear pages, and takes
    # now once and now twice as long.
    libc = ctypes.CDLL(None)
    libc.mallopt(_TRIM_THRESHOLD, _GIB)
    libc.mallopt(_MMAP_THRESHOLD, _GIB)
    _torch().set_num_threads(1)
    slate = _slate()
    orders = socket.socket(socket.AF_UNIX)
    orders.bind(str(FOLDER / SOCKET))
    orders.listen()
    connection, _ = orders.accept()
    with connection.makefile("rw") as lines:
        for line in lines:
            order: dict[str, Any] = json.loads(line)
            found = _ORDERS[order.pop("do")](slate, **order)
            lines.write(json.dumps(found) + "\n")
            lines.flush()


def _torch() -> Any:
    """In the pod only: the file's names are used on the node as well."""
    return import_module("torch")


def _slate() -> mmap.mmap:
    (FOLDER / SLATE).write_bytes(bytes(mmap.PAGESIZE))
    with (FOLDER / SLATE).open("r+b") as file:
        return mmap.mmap(file.fileno(), mmap.PAGESIZE)


def _set(slate: mmap.mmap, place: int, value: int) -> None:
    _NUMBER.pack_into(slate, place, value)


def _installed(_slate: mmap.mmap) -> list[str]:
    """Files of the installed PyTorch that acts are tried on."""
    folder = Path(_torch().__file__).parent
    return sorted(str(p) for p in folder.rglob("*.py") if 0 < p.stat().st_size < 65536)


def _append(slate: mmap.mmap, path: str, count: bool = False) -> int:
    """Writes into an installed file; the time is that before it is opened.

    With ``count`` it then counts on, until it may stop: that is what a freeze has to end.
    """
    _set(slate, ENOUGH, 0)
    at = time.monotonic_ns()
    _set(slate, COUNTED, at)
    _set(slate, ACTED, at)
    with open(path, "ab") as file:  # noqa: PTH123 - nothing between the time and the act
        file.write(b"\n# lr = 0\n")
    end = time.monotonic() + _COUNT_SECONDS
    while count and time.monotonic() < end and not _NUMBER.unpack_from(slate, ENOUGH)[0]:
        _set(slate, COUNTED, time.monotonic_ns())
        time.sleep(0.0002)
    return at


def _train(
    _slate: mmap.mmap, seconds: float, every: int = 50, pause: float = 0.0
) -> list[tuple[int, int]]:
    """Start and length of each step, with its log line.

    After so many steps there is a checkpoint, but none within ``pause`` seconds of the last.
    """
    torch = _torch()
    torch.manual_seed(1906)
    model = torch.nn.Sequential(
        torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256)
    )
    optimizer = torch.optim.Adam(model.parameters())
    data = torch.randn(64, 256)
    steps: list[tuple[int, int]] = []
    due, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic_ns()
        loss = torch.nn.functional.mse_loss(model(data), data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {len(steps) + 1} loss {float(loss):.4f}", flush=True)
        if len(steps) % every == 0 and time.monotonic() >= due:
            due = time.monotonic() + pause
            torch.save(model.state_dict(), FOLDER / "step.tmp")
            (FOLDER / "step.tmp").rename(FOLDER / f"step-{len(steps) % 4}.pt")
        steps.append((began, time.monotonic_ns() - began))
    return steps


def _flood(
    _slate: mmap.mmap, folder: str, files: int, writes: int, seconds: float, bad: str
) -> dict[str, float]:
    """Writes at an even pace into files of a folder, and once somewhere in the middle elsewhere."""
    Path(folder).mkdir(parents=True)
    when = random.randrange(writes // 4, writes // 2)
    at, began = 0, time.monotonic()
    for number in range(writes):
        if number == when:
            at = _append(_slate, bad)
        with open(f"{folder}/{number % files}", "wb") as file:  # noqa: PTH123 - quick
            file.write(_PAGE)
        ahead = began + number * seconds / writes - time.monotonic()
        if ahead > 0.002:
            time.sleep(ahead)
    return {"at": at, "seconds": time.monotonic() - began}


def _writes(_slate: mmap.mmap, rounds: int, count: int) -> dict[str, float]:
    """Microseconds to open, write 4 KiB and close, the least of all rounds, by mount."""
    found = {}
    for folder in (str(FOLDER), "/tmp"):
        least = float("inf")
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(count):
                with open(f"{folder}/written", "wb") as file:  # noqa: PTH123 - quick
                    file.write(_PAGE)
            least = min(least, time.perf_counter() - began)
        found[folder] = least / count * 1e6
    os.unlink(f"{FOLDER}/written")  # noqa: PTH108
    return found


_ORDERS: Mapping[str, Callable[..., object]] = {
    "installed": _installed,
    "append": _append,
    "train": _train,
    "flood": _flood,
    "writes": _writes,
}

if __name__ == "__main__":
    main()
