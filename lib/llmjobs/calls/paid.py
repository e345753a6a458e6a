"""Calls that may cost money: written to a journal before they are used, with limits on spending and per minute."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmjobs.calls.endpoint import Lost, WholeAnswers
from llmjobs.calls.spending import Held, MinuteLimit, Spending

Call = dict[str, Any]


class Journal(Protocol):
    """Where finished calls are kept (``work.call_journal``)."""

    def key(self, request: Mapping[str, Any]) -> str:
        """What stands for everything that decides a call."""

    def find(self, key: str) -> Call | None:
        """Return a call that gave an answer, or None."""

    def add(self, key: str, call: Mapping[str, Any]) -> None:
        """Write a finished request to disk."""


@dataclass(frozen=True)
class PaidCalls:
    """The calls of one unit to one endpoint; safe for several threads.

    ``account`` is the name under which prices are given; ``changes`` are the parameters that the server does not take
    (see ``calls.parameters``), learned or not yet.
    """

    journal: Journal
    account: str
    spending: Spending
    minute: MinuteLimit
    changes: Mapping[str, str] = field(default_factory=dict)

    def make(
        self, key: str, label: str, most: tuple[int, int], send: Callable[[WholeAnswers], Mapping[str, Any]]
    ) -> Call:
        """Make a call: ``send`` asks and returns what is kept of the answer, which is on disk before it is used.

        ``most`` are the most tokens of prompt and answer. Of what ``send`` returns, ``prompt_tokens`` and
        ``new_tokens`` are booked, or what it says under ``booked``.

        Raises:
            CallError: there is no answer; the reason is in the journal, and a later run repeats the call.
            SpendingLimitError: the call could exceed a limit.

        """
        one = _PaidCall(self, key, label, most)
        try:
            one.hold()
            call = {**one.head(), **send(WholeAnswers(one.before, one.lost))}
            self.journal.add(key, call)
            one.book(call)
            return call
        finally:
            one.book(None)


@dataclass
class _PaidCall:
    """One call, perhaps of several requests: what it may take at most is set aside before each of them."""

    calls: PaidCalls
    key: str
    label: str
    most: tuple[int, int]
    _held: Held | None = None

    def head(self) -> Call:
        changed = {"parameters": dict(self.calls.changes)} if self.calls.changes else {}
        return {"name": self.calls.account, "label": self.label, **changed}

    def hold(self) -> None:
        if self._held is None:
            self._held = self.calls.spending.hold(self.calls.account, *self.most)

    def before(self) -> None:
        """Before each request: what it may take is set aside, and the endpoint's limits a minute are kept."""
        self.hold()
        self.calls.minute.wait(sum(self.most))

    def lost(self, lost: Lost) -> None:
        """After a request without an answer, store the reason and book what it may have cost."""
        call: Call = {**self.head(), "failed": lost.reason}
        if lost.may_cost:
            counts = (lost.prompt_tokens, lost.new_tokens)
            call["booked"] = [most if count is None else count for count, most in zip(counts, self.most, strict=True)]
        self.calls.journal.add(self.key, call)
        self.book(call)

    def book(self, call: Call | None) -> None:
        """Book what a request took in the place of what was set aside; None where nothing was sent."""
        if self._held is not None:
            held, self._held = self._held, None
            self.calls.spending.book_call(held, call)
