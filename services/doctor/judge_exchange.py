"""Is the exchange there, and is it open: reachability, status, schedule. Pure."""

import datetime as dt
from collections.abc import Sequence

from libs.exchange.errors import ApiError, ExchangeError, RateLimited, TransportError
from libs.exchange.probe import Cause, cause_of
from libs.exchange.rest_wire import ExchangeStatus, Json
from libs.marketdata.units import MILLISECOND, SECOND, ValueDoesNotFit, parse_rfc3339
from services.doctor.findings import Finding, ok, warn

REST, STATUS, SCHEDULE = "REST", "exchange status", "exchange schedule"
SLOW_MS = 1_000.0
ADVICE: dict[Cause, str] = {
    "name": "the name is not resolved: check the address and this machine's DNS",
    "refused": "nobody listens there: check host and port, and that the simulator is running",
    "tls": "TLS failed: check the address, the machine's clock and certificates, and any proxy that opens TLS",
    "timeout": "no answer: a firewall may drop outgoing traffic, or a proxy be needed",
    "other": "check the address and the network between here and the exchange",
}


def advice_for(error: ExchangeError) -> str:
    """Say what to do when the exchange did not answer as it should."""
    if isinstance(error, RateLimited):
        return "the read budget is used up by something else of this account or address: try again, or slow that down"
    if isinstance(error, ApiError):
        if error.status >= 500:
            return "the exchange has a fault or maintenance: try again later"
        return "the exchange refuses the request: the address may be another product's, or the API has changed"
    if isinstance(error, TransportError):
        return ADVICE[cause_of(error)]
    return "the exchange answered what is not documented: report it"


def judge_reach(url: str, latencies_ms: Sequence[float]) -> Finding:
    """Judge answers that came."""
    ordered = sorted(latencies_ms)
    middle = ordered[len(ordered) // 2]
    found = f"{url} answers in {middle:.0f} ms ({ordered[0]:.0f} to {ordered[-1]:.0f}, {len(ordered)} requests)"
    if middle > SLOW_MS:
        return warn(
            REST, f"{found}: slow", "run the capture nearer to the exchange, or mend the network"
        )
    return ok(REST, found)


def judge_status(status: ExchangeStatus) -> Finding:
    """Judge whether anything can flow."""
    resume = status.body.get("exchange_estimated_resume_time")
    later = f", resumes about {resume}" if isinstance(resume, str) and resume else ""
    if status.exchange_active is None or status.trading_active is None:
        return warn(STATUS, "the answer does not say", "the API has changed: report it")
    if not status.exchange_active:
        return warn(STATUS, f"the exchange is paused{later}", "nothing flows until it resumes")
    if not status.trading_active:
        return warn(STATUS, f"trading is paused{later}", "few messages flow until it resumes")
    shards = status.body.get("exchange_index_statuses")
    halted = [
        str(shard.get("description", shard.get("exchange_index")))
        for shard in (shards if isinstance(shards, list) else ())
        if isinstance(shard, dict) and shard.get("trading_active") is False
    ]
    if halted:
        return warn(
            STATUS, f"trading is paused on {', '.join(halted)}", "its markets are silent until then"
        )
    return ok(STATUS, "exchange active, trading active")


def judge_schedule(body: Json, now: int, local: dt.tzinfo | None = None) -> Finding:
    """Judge maintenance; now in microseconds; local: the zone to show beside UTC, the machine's by default."""
    schedule = body.get("schedule")
    windows = schedule.get("maintenance_windows") if isinstance(schedule, dict) else None
    if not isinstance(windows, list):
        return warn(SCHEDULE, "the answer has no maintenance_windows", "the API has changed")
    try:
        spans = sorted(
            (parse_rfc3339(window["start_datetime"]), parse_rfc3339(window["end_datetime"]))
            for window in windows
        )
    except (TypeError, KeyError, ValueDoesNotFit) as error:
        return warn(SCHEDULE, f"a maintenance window cannot be read: {error}", "report it")
    coming = [span for span in spans if span[1] > now]
    if not coming:
        return ok(
            SCHEDULE, "no maintenance announced (usual: Thursdays 03:00 to 05:00 Eastern Time)"
        )
    start, end = coming[0]
    span = (
        f"{_shown(start, dt.UTC)} to {_shown(end, dt.UTC)} UTC ({_local(start, end, local)} here)"
    )
    if start <= now:
        return warn(
            SCHEDULE,
            f"maintenance now: {span}",
            "connections may be closed and answers missing until its end",
        )
    return ok(SCHEDULE, f"next maintenance {span}, in {_ahead(start - now)}")


def milliseconds(micros: int) -> float:
    """Say a duration of microseconds in milliseconds."""
    return micros / MILLISECOND


def _shown(moment: int, zone: dt.tzinfo | None) -> str:
    return dt.datetime.fromtimestamp(moment // SECOND, dt.UTC).astimezone(zone).strftime(
        "%a %Y-%m-%d %H:%M"
    )  # fmt: skip


def _local(start: int, end: int, zone: dt.tzinfo | None) -> str:
    last = dt.datetime.fromtimestamp(end // SECOND, dt.UTC).astimezone(zone)
    return f"{_shown(start, zone)} to {last.strftime('%H:%M %Z')}"


def _ahead(micros: int) -> str:
    hours = micros / (3_600 * SECOND)
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
