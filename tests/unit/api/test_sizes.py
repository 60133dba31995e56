"""What an object holds at its bounds fits where the API server stores it."""

from __future__ import annotations

from typing import Any, cast

from trainseal.api.documented import Document, document
from trainseal.api.schema import MAX_TIME_LENGTH
from trainseal.api.sealedrun import SealedRunStatus
from trainseal.provenance.seals import MAX_MARK_BYTES, MAX_SPEC_BYTES

Node = dict[str, Any]

#: etcd's own default (--max-request-bytes), which clusters hardly ever change.
ETCD_BYTES = 1536 * 1024
#: A key, comparisons and both answers of the transaction that the API server sends.
REQUEST_BYTES = 8 * 1024
#: Names, labels, UIDs, and what field management notes: of status.conditions each condition's
#: fields, of what else there is each field's name.
METADATA_BYTES = 16 * 1024 + MAX_MARK_BYTES


def most_bytes(found: Document, node: Node) -> int:
    """The longest JSON that the API server can make of a value which the schema takes."""
    node = cast("Node", found.resolved(node))
    if "const" in node or "enum" in node:
        return max(len(str(v)) for v in node.get("enum", [node.get("const")])) + 2
    match node["type"]:
        case "object" if "properties" not in node:
            return 2  # the kept job, the one opaque part: within the bound of the seal's own spec
        case "object":
            fields = node["properties"].items()
            return 2 + sum(len(name) + 4 + most_bytes(found, child) for name, child in fields)
        case "array":
            return 2 + cast("int", node["maxItems"]) * (1 + most_bytes(found, node["items"]))
        case "integer":
            return max(len(str(node["minimum"])), len(str(node["maximum"])))
        case "boolean":
            return len("false")
        case _ if node.get("format") == "date-time":
            return 2 + MAX_TIME_LENGTH
    # A pattern that names the characters it takes keeps to ASCII. Of others each may be six bytes
    # (a control character, or one that Go escapes).
    ascii_only = "pattern" in node and "[^" not in node["pattern"]
    return 2 + cast("int", node["maxLength"]) * (1 if ascii_only else 6)


def test_a_seal_at_its_bounds_fits_into_one_request_to_etcd() -> None:
    status = document(SealedRunStatus)
    size = most_bytes(status, cast("Node", status.root))
    assert size > 256 * 1024  # or it did not count the lists of marks
    assert MAX_SPEC_BYTES + size + METADATA_BYTES + REQUEST_BYTES <= ETCD_BYTES, size
