"""Tests mirror the packages; real_parts starts the servers that they ask for."""
