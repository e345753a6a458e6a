"""Parameters that a server refuses are learned from its answer, once, with a message."""

import io
import json

import chat_stand_in as s
import pytest

from llmjobs.calls.client import EndpointAddress
from llmjobs.calls.refused_parameters import LEFT_OUT, Parameters
from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Sampling
from llmjobs.chat.endpoint_backend import EndpointBackend
from llmjobs.cli import main
from llmjobs.errors import CallError, ContextFullError
from llmjobs.work.journal import read_records


def openai(message: str, **more: str | None) -> tuple[int, object]:
    return 400, {"error": {"message": message, "type": "invalid_request_error", **more}}


def fastapi(name: str) -> tuple[int, object]:
    detail = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 0}
    return 422, {"detail": [detail]}


REFUSALS = [
    (
        "max_tokens",
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead.",
            param="max_tokens",
            code="unsupported_parameter",
        ),
    ),
    (
        "temperature",
        openai(
            "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is "
            "supported.",
            param="temperature",
            code="unsupported_value",
        ),
    ),
    ("temperature", openai("`temperature` must be strictly positive")),
    ("temperature", openai("temperature is not supported by this model")),
    ("stream_options", openai("Unrecognized request argument supplied: stream_options", param=None)),
    ("seed", openai("property 'seed' is unsupported, did you mean 'stop'?")),
    ("seed", openai("Unknown parameter: 'seed'.", param="seed")),
    ("seed", (400, {"message": "unknown field: parameter 'seed' is not a valid field"})),
    ("seed", fastapi("seed")),
    ("stream_options", fastapi("stream_options")),
    ("stream_options", (422, {"object": "error", "message": {"detail": [fastapi("stream_options")[1]["detail"][0]]}})),
    ("stream", openai("'stream' is not supported by this server")),
    ("stream", (501, {"detail": "streaming is not implemented: stream must be false"})),
    ("max_tokens", fastapi("max_tokens")),
]


def picky(name: str, refusal: tuple[int, object]) -> s.Behaviour:
    """Refuses every request with ``name``."""

    def answer(handler: s.Handler) -> None:
        body = handler.server.requests[-1][1]
        if name in body:
            return handler.body(json.dumps(refusal[1]), "application/json", refusal[0])
        if body.get("stream"):
            return s.good(handler)
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
        return handler.body(json.dumps({"choices": [choice], "usage": s.USAGE}), "application/json")

    return answer


def agent_for(server, told, parameters=None, temperature=0.0) -> Agent:
    backend = EndpointBackend(
        EndpointAddress(server.url, "m"), sleep=lambda _: None, warn=told.append, parameters=parameters
    )
    return Agent(backend, sampling=Sampling(20, temperature))


@pytest.mark.parametrize(("name", "refusal"), REFUSALS)
def test_what_a_server_refuses_is_learned_once_and_said(name, refusal):
    told, parameters = [], Parameters()
    with s.stand_in(picky(name, refusal)) as server:
        agent = agent_for(server, told, parameters)
        assert [agent.ask("Hi.").text, agent.ask("And?").text] == ["Hello.", "Hello."]
        assert agent_for(server, told, parameters).ask("Hi.").text == "Hello."
    assert len(server.requests) == 4
    sent = server.requests[-1][1]
    assert name not in sent
    assert len(told) == 1 and f"does not accept '{name}'" in told[0]
    if name == "max_tokens":
        assert sent["max_completion_tokens"] == 20 and parameters.changes == {name: "max_completion_tokens"}
    else:
        assert parameters.changes[name] == LEFT_OUT


def test_several_refusals_one_after_the_other():
    told = []

    def answer(handler: s.Handler) -> None:
        body = handler.server.requests[-1][1]
        name = next((name for name in ("max_tokens", "temperature", "seed") if name in body), None)
        if name:
            return handler.body(json.dumps(openai(f"'{name}' is not supported", param=name)[1]), "text/plain", 400)
        return s.good(handler)

    with s.stand_in(answer) as server:
        assert agent_for(server, told).ask("Hi.").text == "Hello."
    assert len(server.requests) == 4 and len(told) == 3


@pytest.mark.parametrize(
    "refusal",
    [
        openai("The prompt was refused: it asks to stream a film at any temperature."),
        openai("Invalid 'temperature': decimal above maximum value. Expected a value <= 2.", param="temperature"),
        openai("max_tokens is too large: 20. This model supports at most 10 completion tokens.", param="max_tokens"),
        openai("something is not right"),
        openai("'stop' is not supported with this model.", param="stop"),
        (400, "no"),
        (403, {"error": {"message": "temperature is not supported"}}),
    ],
)
def test_another_refusal_is_no_lesson(refusal):
    told = []
    body = json.dumps(refusal[1])
    with s.stand_in(lambda h: h.body(body, "application/json", refusal[0])) as server, pytest.raises(CallError):
        agent_for(server, told, temperature=5.0).ask("Hi.")
    assert len(server.requests) == 1 and not told


def test_a_prompt_that_is_too_long_is_no_lesson():
    message = (
        "'max_tokens' or 'max_completion_tokens' is too large: 20. This model's maximum context length is 16 tokens."
    )
    with s.stand_in(s.refusal(message)) as server, pytest.raises(ContextFullError):
        agent_for(server, []).ask("Hi.")
    assert len(server.requests) == 1


def test_a_server_that_takes_neither_name_is_told():
    refuse = s.refusal("'max_tokens' and 'max_completion_tokens' are not supported")
    with s.stand_in(refuse) as server, pytest.raises(CallError, match="are not supported"):
        agent_for(server, []).ask("Hi.")
    assert len(server.requests) == 2


def test_a_chat_writes_down_what_the_server_does_not_take(tmp_path, monkeypatch, capsys):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi.\nAnd?"))
    behaviour = picky("temperature", openai("'temperature' is not supported"))
    with s.stand_in(behaviour) as server, pytest.raises(SystemExit) as ended:
        main(["chat", "--endpoint", server.url, "--model", "m", "--results", str(tmp_path)])
    assert ended.value.code == 0 and "does not accept 'temperature'" in capsys.readouterr().err
    notes = [r for r in read_records(tmp_path / "chat/chat/001/records.jsonl") if r.get("event") == "parameters"]
    assert [note["changes"] for note in notes] == [{"temperature": LEFT_OUT}]
