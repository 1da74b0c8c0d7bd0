"""The cache in front of the exchange: a market read is answered with what somebody was told some seconds ago.

Keyed by path and query. An answer is kept for an age that is drawn from the seed, the address and the moment it was
made, between nothing and the maximum: the same reads at the same times get the same answers (kalshi-api 1.3).
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from services.simulator.answers import Answer

BYTES_MAX: Final = 128 * 1024 * 1024
"""Bodies that are kept, together; the oldest go first."""
MAX_AGE: Final = ("cache-control", "public, max-age=15")
HITS: Final = "x-kalshi-cache-hits"
_DRAWS: Final = 1 << 32


@dataclass(slots=True)
class _Kept:
    answer: Answer
    until: int
    hits: int = 0


class Cdn:
    """Answers of market reads by their address.

    Args:
        seed: of the ages. age_max: the largest one, microseconds; 0: nothing is kept.
        bytes_max: bodies kept together; a larger one is not kept at all.
    """

    def __init__(self, seed: int, age_max: int, bytes_max: int = BYTES_MAX) -> None:
        self._seed = seed
        self._age_max = age_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: dict[str, _Kept] = {}

    def find(self, url: str, now: int) -> Answer | None:
        """Return what is kept for this address and not too old."""
        kept = self._kept.get(url)
        if kept is None:
            return None
        if now >= kept.until:
            self._drop(url)
            return None
        kept.hits += 1
        return _marked(kept.answer, kept.hits)

    def fill(self, url: str, answer: Answer, now: int) -> Answer:
        """Keep a fresh answer, if it is a good one, and return it as it goes out."""
        if answer.status != 200:
            return answer
        until = now + self._age(url, now)
        size = len(answer.body)
        if until > now and size <= self._bytes_max:
            self._drop(url)
            while self._bytes + size > self._bytes_max:
                self._drop(next(iter(self._kept)))
            self._kept[url] = _Kept(answer, until)
            self._bytes += size
        return _marked(answer, 0)

    def _drop(self, url: str) -> None:
        kept = self._kept.pop(url, None)
        if kept is not None:
            self._bytes -= len(kept.answer.body)

    def _age(self, url: str, now: int) -> int:
        text = f"{self._seed}:{now}:{url}".encode()
        draw = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
        return self._age_max * draw // _DRAWS


def _marked(answer: Answer, hits: int) -> Answer:
    return replace(answer, headers=(*answer.headers, MAX_AGE, (HITS, str(hits))))
