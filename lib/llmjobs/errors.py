"""The exceptions that end a command with one line, and their exit codes (a job's: ``work.outcome``).

    LlmjobsError                 exit code 1
    ├── ManifestError            2   a manifest or an option is not valid
    ├── DataError                1   rows, records or logs that cannot be read
    ├── ModelError               1   a model that cannot be found, fetched or loaded
    ├── MissingPackageError      1   an extra that is not installed
    ├── ContextFullError         1   a prompt that no longer fits into the context
    ├── AnswerError              1   a model's reply that is not an answer
    │   └── CallError                a request to an endpoint gave no answer; another try may give one
    │       ├── RefusedCallError     the server refuses this request, and would again
    │       └── UnavailableError     the endpoint itself cannot be used
    ├── StoppedError             75  a run in Python that was interrupted, with progress saved
    └── RunFolderError           1   the run folder cannot be used
        ├── LockedError              another process is working in it
        └── FingerprintError         the settings differ from those of the run

Every message is one line: where, what, what is allowed, what to do.
"""

import re

from llmjobs.exit_codes import EXIT_ERROR, EXIT_RESUMABLE, EXIT_USAGE
from llmjobs.redaction import redacted


class LlmjobsError(Exception):
    """An error that a person can act on; its text is the line to print."""

    exit_code = EXIT_ERROR

    def __init__(self, message: str) -> None:
        """Put ``message`` on one line without secrets; control characters are written out."""
        super().__init__(printable(redacted(message)))

    def _render_traceback_(self) -> list[str]:
        """Show only the one line in a notebook (IPython's protocol)."""
        return [f"{type(self).__name__}: {self}"]


class ManifestError(LlmjobsError):
    """A manifest, an override or an option that is not valid."""

    exit_code = EXIT_USAGE


class DataError(LlmjobsError):
    """Rows, records or logs that cannot be read."""


class ModelError(LlmjobsError):
    """A model or tokenizer that cannot be found, fetched or loaded."""


class MissingPackageError(LlmjobsError):
    """An optional package that is needed but not installed."""


class ContextFullError(LlmjobsError):
    """A prompt that no longer fits into the context."""


class AnswerError(LlmjobsError):
    """A model's reply is not an answer."""


class CallError(AnswerError):
    """A request to an endpoint gave no answer: no result, another try may give one."""


class RefusedCallError(CallError):
    """The server refuses this request, and would do so again: a content filter, or a request that it cannot read."""


class UnavailableError(CallError):
    """The endpoint cannot be reached, refuses the key, or asks to wait; no other request would do better."""


class StoppedError(LlmjobsError):
    """A run that was interrupted with progress saved; the same call resumes it."""

    exit_code = EXIT_RESUMABLE


class RunFolderError(LlmjobsError):
    """A run folder that cannot be used."""


class LockedError(RunFolderError):
    """Another process is working in the run folder."""


class FingerprintError(RunFolderError):
    """The settings differ from those of the run."""


def plain_reason(error: BaseException, most: int = 300) -> str:
    """The text of another library's exception: on one line, without class names, addresses and secrets."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) and text:
        text = f"there is no {text}"
    text = re.sub(r"'(\w+)' object has no attribute '(\w+)'", r"\1 has no \2", text)
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = re.sub(r"\b(?:\w+\.)*\w+(?:Error|Exception)\b:?\s*", "", text)
    return printable(redacted(text))[:most].rstrip(" .:;") or "no reason given"


JSON_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}


def json_kind(value: object) -> str:
    """What a value of a JSON file is, in JSON's words."""
    return JSON_KINDS.get(type(value), "a number")


def printable(text: str) -> str:
    r"""Return ``text`` on one line; control characters are written out (``\n`` as a space, ESC as ``\x1b``)."""
    flat = " ".join(text.split("\n"))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in flat)
