"""What is there and what is missing: all coverage folded, and stored. It proves every loss."""
