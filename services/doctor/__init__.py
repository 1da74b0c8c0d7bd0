"""`kalshi-data doctor`: asks one exchange, reading only, whether capturing from it will work, and says what to do if not.

Looking (rest_checks, socket_checks) and judging (judge_*) are apart: judges take samples and give findings, without I/O.
"""
