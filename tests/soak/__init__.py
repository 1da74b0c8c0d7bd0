"""Soak: real processes, real servers and the real simulator under what a zone has to live with; the verdict decides."""
