"""From the topic to the table: parse, index and commit each line exactly once, and keep it."""
