"""`kalshi-data verdict` as it is typed: journals over HTTP, a real production."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from libs.store.pool import Target
from services.local.verdict_command import main

S = 1_000_000
pytestmark = pytest.mark.postgres


def written(path: Path, *entries: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries))


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[str]:
    """The control port of an exchange with one market and two deltas, 10 s and 20 s after its beginning."""
    told = tmp_path / "control"
    (told / "journal").mkdir(parents=True)
    (told / "state").write_text(json.dumps({"epoch": 0}))
    delta = {"kind": "delta", "ticker": "M", "side": True, "price": 50_000, "size_delta": 100}
    written(
        told / "journal/market",
        {"kind": "created", "at": 0, "ticker": "M", "yes": [], "no": [], "initial": True},
        delta | {"exchange_ts": 10 * S},
        delta | {"exchange_ts": 20 * S},
    )
    written(
        told / "journal/session", {"kind": "opened", "at": S, "connection": 1, "key_id": "key-a"}
    )

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(tmp_path), **kwargs)  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def config(tmp_path: Path, production_db: Target) -> Path:
    store = {name: getattr(production_db, name) for name in ("host", "port", "database", "user")}
    store["password"] = production_db.password
    path = tmp_path / "deduplicator.yaml"
    path.write_text(
        yaml.safe_dump({"gatherers": [{"zone": "a", "store": store}], "production": store})
    )
    return path


def test_what_nobody_claims_is_missing_and_no_broken_promise(
    exchange: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a span only its own facts; an empty production of which nobody says more holds, and shows the gap."""
    words = ["--config", str(config), "--exchange", exchange, "--key-id", "key-{zone}"]
    assert main([*words, "--from", str(5 * S), "--to", str(15 * S), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    deltas = found["tables"]["orderbook_deltas"]
    assert (deltas["truth"], deltas["missing"], deltas["unsound"]) == (1, 1, 0)
    assert found["unplanned_gaps"]["a"] == {"count": 1, "longest": [["M", 5 * S, 15 * S]]}
    assert found["zones"]["production"]["share"] == 0.0


def test_an_absence_that_no_gap_shows_is_a_fault(
    exchange: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gap must hold all of the time in which the zone is said to have been away."""
    words = ["--config", str(config), "--exchange", exchange, "--key-id", "key-{zone}"]
    span = ["--from", str(5 * S), "--to", str(15 * S), "--json"]
    assert main([*words, *span, "--away", f"a={6 * S}..{9 * S}"]) == 0
    capsys.readouterr()
    assert main([*words, *span, "--away", f"a={3 * S}..{9 * S}"]) == 1
    assert json.loads(capsys.readouterr().out)["reasons"] == [
        "the absence of zone a does not show as its gap"
    ]


def test_what_cannot_be_asked_is_said(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No verdict is not a bad one."""
    assert main(["--config", str(config), "--exchange", "http://127.0.0.1:9"]) == 2
    assert "http://127.0.0.1:9/control/journal/market: " in capsys.readouterr().err
