"""Ranges and control entries go in; batches that the topic has acknowledged come out, in order."""
