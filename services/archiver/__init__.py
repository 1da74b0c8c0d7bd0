"""Archiver: closed windows of production come in; Parquet objects, verified, and their manifests go out.

It never changes a row of production, never rewrites an object it has recorded (late rows become a numbered supplement),
and never lets retention drop what no verified object holds.
"""
