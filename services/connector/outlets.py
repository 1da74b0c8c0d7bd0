"""Where a process's rows go: one Batcher per table family, and the bound on what rejected frames may take."""

from libs.flow.batch import Batcher, Limits
from libs.flow.token_bucket import TokenBucket
from libs.marketdata.rows import GapRow, RejectedFrameRow
from libs.marketdata.tables import GATHERER_TABLES, Family
from libs.marketdata.units import HOUR

REJECTED_FRAME_BYTES_MAX = 64 * 1024
"""Bytes of one rejected frame that are kept."""
DETAIL_CHARS_MAX = 1000
_ROW_OVERHEAD = 100
RENEWALS_PER_S = 1_000
"""Books a second that a process asks for because rows were lost, over all its connections. 1,000: a hole over a hundred
thousand markets is closed in two minutes, and live capture has its share of the process and of the exchange's patience."""


class RejectBudget:
    """Bytes of rejected frames per hour; a bad deploy at the exchange must not fill the disk."""

    def __init__(self, bytes_per_hour: int) -> None:
        self._bytes_per_hour = bytes_per_hour
        self._hour = -1
        self._used = 0

    def allows(self, size: int, now: int) -> bool:
        """Take `size` bytes from this hour's budget; False, and nothing taken, when they do not fit."""
        hour = now // HOUR
        if hour != self._hour:
            self._hour, self._used = hour, 0
        if self._used + size + _ROW_OVERHEAD > self._bytes_per_hour:
            return False
        self._used += size + _ROW_OVERHEAD
        return True


class Outlets:
    """The Batchers of a process, one for each family. Sessions append rows to their tables.

    Attributes:
        budget: of rejected frames. renewals: of books that are asked for because rows were lost.
    """

    def __init__(self, limits: dict[Family, Limits], reject_bytes_per_hour: int) -> None:
        self.batchers = {
            family: Batcher(
                family,
                [name for name, table in GATHERER_TABLES.items() if table.family is family],
                limits[family],
            )
            for family in Family
        }
        self.renewals = TokenBucket(RENEWALS_PER_S, RENEWALS_PER_S / 4)
        self.budget = RejectBudget(reject_bytes_per_hour)
        rest = self.batchers[Family.REST]
        self._gaps = rest.table("gaps")
        self._rejected = rest.table("rejected_frames")

    def gap(self, row: GapRow, now: int) -> None:
        """Write down the cause of a gap."""
        self._gaps.append(row._replace(detail=row.detail.replace("\0", "")[:DETAIL_CHARS_MAX]))
        self.batchers[Family.REST].touch(now)

    def reject(self, row: RejectedFrameRow) -> None:
        """Keep a rejected frame, cut to 64 KiB and within the hour's budget."""
        if len(row.frame) > REJECTED_FRAME_BYTES_MAX:
            row = row._replace(frame=row.frame[:REJECTED_FRAME_BYTES_MAX], is_truncated=True)
        if self.budget.allows(len(row.frame), row.received_at):
            reason = row.reason.replace("\0", "")[:DETAIL_CHARS_MAX]
            self._rejected.append(row._replace(reason=reason))
            rest = self.batchers[Family.REST]
            rest.grow(len(row.frame))
            rest.touch(row.received_at)
