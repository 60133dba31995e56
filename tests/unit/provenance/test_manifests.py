"""Tree manifests: our reading and writing of the OpenSSF Model Signing format."""

from __future__ import annotations

import base64
import json
import os
import unicodedata
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance.bundles import MAX_MANIFEST_BUNDLE_BYTES
from trainseal.provenance.manifests import (
    MAX_FILES,
    MAX_STATEMENT_BYTES,
    DifferenceKind,
    ManifestError,
    TreeManifest,
    UnsupportedManifestError,
    compare,
    parse_statement,
)
from trainseal.provenance.tree_paths import TreePathError, check_path, check_paths

ROOT = Path(__file__).resolve().parents[3]
VECTORS = (
    Path(os.environ.get("TRAINSEAL_VECTORS", ROOT.parent / "shared" / "vectors")) / "model-signing"
)


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


FILES = {"train.py": digest(b"train"), "lib/model.py": digest(b"model"), "lib/a-b": digest(b"")}
MANIFEST = TreeManifest.of("trainer", FILES)

Mutation = Callable[[dict[str, Any]], object]


def statement(mutate: Mutation) -> bytes:
    """The valid statement with one thing changed."""
    document = json.loads(MANIFEST.to_statement())
    mutate(document)
    return json.dumps(document).encode()


def rename(old: str, new: str) -> Mutation:
    def mutate(document: dict[str, Any]) -> None:
        for resource in document["predicate"]["resources"]:
            if resource["name"] == old:
                resource["name"] = new

    return mutate


# --- laws ---------------------------------------------------------------------------------------

parts = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\"), min_size=1, max_size=12
).filter(lambda part: part not in (".", ".."))
names = st.lists(parts, min_size=1, max_size=4).map("/".join)
contents = st.binary(max_size=4)


def _tellable(files: Mapping[str, bytes]) -> bool:
    try:
        check_paths(files)
    except TreePathError:
        return False
    return True


trees = st.dictionaries(names, contents, min_size=1, max_size=8).filter(_tellable)
manifests = st.builds(
    lambda name, files: TreeManifest.of(name, {p: digest(c) for p, c in files.items()}),
    st.text(st.characters(categories=("L", "N")), max_size=20),
    trees,
)


@given(manifests)
def test_a_manifest_survives_being_written_and_read(manifest: TreeManifest) -> None:
    assert parse_statement(manifest.to_statement()) == manifest


@given(manifests)
def test_a_tree_does_not_differ_from_its_own_manifest(manifest: TreeManifest) -> None:
    assert compare(manifest, manifest.digests) == []


@given(manifests, trees)
def test_differences_turn_the_signed_tree_into_the_observed_one(
    manifest: TreeManifest, tree: dict[str, bytes]
) -> None:
    observed = {path: digest(content) for path, content in tree.items()}
    rebuilt = manifest.digests
    for difference in compare(manifest, observed):
        if difference.kind is DifferenceKind.MISSING:
            assert rebuilt.pop(difference.path) == difference.signed
        else:
            assert rebuilt.get(difference.path) == difference.signed
            assert difference.found is not None
            rebuilt[difference.path] = difference.found
    assert rebuilt == observed


@given(st.text(max_size=40))
def test_an_allowed_name_stays_within_its_folder(path: str) -> None:
    try:
        check_path(path)
    except TreePathError:
        return
    assert os.path.normpath(path) == path
    assert not path.startswith(("/", "../"))
    assert path != ".."


# --- comparing ----------------------------------------------------------------------------------


def test_each_difference_is_a_sentence_that_names_the_file() -> None:
    observed = {**FILES, "train.py": digest(b"evil"), "lib/extra.py": digest(b"x")}
    del observed["lib/model.py"]
    differences = compare(MANIFEST, observed)
    assert [(d.path, d.kind) for d in differences] == [
        ("lib/extra.py", DifferenceKind.EXTRA),
        ("lib/model.py", DifferenceKind.MISSING),
        ("train.py", DifferenceKind.CHANGED),
    ]
    assert str(differences[2]) == (
        f"train.py: changed: found sha256:{digest(b'evil')}, signed sha256:{digest(b'train')}"
    )


def test_an_ignore_list_in_a_statement_excuses_no_file() -> None:
    payload = statement(
        lambda d: d["predicate"]["serialization"].update(ignore_paths=["model.sig", ".git"])
    )
    manifest = parse_statement(payload)
    assert manifest.ignore_paths == ("model.sig", ".git")
    (difference,) = compare(manifest, {**FILES, ".git/hooks/run": digest(b"x")})
    assert difference.kind is DifferenceKind.EXTRA


# --- refused statements ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../train.py", "'..'"),
        ("lib/../../train.py", "'..'"),
        ("/etc/passwd", "absolute"),
        ("./train.py", "'.'"),
        ("lib//train.py", "''"),
        ("lib/", "''"),
        ("", "empty"),
        ("lib\\train.py", "backslash"),
        ("train\n.py", "U+000A"),
        ("train\0.py", "U+0000"),
        ("nart\u202eyp", "U+202E"),
        ("tra\u200bin.py", "U+200B"),
        ("\ud800", "surrogate"),
        ("a" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
        ("/".join(["a" * 200] * 6)[:1025], "1024 bytes"),
        ("lib/model.py", "listed twice"),
        ("LIB/Model.py", "differ only in case"),
        ("lib/model.py/x", "also a directory"),
    ],
)
def test_a_name_that_could_be_read_two_ways_is_refused(name: str, why: str) -> None:
    with pytest.raises(ManifestError, match=why.replace("+", r"\+").replace(".", r"\.")):
        parse_statement(statement(rename("train.py", name)))


def test_names_that_differ_only_in_unicode_form_are_refused() -> None:
    composed = "café.py"
    decomposed = unicodedata.normalize("NFD", composed)
    with pytest.raises(TreePathError, match="Unicode form"):
        check_paths([composed, decomposed])
    check_paths([decomposed])


def test_ordinary_names_are_accepted() -> None:
    check_paths(
        ["a/b.py", "a-b.py", "a.b", "...", ".hidden", "x/..data", "größe.txt", "数据/训练.py"]
    )


@pytest.mark.parametrize(
    ("mutate", "why"),
    [
        (lambda d: d["predicate"]["serialization"].update(method="shards"), "'shards' is not supp"),
        (lambda d: d["predicate"]["serialization"].update(hash_type="blake3"), "'blake3' is not"),
        (lambda d: d["predicate"]["resources"][0].update(algorithm="blake2b"), "'blake2b' is not"),
        (lambda d: d.update(predicateType="https://model_signing/Digests/v0.1"), "before 1.0"),
    ],
)
def test_a_manifest_of_another_kind_is_called_unsupported(mutate: Mutation, why: str) -> None:
    with pytest.raises(UnsupportedManifestError, match=why):
        parse_statement(statement(mutate))


@pytest.mark.parametrize(
    ("mutate", "why"),
    [
        (lambda d: d.update(_type="https://example.com/v1"), "_type"),
        (lambda d: d.update(predicateType="https://slsa.dev/provenance/v1"), "predicateType"),
        (lambda d: d["subject"].append(d["subject"][0]), "subject: found 2"),
        (lambda d: d.update(subject=[]), "subject"),
        (lambda d: d["subject"][0]["digest"].update(sha256="00" * 32), "contradicts itself"),
        (lambda d: d["subject"][0].update(digest={"sha512": "00" * 64}), "contradicts itself"),
        (lambda d: d["predicate"]["resources"].pop(), "contradicts itself"),
        (lambda d: d["predicate"]["resources"][0].update(digest="00" * 32), "contradicts itself"),
        (lambda d: d["predicate"]["resources"][0].update(digest="AA" * 32), "hexadecimal"),
        (lambda d: d["predicate"]["resources"][0].update(digest="00"), "hexadecimal"),
        (lambda d: d["predicate"]["resources"][0].pop("digest"), "digest"),
        (lambda d: d["predicate"].update(resources=[]), "lists no file"),
        (lambda d: d["predicate"].update(resources={}), "resources"),
        (lambda d: d["predicate"].update(resources=[1]), "resources"),
        (lambda d: d["predicate"].pop("serialization"), "serialization"),
        (lambda d: d["predicate"]["serialization"].update(ignore_paths="*"), "ignore_paths"),
        (lambda d: d["predicate"]["serialization"].update(ignore_paths=["\n"]), "ignored path"),
        (lambda d: d["predicate"]["serialization"].pop("allow_symlinks"), "allow_symlinks"),
        (lambda d: d["subject"][0].update(name="tree\x1b[2J"), "tree name"),
    ],
)
def test_a_malformed_manifest_is_refused_with_its_reason(mutate: Mutation, why: str) -> None:
    with pytest.raises(ManifestError, match=why):
        parse_statement(statement(mutate))


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"_type": "x", "_type": "y"}', b"{}" * 2],
)
def test_a_payload_that_is_no_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(ManifestError):
        parse_statement(payload)


def test_a_payload_above_the_bound_is_refused_unread() -> None:
    with pytest.raises(ManifestError, match="at most"):
        parse_statement(b" " * (MAX_STATEMENT_BYTES + 1))


def test_a_tree_of_too_many_files_is_refused() -> None:
    with pytest.raises(ManifestError, match=str(MAX_FILES)):
        TreeManifest.of("t", {f"f{i}": "00" * 32 for i in range(MAX_FILES + 1)})


def test_files_swapped_by_name_share_a_root_digest_but_not_a_manifest() -> None:
    """The specification's root covers no names: so names are always compared as well."""
    other = TreeManifest.of("trainer", {f"x/{path}": value for path, value in FILES.items()})
    assert other.root_digest == MANIFEST.root_digest
    assert other != MANIFEST
    assert compare(MANIFEST, other.digests) != []


# --- the format is model_signing's ----------------------------------------------------------------


def _payload(signature: Path) -> bytes:
    return base64.b64decode(json.loads(signature.read_bytes())["dsseEnvelope"]["payload"])


def _write_tree(root: Path) -> Path:
    for name in FILES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes({"train.py": b"train", "lib/model.py": b"model"}.get(name, b""))
    return root


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public, key


def _bundle(payload: bytes, key: ec.EllipticCurvePrivateKey, public: Path) -> bytes:
    kind = "application/vnd.in-toto+json"
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "publicKey": {"hint": sha256(public.read_bytes()).hexdigest()}
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": kind,
                "signatures": [
                    {"sig": base64.b64encode(key.sign(encoded, ec.ECDSA(hashes.SHA256()))).decode()}
                ],
            },
        }
    ).encode()


def test_model_signing_verifies_a_tree_that_we_signed_and_refuses_it_changed(
    tmp_path: Path, keys: tuple[Path, Path, ec.EllipticCurvePrivateKey]
) -> None:
    verifying = pytest.importorskip("model_signing.verifying")
    _, public, key = keys
    tree = _write_tree(tmp_path / "trainer")
    signature = tmp_path / "trainer.sig"
    signature.write_bytes(_bundle(MANIFEST.to_statement(), key, public))

    def verify() -> None:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public)
        config.verify(tree, signature)

    verify()
    (tree / "train.py").write_bytes(b"evil")
    with pytest.raises(ValueError, match="Hash mismatch"):
        verify()


def test_we_read_a_tree_that_model_signing_signed(
    tmp_path: Path, keys: tuple[Path, Path, ec.EllipticCurvePrivateKey]
) -> None:
    signing = pytest.importorskip("model_signing.signing")
    private, _, _ = keys
    tree = _write_tree(tmp_path / "trainer")
    signature = tmp_path / "trainer.sig"
    signing.Config().use_elliptic_key_signer(private_key=private).sign(tree, signature)
    manifest = parse_statement(_payload(signature))
    assert manifest.root_digest == MANIFEST.root_digest
    assert compare(manifest, FILES) == []
    assert manifest.name == "trainer"


@pytest.mark.parametrize(
    "case",
    [
        "v0.3.1-certificate",
        "v0.3.1-elliptic-key",
        "v1.0.0-certificate",
        "v1.0.0-elliptic-key",
        "v1.0.0-sigstore",
    ],
)
def test_public_vectors_read_as_the_trees_they_lie_in(case: str) -> None:
    folder = VECTORS / case
    if not folder.is_dir():
        pytest.skip(f"test vectors are not at {VECTORS}; set TRAINSEAL_VECTORS to run this")
    manifest = parse_statement(_payload(folder / "model.sig"))
    observed = {
        path.relative_to(folder).as_posix(): digest(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != "model.sig"
    }
    assert compare(manifest, observed) == []
    name = next(iter(observed))
    assert compare(manifest, {**observed, name: digest(b"changed")}) != []
    assert compare(manifest, {**observed, "added": digest(b"")}) != []
    assert compare(manifest, {k: v for k, v in observed.items() if k != name}) != []


def test_the_largest_statement_fits_into_a_bundle() -> None:
    assert MAX_STATEMENT_BYTES * 4 // 3 + 4096 < MAX_MANIFEST_BUNDLE_BYTES
    large = TreeManifest.of("t", {f"{'d' * 120}/{i}": "00" * 32 for i in range(40_000)})
    with pytest.raises(ManifestError, match="split the tree"):
        large.to_statement()
