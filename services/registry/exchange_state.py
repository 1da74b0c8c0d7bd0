"""What the exchange says of itself: status and schedule as rows, and its pauses as known ones."""

import asyncio
import json
from dataclasses import replace
from typing import Any, Final

from libs.exchange.convert import canonical_json
from libs.exchange.errors import ExchangeError
from libs.exchange.rest import RestClient
from libs.exchange.rest_wire import Answer, ExchangeStatus
from libs.marketdata.rows import ExchangeStatusRow, GapRow
from libs.marketdata.units import SECOND
from libs.runtime.clock import Clock
from libs.store.catalogue import get_state, lend, set_state
from libs.store.leases import Lease
from libs.store.pool import Pool
from libs.store.scribe import Scribe
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.registry import pauses
from services.registry.listing import Json, time_of
from services.registry.pauses import Known, Said, Step

log = get_logger(__name__)

STATE_KEY: Final = "exchange_pauses"


class ExchangeWatch:
    """Asks for status and schedule, writes both as rows, and a `gaps` row where a pause begins and where it ends.

    What is known of a pause is remembered in the database, so that one that outlasts this process ends rightly.
    """

    def __init__(
        self,
        rest: RestClient,
        scribe: Scribe,
        pool: Pool,
        clock: Clock,
        lease: Lease,
        metrics: Metrics,
    ) -> None:
        self._rest = rest
        self._scribe = scribe
        self._pool = pool
        self._clock = clock
        self._lease = lease
        self._metrics = metrics
        self._known = Known()
        # Held from what was known to what is: a schedule that is noted while a pause ends would bring the pause back.
        self._knowing = asyncio.Lock()
        self._active: tuple[bool | None, bool | None] = (None, None)
        self._paused_shards: tuple[int, ...] = ()

    @property
    def is_paused(self) -> bool:
        """True while the exchange, or a shard of it, is known to pause: what it does not say or show then means nothing."""
        return self._known.pause is not None or bool(self._paused_shards)

    def facts(self) -> dict[str, Any]:
        """Say in /health what the exchange said of itself last (None before its first answer), and when it pauses."""
        pause, now = self._known.pause, self._clock.now()
        coming = self._known.coming(now)
        return {
            "exchange_active": self._active[0],
            "trading_active": self._active[1],
            "paused_shards": self._paused_shards,
            "paused": pause and {"why": pause.why, "since": pause.began_at, "until": pause.resume_at},
            "next_maintenance": coming and {"from": coming.begin, "to": coming.end},
        }  # fmt: skip

    async def load(self) -> None:
        """Go on with the pause and the schedule that were known before."""
        async with lend(self._pool) as conn:
            text = await get_state(conn, STATE_KEY)
        if text is not None:
            self._known = Known.load(json.loads(text))
        self._show()

    async def status_once(self) -> None:
        """Record the status and judge by it; without an answer by the schedule alone.

        Raises:
            ExchangeError: no answer. StoreUnavailable: nothing was noted; the next turn does it again.
        """
        try:
            answer = await self._rest.exchange_status()
        except ExchangeError:
            await self._judge(None, None)
            raise
        status = answer.value
        active = (status.exchange_active, status.trading_active)
        if active != self._active:
            log.info("exchange_status_changed", exchange_active=active[0], trading_active=active[1])
        self._active = active
        self._note_shards(status.body)
        resume_at = time_of(status.body, "exchange_estimated_resume_time")
        await self._judge(Said(*active, resume_at, answer.requested_at), answer)

    async def schedule_once(self) -> None:
        """Record the schedule; its maintenance windows count from now on."""
        answer = await self._rest.exchange_schedule()
        row = ExchangeStatusRow(
            received_at=answer.received_at,
            requested_at=answer.requested_at,
            row_no=0,
            source="schedule",
            body=canonical_json(answer.value),
            exchange_active=None,
            trading_active=None,
        )
        await self._scribe.write({"exchange_status": [row]})
        windows = pauses.read_windows(answer.value)
        async with self._knowing:
            if windows != self._known.windows:
                await self._remember(replace(self._known, windows=windows))

    async def _judge(self, said: Said | None, answer: Answer[ExchangeStatus] | None) -> None:
        async with self._knowing:
            await self._note(said, answer)

    async def _note(self, said: Said | None, answer: Answer[ExchangeStatus] | None) -> None:
        now = self._clock.now()
        step = pauses.step(self._known, said, now)
        gaps = pauses.rows(step, now)
        if answer is not None or gaps:
            await self._scribe.write(
                {"exchange_status": _status_rows(answer), "gaps": list[GapRow](gaps)}
            )
        self._tell(step)
        if step.known.pause is not None or gaps:
            await self._remember(step.known)
        self._known = step.known
        self._show()

    async def _remember(self, known: Known) -> None:
        async with lend(self._pool) as conn:
            await set_state(conn, STATE_KEY, json.dumps(known.dump()), self._lease)
        self._known = known
        self._show()

    def _tell(self, step: Step) -> None:
        if step.ended is not None:
            pause, at, is_exact = step.ended
            log.warning("exchange_resumed", why=pause.why, since=pause.began_at, until=at, observed=is_exact)  # fmt: skip
        if step.began is not None:
            log.warning("exchange_paused", why=step.began.why, since=step.began.began_at,
                        expected_until=step.began.resume_at)  # fmt: skip

    def _note_shards(self, body: Json) -> None:
        """Note the exchange's own shards (matching engines) that pause by themselves."""
        shards = body.get("exchange_index_statuses")
        paused = [
            shard.get("exchange_index")
            for shard in (shards if isinstance(shards, list) else ())
            if isinstance(shard, dict)
            and False in (shard.get("exchange_active"), shard.get("trading_active"))
        ]
        found = tuple(index for index in paused if isinstance(index, int))
        if found != self._paused_shards:
            log.warning("exchange_shards_paused", shards=found)
        self._paused_shards = found

    def _show(self) -> None:
        pause = self._known.pause
        coming = self._known.coming(self._clock.now())
        resume_at = pause.resume_at if pause is not None else None
        self._metrics.exchange_paused.set(pause is not None)
        self._metrics.exchange_resumes_at_seconds.set((resume_at or 0) / SECOND)
        self._metrics.exchange_maintenance_at_seconds.set((coming.begin if coming else 0) / SECOND)


def _status_rows(answer: Answer[ExchangeStatus] | None) -> list[ExchangeStatusRow]:
    if answer is None:
        return []
    status = answer.value
    row = ExchangeStatusRow(
        received_at=answer.received_at,
        requested_at=answer.requested_at,
        row_no=0,
        source="status",
        body=canonical_json(status.body),
        exchange_active=status.exchange_active,
        trading_active=status.trading_active,
    )
    return [row]
