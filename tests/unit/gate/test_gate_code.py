"""The gate on code: what is as signed comes through, everything else is refused by name."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zlib
from pathlib import Path

import pytest

from tests.unit.gate.world import KEY, REPOSITORY, TAR, TAR_GZIP, World, digest, plain, special, tar
from trainseal.gate import unpack
from trainseal.gate.main import MAX_LINE_BYTES
from trainseal.provenance.bundles import encode_bundle, make_bundle_dsse
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE


def refused(world: World, *words: str) -> str:
    """The gate refuses, says these words in one line, and leaves the volume empty."""
    code, message = world.run()
    assert code == 1, message
    assert message.startswith("trainseal gate: refuted: code trainer: ")
    assert "\n" not in message
    assert "; expected " in message
    for word in words:
        assert word in message
    assert list(world.code.iterdir()) == []
    return message


def test_a_tree_as_signed_comes_through(world: World) -> None:
    code, message = world.run()
    assert (code, message) == (
        0,
        "trainseal gate: as signed: 1 code trees (4 files, 0.0 MB), 2 config files in 0.0 s",
    )
    assert world.placed() == world.signed
    assert [path.name for path in world.code.iterdir() if path.name.startswith(".")] == []


def test_files_are_read_only_for_any_user_and_only_signed_scripts_executable(world: World) -> None:
    before = os.umask(0o077)
    try:
        assert world.run()[0] == 0
    finally:
        os.umask(before)
    modes = {
        path.relative_to(world.code).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in world.code.rglob("*")
    }
    assert modes == {
        "train.py": 0o444,
        "run.sh": 0o555,
        "lib": 0o755,
        "lib/model.py": 0o444,
        "lib/deep": 0o755,
        "lib/deep/er": 0o755,
        "lib/deep/er/empty": 0o444,
    }


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_usual_form_come_through(world: World, form: int) -> None:
    long, accented = "d" * 120 + "/" + "f" * 90, "größe/数据.txt"
    world.signed |= {long: b"long", accented: b"unicode"}
    world.members += [plain(long, b"long"), plain(accented, b"unicode")]
    world.layers = [(TAR, tar(world.members, form))]
    assert world.run()[0] == 0
    assert world.placed() == world.signed


def test_a_tar_made_with_dot_slash_names_and_directories_comes_through(world: World) -> None:
    root, lib = special("./", tarfile.DIRTYPE), special("./lib/", tarfile.DIRTYPE)
    unused = special("./empty/", tarfile.DIRTYPE)
    files = [plain(f"./{info.name}", content) for info, content in world.members]
    world.layers = [(TAR, tar([root, lib, unused, *files]))]
    assert world.run()[0] == 0
    assert world.placed() == world.signed
    assert not (world.code / "empty").exists()


def test_a_tree_in_two_layers_one_of_them_gzip_comes_through(world: World) -> None:
    world.layers = [
        (TAR, tar(world.members[:2])),
        (TAR_GZIP, gzip.compress(tar(world.members[2:]))),
    ]
    assert world.run()[0] == 0
    assert world.placed() == world.signed


def test_git_archive_comments_in_a_global_header_are_passed_over(world: World) -> None:
    out = world.root / "out.tar"
    with tarfile.open(out, "w", pax_headers={"comment": "3f7a"}) as archive:
        for info, content in world.members:
            path = world.root / "one"
            path.write_bytes(content)
            with path.open("rb") as file:
                archive.addfile(info, file)
    world.layers = [(TAR, out.read_bytes())]
    assert world.run()[0] == 0


# --- attacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../train.py",
        "lib/../../outside",
        "/etc/cron.d/x",
        "lib//x",
        "a\\b",
        "lib/./x",
        "..",
        "././train.py",
        "x\ny",
    ],
)
def test_a_member_whose_name_leads_elsewhere_is_refused(world: World, name: str) -> None:
    world.members.insert(0, plain(name, b"x"))
    refused(world, "file name")
    assert sorted(p.name for p in world.root.iterdir()) == [
        "code",
        "config",
        "config-map",
        "termination-log",
    ]


def test_a_directory_whose_name_leads_elsewhere_is_refused(world: World) -> None:
    world.members.insert(0, special("../outside", tarfile.DIRTYPE))
    refused(world, "'..'")
    assert not (world.root / "outside").exists()


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (tarfile.CONTTYPE, "a contiguous file"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"V", "type b'V'"),
    ],
)
def test_anything_but_a_plain_file_is_refused_by_name(world: World, kind: bytes, word: str) -> None:
    world.members.insert(0, special("train.py", kind, "/etc/passwd"))
    refused(world, "train.py: ", word)


def test_writing_through_a_link_placed_before_is_refused(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    world.members.insert(0, special("lib", tarfile.SYMTYPE, str(outside)))
    refused(world, "lib: ", "symbolic link")
    assert list(outside.iterdir()) == []


def test_a_link_standing_in_the_partial_tree_is_not_followed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should something else ever place a link there, O_NOFOLLOW is what stops the write."""
    outside = tmp_path / "outside"
    outside.mkdir()
    mkdir = os.mkdir

    def racing(name: str, mode: int = 0o777, *, dir_fd: int) -> None:
        if name == "lib":
            os.symlink(outside, name, dir_fd=dir_fd)
        mkdir(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", racing)
    code, message = world.run()
    assert code == 2
    assert "cannot be written" in message
    assert list(outside.iterdir()) == []
    assert list(world.code.iterdir()) == []


def test_a_file_in_the_layers_twice_is_refused(world: World) -> None:
    world.members.append(world.members[0])
    refused(world, "train.py: the layers hold it twice")


def test_a_file_in_two_layers_is_refused(world: World) -> None:
    world.layers = [(TAR, tar(world.members)), (TAR, tar(world.members[:1]))]
    refused(world, "train.py: the layers hold it twice")


def test_a_twin_in_another_case_is_refused_as_unsigned(world: World) -> None:
    world.members.append(plain("Train.py", b"import torch\n"))
    refused(world, "Train.py: extra")


def test_a_manifest_with_twins_is_refused_whoever_signed_it(world: World) -> None:
    plan = world.push()
    twins = world.manifest().to_statement().replace(b'"run.sh"', b'"Train.py"')
    bundle = encode_bundle(make_bundle_dsse(KEY, twins, IN_TOTO_PAYLOAD_TYPE))
    code = plan.code[0].model_copy(update={"bundle": world.registry.put(bundle)})
    exit_code, message = world.run_plan(plan.model_copy(update={"code": [code]}))
    assert exit_code == 1
    assert "differ only in case" in message


@pytest.mark.parametrize("name", ["sitecustomize.py", "lib/extra.py", ".wh.train.py"])
def test_an_unsigned_extra_file_is_refused_by_name(world: World, name: str) -> None:
    world.members.insert(1, plain(name, b"import os\n"))
    refused(world, f"{name}: extra: the signed manifest does not list it")


def test_a_missing_file_is_refused_by_name(world: World) -> None:
    del world.members[1]
    refused(world, "lib/model.py: missing")


def test_a_changed_file_is_refused_with_both_digests(world: World) -> None:
    world.members[0] = plain("train.py", b"import evil!\n")
    refused(
        world,
        f"train.py: changed: found {digest(b'import evil!' + bytes([10]))}",
        f"expected {digest(world.signed['train.py'])} as signed",
    )


def test_one_byte_changed_in_the_registry_is_refused_naming_the_file(world: World) -> None:
    layer = tar(world.members)
    world.registry.served[digest(layer)] = layer.replace(b"import torch", b"import torcH")
    refused(world, "train.py: changed")


def test_a_header_changed_in_the_registry_is_refused(world: World) -> None:
    layer = tar(world.members)
    at = layer.index(b"run.sh")
    world.registry.served[digest(layer)] = layer[:at] + b"fun.sh" + layer[at + 6 :]
    refused(world, "wrong checksum")


def test_padding_changed_in_the_registry_is_refused(world: World) -> None:
    layer = tar(world.members)
    at = layer.index(b"import torch") + 100
    world.registry.served[digest(layer)] = layer[:at] + b"!" + layer[at + 1 :]
    refused(world, "the registry serves other bytes")


def test_a_gzip_layer_of_other_bytes_with_the_same_content_is_refused(world: World) -> None:
    layer = gzip.compress(tar(world.members), mtime=0)
    world.layers = [(TAR_GZIP, layer)]
    world.registry.served[digest(layer)] = gzip.compress(tar(world.members), mtime=1)
    refused(world, "the registry serves other bytes")


def test_an_executable_bit_changed_in_the_registry_is_refused(world: World) -> None:
    layer = tar(world.members)
    info = tarfile.TarInfo("train.py")
    info.size, info.mode = len(world.signed["train.py"]), 0o755
    changed = info.tobuf(tarfile.USTAR_FORMAT) + layer[512:]
    assert changed != layer
    world.registry.served[digest(layer)] = changed
    refused(world, "the registry serves other bytes")


@pytest.mark.parametrize("keep", [100, 512, 600, 1024, 2000])
def test_a_truncated_layer_is_refused(world: World, keep: int) -> None:
    world.layers = [(TAR, tar(world.members)[:keep])]
    refused(world)


def test_content_after_the_end_of_the_tar_is_refused(world: World) -> None:
    world.layers = [(TAR, tar(world.members) + tar([plain("hidden.py", b"x")]))]
    refused(world, "content after its end")


def test_zeros_after_the_end_of_the_tar_are_blocking_as_tar_writes_it(world: World) -> None:
    world.layers = [(TAR, tar(world.members) + bytes(10240))]
    assert world.run()[0] == 0


@pytest.mark.parametrize(
    "layer",
    [b"", b"not a tar" * 1000, b"\0" * 100, b"\xff" * 4096],
    ids=["empty", "text", "short zeros", "ones"],
)
def test_a_layer_that_is_no_tar_is_refused(world: World, layer: bytes) -> None:
    world.layers = [(TAR, layer)]
    refused(world, "layer: ")


def test_a_gzip_bomb_is_refused_before_it_fills_the_volume(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainseal.gate.tar_stream.MIN_INFLATION_BYTES", 1 << 20)
    zeros = bytes(20 << 20)
    world.signed["lib/zeros"] = zeros
    world.members.append(plain("lib/zeros", zeros))
    world.layers = [(TAR_GZIP, gzip.compress(tar(world.members)))]
    refused(world, "inflate to more than")


def test_a_small_tree_of_zeros_in_gzip_comes_through(world: World) -> None:
    zeros = bytes(4 << 20)
    world.signed["lib/zeros"] = zeros
    world.members.append(plain("lib/zeros", zeros))
    world.layers = [(TAR_GZIP, gzip.compress(tar(world.members)))]
    assert world.run()[0] == 0


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda data: data[:-20], "ends in the middle"),
        (lambda data: data + b"x", "after the end of its gzip"),
        (lambda data: data + gzip.compress(b"x"), "after the end of its gzip"),
        (lambda data: b"\0" + data, "not gzip"),
        (lambda data: zlib.compress(gzip.decompress(data)), "not gzip"),
        (lambda data: data[:-8] + bytes(8), "not gzip"),
    ],
)
def test_a_damaged_gzip_layer_is_refused(world: World, damage: object, word: str) -> None:
    assert callable(damage)
    world.layers = [(TAR_GZIP, damage(gzip.compress(tar(world.members))))]
    refused(world, word)


def test_a_tree_above_its_bounds_is_refused_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(map(len, world.signed.values()))
    monkeypatch.setattr(unpack.Bounds.__init__, "__defaults__", (total, total - 1))
    refused(world, "run.sh: 10 bytes", "in all")
    monkeypatch.setattr(unpack.Bounds.__init__, "__defaults__", (total, total))
    assert world.run()[0] == 0


def test_a_file_that_claims_a_size_out_of_range_is_refused(world: World) -> None:
    info = tarfile.TarInfo("train.py")
    info.size = 1 << 50
    world.layers = [(TAR, info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))]
    refused(world, "out of range")


def test_a_huge_extension_header_is_not_read_into_memory(world: World) -> None:
    info = tarfile.TarInfo("./PaxHeaders/x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    layer = info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)
    world.layers = [(TAR, layer)]
    refused(world, "extension header of")
    assert world.registry.most_taken < 10_000


@pytest.mark.parametrize(
    "record",
    [
        b"22 GNU.sparse.major=1\n",
        b"0 path=x\n",
        b"99 path=x\n",
        b"9 path=x!",
        b"path=x\n",
        b"10 path=x\n10 path=y\n",
        b"12 size=-12\n",
        b"9 size=x\n",
        b"9 p\xffth=x\n",
        b"17 path=\xff\xff\xff\xff\xff\xff\xff\xff\n",
        b"21 hdrcharset=BINARY\n",
    ],
)
def test_an_extension_header_that_could_be_read_two_ways_is_refused(
    world: World, record: bytes
) -> None:
    info = tarfile.TarInfo("./PaxHeaders/x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    header = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")
    world.layers = [(TAR, header + tar(world.members))]
    refused(world)


def test_a_global_header_that_renames_files_is_refused(world: World) -> None:
    info = tarfile.TarInfo("./GlobalHead")
    record = b"17 path=train.py\n"
    info.type, info.size = tarfile.XGLTYPE, len(record)
    header = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")
    world.layers = [(TAR, header + tar(world.members))]
    refused(world, "global header")


def test_a_long_line_is_cut_to_what_a_termination_message_holds(world: World) -> None:
    world.members.insert(0, plain("x" * 5000, b""))
    assert len(refused(world).encode()) <= MAX_LINE_BYTES


# --- the plan's pins -----------------------------------------------------------------------------


def test_another_trees_bundle_is_refused(world: World) -> None:
    plan = world.push()
    world.signed = {**world.signed, "train.py": b"another\n"}
    other = world.push()
    code = plan.code[0].model_copy(update={"bundle": other.code[0].bundle})
    exit_code, message = world.run_plan(plan.model_copy(update={"code": [code]}))
    assert exit_code == 1
    assert "it signs the tree" in message


def test_a_bundle_changed_in_the_registry_is_refused(world: World) -> None:
    bundle = world.push().code[0].bundle
    world.registry.served[bundle] = world.registry.blobs[bundle].replace(b'"sig"', b'"sIg"')
    code, message = world.run_plan(
        world.push().model_copy(
            update={"code": [world.push().code[0].model_copy(update={"bundle": bundle})]}
        )
    )
    assert code == 1
    assert "the registry serves other bytes" in message


def test_a_tag_in_the_plan_is_refused(world: World) -> None:
    def use_tag(plan: dict[str, object]) -> None:
        plan["code"][0]["reference"] = f"{REPOSITORY}:v1"

    code, message = world.run(use_tag)
    assert code == 1
    assert "expected a reference by digest" in message


def test_a_layer_of_another_media_type_is_refused(world: World) -> None:
    world.layers = [("application/vnd.oci.image.layer.v1.tar+zstd", tar(world.members))]
    refused(world, "media type")


# --- the registry and the volume -----------------------------------------------------------------


def test_a_registry_that_comes_back_is_waited_for(world: World) -> None:
    world.registry.failures = 2
    assert world.run()[0] == 0
    assert world.slept == [1.0, 2.0]
    assert world.placed() == world.signed


def test_a_registry_that_stays_away_is_undetermined_not_refuted(world: World) -> None:
    world.registry.failures = 3
    code, message = world.run()
    assert code == 2
    assert message.startswith("trainseal gate: undetermined: code trainer: ")
    assert world.slept == [1.0, 2.0]


def test_an_artifact_that_the_registry_does_not_have_is_refuted_at_once(world: World) -> None:
    plan = world.push()
    del world.registry.blobs[plan.code[0].bundle]
    assert world.run_plan(plan)[0] == 1
    assert world.slept == []


def test_the_gate_run_again_on_its_own_volume_changes_nothing(world: World) -> None:
    assert world.run()[0] == 0
    inodes = {path: path.stat().st_ino for path in world.code.rglob("*")}
    assert world.run()[0] == 0
    assert {path: path.stat().st_ino for path in world.code.rglob("*")} == inodes


def test_leftovers_of_a_gate_that_was_killed_are_removed_without_following_links(
    world: World, tmp_path: Path
) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").touch()
    (world.code / unpack.PARTIAL / "lib").mkdir(parents=True)
    (world.code / unpack.PARTIAL / "lib" / "x").touch()
    (world.code / unpack.PARTIAL / "link").symlink_to(keep)
    assert world.run()[0] == 0
    assert world.placed() == world.signed
    assert (keep / "file").exists()


def test_a_cache_left_in_the_volume_is_refused(world: World) -> None:
    assert world.run()[0] == 0
    (world.code / "lib" / "__pycache__").mkdir()
    (world.code / "lib" / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"poisoned")
    code, message = world.run()
    assert code == 1
    assert "model.cpython-311.pyc: extra" in message


@pytest.mark.parametrize("name", ["train.py", "sitecustomize.py"])
def test_a_volume_with_other_files_is_refused_and_left_alone(world: World, name: str) -> None:
    (world.code / name).write_bytes(b"here before")
    code, message = world.run()
    assert code == 1
    assert "the volume is not empty" in message
    assert world.placed() == {name: b"here before"}


def test_a_link_in_the_volume_is_refused(world: World) -> None:
    assert world.run()[0] == 0
    (world.code / "lib" / "model.py").unlink()
    (world.code / "lib" / "model.py").symlink_to("/etc/passwd")
    code, message = world.run()
    assert code == 1
    assert "symbolic link" in message


def test_a_target_that_is_not_mounted_is_undetermined(world: World) -> None:
    world.code.rmdir()
    code, message = world.run()
    assert code == 2
    assert "cannot be opened as a directory" in message


def test_a_full_disk_is_undetermined(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: object) -> int:
        raise OSError(28, "No space left on device")

    plan = world.push()
    plan = plan.model_copy(update={"config": None})
    monkeypatch.setattr("trainseal.gate.unpack.write_all", full)
    code, message = world.run_plan(plan)
    assert code == 2
    assert "No space left on device" in message
    assert list(world.code.iterdir()) == []
