"""From the node's disk to contiguous, named ranges of files. It knows no topic."""
