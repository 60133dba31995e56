"""What a file is by its bytes: each attack beside what it pretends to be."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import zipfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkpointbytes import EVIL, TENSOR, archive, index, looked_up, saved, tensors, text
from trainseal.provenance.bytesources import MemorySource, Meter, Source
from trainseal.provenance.checkpointformats import format_of
from trainseal.provenance.fileforms import MOST, Form, Judged, judge
from trainseal.provenance.pickleimports import OPCODE_COST, program

SYSTEM = "posix.system"


def judged(content: bytes | Source) -> Judged:
    source = MemorySource(content) if isinstance(content, bytes) else content
    meter = Meter(MOST)
    steps = judge(source, meter)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert meter.spent <= MOST + OPCODE_COST + 64 * 1024 * 1024
            found: Judged = end.value
            return found


def imports(content: bytes) -> list[str]:
    return [str(found) for found in judged(content).imports]


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


class Evil:
    """Runs a command where it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("true",)


# What honest trainers write --------------------------------------------------------------------

HONEST: dict[str, tuple[bytes, Form]] = {
    "safetensors": (tensors(), "safetensors"),
    "safetensors without tensors": (b"\x02\0\0\0\0\0\0\0{}", "safetensors"),
    "one value of a shard": (saved(), "shard"),
    "a shard of many values": (saved() + saved() + saved(), "shard"),
    "the index of a distributed checkpoint": (index(), "metadata"),
    "a marker": (b"", "text"),
    "JSON": (b'{"step": 20, "loss": 1.25}\n', "text"),
    "words": ("Schrittgröße: 3\n".encode(), "text"),
    "what torch saved before 1.6": (TENSOR + bytes(64), "pickle"),
    "a plain pickle": (pickle.dumps({"step": 20}), "pickle"),
    "numbers": (bytes(range(256)), "unknown"),
    "numpy's archive": (zipped({"a.npy": b"\x93NUMPY"}), "unknown"),
}


@pytest.mark.parametrize(("content", "form"), HONEST.values(), ids=HONEST)
def test_what_honest_trainers_write_is_what_it_is(content: bytes, form: Form) -> None:
    assert judged(content).form == form


@pytest.mark.parametrize("protocol", range(6))
def test_what_a_pickle_would_import_is_listed_whatever_its_protocol(protocol: int) -> None:
    assert imports(pickle.dumps([{"a": 1}, Evil(), "b"], protocol)) == [SYSTEM]


@pytest.mark.parametrize(
    ("path", "content", "format_"),
    [
        ("step-1/.metadata", index(), "dcp"),
        ("step-1/__0_0.distcp", saved(), "dcp"),
        ("step-1/model.pt", saved(), "pickle"),
        ("step-1/index", index(), "pickle"),
        ("step-1/__0_0.distcp", saved(EVIL), "pickle"),
        ("step-1/.metadata", index(looked_up("os", "system")), "pickle"),
        ("step-1/model.safetensors", EVIL, "pickle"),
        ("step-1/model.pt", tensors(), "safetensors"),
    ],
)
def test_bytes_say_the_format_and_a_name_only_takes_from_it(
    path: str, content: bytes, format_: str
) -> None:
    assert format_of(judged(content).form, path) == format_


# Attacks -----------------------------------------------------------------------------------------

COMPUTED = b"\x80\x04" + text("os") + b"cbuiltins\nstr\n" + text("system") + b"\x85R\x93."
HIDDEN: dict[str, bytes] = {
    "behind a pickle that is harmless": pickle.dumps(1) + EVIL,
    "in the second of two values of a shard": saved() + saved(EVIL) + saved(),
    "in a packed member": zipped({"archive/data.pkl": EVIL}),
    "under a name in capitals": archive({"data.pkl": TENSOR, "DATA.PKL": EVIL}),
    "in an archive behind something else": b"GIF89a" + saved(EVIL),
    "by names with escapes": b"Vp\\u006fsix\nS'sys\\x74em'\n\x93(S'true'\ntR.",
    "by names from the memo": b"(V\n" + b"0Vposix\np7\n0Vsystem\np300\n0g7\ng300\n\x93.",
    "by an instance": b"(S'true'\niposix\nsystem\n.",
    "in a pickle that breaks off": pickle.dumps(Evil())[:-3],
    "without saying that it is a pickle": EVIL,
    "behind a mark that is taken off": b"((0" + EVIL,
}


@pytest.mark.parametrize("content", HIDDEN.values(), ids=HIDDEN)
def test_an_import_is_found(content: bytes) -> None:
    found = judged(content)
    assert found.form == "pickle"
    assert SYSTEM in [str(i) for i in found.imports]


def test_a_pickle_in_a_pickle_needs_somebody_who_loads_it_and_that_is_listed() -> None:
    inner = b"\x80\x04cpickle\nloads\n" + b"C" + bytes([len(EVIL)]) + EVIL + b"\x85R."
    assert imports(inner) == ["pickle.loads"]


def test_what_is_tame_comes_last_in_the_list() -> None:
    assert imports(index(looked_up("os", "system")))[0] == "os.system"


DOUBTFUL: dict[str, tuple[bytes, str]] = {
    "a name that is computed": (COMPUTED, "computes"),
    "an extension": (b"\x80\x02\x82\x07.", "extension 7"),
    "a class that it changes": (
        b"\x80\x02ctorch\nSize\n}(" + b"K\x01K\x02ub.",
        "changes what it imports",
    ),
    "a class that it changes, from the memo": (
        b"\x80\x02ctorch\nSize\nq\x000h\x00}b.",
        "changes what it imports",
    ),
    "marks without an end": (b"\x80\x02" + b"(" * 2_000_000, "nested too deeply"),
    "more opcodes than are looked at": (b"\x80\x02" + b"N0" * 1_000_000, "too long"),
    "a memo without an end": (
        b"\x80\x02" + b"".join(b"Va\nr" + struct.pack("<I", n) for n in range(1, 110_000)),
        "remembers too much",
    ),
    "a zip bomb": (
        zipped({"archive/data.pkl": b"N0" * 50_000_000}),
        "packed pickle that is too long",
    ),
    "a gap between two archives": (saved() + b"gap" + saved(), "does not end as an archive does"),
    "something that packs": (zipped({"archive/data.pkl": EVIL}, zipfile.ZIP_LZMA), "packed in"),
}


@pytest.mark.parametrize(("content", "doubt"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_cannot_be_told_is_a_doubt_and_never_clean(content: bytes, doubt: str) -> None:
    found = judged(content)
    assert found.form in ("pickle", "unknown")
    assert doubt in "; ".join(found.doubts)


NOT_PYTORCHS: dict[str, bytes] = {
    "a program beside the pickle": saved(**{"code/__torch__.py": b"def f(): pass"}),
    "constants, as TorchScript has them": saved(**{"constants.pkl": TENSOR}),
    "two pickles": saved(**{"Data.pkl": TENSOR}),
    "a packed pickle": zipped({"archive/data.pkl": TENSOR}),
    "something behind the pickle": saved(TENSOR + b"more"),
    "no pickle's end": saved(TENSOR[:-1]),
    "an import that no checkpoint needs": saved(TENSOR[:-1] + looked_up("os", "getcwd") + b"."),
    "a loader of pickles": saved(TENSOR[:-1] + looked_up("torch.storage", "_load_from_bytes")),
    "another archive's prefix": archive({"data.pkl": TENSOR, "../other/data/0": b""}),
}


@pytest.mark.parametrize("content", NOT_PYTORCHS.values(), ids=NOT_PYTORCHS)
def test_what_pytorch_does_not_write_is_no_part_of_a_distributed_checkpoint(content: bytes) -> None:
    assert judged(content).form == "pickle"


def _header(text_: bytes, rest: bytes = b"") -> bytes:
    return len(text_).to_bytes(8, "little") + text_ + rest


def _entry(**fields: Any) -> bytes:
    return json.dumps(
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | fields}
    ).encode()


NO_TENSORS: dict[str, bytes] = {
    "a length of 2^63": (2**63).to_bytes(8, "little") + b"{}" + bytes(64),
    "a length beyond the file": (1000).to_bytes(8, "little") + b"{}" + bytes(64),
    "more bytes than tensors": tensors() + b"\xff",
    "fewer bytes than tensors": tensors()[:-1],
    "tensors that overlap": _header(
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
        b'"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}',
        bytes([255] * 6),
    ),
    "a gap": _header(_entry(data_offsets=[4, 8]), bytes(8)),
    "a shape of another size": _header(_entry(shape=[2]), bytes(4)),
    "an end before its begin": _header(_entry(data_offsets=[4, 0]), bytes(4)),
    "huge numbers": _header(_entry(data_offsets=[0, 2**70]), bytes(4)),
    "another field": _header(_entry(more=1), bytes(4)),
    "metadata that are no texts": _header(b'{"__metadata__":{"a":{"b":1}}}', b"\0"),
    "nested deeply": _header(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"\0"),
    "no UTF-8": _header(b'{"\xff":1}', b"\0"),
    "text behind the header": _header(_entry() + b"{}", bytes(4)),
}


@pytest.mark.parametrize("content", NO_TENSORS.values(), ids=NO_TENSORS)
def test_what_is_not_wholly_of_the_form_is_no_safetensors_file(content: bytes) -> None:
    assert judged(content).form in ("unknown", "pickle")


def test_a_safetensors_file_that_ends_as_an_archive_is_what_the_archive_is() -> None:
    whole = saved(EVIL)
    found = judged(tensors({"w": 1024}, rest=whole))
    assert (found.form, found.doubts != ()) == ("pickle", True)
    assert judged(tensors({"w": 1024}, rest=b"P" + whole[1:-4])).form == "safetensors"


class Vast:
    """A file of half a gigabyte that is nowhere: zeros, but for a few places."""

    def __init__(self, size: int, places: dict[int, bytes]) -> None:
        self.size = size
        self._places = places

    def read(self, at: int, length: int) -> bytes:
        found = bytearray(max(0, min(length, self.size - at)))
        for place, content in self._places.items():
            for offset, byte in enumerate(content):
                if 0 <= place + offset - at < len(found):
                    found[place + offset - at] = byte
        return bytes(found)


def vast(evil: bytes) -> Vast:
    """A safetensors file in whose header a reader of pickles jumps far into the tensors."""
    jump = 0x20202020  # four blanks
    length = 0x1455  # as a pickle: a text of 0x14 bytes, up to the header's 15th byte
    size = jump + 4096
    entry = f'{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}'
    header = f'{{"a{"-" * 11}T    ":{entry}}}'.ljust(length).encode()
    assert header[14:19] == b"T    "
    return Vast(8 + length + size, {0: length.to_bytes(8, "little") + header, 8 + 19 + jump: evil})


def test_a_safetensors_file_that_is_a_pickle_too_is_a_pickle() -> None:
    found = judged(vast(b"0" + EVIL))
    assert (found.form, [str(i) for i in found.imports]) == ("pickle", [SYSTEM])
    assert judged(vast(b"")).form == "safetensors"


# What no bytes can do ----------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from([b"", b"\x80\x04", b"PK\x03\x04", saved(), tensors(), index(), EVIL]),
    st.binary(max_size=400),
    st.sampled_from([b"", saved()[-200:], b"PK\x05\x06" + bytes(18), b"."]),
)
def test_whatever_the_bytes_are_there_is_an_answer(head: bytes, middle: bytes, end: bytes) -> None:
    judged(head + middle + end)


@settings(deadline=None)
@given(st.sampled_from([saved() + saved(), tensors(), index()]), st.data())
def test_a_byte_that_is_another_is_never_an_error(content: bytes, data: st.DataObject) -> None:
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    judged(bytes(changed))


class Inert:
    """Stands for whatever is imported, and takes whatever is done with it."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def append(self, _: object) -> None: ...

    extend = add = append

    def __setitem__(self, _: object, __: object) -> None: ...

    def __hash__(self) -> int:
        return 1


class Recording(pickle.Unpickler):
    """The real loader, which imports nothing: it notes what it would."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), fix_imports=False)
        self.found: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> type[Inert]:
        if not all(part.isidentifier() for part in module.split(".")):
            raise ImportError(module)
        self.found.add((module, name))
        return Inert

    def persistent_load(self, pid: object) -> object:
        return pid


NAMES = st.sampled_from(["os", "a.b", "system", "", "torch"])
FRAGMENTS = st.one_of(
    st.builds(text, NAMES),
    st.builds(lambda m, n: f"c{m}\n{n}\n".encode(), NAMES, NAMES),
    st.builds(lambda m, n: f"i{m}\n{n}\n".encode(), NAMES, NAMES),
    st.builds(lambda n: f"V{n}\n".encode(), NAMES),
    st.builds(lambda n: f"S'{n}'\n".encode(), NAMES),
    st.builds(lambda n: f"p{n}\n".encode(), st.integers(0, 5)),
    st.builds(lambda n: f"g{n}\n".encode(), st.integers(0, 5)),
    st.builds(lambda n: b"q" + bytes([n]), st.integers(0, 5)),
    st.builds(lambda n: b"h" + bytes([n]), st.integers(0, 5)),
    st.sampled_from([bytes([n]) for n in b"()]}0122NRbtaueldsQo1(02\x81\x85\x86\x87\x88"]),
    st.sampled_from([b"\x90", b"\x91", b"\x92", b"\x93", b"\x93", b"\x94", b"\x94"]),
    st.sampled_from([b"I1\n", b"I010\n", b"L5L\n", b"F1.5\n", b"K\x01", b"Pp\n", b"\x80\x04"]),
    st.sampled_from([b"C\x01x", b"U\x02os", b"B\x01\0\0\0x"]),
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(FRAGMENTS, max_size=30).map(b"".join))
def test_nothing_that_the_real_loader_would_import_is_missed(content: bytes) -> None:
    loader = Recording(content + b".")
    with contextlib.suppress(Exception):  # it may end as it likes: what counts is what it saw
        loader.load()
    steps = program(MemorySource(content + b"."), Meter(MOST), 0, len(content) + 1)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found = end.value
            break
    seen = {(i.module, i.name) for i in found.imports}
    assert loader.found <= seen or "a name that it computes while it is loaded" in found.doubts
