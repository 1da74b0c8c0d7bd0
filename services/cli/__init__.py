"""The command line `kalshi-data`: arguments come in, a verb of some service runs, its exit status goes out.

It knows the services by the names of their modules only and imports one when its verb is called; it does no work itself.
"""
