"""Calls that may cost money: written to a journal before they are used, with limits on spending and per minute."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from llmjobs.chat.backend import AnswerStream, Backend, CallError, Counted, Ending, FinishReason, Sampling, drain
from llmjobs.chat.endpoint import Lost, WholeAnswers
from llmjobs.chat.messages import Message
from llmjobs.clocks import DeviceClock
from llmjobs.errors import LlmjobsError
from llmjobs.terminal_text import plural
from llmjobs.work.journal import Journal, encode, read_lines

# Limits: spending over the whole run, and an endpoint's rate limits.

MINUTE_S = 60.0
PER = 1_000_000


MESSAGE_TOKENS, TEMPLATE_TOKENS = 16, 128
"""Maximum number of tokens that a chat template adds to a message, and to the whole prompt (its own system message)."""


def most_prompt_tokens(messages: Sequence[Message]) -> int:
    """Maximum number of tokens of a prompt, for any tokenizer that falls back to bytes."""
    return TEMPLATE_TOKENS + sum(len(m.content.encode("utf-8", "replace")) + MESSAGE_TOKENS for m in messages)


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
        self, rates: Mapping[str, Rate], *, tokens: int | None = None, cost: float | None = None, currency: str = "USD"
    ) -> None:
        """``rates`` are by the endpoint's name in the manifest; a name without one is free of charge."""
        self.rates, self.limit_tokens, self.limit_cost, self.currency = dict(rates), tokens, cost, currency
        self.tokens, self.cost, self.calls, self.failed = 0, 0.0, 0, 0
        self.parameters: dict[str, dict[str, str]] = {}
        """By the endpoint's name, the parameters that it does not accept (see ``chat.parameters``)."""
        self._held_tokens, self._held_cost = 0, 0.0
        self._lock = threading.Lock()

    def book_past(self, calls: Iterable[Mapping[str, Any]]) -> None:
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
                "raise mtbench.spending.tokens and run the same command again; paid answers are kept"
            )
        due = self.cost + self._held_cost + cost
        if self.limit_cost is not None and due > self.limit_cost:
            raise SpendingLimitError(
                f"{name}: the next call could exceed the limit of {self.limit_cost:g} {self.currency} "
                f"({self.cost:.4f} spent); raise mtbench.spending.cost and run the same command again; "
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


# The journal of paid calls: each finished call is on disk before its answer is used, so no call is paid twice.

CALLS = "calls.jsonl"
Call = dict[str, Any]


def call_key(request: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a call."""
    return hashlib.sha256(encode(request)).hexdigest()[:32]


class CallJournal:
    """The finished calls of one unit; safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Read the journal and cut off an incomplete last line."""
        path = folder / CALLS
        self.known: dict[str, Call] = {}
        end = 0
        if path.exists():
            for _, end, call in read_lines(path, allow_torn=True):  # noqa: B007 - the last end is where to go on
                self._know(str(call["key"]), call)
        self._journal = Journal(path, end)
        self._lock = threading.Lock()

    def find(self, key: str) -> Call | None:
        """Return a call that gave an answer, or None."""
        with self._lock:
            return self.known.get(key)

    def add(self, key: str, call: Mapping[str, Any]) -> None:
        """Write a finished request to disk."""
        with self._lock:
            line = {"key": key, **call}
            self._journal.append([line])
            self._know(key, line)

    def _know(self, key: str, call: Call) -> None:
        if "failed" not in call and "error" not in call:  # ``error`` is from runs that did not repeat failed calls
            self.known[key] = call

    def close(self) -> None:
        """Close the file."""
        self._journal.close()


def spent_calls(folder: Path) -> list[Call]:
    """Every finished request below a folder."""
    return [call for path in sorted(folder.rglob(CALLS)) for _, _, call in read_lines(path, allow_torn=True)]


OpenEndpoint = Callable[[WholeAnswers], Backend]
"""Context manager around each request → the endpoint."""


class PaidBackend:
    """One conversation with an endpoint. ``label`` distinguishes its calls from those of other conversations."""

    def __init__(
        self,
        endpoint: OpenEndpoint,
        label: str,
        journal: CallJournal,
        *,
        account: str,
        spending: Spending,
        minute: MinuteLimit,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        """``account`` is the name for looking up prices; nothing is sent before :meth:`answer`.

        ``changes`` are the parameters that the server does not accept (see ``chat.parameters``), as learned so far.
        """
        self.inner = endpoint(WholeAnswers(self._before, self._lost))
        self.label, self.name, self.account = label, self.inner.name, account
        self._journal, self._spending, self._minute = journal, spending, minute
        self._changes = changes if changes is not None else {}
        self._calls = 0
        self._seed = 0
        self._key = ""
        self._most = (0, 0)
        self._held: Held | None = None

    @property
    def limit(self) -> int | None:
        """The endpoint's limit."""
        return self.inner.limit

    @property
    def effective(self) -> Mapping[str, Any]:
        """The endpoint's settings."""
        return self.inner.effective

    def clock(self) -> DeviceClock | None:
        """The endpoint's clock."""
        return self.inner.clock()

    def count(self, messages: Sequence[Message]) -> int:
        """The endpoint's estimate, which is rather too high."""
        return self.inner.count(messages)

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> AnswerStream:
        """The answer of an earlier attempt if there is one, otherwise a call, which is on disk before it is passed on.

        Raises:
            CallError: there is no answer; the reason is in the journal, and a later run repeats the call.
            SpendingLimitError: the call could exceed a limit.

        """
        self._calls += 1
        request = {"label": self.label, "call": self._calls, "effective": self.effective, "seed": self._seed}
        how = asdict(sampling)
        how["max_new_tokens"] += how.pop("thinking_tokens")  # what is sent, and what earlier runs kept
        key = call_key({**request, "messages": [m.to_builtin() for m in messages], "sampling": how})
        call = self._journal.find(key) or self._make(key, messages, sampling)
        yield str(call["text"])
        ending = cast(FinishReason, call["finish_reason"]), int(call["prompt_tokens"]), int(call["new_tokens"])
        return Ending(*ending, counted=cast(Counted, call["counted"]))

    def _make(self, key: str, messages: Sequence[Message], sampling: Sampling) -> Call:
        self._key, self._most = key, (most_prompt_tokens(messages), sampling.most_tokens)
        try:
            self._hold()
            text, ending = drain(self.inner.answer(messages, sampling))
            if not text.strip():
                raise CallError(f"{self.name}: the answer is empty")
            call: Call = {**self._head(), "text": text, "finish_reason": ending.finish_reason}
            call |= {"prompt_tokens": ending.prompt_tokens, "new_tokens": ending.new_tokens, "counted": ending.counted}
            if ending.counted != "server":
                new = min(len(text.encode()), sampling.most_tokens)
                call["booked"] = [self._most[0], max(new, ending.new_tokens)]
            self._journal.add(key, call)
            self._book_call(call)
            return call
        finally:
            self._book_call(None)

    def _before(self) -> None:
        """Before each request, reserve the maximum that it can use, and wait for the endpoint's rate limits."""
        self._hold()
        self._minute.wait(sum(self._most))

    def _lost(self, lost: Lost) -> None:
        """After a request without an answer, store the reason and book what it may have cost."""
        call: Call = {**self._head(), "failed": lost.reason}
        if lost.may_cost:
            counts = (lost.prompt_tokens, lost.new_tokens)
            booked = [most if count is None else count for count, most in zip(counts, self._most, strict=True)]
            call["booked"] = booked
        self._journal.add(self._key, call)
        self._book_call(call)

    def _head(self) -> Call:
        changed = {"parameters": dict(self._changes)} if self._changes else {}
        return {"name": self.account, "label": self.label, **changed}

    def _hold(self) -> None:
        if self._held is None:
            self._held = self._spending.hold(self.account, *self._most)

    def _book_call(self, call: Call | None) -> None:
        """Replace the reservation by what a request used."""
        if self._held is not None:
            held, self._held = self._held, None
            self._spending.book_call(held, call)

    def start(self, seed: int) -> None:
        self._seed, self._calls = seed, 0
        self.inner.start(seed)

    def reseed(self, seed: int) -> None:
        """Use another seed from here on."""
        self._seed = seed
        self.inner.reseed(seed)

    def state(self) -> Mapping[str, Any]:
        """Empty, because the journal has the state."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...
