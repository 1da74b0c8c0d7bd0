"""The channels: does each answer, speak, number and stamp its frames as it should; the commands a capture leans on. Pure."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from libs.marketdata.units import MILLISECOND
from services.doctor.findings import Finding, fail, ok, warn
from services.doctor.transcript import Stream, Transcript

SCHEMA, SKIP_ACK, SNAPSHOT = "message fields", "skip_ticker_ack", "get_snapshot"
CONNECTION = "connection held"
BOOKS = "orderbook_delta"


class Expected(NamedTuple):
    """What is known of a channel: whether frames come within seconds, and whether they are numbered (None: unsure)."""

    speaks: bool
    numbered: bool | None


CHANNELS = {
    BOOKS: Expected(speaks=True, numbered=True),
    "ticker": Expected(speaks=True, numbered=False),
    "trade": Expected(speaks=True, numbered=True),
    "market_lifecycle_v2": Expected(speaks=False, numbered=None),
    "multivariate_market_lifecycle": Expected(speaks=False, numbered=None),
}


def judge_channel(
    transcript: Transcript, channel: str, listened_s: float, *, trading: bool
) -> Finding:
    """Judge one channel that was subscribed; trading: whether the exchange says that trading is active."""
    found = transcript.command("subscribe", channel)
    assert found is not None, channel
    command_id, command = found
    if refusal := _error_of(transcript.answers.get(command_id, [])):
        return fail(channel, refusal, _advice_for_code(refusal))
    held = transcript.stream_of(channel)
    if held is None or held[1].subscribed_at is None:
        why = f"no answer to subscribe in {listened_s:g} s" + _end_of(transcript)
        return fail(channel, why, "the exchange does not serve this channel now: try again later")
    sid, stream = held
    assert stream.subscribed_at is not None
    said = f"subscribed in {_ms(stream.subscribed_at - command.sent_at)} as sid {sid}; {_heard(stream, listened_s)}"
    expected = CHANNELS[channel]
    problems = [*_problems(stream, expected, speaks=expected.speaks and trading)]
    if problems:
        found_text = "; ".join([said, *(problem for problem, _ in problems)])
        advice = "; ".join(dict.fromkeys(advice for _, advice in problems))
        is_fatal = channel == BOOKS and stream.frames > stream.numbered
        return (fail if is_fatal else warn)(channel, found_text, advice)
    if not stream.frames:
        said += ", and none is to be expected" + (" now" if expected.speaks else "")
    return ok(channel, said)


def judge_schema(transcript: Transcript) -> Finding:
    """Judge drift: fields and types nobody knows are a warning, frames we cannot read a fault."""
    strange = {k: n for k, n in transcript.unreadable.items() if not _is_new_type(k)}
    if strange:
        return fail(
            SCHEMA,
            f"{sum(strange.values())} frames cannot be read: {_listed(strange)}",
            "capturing keeps such frames as rejected bytes, not as rows: update kalshi-data, or report it",
        )
    news = {**transcript.unknown, **transcript.unreadable}
    if news:
        return warn(
            SCHEMA,
            f"the exchange sends what is not known: {_listed(news)}",
            "capturing goes on without it; look for a newer kalshi-data, or report it",
        )
    return ok(SCHEMA, f"{transcript.frames:,} frames, every field known")


def judge_end(transcript: Transcript) -> list[Finding]:
    """Say that the connection ended by itself; nothing when it did not."""
    if not transcript.ended:
        return []
    return [
        warn(
            CONNECTION,
            f"ended while it was listened to: {transcript.ended}",
            "a capture opens another at once; when it happens again and again, look for a proxy that ends connections",
        )
    ]


def judge_skip_ack(transcript: Transcript) -> Finding:
    """Judge whether answers leave the list of markets out when asked to."""
    found = transcript.command("add_markets")
    answers = transcript.answers.get(found[0], []) if found else []
    if refusal := _error_of(answers):
        return fail(SKIP_ACK, f"add_markets: {refusal}", "new markets cannot be added: report it")
    answer = next((a for a in answers if a.get("type") == "ok"), None)
    if answer is None:
        return fail(SKIP_ACK, "no answer to add_markets", "new markets cannot be added: try again")
    body = answer.get("msg")
    if isinstance(body, dict) and body.get("market_tickers"):
        return warn(
            SKIP_ACK,
            f"not honoured: ok lists {len(body['market_tickers'])} markets",
            "every ok of a large subscription is some MB; lower slots' markets by raising slots.orderbook",
        )
    return ok(SKIP_ACK, "honoured: ok comes without the list of markets")


def judge_get_snapshot(transcript: Transcript) -> Finding:
    """Judge whether a book can be asked for, and its answer be told from others."""
    found = transcript.command("get_snapshot")
    answers = transcript.answers.get(found[0], []) if found else []
    if refusal := _error_of(answers):
        return fail(SNAPSHOT, refusal, "gaps cannot be healed in place: report it")
    if found and any(answer.get("type") == "orderbook_snapshot" for answer in answers):
        return ok(SNAPSHOT, "answered in the stream, with the command's id")
    market = found[1].subject if found else ""
    if sum(book.msg.market_ticker == market for book in transcript.snapshots) > 1:
        return warn(
            SNAPSHOT,
            "answered without the command's id",
            "a capture then takes the next snapshot of the market for the answer: report it",
        )
    return fail(SNAPSHOT, "no answer", "gaps cannot be healed in place: try again, then report it")


def _problems(stream: Stream, expected: Expected, *, speaks: bool) -> Iterator[tuple[str, str]]:
    if speaks and not stream.frames:
        yield (
            "silent, though frames are to be expected",
            "try again; a quiet exchange (demo) may be so",
        )
    if expected.numbered and stream.frames > stream.numbered:
        yield (
            f"{stream.frames - stream.numbered} frames without seq",
            "losses could not be seen: report it",
        )
    if expected.numbered is False and stream.numbered:
        yield "frames have a seq, which is new", "losses could now be seen here: report it"
    if stream.breaks:
        yield (
            f"seq jumps: {', '.join(stream.breaks[:3])}",
            "frames were lost or repeated; a capture records a gap and asks for new books",
        )
    if stream.frames > stream.stamped:
        yield (
            f"{stream.frames - stream.stamped} frames without sending_ts_ms",
            "their time is then that of receipt: report it",
        )


def _heard(stream: Stream, listened_s: float) -> str:
    if not stream.frames or stream.first_at is None:
        return f"no frame in {listened_s:.1f} s"
    after = stream.first_at - (stream.subscribed_at or stream.first_at)
    seq = "with seq" if stream.numbered == stream.frames else "without seq"
    if 0 < stream.numbered < stream.frames:
        seq = "some with seq"
    stamp = "with sending_ts_ms" if stream.stamped == stream.frames else "not all stamped"
    return f"first frame after {_ms(max(after, 0))}, {stream.frames:,} in {listened_s:.1f} s, {seq}, {stamp}"


def _error_of(answers: list[dict[str, Any]]) -> str:
    for answer in answers:
        body = answer.get("msg")
        if answer.get("type") == "error":
            code, text = (
                (body.get("code"), body.get("msg")) if isinstance(body, dict) else ("?", body)
            )
            return f"error {code}: {text}"
    return ""


def _advice_for_code(refusal: str) -> str:
    if refusal.startswith("error 8:"):
        return "the channel is gone or renamed: the API has changed, look for a newer kalshi-data"
    if refusal.startswith("error 9:"):
        return "this key may not: give it the scope `read`"
    return "the exchange refuses what a capture asks for: report it"


def _end_of(transcript: Transcript) -> str:
    return f"; the connection ended: {transcript.ended}" if transcript.ended else ""


def _is_new_type(reason: str) -> bool:
    return reason.startswith("unknown type")


def _listed(counted: dict[str, int]) -> str:
    named = [f"{name} ({n:,}x)" for name, n in list(counted.items())[:8]]
    more = len(counted) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _ms(micros: int) -> str:
    return f"{micros / MILLISECOND:.0f} ms"
