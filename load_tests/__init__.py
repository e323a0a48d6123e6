"""Load generators, benchmarks and checks that run beside the pipeline, never in it."""
