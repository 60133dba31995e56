"""NVML, the NVIDIA driver's own library: which processes use which GPU.

The library is the node's (``libnvidia-ml.so.1``), and has to be given to the agent's container;
``nvidia-ml-py`` calls it, and is imported only where the library is there. Its pids are those of
the node, whatever the namespace of who asks. Not tried on a GPU: see docs/reference/sweeps.md.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from trainseal.agent.gpus import Gpu, UnseenError

_LIBRARY = "libnvidia-ml.so.1"
#: PCI's classes of what shows and computes: VGA and 3D controllers.
_CLASSES = ("0x0300", "0x0302")
_NVIDIA = "0x10de"
_Handle = object


class _Running(Protocol):
    """One process, as the library has it."""

    pid: int


class _Nvml(Protocol):
    """The part of the module ``pynvml`` that is used."""

    NVMLError: type[Exception]
    NVMLError_NotFound: type[Exception]
    NVMLError_NotSupported: type[Exception]
    #: Where the driver is too old for a function.
    NVMLLibraryMismatchError: type[Exception]
    NVML_DEVICE_MIG_ENABLE: int

    def nvmlInit(self) -> None: ...  # noqa: N802 the library's names
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> _Handle: ...  # noqa: N802
    def nvmlDeviceGetName(self, device: _Handle) -> str: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, device: _Handle) -> str: ...  # noqa: N802
    def nvmlDeviceGetMigMode(self, device: _Handle) -> Sequence[int]: ...  # noqa: N802
    def nvmlDeviceGetMaxMigDeviceCount(self, device: _Handle) -> int: ...  # noqa: N802
    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802
        self, device: _Handle, index: int
    ) -> _Handle: ...
    def nvmlDeviceGetComputeRunningProcesses(  # noqa: N802
        self, device: _Handle
    ) -> Sequence[_Running]: ...
    def nvmlDeviceGetGraphicsRunningProcesses(  # noqa: N802
        self, device: _Handle
    ) -> Sequence[_Running]: ...


def has_nvidia_gpus(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether the node has a GPU of NVIDIA's, with a driver or without."""
    with suppress(OSError):
        for device in devices.iterdir():
            with suppress(OSError):
                vendor = (device / "vendor").read_text().strip()
                if vendor == _NVIDIA and (device / "class").read_text().startswith(_CLASSES):
                    return True
    return False


class Nvml:
    """A session with the driver; see ``gpus.Reader``. While it is open the driver is in use."""

    def __init__(self) -> None:
        """Raises UnseenError where there is no library, or no driver that answers it."""
        try:
            ctypes.CDLL(_LIBRARY)
        except OSError:
            raise UnseenError(f"the driver's library {_LIBRARY} is not here") from None
        self._nvml = cast("_Nvml", import_module("pynvml"))
        self._open = False
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise UnseenError(f"the driver does not answer: {error}") from None
        self._open = True

    def read(self) -> tuple[Gpu, ...]:
        """As Reader has it."""
        try:
            return tuple(self._gpus())
        except (self._nvml.NVMLError, self._nvml.NVMLLibraryMismatchError) as error:
            raise UnseenError(f"the driver does not tell: {error}") from None

    def close(self) -> None:
        """As Reader has it."""
        if self._open:
            self._open = False
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def _gpus(self) -> Iterator[Gpu]:
        nvml = self._nvml
        for number in range(nvml.nvmlDeviceGetCount()):
            card = nvml.nvmlDeviceGetHandleByIndex(number)
            name = nvml.nvmlDeviceGetName(card)
            if not self._partitioned(card):
                yield self._gpu(card, name)
                continue
            for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(card)):
                with suppress(nvml.NVMLError_NotFound):  # places may be empty
                    yield self._gpu(nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, place), name)

    def _partitioned(self, card: _Handle) -> bool:
        try:
            current, *_ = self._nvml.nvmlDeviceGetMigMode(card)
        except self._nvml.NVMLError_NotSupported:
            return False
        return current == self._nvml.NVML_DEVICE_MIG_ENABLE

    def _gpu(self, device: _Handle, name: str) -> Gpu:
        nvml = self._nvml
        running = [*nvml.nvmlDeviceGetComputeRunningProcesses(device)]
        with suppress(nvml.NVMLError_NotSupported):  # partitions do no graphics
            running += nvml.nvmlDeviceGetGraphicsRunningProcesses(device)
        uuid = nvml.nvmlDeviceGetUUID(device)
        return Gpu(uuid, name, frozenset(process.pid for process in running))
