"""Immutable objects by name: a directory or an S3 bucket. It knows nothing of what is in them."""
