"""``llmjobs serve``, spoken to by the official client and by the project's own."""

import contextlib
import json
import socket
import threading
import time
from contextlib import contextmanager

import openai
import pytest
import uvicorn
from chat_fakes import FakeBackend, load_backend

from llmjobs.calls.client import EndpointAddress
from llmjobs.chat import server
from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Sampling
from llmjobs.chat.endpoint_backend import EndpointBackend
from llmjobs.chat.server import MAX_BODY_BYTES, ChatServer, Limits, server_config


@contextmanager
def serving(backend, **options):
    server = ChatServer(backend, **options)
    listener = socket.create_server(("127.0.0.1", 0))
    runner = uvicorn.Server(server_config(server.app(), server.gate.limits))
    thread = threading.Thread(target=lambda: runner.run(sockets=[listener]), daemon=True)
    thread.start()
    while not runner.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        runner.should_exit = True
        thread.join()
        listener.close()


def client(url, key="none", **options):
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=20, **options)


ASK = [{"role": "user", "content": "Hello there."}]


def test_the_official_client_whole_and_streamed():
    with serving(FakeBackend(say=lambda sent: "One two three."), system="Be brief.") as url:
        api = client(url)
        whole = api.chat.completions.create(model="fake", messages=ASK)
        assert whole.choices[0].message.content == "One two three."
        assert whole.choices[0].finish_reason == "stop"
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (8, 3)
        stream = api.chat.completions.create(
            model="fake", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "One two three."
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage.total_tokens == 11
        assert [model.id for model in api.models.list()] == ["fake"]
        parts = [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}]
        assert api.chat.completions.create(model="fake", messages=parts).choices[0].message.content


def test_our_own_agent_speaks_to_our_own_server(tiny, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    local = Agent(load_backend(tiny), sampling=Sampling(8))
    said = ["My name is Ana.", "Hello.", "What is my name?"]
    expected = [local.ask(text) for text in said]
    with serving(load_backend(tiny)) as url:
        remote = Agent(EndpointBackend(EndpointAddress(url, "tiny")), sampling=Sampling(8))
        replies = [remote.ask(text) for text in said]
    assert [r.text for r in replies] == [r.text for r in expected]
    assert [r.prompt_tokens for r in replies] == [r.prompt_tokens for r in expected]
    assert replies[0].counted == "server"


def test_a_seed_makes_it_the_same_again(tiny):
    with serving(load_backend(tiny)) as url:
        api = client(url)

        def ask(seed):
            options = {"temperature": 1.0, "seed": seed, "max_tokens": 8}
            return api.chat.completions.create(model="tiny", messages=ASK, **options).choices[0].message.content

        assert ask(1) == ask(1) != ask(2)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"model": "other"}, openai.NotFoundError, "it is 'fake'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, openai.BadRequestError, "take turns"),
        ({"messages": [{"role": "robot", "content": "x"}]}, openai.BadRequestError, "role: must be"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, openai.BadRequestError, "content"),
        ({"n": 2}, openai.BadRequestError, "n: "),
        ({"temperature": 99}, openai.BadRequestError, "temperature"),
        ({"messages": [{"role": "user", "content": "word " * 300}]}, openai.BadRequestError, "too long"),
        ({"messages": [{"role": "user", "content": "empty"}]}, openai.InternalServerError, "the answer is empty"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_said_by_a_status(change, kind, says, stream):
    backend = FakeBackend(say=lambda sent: "" if sent[-1].content == "empty" else "Yes.")
    with serving(backend) as url, pytest.raises(kind, match=says):
        client(url).chat.completions.create(**{"model": "fake", "messages": ASK, "stream": stream} | change)


def test_the_key_is_asked_for():
    with serving(FakeBackend(), key="right") as url:
        with pytest.raises(openai.AuthenticationError):
            client(url, key="wrong").chat.completions.create(model="fake", messages=ASK)
        with pytest.raises(openai.AuthenticationError):
            client(url, key="wrong").models.list()
        assert client(url, key="right").chat.completions.create(model="fake", messages=ASK)


def test_limits():
    slow = threading.Event()

    def say(sent):
        slow.wait(5)
        return "Yes."

    with serving(FakeBackend(say=say), limits=Limits(waiting=1)) as url:
        answers = []

        def ask():
            try:
                client(url).chat.completions.create(model="fake", messages=ASK)
                answers.append("ok")
            except openai.RateLimitError as error:
                answers.append(error.response.headers["retry-after"])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answers) < 2:
            time.sleep(0.01)
        slow.set()
        for thread in threads:
            thread.join()
    assert sorted(answers) == ["1", "1", "ok", "ok"]
    with serving(FakeBackend(), limits=Limits(requests_per_minute=1)) as url:
        client(url).chat.completions.create(model="fake", messages=ASK)
        with pytest.raises(openai.RateLimitError, match="per minute"):
            client(url).chat.completions.create(model="fake", messages=ASK)


def test_a_client_that_leaves_lets_the_next_one_in():
    with serving(FakeBackend(say=lambda sent: "word " * 90, limit=400)) as url:
        api = client(url)
        stream = api.chat.completions.create(model="fake", messages=ASK, stream=True)
        next(iter(stream))
        stream.close()
        assert api.chat.completions.create(model="fake", messages=ASK, max_tokens=2).usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Host": "evil.example", "Content-Type": "application/json"}, b"{}", 400),
        ({"Content-Type": "text/plain"}, json.dumps({"messages": ASK}).encode(), 415),
        ({"Content-Type": "application/json"}, b" " * (MAX_BODY_BYTES + 1), 413),
        ({"Content-Type": "application/json"}, b"{nonsense", 400),
        ({"Content-Type": "application/json"}, b"[" * 100_000, 400),
    ],
)
def test_what_no_client_should_send(headers, body, status):
    import http.client

    with serving(FakeBackend()) as url:
        connection = http.client.HTTPConnection(url.split("/")[2], timeout=20)
        connection.request("POST", "/v1/chat/completions", body, headers)
        assert connection.getresponse().status == status
        connection.close()


def raw(url: str, data: bytes = b"") -> socket.socket:
    host, port = url.split("/")[2].split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(data)
    return connection


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize("sent", [b"", b"POST /v1", HEAD, HEAD + b"content-length: 100\r\n\r\n{"])
def test_slow_clients_are_dropped_and_others_served(sent, caplog):
    with serving(FakeBackend(), limits=Limits(connections=8, request_s=0.6)) as url:
        began = time.monotonic()
        slow = [raw(url, sent) for _ in range(7)]
        assert client(url).chat.completions.create(model="fake", messages=ASK)
        for connection in slow:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1000) == b"", "dropped without an answer"
            connection.close()
        assert time.monotonic() - began < 8
        assert client(url).chat.completions.create(model="fake", messages=ASK)
    assert "Traceback" not in caplog.text


def test_connections_are_limited(caplog):
    with serving(FakeBackend(), limits=Limits(connections=4)) as url:
        held = [raw(url) for _ in range(4)]
        time.sleep(0.2)
        for _ in range(200):
            refused = raw(url, b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert b" 503 " in refused.recv(1000)
            refused.close()
        held.pop().close()
        while True:
            try:
                assert client(url).models.list()
                break
            except (openai.APIConnectionError, openai.InternalServerError):
                time.sleep(0.05)
        for connection in held:
            connection.close()
    assert "Traceback" not in caplog.text


def test_a_client_that_does_not_read_gives_the_model_back(caplog):
    body = json.dumps({"messages": ASK, "stream": True, "max_tokens": 30_000}).encode()
    request = HEAD + b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    backend = FakeBackend(say=lambda sent: "word " * (30_000 if "there" in sent[-1].content else 1), limit=10**6)
    sampling = Sampling(30_000)
    with serving(backend, limits=Limits(unread_s=0.5), sampling=sampling) as url:
        unread = raw(url, request)
        time.sleep(0.3)
        assert client(url).chat.completions.create(model="fake", messages=[{"role": "user", "content": "Hi."}])
        unread.close()
    assert "Traceback" not in caplog.text


def test_a_model_that_breaks_is_an_error_in_one_line(caplog):
    def say(sent):
        raise RuntimeError("out of memory")

    with serving(FakeBackend(say=say)) as url:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError, match="the answer failed: out of memory"):
                client(url).chat.completions.create(model="fake", messages=ASK, stream=stream)
    assert "the answer failed: out of memory" in caplog.text and "Traceback" not in caplog.text


def test_the_servers_own_lines_go_through_our_log(monkeypatch):
    configured = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: configured.append(server.config.log_config))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server._listen(None, listener, "tiny", Limits())
    assert configured == [None], "uvicorn's own handlers take no secrets out"
