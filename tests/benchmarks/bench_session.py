"""What a frame costs from bytes to a sealed batch: decode, judge, number, row, batch, pack and hash.

    python -m tests.benchmarks.bench_session [frames]

Prints microseconds of CPU per frame, each way the best of five.
"""

import gc
import json
import sys
import time
from uuid import UUID

from libs.exchange import wire
from libs.flow.batch import Limits
from libs.marketdata.tables import Family
from libs.store.batches import seal
from services.connector.judge import SessionSettings
from services.connector.outlets import Outlets
from services.connector.session import Session

MARKETS = 500
NOW = 1_795_000_000_000_000


def frames(count: int) -> list[bytes]:
    """Deltas as the exchange sends them, a fifth of them in one millisecond with the one before."""
    made = []
    for number in range(count):
        ts_ms = NOW // 1000 + number // 5 * 4
        msg = {
            "market_ticker": f"KXMLBGAME-26AUG191805MIAPHI-{number * 7 % MARKETS}",
            "market_id": "efdb3ff1-2487-4050-bd00-a0b185534dcc",
            "price_dollars": f"{0.01 * (1 + number % 98):.4f}",
            "delta_fp": f"{(number % 400 - 200) + 0.25:.2f}",
            "side": "yes" if number % 2 else "no",
            "ts": "2026-08-20T00:36:01.382426Z",
            "ts_ms": ts_ms,
        }
        body = {
            "type": "orderbook_delta",
            "sid": 1,
            "seq": number + 1,
            "sending_ts_ms": ts_ms + 4,
            "msg": msg,
        }
        made.append(json.dumps(body, separators=(",", ":")).encode())
    return made


def session() -> tuple[Session, Outlets]:
    """A subscribed order-book session."""
    outlets = Outlets(dict.fromkeys(Family, Limits(5000, 1 << 23, 50_000)), 1 << 20)
    made = Session("orderbook/0", UUID(int=1), outlets, SessionSettings(), NOW, NOW)
    made.want([f"KXMLBGAME-26AUG191805MIAPHI-{n}" for n in range(MARKETS)])
    made.tick(NOW)
    command = json.loads(made.take_commands()[0])
    answer = {
        "type": "subscribed",
        "id": command["id"],
        "msg": {"channel": "orderbook_delta", "sid": 1},
    }
    made.receive(json.dumps(answer | {"sending_ts_ms": NOW // 1000}).encode(), NOW)
    return made, outlets


def decode_only(data: list[bytes]) -> None:
    for frame in data:
        wire.decode_message(frame)


def rows_only(data: list[bytes]) -> None:
    """Frames to rows and cut batches, without packing."""
    made, outlets = session()
    batcher = outlets.batchers[Family.DELTAS]
    for frame in data:
        made.receive(frame, NOW)
        if batcher.count >= 5000:
            batcher.cut(NOW)


def sealed(data: list[bytes]) -> None:
    """Frames to sealed batches of 5,000 rows."""
    made, outlets = session()
    batcher = outlets.batchers[Family.DELTAS]
    total = 0
    for start in range(0, len(data), 250):
        for frame in data[start : start + 250]:
            made.receive(frame, NOW)
        if batcher.is_full:
            batch = batcher.cut(NOW)
            assert batch is not None
            total += seal(batch.rows).rows
    assert total >= len(data) // 5000 * 5000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    data = frames(count)
    gc.collect()
    gc.freeze()
    gc.disable()
    for name, work in (
        ("decode", decode_only),
        ("decode to rows", rows_only),
        ("decode to sealed", sealed),
    ):
        best = float("inf")
        for _ in range(5):
            started = time.process_time()
            work(data)
            best = min(best, time.process_time() - started)
        sys.stdout.write(f"{name:18} {best / count * 1e6:6.2f} us/frame\n")


if __name__ == "__main__":
    main()
