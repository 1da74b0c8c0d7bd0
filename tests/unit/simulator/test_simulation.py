"""The whole exchange in virtual time: who is let in, what is held, how it ends, and that all of it repeats itself."""

import json
from typing import Any

import pytest

from libs.marketdata.units import MILLISECOND, SECOND
from services.simulator.faults.chance_script import random_script
from services.simulator.faults.entries import FaultInvalid, read_entry
from services.simulator.faults.menu import KINDS, Fault, On
from services.simulator.faults.script import ScriptInvalid, parse_script, script_of_journal
from services.simulator.journal import MemoryJournal
from services.simulator.line import Close
from services.simulator.model import market_journal
from services.simulator.plan import ModelPlan
from services.simulator.settings import KeySettings, SimulatorSettings
from services.simulator.simulation import Simulation
from tests.contract.simulator.play import LIVELY, NOW
from tests.unit.simulator.faulty import ZONES, Faulty

KEYS = tuple(KeySettings(key, "", zone) for key, zone in ZONES.items())


class Clients:
    """Scripted clients without sockets: four connections that come again whenever they are closed or refused."""

    PLANS = (
        ("key-a", "orderbook_delta"),
        ("key-a", "ticker"),
        ("key-b", "orderbook_delta"),
        ("key-b", "trade"),
    )
    PATIENCE = 800 * MILLISECOND

    def __init__(self, settings: SimulatorSettings, faults: list[Fault]) -> None:
        self.market, self.session = MemoryJournal(), MemoryJournal()
        self.stepped: list[tuple[On, int]] = []
        self.simulation = Simulation(
            settings, self.market, self.session, NOW, faults=faults, step_clock=self._step
        )
        self.received: list[Any] = []
        self._lines: dict[int, Any] = dict.fromkeys(range(len(self.PLANS)))
        self._again = dict.fromkeys(range(len(self.PLANS)), 0)

    def _step(self, on: On, by_ms: int) -> None:
        self.stepped.append((on, by_ms))

    def run(self, seconds: int, tick_ms: int = 25) -> None:
        simulation = self.simulation
        now = epoch = simulation.stage.epoch
        while now < epoch + seconds * SECOND:
            now += tick_ms * MILLISECOND
            while not simulation.advance(now):
                pass
            for place in self._lines:
                self._serve(place, now)
        simulation.finish(simulation.end(now) + SECOND, now + SECOND)
        for place in self._lines:
            self._serve(place, now + SECOND)

    def _serve(self, place: int, now: int) -> None:
        line = self._lines[place]
        if line is None:
            self._dial(place, now)
            return
        for action in line.take(now // MILLISECOND):
            self.received.append((line.number, now, action))
        if line.is_over or (line.is_dead and now % (5 * SECOND) == 0):
            self.simulation.disconnect(line, now)
            self._lines[place], self._again[place] = None, now + self.PATIENCE

    def _dial(self, place: int, now: int) -> None:
        key, channel = self.PLANS[place]
        if now < self._again[place]:
            return
        if self.simulation.refuse_connect(key, now) is not None:
            self._again[place] = now + self.PATIENCE
            return
        line = self._lines[place] = self.simulation.connect(key, "here", now)
        params: dict[str, Any] = {"channels": [channel]}
        if channel == "orderbook_delta":
            params["market_tickers"] = list(self.simulation.exchange.listings)[:20]
        line.receive(
            json.dumps({"id": 1, "cmd": "subscribe", "params": params}), now // MILLISECOND
        )


def is_paused(play: Faulty) -> bool:
    return play.simulation.exchange.pause is not None


def played(seed: int, faults: list[Fault], seconds: int = 30, tick_ms: int = 25) -> Clients:
    clients = Clients(SimulatorSettings(**(LIVELY | {"keys": KEYS, "seed": seed})), faults)
    clients.run(seconds, tick_ms)
    return clients


@pytest.mark.parametrize("seed", [1, 2])
def test_same_seed_script_and_commands_give_the_same_journals(seed: int) -> None:
    """Market journal, session journal and every byte on every wire repeat themselves, with some faults of each kind."""
    script = random_script(seed, 90, ("a", "b"), kinds=tuple(KINDS), every_s=1.0)
    first, second = (played(seed, script, seconds=90) for _ in range(2))
    assert first.market.bytes() == second.market.bytes()
    assert first.session.bytes() == second.session.bytes()
    assert first.received == second.received
    hit = {json.loads(line)["fault"] for line in first.session.lines if '"phase":"hit"' in line}
    assert len(hit) > 12
    assert len(first.received) > 1_000
    assert first.market.bytes() != played(seed + 5, script).market.bytes()


def test_the_market_journal_depends_on_seed_length_and_market_faults_only() -> None:
    """Other faults, other clients and another pace change nothing; clock steps and creations do, at their millisecond."""
    quiet = played(3, [], seconds=10)
    noisy = played(
        3, random_script(9, 10, ("a",), ("drop", "close", "stall", "reset"), 0.3), 10, 10
    )
    assert quiet.market.bytes() == noisy.market.bytes()
    assert quiet.session.bytes() != noisy.session.bytes()
    script = parse_script(
        [
            {"fault": "clock_step", "by_ms": -700, "at_s": 2.0013},
            {"fault": "create_markets", "count": 5, "at_s": 4.5},
        ]
    )
    slow, fast = played(3, script, 10, 50), played(3, script, 10, 10)
    assert slow.market.bytes() == fast.market.bytes() != quiet.market.bytes()
    settings = SimulatorSettings(**(LIVELY | {"seed": 3}))
    epoch = slow.simulation.stage.epoch
    end, final = slow.simulation.end_ts, slow.simulation.final_ts
    assert end is not None
    assert final is not None
    happened: list[Any] = [
        ("clock", -700_000, epoch + 2_002_000), ("create", 5, epoch + 4_500_000),
    ]  # fmt: skip
    assert slow.market.bytes() == market_journal(
        ModelPlan.of(settings), epoch, end, final, happened
    )
    hits = [json.loads(line) for line in slow.session.lines if '"phase":"hit"' in line]
    assert [hit["exchange_at"] for hit in hits] == [epoch + 2_002_000, epoch + 4_500_000]


def test_a_run_can_be_had_again_from_its_journal() -> None:
    """The script read out of a session journal does the same again, faults that were injected by hand included."""
    script = random_script(4, 8, ("a", "b"), ("drop", "close", "truncate", "stall", "error"), 0.5)
    first = Clients(SimulatorSettings(**(LIVELY | {"keys": KEYS, "seed": 4})), script)
    first.run(10)
    again = played(4, parse_script(script_of_journal(first.session.lines)), seconds=10)
    assert again.session.bytes() == first.session.bytes()
    assert again.received == first.received


def test_a_clock_of_ours_is_stepped_by_who_owns_it() -> None:
    """The world is told, the journal says so, the market is the same; where nobody owns it, it is refused."""
    script = parse_script(
        [{"fault": "clock_step", "whose": "ours", "by_ms": 5_000, "at_s": 1, "on": {"zone": "a"}}]
    )
    clients = played(5, script, seconds=3)
    assert clients.stepped == [(On(zone="a"), 5_000)]
    assert clients.market.bytes() == played(5, [], seconds=3).market.bytes()
    settings = SimulatorSettings(**LIVELY)
    with pytest.raises(ScriptInvalid, match="whose: choose exchange"):
        Simulation(settings, MemoryJournal(), MemoryJournal(), NOW, faults=script)
    play = Faulty()
    with pytest.raises(FaultInvalid, match="whose: choose exchange"):
        play.fault(fault="clock_step", whose="ours", by_ms=1)
    assert play.told("begin") == []


def test_refused_connections_get_the_answer_of_the_fault() -> None:
    """Status and body as asked for, only for the zone that is named, only as long as it lasts."""
    play = Faulty()
    play.fault(fault="refuse", for_s=2, on={"zone": "a"})
    play.fault(fault="refuse", for_s=1, status=429, body="json", on={"key": "key-b"})
    page = play.simulation.refuse_connect("key-a", play.now)
    json_body = play.simulation.refuse_connect("key-b", play.now)
    assert page is not None
    assert (page.status, page.content_type) == (502, "text/html")
    assert json_body is not None
    assert json_body.status == 429
    assert json.loads(json_body.body)["error"]["code"] == "too_many_requests"
    hits = play.told("hit")
    assert [(hit["key_id"], hit["status"]) for hit in hits] == [("key-a", 502), ("key-b", 429)]
    play.wait(1.5)
    assert play.simulation.refuse_connect("key-b", play.now) is None
    assert play.simulation.refuse_connect("key-a", play.now) is not None
    play.wait(1)
    assert play.simulation.refuse_connect("key-a", play.now) is None


def test_an_expired_key_is_shut_out_everywhere() -> None:
    """Its connections are closed, new ones and its REST requests get 401, and later all is well again."""
    play = Faulty()
    heard, other = play.books(), play.books("key-b")
    play.fault(fault="auth_expiry", for_s=3, on={"zone": "a"})
    assert [action for _, action in heard.others] == [Close(1008)]
    assert other.others == []
    refused = play.simulation.refuse_connect("key-a", play.now)
    assert refused is not None
    assert refused.status == 401
    rest = play.simulation.rest_trouble
    answer = rest.answer("/markets", "key-a", play.now)
    assert answer is not None
    assert answer.status == 401
    assert rest.answer("/markets", "key-b", play.now) is None
    assert play.simulation.refuse_connect("key-b", play.now) is None
    play.wait(3)
    assert play.simulation.refuse_connect("key-a", play.now) is None
    assert rest.answer("/markets", "key-a", play.now) is None


def test_maintenance_closes_pauses_and_ends() -> None:
    """Everybody is sent away with 1001, nobody is let in, nothing is traded, the status says until when."""
    play = Faulty()
    heard, other = play.books(), play.books("key-b")
    play.wait(1)
    play.fault(fault="maintenance", for_s=10)
    until = play.now + 10 * SECOND
    assert [action for client in (heard, other) for _, action in client.others] == [Close(1001)] * 2
    assert play.simulation.exchange.pause == until
    refused = play.simulation.refuse_connect("key-b", play.now)
    assert refused is not None
    assert refused.status == 503
    play.wait(1)
    count = len(play.journal("delta"))
    play.wait(8)
    assert len(play.journal("delta")) == count
    play.wait(3)
    assert not is_paused(play)
    assert play.simulation.refuse_connect("key-b", play.now) is None
    assert len(play.journal("delta")) > count + 100


def test_maintenance_that_is_ended_early_lets_trading_go_on() -> None:
    """The exchange opens at the end that came, not at the one that was planned; a longer one keeps it closed."""
    play = Faulty()
    play.fault(fault="maintenance", for_s=600)
    play.fault(fault="maintenance", for_s=5)
    play.simulation.faults.end(1, play.now)
    assert play.simulation.exchange.pause == play.now + 5 * SECOND
    play.wait(2)
    assert play.simulation.refuse_connect("key-a", play.now) is not None
    play.simulation.faults.end(2, play.now)
    assert not is_paused(play)
    before = len(play.journal("delta"))
    play.wait(2)
    assert len(play.journal("delta")) > before + 50


@pytest.mark.parametrize("code", [26, 27])
def test_an_error_answers_the_next_commands(code: int) -> None:
    """As many as asked for, in the sequence of the sid they name; nothing is done, and then all goes on."""
    play = Faulty()
    heard = play.books()
    play.fault(fault="error", code=code, count_max=2)
    last = heard.numbers(1)[-1]
    frames = [
        *heard.update("add_markets", market_tickers=["KXX-1"]), *heard.subscribe("trade"), *heard.subscribe("trade"),
    ]  # fmt: skip
    assert [(f["type"], f.get("sid"), f.get("seq")) for f in frames] == [
        ("error", 1, last + 1), ("error", None, None), ("subscribed", None, None),
    ]  # fmt: skip
    assert [f["msg"]["code"] for f in frames[:2]] == [code, code]
    assert [(hit["code"], hit.get("sid")) for hit in play.told("hit")] == [(code, 1), (code, None)]


def test_books_of_a_session_are_limited() -> None:
    """One more order book than the session may have is refused with 26, whole; the subscription lives on."""
    play = Faulty(session_markets_max=5)
    heard = play.connect_as("key-a")
    (refused,) = heard.subscribe("orderbook_delta", market_tickers=play.tickers[:6])
    assert (refused["type"], refused["msg"]["code"], "sid" in refused) == ("error", 26, False)
    heard.subscribe("orderbook_delta", market_tickers=play.tickers[:5])
    (error,) = heard.subscribe("orderbook_delta", market_tickers=play.tickers[4:6])
    assert (error["sid"], error["seq"], error["msg"]["code"]) == (1, 6, 26)
    assert heard.subscribe("trade", market_tickers=play.tickers)[0]["type"] == "subscribed"
    assert list(heard.line.session.subscriptions[1].tickers or ()) == play.tickers[:5]


def test_connections_of_a_key_are_limited() -> None:
    """One too many is answered 429 and noted; another key, or one less, is let in."""
    play = Faulty(connections_max=2)
    first, _ = play.connect_as("key-a"), play.connect_as("key-a")
    refused = play.simulation.refuse_connect("key-a", play.now)
    assert refused is not None
    assert refused.status == 429
    (noted,) = play.told("", "refused")
    assert (noted["key_id"], noted["status"], noted["connections"]) == ("key-a", 429, 2)
    assert play.simulation.refuse_connect("key-b", play.now) is None
    play.simulation.disconnect(first.line, play.now)
    assert play.simulation.refuse_connect("key-a", play.now) is None


def test_a_held_exchange_lists_and_publishes_after_its_start() -> None:
    """Before it nothing exists and no script runs; those who were connected hear what is published from then on."""
    market, session = MemoryJournal(), MemoryJournal()
    settings = SimulatorSettings(**(LIVELY | {"held": True}))
    drop = read_entry({"fault": "close", "at_s": 2})
    simulation = Simulation(settings, market, session, NOW, faults=[drop])
    line = simulation.connect("key", None, NOW)
    line.receive('{"id":1,"cmd":"subscribe","params":{"channels":["trade"]}}', NOW // 1000)
    now = NOW + 100 * SECOND
    assert simulation.advance(now)
    assert (market.lines, simulation.stage.mode) == ([], "held")
    with pytest.raises(FaultInvalid, match="create_markets needs a made-up market"):
        simulation.inject(read_entry({"fault": "create_markets"}), now)
    assert simulation.start(now)
    assert not simulation.start(now)
    assert now <= simulation.stage.epoch <= now + 2 * SECOND
    heard = []
    while now < simulation.stage.epoch + 3 * SECOND:
        now += 20 * MILLISECOND
        simulation.advance(now)
        heard += line.take(now // MILLISECOND)
    assert heard[-1] == Close(1001)
    assert len(heard) > 5


def test_the_end_is_heard_whatever_went_wrong() -> None:
    """Ending publishing ends every fault, and every sid that can have a last frame has it."""
    play = Faulty()
    heard = play.books()
    play.fault(fault="stall", for_s=600, lost=True)
    play.fault(fault="refuse", for_s=600)
    play.wait(1)
    end = play.simulation.end(play.now)
    assert play.simulation.faults.active == {}
    play.now = end + SECOND
    record = play.simulation.finish(play.now, play.now)
    play.take()
    assert record["end_ts"] == end
    assert heard.frames[-1]["sending_ts_ms"] * 1000 == play.now
    assert {line["early"] for line in play.told("end")} == {False}


def test_faults_by_chance_come_from_the_settings() -> None:
    """A seed in the settings makes faults without end; the same seed makes the same ones."""
    journals = []
    for seed in (5, 5, 6):
        play = Faulty(faults_random=seed, faults_every_s=0.5)
        play.wait(10)
        journals.append(play.session.bytes())
    assert journals[0] == journals[1] != journals[2]
    assert journals[0].count(b'"phase":"begin"') > 5
