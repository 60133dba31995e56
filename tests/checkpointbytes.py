"""Files of checkpoints, written as their libraries write them: none of these is needed here."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

#: What `torch.save` makes of a tensor of four floats, protocol 2.
TENSOR = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00((X\x07\x00\x00\x00storageq\x01"
    b"ctorch\nFloatStorage\nq\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x04tq\x05Q"
    b"K\x00K\x04\x85q\x06K\x01\x85q\x07\x89ccollections\nOrderedDict\nq\x08)Rq\ttq\nRq\x0b."
)
#: Runs a command where it is loaded.
EVIL = b"cposix\nsystem\n(S'true'\ntR."


def text(value: str) -> bytes:
    """A short text, as pickles of protocol 4 have it."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def looked_up(module: str, name: str) -> bytes:
    """Something imported."""
    return text(module) + text(name) + b"\x93"


def index(*more: bytes) -> bytes:
    """The `.metadata` of a distributed checkpoint: a record with what is pushed, protocol 4."""
    checkpoint = "torch.distributed.checkpoint"
    stored = (
        looked_up(f"{checkpoint}.filesystem", "_StorageInfo")
        + b")\x81}("
        + text("relative_path")
        + text("__0_0.distcp")
        + text("offset")
        + b"K\x00"
        + text("length")
        + b"M\x00\x04ub"
    )
    record = looked_up(f"{checkpoint}.metadata", "Metadata") + b")\x81}("
    pushed = b"".join(text(f"more-{n}") + value for n, value in enumerate(more))
    return b"\x80\x04" + record + text("storage_data") + stored + pushed + b"ub."


def archive(members: Mapping[str, bytes], *, prefix: str = "archive", at: int = 0) -> bytes:
    """As `torch.save` writes it: stored members, 64-bit end records. ``at`` pads the first."""
    body, directory = b"", b""
    for name, content in members.items():
        full = f"{prefix}/{name}".encode()
        extra = struct.pack("<2H", 0x4246, at) + b"Z" * at
        sizes = struct.pack("<3I", zlib.crc32(content), len(content), len(content))
        begin = len(body)
        body += b"PK\x03\x04" + struct.pack("<5H", 0, 0x800, 0, 0, 0) + sizes
        body += struct.pack("<2H", len(full), len(extra)) + full + extra + content
        directory += b"PK\x01\x02" + struct.pack("<6H", 0, 0, 0x800, 0, 0, 0) + sizes
        directory += struct.pack("<5H2I", len(full), 0, 0, 0, 0, 0, begin) + full
    count, size, offset = len(members), len(directory), len(body)
    wide = struct.pack("<IQ2H2I4Q", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<2IQI", 0x07064B50, 0, offset + size, 1)
    end = struct.pack("<I4H2IH", 0x06054B50, 0, 0, count, count, size, offset, 0)
    return body + directory + wide + locator + end


def saved(pickle: bytes = TENSOR, **more: bytes) -> bytes:
    """One `torch.save`."""
    beside = {"byteorder": b"little", "data/0": bytes(16), "version": b"3\n"}
    return archive({"data.pkl": pickle, **beside, **more}, at=30)


def tensors(values: Mapping[str, int] | None = None, *, rest: bytes = b"") -> bytes:
    """A safetensors file with so many floats under each name; ``rest`` is the last one's end."""
    at, header = 0, {"__metadata__": {"format": "pt {}"}} if values is None else {}
    found: dict[str, object] = dict(header)
    for name, count in (values or {"model.weight": 4, "model.bias": 0}).items():
        found[name] = {"dtype": "F32", "shape": [count], "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    raw = json.dumps(found).encode()
    raw += b" " * (-len(raw) % 8)
    body = bytes(at)
    return len(raw).to_bytes(8, "little") + raw + body[: at - len(rest)] + rest
