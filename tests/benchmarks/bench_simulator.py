"""What the simulated exchange costs: listing its markets, first snapshots, fan-out, and a second of a large market.

    python -m tests.benchmarks.bench_simulator [part ...]        parts: list snapshots fanout second create; none: all

Everything is in one process and without sockets: the exchange as the server runs it, frames down to the bytes of a
websocket. Prints seconds, MB and microseconds of CPU. Listing is measured in processes of its own, for their memory.
"""

import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator.line import Line
from services.simulator.paging import Query
from services.simulator.rest_listings import RestListings
from services.simulator.settings import SimulatorSettings
from services.simulator.simulation import Simulation
from services.simulator.stages import LiveStage
from services.simulator.wire import wire_bytes

NOW = 1_795_000_000 * SECOND
LARGE = 100_000
WHOLE = ("ticker", "trade", "market_lifecycle_v2")
BOOK_SLOTS, CHUNK = 144, 500
TICK = 5 * MILLISECOND


class Nowhere:
    """A journal that only counts what is written."""

    def __init__(self) -> None:
        self.bytes = 0

    def line(self, text: str) -> None:
        self.bytes += len(text)

    def record(self, fields: dict[str, object]) -> None:
        self.bytes += len(json.dumps(fields, separators=(",", ":")))


def simulation(markets: int, rate: float = 0.0) -> Simulation:
    """An exchange of open markets that only trade."""
    settings = SimulatorSettings(
        markets=markets, rate=rate, new_market_every_s=0.0, closing_share=0.0, pause_every_s=0.0, news_every_s=0.0,
        connections_max=10_000,
    )  # fmt: skip
    return Simulation(settings, Nowhere(), Nowhere(), NOW)


def subscribe(line: Line, channel: str, tickers: Iterable[str], now: int) -> None:
    params = {"channels": [channel], "market_tickers": list(tickers)}
    text = json.dumps({"id": 1, "cmd": "subscribe", "params": params})
    line.receive(text, now // MILLISECOND)


def carry(exchange: Simulation, now: int) -> tuple[int, int]:
    """Take everything out of every line; returns frames and bytes."""
    frames = size = 0
    for line in exchange.lines.values():
        if line.is_due(now // MILLISECOND):
            actions = line.take(now // MILLISECOND)
            frames += len(actions)
            size += len(wire_bytes(actions))
    return frames, size


def perform(exchange: Simulation, begin: int, until: int) -> tuple[int, int, float, float]:
    """Let time pass; returns frames, bytes, CPU seconds and the longest round."""
    frames = size = 0
    longest = 0.0
    started = time.process_time()
    for now in range(begin, until + 1, TICK):
        is_done = False
        while not is_done:
            at = time.process_time()
            is_done = exchange.advance(now)
            more = carry(exchange, now)
            frames, size = frames + more[0], size + more[1]
            longest = max(longest, time.process_time() - at)
    return frames, size, time.process_time() - started, longest


def tell(name: str, *figures: str) -> None:
    sys.stdout.write(f"{name:38}" + "".join(f"{figure:>20}" for figure in figures) + "\n")
    sys.stdout.flush()


def listing(markets: int) -> None:
    """Start an exchange, then read all of it by REST in pages of 1,000."""
    started = time.perf_counter()
    exchange = simulation(markets)
    ready = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rest = RestListings(exchange.exchange, lambda: exchange.stage.epoch, 1, 0)
    started = time.perf_counter()
    cursor, seen, longest = "", 0, 0.0
    while True:
        at = time.perf_counter()
        page = json.loads(rest.markets(Query(f"limit=1000&status=open&cursor={cursor}")).body)
        longest = max(longest, time.perf_counter() - at)
        seen += len(page["markets"])
        cursor = page["cursor"]
        if not cursor:
            break
    paged = time.perf_counter() - started
    assert seen == markets, seen
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tell(f"list {markets:,}", f"{ready:.1f} s", f"{memory:.0f} MB", f"pages {paged:.1f} s", f"{after:.0f} MB",
         f"longest {longest * 1e3:.0f} ms")  # fmt: skip


def list_markets() -> None:
    for markets in (LARGE, 1_000_000):
        subprocess.run([sys.executable, "-m", __spec__.name, "listing", str(markets)], check=True)


def books_everywhere(exchange: Simulation, now: int) -> list[float]:
    """Subscribe the books of all markets over the slots; returns the seconds of each command."""
    tickers = list(exchange.exchange.listings)
    times = []
    for slot in range(BOOK_SLOTS):
        line = exchange.connect("key", None, now)
        mine = tickers[slot::BOOK_SLOTS]
        for start in range(0, len(mine), CHUNK):
            at = time.process_time()
            subscribe(line, "orderbook_delta", mine[start : start + CHUNK], now)
            wire_bytes(line.take(now // MILLISECOND))
            times.append(time.process_time() - at)
    return times


def snapshots() -> None:
    exchange = simulation(LARGE)
    times = books_everywhere(exchange, exchange.stage.epoch)
    tell(f"first snapshots of {LARGE:,} books", f"{sum(times):.1f} s", f"{sum(times) / LARGE * 1e6:.0f} us each",
         f"longest {max(times) * 1e3:.0f} ms")  # fmt: skip


def fanout() -> None:
    """Every delta to every session."""
    for sessions in (1, 33, 150):
        exchange = simulation(60, 2_000.0)
        epoch = exchange.stage.epoch
        tickers = list(exchange.exchange.listings)
        for _ in range(sessions):
            subscribe(exchange.connect("key", None, epoch), "orderbook_delta", tickers, epoch)
        carry(exchange, epoch)
        frames, size, seconds, _ = perform(exchange, epoch, epoch + 3 * SECOND)
        deltas = exchange.exchange.counts["delta"]
        tell(f"every delta to {sessions} sessions", f"{deltas / seconds:,.0f} deltas/s", f"{frames / seconds:,.0f} frames/s",
             f"{seconds / frames * 1e6:.2f} us/frame", f"{size / frames:.0f} bytes")  # fmt: skip


def second() -> None:
    """100,000 open markets, all books over 144 sessions, every whole channel twice, 2,000 deltas a second."""
    exchange = simulation(LARGE, 2_000.0)
    epoch = exchange.stage.epoch
    books_everywhere(exchange, epoch)
    for channel in WHOLE * 2:
        line = exchange.connect("key", None, epoch)
        line.receive(
            json.dumps({"id": 1, "cmd": "subscribe", "params": {"channels": [channel]}}), 0
        )
    carry(exchange, epoch)
    gc.collect()
    frames, _, seconds, longest = perform(exchange, epoch, epoch + 10 * SECOND)
    deltas = exchange.exchange.counts["delta"]
    tell(f"{LARGE:,} markets, 150 sessions, 2,000/s", f"{seconds * 10:.1f} % of a core", f"{deltas / 10:,.0f} deltas/s",
         f"{frames / 10:,.0f} frames/s", f"longest {longest * 1e3:.0f} ms")  # fmt: skip


def create() -> None:
    """100,000 markets created at once, heard by six lifecycle sessions, beside ordinary trading."""
    exchange = simulation(60, 200.0)
    epoch = exchange.stage.epoch
    for _ in range(6):
        line = exchange.connect("key", None, epoch)
        line.receive('{"id":1,"cmd":"subscribe","params":{"channels":["market_lifecycle_v2"]}}', 0)
    stage = exchange.stage
    assert isinstance(stage, LiveStage)
    at = stage.create_markets(LARGE, epoch + SECOND)
    frames, longest, used, until = 0, 0.0, 0.0, at
    while len(exchange.exchange.listings) < LARGE:
        more, _, seconds, round_ = perform(exchange, until, until + SECOND // 2)
        frames, used, longest, until = (
            frames + more,
            used + seconds,
            max(longest, round_),
            until + SECOND // 2,
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tell(f"{LARGE:,} markets created", f"within {(until - at) / SECOND:.1f} s", f"{used:.1f} s of CPU",
         f"{frames:,} frames", f"{memory:.0f} MB", f"longest {longest * 1e3:.0f} ms")  # fmt: skip


PARTS: dict[str, Callable[[], None]] = {
    "list": list_markets,
    "snapshots": snapshots,
    "fanout": fanout,
    "second": second,
    "create": create,
}


def main() -> None:
    if sys.argv[1:2] == ["listing"]:
        listing(int(sys.argv[2]))
        return
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
