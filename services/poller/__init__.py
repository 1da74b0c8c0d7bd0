"""Poller: the order books of all open markets by REST, again and again, trades that the socket missed, and a check.

In: the catalogue's open markets; what the zone's lanes say of hearing the trade channel; stored streams of a sample of
markets. Out: orderbook_snapshots rows of source 'rest', trades rows without a connection, trade_repairs and book_checks.
It stays within its share of the read budget, claims to have heard nothing and never touches the websocket.
"""
