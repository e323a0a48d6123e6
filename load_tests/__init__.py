"""Harnesses that make load and trouble: generated logs, benchmarks, chaos."""
