"""Merges the gatherers into production: ledgers and rows of every zone come in, each fact goes out exactly once.

One reader per gatherer follows its lanes by cursor; one numbered writer commits rows, cursors and coverage in the same
transaction. It never invents or updates a row, never lets one gatherer delay another, and never trusts its memory:
what it remembers only saves work, the key and the cursors decide.
"""
