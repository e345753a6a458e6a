"""Render chat templates by transformers' code in a child process (``-m llmjobs.engines.transformers.template_child``).

One JSON line in (``template``, ``messages``, ``add_generation_prompt``, ``date``, ``values``), one out (``text``, or
``error`` and ``message``). Where a date is given, it is today for the template. Its memory is limited by the kernel
once everything is imported; its time is the parent's affair.
"""

import contextlib
import datetime
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

ROOM_BYTES = 512 * 1024**2
"""Memory that rendering may take beyond what the imports took."""
MAX_TEXT_CHARACTERS = 16 * 1024**2
TEMPLATE, SYNTAX, MEMORY, OTHER = "template", "syntax", "memory", "other"


def main() -> None:
    """Serve until the parent closes its end."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    # not needed here, and its import would take seconds
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from jinja2 import TemplateError, TemplateSyntaxError
    from transformers.utils import chat_template_utils
    from transformers.utils.chat_template_utils import render_jinja_template

    chat_template_utils.datetime = RunDate  # type: ignore[attr-defined]
    # ``strftime_now`` reads the clock by that name; what is given to a template as a value must be plain data
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
            answer = {"error": OTHER, "message": str(error)[:1000] or "it fails without saying why"}
        print(json.dumps(answer), file=answers, flush=True)


class RunDate(datetime.datetime):
    """A clock that stands still where a date is given."""

    today_is: datetime.date | None = None

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "RunDate":
        """Midnight of the date given, else the time."""
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
    """Let the kernel refuse what is too much; where it cannot (macOS), only the time is limited."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + ROOM_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
