"""When to look at which market again: one time per ticker, the earliest first.

A heap with lazy deletion: an entry counts only while it is the ticker's present time. Pure; time is an argument.
"""

import heapq


class Schedule:
    """Tickers by the moment they are due, microseconds."""

    def __init__(self) -> None:
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def put(self, ticker: str, at: int | None) -> None:
        """Set the ticker's moment; None takes it out."""
        if at is None:
            self._due.pop(ticker, None)
        elif self._due.get(ticker) != at:
            self._due[ticker] = at
            heapq.heappush(self._heap, (at, ticker))
            self._tidy()

    def put_earlier(self, ticker: str, at: int) -> None:
        """Set the ticker's moment unless an earlier one is set."""
        present = self._due.get(ticker)
        if present is None or at < present:
            self.put(ticker, at)

    def take(self, now: int, limit: int) -> list[str]:
        """Take out at most `limit` tickers that are due at `now`, earliest first."""
        taken: list[str] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < limit:
            at, ticker = heapq.heappop(self._heap)
            if self._due.get(ticker) == at:
                del self._due[ticker]
                taken.append(ticker)
        return taken

    def next_at(self) -> int | None:
        """Return the earliest moment; None when nothing waits."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _tidy(self) -> None:
        if len(self._heap) > 64 + 4 * len(self._due):
            self._heap = [(at, ticker) for ticker, at in self._due.items()]
            heapq.heapify(self._heap)
