"""Settings of the simulator: what it listens on, which world it makes up, whom it lets in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from libs.runtime.convert import Between
from libs.runtime.secret import OrFile
from libs.runtime.sections import HealthSettings, LogSettings, MetricsSettings

Tier = Literal["basic", "advanced", "expert", "premier", "paragon", "prime", "prestige", "none"]


@dataclass(frozen=True, slots=True)
class KeySettings:
    """One API key that may sign in."""

    key_id: Annotated[str, OrFile]
    """The key's id, as sent in KALSHI-ACCESS-KEY. No default: a key without an id is no key."""

    public_key_file: str
    """PEM file with the public key (RSA or Ed25519) that verifies the key's signatures; a private key does too, its public
    part is taken. No default."""

    zone: str = ""
    """Which of our zones uses the key: what a fault's `on.zone` names. Empty: none, only faults for everyone hit it."""


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """Recorded frames to send instead of the made-up market."""

    file: str = ""
    """JSON lines of recorded frames: bare or {recv_at, ordinal, frame}. Empty: no replay, the model runs."""

    speed: Annotated[float, Between(0, 1_000_000)] = 0.0
    """Pacing: 1 = as recorded, 2 = twice as fast, 0 = as fast as possible (tests want the end, not the wait)."""

    verbatim: bool = False
    """Keep the recorded sid and seq. Off: a subscriber's own numbers, because recordings are samples with holes."""

    use_yes_price: bool = False
    """Orientation of the recording when it holds no `command` line that says it. The exchange's default."""


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """The section `simulator:`."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback: whoever wants more says so."""

    port: Annotated[int, Between(0, 65_535)] = 8700
    """TCP port of REST, websocket and control; 0 = any free one (tests)."""

    control_host: str = "127.0.0.1"
    """Address of the control's own port, where it has one. Loopback: in a pod `kubectl port-forward` reaches it, other pods
    do not."""

    control_port: Annotated[int, Between(0, 65_535)] = 0
    """TCP port of the control alone; `port` then answers nothing under /control. 0: both on `port`, as on a laptop."""

    seed: int = 1
    """Seed of the market model: the same seed, epoch and length give the same market journal, byte for byte."""

    epoch_us: Annotated[int, Between(0, 1 << 62)] = 0
    """Model time zero, microseconds since 1970, a whole second; 0 = the next whole second
    after the markets are listed."""

    markets: Annotated[int, Between(0, 10_000_000)] = 60
    """Markets that exist at the epoch. Enough for several series and a laptop."""

    rate: Annotated[float, Between(0, 1_000_000)] = 100.0
    """Mean deltas per second over all markets together; arrivals come in bursts."""

    new_market_every_s: Annotated[float, Between(0, 31_536_000)] = 10.0
    """Mean time between newly created markets, seconds; 0 = none."""

    closing_share: Annotated[float, Between(0, 1)] = 0.1
    """Share of the markets (old and new) that close, are determined and settled while running, 0..1."""

    close_after_s_min: Annotated[float, Between(0, 31_536_000)] = 20.0
    """A closing market closes at the earliest this many seconds after the epoch or its first order."""

    close_after_s_max: Annotated[float, Between(0, 31_536_000)] = 60.0
    """... and at the latest this many, so that a run of a minute sees the whole life of a market."""

    pause_every_s: Annotated[float, Between(0, 31_536_000)] = 20.0
    """Mean time between short pauses of one market (deactivated, activated), seconds; 0 = none."""

    combo_share: Annotated[float, Between(0, 1)] = 0.05
    """Share of the markets (old and new) that are combos (KXMVE...), with their own lifecycle channel, 0..1."""

    news_every_s: Annotated[float, Between(0, 31_536_000)] = 20.0
    """Mean time between the rarer messages about live markets (price structure, sub-title, close time, an event's
    fees), seconds; 0 = none."""

    keys: tuple[KeySettings, ...] = ()
    """Keys that may open a websocket. None: nobody can."""

    journal_dir: str = ""
    """Directory of market.jsonl and session.jsonl. Empty: a temporary one, removed at the end."""

    tick_ms: Annotated[float, Between(0.1, 1_000)] = 5.0
    """Pause between two publishing rounds, milliseconds: the delay a change may have, and the size of a write."""

    quiet_ms: Annotated[int, Between(0, 600_000)] = 2_000
    """Silence between the end of publishing and the last frame of every sid, milliseconds: above the 1 s margin
    of listening, so that the last frame proves everything before the end to have been heard."""

    outbound_bytes_max: Annotated[int, Between(1, 1 << 40)] = 16 * 1024 * 1024
    """Bytes that may wait for a slow client, per connection; beyond, its subscriptions die with error 25."""

    ping_s: Annotated[float, Between(0.01, 3_600)] = 10.0
    """Time between two pings (payload `heartbeat`) on every connection, seconds: the exchange's own."""

    clock_skew_ms_max: Annotated[int, Between(0, 86_400_000)] = 10_000
    """Largest age or lead of a signed timestamp, milliseconds. The exchange takes 5 to 10 s and refuses 30."""

    connections_max: Annotated[int, Between(1, 1_000_000)] = 200
    """Open websockets of one key; the exchange's own number (kalshi-api 3.1). One more is answered HTTP 429: our inference,
    what the exchange says is not known."""

    subscription_markets_max: Annotated[int, Between(0, 10_000_000)] = 0
    """Markets of one subscription, beyond which error 26 answers; 0: no limit, the exchange publishes none."""

    session_markets_max: Annotated[int, Between(1, 10_000_000)] = 500_000
    """Order books one connection may subscribe to, the exchange's own number; beyond it error 26 answers."""

    commands_per_s_max: Annotated[int, Between(1, 10_000_000)] = 10_000
    """Commands of one connection in a second, the exchange's own number; beyond it error 27 answers."""

    faults_file: str = ""
    """Script of faults (YAML or JSON) that happen by themselves. Empty: none."""

    faults_random: Annotated[int, Between(0, 1 << 53)] = 0
    """Seed of faults that happen by chance besides; 0: none."""

    faults_every_s: Annotated[float, Between(0.01, 31_536_000)] = 30.0
    """Mean time between two faults by chance, seconds."""

    held: bool = False
    """Nothing is listed or published until POST /control/start: for those who want everything else to be up first."""

    trades_kept: Annotated[int, Between(1, 1_000_000_000)] = 200_000
    """Trades the REST tape remembers; older ones are forgotten (the exchange keeps about 3 months)."""

    tier: Tier = "basic"
    """Usage tier of every account (kalshi-api 1.3): how many reads a second it may make. `none`: reads are not counted,
    neither signed nor unsigned ones."""

    books_cost: Annotated[int, Between(1, 10_000)] = 10
    """Tokens of GET /markets/orderbooks; /account/endpoint_costs names it when it is not the usual 10. 10: nothing says that
    it costs another number, but for orders a batch is billed by its items."""

    rest_stale_s_max: Annotated[float, Between(0, 3_600)] = 15.0
    """Largest age of a REST market read, seconds: the exchange's answers come out of a cache of 15 s. 0: always fresh."""

    rest_unknown_s_max: Annotated[float, Between(0, 60)] = 1.0
    """For at most this long after `created` GET /markets/{ticker} knows nothing of a new market, seconds."""

    replay: ReplaySettings = field(default_factory=ReplaySettings)
    """Recorded frames to send instead of the model's."""

    def check(self) -> Iterator[str]:
        """What spans fields, or one field's grid."""
        if self.epoch_us % 1_000_000:
            yield "epoch_us: must be a whole second"
        if self.close_after_s_min > self.close_after_s_max:
            yield "close_after_s_min: must not be above close_after_s_max"
        if self.control_port and self.control_port == self.port:
            yield "control_port: must differ from port, or be 0"
        if self.held and self.replay.file:
            yield "held: leave it out of a replay, which waits for every subscription anyway"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything config/simulator.yaml holds."""

    simulator: SimulatorSettings = field(default_factory=SimulatorSettings)
    """The exchange that is simulated."""

    health: HealthSettings = field(default_factory=HealthSettings)
    """Where /livez, /readyz and /health answer."""

    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    """Where /metrics answers."""

    log: LogSettings = field(default_factory=LogSettings)
    """What is logged, and how."""
