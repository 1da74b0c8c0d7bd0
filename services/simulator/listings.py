"""Everything that is listed, by ticker and in the order it was listed: first the catalogue's, then what came later.

A market of the catalogue that never changed is made anew each time somebody looks at it: a million of them need no memory.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice

from services.simulator.catalogue import Catalogue
from services.simulator.instruments import Event, Instrument
from services.simulator.listing import Listing


class Listings(Mapping[str, Listing]):
    """Every listed market by its ticker."""

    def __init__(self) -> None:
        self._catalogue: Catalogue | None = None
        self._first = 0
        self._kept: dict[str, Listing] = {}
        self._later: list[Listing] = []
        self._later_of: defaultdict[str, list[Listing]] = defaultdict(list)

    def begin_with(self, catalogue: Catalogue) -> None:
        """List what exists at the epoch."""
        self._catalogue = catalogue
        self._first = catalogue.markets

    def add(self, listing: Listing) -> None:
        """List one more market."""
        instrument = listing.instrument
        self._kept[instrument.ticker] = listing
        self._later.append(listing)
        self._later_of[instrument.event.ticker].append(listing)

    def holds(self, ticker: str) -> bool:
        """Say whether the catalogue has this market."""
        return self._catalogue is not None and self._catalogue.number_of(ticker) is not None

    def changing(self, instrument: Instrument) -> Listing:
        """Return a market that is about to change: from now on it is kept."""
        listing = self._kept.get(instrument.ticker)
        if listing is None:
            listing = self._kept[instrument.ticker] = self[instrument.ticker]
        return listing

    def changed(self) -> Iterator[Listing]:
        """Yield the markets that are kept: those that changed and those that came later."""
        return iter(self._kept.values())

    def after(self, position: int) -> Iterator[tuple[int, Listing]]:
        """Yield (position, listing) from this position on; a market keeps its position for ever."""
        for number in range(position, self._first):
            yield number, self._numbered(number)
        later = max(position - self._first, 0)
        yield from enumerate(islice(self._later, later, None), self._first + later)

    def of_event(self, ticker: str) -> list[Listing]:
        """Return an event's markets in the order they were listed."""
        found: list[Listing] = []
        if self._catalogue is not None:
            event = self._catalogue.event_number_of(ticker)
            if event is not None:
                found = [self._numbered(number) for number in self._catalogue.numbers_of(event)]
        return found + self._later_of[ticker] if ticker in self._later_of else found

    def ticker_of(self, market_id: str) -> str | None:
        """Return the ticker of a market of the catalogue by its id."""
        if self._catalogue is None:
            return None
        number = self._catalogue.number_of_id(market_id)
        return None if number is None else self._catalogue.instrument(number).ticker

    def _numbered(self, number: int) -> Listing:
        assert self._catalogue is not None
        instrument = self._catalogue.instrument(number)
        kept = self._kept.get(instrument.ticker)
        return kept or Listing(instrument, opening=(self._catalogue, number))

    def __getitem__(self, ticker: str) -> Listing:
        listing = self._kept.get(ticker)
        if listing is not None:
            return listing
        number = None if self._catalogue is None else self._catalogue.number_of(ticker)
        if number is None:
            raise KeyError(ticker)
        return self._numbered(number)

    def __iter__(self) -> Iterator[str]:
        return (listing.instrument.ticker for _, listing in self.after(0))

    def __len__(self) -> int:
        return self._first + len(self._later)


class Events(Mapping[str, Event]):
    """Every event by its ticker."""

    def __init__(self) -> None:
        self._catalogue: Catalogue | None = None
        self._first = 0
        self._kept: dict[str, Event] = {}
        self._later: list[str] = []

    def begin_with(self, catalogue: Catalogue) -> None:
        """List the events that exist at the epoch."""
        self._catalogue = catalogue
        self._first = catalogue.events

    def add(self, event: Event) -> None:
        """List an event, unless it is there."""
        if event.ticker not in self:
            self._kept[event.ticker] = event
            self._later.append(event.ticker)

    def replace(self, event: Event) -> None:
        """Let an event be as this one from now on."""
        self._kept[event.ticker] = event

    def after(self, position: int) -> Iterator[tuple[int, Event]]:
        """Yield (position, event) from this position on; an event keeps its position for ever."""
        for number in range(position, self._first):
            assert self._catalogue is not None
            event = self._catalogue.event(number)
            yield number, self._kept.get(event.ticker, event)
        later = max(position - self._first, 0)
        for place, ticker in enumerate(islice(self._later, later, None), self._first + later):
            yield place, self._kept[ticker]

    def __getitem__(self, ticker: str) -> Event:
        event = self._kept.get(ticker)
        if event is not None:
            return event
        number = None if self._catalogue is None else self._catalogue.event_number_of(ticker)
        if number is None or self._catalogue is None:
            raise KeyError(ticker)
        return self._catalogue.event(number)

    def __iter__(self) -> Iterator[str]:
        return (event.ticker for _, event in self.after(0))

    def __len__(self) -> int:
        return self._first + len(self._later)
