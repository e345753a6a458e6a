"""Endpoints that mean harm: streams without end, too large, compressed, dripping; and chats of any characters."""

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import chat_stand_in as s
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjobs.calls import event_stream
from llmjobs.calls.client import EndpointAddress
from llmjobs.calls.event_stream import NotCompletionError, StreamedError, TooLargeError, api_url
from llmjobs.calls.request import Answer
from llmjobs.calls.retry import RetryPolicy, retry_after_s
from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Sampling
from llmjobs.chat.endpoint_backend import EndpointBackend
from llmjobs.chat.server import ChatCompletion, RefusedError, parse
from llmjobs.errors import LlmjobsError


def ask(server: Any, timeout_s: float = 5.0, **address: str) -> str:
    backend = EndpointBackend(
        EndpointAddress(server.url, "m", **address), timeout_s=timeout_s, policy=RetryPolicy(1), sleep=lambda _: None
    )
    with pytest.raises(LlmjobsError) as caught:
        Agent(backend).ask("Hi.")
    assert str(caught.value).isprintable()
    return str(caught.value)


def endless_line(handler: s.Handler) -> None:
    handler.begin()
    try:
        while True:
            handler.part("data: " + "x" * 60_000)
    except OSError:
        handler.close_connection = True


def endless_events(handler: s.Handler) -> None:
    handler.begin()
    try:
        while True:
            handler.part(s.chunk("") * 300)
    except OSError:
        handler.close_connection = True


def dripping(handler: s.Handler) -> None:
    handler.begin()
    try:
        while True:
            handler.part(":")
            time.sleep(0.05)
    except OSError:
        handler.close_connection = True


def dripping_headers(handler: s.Handler) -> None:
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while True:
            handler.wfile.write(b"a")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        handler.close_connection = True


def bomb(handler: s.Handler) -> None:
    body = gzip.compress(b"data: " + b"x" * (200 << 20))
    handler.send_response(200)
    for name, value in (("content-type", "text/event-stream"), ("content-encoding", "gzip")):
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def endless_error(handler: s.Handler) -> None:
    handler.send_response(500)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    endless = '{"error": {"message": "' + "x" * 60_000
    try:
        while True:
            handler.part(endless)
    except OSError:
        handler.close_connection = True


def raw(*parts: bytes) -> s.Behaviour:
    def answer(handler: s.Handler) -> None:
        handler.begin()
        for part in parts:
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return answer


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (endless_line, "an event of more than 1 MiB"),
        (endless_events, "more than 4 MiB"),
        (dripping, "no answer within 0.3 s"),
        (dripping_headers, "no answer within 0.3 s"),
        (bomb, "instead of a chat completion"),
        (endless_error, "answered 500"),
        (raw(b"data: \xff\xfe\n\n"), "instead of a chat completion"),
        (raw(b"data: " + b"[" * 100_000 + b"\n\n"), "instead of a chat completion"),
        (raw(b"data: " + b"9" * 5000 + b"\n\n"), "instead of a chat completion"),
        (raw(b"data: [1]\n\n"), "instead of a chat completion"),
        (raw(b"data: {}"), "ended before the answer did"),
        (raw(b""), "the server sent nothing instead"),
        (
            raw(b'data: {"error": {"message": "\\u001b]52;c;QQ==\\u0007"}}\n\n'),
            "the server reports: \\x1b]52;c;QQ==\\x07",
        ),
    ],
)
def test_a_stream_that_means_harm_ends_in_one_line(behaviour, says, monkeypatch) -> None:
    monkeypatch.setattr(event_stream, "MAX_BYTES", 4 << 20)
    with s.stand_in(behaviour) as server:
        timeout_s = 0.3 if "0.3" in says else 20.0
        assert says in ask(server, timeout_s)


def test_a_redirect_gets_no_key(monkeypatch) -> None:
    monkeypatch.setenv("CHAT_KEY", "planted-key-1234")
    with s.stand_in(s.good) as other, s.stand_in(s.status(307, location=f"{other.url}/chat/completions")) as server:
        said = ask(server, api_key_env="CHAT_KEY")
        assert f"answered 307 with a redirect to {other.url}/chat/completions" in said and "final address" in said
        assert len(server.requests) == 1
        assert other.requests == []


@pytest.mark.parametrize(
    "key", ["two words", "line\nbreak-secret", "tab\tkey-secret", "schlüssel-secret", "\x1bkey-secret"]
)
def test_a_key_that_no_header_can_hold_is_not_repeated(monkeypatch, key: str) -> None:
    monkeypatch.setenv("CHAT_KEY", key)
    with s.stand_in(s.good) as server:
        line = ask(server, api_key_env="CHAT_KEY")
    assert "CHAT_KEY does not contain a valid key" in line and "secret" not in line and "two words" not in line


@pytest.mark.parametrize("after", [280, 290, 299, 0])
def test_a_key_quoted_back_is_taken_out_wherever_it_stands(monkeypatch, after: int) -> None:
    key = "planted-0123456789abcdef"
    monkeypatch.setenv("CHAT_KEY", key)

    def quoting(handler: s.Handler) -> None:
        body = json.dumps({"error": {"message": "x" * after + f"wrong key {key}!"}}).encode()
        handler.send_response(401)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with s.stand_in(quoting) as server:
        line = ask(server, api_key_env="CHAT_KEY")
    assert not any(key[:n] in line for n in range(9, len(key) + 1)), line


class Chunks(httpx2.SyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from filter(None, self.chunks)


def listed(chunks: list[bytes]) -> Any:
    response = httpx2.Response(200, stream=Chunks(chunks), request=httpx2.Request("POST", "http://h"))
    try:
        return list(event_stream.Completion(response, event_stream.Watch(60, 60)))
    except (NotCompletionError, StreamedError, TooLargeError) as error:
        return type(error)


PIECES = st.sampled_from([
    b"data:", b"data: ", b"[DONE]", b"\n", b"\r\n", b"\n\n", b"{", b"}", b'"', b'{"choices": []}', b'{"error": 1}',
    b'{"choices": [{"delta": {}}]}', b": note", b"event: x", b"\xff", b"\x00", b"null", b"7", b"data: {}\n\n",
])  # fmt: skip


@settings(max_examples=200)
@given(st.lists(PIECES | st.binary(max_size=5), max_size=25).map(b"".join), st.lists(st.integers(1, 9), max_size=30))
def test_any_bytes_are_read_the_same_however_they_are_cut(content: bytes, sizes: list[int]) -> None:
    cut, rest = [], content
    for size in sizes:
        cut, rest = [*cut, rest[:size]], rest[size:]
    assert listed([*cut, rest]) == listed([content])


KEYS = st.sampled_from(["choices", "delta", "content", "finish_reason", "usage", "prompt_tokens", "role"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(KEYS, JUNK, max_size=4), max_size=4))
def test_any_event_is_a_piece_of_text_or_one_line(events: list[dict[str, Any]]) -> None:
    answer = Answer({}, {})
    for event in events:
        try:
            assert isinstance(answer.take(event), str)
        except NotCompletionError:
            continue
    assert answer.finish is None or isinstance(answer.finish, str)
    assert all(count is None or count >= 0 for count in answer.counts())


@given(st.text(max_size=30) | st.sampled_from(["nan", "inf", "-inf", "1e999", "Wed, 21 Oct 99999 07:28:00 GMT"]))
def test_any_wish_to_wait_is_a_bounded_wait(value: str) -> None:
    assert 0 <= RetryPolicy().wait_s(0, retry_after_s(value)) <= 60


ROLES = st.sampled_from(["user", "assistant", "system", "x"])
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": JUNK | st.text(max_size=9)}), max_size=3)
BODY = st.fixed_dictionaries(
    {"messages": MESSAGES | JUNK}, optional={name: JUNK for name in ChatCompletion.model_fields if name != "messages"}
)


@settings(max_examples=150)
@given(BODY.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=80))
def test_any_request_is_a_conversation_or_refused(body: bytes) -> None:
    try:
        asked = parse(body)
        messages = asked.conversation("Be brief.")
    except LlmjobsError as error:
        assert str(error).isprintable()
        assert not isinstance(error, RefusedError) or error.status == 400
    else:
        assert messages and asked.sampling(Sampling()).max_new_tokens >= 1


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("https://h/api/v1", "https://h/api/v1/chat/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
    ],
)
def test_addresses_as_people_give_them(url: str, whole: str) -> None:
    assert api_url(url) == whole
