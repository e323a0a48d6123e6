"""The ordered, durable hand-over between collector and indexer. It knows records, and no batch."""
