"""Chat templates are programs that come with a model: they are rendered in a process of their own, with limits.

transformers' sandbox keeps a template from reaching for attributes, but not from looping for ever, or from filling the
memory with one multiplication. Here it has some seconds and some memory; a template that needs more ends in one line.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

from llmjobs.engines.transformers.template_child import MEMORY, ROOM_BYTES, SYNTAX, TEMPLATE
from llmjobs.errors import ModelError, printable
from llmjobs.redaction import without_secrets

RENDER_S = 10.0
START_S = 120.0
CHILD = "llmjobs.engines.transformers.template_child"


def bound_template(tokenizer: Any, who: str) -> Any:
    """Let ``tokenizer.apply_chat_template`` render in a limited process; returns the tokenizer.

    ``who`` begins the line of an error: the model's name. The process starts with the first message.
    """
    if getattr(tokenizer, "chat_template", None):
        tokenizer.apply_chat_template = BoundTemplate(tokenizer, who)
    return tokenizer


class BoundTemplate:
    """Called in the place of a tokenizer's ``apply_chat_template``, for text only."""

    takes_date = True
    """What a template prints as today can be given (``date``)."""

    def __init__(self, tokenizer: Any, who: str) -> None:
        """Nothing is started yet."""
        self.who = who
        self._tokenizer = weakref.ref(tokenizer)
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def __call__(
        self,
        conversation: Any,
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        date: str | None = None,
        **values: Any,
    ) -> str:
        """Write messages as the model expects them; ``date`` (ISO 8601) is today for a template that prints it.

        Raises:
            jinja2.TemplateError: the template refuses the messages, or reaches for what it must not.
            ModelError: it takes too long or too much memory.

        """
        tokenizer = self._tokenizer()
        if tokenize or tokenizer is None:
            raise TypeError("a bound chat template gives text")
        task = {
            "template": tokenizer.get_chat_template(),
            "messages": [{key: v for key, v in message.items() if v is not None} for message in conversation],
            "add_generation_prompt": add_generation_prompt,
            "date": date,
            "values": {**tokenizer.special_tokens_map, **values},
        }
        with self._lock:
            if self._child is None or not self._child.is_alive:
                self._child = _Child()
                weakref.finalize(self, self._child.end)
            answer = self._child.ask(task)
        return self._text(answer)

    def _text(self, answer: dict[str, Any]) -> str:
        if "text" in answer:
            return str(answer["text"])
        kind, message = answer.get("error"), answer.get("message", "")
        if kind == TEMPLATE:
            from jinja2 import TemplateError

            raise TemplateError(str(message))
        remedy = "use chat_template: false, or use another model"
        if kind == SYNTAX:
            raise ModelError(
                f"{self.who}: its chat template is not valid Jinja ({printable(str(message))}); correct it, fetch the"
                " model again, or use chat_template: false"
            )
        if kind == MEMORY:
            raise ModelError(f"{self.who}: its chat template takes over {ROOM_BYTES >> 20} MiB of memory; {remedy}")
        raise ModelError(f"{self.who}: its chat template cannot be used: {printable(str(message))}; {remedy}")


class _Child:
    """The rendering process; killed when it is too slow, gone when this one is."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=without_secrets(),
        )
        self._rest = b""
        if "ready" not in self._read(START_S):
            self.end()
            raise ModelError(
                "the process that renders chat templates does not start; "
                "run 'python -m pip check' to find broken packages"
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, task: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
        answer = self._read(RENDER_S)
        if answer:
            return answer
        self.end()
        if time.monotonic() - began >= RENDER_S:
            return {"error": "time", "message": f"it ran longer than {RENDER_S:g} s and was stopped"}
        return {"error": MEMORY}

    def _read(self, seconds: float) -> dict[str, Any]:
        """Return the next line's object; an empty one where none came in time, or the process is gone."""
        assert self._process.stdout is not None
        descriptor, until = self._process.stdout.fileno(), time.monotonic() + seconds
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            ready, _, _ = select.select([descriptor], [], [], max(until - time.monotonic(), 0))
            part = os.read(descriptor, 1 << 16) if ready else b""
            if not part:
                return {}
            parts.append(part)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return dict(json.loads(line))

    def end(self) -> None:
        """Kill it and close its pipes."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
