"""The command everyline: it starts a role, or asks the query service and prints the answer."""
