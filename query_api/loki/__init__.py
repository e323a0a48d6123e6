"""Loki's questions, asked of this table: LogQL in, what its clients read out; no second engine."""
