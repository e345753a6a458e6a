"""Encode and decode text with one ``tokenizer.json`` in a child process (``-m llmjobs…tokenizer_trial_child FILE``).

One JSON line out: ``{}``, or ``error`` and ``message``. The kernel limits its memory, the parent its time. It only
imports the tokenizers library, so a trial takes a fraction of a second.
"""

import contextlib
import json
import os
import resource
import sys
from pathlib import Path

ROOM_BYTES = 3 * 1024**3
"""Memory for reading the file and handling the texts; the largest tokenizers take about 1 GiB."""
MOST_TOKENS = 4_000_000
"""Maximum number of tokens of all texts together, which have about 20,000 characters."""
MEMORY, LIMIT, OTHER = "memory", "limit", "other"
TEXTS = (
    "The following are multiple choice questions (with answers) about astronomy.\n\nWhat is 12,345.67 + 8? A. 1\nB. 2",
    "a" * 2000 + "!",
    "ab" * 1000 + "\n",
    " " * 2000 + "x",
    "\n" * 500 + "\t" * 500 + "0",
    "1" * 2000 + "x",
    "A" * 1000 + "b" * 1000 + "1",
    "é" * 500 + "ñ" * 500 + "?",
    "日本語" * 300 + "。" * 100,
    "x = [i for i in range(10)]; print('=' * 80)\n" * 20,
    "!?.,;:" * 200 + "a",
)
"""Prose, and long runs on which expressions with nested repetitions take exponential time."""


def main() -> None:
    """Try the file named on the command line."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (ROOM_BYTES, ROOM_BYTES))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = _tried(Path(sys.argv[1]))
    except MemoryError:
        answer = {"error": MEMORY}
    except BaseException as error:
        text = " ".join(str(error).split())[:300]
        limited = "retry-limit" in text or "Onig" in text or "BacktrackLimit" in text
        answer = {"error": LIMIT if limited else OTHER, "message": text}
    print(json.dumps(answer), file=answers, flush=True)


def _tried(path: Path) -> dict[str, str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    left = MOST_TOKENS
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        left -= len(ids)
        if left < 0 or len(tokenizer.decode(ids)) > MOST_TOKENS:
            return {"error": MEMORY}
    return {}


if __name__ == "__main__":
    main()
