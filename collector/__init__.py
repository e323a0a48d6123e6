"""Everything that happens on a node: find files, read them to their end, ship their bytes."""
