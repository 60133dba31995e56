"""Checkpoints as safetensors files: numbers and names, nothing that loading could run.

Layout: 8 bytes little-endian length of a JSON header, the header, then the tensors' bytes.
A file appears under its name whole or not at all.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

_NAME = re.compile(r"step-(\d{6})\.safetensors")
_TYPES = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
_MAX_HEADER = 1 << 20


def save(directory: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Write model and optimizer after `step`; the path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{step:06d}.safetensors"
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": value for name, value in state.items()})
    unfinished = directory / f".{path.name}.part"
    with unfinished.open("wb") as file:
        file.write(_pack(tensors))
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    return path


def restore(directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest checkpoint into both; its step, or 0 where there is none."""
    found = sorted(path for path in directory.glob("step-*") if _NAME.fullmatch(path.name))
    if not found:
        return 0
    tensors = _unpack(found[-1].read_bytes())
    model.load_state_dict(
        {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
    )
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(_NAME.fullmatch(found[-1].name)[1])


def _pack(tensors: dict[str, torch.Tensor]) -> bytes:
    header, body = {}, b""
    for name, tensor in sorted(tensors.items()):
        array = np.ascontiguousarray(tensor.detach().numpy())
        kind = next(kind for kind, dtype in _TYPES.items() if dtype == array.dtype)
        header[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + array.nbytes],
        }
        body += array.tobytes()
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + body


def _unpack(raw: bytes) -> dict[str, torch.Tensor]:
    length = int.from_bytes(raw[:8], "little")
    if length > min(_MAX_HEADER, len(raw) - 8):
        raise ValueError(f"not a safetensors file: its header would be {length} bytes long")
    body = memoryview(raw)[8 + length :]
    tensors = {}
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        array = np.frombuffer(body[start:end], _TYPES[entry["dtype"]])
        tensors[name] = torch.from_numpy(array.copy().reshape(entry["shape"]))
    return tensors
