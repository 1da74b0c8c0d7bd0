"""Revisions of the gatherer database, in order."""
