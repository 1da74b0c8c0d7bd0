"""`kalshi-data status`: what a running platform is doing, for people, for programs, and as a bundle for support.

In: a zone's file or the deduplicator's. Out: what the databases that it names answer. It writes nothing anywhere else,
and never asks one process through another.
"""
