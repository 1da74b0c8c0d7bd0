"""What can go wrong at the exchange on purpose: the menu, scripts of it, and who carries it out.

In: fault scripts (YAML, JSON, a seed, or one fault over HTTP). Out: frames dropped, late, doubled or maimed, connections
that break or fall silent, and a line in the session journal for each of them. Never: a fault that is not journalled.
"""
