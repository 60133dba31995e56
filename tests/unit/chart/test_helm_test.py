"""What `helm test` tries in the cluster, tried here without one: the program in its pod."""

from __future__ import annotations

import base64
import io
import json
import ssl
import textwrap
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

POD = Path(__file__).parents[3] / "charts/trainseal/templates/tests/webhook.yaml"
TRUSTED, OTHER = (base64.b64encode(text).decode() for text in (b"ours", b"another's"))


def program() -> str:
    text = POD.read_text().partition("        - |\n")[2].partition("      securityContext:")[0]
    return textwrap.dedent(text).replace("{{ .Release.Namespace }}", "trainseal-system")


@pytest.fixture
def try_it(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs it, with these bundles in the configurations and a webhook whose authority is "ours"."""

    def go(*bundles: str | None) -> None:
        def answer(request: Any, timeout: float, context: str) -> io.BytesIO:
            if "/readyz" in request.full_url:
                if context != "ours":
                    raise OSError("certificate signed by unknown authority")
                return io.BytesIO(b"ok")
            assert request.get_header("Authorization") == "Bearer secret"
            hooks = [{"clientConfig": {} if b is None else {"caBundle": b}} for b in bundles]
            return io.BytesIO(json.dumps({"webhooks": hooks}).encode())

        def trust(cafile: str = "", cadata: str = "") -> str:
            return cadata or cafile

        clock = iter(range(0, 1000, 40))
        monkeypatch.setattr(urllib.request, "urlopen", answer)
        monkeypatch.setattr(ssl, "create_default_context", trust)
        monkeypatch.setattr(time, "monotonic", lambda: next(clock))
        monkeypatch.setattr(time, "sleep", lambda _: None)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        exec(program(), {"open": lambda _: io.StringIO("secret\n")})  # noqa: S102 - the chart's own

    return go


def test_a_webhook_that_the_api_server_trusts_passes(
    try_it: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    try_it(TRUSTED, TRUSTED)
    assert "is ready, with a certificate that" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("bundles", "words"),
    [
        ((TRUSTED, None), "mutating/trainseal has no caBundle: every request"),
        ((TRUSTED, ""), "has no caBundle"),
        ((TRUSTED, OTHER), "unknown authority"),
    ],
)
def test_one_that_it_does_not_trust_fails_in_words(
    try_it: Callable[..., None], bundles: tuple[str | None, ...], words: str
) -> None:
    with pytest.raises(SystemExit, match=words) as ended:
        try_it(*bundles)
    assert "kubectl -n trainseal-system logs" in str(ended.value)
