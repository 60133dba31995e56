"""Whether a file is a safetensors file: numbers and names, nothing that loading could run.

Eight bytes say how long the header is; the header is JSON of one form (a name, a type, a shape and
where in the rest its bytes lie); the tensors lie one behind another and fill the rest exactly
(https://github.com/huggingface/safetensors, *Format*). The header is read entry by entry, so that
none can be nested or long.
"""

from __future__ import annotations

import json
import re
from array import array
from math import prod

from trainseal.provenance.bytesources import Meter, Source, Steps, TooMuchError

#: Bytes of a header; the format's own bound is 100 MB.
MAX_HEADER = 8 * 1024 * 1024
_ENTRY_COST = 8192
_PAUSE = 256
#: Bits of an element; of a type that is not here, the size is not compared.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6,
    "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_STRING = rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"'
_S = rb"[ \t\r\n]*+"
_NUMBER = rb"(?:0|[1-9][0-9]{0,18})"
_LIST = rb"\[%s(?:%s(?:%s,%s%s){0,31})?%s\]" % (_S, _NUMBER, _S, _S, _NUMBER, _S)
_FIELD = rb'"(?:dtype"%s:%s"[A-Z0-9_]{1,16}"|(?:shape|data_offsets)"%s:%s%s)' % (
    *(_S, _S, _S, _S),
    _LIST,
)
_KEY = re.compile(rb"%s(%s)%s:%s" % (_S, _STRING, _S, _S))
_TENSOR = re.compile(rb"\{%s%s(?:%s,%s%s){2}%s\}" % (_S, _FIELD, _S, _S, _FIELD, _S))
_METADATA = re.compile(
    rb"\{%s(?:%s%s:%s%s(?:%s,%s%s%s:%s%s)*+)?%s\}"
    % (_S, _STRING, _S, _S, _STRING, _S, _S, _STRING, _S, _S, _STRING, _S)
)
_NEXT = re.compile(rb"%s([,}])" % _S)
_EMPTY = re.compile(rb"\{%s\}[ ]*+" % _S)


class HeaderError(ValueError):
    """It is no safetensors file."""


def check(source: Source, meter: Meter) -> Steps[int]:
    """The number of tensors. Raises HeaderError, TooMuchError, OSError."""
    length = int.from_bytes(source.read(0, 8), "little")
    if source.size < 10 or not 2 <= length <= source.size - 8:
        raise HeaderError("its header would be longer than it is")
    if source.read(8, 1) != b"{":
        raise HeaderError("its header is not JSON")
    if length > MAX_HEADER:
        raise TooMuchError(f"its header would be {length} bytes long, expected {MAX_HEADER}")
    header = source.read(8, length)
    try:
        header.decode()
    except UnicodeDecodeError:
        raise HeaderError("its header is not UTF-8") from None
    begins, ends = array("Q"), array("Q")
    at, empty = 1, _EMPTY.fullmatch(header) is not None
    while not empty:
        meter.spend(_ENTRY_COST)
        at = _entry(header, at, begins, ends)
        following = _NEXT.match(header, at)
        if following is None:
            raise HeaderError("its header breaks off")
        at = following.end()
        if following[1] == b"}":
            break
        if len(begins) % _PAUSE == 0:
            yield
    if not empty and header[at:].strip(b" "):
        raise HeaderError("its header goes on behind its end")
    reached = 0
    for begin, end in sorted(zip(begins, ends, strict=True)):
        if begin != reached:
            raise HeaderError("its tensors overlap, or leave a gap")
        reached = end
    if reached != source.size - 8 - length:
        raise HeaderError("its tensors do not fill it")
    return len(begins)


def _entry(header: bytes, at: int, begins: array[int], ends: array[int]) -> int:
    """Reads one entry; where it ends."""
    key = _KEY.match(header, at)
    if key is None:
        raise HeaderError("its header is not of the form")
    if key[1] == b'"__metadata__"':
        found = _METADATA.match(header, key.end())
        if found is None:
            raise HeaderError("its metadata are not texts")
        return found.end()
    found = _TENSOR.match(header, key.end())
    if found is None:
        raise HeaderError("a tensor is not of the form")
    tensor = json.loads(found[0])
    offsets, shape, kind = (tensor.get(k) for k in ("data_offsets", "shape", "dtype"))
    if offsets is None or shape is None or kind is None or len(offsets) != 2:
        raise HeaderError("a tensor is not of the form")
    begin, end = offsets
    bits = _BITS.get(kind)
    if end < begin or end >= 2**63 or (bits and prod(shape) * bits != 8 * (end - begin)):
        raise HeaderError("a tensor's size is not that of its shape")
    begins.append(begin)
    ends.append(end)
    return found.end()
