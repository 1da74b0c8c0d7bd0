"""Brings a gatherer's or production's database to this code's schema level.

In: where the database is. Out: its tables, views, roles, identity and first partitions. It waits for its database, and
for another migration of it; it never touches facts and never runs twice at the same time.
"""
