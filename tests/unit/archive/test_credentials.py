"""As whom the object store is asked: keys of files that are rotated, or the identity that a pod is given."""

import itertools
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from libs.archive.objects import ObjectStore
from libs.runtime.secret import Secret
from services.archiver.settings import S3Settings, storage_options

AGENT = "/v1/credentials"


class Server(ThreadingHTTPServer):
    """An S3 server of one object, and the agent of pod identity; remembers the headers of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def signers(self) -> list[str]:
        """The access keys of the requests for objects, each once where it follows itself."""
        found = [headers.get("Authorization", "") for path, headers in self.seen if path != AGENT]
        keys = [match[1] for text in found if (match := re.search("Credential=([^/]+)/", text))]
        assert len(keys) == len(found)
        return [key for key, _ in itertools.groupby(keys)]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        body = b"content"
        if self.path == AGENT:
            identity = {
                "AccessKeyId": "OF-THE-POD", "SecretAccessKey": "s", "Token": "of-a-session",
                "Expiration": "2100-01-01T00:00:00Z",
            }  # fmt: skip
            body = json.dumps(identity).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the base's way of naming

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server, and nobody's own credentials in the environment or the home directory."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_rotated_access_key_needs_no_restart(server: Server, tmp_path: Path) -> None:
    """Both files are read again whenever the store is used."""
    for name in ("id", "secret"):
        (tmp_path / name).write_text("first\n")
    s3 = S3Settings(
        server.url, "us-east-1", Secret.from_file(tmp_path / "id"), Secret.from_file(tmp_path / "secret")
    )  # fmt: skip
    store = ObjectStore("s3://bucket/prefix", lambda: storage_options(s3))
    assert store.get("one") == b"content"
    (tmp_path / "id").write_text("second\n")
    assert store.get("one") == store.get("two") == b"content"
    assert server.signers() == ["first", "second"]
    assert store.root == "bucket/prefix"


def test_without_keys_the_pod_s_identity_is_asked_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As EKS gives it: an address, and a file with a token that is read for every question."""
    (tmp_path / "token").write_text("who-i-am")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url + AGENT)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    s3 = S3Settings(server.url, "us-east-1")
    store = ObjectStore("s3://bucket/pod", lambda: storage_options(s3))
    assert store.get("one") == b"content"
    asked = dict(server.seen)
    assert asked[AGENT]["Authorization"] == "who-i-am"
    assert server.signers() == ["OF-THE-POD"]
    for path, headers in server.seen:
        sent = {name.lower(): text for name, text in headers.items()}
        assert path == AGENT or sent["x-amz-security-token"] == "of-a-session"
