"""A loopback server that answers chat completions by rule and misbehaves on demand."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def chunk(text=None, finish=None, usage=None) -> str:
    delta = {} if text is None else {"content": text}
    choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "system_fingerprint": ""}
    return f"data: {json.dumps({**head, 'choices': choices, **({'usage': usage} if usage else {})})}\n\n"


USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
DONE = "data: [DONE]\n\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((dict(self.headers), body))
        plan = self.server.plan
        (plan.pop(0) if len(plan) > 1 else plan[0])(self)

    def begin(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def part(self, text: str):
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def stream(self, *parts: str, finish: bool = True):
        self.begin()
        for text in parts:
            self.part(text)
        if finish:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def status(self, code: int, **headers: str):
        body = json.dumps({"error": {"message": f"status {code}"}}).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self, text: str, kind: str, code: int = 200):
        data = text.encode()
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


Behaviour = Callable[[Handler], None]


def good(handler: Handler) -> None:
    handler.stream(chunk("Hel"), chunk("lo."), chunk(finish="stop"), chunk(usage=USAGE), DONE)


def late(handler: Handler) -> None:
    time.sleep(1.0)
    good(handler)


def silent_in_the_middle(handler: Handler) -> None:
    handler.begin()
    handler.part(chunk("Hel"))
    time.sleep(1.0)
    handler.close_connection = True


def cut(handler: Handler) -> None:
    handler.stream(chunk("Hel"), finish=False)


def ends_early(handler: Handler) -> None:
    handler.stream(chunk("Hel"))


def malformed(handler: Handler) -> None:
    handler.stream(chunk("Hel"), 'data: {"choices": [{"del\n\n')


def malformed_at_once(handler: Handler) -> None:
    handler.stream('data: {"choices": 7}\n\n')


def web_page(handler: Handler) -> None:
    handler.stream("<html>hello</html>\n")


def bare_page(handler: Handler) -> None:
    handler.body("<!doctype html><title>Sign in</title>", "text/html")


def empty(handler: Handler) -> None:
    handler.stream(chunk(""), chunk(finish="stop"), DONE)


def error_in_the_stream(handler: Handler) -> None:
    handler.stream(chunk("Hel"), 'data: {"error": {"message": "out of memory"}}\n\n')


def filtered(handler: Handler) -> None:
    handler.stream(chunk("Hel"), chunk(finish="content_filter"), DONE)


def status(code: int, **headers: str) -> Behaviour:
    return lambda handler: handler.status(code, **headers)


def refusal(message: str, code: int = 400, **more: str) -> Behaviour:
    """An error in OpenAI's form."""
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", **more}})
    return lambda handler: handler.body(body, "application/json", code)


@contextmanager
def stand_in(*plan: Behaviour):
    """Serve ``plan`` in order, its last entry for ever; yields the server with ``url`` and ``requests``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.plan, server.requests = list(plan), []
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
