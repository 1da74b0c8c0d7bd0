"""The sections that several services share; a service's own section stands in its own settings.py.

Every field says what it means, its unit, and why its default is what it is. An empty text means "not set".
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from libs.marketdata.capture import CaptureFilter
from libs.runtime.convert import Between
from libs.runtime.secret import OrFile, Secret, current
from libs.store.pool import Target
from libs.store.tls import Tls, TlsMode

GATHERER_FILE = frozenset(
    (
        *("zone", "account", "health", "metrics", "log", "exchange", "store"),
        *("slots", "batches", "capture", "registry", "connector", "poller"),
    )
)
"""Every section of config/gatherer.yaml; each service of a zone passes it as `foreign` and reads its own part."""
DEDUPLICATOR_FILE = frozenset(
    ("health", "metrics", "log", "gatherers", "production", "deduplicator", "archiver")
)
"""Every section of config/deduplicator.yaml."""
SIMULATOR_FILE = frozenset(("health", "metrics", "log", "simulator"))
"""Every section of config/simulator.yaml."""
OPERATOR_FILE = frozenset(("health", "metrics", "log", "operator"))
"""Every section of config/operator.yaml."""
DOCTOR_FILE = frozenset(("cluster",))
"""Every section of config/doctor.yaml."""
PLATFORM_SECTIONS = GATHERER_FILE | DEDUPLICATOR_FILE | SIMULATOR_FILE | OPERATOR_FILE | DOCTOR_FILE
"""Every section there is: one `.env` or shell may serve all processes, so a variable of another one's is no mistake."""

Port = Annotated[int, Between(0, 65_535)]
Count = Annotated[int, Between(1, 1_000_000_000)]
Seconds = Annotated[float, Between(0.001, 31_536_000)]
Milliseconds = Annotated[int, Between(1, 86_400_000)]


@dataclass(frozen=True)
class HealthSettings:
    """The server of /livez, /readyz and /health."""

    host: str = "0.0.0.0"  # noqa: S104 - probes come from the node
    """Address to listen on. All of IPv4, because the kubelet asks from outside ("::" for IPv6); 127.0.0.1 on a laptop."""
    port: Port = 8080
    """TCP port; 0 lets the system choose one, which the log line `health_listening` names."""


@dataclass(frozen=True)
class MetricsSettings:
    """The server of /metrics; its own port, because network policies differ from those of the probes."""

    host: str = "0.0.0.0"  # noqa: S104 - Prometheus scrapes from another pod
    """Address to listen on. All of IPv4, because Prometheus scrapes from outside ("::" likewise); 127.0.0.1 on a laptop."""
    port: Port = 9090
    """TCP port; 0 lets the system choose one, which the log line `health_listening` names."""


@dataclass(frozen=True)
class LogSettings:
    """Lines on standard output."""

    format: Literal["json", "text"] = "json"
    """"json" (one object a line, for collectors; default) or "text" (for eyes)."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written. "info" has no line per message, so it is safe under full load."""


@dataclass(frozen=True)
class ExchangeSettings:
    """The exchange: which one, as whom, and how gently."""

    api_key_id: Annotated[str, OrFile]
    """The API key's id, as the exchange shows it. No default: without a key no websocket opens. As `api_key_id_file` it is
    read again together with the key."""
    private_key_file: str
    """Path of the private key (PEM): RSA (PKCS#1 or PKCS#8) or Ed25519, told by the key itself. A file, never a variable; read
    again at every new connection. One that others may read is warned of."""
    environment: Literal["prod", "demo", "simulator"] = "prod"
    """"prod" (real money's market data; default), "demo" (the exchange's test site) or "simulator" (our own)."""
    rest_url: str = ""
    """Base URL of the REST interface. Empty: the environment's own; needed for the simulator."""
    ws_url: str = ""
    """URL of the websocket. Empty: the environment's own; needed for the simulator."""
    connect_timeout_s: Seconds = 10.0
    """Seconds for a connection to open, TLS and sign-in included. 10 s covers a slow handshake, not a dead peer."""
    backoff_s_min: Seconds = 1.0
    """Seconds before the first reconnection. 1 s repairs a blink without hammering."""
    backoff_s_max: Seconds = 30.0
    """Longest wait between reconnections after a failure of the network or a refusal, seconds. 30 s: what is unheard when the
    exchange is back; 150 connections that dial every 15 to 30 s are some 7 dials a second, far from a flood."""
    limited_s_max: Seconds = 300.0
    """The same after a refusal for too much (429), and after books in another orientation, which no new connection mends,
    seconds. 5 min: coming back sooner is what it was refused for."""
    stable_s: Seconds = 60.0
    """Seconds a connection must have lasted for the next failure to be the first again. A minute: one that is dropped every
    few seconds is not hurried back to, one an hour is; a longer time would cost more hearing than it spares the exchange."""
    reads_per_s: Annotated[float, Between(0.01, 10_000)] = 20.0
    """REST reads a second this process may use of its account. 20 is the exchange's basic tier."""
    silence_s_max: Seconds = 30.0
    """Seconds without any frame or ping until a connection counts as dead. The exchange pings every 10 s: three missed."""
    late_s_max: Seconds = 10.0
    """Seconds by which a connection's frames may come later than at its best. 10 s is far above any hiccup of a network;
    what lies further back is a queue that does not empty, and another connection is up to date in about one second."""
    late_for_s: Seconds = 5.0
    """Seconds for which they must be so late before the connection is opened anew. 5 s lets one backlog pass by itself."""
    frame_bytes_max: Count = 64 * 1024 * 1024
    """Largest frame accepted, bytes. 64 MiB is far above any snapshot, and bounds the memory a bad peer can take."""

    def check(self) -> Iterator[str]:
        """What spans fields."""
        if self.environment == "simulator":
            for name in ("rest_url", "ws_url"):
                if not getattr(self, name):
                    yield f"{name}: missing; the simulator has no address of its own"
        if self.backoff_s_min > self.backoff_s_max:
            yield "backoff_s_min: must not be above backoff_s_max"
        if self.backoff_s_max > self.limited_s_max:
            yield "limited_s_max: must not be below backoff_s_max"


@dataclass(frozen=True)
class StoreSettings:
    """One PostgreSQL database."""

    database: str
    """Name of the database."""
    user: Annotated[str, OrFile]
    """Role to connect as; services never use the master role. As `user_file` it is read again at every new connection."""
    password: Secret
    """The role's password; as `password_file` it is read again at every new connection."""
    host: str = "127.0.0.1"
    """Host name, address, or directory of a Unix socket. This machine by default, as on a laptop."""
    port: Port = 5432
    """TCP port; PostgreSQL's own by default."""
    tls: TlsMode = "prefer"
    """"prefer" (default, as PostgreSQL's own clients: encrypted where the server offers it, unverified), "require" (never in
    the clear, still unverified) or "verify-full" (the certificate must be of a known authority and of this very host)."""
    tls_ca_file: str = ""
    """PEM file of the authorities that verify-full trusts, read again at every new connection. Empty: the system's."""
    pool_size_max: Annotated[int, Between(1, 1_000)] = 8
    """Most connections of this process. 8 keeps 20 pods below PostgreSQL's default of 100 in all but bursts."""
    statement_timeout_s: Seconds = 60.0
    """Seconds after which the server cancels a statement. 60 s is far above any of ours: what takes longer hangs."""
    connect_timeout_s: Seconds = 10.0
    """Seconds for a connection to open. 10 s, as for the exchange."""

    def check(self) -> Iterator[str]:
        """What spans fields."""
        if self.tls_ca_file and self.tls != "verify-full":
            yield f"tls_ca_file: is only read with tls: verify-full, not {self.tls}"

    def target(self) -> Target:
        """Say it as the store does; user, password and authorities are read again at every new connection."""
        return Target(
            host=self.host,
            port=self.port,
            database=self.database,
            user=self.user,
            password=self.password.reveal(),
            ask_password=self.password.reveal,
            ask_user=functools.partial(current, self.user),
            tls=Tls(self.tls, self.tls_ca_file),
            pool_size_max=self.pool_size_max,
            connect_timeout_s=self.connect_timeout_s,
            statement_timeout_s=self.statement_timeout_s,
        )


@dataclass(frozen=True)
class SlotSettings:
    """Connection slots of one zone; a slot is a numbered piece of work for one websocket."""

    orderbook: Count = 144
    """Slots that share all markets for order books. 144 of the 150 connections a zone plans with."""
    ticker: Count = 2
    """Slots that each carry the whole ticker channel. 2: one may fail unnoticed."""
    trade: Count = 2
    """Slots that each carry the whole trade channel. 2: one may fail unnoticed."""
    lifecycle: Count = 2
    """Slots that each carry the whole lifecycle channels. 2: one may fail unnoticed."""
    connections_max: Count = 200
    """Connections the zone may hold at once, all of its account's (200 per user at the exchange) or, where other zones use the
    account too, its share of them; what the slots leave is room to move."""

    @property
    def total(self) -> int:
        """All slots of the zone."""
        return self.orderbook + self.ticker + self.trade + self.lifecycle

    def names(self) -> list[str]:
        """Every slot of the zone, `kind/number`."""
        kinds = ("orderbook", "ticker", "trade", "lifecycle")
        return [f"{kind}/{number}" for kind in kinds for number in range(getattr(self, kind))]

    def check(self) -> Iterator[str]:
        """What spans fields."""
        if self.total >= self.connections_max:
            counts = (self.orderbook, self.ticker, self.trade, self.lifecycle)
            slots = f"{self.total} slots ({' + '.join(map(str, counts))})"
            yield (
                f"connections_max: {self.connections_max} leaves no room to move {slots}: with one to move they are"
                f" {self.total + 1} connections, {self.total + 1 - self.connections_max} above it;"
                " lower the slots or raise it to what the account has"
            )


def account_faults(zones: Sequence[tuple[str, str, SlotSettings]]) -> list[str]:
    """Say which accounts are asked for more connections than they may hold: one sentence an account, none if all fit.

    The exchange counts connections by account, so zones of one account share its connections_max (the smallest that they
    state counts); for each zone one must stay free, since a hand-over opens the new one before the old one closes.

    Args:
        zones: (zone, account, slots) of every zone there is, connections_max the whole account's; only who knows all of
            them can ask.
    """
    faults = []
    for account in sorted({account for _, account, _ in zones}):
        sharing = [(zone, slots) for zone, name, slots in zones if name == account]
        allowed = min(slots.connections_max for _, slots in sharing)
        needed = sum(slots.total for _, slots in sharing) + len(sharing)
        if needed > allowed:
            sums = " + ".join(f"{slots.total} of {zone}" for zone, slots in sharing)
            faults.append(
                f"account {account}: {sums} + {len(sharing)} to move are {needed} connections,"
                f" {needed - allowed} above its connections_max of {allowed};"
                " lower the slots or give zones accounts of their own"
            )
    return faults


def account_shares(zones: Sequence[tuple[str, str, SlotSettings]]) -> dict[str, int]:
    """Return how many connections of its account each zone may hold: its slots and an equal part of what all slots leave.

    All of it where the account is the zone's own. Only of zones without faults (see account_faults, also for `zones`).
    """
    shares = {}
    for zone, account, own in zones:
        sharing = [slots for _, name, slots in zones if name == account]
        left = min(slots.connections_max for slots in sharing) - sum(
            slots.total for slots in sharing
        )
        shares[zone] = own.total + left // len(sharing)
    return shares


@dataclass(frozen=True)
class BatchSettings:
    """When rows become a transaction: whichever of count, bytes and age comes first."""

    deltas_rows: Count = 5000
    """Rows of a batch of order-book deltas. 5000 keeps the cost of a commit below a tenth of the COPY."""
    deltas_age_ms: Milliseconds = 50
    """Longest a delta waits for its batch, milliseconds. 50 ms bounds what a crash can lose to one blink."""
    trades_rows: Count = 1000
    """Rows of a batch of trades. 1000: they are a tenth of the deltas."""
    trades_age_ms: Milliseconds = 100
    """Longest a trade waits, milliseconds. 100 ms, as they come in smaller numbers."""
    tickers_rows: Count = 1000
    """Rows of a batch of tickers. 1000, as for trades."""
    tickers_age_ms: Milliseconds = 100
    """Longest a ticker waits, milliseconds. 100 ms, as for trades."""
    snapshots_rows: Count = 100
    """Rows of a batch of snapshots. 100, because one row holds a whole book."""
    snapshots_age_ms: Milliseconds = 1000
    """Longest a snapshot, or another row of no stream, waits, milliseconds. 1 s: nobody waits for them."""
    bytes_max: Count = 8 * 1024 * 1024
    """Largest batch, bytes of rows. 8 MiB bounds one COPY's memory and time on a slow disk."""
    buffer_rows_max: Count = 500_000
    """Rows that may wait in memory while the database is away. 500,000 are some minutes at 2,000 rows a second."""


@dataclass(frozen=True)
class CaptureSettings:
    """Which markets are captured: glob patterns; a market that matches an exclusion, or no inclusion, is left out.

    An empty list of inclusions includes everything. What is left out by choice is not a gap.
    """

    series_include: tuple[str, ...] = ()
    """Series to capture. Empty (default): all."""
    series_exclude: tuple[str, ...] = ()
    """Series to leave out. Empty (default): none."""
    category_include: tuple[str, ...] = ()
    """Categories to capture. Empty (default): all."""
    category_exclude: tuple[str, ...] = ()
    """Categories to leave out. Empty (default): none."""
    event_include: tuple[str, ...] = ()
    """Events to capture. Empty (default): all."""
    event_exclude: tuple[str, ...] = ()
    """Events to leave out. Empty (default): none."""
    ticker_include: tuple[str, ...] = ()
    """Markets to capture, by ticker. Empty (default): all."""
    ticker_exclude: tuple[str, ...] = ()
    """Markets to leave out, by ticker. Empty (default): none."""
    combos: bool = False
    """Whether multivariate (combination) markets are captured. No by default: they are many and mostly empty."""

    def capture_filter(self) -> CaptureFilter:
        """Say it as the pure filter."""
        fields = CaptureFilter.__dataclass_fields__
        return CaptureFilter(**{name: getattr(self, name) for name in fields})


@dataclass(frozen=True)
class GathererSource:
    """One zone as the deduplicator sees it."""

    zone: str
    """The zone's name, as the zone's own configuration has it."""
    store: StoreSettings
    """The zone's database."""
