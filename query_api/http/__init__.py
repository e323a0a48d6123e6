"""Routes, and the shapes of answers and errors: the service as HTTP clients see it."""
