"""Calls that cost money: limits on spending and per minute, and a journal that is written before an answer is used."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmjobs.calls.client import Lost, WholeAnswers
from llmjobs.errors import LlmjobsError
from llmjobs.terminal_text import plural

MINUTE_S = 60.0
PER = 1_000_000
BYTES_A_TOKEN = 3
"""Bytes per token in estimates; for most texts, this gives too many tokens rather than too few."""
MESSAGE_TOKENS, TEMPLATE_TOKENS = 16, 128
"""Maximum number of tokens that a chat template adds to a message, and to the whole prompt (its own system message)."""


def most_prompt_tokens(texts: Iterable[str]) -> int:
    """Maximum number of tokens of a prompt with these messages, for any tokenizer that falls back to bytes."""
    return TEMPLATE_TOKENS + sum(len(text.encode("utf-8", "replace")) + MESSAGE_TOKENS for text in texts)


def booked(call: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of prompt and answer to book for a line of the journal: the server's count, or the possible maximum."""
    if (most := call.get("booked")) is not None:
        return int(most[0]), int(most[1])
    return int(call.get("prompt_tokens", 0)), int(call.get("new_tokens", 0))


class SpendingLimitError(LlmjobsError):
    """The next call could exceed the limit."""


@dataclass(frozen=True)
class Rate:
    """Price of a million tokens of prompt and of answer."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt_tokens: int, new_tokens: int) -> float:
        """The cost in the currency of the prices."""
        return (self.prompt * prompt_tokens + self.completion * new_tokens) / PER


class Spending:
    """Tokens and cost of all calls to endpoints, compared with their limits."""

    def __init__(
        self,
        rates: Mapping[str, Rate],
        *,
        tokens: int | None = None,
        cost: float | None = None,
        currency: str = "USD",
        section: str = "mtbench",
    ) -> None:
        """``rates`` by the endpoint's name in the manifest; a name without one is free of charge.

        ``section`` of the manifest holds the limits.
        """
        self.section = section
        self.rates, self.limit_tokens, self.limit_cost, self.currency = dict(rates), tokens, cost, currency
        self.tokens, self.cost, self.calls, self.failed = 0, 0.0, 0, 0
        self.parameters: dict[str, dict[str, str]] = {}
        """By the endpoint's name, the parameters that it does not accept (see ``calls.parameters``)."""
        self._held_tokens, self._held_cost = 0, 0.0
        self._lock = threading.Lock()

    def book_past(self, calls: Iterable[Mapping[str, Any]]) -> None:
        """Count the calls of earlier attempts."""
        for call in calls:
            self._book(call)

    def hold(self, name: str, prompt_tokens: int, new_tokens: int) -> "Held":
        """Reserve the maximum that a call can use.

        Raises:
            SpendingLimitError: it could exceed a limit; nothing was sent.

        """
        cost = self.rates.get(name, Rate()).cost(prompt_tokens, new_tokens)
        tokens = prompt_tokens + new_tokens
        with self._lock:
            self._refuse_over(name, tokens, cost)
            self._held_tokens += tokens
            self._held_cost += cost
        return Held(self, name, tokens, cost)

    def _refuse_over(self, name: str, tokens: int, cost: float) -> None:
        after = self.tokens + self._held_tokens + tokens
        if self.limit_tokens is not None and after > self.limit_tokens:
            raise SpendingLimitError(
                f"{name}: the next call could exceed the limit of {self.limit_tokens:,} tokens ({self.tokens:,} used); "
                f"raise {self.section}.spending.tokens and run the same command again; paid answers are kept"
            )
        due = self.cost + self._held_cost + cost
        if self.limit_cost is not None and due > self.limit_cost:
            raise SpendingLimitError(
                f"{name}: the next call could exceed the limit of {self.limit_cost:g} {self.currency} "
                f"({self.cost:.4f} spent); raise {self.section}.spending.cost and run the same command again; "
                "paid answers are kept"
            )

    def _book(self, call: Mapping[str, Any]) -> None:
        prompt_tokens, new_tokens = booked(call)
        self.calls += 1
        self.failed += "failed" in call or "error" in call
        if changed := call.get("parameters"):
            self.parameters.setdefault(str(call["name"]), {}).update(changed)
        self.tokens += prompt_tokens + new_tokens
        self.cost += self.rates.get(str(call["name"]), Rate()).cost(prompt_tokens, new_tokens)

    def book_call(self, held: "Held", call: Mapping[str, Any] | None) -> None:
        """Replace a reservation by what the call used; None if nothing was sent."""
        with self._lock:
            self._held_tokens -= held.tokens
            self._held_cost -= held.cost
            if call is not None:
                self._book(call)

    def to_record(self) -> dict[str, Any]:
        """The part of a summary about spending; ``cost`` is None if nothing has a price."""
        return {
            "calls": self.calls,
            "failed": self.failed,
            "tokens": self.tokens,
            "cost": round(self.cost, 6) if self.rates else None,
            "currency": self.currency,
        }


def spending_lines(record: Mapping[str, Any] | None) -> list[str]:
    """A line for the terminal; none if there were no calls."""
    if not record or not record["calls"]:
        return []
    cost = f", {record['cost']:.4f} {record['currency']}" if record["cost"] is not None else ""
    failed = f" ({record['failed']:,} failed)" if record["failed"] else ""
    return [f"endpoints: {plural(record['calls'], 'call')}{failed}, {plural(record['tokens'], 'token')}{cost}"]


@dataclass(frozen=True)
class Held:
    """Tokens and cost reserved for one call."""

    spending: Spending
    name: str
    tokens: int
    cost: float


class MinuteLimit:
    """Delays requests according to an endpoint's rate limits. Safe for several threads."""

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """None means no limit of that kind."""
        self.requests, self.tokens = requests, tokens
        self._clock, self._sleep = clock, sleep
        self._passed: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> None:
        """Return when a request of this many tokens may be sent; one above the limit waits for an idle minute."""
        if self.requests is None and self.tokens is None:
            return
        while True:
            with self._lock:
                seconds = self._seconds_left(tokens)
                if seconds <= 0:
                    self._passed.append((self._clock(), tokens))
                    return
            self._sleep(seconds)

    def _seconds_left(self, tokens: int) -> float:
        now = self._clock()
        while self._passed and self._passed[0][0] <= now - MINUTE_S:
            self._passed.popleft()
        used = sum(count for _, count in self._passed)
        full = self.requests is not None and len(self._passed) >= self.requests
        over = self.tokens is not None and bool(self._passed) and used + tokens > self.tokens
        return max(self._passed[0][0] + MINUTE_S - now, 0.01) if full or over else 0.0


Call = dict[str, Any]


class Journal(Protocol):
    """Where finished calls are kept (``work.call_journal``)."""

    def key(self, request: Mapping[str, Any]) -> str:
        """A key that identifies everything that decides a call."""

    def find(self, key: str) -> Call | None:
        """Return a call that gave an answer, or None."""

    def add(self, key: str, call: Mapping[str, Any]) -> None:
        """Write a finished request to disk."""


@dataclass(frozen=True)
class PaidCalls:
    """The calls of one unit to one endpoint; safe for several threads.

    ``account`` is the name under which prices are given; ``changes`` are the parameters that the server does not
    accept, which are learned from its errors (see ``calls.parameters``).
    """

    journal: Journal
    account: str
    spending: Spending
    minute: MinuteLimit
    changes: Mapping[str, str] = field(default_factory=dict)

    def make(
        self, key: str, label: str, most: tuple[int, int], send: Callable[[WholeAnswers], Mapping[str, Any]]
    ) -> Call:
        """Make a call: ``send`` returns what to keep of the answer, which is written to disk before it is used.

        ``most`` is the maximum number of tokens of prompt and answer. The result's ``booked`` tokens are booked, or
        otherwise its ``prompt_tokens`` and ``new_tokens``.

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
    """One call, which may take several requests; the maximum that each may use is reserved before it is sent."""

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
        """Before each request, reserve the maximum that it may use, and wait for the endpoint's rate limits."""
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
        """Replace the reservation by what a request used; None if nothing was sent."""
        if self._held is not None:
            held, self._held = self._held, None
            self.calls.spending.book_call(held, call)
