"""`kalshi-data gaps` and `coverage` over a production of which everything is known."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from libs.marketdata.units import MINUTE, SECOND
from libs.store.pool import Connection, Target, connect
from services.cli.__main__ import main
from tests.support.postgres import run

NOON = 1_795_262_400_000_000
A, B = UUID(int=1), UUID(int=2)
CLAIM = "received_at, sid, row_no, connection, channel, lane, batch_no, gatherer, merge_no"


async def _insert(conn: Connection, table: str, columns: str, *rows: tuple[Any, ...]) -> None:
    await conn.copy_records_to_table(table, records=rows, columns=columns.split(", "))


async def _fill(target: Target) -> None:
    """Zone a heard market M for 40 s, not for 20 s, and on; zone b the first 50 s; nobody between 50 s and 60 s."""
    claims = [
        (A, 1, 1, 10, NOON, NOON + 41 * SECOND),
        (A, 1, 21, 30, NOON + 59 * SECOND, NOON + 101 * SECOND),
        (B, 2, 1, 30, NOON, NOON + 51 * SECOND),
    ]
    async with connect(target) as conn:
        await conn.execute("INSERT INTO gatherers (identity, zone) VALUES ($1, 'a'), ($2, 'b')", A, B)  # fmt: skip
        for number, (connection, gatherer, first, last, start, end) in enumerate(claims):
            common = (end, 1, number, connection, "orderbook_delta", connection, 1, gatherer, 1)
            await _insert(
                conn, "listen_ranges", f"{CLAIM}, seq_from, seq_to, sent_from, sent_to, margin",
                (*common, first, last, start, end, SECOND),
            )  # fmt: skip
            await _insert(
                conn, "listen_opened", f"{CLAIM}, seq, sent_at, margin, stream, slot, ticker",
                (*common, first, start, SECOND, number, "book-3", "M"),
            )  # fmt: skip
        gap = "received_at, row_no, channel, slot, reason, detail, ticker, from_ts, to_ts, rows_lost, lane, batch_no, gatherer, merge_no"
        await _insert(
            conn, "gaps", gap,
            (NOON, 1, "orderbook_delta", "book-3", "disconnected", "reset", None, NOON + 41 * SECOND, NOON + 59 * SECOND, None, A, 1, 1, 1),
            (NOON, 2, "orderbook_delta", "book-3", "spool_full", "", "M", NOON + 52 * SECOND, NOON + 53 * SECOND, 7, B, 1, 2, 1),
            (NOON, 3, "orderbook_delta", "book-9", "seq", "", None, NOON + 52 * SECOND, NOON + 53 * SECOND, None, B, 1, 2, 1),
        )  # fmt: skip
        await _insert(
            conn, "coverage", "merge_no, table_name, minute, gatherers, is_late, facts",
            (1, "orderbook_deltas", NOON, [1], False, 1000), (2, "orderbook_deltas", NOON, [1], False, -990),
            (2, "orderbook_deltas", NOON, [1, 2], False, 990), (3, "orderbook_deltas", NOON, [2], True, 4),
        )  # fmt: skip
        await _insert(
            conn, "merge_lags", "merge_no, gatherer, table_name, minute, lag_max, buckets, counts",
            (1, 1, "orderbook_deltas", NOON, 130_000, [56, 40], [30, 900]), (2, 1, "orderbook_deltas", NOON, 90_000, [40], [70]),
            (2, 2, "orderbook_deltas", NOON + MINUTE, 2_000_000, [88], [994]),
        )  # fmt: skip
        await conn.execute("INSERT INTO completeness VALUES ($1, 'orderbook_deltas', '{1,2}', 992, 990, 0)", NOON)  # fmt: skip


@pytest.fixture
def words(production_db: Target, tmp_path: Path) -> list[str]:
    """What follows a verb: the known production and its span."""
    run(_fill(production_db))
    store = {
        "host": production_db.host, "port": production_db.port, "database": production_db.database,
        "user": production_db.user, "password": production_db.password,
    }  # fmt: skip
    config = tmp_path / "production.yaml"
    config.write_text(json.dumps({"production": store, "gatherers": []}), encoding="utf-8")
    return ["--config", str(config), "--from", "2026-11-21T11:59Z", "--to", "2026-11-21T12:10Z"]


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("market", [["--market", "M"], []])
def test_gaps_says_who_listened_and_what_nobody_heard(
    words: list[str], market: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One market by index and all by the view give the same: claims, the one hole with its causes, shares."""
    found = _json(capsys, "gaps", *words, *market)
    books = found["channels"]["orderbook_delta"]
    spans = [(c["zone"], c["market"], c["from"][17:], c["to"][14:]) for c in books["listened"]]
    assert spans == [
        ("b", "M", "01.000Z", "00:50.000Z"),
        ("a", "M", "01.000Z", "00:40.000Z"),
        ("a", "M", "00.000Z", "01:40.000Z"),
    ] or sorted(spans) == sorted(
        [("b", "M", "01.000Z", "00:50.000Z"), ("a", "M", "01.000Z", "00:40.000Z"), ("a", "M", "00.000Z", "01:40.000Z")]
    )  # fmt: skip
    (hole,) = books["unheard"]
    assert (hole["from"], hole["to"], hole["seconds"]) == (
        "2026-11-21T12:00:50.000Z",
        "2026-11-21T12:01:00.000Z",
        10.0,
    )
    causes = {(c["zone"], c["reason"], c["slot"], c["rows_lost"]) for c in hole["causes"]}
    own = {("a", "disconnected", "book-3", None), ("b", "spool_full", "book-3", 7)}
    assert causes == (own if market else own | {("b", "seq", "book-9", None)})
    shares = {zone: round(told["share"] * 99) for zone, told in books["shares"].items()}
    assert shares == {"a": 79, "b": 49, "production": 89}
    assert found["channels"]["trade"]["listened"] == []


def test_gaps_reads_well(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The same for eyes: zones by name, times in ISO 8601, causes beside their hole."""
    assert main(["gaps", *words, "--market", "M", "--channel", "orderbook_delta"]) == 0
    shown = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line for line in shown.splitlines() if "│" in line}
    assert "2026-11-21T12:00:50.000Z" in lines["M"] and "10.000 s" in lines["M"]
    assert "a disconnected (reset)" in shown and "b spool_full, 7 rows lost" in shown
    assert all(text in lines["orderbook_delta"] for text in ("79.7980%", "49.4949%", "89.8990%"))
    assert "1 span that nobody heard between the first claim 2026-11-21T12:00:01.000Z" in shown


def test_coverage_counts_who_delivered_what_and_how_late(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Sums of increments, late copies beside them, quantiles of summed sketches, judged minutes."""
    found = _json(capsys, "coverage", *words)
    counts = {tuple(f["zones"]): (f["facts"], f["late_copies"]) for f in found["facts"]}
    assert counts == {("a",): (10, 0), ("a", "b"): (990, 0), ("b",): (0, 4)}
    lags = {lag["zone"]: lag for lag in found["lags"]}
    assert (lags["a"]["rows"], lags["a"]["max_s"]) == (1000, 0.13)
    assert (
        0.030 < lags["a"]["p50_s"] == lags["a"]["p90_s"] < 0.032 < 0.12 < lags["a"]["p99_s"] < 0.13
    )
    assert 1.9 < lags["b"]["p50_s"] <= 2.0 and lags["b"]["minute"] == "2026-11-21T12:01:00.000Z"
    (judged,) = found["completeness"]
    assert (judged["facts"], judged["by_all"]) == (992, 990)
    assert found["listened"]["orderbook_delta"]["production"] == 89 / 99
    assert main(["coverage", *words]) == 0
    shown = capsys.readouterr().out
    assert "99.0000%" in shown and "99.7984%" in shown and "0.130 s" in shown


async def test_quantiles_of_the_view_are_those_of_the_command(words: list[str], production_db: Target) -> None:  # fmt: skip
    """lag_by_minute reads the same from the same sketches."""
    async with connect(production_db) as conn:
        rows = await conn.fetch("SELECT gatherer, rows, p50_s, p99_s, max_s FROM lag_by_minute ORDER BY gatherer")  # fmt: skip
    one, two = rows
    assert (one["gatherer"], one["rows"], one["max_s"]) == (1, 1000, 0.13)
    assert 0.030 < one["p50_s"] < 0.032 and 0.12 < one["p99_s"] < 0.13
    assert (two["rows"], two["max_s"]) == (994, 2.0)


def test_a_plot_is_drawn_on_request(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A PNG beside the tables; a file that cannot be written is told, and the status says so."""
    path = tmp_path / "coverage.png"
    assert main(["coverage", *words, "--market", "M", "--png", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "pixels" in capsys.readouterr().err
    assert main(["coverage", *words, "--png", str(tmp_path / "no" / "such.png")]) == 3


def test_production_that_is_away_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """With its address and status 1; without a configuration the status is 2."""
    config = tmp_path / "production.yaml"
    store = {"host": "127.0.0.1", "port": 9, "database": "d", "user": "u", "password": "p"}
    config.write_text(json.dumps({"production": store}), encoding="utf-8")
    for verb in ("gaps", "coverage"):
        assert main([verb, "--config", str(config)]) == 1
        assert "u@127.0.0.1:9/d" in capsys.readouterr().err
        assert main([verb, "--config", str(tmp_path / "none.yaml")]) == 2
        assert "none.yaml" in capsys.readouterr().err
