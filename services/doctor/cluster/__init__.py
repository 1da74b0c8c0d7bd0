"""`kalshi-data doctor --cluster`: asks an installed release, reading only, whether its parts are there and fit together.

Looking (look_*) and judging (judge_*) are apart, as for the exchange: judges take what was seen and give findings.
"""
