"""What can go wrong in a turn. None of these leaves anything in the conversation.

LlmjobsError
├── ContextFullError      the conversation no longer fits: no strategy drops anything, or the server says so
├── MessageTooLongError   one message alone is longer than the context
└── AnswerError           what came back is no answer (empty, cut off, not readable, refused)
    └── CallError            a request to an endpoint gave no answer: never a result, to be asked again
        ├── EmptyCallError   its answer is whole and has no text
        └── UnavailableError     the server cannot be used at all; the same request may work later
"""

from llmjobs.errors import LlmjobsError


class ContextFullError(LlmjobsError):
    """The conversation no longer fits into the context."""


class MessageTooLongError(LlmjobsError):
    """System prompt and newest message do not fit into the context even alone."""


class AnswerError(LlmjobsError):
    """What came back is no answer."""


class CallError(AnswerError):
    """A request to an endpoint gave no answer: no result, another try may give one."""


class EmptyCallError(CallError):
    """The answer of an endpoint is whole and has no text."""


class UnavailableError(CallError):
    """The endpoint cannot be reached, refuses the key, or asks to wait; no other request would do better."""
