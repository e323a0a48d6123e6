"""The text of a query goes in, and its terms come out. It reads no data."""
