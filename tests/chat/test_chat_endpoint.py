"""Endpoints: an incomplete answer never counts as an answer."""

import contextlib
import json
import socket
import time

import chat_stand_in as s
import pytest

from llmjobs.calls.client import EndpointAddress, WholeAnswers
from llmjobs.calls.retry import RetryPolicy, retry_after_s
from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Sampling
from llmjobs.chat.endpoint_backend import EndpointBackend
from llmjobs.chat.messages import Message
from llmjobs.errors import AnswerError, CallError, ContextFullError, LlmjobsError, UnavailableError

KEY = "sk-planted-secret"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_planted")


def agent_for(
    server, *, waits=None, timeout_s=5.0, attempts=3, api_key_env=None, whole=None, warn=print, **options
) -> Agent:
    address = EndpointAddress(server.url, "m", api_key_env)
    sleep = waits.append if waits is not None else lambda _: None
    policy = RetryPolicy(attempts)
    backend = EndpointBackend(address, timeout_s=timeout_s, policy=policy, sleep=sleep, whole=whole, warn=warn)
    return Agent(backend, seed=7, **options)


def test_an_answer_with_the_servers_own_count():
    with s.stand_in(s.good) as server:
        agent = agent_for(server, system="Be brief.", sampling=Sampling(20, 0.5, 0.9))
        assert list(agent.stream("Hi.")) == ["Hel", "lo.", "", ""]
        reply = agent.last
        agent.ask("And?")
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.new_tokens) == ("Hello.", "stop", 11, 3)
    assert reply.counted == "server"
    body = server.requests[-1][1]
    assert [m["content"] for m in body["messages"]] == ["Be brief.", "Hi.", "Hello.", "And?"]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"], body["seed"]) == (
        "m",
        0.5,
        0.9,
        20,
        7,
    )


def test_without_usage_the_count_is_an_estimate():
    with s.stand_in(lambda h: h.stream(s.chunk("Hello."), s.chunk(finish="length"), s.DONE)) as server:
        reply = agent_for(server).ask("Hi.")
    assert (reply.counted, reply.finish_reason) == ("estimate", "length")


def test_the_hubs_token_is_not_sent_and_the_key_is(monkeypatch):
    monkeypatch.setenv("CHAT_KEY", KEY)
    with s.stand_in(s.good) as server:
        agent_for(server).ask("Hi.")
        agent_for(server, api_key_env="CHAT_KEY").ask("Hi.")
    sent = [headers.get("authorization", headers.get("Authorization")) for headers, _ in server.requests]
    assert sent == ["Bearer none", f"Bearer {KEY}"]


CUT = [
    (s.cut, "cut off: the connection broke"),
    (s.ends_early, "cut off: the stream ended before the answer did"),
    (s.malformed, "cut off: the server sent an event that is not a JSON object"),
    (s.silent_in_the_middle, "cut off: no answer within 0.4 s"),
    (s.error_in_the_stream, "cut off: the server reports: out of memory"),
    (s.filtered, "content filter"),
]


@pytest.mark.parametrize(("behaviour", "says"), CUT)
def test_a_cut_answer_that_a_person_saw_is_an_error_and_not_sent_again(behaviour, says):
    with s.stand_in(behaviour) as server:
        agent = agent_for(server, timeout_s=0.4)
        with pytest.raises(CallError, match=says) as raised:
            agent.ask("Hi.")
    assert not isinstance(raised.value, UnavailableError)
    assert len(server.requests) == 1
    assert agent.messages == [] and agent.last is None


@pytest.mark.parametrize("behaviour", [behaviour for behaviour, _ in CUT[:-1]])
def test_a_cut_answer_that_nobody_saw_is_thrown_away_and_asked_again(behaviour):
    lost, begun = [], []
    with s.stand_in(behaviour, behaviour, s.good) as server:
        agent = agent_for(server, timeout_s=0.4, whole=WholeAnswers(lambda: begun.append(1), lost.append))
        assert list(agent.stream("Hi.")) == ["Hello."]
    assert len(server.requests) == len(begun) == 3
    assert [one.may_cost for one in lost] == [True, True]


TEMPORARY = [s.status(500), s.status(503), s.status(429), s.late, s.malformed_at_once, s.web_page, s.bare_page]


@pytest.mark.parametrize("behaviour", TEMPORARY)
def test_what_may_pass_is_tried_again(behaviour):
    waits = []
    with s.stand_in(behaviour, behaviour, s.good) as server:
        assert agent_for(server, waits=waits, timeout_s=0.4).ask("Hi.").text == "Hello."
    assert len(server.requests) == 3
    assert waits == [1, 2]


@pytest.mark.parametrize(
    ("behaviour", "says", "requests"),
    [
        (s.malformed_at_once, "instead of a chat completion after 3 tries; check the URL", 3),
        (s.web_page, "a web page instead of a chat completion", 3),
        (s.bare_page, "a web page instead of a chat completion", 3),
        (s.empty, "the answer is empty", 1),
        (s.status(400), "answered 400 .status 400.", 1),
        (s.status(500), "answered 500 .status 500. after 3 tries", 3),
        (lambda h: h.stream(), "the server sent nothing instead of a chat completion after 3 tries", 3),
    ],
)
def test_what_is_no_answer_in_the_end_is_an_error(behaviour, says, requests):
    with s.stand_in(behaviour) as server:
        agent = agent_for(server)
        with pytest.raises(AnswerError, match=says) as raised:
            agent.ask("Hi.")
    assert not isinstance(raised.value, UnavailableError)
    assert len(server.requests) == requests
    assert agent.messages == [] and agent.last is None


def test_retry_after_is_kept_to_and_a_long_one_is_not_waited_for():
    waits, told = [], []
    with s.stand_in(s.status(429, retry_after="7"), s.status(429, retry_after="900"), s.good) as server:
        agent = agent_for(server, waits=waits, warn=told.append)
        with pytest.raises(UnavailableError, match="the server asks to wait 900 s; run the same command after that"):
            agent.ask("Hi.")
        assert agent.ask("Hi.").text == "Hello."
    who = f"m at {server.url.removesuffix('/v1')}"
    assert waits == [7] and told == [f"{who}: the server answered 429 (status 429); trying again in 7 s"]
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") < 0
    assert retry_after_s("soon") is None


def test_the_end_after_the_last_try_is_clear():
    with s.stand_in(s.status(429)) as server:
        agent = agent_for(server)
        with pytest.raises(UnavailableError, match="too many requests") as raised:
            agent.ask("Hi.")
    assert "after 3 tries" in str(raised.value)
    assert len(server.requests) == 3 and agent.messages == []


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_another_try_does_not_mend_is_not_tried(code):
    with s.stand_in(s.status(code)) as server, pytest.raises(UnavailableError):
        agent_for(server).ask("Hi.")
    assert len(server.requests) == 1


def one(text, finish="stop", **usage) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "choices": [choice], **({"usage": s.USAGE} if usage else {})})


ACCEPTED = {
    "no finish reason": lambda h: h.stream(s.chunk("Hello."), s.DONE),
    "text with the finish reason": lambda h: h.stream(s.chunk("Hel"), s.chunk("lo.", finish="stop"), s.DONE),
    "text with the finish reason, no DONE": lambda h: h.stream(s.chunk("Hello.", finish="stop")),
    "two finish reasons": lambda h: h.stream(
        s.chunk("Hello."), s.chunk(finish="stop"), s.chunk("", finish="stop"), s.DONE
    ),
    "empty first events": lambda h: h.stream(
        'data: {"choices": []}\n\n', "data:\n\n", 'data: {"choices": null}\n\n', s.chunk(""), s.chunk("Hello."), s.DONE
    ),
    "the last event twice": lambda h: h.stream(
        s.chunk("Hel"), s.chunk("lo.", finish="stop"), s.chunk("lo.", finish="stop"), s.DONE
    ),
    "the whole answer after its pieces": lambda h: h.stream(
        s.chunk("Hel"), s.chunk("lo."), f"data: {one('Hello.')}\n\n", s.DONE
    ),
    "an empty finish reason": lambda h: h.stream(s.chunk("Hello.", finish=""), s.chunk(finish="stop")),
    "no blank line at the end": lambda h: h.stream(s.chunk("Hello."), "data: [DONE]"),
    "no blank lines between": lambda h: h.stream(
        s.chunk("Hel").strip() + "\n" + s.chunk("lo.").strip() + "\n" + s.DONE
    ),
    "carriage returns": lambda h: h.stream(s.chunk("Hello.").replace("\n", "\r\n"), "data: [DONE]\r\n\r\n"),
    "comments and names": lambda h: h.stream(": wait\n\n", "event: x\nid: 7\n" + s.chunk("Hello."), s.DONE),
    "one body": lambda h: h.body(one("Hello.", usage=1), "application/json"),
    "one body without a finish reason": lambda h: h.body(one("Hello.", None), "application/json; charset=utf-8"),
    "one body said to be a stream": lambda h: h.body(one("Hello."), "text/event-stream"),
    "a stream said to be plain text": lambda h: h.body(s.chunk("Hello.") + s.DONE, "text/plain"),
    "a stream said to be JSON": lambda h: h.body(s.chunk("Hello.") + s.DONE, "application/json"),
    "parts": lambda h: h.stream(
        'data: {"choices": [{"delta": {"content": [{"type": "thinking", "thinking": []}, '
        '{"type": "text", "text": "Hello."}]}}]}\n\n', s.DONE
    ),
    "thinking beside the answer": lambda h: h.stream(
        'data: {"choices": [{"delta": {"reasoning_content": "Hm."}}]}\n\n', s.chunk("Hello."), s.DONE
    ),
}  # fmt: skip


@pytest.mark.parametrize("behaviour", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("whole", [None, WholeAnswers()], ids=["streamed", "whole"])
def test_whole_answers_in_any_form_are_taken(behaviour, whole):
    with s.stand_in(behaviour) as server:
        reply = agent_for(server, whole=whole).ask("Hi.")
    assert (reply.text, reply.finish_reason, len(server.requests)) == ("Hello.", "stop", 1)


def keeps_alive(text: str):
    def answer(handler):
        handler.begin()
        with contextlib.suppress(OSError):
            while True:
                handler.part(text)
                time.sleep(0.02)

    return answer


@pytest.mark.parametrize("text", [": wait\n\n", s.chunk(""), 'data: {"choices": []}\n\n', "d"])
def test_what_is_no_text_is_silence(text):
    with s.stand_in(keeps_alive(text)) as server, pytest.raises(CallError, match="no answer within 0.2 s"):
        agent_for(server, timeout_s=0.2, attempts=1).ask("Hi.")


def test_an_answer_without_end_has_an_end(monkeypatch):
    monkeypatch.setattr("llmjobs.calls.client.ANSWER_TIMEOUTS", 2)
    says = "cut off: the answer was not complete after 0.6 s"
    with s.stand_in(keeps_alive(s.chunk("a"))) as server, pytest.raises(CallError, match=says):
        agent_for(server, timeout_s=0.3, attempts=1).ask("Hi.")


def test_a_full_context_is_no_failed_call():
    message = "This model's maximum context length is 8 tokens. However, you requested 'max_tokens' of 20."
    with s.stand_in(s.refusal(message)) as server, pytest.raises(ContextFullError, match="maximum context length"):
        agent_for(server).ask("Hi.")
    assert len(server.requests) == 1


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    backend = EndpointBackend(EndpointAddress(f"http://127.0.0.1:{port}/v1", "m"), policy=RetryPolicy(2), sleep=no_wait)
    with pytest.raises(UnavailableError, match="cannot be reached after 2 tries"):
        Agent(backend).ask("Hi.")


def no_wait(_):
    return None


def test_a_key_never_stands_in_an_error(monkeypatch):
    monkeypatch.setenv("CHAT_KEY", KEY)
    echo = lambda h: h.status(401, x_error_message=f"bad key {KEY}")  # noqa: E731
    with s.stand_in(echo) as server, pytest.raises(AnswerError) as raised:
        agent_for(server, api_key_env="CHAT_KEY").ask("Hi.")
    assert KEY not in str(raised.value) and "401" in str(raised.value)
    monkeypatch.delenv("CHAT_KEY")
    with pytest.raises(LlmjobsError, match="CHAT_KEY is not set"):
        EndpointAddress("http://x", "m", "CHAT_KEY").key()


def test_no_url():
    with pytest.raises(LlmjobsError, match="is not a URL"):
        EndpointBackend(EndpointAddress("localhost:8000", "m"))


def test_stopping_closes_the_connection():
    with s.stand_in(s.good) as server:
        agent = agent_for(server)
        stream = agent.stream("Hi.")
        next(stream)
        stream.close()
    assert agent.messages[-1] == Message("assistant", "Hel")
