"""The whole topology on one machine: embedded PostgreSQL servers and the services as child processes.

In: how many zones, simulator or real exchange. Out: a running platform, a live table, a verdict. It never works on
facts itself and leaves no process behind.
"""
