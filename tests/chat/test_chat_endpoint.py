"""Endpoints: what is no whole answer is never taken for one."""

import socket

import chat_stand_in as s
import pytest

from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Sampling
from llmjobs.chat.endpoint import EndpointAddress, EndpointBackend
from llmjobs.chat.errors import AnswerError, UnavailableError
from llmjobs.chat.messages import Message
from llmjobs.chat.retry import RetryPolicy, retry_after_s
from llmjobs.errors import LlmjobsError

KEY = "sk-planted-secret"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_planted")


def agent_for(server, *, waits=None, timeout_s=5.0, attempts=3, api_key_env=None, **options) -> Agent:
    address = EndpointAddress(server.url, "m", api_key_env)
    sleep = waits.append if waits is not None else lambda _: None
    policy = RetryPolicy(attempts)
    return Agent(EndpointBackend(address, timeout_s=timeout_s, policy=policy, sleep=sleep), seed=7, **options)


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


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (s.cut, "cut off: the connection broke"),
        (s.ends_early, "cut off: the stream ended before the answer did"),
        (s.malformed, "cut off: the server sent something that is no chat completion"),
        (s.silent_in_the_middle, "cut off: no answer within 0.4 s"),
        (s.error_in_the_stream, "cut off: "),
        (s.malformed_at_once, "no chat completion"),
        (s.web_page, "the stream ended before the answer did"),
        (s.empty, "the answer is empty"),
        (s.filtered, "content filter"),
        (s.status(400), "answered 400 .status 400."),
    ],
)
def test_what_is_no_answer_is_an_error_and_not_sent_again(behaviour, says):
    with s.stand_in(behaviour) as server:
        agent = agent_for(server, timeout_s=0.4)
        with pytest.raises(AnswerError, match=says) as raised:
            agent.ask("Hi.")
    assert not isinstance(raised.value, UnavailableError)
    assert len(server.requests) == 1
    assert agent.messages == [] and agent.last is None


@pytest.mark.parametrize("behaviour", [s.status(500), s.status(503), s.status(429), s.late])
def test_what_may_pass_is_tried_again(behaviour):
    waits = []
    with s.stand_in(behaviour, behaviour, s.good) as server:
        assert agent_for(server, waits=waits, timeout_s=0.4).ask("Hi.").text == "Hello."
    assert len(server.requests) == 3
    assert waits == [1, 2]


def test_retry_after_is_kept_to():
    waits = []
    with s.stand_in(s.status(429, retry_after="7"), s.status(429, retry_after="900"), s.good) as server:
        agent_for(server, waits=waits).ask("Hi.")
    assert waits == [7, 60]
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") < 0
    assert retry_after_s("soon") is None


@pytest.mark.parametrize(("code", "says"), [(500, "answered 500"), (429, "too many requests")])
def test_the_end_after_the_last_try_is_clear(code, says):
    with s.stand_in(s.status(code)) as server:
        agent = agent_for(server)
        with pytest.raises(UnavailableError, match=says) as raised:
            agent.ask("Hi.")
    assert "after 3 tries" in str(raised.value)
    assert len(server.requests) == 3 and agent.messages == []


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_another_try_does_not_mend_is_not_tried(code):
    with s.stand_in(s.status(code)) as server, pytest.raises(UnavailableError):
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
    with pytest.raises(LlmjobsError, match="is no URL"):
        EndpointBackend(EndpointAddress("localhost:8000", "m"))


def test_stopping_closes_the_connection():
    with s.stand_in(s.good) as server:
        agent = agent_for(server)
        stream = agent.stream("Hi.")
        next(stream)
        stream.close()
    assert agent.messages[-1] == Message("assistant", "Hel")
