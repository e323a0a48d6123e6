"""The command everyline: it starts a role, asks the query service, or looks into a file."""
