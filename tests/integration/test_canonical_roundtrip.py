"""What the API server stores has the digest that was signed, however it was sent and spelt."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.conftest import ApiServer
from tests.kubectl_reader import KubectlReader, compare
from tests.manifest_texts import SPELLINGS, ManifestTexts
from trainseal.provenance.canonical import CanonicalError, job_digest
from trainseal.provenance.document import ManifestError
from trainseal.provenance.yamlreader import read_documents

HEAD = """\
apiVersion: trainseal.dev/v1alpha1
kind: TrainingJob
metadata: {name: round-trip, namespace: default}
spec:
  engine: Job
  roles:
  - name: worker
    replicas: 1
    template:
      spec:
        terminationGracePeriodSeconds: 3e1
        containers: [{name: trainer, image: "x", args: ["1", '017', "on"], env: []}]
  config:
    mountPath: /etc/training
    parameters:
"""
COLLECTION = "/apis/trainseal.dev/v1alpha1/namespaces/default/trainingjobs"
SPELT = """1 1.0 1e0 1e3 10E-1 -0 -0.0 0.0 0.1e-7 1e-7 0.000001 1e-300 5e-324 1e-400 3e-4 0.1
9007199254740991 -9007199254740991 9007199254740991.0 123456789.125 1424953923781206.25"""
NUMBERS = SPELT.split()


def post(api_server: ApiServer, body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer to raw bytes: no client has read and rewritten them."""
    connection = http.client.HTTPConnection("127.0.0.1", api_server.proxy_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", COLLECTION, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.load(response)


@pytest.fixture
def server(api_server: ApiServer) -> Iterator[ApiServer]:
    """No job called round-trip before or after."""
    job = {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "round-trip", "namespace": "default"},
    }
    api_server.delete(job)
    yield api_server
    api_server.delete(job)


def stored(server: ApiServer) -> dict[str, Any]:
    got: dict[str, Any] = json.loads(
        server.kubectl("get", "trainingjob", "round-trip", "--namespace=default", "--output=json")
    )
    return got


def as_json(value: str) -> str:
    """A job as JSON with a parameter spelt so."""
    (document,) = read_documents(f"{HEAD}      value: here\n", "job.yaml")
    text = json.dumps(document.value)
    assert text.count('"here"') == 1
    return text.replace('"here"', value)


def signable(spellings: list[str]) -> list[str]:
    """Those that a manifest may hold and be signed."""
    found = []
    for spelling in spellings:
        with contextlib.suppress(ManifestError, CanonicalError):
            (document,) = read_documents(f"{HEAD}      a: {spelling}\n", "job.yaml")
            job_digest(document.value)
            found.append(spelling)
    return found


@pytest.mark.parametrize("command", [["create"], ["apply"], ["apply", "--server-side"]])
def test_what_kubectl_stores_has_the_digest_of_what_the_file_says(
    server: ApiServer, command: list[str]
) -> None:
    spellings = signable([*SPELLINGS, *NUMBERS])
    assert len(spellings) > 80
    lines = [f"      k{number}: {spelling}\n" for number, spelling in enumerate(spellings)]
    text = HEAD + "".join(lines)
    (document,) = read_documents(text, "job.yaml")
    server.kubectl(*command, "--filename=-", stdin=text)
    assert stored(server)["spec"] == document.value["spec"]
    assert job_digest(stored(server)) == job_digest(document.value)
    # Suspending, as a queue does it, is no change; neither is applying the file once more.
    patch = '{"spec":{"suspend":true,"scheduling":{"queueName":"x"}}}'
    target = ["trainingjob", "round-trip", "--namespace=default"]
    server.kubectl("patch", *target, "--type=merge", f"--patch={patch}")
    assert job_digest(stored(server)) == job_digest(document.value)


def test_a_number_is_stored_with_the_digest_of_every_spelling_of_it(server: ApiServer) -> None:
    text = as_json(f"[{','.join(NUMBERS)}]")
    status, answer = post(server, text.encode())
    assert status == 201, answer
    (signed,) = read_documents(text, "job.json")
    assert job_digest(stored(server)) == job_digest(signed.value)
    assert job_digest(json.loads(text)) == job_digest(signed.value)


@pytest.mark.parametrize("number", ["1E400", "-1e309", "NaN", "Infinity", "0x10", "01", ".5", "+1"])
def test_what_is_no_number_for_json_is_not_stored(server: ApiServer, number: str) -> None:
    text = as_json(number)
    status, _ = post(server, text.encode())
    assert status == 400


@pytest.mark.parametrize("number", ["9007199254740992", "-9007199254740993", "1e21", "1e300"])
def test_a_number_whose_digits_may_be_lost_is_stored_but_never_signed(
    server: ApiServer, number: str
) -> None:
    text = as_json(number)
    assert post(server, text.encode())[0] == 201
    with pytest.raises(CanonicalError):
        job_digest(stored(server))
    with pytest.raises(ManifestError):
        read_documents(text, "job.json")


def test_half_a_surrogate_pair_is_stored_as_another_character_and_never_signed(
    server: ApiServer,
) -> None:
    text = as_json('"\\ud800"')
    assert post(server, text.encode())[0] == 201
    assert stored(server)["spec"]["config"]["parameters"]["value"] == "\ufffd"
    with pytest.raises(ManifestError):
        read_documents(text, "job.json")


def test_thousands_of_generated_manifests_are_read_as_kubectl_reads_them(
    api_server: ApiServer,
) -> None:
    source = ManifestTexts(seed=20270301)
    with KubectlReader.start(api_server.cluster.tools.kubectl) as kubectl:
        alike = 0
        for _ in range(8):
            more, broken = compare(kubectl, [source.any() for _ in range(400)])
            assert not broken
            alike += more
    assert alike > 1000
