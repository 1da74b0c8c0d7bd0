"""Everything about Kalshi on the client side: wire messages, conversion to rows, commands, signing, REST, websocket."""
