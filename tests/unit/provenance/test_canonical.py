"""What is signed of a job: everything that decides what runs, in one spelling."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from trainseal.provenance.canonical import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_JOB_BYTES,
    CanonicalError,
    canonical_bytes,
    canonical_job,
    digest,
    job_digest,
)
from trainseal.provenance.yamlreader import read_documents

Job = dict[str, Any]
Change = Callable[[Job], object]

MANIFEST = """
apiVersion: trainseal.dev/v1alpha1
kind: TrainingJob
metadata: {name: char-lm, namespace: research, labels: {team: nlp}}
spec:
  engine: Job
  code:
  - {name: trainer, mountPath: /workspace, oci: {reference: registry.example/code@sha256:0}}
  config:
    mountPath: /etc/training
    parameters: {learning_rate: 3e-4, batch_size: 64, warmup: 0.0, tags: [a, b], name: é}
  roles:
  - name: worker
    replicas: 2
    template:
      spec:
        containers:
        - name: trainer
          image: registry.example/pytorch@sha256:0
          command: [python, /workspace/train.py]
          env: [{name: SEED, value: "1"}]
          volumeMounts: [{name: v, mountPath: /data}]
  scheduling: {queueName: research}
  validity: {maxRuns: 3}
  suspend: true
  signatures: [{bundle: {}}]
"""


@pytest.fixture
def job() -> Job:
    (document,) = read_documents(MANIFEST, "job.yaml")
    return copy.deepcopy(document.value)


def first_container(job: Job) -> dict[str, Any]:
    container: dict[str, Any] = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]
    return container


class TestJob:
    def test_the_bytes_are_the_identity_and_the_spec_without_what_is_not_signed(
        self, job: Job
    ) -> None:
        job["spec"] = {"engine": "Job", "b": [1.0, "é\n"], "a": {"z": True}, "suspend": True}
        assert canonical_job(job).decode() == (
            '{"apiVersion":"trainseal.dev/v1alpha1","kind":"TrainingJob",'
            '"metadata":{"name":"char-lm","namespace":"research"},'
            '"spec":{"a":{"z":true},"b":[1,"é\\n"],"engine":"Job"}}'
        )

    def test_the_digest_is_the_sha_256_of_the_bytes(self, job: Job) -> None:
        assert job_digest(job) == f"sha256:{hashlib.sha256(canonical_job(job)).hexdigest()}"

    def test_the_job_is_left_as_it_was(self, job: Job) -> None:
        before = copy.deepcopy(job)
        job_digest(job)
        assert job == before

    @pytest.mark.parametrize(
        "change",
        [
            lambda job: job["spec"].pop("scheduling"),
            lambda job: job["spec"].update(scheduling={"queueName": "other", "tolerations": [{}]}),
            lambda job: job["spec"].update(suspend=False),
            lambda job: job["spec"].pop("suspend"),
            lambda job: job["spec"]["signatures"].append({"bundle": {"mediaType": "x"}}),
            lambda job: job["spec"].pop("signatures"),
            lambda job: job["metadata"].update(labels={}, annotations={"a": "b"}, uid="1"),
            lambda job: job["metadata"].update(generateName=""),
            lambda job: job.update(status={"phase": "Running"}),
            lambda job: job["spec"]["config"]["parameters"].update(batch_size=64.0, warmup=-0.0),
        ],
    )
    def test_what_is_not_signed_may_change(self, job: Job, change: Change) -> None:
        before = job_digest(job)
        change(job)
        assert job_digest(job) == before

    @pytest.mark.parametrize(
        "change",
        [
            lambda job: job["metadata"].update(name="other"),
            lambda job: job["metadata"].update(namespace="other"),
            lambda job: job["spec"].update(engine="JobSet"),
            lambda job: job["spec"]["config"]["parameters"].update(learning_rate=0.00030001),
            lambda job: job["spec"]["config"]["parameters"].update(batch_size="64"),
            lambda job: job["spec"]["config"]["parameters"].update(warmup=False),
            lambda job: job["spec"]["config"]["parameters"].update(name="e\u0301"),
            lambda job: job["spec"]["config"]["parameters"]["tags"].reverse(),
            lambda job: job["spec"]["config"]["parameters"].update(more={}),
            lambda job: job["spec"]["roles"][0].update(replicas=3),
            lambda job: job["spec"]["roles"][0].update(scheduling={}),
            lambda job: job["spec"]["roles"][0]["template"]["spec"].update(suspend=True),
            lambda job: job["spec"].update(Suspend=True),
            lambda job: first_container(job).update(image="registry.example/pytorch@sha256:1"),
            lambda job: first_container(job)["command"].append("--fast"),
            lambda job: first_container(job)["env"][0].update(value="2"),
            lambda job: first_container(job)["volumeMounts"][0].update(mountPath="/other"),
            lambda job: job["spec"]["validity"].update(maxRuns=4),
            lambda job: job["spec"].pop("validity"),
        ],
    )
    def test_any_other_change_changes_the_digest(self, job: Job, change: Change) -> None:
        before = job_digest(job)
        change(job)
        assert job_digest(job) != before

    def test_a_namespace_stands_in_where_the_manifest_names_none(self, job: Job) -> None:
        before = job_digest(job)
        assert job_digest(job, "research") == before
        del job["metadata"]["namespace"]
        assert job_digest(job, "research") == before
        assert job_digest(job, "other") != before


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "path"),
        [
            (lambda job: job.update(apiVersion="trainseal.dev/v1"), ("apiVersion",)),
            (lambda job: job.update(kind="Job"), ("kind",)),
            (lambda job: job.pop("kind"), ("kind",)),
            (lambda job: job.pop("metadata"), ("metadata",)),
            (lambda job: job.pop("spec"), ("spec",)),
            (lambda job: job.update(spec=[]), ("spec",)),
            (lambda job: job["metadata"].pop("name"), ("metadata", "name")),
            (lambda job: job["metadata"].update(name=7), ("metadata", "name")),
            (lambda job: job["metadata"].update(name=""), ("metadata", "name")),
            (lambda job: job["metadata"].update(name="\udc00"), ("metadata", "name")),
            (lambda job: job["metadata"].pop("namespace"), ("metadata", "namespace")),
            (lambda job: job["metadata"].update(namespace=7), ("metadata", "namespace")),
            (lambda job: job["metadata"].update(generateName="x-"), ("metadata", "generateName")),
            (lambda job: job["spec"].update(code=None), ("spec", "code")),
            (
                lambda job: job["spec"]["config"]["parameters"]["tags"].append(None),
                ("spec", "config", "parameters", "tags", 2),
            ),
            (lambda job: job["spec"].update(a=math.nan), ("spec", "a")),
            (lambda job: job["spec"].update(a=-math.inf), ("spec", "a")),
            (lambda job: job["spec"].update(a=2**53), ("spec", "a")),
            (lambda job: job["spec"].update(a=-(2**53)), ("spec", "a")),
            (lambda job: job["spec"].update(a=2.0**53), ("spec", "a")),
            (lambda job: job["spec"].update(a=1e300), ("spec", "a")),
            (lambda job: job["spec"].update(a=10**5000), ("spec", "a")),
            (lambda job: job["spec"].update(a="x\ud83d"), ("spec", "a")),
            (lambda job: job["spec"].update({"\ud83d": 1}), ("spec",)),
            (lambda job: job["spec"].update(a={1: 2}), ("spec", "a")),
            (lambda job: job["spec"].update(a=b"x"), ("spec", "a")),
            (lambda job: job["spec"].update(a={1, 2}), ("spec", "a")),
        ],
    )
    def test_what_cannot_be_signed_is_refused_at_its_field(
        self, job: Job, change: Change, path: tuple[str | int, ...]
    ) -> None:
        change(job)
        with pytest.raises(CanonicalError) as caught:
            canonical_job(job)
        assert caught.value.path == path
        assert caught.value.expected
        assert caught.value.remedy

    def test_the_greatest_safe_integers_are_signed(self, job: Job) -> None:
        job["spec"]["a"] = [2**53 - 1, -(2**53) + 1, float(2**53 - 1)]
        assert b"[9007199254740991,-9007199254740991,9007199254740991]" in canonical_job(job)

    def test_another_namespace_than_the_commands_is_refused(self, job: Job) -> None:
        with pytest.raises(CanonicalError, match="two namespaces"):
            canonical_job(job, "other")

    def test_null_is_refused_with_what_to_do(self, job: Job) -> None:
        job["spec"]["roles"][0]["template"]["metadata"] = {"creationTimestamp": None}
        with pytest.raises(CanonicalError, match="leave the key out") as caught:
            canonical_job(job)
        assert "spec.roles[0].template.metadata.creationTimestamp" in str(caught.value)

    def test_null_in_what_is_not_signed_is_no_matter(self, job: Job) -> None:
        before = job_digest(job)
        job["spec"]["scheduling"] = {"queueName": None}
        assert job_digest(job) == before

    def test_nesting_has_a_bound(self, job: Job) -> None:
        def nested(levels: int) -> Any:
            return [] if levels == 0 else [nested(levels - 1)]

        job["spec"]["a"] = nested(MAX_DEPTH - 2)
        assert canonical_job(job)
        job["spec"]["a"] = nested(MAX_DEPTH - 1)
        with pytest.raises(CanonicalError, match=f"more than {MAX_DEPTH} levels"):
            canonical_job(job)

    def test_a_list_within_itself_is_refused(self, job: Job) -> None:
        job["spec"]["a"] = [job["spec"]]
        with pytest.raises(CanonicalError, match="levels of nesting"):
            canonical_job(job)

    @pytest.mark.parametrize("filler", ["x" * MAX_JOB_BYTES, "\x01" * (MAX_JOB_BYTES // 5)])
    def test_size_has_a_bound(self, job: Job, filler: str) -> None:
        job["spec"]["a"] = filler
        with pytest.raises(CanonicalError, match=f"more than {MAX_JOB_BYTES} bytes"):
            canonical_job(job)

    def test_the_field_of_an_error_is_found_in_the_file(self) -> None:
        text = MANIFEST.replace("maxRuns: 3", "maxRuns: ~")
        (document,) = read_documents(text, "job.yaml")
        with pytest.raises(CanonicalError) as caught:
            canonical_job(document.value)
        line = text.split("maxRuns")[0].count("\n") + 1
        assert document.where(caught.value.path) == f"job.yaml:{line}:14"


class TestCanonicalBytes:
    # RFC 8785, section 3.2.2 and appendix B, as far as within ±(2^53-1).
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.0, "0"),
            (-0.0, "0"),
            (5e-324, "5e-324"),
            (-5e-324, "-5e-324"),
            (2.2250738585072014e-308, "2.2250738585072014e-308"),
            (0.000001, "0.000001"),
            (1e-07, "1e-7"),
            (1.5e-10, "1.5e-10"),
            (333333333.3333333, "333333333.3333333"),
            (333333333.33333325, "333333333.33333325"),
            (-0.0000033333333333333333, "-0.0000033333333333333333"),
            (1424953923781206.25, "1424953923781206.2"),
            (1.0, "1"),
            (None, "null"),
            ([True, False], "[true,false]"),
            ((1, 2), "[1,2]"),
            ('\u20ac$\u000f\nA\'B"\\\\"/', '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
            ({}, "{}"),
        ],
    )
    def test_values_are_written_as_rfc_8785_says(self, value: object, text: str) -> None:
        assert canonical_bytes(value).decode() == text

    def test_keys_are_sorted_by_their_utf_16_units(self) -> None:
        # The example of RFC 8785, section 3.2.3.
        names = {
            "\u20ac": "Euro Sign",
            "\r": "Carriage Return",
            "\ufb33": "Hebrew Letter Dalet With Dagesh",
            "1": "One",
            "\U0001f600": "Emoji: Grinning Face",
            "\u0080": "Control",
            "\u00f6": "Latin Small Letter O With Diaeresis",
        }
        order = list(json.loads(canonical_bytes(names)).values())
        assert [name.split()[0] for name in order] == [
            *("Carriage", "One", "Control", "Latin", "Euro", "Emoji:", "Hebrew")
        ]

    def test_the_digest_is_the_sha_256_of_the_bytes(self) -> None:
        assert digest({}) == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"

    def test_size_has_a_bound(self) -> None:
        with pytest.raises(CanonicalError, match=f"more than {MAX_BYTES} bytes"):
            canonical_bytes(["x"] * MAX_BYTES)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=15,
)
_SPECS = st.dictionaries(_TEXT, _VALUES, max_size=4)


def job_with(spec: dict[str, Any]) -> Job:
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "a", "namespace": "b"},
        "spec": spec,
    }


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


def _whole(value: Any) -> Any:
    """Numbers without a fraction as integers, which is how they are written."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def same(one: Any, other: Any) -> bool:
    """One JSON value: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


#: Without small fractions, which is what the standard library's encoder is taken for; and with.
_ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | _ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


class TestLaws:
    @given(_PLAIN | _VALUES)
    def test_the_bytes_are_those_of_rfc_8785_whoever_writes_them(self, value: Any) -> None:
        assert canonical_bytes(value) == rfc8785.dumps(_whole(value))

    @given(
        st.floats(-(2.0**53) + 1, 2.0**53 - 1)
        | st.floats(0, 0.001)
        | st.sampled_from([1e-4, 0.000099999, -1e-4, 9.999999999999999e-05, 1e-6, 1e-7, 0.1, -0.0])
        | st.sampled_from([4503599627370495.5, 1234567890123456.8, 0.30000000000000004, 5e-324])
    )
    def test_so_are_those_of_every_fraction(self, number: float) -> None:
        assert canonical_bytes({"a": number}) == rfc8785.dumps({"a": _whole(number)})

    @pytest.mark.parametrize("text", [chr(c) for c in (*range(0x20), 0x7F, 0x2028, 0xFFFD)])
    def test_every_character_is_escaped_as_rfc_8785_says(self, text: str) -> None:
        assert canonical_bytes({"a": text, text: 1}) == rfc8785.dumps({"a": text, text: 1})

    def test_keys_beyond_the_first_plane_are_in_the_order_of_utf_16(self) -> None:
        value = {"\U0001f600": 1, "\ufb33": 2}
        assert canonical_bytes(value) == rfc8785.dumps(value)
        assert list(json.loads(canonical_bytes(value))) == ["\U0001f600", "\ufb33"]

    @given(_SPECS)
    def test_the_order_of_keys_changes_nothing(self, spec: dict[str, Any]) -> None:
        assert canonical_job(job_with(reordered(spec))) == canonical_job(job_with(spec))

    @given(_SPECS)
    def test_what_a_json_reader_makes_of_the_bytes_has_the_same_bytes(
        self, spec: dict[str, Any]
    ) -> None:
        data = canonical_job(job_with(spec))
        assert canonical_job(json.loads(data)) == data
        assert canonical_job(json.loads(json.dumps(job_with(spec)))) == data

    @given(_SPECS)
    def test_yaml_and_json_of_one_job_have_one_digest(self, spec: dict[str, Any]) -> None:
        spelt_as_json = json.dumps(job_with(spec))
        # Double quotes throughout: unquoted, PyYAML writes texts that kubectl reads as numbers.
        spelt_as_yaml = yaml.safe_dump(job_with(spec), default_style='"')
        # It tags what is not text then; !!int "1" is read as 1.
        digests = {
            job_digest(document.value)
            for text in (spelt_as_json, spelt_as_yaml)
            for document in read_documents(text, "job")
        }
        assert digests == {job_digest(job_with(spec))}

    @given(_SPECS, _VALUES, _VALUES, _VALUES)
    def test_what_is_not_signed_changes_nothing(
        self, spec: dict[str, Any], scheduling: object, suspend: object, signatures: object
    ) -> None:
        unsigned = {"scheduling": scheduling, "suspend": suspend, "signatures": signatures}
        assert canonical_job(job_with({**spec, **unsigned})) == canonical_job(job_with(spec))

    @given(_SPECS, _SPECS)
    def test_two_specs_have_one_digest_only_if_they_are_one_value(
        self, one: dict[str, Any], other: dict[str, Any]
    ) -> None:
        assume(not {"signatures", "suspend", "scheduling"} & {*one, *other})
        equal = canonical_job(job_with(one)) == canonical_job(job_with(other))
        assert equal == same(one, other)

    @given(st.floats(-(2**53) + 1, 2**53 - 1))
    def test_a_number_keeps_its_value(self, number: float) -> None:
        assert float(json.loads(canonical_bytes(number))) == number
