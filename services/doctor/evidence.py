"""What the checks of one examination share: whom they ask, and what earlier ones found for later ones."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from libs.exchange.environments import Endpoints
from libs.exchange.probe import Dated, open_dated_session
from libs.exchange.rest import RestClient, RestSettings
from libs.exchange.rest_wire import AccountLimits
from libs.exchange.signing import Signer
from libs.exchange.transport import Connection, TransportSettings, open_connection
from libs.flow.token_bucket import TokenBucket
from libs.marketdata.rows import Ladder
from libs.runtime.clock import Clock
from services.doctor.judge_clock import Stamp
from services.doctor.settings import DoctorSettings, Plan

READS_PER_S = 10.0
"""Half of the smallest budget: the doctor must not starve a capture of the same account."""
DATES_MAX = 200
REQUEST_TIMEOUT_S, CONNECT_TIMEOUT_S = 8.0, 5.0


@dataclass(frozen=True, slots=True)
class Market:
    """The market that is looked at: its ticker, its no ladder by REST, and another open one where there is one."""

    ticker: str
    rest_no: Ladder
    other: str


@dataclass(slots=True)
class Evidence:
    """One examination.

    Attributes:
        client: makes a REST client, signed or not, of one budget. dated: the Date of every answer.
        signer: None until the key file was read.
        limits: the account's, once the key was accepted. trading: whether trading is active, as far as known. open_markets: their number, None when too many to count.
        quick: do not wait for what takes its time.
    """

    ends: Endpoints
    settings: DoctorSettings
    plan: Plan
    clock: Clock
    quick: bool
    client: Callable[[Signer | None], RestClient]
    dated: list[Dated]
    signer: Signer | None = None
    limits: AccountLimits | None = None
    trading: bool = True
    open_markets: int | None = None
    market: Market | None = None
    stamps: list[Stamp] = field(default_factory=list)

    def connect(self, signer: Signer | None) -> AbstractAsyncContextManager[Connection]:
        """Open a websocket; errors as open_connection's."""
        limits = TransportSettings(
            connect_timeout_s=min(CONNECT_TIMEOUT_S, self.settings.exchange.connect_timeout_s),
            close_timeout_s=1.0,
            frame_bytes_max=self.settings.exchange.frame_bytes_max,
        )
        return open_connection(self.ends.ws_url, signer, self.clock, limits)


@asynccontextmanager
async def gather_evidence(
    ends: Endpoints, settings: DoctorSettings, plan: Plan, clock: Clock, *, quick: bool
) -> AsyncIterator[Evidence]:
    """Open what one examination needs; nothing is sent yet."""
    dated: list[Dated] = []
    bucket = TokenBucket(READS_PER_S, READS_PER_S)
    limits = RestSettings(
        request_timeout_s=REQUEST_TIMEOUT_S,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        attempts_max=2,
        backoff_s_max=2.0,
    )

    def note(answer: Dated) -> None:
        if len(dated) < DATES_MAX:
            dated.append(answer)

    async with open_dated_session(clock, note) as session:

        def client(signer: Signer | None) -> RestClient:
            return RestClient(ends.rest_url, signer, bucket, clock, session, limits)

        yield Evidence(ends, settings, plan, clock, quick, client, dated)
