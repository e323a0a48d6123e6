"""Keeps the table in order: folds, compacts, expires, deletes, scrubs. Nobody imports it."""
