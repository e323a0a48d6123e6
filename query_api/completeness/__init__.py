"""What an answer may miss: the ledger as of one version, judged for what was asked."""
