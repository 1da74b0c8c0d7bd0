"""Probes: a sid that is silent is asked for a frame, because silence proves nothing.

The answer takes a number of the sid, so it shows that the sid lives and what was lost before it. An answer by the probe's
id alone shows only that the exchange still hears us. A sid that gives neither in time is dead though the socket lives.
"""

from libs.exchange import commands
from libs.marketdata.units import SECOND
from services.connector.errors import Silent
from services.connector.markets import Markets
from services.connector.sids import Sid

MUTE_AFTER = 60 * SECOND
"""A whole channel that answers no probe of a hand-over for so long is not waited for any longer, microseconds.

Twice the longest wait for any answer, so that the exchange has shown that it does not answer this question with a number.
Two owners are free, but not for ever; what is given up is the proof of silence between this sid's last frame and the
successor's start: at worst a gap, written down, never a claim too much."""
PROBES_APART_MAX = 30 * SECOND
"""Probes further apart than this (the database was away, the hand-over was taken back) do not add up, microseconds."""


class Probes:
    """The probes of one connection without an answer; every `now` is a moment of the connection's clock that is never set.

    Args of the constructor: the connection's markets and command ids; longest wait for an answer, microseconds.
    """

    def __init__(self, markets: Markets, ids: commands.CommandIds, answer: int) -> None:
        self._markets = markets
        self._ids = ids
        self._answer = answer
        self._asked: dict[int, int] = {}

    def check(self, sid: Sid, now: int) -> None:
        """Look whether a sid owes an answer for too long.

        Raises:
            Silent: it does; close the connection.
        """
        is_owed = sid.owed_at > max(sid.heard_at, sid.answered_at)
        if is_owed and now - sid.owed_at > self._answer:
            raise Silent(f"{sid.channel} answers no probe")

    def ask(self, sid: Sid, now: int) -> list[bytes]:
        """Ask for a frame: the book of a market, or of none on a whole channel, whose refusal takes a number too.

        An order-book sid without a market claims nothing and keeps nobody waiting, so it needs no proof and is left
        alone: a made-up market would show no more, and an exchange that does not answer it would be reconnected to for
        ever. That such a sid died shows when the next market is added, for that command must be answered.
        """
        if not sid.is_book:
            command_id = self._ids.next()
            command: bytes | None = commands.get_snapshot(command_id, sid.sid, ["PROBE"])
        else:
            command = self._markets.probe(sid.sid)
            command_id = self._markets.probe_id
        if command is None:
            return []
        if sid.asked_at <= sid.heard_at or now - sid.probed_at > PROBES_APART_MAX:
            sid.asked_at = now
        if sid.owed_at <= max(sid.heard_at, sid.answered_at):
            sid.owed_at = now
            self.forget(sid)
        sid.probed_at = now
        self._asked[command_id] = sid.sid
        return [command]

    def take(self, command_id: int | None) -> int:
        """Return the number of the sid that a command probed, and forget the probe; -1: it was none."""
        return self._asked.pop(command_id or 0, -1)

    def forget(self, sid: Sid) -> None:
        """Forget the probes of a sid: their answers say nothing new."""
        self._asked = {probe: number for probe, number in self._asked.items() if number != sid.sid}


def is_mute(sid: Sid, now: int) -> bool:
    """True when a whole channel has left a run of probes without an answer for too long."""
    is_asked = sid.asked_at > sid.heard_at and now - sid.probed_at <= PROBES_APART_MAX
    return not sid.is_book and is_asked and now - sid.asked_at >= MUTE_AFTER
