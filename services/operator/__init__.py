"""Reconciles Gatherers: spec, pods and leases come in; slot plans go to each zone's database, replicas and status to the API.

It plans as long as it can reach a zone's database, whatever becomes of the Kubernetes API; where it is away, a live shard
stands in. It never lies on the data path, never stores a ticker, and puts no finalizer on anything.
"""
