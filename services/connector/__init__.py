"""The connector: frames of the exchange's websockets come in, committed rows and the proof of what was heard go out.

It owns the connection slots that the control tables give to its name: one websocket per slot, subscribed, checked seq by
seq, numbered, batched and copied into the zone's own database. It must never make the socket wait for the database,
never lose anything without writing down the gap, never talk to another pod, and never choose its own slots while a
planner is there.
"""
