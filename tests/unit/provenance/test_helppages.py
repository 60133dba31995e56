"""Each refusal ends with the page that helps, and that page is there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_documents import _anchors, reasons
from trainseal.admission import main
from trainseal.admission.reviews import (
    ALLOWED,
    FORBIDDEN,
    MAX_MESSAGE,
    TOO_MANY,
    TRY_AGAIN,
    Response,
    deny,
)
from trainseal.admission.server import with_help
from trainseal.provenance.helppages import (
    HELP_TO_TRY_AGAIN,
    PAGE,
    QUESTIONS,
    REASONS,
    ended,
    of_reasons,
    see,
)

DOCS = Path(__file__).parents[3] / "docs"
#: Reasons of what is well.
WELL = {"Verified"}


def listed() -> set[str]:
    """Reasons of verdicts, as the page of reasons lists them."""
    page = (DOCS / "reference/reasons.md").read_text().partition("## After admission")[0]
    cells = re.findall(r"^\| (`[A-Z][^|]+)\|", page, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([A-Z]\w+)`", cell)}


def test_every_reason_of_a_refusal_has_a_page() -> None:
    wanted = reasons() | listed()
    assert len(wanted) > 90
    assert sorted(wanted - WELL - REASONS.keys()) == []


def test_every_question_that_the_webhook_may_deny_has_a_page() -> None:
    source = Path(main.__file__).read_text()
    asked = set(re.findall(r'"(/[a-z-]+)"', source)) - {"/witness"}  # it denies nothing
    assert asked == set(QUESTIONS)


def test_every_page_and_its_section_is_there_and_the_section_names_the_reason() -> None:
    for place in {*REASONS.values(), *QUESTIONS.values(), HELP_TO_TRY_AGAIN}:
        page, _, section = place.partition("#")
        assert section in _anchors(DOCS / f"{page}.md"), place
    text = (DOCS / f"{PAGE}.md").read_text()
    for reason, place in REASONS.items():
        heading = next(
            h
            for h in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
            if re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") == place.partition("#")[2]
        )
        section = text.partition(f"# {heading}\n")[2].partition("\n#")[0]
        assert f"`{reason}`" in section, reason


def test_the_sections_that_the_floor_names_are_there() -> None:
    """Its rules are the chart's, and the API server's to apply."""
    templates = (DOCS.parent / "charts/trainseal/templates").glob("*.yaml")
    text = "".join(path.read_text() for path in templates)
    named = re.findall(r'include "trainseal.see" \(dict "root" \$ "section" "([^"]+)"\)', text)
    assert len(named) == 6
    assert set(named) <= _anchors(DOCS / f"{PAGE}.md")


# Where it is put --------------------------------------------------------------------------------


def test_a_page_is_named_as_in_the_repository_or_where_the_platform_has_it() -> None:
    place = "how-to/refused#no-ticket"
    assert see([place]) == "see docs/how-to/refused.md#no-ticket"
    site = "https://docs.example/trainseal/"
    assert see([place], site) == "see https://docs.example/trainseal/how-to/refused/#no-ticket"
    tree = "https://git.example/blob/main/docs/{page}.md"
    assert (
        see([place], tree) == "see https://git.example/blob/main/docs/how-to/refused.md#no-ticket"
    )
    assert see([]) == ""


def test_a_reason_that_is_not_known_leads_to_the_page() -> None:
    assert see(of_reasons(["Unheard"])) == "see docs/how-to/refused.md"


def test_pages_are_named_once_and_three_at_most() -> None:
    found = see(of_reasons(["NoSignature", "NoSignature", "OtherJob", "Expired", "NotFound"]))
    assert found.count("refused.md") == 3


@given(st.text(max_size=300), st.integers(200, 400))
def test_a_message_keeps_its_bound_and_its_page(message: str, most: int) -> None:
    found = ended(message, [HELP_TO_TRY_AGAIN], "", most)
    assert len(found) <= most
    assert found.endswith("see docs/how-to/refused.md#try-again")


def denied(reason: str, code: int = FORBIDDEN) -> Response:
    return dataclasses.replace(deny("no", code), reasons=[reason])


@pytest.mark.parametrize(
    ("response", "path", "section"),
    [
        (denied("OtherJob"), "/validate-trainingjob", "changed-after-it-was-signed"),
        (deny("busy", TOO_MANY), "/validate-trainingjob", "try-again"),
        (deny("starting", TRY_AGAIN), "/validate-pod", "try-again"),
        (denied("NotFound", TRY_AGAIN), "/validate-trainingjob", "it-is-not-in-the-registry"),
        (deny("a sidecar"), "/validate-pod", "a-pod-that-asks-for-a-gpu"),
        (deny("exec"), "/record-access", "a-way-into-a-sealed-pod"),
    ],
)
def test_a_denial_of_the_webhook_ends_with_it(response: Response, path: str, section: str) -> None:
    found = with_help(response, path, "")
    assert found.message == f"{response.message}; see docs/how-to/refused.md#{section}"
    assert found.code == response.code


def test_what_is_allowed_says_nothing() -> None:
    assert with_help(ALLOWED, "/validate-pod", "") is ALLOWED


def test_a_denial_that_is_too_long_loses_its_middle_and_not_its_page() -> None:
    found = with_help(deny("x" * MAX_MESSAGE), "/validate-pod", "https://docs.example")
    assert len(found.message) == MAX_MESSAGE
    assert found.message.endswith("/how-to/refused/#a-pod-that-asks-for-a-gpu")
