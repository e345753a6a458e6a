"""Replies from a server: calls run in parallel, results are taken in order, and stop strings are applied again."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.calls.client import Lookahead
from llmjobs.engines.endpoint.ask import Call, Client, FailedInARow, is_final
from llmjobs.engines.protocol import Asked, Generation
from llmjobs.errors import AnswerError, ContextFullError, RefusedCallError, UnavailableError
from llmjobs.stop_strings import stop_place

log = logging.getLogger(__name__)
ROWS = 16


class Generator:
    """Replies of one model; some calls start before their step."""

    end_tokens: frozenset[int] = frozenset()

    def __init__(self, client: Client, workers: int, path: str) -> None:
        """``workers`` calls run at the same time."""
        self.path, self.row_limit = path, ROWS
        self._client, self._workers = client, workers
        self._place: dict[Asked, int] = {}
        self._ahead: Lookahead[Generation] | None = None
        self._failed = FailedInARow()

    def keep_prefix(self, asked: Sequence[Asked]) -> None:
        """Store all requests of a unit, so that later calls can overlap earlier ones."""
        self.close()
        rows = list(asked)
        self._place = {row: at for at, row in enumerate(rows)}
        self._ahead = Lookahead(lambda at: self._reply(rows[at]), len(rows), self._workers)

    def generate(self, asked: Sequence[Asked]) -> list[Generation]:
        """Return one reply for each; a call without one gives an error in its place.

        Raises:
            UnavailableError: the server cannot be used.
            SpendingLimitError: the next call could exceed a limit.

        """
        replies = []
        for row in asked:
            place = self._place.get(row)
            reply = self._ahead.result(place) if self._ahead and place is not None else self._reply(row)
            self._failed.count(reply.error if reply.is_temporary and not reply.is_refused else None)
            replies.append(reply)
        return replies

    def to_record(self) -> dict[str, Any]:
        """How replies are requested."""
        reason = "messages" if self.path == "chat" else "plain texts"
        return {"path": self.path, "max_difference": None, "reason": f"the server takes {reason}"}

    def close(self) -> None:
        """Wait for the calls in progress, because they are paid for."""
        if self._ahead:
            self._ahead.close()
            self._ahead = None

    def _reply(self, row: Asked) -> Generation:
        assert row.prompt is not None
        settings: dict[str, Any] = {
            "max_tokens": row.max_new_tokens,
            "temperature": row.temperature,
            "seed": row.seed,
        }
        if row.top_p < 1:
            settings["top_p"] = row.top_p
        if row.stop:
            settings["stop"] = list(row.stop[:MOST_STOPS])
        try:
            return _generation(self._client.reply(row.prompt, settings), row.stop)
        except UnavailableError:
            raise
        except (AnswerError, ContextFullError) as error:
            again, refused = not is_final(error), isinstance(error, RefusedCallError)
            what = str(error)
            return Generation((), "", "error", None, None, error=what, is_temporary=again, is_refused=refused)


MOST_STOPS = 4
"""OpenAI's API refuses more stop strings than this; llmjobs itself applies all of them."""


def _generation(call: Call, stop: Sequence[str]) -> Generation:
    text = str(call["text"])
    end = stop_place(text, stop)
    reason = "length" if call["finish_reason"] == "length" and end is None else "stop"
    thinking = call.get("thinking")
    return Generation(
        token_ids=(),
        text=text if end is None else text[:end],
        finish_reason=reason,
        prompt_tokens=_count(call, "prompt_tokens"),
        new_tokens=_count(call, "new_tokens"),
        thinking=str(thinking) if thinking is not None else None,
    )


def _count(call: Mapping[str, Any], name: str) -> int | None:
    found = call.get(name)
    return found if isinstance(found, int) else None
