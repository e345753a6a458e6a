"""A loopback server with a toy language model: completions, chat, echo and log-probabilities that agree, or lie."""

import json
import math
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VOCABULARY = [*(f" {letter}" for letter in "ABCDEFGHIJ"), *"ABCD", "\n", " one", " two", " three", " word", "."]
HONEST = frozenset({"echo", "prompt_logprobs", "top_logprobs"})


def pieces(text: str) -> list[str]:
    return re.findall(r" ?\w+|\W", text)


def logprob(before: str, token: str) -> float:
    def weight(one: str) -> float:
        return (zlib.crc32(f"{before[-60:]}|{one}".encode()) % 1000) / 200

    total = sum(math.exp(weight(one)) for one in VOCABULARY) + 50
    return weight(token) - math.log(total)


def likeliest(before: str, count: int) -> list[tuple[str, float]]:
    ranked = sorted(((one, logprob(before, one)) for one in VOCABULARY), key=lambda pair: -pair[1])
    return ranked[:count]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.can: set[str] = set(HONEST)
        """The ways that are answered honestly; any other is answered as servers do that ignore it."""
        self.lies: str | None = None
        self.most_top = 20
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.fails: list[Any] = []
        """Functions of a request's text that say with which status it fails, or None."""
        self.whole_body: tuple[int, str, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send(200, {"object": "list", "data": [{"id": "toy", "owned_by": "tests", "max_model_len": 4096}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server, path = self.server, self.path.rpartition("/v1/")[2]
        server.requests.append((path, body))
        if server.whole_body:
            status, kind, data = server.whole_body
            return self.send_bytes(status, kind, data)
        if body["model"] != "toy":
            return self.send(404, {"error": {"message": f"the model {body['model']} does not exist"}})
        if self.headers["authorization"] == "Bearer wrong-key":
            return self.send(401, {"error": {"message": "invalid key"}})
        chat = "messages" in body
        text = "".join(f"<{m['role']}>{m['content']}" for m in body["messages"]) if chat else body["prompt"]
        for fails in server.fails:
            if status := fails(text):
                return self.send(status, {"error": {"message": "not now"}})
        top = body.get("top_logprobs") if chat else body.get("logprobs")
        if top is not None and top > server.most_top:
            return self.send(400, {"error": {"message": f"at most {server.most_top} logprobs"}})
        if chat and not body.get("continue_final_message"):
            text += "<assistant>"
        return self.complete(body, text, chat, int(top) if top is not None else None)

    def complete(self, body: dict[str, Any], text: str, chat: bool, top: int | None) -> None:
        said: list[str] = []
        stops = body.get("stop") or []
        while len(said) < min(body["max_tokens"], 6) and not any(stop in "".join(said) for stop in stops):
            said.append(likeliest(text + "".join(said), 1)[0][0])
        answer = "".join(said)
        for stop in stops:
            answer = answer.partition(stop)[0]
        prompt = pieces(text)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if len(said) == body["max_tokens"] else "stop"}
        choice |= {"message": {"role": "assistant", "content": answer}} if chat else {"text": answer}
        if top is not None and self.server.can & {"top_logprobs", "echo"}:
            choice["logprobs"] = self.logprobs(body, text, prompt, said, chat, top)
        whole: dict[str, Any] = {"id": "c", "object": "completion", "choices": [choice]}
        whole["usage"] = {"prompt_tokens": len(prompt), "completion_tokens": len(said)}
        if "prompt_logprobs" in body and "prompt_logprobs" in self.server.can:
            whole["prompt_logprobs"] = [None, *self.vllm(prompt)]
        self.send(200, whole)

    def logprobs(
        self, body: dict[str, Any], text: str, prompt: list[str], said: list[str], chat: bool, top: int
    ) -> dict[str, Any]:
        tokens, start = list(said), len(text)
        if body.get("echo") and "echo" in self.server.can:
            tokens, start = [*prompt, *said], 0
        elif "top_logprobs" not in self.server.can:
            return {}
        whole = text + "".join(said)
        values: list[Any] = []
        tops: list[Any] = []
        at = start
        for token in tokens:
            values.append(self.value(whole[:at], token) if at else None)
            tops.append(likeliest(whole[:at], top) if at else None)
            at += len(token)
        if self.server.lies == "nan":
            values = [math.nan for _ in values]
        if chat:
            rows = zip(tokens, values, tops, strict=True)
            listed = [[{"token": t, "logprob": v} for t, v in pairs] for pairs in tops]
            content = [
                {"token": t, "logprob": v, "top_logprobs": one} for (t, v, _), one in zip(rows, listed, strict=True)
            ]
            return {"content": content}
        return {
            "tokens": tokens, "token_logprobs": values,
            "top_logprobs": [dict(pairs) if pairs else None for pairs in tops],
        }  # fmt: skip

    def value(self, before: str, token: str) -> float:
        if self.server.lies == "constant":
            return -1.0
        if self.server.lies == "contradicts":
            return logprob(before, token) - 3.0
        return logprob(before, token)

    def vllm(self, prompt: list[str]) -> Iterator[dict[str, Any]]:
        for at in range(1, len(prompt)):
            before = "".join(prompt[:at])
            best, value = likeliest(before, 1)[0]
            own = {"logprob": logprob(before, prompt[at]), "rank": 2, "decoded_token": prompt[at]}
            if best == prompt[at]:
                own["rank"] = 1
                yield {"7": own}
            else:
                yield {"7": own, "8": {"logprob": value, "rank": 1, "decoded_token": best}}

    def send(self, status: int, body: Any) -> None:
        self.send_bytes(status, "application/json", json.dumps(body).encode())

    def send_bytes(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def running() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
