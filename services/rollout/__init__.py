"""`kalshi-data rollout`: upgrades a release zone by zone, and goes on only while the last zone captures without a gap.

In: the words of a `helm upgrade`. Out: that upgrade once a step, with one more zone released each time. What decides
(plan, judge, prune) is pure; helm and kubectl are asked through one door (tools). It never waits inside helm, never
touches a database but to update its TimescaleDB, and what it leaves halfway a second run takes up.
"""
