"""Calls that gave no answer: which of them another try could change, and when a server is given up."""

from llmjobs.errors import AnswerError, CallError, ContextFullError, EmptyCallError, RefusedCallError, UnavailableError

FAILED_IN_A_ROW = 3
"""After this many questions without an answer, one after the other, the rest is not sent to the server."""


def is_final(error: AnswerError | ContextFullError) -> bool:
    """Whether another try would end the same way: the prompt does not fit, or the server refuses this question."""
    return not isinstance(error, CallError) or isinstance(error, RefusedCallError | EmptyCallError)


class FailedInARow:
    """Gives a server up that answers nothing any more."""

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self._count = 0

    def count(self, error: str | None) -> None:
        """Take note of one question; None: it was answered.

        Raises:
            UnavailableError: too many in a row were not.

        """
        self._count = self._count + 1 if error else 0
        if self._count >= FAILED_IN_A_ROW:
            raise UnavailableError(f"{self._count} questions in a row had no answer; the last error: {error}")
