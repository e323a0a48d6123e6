"""Real servers for the tests: one of each per run, on loopback, gone when the run is."""
