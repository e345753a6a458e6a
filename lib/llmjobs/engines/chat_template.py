"""Render chat templates in a limited child process, because a template is a program that comes with a model.

transformers' sandbox keeps a template from accessing attributes, but not from looping forever or from filling the
memory with one multiplication. Here it has a few seconds and limited memory; a template that needs more ends in one
line.
"""

import contextlib
import datetime
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from llmjobs.errors import ModelError, printable
from llmjobs.redaction import without_secrets

RENDER_S = 10.0
START_S = 120.0
CHILD = "llmjobs.engines.chat_template"
ROOM_BYTES = 512 * 1024**2
"""Memory that rendering may use in addition to that of the imports."""
MAX_TEXT_CHARACTERS = 16 * 1024**2
TEMPLATE, SYNTAX, MEMORY, OTHER = "template", "syntax", "memory", "other"


def bound_template(tokenizer: Any, who: str) -> Any:
    """Make ``tokenizer.apply_chat_template`` render in a limited process; return the tokenizer.

    ``who`` is the model's name, for error messages. The process starts with the first message.
    """
    if getattr(tokenizer, "chat_template", None):
        tokenizer.apply_chat_template = BoundTemplate(tokenizer, who)
    return tokenizer


class BoundTemplate:
    """Replaces a tokenizer's ``apply_chat_template``, for text only."""

    takes_date = True
    """Marks that a date can be passed, which the template prints as today's (``date``)."""

    def __init__(self, tokenizer: Any, who: str) -> None:
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
        """Write messages as the model expects them; a template may print ``date`` (ISO 8601) as today's date.

        Raises:
            jinja2.TemplateError: the template refuses the messages, or accesses something forbidden.
            ModelError: it takes too long or too much memory.

        """
        tokenizer = self._tokenizer()
        if tokenize or tokenizer is None:
            raise TypeError("this chat template only returns text")
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
            raise ModelError(
                f"{self.who}: its chat template takes more than {ROOM_BYTES >> 20} MiB of memory; {remedy}"
            )
        raise ModelError(f"{self.who}: its chat template cannot be used: {printable(str(message))}; {remedy}")


class _Child:
    """The rendering process. It is killed if it is too slow, and it ends with this process."""

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
                "the process that renders chat templates cannot be started; "
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
        """Return the next line's object; an empty one if none arrives in time or the process has ended."""
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
        """Kill the process and close its pipes."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


# The rendering process (``python -m llmjobs.engines.chat_template``): one JSON line in (``template``, ``messages``,
# ``add_generation_prompt``, ``date``, ``values``), one line out (``text``, or ``error`` and ``message``). The kernel
# limits its memory once everything is imported; the parent limits its time.


def main() -> None:
    """Serve until the parent closes its end."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    # not needed here, and importing it would take seconds
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from jinja2 import TemplateError, TemplateSyntaxError
    from transformers.utils import chat_template_utils
    from transformers.utils.chat_template_utils import render_jinja_template

    chat_template_utils.datetime = RunDate  # type: ignore[attr-defined]
    # ``strftime_now`` reads the clock by that name; values passed to a template must be plain data
    _limit_memory()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = {"text": _rendered(render_jinja_template, json.loads(line))}
        except TemplateSyntaxError as error:
            answer = {"error": SYNTAX, "message": f"line {error.lineno}: {error.message}"[:1000]}
        except TemplateError as error:
            answer = {"error": TEMPLATE, "message": str(error)[:1000]}
        except MemoryError:
            answer = {"error": MEMORY, "message": ""}
        except Exception as error:
            answer = {"error": OTHER, "message": str(error)[:1000] or "it failed without giving a reason"}
        print(json.dumps(answer), file=answers, flush=True)


class RunDate(datetime.datetime):
    """A clock that stands still if a date is given."""

    today_is: datetime.date | None = None

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "RunDate":
        """Midnight of the given date, otherwise the current time."""
        if cls.today_is is None:
            return super().now(tz)
        return cls(cls.today_is.year, cls.today_is.month, cls.today_is.day, tzinfo=tz)


def _rendered(render: Any, task: dict[str, Any]) -> str:
    RunDate.today_is = datetime.date.fromisoformat(task["date"]) if task.get("date") else None
    found, _ = render(
        conversations=[task["messages"]],
        chat_template=task["template"],
        add_generation_prompt=task["add_generation_prompt"],
        **task["values"],
    )
    if len(found[0]) > MAX_TEXT_CHARACTERS:
        raise MemoryError
    return str(found[0])


def _limit_memory() -> None:
    """Let the kernel limit the memory; where it cannot (macOS), only the time is limited."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + ROOM_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
