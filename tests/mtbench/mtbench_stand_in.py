"""A loopback server that answers and judges by rule, misbehaves on demand, and remembers every request."""

import contextlib
import hashlib
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def said_by_rule(model: str, text: str) -> str:
    digest = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    if model == "agent":
        return f"An answer of the stand-in, number {digest % 10_000}. " + "Word " * (digest % 7)
    if model == "first":
        return "I always take the first. [[A]]"
    if model == "thinker":
        return "<think>Hm, a rating of [[7]], or"
    if model == "mute":
        return "I would rather not say."
    if model == "shy":
        return "Once more: [[6]]" if "could not be read" in text else "Nothing."
    return f"Fine. [[{'ABC'[digest % 3]}]]" if "[[A]]" in text else f"Fine. Rating: [[{1 + digest % 10}]]"


def chunk(text=None, finish=None, usage=None) -> bytes:
    choices = [] if usage else [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "system_fingerprint": ""}
    return f"data: {json.dumps({**head, 'choices': choices, **({'usage': usage} if usage else {})})}\n\n".encode()


USAGE = {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60}
DONE = b"data: [DONE]\n\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            place = len(server.requests)
            server.requests.append((dict(self.headers), body))
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        try:
            time.sleep(server.delay_s)
            kind = server.troubles.get(place, "good")
            self.answer(kind, body)
        finally:
            with server.lock:
                server.open -= 1

    def answer(self, kind: str, body: dict):
        if self.server.refuses in body:
            kind = "refusal"
        self.asked, text = body, said_by_rule(body["model"], body["messages"][-1]["content"])
        if self.server.counts != "fixed":
            text = text[: body["max_tokens"]]
        with self.server.lock:
            self.server.said_bytes.append(len(text))
        self.close_connection = True
        with contextlib.suppress(OSError):
            getattr(self, f"be_{kind}", self.be_status)(text, kind)

    def be_status(self, _, kind: str, says: str = "not now"):
        """A status, with an error in OpenAI's form."""
        body = json.dumps({"error": {"message": says}}).encode()
        self.send_response(int(kind))
        if kind == "429":
            self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def be_refusal(self, *_):
        name = self.server.refuses
        self.be_status(None, "400", f"'{name}' is not supported with this model.")

    def usage(self, text: str) -> list[bytes]:
        """The server's count: always the same, a token for each byte, or none."""
        if self.server.counts is None:
            return []
        prompt = sum(len(message["content"].encode()) for message in self.asked["messages"])
        return [
            chunk(
                usage=USAGE
                if self.server.counts == "fixed"
                else {"prompt_tokens": prompt, "completion_tokens": len(text)}
            )
        ]

    def stream(self, *parts: bytes, kind: str = "text/event-stream"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        for part in parts:
            self.wfile.write(part)

    def be_good(self, text, _):
        self.stream(chunk(text), chunk(finish="stop"), *self.usage(text), DONE)

    def be_late(self, text, _):
        time.sleep(1.2)
        self.be_good(text, _)

    def be_cut(self, text, _):
        self.stream(chunk(text[:3]))

    def be_cut_line(self, text, _):
        self.stream(chunk(text)[:40])

    def be_cut_before_the_end(self, text, _):
        self.stream(chunk(text))

    def be_empty(self, *_):
        """Neither text nor a finish reason."""
        choice = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": None}
        self.stream(json.dumps({"choices": [choice], "usage": USAGE}).encode(), kind="application/json")

    def be_given_up(self, text, _):
        self.stream(chunk(text[:3]), chunk(finish="error"), DONE)

    def be_mute(self, *_):
        """The model ends its answer without text."""
        self.stream(chunk(finish="stop"), *self.usage(""), DONE)

    def be_malformed(self, *_):
        self.stream(b'data: {"choices": 7}\n\n')

    def be_broken(self, text, _):
        self.stream(chunk(text[:3]), b'data: {"choices": [{"del\n\n', DONE)

    def be_page(self, *_):
        self.stream(b"<html><title>Bad gateway</title></html>", kind="text/html")

    def be_plain(self, text, _):
        self.stream(chunk(text), chunk(finish="stop"), chunk(usage=USAGE), DONE, kind="text/plain")

    def be_body(self, text, _):
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self.stream(json.dumps({"choices": [choice], "usage": USAGE}).encode(), kind="application/json")

    def be_half_body(self, text, _):
        self.stream(b'{"choices": [{"message": {"content": "' + text[:5].encode(), kind="application/json")

    def be_error(self, text, _):
        self.stream(chunk(text[:3]), b'data: {"error": {"message": "out of memory"}}\n\n')

    def be_reset(self, *_):
        """Reset the connection before any answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def be_reset_within(self, text, _):
        self.stream(chunk(text[:4]))
        self.wfile.flush()
        self.be_reset()

    def be_stall(self, text, _):
        self.stream(chunk(text[:3]))
        self.wfile.flush()
        self.server.closing.wait(20)

    def be_silent(self, *_):
        self.server.closing.wait(20)

    def be_drip(self, *_):
        self.stream(b": wait\n\n")
        while not self.server.closing.wait(0.02):
            self.wfile.write(b": wait\n\n")


FAILURES = (
    "400", "401", "404", "429", "500", "503", "cut", "cut_line", "cut_before_the_end", "empty", "given_up", "malformed",
    "broken", "page", "half_body", "error", "reset", "reset_within", "stall", "silent", "drip",
)  # fmt: skip
"""Every way to give no answer: before, within and after it."""
GOOD = ("good", "plain", "body")


class Flaky:
    """Fails a share of the requests, in any way; what it answers it answers in any form."""

    def __init__(self, rng: random.Random, share: float, failures: Sequence[str] = FAILURES):
        self.rng, self.share, self.failures = rng, share, failures
        self.failed = Counter()

    def get(self, _: int, __: str) -> str:
        if self.rng.random() >= self.share:
            return self.rng.choice(GOOD)
        kind = self.rng.choice(self.failures)
        self.failed[kind] += 1
        return kind


@contextmanager
def stand_in(*, delay_s: float = 0.0, troubles: dict[int, str] | Flaky | None = None):
    """Yields the server with ``url`` and ``requests``; ``troubles``: request number → how it goes wrong."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.troubles, server.delay_s = [], troubles or {}, delay_s
    server.closing = threading.Event()
    server.refuses, server.counts, server.said_bytes = "", "fixed", []
    server.lock, server.open, server.most_open = threading.Lock(), 0, 0
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def repeated(requests) -> int:
    """How many requests were sent before in the same words."""
    counts = Counter(json.dumps([body["model"], body["messages"]]) for _, body in requests)
    return sum(count - 1 for count in counts.values())
