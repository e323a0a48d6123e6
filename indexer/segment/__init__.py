"""The Parquet of an hour and its token filter: written, merged, read by ranges. Knows no table."""
