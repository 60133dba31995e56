"""The rotation of the webhook's certificate: each rule, and the law that it leaves no gap."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from trainseal.controller.certificate_rotation import (
    CHECK_EVERY,
    CLOCK_SKEW,
    LIFETIME,
    OVERLAP,
    RENEW_BEFORE,
    RETRY,
    STAGING,
    Decision,
    ServingCertificate,
    Step,
    WebhookTLS,
    decide,
    defect,
    from_secret,
    issue,
    serving_names,
    stranger,
    take,
    to_secret,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = serving_names("trainseal-system", "trainseal-webhook")
SECOND = timedelta(seconds=1)

Held = TypeVar("Held")
OTHER = issue(NAMES, NOW)


def _parts(serving: ServingCertificate) -> dict[str, bytes]:
    return {
        "authority": serving.authority,
        "certificate": serving.certificate,
        "private_key": serving.private_key,
    }


@pytest.fixture
def state() -> WebhookTLS:
    """A certificate that serves, trusted, with nothing under way."""
    return WebhookTLS(current=issue(NAMES, NOW))


@pytest.fixture
def staged(state: WebhookTLS) -> WebhookTLS:
    """The same, close to its end, with a successor staged and trusted."""
    later = NOW + LIFETIME - RENEW_BEFORE
    return dataclasses.replace(state, successor=issue(NAMES, later), successor_published_at=later)


def foreign(names: Sequence[str]) -> ServingCertificate:
    """As cert-manager makes them: by an authority that may sign for any name."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "theirs")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW)
            .not_valid_after(NOW + LIFETIME)
        )

    authority = (
        builder(name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    alternatives = x509.SubjectAlternativeName([x509.DNSName(n) for n in names])
    certificate = (
        builder(x509.Name([]), key.public_key())
        .add_extension(alternatives, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return ServingCertificate(
        authority.public_bytes(pem),
        certificate.public_bytes(pem),
        key.private_bytes(
            pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ),
    )


def decided(state: WebhookTLS | None, now: datetime, *, published: bool = True) -> Decision:
    return decide(state, NAMES, published=published, now=now)


def handshake(serving: ServingCertificate, bundle: bytes, name: str, folder: Path) -> str | None:
    """A TLS handshake in memory, as the system's OpenSSL judges it; the error, or None."""
    chain = folder / "chain.pem"
    chain.write_bytes(serving.private_key + serving.certificate)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(chain)
    client_context = ssl.create_default_context(cadata=bundle.decode())
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return None


class TestIssuedCertificates:
    @pytest.mark.parametrize("name", NAMES)
    def test_serve_every_name_of_the_service(self, name: str, tmp_path: Path) -> None:
        # OpenSSL judges by today's clock.
        serving = issue(NAMES, datetime.now(UTC))
        assert handshake(serving, serving.authority, name, tmp_path) is None

    def test_serve_no_other_name(self, tmp_path: Path) -> None:
        serving = issue(NAMES, datetime.now(UTC))
        problem = handshake(serving, serving.authority, "kubernetes.default.svc", tmp_path)
        assert "mismatch" in str(problem)

    def test_are_refused_by_who_trusts_another_authority(self, tmp_path: Path) -> None:
        serving, other = issue(NAMES, datetime.now(UTC)), issue(NAMES, datetime.now(UTC))
        assert handshake(serving, other.authority, NAMES[0], tmp_path) is not None

    def test_are_accepted_among_several_authorities(self, tmp_path: Path) -> None:
        serving, other = issue(NAMES, datetime.now(UTC)), issue(NAMES, datetime.now(UTC))
        for bundle in (serving.authority + other.authority, other.authority + serving.authority):
            assert handshake(serving, bundle, NAMES[0], tmp_path) is None

    def test_cover_a_namespace_of_the_longest_name(self) -> None:
        names = serving_names("n" * 63, "trainseal-webhook")
        assert defect(issue(names, NOW), names, NOW) is None

    def test_are_valid_on_a_clock_that_runs_behind(self) -> None:
        assert defect(issue(NAMES, NOW), NAMES, NOW - CLOCK_SKEW) is None

    def test_keep_the_authoritys_key_nowhere(self) -> None:
        serving = issue(NAMES, NOW)
        authority = x509.load_pem_x509_certificate(serving.authority)
        assert serving.private_key.count(b"PRIVATE KEY") == 2
        certificate = x509.load_pem_x509_certificate(serving.certificate)
        assert certificate.public_key() != authority.public_key()

    def test_do_not_show_their_key_when_printed(self, state: WebhookTLS) -> None:
        assert "PRIVATE KEY" not in repr(state)


class TestDecisions:
    def test_a_missing_certificate_is_made(self) -> None:
        assert decided(None, NOW).step is Step.REPLACE

    def test_a_serving_certificate_is_kept_and_looked_at_again_soon(
        self, state: WebhookTLS
    ) -> None:
        assert decided(state, NOW) == Decision(
            Step.KEEP, "the certificate serves", NOW + CHECK_EVERY
        )

    def test_it_is_kept_until_a_third_of_its_life_is_left(self, state: WebhookTLS) -> None:
        renewal = NOW + LIFETIME - RENEW_BEFORE
        before = decided(state, renewal - SECOND)
        assert (before.step, before.check_at) == (Step.KEEP, renewal)
        assert decided(state, renewal).step is Step.STAGE

    def test_an_expired_one_is_replaced_at_once(self, state: WebhookTLS) -> None:
        decision = decided(state, NOW + LIFETIME)
        assert decision.step is Step.REPLACE
        assert "expired" in decision.reason

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"private_key": OTHER.private_key}, "another certificate"),
            ({"authority": OTHER.authority}, "did not sign it"),
            ({"certificate": b"garbage"}, "cannot be read"),
            (_parts(issue(["other.svc"], NOW)), "does not name"),
            (_parts(issue(NAMES, NOW + timedelta(days=1))), "clock"),
        ],
        ids=["foreign key", "foreign authority", "garbage", "foreign names", "from the future"],
    )
    def test_one_that_cannot_serve_is_replaced_at_once(
        self, state: WebhookTLS, change: dict[str, bytes], reason: str
    ) -> None:
        spoiled = WebhookTLS(current=dataclasses.replace(state.current, **change))
        decision = decided(spoiled, NOW)
        assert decision.step is Step.REPLACE
        assert reason in decision.reason

    def test_one_that_another_made_serves_until_a_successor_of_our_own_is_trusted(self) -> None:
        theirs = WebhookTLS(current=foreign(NAMES[:2]))
        decision = decided(theirs, NOW)
        assert decision.step is Step.STAGE
        assert "another's" in decision.reason
        after = take(decision.step, theirs, published=True, fresh=issue(NAMES, NOW), now=NOW)
        assert after.current == theirs.current
        assert after.ca_bundle.startswith(theirs.current.authority)

    def test_one_of_all_names_by_an_authority_without_bounds_is_anothers_too(self) -> None:
        assert decided(WebhookTLS(current=foreign(NAMES)), NOW).step is Step.STAGE

    def test_one_of_our_own_making_is_nobody_elses(self, state: WebhookTLS) -> None:
        assert stranger(state.current, NAMES) is None

    def test_a_successor_is_not_served_before_every_api_server_can_know_it(
        self, staged: WebhookTLS
    ) -> None:
        since = staged.successor_published_at
        assert since is not None
        early = decided(staged, since + STAGING - SECOND)
        assert (early.step, early.check_at) == (Step.KEEP, since + STAGING)
        assert decided(staged, since + STAGING).step is Step.PROMOTE

    def test_a_successor_nobody_trusts_yet_waits(self, staged: WebhookTLS) -> None:
        unpublished = dataclasses.replace(staged, successor_published_at=None)
        now = NOW + LIFETIME - RENEW_BEFORE + STAGING
        waiting = decided(unpublished, now, published=False)
        assert (waiting.step, waiting.check_at) == (Step.KEEP, now + RETRY)
        assert decided(unpublished, now, published=True).step is Step.MARK

    def test_a_successor_whose_trust_was_taken_away_waits_anew(self, staged: WebhookTLS) -> None:
        since = staged.successor_published_at
        assert since is not None
        decision = decided(staged, since + STAGING, published=False)
        assert decision.step is Step.MARK
        after = take(decision.step, staged, published=False, fresh=None, now=since + STAGING)
        assert after.successor_published_at is None

    def test_a_successor_that_cannot_serve_is_made_anew(self, staged: WebhookTLS) -> None:
        successor = dataclasses.replace(staged.current, authority=issue(NAMES, NOW).authority)
        broken = dataclasses.replace(staged, successor=successor)
        assert decided(broken, NOW + LIFETIME - RENEW_BEFORE).step is Step.STAGE

    def test_the_old_authority_is_trusted_until_every_replica_has_reloaded(
        self, state: WebhookTLS
    ) -> None:
        rotated = WebhookTLS(
            current=issue(NAMES, NOW),
            previous_authority=state.current.authority,
            promoted_at=NOW,
        )
        assert decided(rotated, NOW + OVERLAP - SECOND).step is Step.KEEP
        assert decided(rotated, NOW + OVERLAP).step is Step.RETIRE

    def test_a_promotion_changes_no_byte_of_what_is_trusted(self, staged: WebhookTLS) -> None:
        promoted = take(Step.PROMOTE, staged, published=True, fresh=None, now=NOW)
        assert promoted.ca_bundle == staged.ca_bundle
        assert staged.successor is not None
        assert promoted.current == staged.successor


class TestTheSecret:
    @given(successor=st.booleans(), marked=st.booleans(), previous=st.booleans())
    @settings(max_examples=8, deadline=None)
    def test_gives_back_what_was_put_in(
        self, successor: bool, marked: bool, previous: bool
    ) -> None:
        state = WebhookTLS(
            current=issue(NAMES, NOW),
            successor=issue(NAMES, NOW) if successor else None,
            successor_published_at=NOW if successor and marked else None,
            previous_authority=issue(NAMES, NOW).authority if previous else None,
            promoted_at=NOW if previous else None,
        )
        assert from_secret(*to_secret(state)) == state

    @pytest.mark.parametrize("missing", ["ca.crt", "tls.crt", "tls.key"])
    def test_holds_no_certificate_when_a_part_is_missing(
        self, state: WebhookTLS, missing: str
    ) -> None:
        data, annotations = to_secret(state)
        del data[missing]
        assert from_secret(data, annotations) is None

    @given(junk=st.text(max_size=40))
    def test_of_any_content_is_read_without_an_error(self, junk: str) -> None:
        data = dict.fromkeys(("ca.crt", "tls.crt", "tls.key", "next-ca.crt"), junk)
        state = from_secret(data, {"trainseal.dev/next-published-at": junk})
        assert decided(state, NOW).step is Step.REPLACE


@settings(max_examples=30, deadline=None)
@given(
    checks=st.lists(st.integers(0, 900), min_size=20, max_size=20),
    api_server_lag=st.integers(0, int(STAGING.total_seconds())),
    replica_lag=st.integers(0, int(OVERLAP.total_seconds())),
    patch_fails=st.sets(st.integers(0, 19), max_size=10),
)
def test_however_checks_fall_every_api_server_trusts_what_every_replica_serves(
    checks: list[int], api_server_lag: int, replica_lag: int, patch_fails: set[int]
) -> None:
    """Checks come late or early, patches fail, API servers and replicas learn late: no gap.

    Bundles and certificates are histories of (since, value). At each check, what any replica may
    still serve is compared with what any API server may still trust. In the end it has rotated.
    """
    state = WebhookTLS(current=issue(NAMES, NOW))
    now = NOW + LIFETIME - RENEW_BEFORE - timedelta(minutes=10)
    bundles: list[tuple[datetime, bytes]] = [(now, state.ca_bundle)]
    served: list[tuple[datetime, ServingCertificate]] = [(now, state.current)]
    promotions = 0
    for number, seconds in enumerate([*checks, *[300] * 8]):
        now += timedelta(seconds=seconds)
        for _ in range(8):
            published = bundles[-1][1] == state.ca_bundle
            decision = decide(state, NAMES, published=published, now=now)
            if decision.step is not Step.KEEP:
                assert decision.step is not Step.REPLACE
                fresh = issue(NAMES, now) if decision.step is Step.STAGE else None
                promotions += decision.step is Step.PROMOTE
                state = take(decision.step, state, published=published, fresh=fresh, now=now)
                if state.current != served[-1][1]:
                    served.append((now, state.current))
            elif not published and number not in patch_fails:
                bundles.append((now, state.ca_bundle))
            else:
                break
        for bundle in _may_hold(bundles, now, timedelta(seconds=api_server_lag)):
            for certificate in _may_hold(served, now, timedelta(seconds=replica_lag)):
                assert certificate.authority.strip() in bundle
                assert defect(certificate, NAMES, now) is None
    assert promotions == 1
    assert len(served) == 2
    assert state.successor is None
    assert state.previous_authority is None


def _may_hold(history: list[tuple[datetime, Held]], moment: datetime, lag: timedelta) -> list[Held]:
    """Every value that somebody who learns ``lag`` late, or sooner, may hold at ``moment``."""
    values = []
    for index, (_, value) in enumerate(history):
        until = history[index + 1][0] if index + 1 < len(history) else None
        if until is None or until > moment - lag:
            values.append(value)
    return values
