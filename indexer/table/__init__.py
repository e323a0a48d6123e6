"""Which objects exist, and up to which position of the topic: the Delta table of one cluster."""
