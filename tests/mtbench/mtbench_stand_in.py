"""A loopback server that answers and judges by rule, misbehaves on demand, and remembers every request."""

import hashlib
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def said_by_rule(model: str, text: str) -> str:
    digest = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    if model == "agent":
        return f"An answer of the stand-in, number {digest % 10_000}. " + "Word " * (digest % 7)
    if model == "first":
        return "I always take the first. [[A]]"
    if model == "mute":
        return "I would rather not say."
    if model == "shy":
        return "Once more: [[6]]" if "could not be read" in text else "Nothing."
    return f"Fine. [[{'ABC'[digest % 3]}]]" if "[[A]]" in text else f"Fine. Rating: [[{1 + digest % 10}]]"


def chunk(text=None, finish=None, usage=None) -> bytes:
    choices = [] if usage else [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "system_fingerprint": ""}
    return f"data: {json.dumps({**head, 'choices': choices, **({'usage': usage} if usage else {})})}\n\n".encode()


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
            self.answer(server.troubles.get(place, "good"), body)
        finally:
            with server.lock:
                server.open -= 1

    def answer(self, kind: str, body: dict):
        if kind in ("429", "500", "401"):
            self.send_response(int(kind))
            if kind == "429":
                self.send_header("retry-after", "0")
            self.end_headers()
            return
        if kind == "late":
            time.sleep(1.2)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        text = said_by_rule(body["model"], body["messages"][-1]["content"])
        usage = {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60}
        parts = {
            "good": [chunk(text), chunk(finish="stop"), chunk(usage=usage), b"data: [DONE]\n\n"],
            "late": [chunk(text), chunk(finish="stop"), chunk(usage=usage), b"data: [DONE]\n\n"],
            "cut": [chunk(text[:3])],
            "empty": [chunk(finish="stop"), chunk(usage=usage), b"data: [DONE]\n\n"],
            "malformed": [b'data: {"choices": 7}\n\n'],
        }[kind]
        for part in parts:
            self.wfile.write(part)


@contextmanager
def stand_in(*, delay_s: float = 0.0, troubles: dict[int, str] | None = None):
    """Yields the server with ``url`` and ``requests``; ``troubles``: request number → how it goes wrong."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.troubles, server.delay_s = [], troubles or {}, delay_s
    server.lock, server.open, server.most_open = threading.Lock(), 0, 0
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def repeated(requests) -> int:
    """How many requests were sent before in the same words."""
    counts = Counter(json.dumps([body["model"], body["messages"]]) for _, body in requests)
    return sum(count - 1 for count in counts.values())
