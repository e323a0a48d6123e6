"""Rows of one page from many segments, by functions of plain values: plan, scan, merge."""
