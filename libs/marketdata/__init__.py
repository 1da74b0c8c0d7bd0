"""Pure: units, rows and their tables, binary form, order book, sequence and streams, identity of a fact, listening claims."""
