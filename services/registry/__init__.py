"""Registry: the zone's catalogue of what exists and which slot hears it.

In: the exchange's REST listings and the zone's own lifecycle rows. Out: series, events and markets with their slots,
one market_versions row whenever a field changed, exchange_status rows, partitions ahead, lanes of the dead closed,
acknowledged chunks turned into columns where the server has them.
It never opens the feed's websocket, never decides who owns a slot, and capture goes on without it.
"""
