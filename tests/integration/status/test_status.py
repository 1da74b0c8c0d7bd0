"""`kalshi-data status` over two databases: tables for people, JSON for programs, and one that is away."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.store.pool import Target, connect
from services.status import command as status_command
from services.status.command import EXIT_AWAY, EXIT_OK, main
from tests.support.postgres import run


def _config(path: Path, gatherer: Target, production: Target) -> Path:
    def store(target: Target) -> dict[str, Any]:
        return {
            "host": target.host, "port": target.port, "database": target.database, "user": target.user,
            "password": target.password, "connect_timeout_s": 2.0,
        }  # fmt: skip

    text = {
        "gatherers": [{"zone": "a", "store": store(gatherer)}],
        "production": store(production),
    }
    path.write_text(json.dumps(text), encoding="utf-8")
    return path


async def _fill(target: Target) -> None:
    async with connect(target) as conn:
        await conn.execute(
            "INSERT INTO trade_repairs (from_ts, to_ts, due_at, reached_ts, cause, state, trades_stored)"
            " VALUES (1, 2, 3, 1, 'not_heard', 'healed', 41), (1, 2, 3, 2, 'seq', 'partial', 1)"
        )
        await conn.execute(
            "INSERT INTO book_checks (ticker, outcome, requested_at, received_at) VALUES ('M', 'disagree', 1, 2)"
        )
        await conn.execute("INSERT INTO gaps SELECT 1, now_us(), i, 'trade', 's', 'seq', '' FROM generate_series(1, 7) i")  # fmt: skip


def test_status_shows_rows_and_bytes_of_every_table(
    gatherer_db: Target, production_db: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zone and production side by side; what the poller healed and found is in the zone's line."""
    run(_fill(gatherer_db))
    config = str(_config(tmp_path / "production.yaml", gatherer_db, production_db))
    assert main(["--config", config, "--json"]) == EXIT_OK
    found = json.loads(capsys.readouterr().out)
    assert found["a"]["tables"]["gaps"]["rows"] == 7
    assert found["a"]["tables"]["gaps"]["bytes"] > 0
    assert found["a"]["tables"]["gaps"]["is_exact"] is True
    assert found["production"]["tables"]["gaps"]["rows"] == 0
    assert found["a"]["bytes"] > 1_000_000
    assert (found["a"]["trades_healed"], found["a"]["repairs_unhealed"]) == (42, 1)
    assert found["a"]["books_disagree"] == 1
    assert main(["--config", config]) == EXIT_OK
    shown = capsys.readouterr().out
    assert "42 trades, 1 not healed" in shown
    (line,) = [row for row in shown.splitlines() if row.startswith("│ gaps")]
    assert line.split()[3] == "7"


def test_a_database_that_is_away_is_said(
    gatherer_db: Target, production_db: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are shown, and the exit status tells."""
    away = replace(gatherer_db, port=1)
    config = str(_config(tmp_path / "production.yaml", away, production_db))
    assert main(["--config", config]) == EXIT_AWAY
    shown = capsys.readouterr().out
    assert "zone a is away" in shown
    assert "Rows and bytes by table" in shown


def test_a_narrow_terminal_loses_no_letter(
    gatherer_db: Target,
    production_db: Target,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What does not fit 80 columns goes on in the next line; nothing is cut off."""
    config = str(_config(tmp_path / "production.yaml", gatherer_db, production_db))
    monkeypatch.setattr(status_command, "PIPE_WIDTH", 80)
    assert main(["--config", config]) == EXIT_OK
    tables = [row for row in capsys.readouterr().out.splitlines() if row[:1] in tuple("┏┃┡│└")]
    assert max(map(len, tables)) <= 80
    assert not [row for row in tables if "…" in row]
