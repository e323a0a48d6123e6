"""A range goes in, and pieces of the same bytes come out: kept, elided by a rule, or redacted."""
