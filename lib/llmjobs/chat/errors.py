"""What can go wrong in a turn. None of these leaves anything in the conversation.

LlmjobsError
├── ContextFullError      the conversation no longer fits and the strategy drops nothing
├── MessageTooLongError   one message alone is longer than the context
└── AnswerError           what came back is no answer (empty, cut off, not readable, refused)
    └── UnavailableError     nothing came back after the last retry; the same request may work later
"""

from llmjobs.errors import LlmjobsError


class ContextFullError(LlmjobsError):
    """The conversation no longer fits into the context, and ``full`` drops nothing."""


class MessageTooLongError(LlmjobsError):
    """System prompt and newest message do not fit into the context even alone."""


class AnswerError(LlmjobsError):
    """What came back is no answer."""


class UnavailableError(AnswerError):
    """The endpoint cannot be reached, refuses the key, or failed until the last retry."""
