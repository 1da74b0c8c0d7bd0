"""A simulated Kalshi on real sockets.

In: signed REST requests and websocket upgrades, the exchange's own commands, and a seed (or a file of recorded
frames). Out: the exchange's REST answers and frames with today's field names, and two journals: the market journal
(every change it published, a pure function of seed, epoch and length) and the session journal (what was sent to
whom). Never: it knows nothing of gatherers, databases or of who should have heard what; it judges nobody.
"""
