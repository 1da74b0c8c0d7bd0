"""Authorities of clusters: many lack what Python 3.13 demands by default, and are none the worse for it."""

import asyncio
import ssl
from pathlib import Path

import pytest

from libs.kube.client import open_kube
from services.operator.watching import _Connection

CONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """Every context that is made from now on, each as strict as Python 3.13 makes it."""
    made: list[ssl.SSLContext] = []
    original = ssl.create_default_context

    def strict(*args: object, **named: object) -> ssl.SSLContext:
        context = original(*args, **named)  # type: ignore[arg-type]
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        made.append(context)
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    return made


def test_the_client_verifies_chain_and_host_but_is_not_strict(
    contexts: list[ssl.SSLContext], tmp_path: Path
) -> None:
    """An authority without key usage is trusted; a certificate of nobody's is not."""
    file = tmp_path / "kubeconfig"
    file.write_text(CONFIG)

    async def open_once() -> None:
        async with open_kube(str(file)):
            pass

    asyncio.run(open_once())
    assert contexts
    for context in contexts:
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname


def test_kopf_is_no_stricter(contexts: list[ssl.SSLContext]) -> None:
    """The watch connects as the client does."""
    context = _Connection(server="https://127.0.0.1:1", token="t").as_ssl_context()
    assert contexts == [context]
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
