"""Bytes of lines go in, columns come out, by compiled kernels. Nothing is read or written here."""
