"""`kalshi-data volume grow`: gives a zone's database a larger volume while it runs.

In: a zone and a size. Out: a larger claim, and a StatefulSet that asks for it. A StatefulSet's claims cannot be changed, so it
is made anew around its running pod, which notices nothing; nothing is ever made smaller, and no data is touched.
"""
