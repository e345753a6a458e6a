"""Which parameters of a request a server takes, learned from what it refuses."""

import json
import re
import threading
from collections.abc import Mapping
from typing import Any

from llmjobs.calls.event_stream import StatusError

LEFT_OUT = "left out"
REFUSALS = frozenset({400, 404, 405, 415, 422, 501})
OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
OPTIONAL = ("chat_template_kwargs", "stream_options", "stream", "temperature", "top_p", "seed")
"""Parameters that may be left out. Not ``max_tokens``, which limits the cost, and not ``stop``, which changes the
answer.
"""
_ABOUT_LENGTH = re.compile(
    r"context (length|window|size)|too (large|long|many|high)|exceed|at most|maximum (value|of|number)|less than",
    re.IGNORECASE,
)
"""Matches a refused value of ``max_tokens``, as opposed to a refused name."""
_ABOUT_RANGE = re.compile(r"above|below|between|less than|greater than|range|<=|>=|at most|maximum", re.IGNORECASE)
_REFUSES = re.compile(r"not |n't|un(supported|known|recogni|expected)|extra|invalid|only|instead|must", re.IGNORECASE)


class Parameters:
    """The parameters that one server accepts; shared by all conversations with it, safe for several threads."""

    def __init__(self) -> None:
        """Everything is sent until something is refused."""
        self.changes: dict[str, str] = {}
        """Parameter → its other name, or :data:`LEFT_OUT`."""
        self._lock = threading.Lock()

    def apply(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The request in the form that this server accepts."""
        changes = dict(self.changes)
        return {changes.get(key, key): value for key, value in wanted.items() if changes.get(key) != LEFT_OUT}

    def learn(self, error: StatusError, wanted: Mapping[str, Any], sent: Mapping[str, Any]) -> str | None:
        """Read a refusal. Return a message if the request is worth sending again, otherwise None.

        The message is empty if another thread learned the same in the meantime.
        """
        if error.status not in REFUSALS:
            return None
        with self._lock:
            if self.apply(wanted) != sent:
                return ""
            name = _refused(error, sent)
            if name is None:
                return None
            if name in OTHER_NAMES:
                other = OTHER_NAMES[name]
                if name != "max_tokens":
                    return None
                self.changes[name] = other
                return f"the server does not accept {name!r}; sending {other!r} from now on"
            self.changes[name] = LEFT_OUT
            if name == "stream":
                self.changes["stream_options"] = LEFT_OUT
            effect = {"temperature": ", so the server chooses its own", "seed": ", so a repetition may differ"}
            return f"the server does not accept {name!r}; leaving it out from now on{effect.get(name, '')}"


def _refused(error: StatusError, sent: Mapping[str, Any]) -> str | None:
    """The parameter that was refused: the one that the error declares, otherwise the first that its message names."""
    said, declared = error.said, _declared(error.body)
    for name in (*OPTIONAL, "max_tokens", "max_completion_tokens"):
        if name not in sent or not (name in declared or (not declared and _names(name, said))):
            continue
        if name in OTHER_NAMES and _ABOUT_LENGTH.search(said):
            continue
        if name in ("temperature", "top_p") and sent[name] > 0 and _ABOUT_RANGE.search(said):
            continue
        return name
    return None


def _names(name: str, said: str) -> bool:
    """Whether a message refuses the parameter, rather than just using the word."""
    alone = {one: rf"\b{one}\b" for one in ("chat_template_kwargs", "stream_options", "top_p", "max_tokens")}
    word = alone.get(name, rf"[`'\"\[.]{name}[`'\"\]]|\b{name}:? (is |are |must |can|does )|: {name}\b|\w {name}$")
    return bool(re.search(word, said, re.IGNORECASE) and _REFUSES.search(said))


def _declared(body: str) -> set[str]:
    """Parameters that the error declares: ``param`` in OpenAI's form, ``loc`` in FastAPI's."""
    found: set[str] = set()

    def walk(value: Any, depth: int = 0) -> None:
        if depth > 8:
            return
        if isinstance(value, dict):
            if isinstance(value.get("param"), str):
                found.add(value["param"])
            if isinstance(value.get("loc"), list):
                found.update(str(part) for part in value["loc"])
            for inner in value.values():
                walk(inner, depth + 1)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, depth + 1)

    try:
        walk(json.loads(body))
    except (ValueError, RecursionError):
        return set()
    return found & {*OPTIONAL, *OTHER_NAMES}
