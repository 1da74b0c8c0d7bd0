"""Revisions of the production database, in order."""
