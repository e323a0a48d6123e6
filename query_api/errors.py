"""Every error that the query service raises, in one tree.

QueryError
├── BadParameter          a parameter is unknown, malformed or out of its bounds
├── NotComplete           the answer is not complete, and only a complete one was asked for
├── NotReadable           a file cannot be shown: damaged, or none of its kind
├── ServiceError          a client got an error from the service
└── ServiceUnavailable    a client cannot reach the service (retriable)
"""

from typing import Any


class QueryError(Exception):
    """Root of the tree; ``retriable`` says whether the same call may succeed later."""

    retriable = False
    code = "error"
    hint = ""


class BadParameter(QueryError):
    """A parameter is unknown, malformed or out of its bounds."""

    code = "bad_parameter"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotComplete(QueryError):
    """Only a complete answer was asked for; ``completeness`` says what is missing."""

    code = "not_complete"
    hint = "leave out require=complete to get the rows that are there"

    def __init__(self, completeness: Any) -> None:
        super().__init__(f"the answer is {completeness.verdict}")
        self.completeness = completeness


class NotReadable(QueryError):
    """A file cannot be shown, or not all of it: what is wrong with it, and what to do."""


class ServiceError(QueryError):
    """The service answered with an error; ``error`` is its JSON object."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message", "an error without a message"))
        self.error = error
        self.code = error.get("code", "error")
        self.hint = error.get("hint", "")


class ServiceUnavailable(QueryError):
    """The service cannot be reached, or its answer was cut off."""

    retriable = True
    code = "unavailable"
