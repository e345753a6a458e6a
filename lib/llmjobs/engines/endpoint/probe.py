"""Find a way to get log-probabilities from a server: each way is tested with a known answer before it is trusted.

``echo``             a completion that repeats its prompt, with the log-probabilities of the prompt's tokens
``prompt_logprobs``  the same in vLLM's format, which also works with messages
``top_logprobs``     the most likely next tokens, enough for options of one character
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmjobs.benchmarks.scoring_requests import Prompt, Request
from llmjobs.engines.endpoint.ask import UNREAD, Call, Client
from llmjobs.engines.endpoint.logprobs import Tail, UnprovenError
from llmjobs.errors import ContextFullError, ModelError, RefusedCallError

TOPS = (100, 20, 5)
"""Numbers of most likely tokens to request: llama-server gives any number, vLLM and chats 20, completions 5."""
MOST_DIFFERENCE = 0.25
"""In nats: allowed difference of a token that is computed twice, due to rounding and other batches."""
LEAST = -10.0
"""Tokens less likely than this are not compared, because their values are mostly rounding errors."""
SAMPLE = (
    Request((), (), Prompt("Rome is the capital of Italy. Paris is the capital of France. The capital of"), " Italy"),
    Request((), (), Prompt("One, two, three, four, five. One, two, three, four, five. One, two, three,"), " four"),
)


@dataclass(frozen=True)
class Way:
    """How log-probabilities are requested, and what the probe found."""

    name: str
    reason: str
    max_difference: float | None = None
    top: int = 0


def find_way(client: Client, docs: Sequence[Sequence[Request]]) -> Way:
    """Try each way on a few of the prompts to be scored; return the first one that is verified.

    Raises:
        ModelError: no way is verified; the message says what the server did instead, and what to do.
        CallError: the server gave no answer, which proves nothing.

    """
    samples = _samples(docs)
    refused: list[str] = []
    ways: list[tuple[str, Callable[[], Way]]] = [("top_logprobs", lambda: _prove_top(client, samples))]
    ways.insert(0, ("prompt_logprobs", lambda: _prove_whole(client, "prompt_logprobs", samples)))
    if not samples[0].prompt or not samples[0].prompt.messages:
        ways.insert(0, ("echo", lambda: _prove_whole(client, "echo", samples)))
    for name, prove in ways:
        try:
            found = prove()
        except (UnprovenError, RefusedCallError, ContextFullError) as error:
            refused.append(f"{name}: {str(error).removeprefix(client.endpoint.who + ': ')}")
            continue
        return replace(found, reason="; ".join([found.reason, *(f"not {line}" for line in refused)]))
    raise ModelError(no_way(client, refused))


def no_way(client: Client, refused: Sequence[str]) -> str:
    """Return the error message: what the server did, and what to do."""
    return (
        f"{client.endpoint.who}: this server gives no log-probabilities that can be trusted ({'; '.join(refused)}); "
        f"{REMEDY}"
    )


REMEDY = (
    "use a benchmark that is answered by generation (output_type: generate_until), a server that gives them (vLLM), or "
    "run the model here (a GGUF file runs on llama.cpp)"
)


def _samples(docs: Sequence[Sequence[Request]]) -> list[Request]:
    """Two options of one prompt, or of two prompts, with different endings; and one of another prompt."""
    flat = [one for doc in docs for one in doc if one.prompt and one.ending]
    if not flat:
        return [SAMPLE[0], replace(SAMPLE[0], ending=" green"), SAMPLE[1]]
    first = min((doc[0] for doc in docs if doc and doc[0].ending), key=lambda one: len(_text(one.prompt)))
    same = [one for one in flat if one.prompt == first.prompt and one.ending != first.ending]
    others = [one for one in flat if one.prompt != first.prompt]
    second = same[0] if same else replace(first, ending=first.ending + first.ending)
    return [first, second, min(others, key=lambda one: len(_text(one.prompt)), default=SAMPLE[1])]


def _text(prompt: Prompt | None) -> str:
    return prompt.text + "".join(content for _, content in prompt.messages) if prompt else ""


def _read(call: Call) -> Call:
    if UNREAD in call:
        raise UnprovenError(str(call[UNREAD]))
    return call


def ask_whole(client: Client, name: str, prompt: Prompt, ending: str, *, record: bool = True) -> Call:
    """Request the tail of a prompt in one of the ways that return complete prompts."""
    ask = client.echo if name == "echo" else client.prompt_logprobs
    return ask(prompt, ending, record=record)


def _prove_whole(client: Client, name: str, samples: Sequence[Request]) -> Way:
    first, second, _ = samples
    assert first.prompt is not None
    tails = []
    for one in (first, second):
        tail = Tail.from_builtin(_read(ask_whole(client, name, first.prompt, one.ending, record=False))["tail"])
        _check_values([token.logprob for token in tail.tokens[1:]])
        tails.append(tail)
    scores = [tail.score(tail.starts)[0] for tail in tails]
    if abs(scores[0] - scores[1]) < 1e-9:
        raise UnprovenError(
            f"its values do not change with the answer: {first.ending!r} and {second.ending!r} both have {scores[0]:g}"
        )
    difference = _against_generation(client, name, first.prompt)
    if difference is None:
        return Way(name, "the values belong to the prompt and change with the answer; not compared with generation")
    return Way(name, "the values belong to the prompt and agree with generation", difference)


def _against_generation(client: Client, name: str, prompt: Prompt) -> float | None:
    """Append the most likely next tokens to the prompt, and compare their values with those from generation."""
    try:
        likeliest = _positions(client.next_tokens(prompt, top=5, record=False))[0][2]
    except (UnprovenError, RefusedCallError):
        return None
    for text, expected in likeliest[:3]:
        if not text.strip() or text.startswith("<"):
            continue
        try:
            tail = Tail.from_builtin(_read(ask_whole(client, name, prompt, text, record=False))["tail"])
        except UnprovenError:  # the server writes this token's blank in another way
            continue
        if len(tail.tokens) + tail.before - tail.starts != 1:
            continue
        found = tail.score(tail.starts)[0]
        if not abs(found - expected) <= MOST_DIFFERENCE:
            raise UnprovenError(
                f"its values contradict its own generation: {text!r} has {found:.3f} in the prompt, but "
                f"{expected:.3f} when generated"
            )
        return round(abs(found - expected), 6)
    return None


def _prove_top(client: Client, samples: Sequence[Request]) -> Way:
    first, _, other = samples
    assert first.prompt is not None and other.prompt is not None
    for top in TOPS:
        try:
            found = _positions(client.next_tokens(first.prompt, top=top, record=False))
            break
        except (UnprovenError, RefusedCallError):
            if top == TOPS[-1]:
                raise
    token, value, likeliest = found[0]
    _check_likeliest(token, value, likeliest)
    elsewhere = _positions(client.next_tokens(_same_form(other.prompt, first.prompt), top=top, record=False))[0][2]
    if likeliest == elsewhere:
        raise UnprovenError("its values are the same after two different prompts")
    two = _positions(client.next_tokens(first.prompt, top=top, count=2, record=False))
    difference = _difference(likeliest, two[0][2])
    if len(two) > 1 and not first.prompt.messages:
        after = _positions(client.next_tokens(Prompt(first.prompt.text + token), top=top, record=False))[0][2]
        difference = max(difference, _difference(two[1][2], after))
    if not difference <= MOST_DIFFERENCE:
        raise UnprovenError(f"its values differ by {difference:.3f} nats when the same request is sent twice")
    reason = f"the {len(likeliest)} likeliest next tokens, equal when asked again; for options of one character"
    return Way("top_logprobs", reason, round(difference, 6), top)


def _same_form(prompt: Prompt, like: Prompt) -> Prompt:
    """Return ``prompt`` as messages if ``like`` has messages, otherwise as text."""
    if bool(prompt.messages) == bool(like.messages):
        return prompt
    return Prompt(messages=(("user", prompt.text),)) if like.messages else Prompt(_text(prompt))


def _positions(call: Call) -> list[tuple[str, float, list[tuple[str, float]]]]:
    found: Any = _read(call)["positions"]
    if any(value is None for _, value, _ in found):
        raise UnprovenError("some of its log-probabilities are not numbers")
    if not found or not found[0][2]:
        raise UnprovenError("it sent no log-probabilities of other tokens")
    return [(str(text), float(value), [(str(t), float(v)) for t, v in top]) for text, value, top in found]


def _check_values(values: Sequence[float | None]) -> None:
    numbers = [math.nan if value is None else value for value in values]
    if any(math.isnan(value) for value in numbers):
        raise UnprovenError("some of its log-probabilities are not numbers")
    if any(value > 1e-4 for value in numbers):
        raise UnprovenError("some of its log-probabilities are above 0")


def _check_likeliest(token: str, value: float, likeliest: Sequence[tuple[str, float]]) -> None:
    values = [one for _, one in likeliest]
    _check_values([value, *values])
    if len(likeliest) < 2:
        raise UnprovenError("it lists only one of the likeliest next tokens")
    if sum(map(math.exp, values)) > 1.01:
        raise UnprovenError("the probabilities of its likeliest tokens add up to more than 1")
    if value < max(values) - MOST_DIFFERENCE:
        raise UnprovenError(f"at temperature 0 it generated {token!r}, which it does not list as the likeliest token")


def _difference(left: Sequence[tuple[str, float]], right: Sequence[tuple[str, float]]) -> float:
    """The largest difference among the three most likely tokens that both list; infinite if there are none."""
    other = dict(reversed(list(right)))  # of several tokens with one text, the likeliest
    own = dict(reversed([pair for pair in left[:3] if pair[1] > LEAST or pair == left[0]]))
    return max((abs(value - other[text]) for text, value in own.items() if text in other), default=math.inf)
