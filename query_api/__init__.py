"""From a question to an answer, with what the answer may be missing and what it cost."""
