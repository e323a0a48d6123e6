"""Which rows are meant: a query, a scope and rows go in; out comes which of the rows fit."""
