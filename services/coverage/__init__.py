"""`kalshi-data gaps` and `kalshi-data coverage`: production's own records come in, what was heard and what was not goes out.

Reading only: claims, causes, coverage and lags of a span, as tables, as JSON for programs, as a picture. What is counted
and what is drawn is made by pure functions (heard, picture) from rows that libs/store/coverage_records.py reads; nothing
here decides what a claim is worth: that is the data model's, and production's functions say it.
"""
