"""Keeps keys and tokens out of everything that is written, by value, whatever the source of a message.

A server that quotes the key back, a library that puts a header into its exception, an address with a password in it:
the value is replaced in every error, log line and traceback. The *answer* of a model or server is kept unchanged.
"""

import logging
import os
import re
import sys
from collections.abc import Collection

HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST = 8
"""A shorter value is not a key, and removing it would garble sentences."""
SHOWN = "…"
_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?$", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/\s@'\"]+@")
_variables: set[str] = set()


def holds_secret(variable: str) -> None:
    """Add an environment variable to those whose values are removed, whatever its name."""
    _variables.add(variable)


def redacted(text: str) -> str:
    """Return ``text`` without the values of secret environment variables, the hub's token, and users in addresses."""
    for value in _secret_values():
        text = text.replace(value, SHOWN)
    return _USERINFO.sub(f"{SHOWN}@", text) if "://" in text else text


def without_secrets(*, keep: Collection[str] = ()) -> dict[str, str]:
    """Return the environment for a child process, without secrets except those to keep."""
    return {name: value for name, value in os.environ.items() if name in keep or not _is_secret(name)}


def _is_secret(variable: str) -> bool:
    return variable in _variables or bool(_NAME.search(variable))


def _secret_values() -> list[str]:
    """Return the values, longest first, so that a value that is the start of another does not leave a rest."""
    found = {value for name, text in os.environ.items() if _is_secret(name) and len(value := text.strip()) >= SHORTEST}
    return sorted({*found, *_hub_token()}, key=len, reverse=True)


def _hub_token() -> set[str]:
    """Return the token that the hub's client reads from its file, if that client is in use."""
    hub = sys.modules.get("huggingface_hub")
    try:
        token = hub.get_token() if hub is not None else None
    except Exception:
        return set()
    return {token} if isinstance(token, str) and len(token) >= SHORTEST else set()


class SafeFormatter(logging.Formatter):
    """Formats a log line without secrets and with control characters written out."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or the lines of a traceback."""
        text = redacted(super().format(record))
        return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
