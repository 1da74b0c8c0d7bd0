"""Poller: the order books of all open markets by REST, again and again, and trades that the socket missed.

In: the catalogue's open markets, gap rows of the trade channel. Out: orderbook_snapshots rows of source 'rest' and
trades rows without a connection. It stays within its share of the read budget and never touches the websocket.
"""
