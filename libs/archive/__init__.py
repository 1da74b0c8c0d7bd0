"""The archive: Parquet schema, object keys, manifests, object store. The only door to pyarrow and s3fs."""
