"""The reader of manifests: what kubectl makes of a text, or a refusal with its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.kubectl_reader import HEAD, KubectlReader, as_json, compare, find_kubectl
from tests.manifest_texts import SPELLINGS, ManifestTexts
from trainseal.provenance.document import ManifestError, format_path
from trainseal.provenance.limits import MAX_BYTES, MAX_NODES
from trainseal.provenance.yamlreader import read_documents, read_mapping

# An unquoted text, and what kubectl makes of it.
SCALARS: list[tuple[str, Any]] = [
    ('"p\x85q"', "p q"),
    ('"p\u2028q"', "p\u2028q"),
    ("3e-4", 0.0003),
    ("1e3", 1000),
    ("1E3", 1000),
    ("1e+3", 1000),
    ("1.0", 1),
    ("-0.0", 0),
    (".5", 0.5),
    ("5.", 5),
    ("+1", 1),
    ("0.1e-7", 1e-08),
    ("1e400", "1e400"),
    ("1e-400", 0),
    (".5_0", 0.5),
    ("1_000", 1000),
    ("1_", 1),
    ("_1", "_1"),
    ("1:30", "1:30"),
    ("12:30:45", "12:30:45"),
    ("017", 15),
    ("0o17", 15),
    ("0O17", 15),
    ("-017", -15),
    ("08", 8),
    ("0x1F", 31),
    ("0X1f", 31),
    ("+0x10", 16),
    ("0x", "0x"),
    ("0b1", 1),
    ("0b+1", 1),
    ("0b2", "0b2"),
    ("9007199254740991", 9007199254740991),
    ("-9007199254740991", -9007199254740991),
    ("yes", True),
    ("y", True),
    ("on", True),
    ("TRUE", True),
    ("tRUE", "tRUE"),
    ("n", False),
    ("Off", False),
    ("yEs", "yEs"),
    ("~", None),
    ("null", None),
    ("Null", None),
    ("nULL", "nULL"),
    ("", None),
    ("2001-01-01", "2001-01-01"),
    ("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z"),
    ("2001-01-01 00:00:00", "2001-01-01 00:00:00"),
    ("<<", "<<"),
    ("=", "="),
    (".", "."),
    ("..", ".."),
    ("1.2.3", "1.2.3"),
    ("512Mi", "512Mi"),
    ("'yes'", "yes"),
    ('"1"', "1"),
    ("''", ""),
    ("'it''s'", "it's"),
    ('"\\u00e9\\x41\\t"', "éA\t"),
    ('"\\U0001F600"', "\U0001f600"),
    ("数", "数"),
    ("a b # c", "a b"),
    ("a#b", "a#b"),
    ("a:b", "a:b"),
    ("!!str 1", "1"),
    ("!!int '3'", 3),
    ("!!float 3", 3),
    ("!!bool yes", True),
    ("!!null ~", None),
    ("[1, [], {}]", [1, [], {}]),
    ("{a: 1, 'b': [x]}", {"a": 1, "b": ["x"]}),
    ("|\n    a\n     b\n\n    c\n", "a\n b\n\nc\n"),
    ("|-\n    a\n", "a"),
    ("|+\n    a\n", "a\n\n"),
    (">\n    a\n    b\n\n    c\n", "a b\nc\n"),
    ("|2\n      a\n", "  a\n"),
    ("'a\n    b\n\n    c'", "a b\nc"),
    ('"a \\\n    b"', "a b"),
    ("a\n    b", "a b"),
    ("&x 1", 1),
]

# Fields of spec, and what kubectl makes of spec.
SPECS: list[tuple[str, Any]] = [
    ("x: &a {p: 1}\n  w: *a", {"x": {"p": 1}, "w": {"p": 1}}),
    ("x: &a 1\n  w: &a 2\n  z: *a", {"x": 1, "w": 2, "z": 2}),
    ("x: &k key\n  *k : 1", {"x": "key", "key": 1}),
    ("x: &a {p: 1, q: 2}\n  w: {<<: *a, q: 3}", {"x": {"p": 1, "q": 2}, "w": {"p": 1, "q": 3}}),
    # YAML's merge type says that a key beside << wins wherever it stands; kubectl's reader not.
    ("x: &a {p: 1, q: 2}\n  w: {q: 3, <<: *a}", {"x": {"p": 1, "q": 2}, "w": {"q": 2, "p": 1}}),
    ("w: {<<: [{p: 1}, {p: 2, q: 2}]}", {"w": {"p": 1, "q": 2}}),
    ("w: {<<: {p: 1}, <<: {p: 2}}", {"w": {"p": 2}}),
    ("w: {'<<': {p: 1}}", {"w": {"<<": {"p": 1}}}),
    ("1: a\n  yes: b\n  0x10: c\n  017: d", {"1": "a", "true": "b", "16": "c", "15": "d"}),
    ("2001-01-01: a", {"2001-01-01": "a"}),
    ("? a\n  : b", {"a": "b"}),
    ("a: !!map {b: !!seq [1]}", {"a": {"b": [1]}}),
    ("a:\n  - 1\n  -\n    - 2", {"a": [1, [2]]}),
]

# What neither accepts.
BOTH_REFUSE = [
    "a: [",
    "a: 'x",
    "a: b: c",
    "a: *nowhere",
    "a: &a [*a]",
    "a: .inf",
    "a: .nan",
    "~: a",
    "[a]: b",
    "{a: 1}: b",
    "a: {{ b }}",
    "a: {<<: 1}",
    "a: {<<: [[b]]}",
    "a: !!int x",
    "a: !!float yes",
    "a: !!null x",
    "a: \t- b",
    "\ta: b",
    'a: "\\ud800"',
    'a: "\\/"',
    'a: "\\q"',
    "a: \x07",
    "a: [x?y]",
    "a: @x",
    "a: %x",
    "a: b\n---x\n",
    "a: b\n--- {c: d}\n",
    "a: 1\n---\n- not an object\n",
    "a: 1\n---\nno: kind\n",
    "a: 1\n---\njust text\n",
]

# What kubectl takes and we do not, and a word of the reason.
WE_REFUSE = [
    ("a: 1\n  a: 2", "twice"),
    ("1: a\n  '1': b", "twice"),
    ("yes: a\n  'true': b", "twice"),
    ("x: {<<: {1: a}, '1': b}", "quote both"),
    ("a: 9007199254740992", "2^53-1"),
    ("a: -9007199254740992", "2^53-1"),
    ("a: 1e300", "2^53-1"),
    ("a: 18446744073709551616", "2^53-1"),
    ("1.5: a", "quote"),
    ("a: !x b", "tag"),
    ("a: !!binary aGk=", "tag"),
    ("a: !!timestamp 2001-01-01", "tag"),
    ("a: !!python/object:os.system {}", "tag"),
    ("a: ! 1", "tag"),
    ("a: &a ! 1", "tag"),
    ("a: &a # c\n    ! 1", "tag"),
    ("a: [!!str, b]", "tag"),
    ("a: 1\n...\nb: 2", "kubectl would silently leave it out"),
    ("a: 1\n%YAML 1.1\n---\n", "kubectl would silently leave it out"),
    ("a: x\ufeffy", "byte order mark"),
]


def manifest(spec: str) -> bytes:
    return f"{HEAD}spec:\n  {spec}\n".encode()


def read(text: str | bytes) -> list[Any]:
    return [document.value for document in read_documents(text, "job.yaml")]


def read_spec(spec: str) -> Any:
    (value,) = read(manifest(spec))
    return value["spec"]


@pytest.fixture(scope="module")
def kubectl() -> Iterator[KubectlReader]:
    path = find_kubectl()
    if path is None:
        pytest.skip("no kubectl in $TRAINSEAL_TOOLS, in the tools' cache or on PATH")
    with KubectlReader.start(path) as reader:
        yield reader


class TestValues:
    @pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text for text, _ in SCALARS])
    def test_a_scalar_means_what_kubectl_makes_of_it(self, text: str, value: object) -> None:
        assert as_json(read_spec(f"a: {text}")) == as_json({"a": value})

    @pytest.mark.parametrize(("text", "value"), SPECS, ids=[text for text, _ in SPECS])
    def test_a_structure_means_what_kubectl_makes_of_it(self, text: str, value: object) -> None:
        assert as_json(read_spec(text)) == as_json(value)

    def test_whole_numbers_are_integers_however_they_are_spelt(self) -> None:
        values = read_spec("a: [1.0, 1e0, 1, 0x1, !!float 1, -0.0]")["a"]
        assert [type(value) for value in values] == [int] * 6

    def test_crlf_and_a_byte_order_mark_change_nothing(self) -> None:
        text = manifest("a: |\n    b\n    c\n  d: 1")
        assert read(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n")) == read(text)

    def test_a_missing_last_line_break_is_supplied(self) -> None:
        text = manifest("a: |\n    b")
        assert read(text.rstrip(b"\n")) == read(text)
        assert read(text)[0]["spec"] == {"a": "b\n"}

    def test_text_and_bytes_are_read_alike(self) -> None:
        text = manifest("a: é")
        assert read(text.decode()) == read(text)

    def test_documents_come_in_order_and_empty_ones_are_passed_over(self) -> None:
        one, two = HEAD + "spec: {a: 1}\n", HEAD + "spec: {a: 2}\n"
        text = f"# first\n---\n---\n{one}--- # next\n# nothing\n---\n{two}---\n"
        assert [value["spec"]["a"] for value in read(text)] == [1, 2]

    @pytest.mark.parametrize("text", ["", "\n", "---\n", "# c\n---\n# d", "\ufeff", "~\n"])
    def test_a_text_without_objects_gives_none(self, text: str) -> None:
        assert read(text) == []


class TestJson:
    HEAD = json.dumps({"apiVersion": "trainseal.dev/v1alpha1", "kind": "TrainingJob"})[:-1]

    def test_json_and_yaml_of_one_object_are_one_value(self) -> None:
        (value,) = read(manifest("a: [1.0, 3e-4, yes, ~, 'x', {b: é}]"))
        assert as_json(read(json.dumps(value))) == as_json([value])
        assert as_json(read(json.dumps(value, indent=2, ensure_ascii=False))) == as_json([value])

    def test_json_objects_follow_one_another(self) -> None:
        text = f'{self.HEAD}, "a": 1}} {self.HEAD}, "a": 2}}\n{self.HEAD}, "a": 3}}'
        assert [value["a"] for value in read(text)] == [1, 2, 3]

    def test_yaml_may_follow_one_json_object(self) -> None:
        assert len(read(f"{self.HEAD}}}\n---\n{HEAD}spec: {{}}\n")) == 2

    def test_what_begins_with_a_brace_and_is_no_json_is_yaml(self) -> None:
        text = "{apiVersion: trainseal.dev/v1alpha1, kind: TrainingJob, a: 017}"
        assert read(text)[0]["a"] == 15

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ('"a": 1, "a": 2', "twice"),
            ('"a": 1, "\\u0061": 2', "twice"),
            ('"a": "\\ud800"', "surrogate"),
            ('"a": 9007199254740992', "2^53-1"),
            ('"a": 1E400', "2^53-1"),
            ('"a": ' + "9" * 5000, "2^53-1"),
        ],
    )
    def test_what_cannot_be_canonical_is_refused(self, text: str, word: str) -> None:
        with pytest.raises(ManifestError, match=word.replace("^", r"\^")):
            read(f"{self.HEAD}, {text}}}")

    def test_a_surrogate_pair_is_one_character(self) -> None:
        assert read(f'{self.HEAD}, "a": "\\ud83d\\ude00"}}')[0]["a"] == "\U0001f600"

    def test_a_fault_in_json_is_told_as_json_too(self) -> None:
        with pytest.raises(ManifestError) as caught:
            read(f'{self.HEAD}, "a": [1,]}},')
        assert any("as JSON: job.yaml:1:" in note for note in caught.value.__notes__)


class TestRefusals:
    @pytest.mark.parametrize("text", BOTH_REFUSE)
    def test_what_kubectl_refuses_is_refused(self, text: str) -> None:
        with pytest.raises(ManifestError):
            read(manifest(text))

    @pytest.mark.parametrize(("text", "word"), WE_REFUSE)
    def test_what_would_mislead_is_refused_with_the_reason(self, text: str, word: str) -> None:
        with pytest.raises(ManifestError) as caught:
            read(manifest(text))
        assert word in str(caught.value)
        assert caught.value.remedy

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("a: 1\n  b: 2\n  a: 3", "job.yaml:7:3"),
            ("a: 1\n  b: [x, .inf]", "job.yaml:6:10"),
            ("a: 1\n  b: é\x07", "job.yaml:6:7"),
            ("a: 'x\n\n", "job.yaml:5:6"),
            ("a: 1\n---\n\na: [1, 2, 3e20]", "job.yaml:8:11"),
        ],
    )
    def test_an_error_names_the_line_and_the_column(self, text: str, place: str) -> None:
        with pytest.raises(ManifestError) as caught:
            read(manifest(text))
        assert caught.value.place == place
        assert str(caught.value).startswith(f"{place}: found ")

    def test_a_directive_is_refused(self) -> None:
        with pytest.raises(ManifestError):
            read("%YAML 1.1\n---\n" + HEAD)

    def test_a_document_that_is_no_object_is_refused(self) -> None:
        with pytest.raises(ManifestError, match="a document that is a list"):
            read("- 1\n")

    @pytest.mark.parametrize("missing", ["apiVersion", "kind"])
    def test_an_object_without_its_kind_is_refused(self, missing: str) -> None:
        text = "\n".join(line for line in HEAD.splitlines() if not line.startswith(missing))
        with pytest.raises(ManifestError, match=missing):
            read(text)

    def test_bytes_that_are_no_utf_8_are_refused_at_their_place(self) -> None:
        with pytest.raises(ManifestError, match=r"job\.yaml:2:5: found bytes that are no UTF-8"):
            read(b"a: 1\nb: '\xff'\n")

    def test_half_a_surrogate_pair_in_a_text_is_refused(self) -> None:
        with pytest.raises(ManifestError, match="UTF-8"):
            read("a: '\ud800'\n")

    def test_utf_16_is_refused(self) -> None:
        with pytest.raises(ManifestError, match="UTF-8"):
            read(manifest("a: 1").decode().encode("utf-16"))


def _doubling(levels: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n  ".join(lines)


class TestBounds:
    @pytest.mark.parametrize(
        "text",
        [
            b"a: " + b"[" * 1_000_000,
            b"a: " + b"{b: " * 1_000_000,
            b'{"a":' * 500_000,
            b"- " * 1_000_000,
            b"? " * 1_000_000,
            b"".join(b" " * depth + b"a:\n" for depth in range(2_000)),
        ],
        ids=["lists", "mappings", "json", "items", "keys", "indentation"],
    )
    def test_deep_nesting_is_refused(self, text: bytes) -> None:
        with pytest.raises(ManifestError, match="levels of nesting"):
            read(text[:MAX_BYTES])

    def test_a_hundred_levels_are_read(self) -> None:
        assert read(manifest(f"a: {'[' * 98}{']' * 98}"))

    def test_aliases_that_multiply_are_refused(self) -> None:
        assert read(manifest(_doubling(4)))
        with pytest.raises(ManifestError, match=r"nearly all aliases|aliases expanded"):
            read(manifest(_doubling(9)))

    def test_merges_that_multiply_are_refused(self) -> None:
        wide = ", ".join(f"k{n}: 1" for n in range(1000))
        many = "\n  ".join(f"m{n}: {{<<: *x}}" for n in range(200))
        with pytest.raises(ManifestError, match=r"nearly all aliases|aliases expanded"):
            read(manifest(f"x: &x {{{wide}}}\n  {many}"))

    def test_more_values_than_the_bound_are_refused(self) -> None:
        with pytest.raises(ManifestError, match=f"more than {MAX_NODES} values"):
            read(manifest(f"a: [{'1,' * MAX_NODES}]"))

    def test_more_bytes_than_a_request_may_have_are_refused(self) -> None:
        assert read(manifest("a: 1") + b"#" * 1_000_000)
        with pytest.raises(ManifestError, match=f"at most {MAX_BYTES}"):
            read(b"#" * (MAX_BYTES + 1))

    def test_more_documents_than_the_bound_are_refused(self) -> None:
        with pytest.raises(ManifestError, match="documents"):
            read(f"{HEAD}---\n" * 1001)


class TestPlaces:
    TEXT = (
        "apiVersion: v1\nkind: X\nspec:\n  roles:\n  - name: worker\n    image: >-\n      x\n"
        "  base: &b {p: 1}\n  other:\n    <<: *b\n    'q r': 2\n---\napiVersion: v1\nkind: Z\n"
    )

    @pytest.mark.parametrize(
        ("path", "place"),
        [
            ((), "job.yaml:1:1"),
            (("spec",), "job.yaml:3:1"),
            (("spec", "roles", 0), "job.yaml:5:5"),
            (("spec", "roles", 0, "image"), "job.yaml:6:5"),
            (("spec", "other", "p"), "job.yaml:8:13"),
            (("spec", "other", "q r"), "job.yaml:11:5"),
            (("spec", "roles", 0, "command", 3), "job.yaml:5:5"),
            (("spec", "roles", 7), "job.yaml:4:3"),
            (("metadata", "name"), "job.yaml:1:1"),
        ],
    )
    def test_a_field_has_a_place_and_a_missing_one_that_of_what_holds_it(
        self, path: tuple[str | int, ...], place: str
    ) -> None:
        document, _ = read_documents(self.TEXT, "job.yaml")
        assert document.where(path) == place

    def test_a_later_document_keeps_the_lines_of_the_file(self) -> None:
        _, second = read_documents(self.TEXT, "job.yaml")
        assert second.where(("kind",)) == "job.yaml:14:1"

    def test_fields_of_json_have_places_too(self) -> None:
        text = '\n{"apiVersion": "v1",\n "kind": "X", "a": [1,\n {"b": 2}]}'
        (document,) = read_documents(text, "job.json")
        assert document.where(("a",)) == "job.json:3:15"
        assert document.where(("a", 1, "b")) == "job.json:4:3"

    def test_a_path_is_written_as_people_write_it(self) -> None:
        path = ("spec", "roles", 0, "nvidia.com/gpu", "mount-path")
        assert format_path(path) == "spec.roles[0]['nvidia.com/gpu'].mount-path"
        assert format_path(()) == "the document"


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


def _normal(value: Any) -> Any:
    """The value with whole numbers as int, as the API server stores them."""
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class TestMappings:
    def test_a_config_needs_no_kind_and_may_be_empty(self) -> None:
        document = read_mapping("# ours\n---\nlr: 3e-4\nname: x\n", "conf.yaml")
        assert document.value == {"lr": 0.0003, "name": "x"}
        assert document.where(["name"]) == "conf.yaml:4:1"
        assert read_mapping('{"lr": 1.0}', "").value == {"lr": 1}
        assert read_mapping("# nothing\n", "").value == {}

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("a: 1\n---\nb: 2\n", "conf.yaml:3:1: found a second document"),
            ("- a\n", "conf.yaml:1:1: found a document that is a list"),
            ("a: 1\na: 2\n", "conf.yaml:2:1: found the key 'a' twice"),
            ("a: !!python/name:os.system\n", "found the tag"),
            ("#" * (MAX_BYTES + 1), f"{MAX_BYTES + 1} bytes"),
        ],
    )
    def test_what_is_no_one_mapping_is_refused_with_its_place(self, text: str, found: str) -> None:
        with pytest.raises(ManifestError) as caught:
            read_mapping(text, "conf.yaml")
        assert found in str(caught.value)


class TestLaws:
    @given(_JSON)
    def test_what_a_json_writer_writes_is_read_back(self, value: object) -> None:
        obj = {"apiVersion": "v1", "kind": "X", "spec": value}
        text = json.dumps(obj)
        assert as_json(read(text)) == as_json([_normal(obj)])

    @given(_JSON)
    def test_json_within_yaml_is_read_as_json_or_refused(self, value: object) -> None:
        text = json.dumps(value, ensure_ascii=False)
        # Line breaks of YAML 1.1, which JSON does not know: kubectl folds them, and so do we.
        assume(not set(text) & set("\x85\u2028\u2029"))
        try:
            values = read(manifest(f"a: {text}"))
        except ManifestError as error:
            refused = error.found
        else:
            refused = ""
            assert as_json(values[0]["spec"]["a"]) == as_json(_normal(value))
        assert not refused or "control character" in refused or "byte order mark" in refused

    @given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
    def test_any_bytes_are_read_or_refused_with_a_place(self, data: bytes) -> None:
        try:
            places = [document.where() for document in read_documents(data, "job.yaml")]
        except ManifestError as error:
            places = [error.place]
        assert all(place.startswith("job.yaml:") for place in places)


class TestAgainstKubectl:
    """The tables above are kubectl's word, and so is whatever the generator comes up with."""

    def test_kubectl_reads_the_scalars_so(self, kubectl: KubectlReader) -> None:
        found = kubectl.read([manifest(f"a: {text}") for text, _ in SCALARS])
        for (text, value), objects in zip(SCALARS, found, strict=True):
            assert objects is not None, text
            assert as_json(objects[0]["spec"]) == as_json({"a": value}), text

    def test_kubectl_reads_the_structures_so(self, kubectl: KubectlReader) -> None:
        found = kubectl.read([manifest(text) for text, _ in SPECS])
        for (text, value), objects in zip(SPECS, found, strict=True):
            assert objects is not None, text
            assert as_json(objects[0]["spec"]) == as_json(value), text

    def test_kubectl_refuses_what_is_said_to_be_refused_by_both(
        self, kubectl: KubectlReader
    ) -> None:
        found = kubectl.read([manifest(text) for text in BOTH_REFUSE])
        for text, objects in zip(BOTH_REFUSE, found, strict=True):
            assert objects is None, text

    def test_kubectl_takes_what_only_we_refuse(self, kubectl: KubectlReader) -> None:
        found = kubectl.read([manifest(text) for text, _ in WE_REFUSE])
        for (text, _), objects in zip(WE_REFUSE, found, strict=True):
            assert objects, text

    def test_every_spelling_is_read_alike_in_every_position(self, kubectl: KubectlReader) -> None:
        frames = [
            "a: %s",
            "- %s",
            "a: [%s]",
            "a: [1, %s, 2]",
            "a: {b: %s}",
            "%s : a",
            "a: {%s : b}",
        ]
        manifests = [manifest(frame.replace("%s", s)) for frame in frames for s in SPELLINGS]
        alike, broken = compare(kubectl, manifests)
        assert not broken
        assert alike > len(manifests) / 2

    @pytest.mark.parametrize("seed", [1, 2])
    def test_generated_manifests_are_read_alike(self, kubectl: KubectlReader, seed: int) -> None:
        source = ManifestTexts(seed)
        manifests = [source.any() for _ in range(300)]
        alike, broken = compare(kubectl, manifests)
        assert not broken
        assert alike > 100
