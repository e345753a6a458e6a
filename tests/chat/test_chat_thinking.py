"""Thinking and answer have tokens of their own in a chat: on a local model, in a room that is small, on a server."""

from pathlib import Path
from typing import Any

import pytest
from chat_fakes import load_backend

from llmjobs.chat.agent import Agent, meter
from llmjobs.chat.backend import Sampling, drain, room_for
from llmjobs.chat.endpoint_backend import (
    CallJournal,
    EndpointAddress,
    EndpointBackend,
    MinuteLimit,
    PaidBackend,
    Spending,
)
from llmjobs.chat.messages import Message
from llmjobs.chat.server import ChatCompletion

TEMPLATE = (
    "{% for m in messages %}{{ m.content.split('</think>')[-1] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Model: <think>\n{% endif %}"
)


@pytest.fixture
def thinker(tiny: Path, tmp_path: Path) -> Path:
    """A model whose prompts open a thinking block, and which never closes it."""
    folder = tmp_path / "thinker"
    folder.mkdir()
    for file in tiny.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.mark.parametrize("keeps_keys", [True, False])
def test_a_model_that_never_stops_thinking_answers_every_turn(thinker: Path, keeps_keys: bool) -> None:
    backend = load_backend(thinker, keeps_keys=keeps_keys, thinking=30)
    agent = Agent(backend, sampling=Sampling(8, thinking_tokens=30))
    for turn in ("Which one?", "Are you sure?"):
        reply = agent.ask(turn)
        assert reply.text and reply.thinking
        assert reply.thinking_cut and reply.thinking_record()["thinking_cut"] is True
        assert reply.thinking_tokens and reply.thinking_tokens <= 30
        assert reply.new_tokens == 38
        assert "thinking ended at its limit" in meter(agent, reply)
        assert "</think>" not in reply.text + str(agent.messages)


def test_without_tokens_of_its_own_the_thinking_shares_the_answers(thinker: Path) -> None:
    agent = Agent(load_backend(thinker, thinking=30), sampling=Sampling(8))
    with pytest.raises(Exception, match="spent all 8 tokens on thinking and gave no answer"):
        agent.ask("Which one?")


def test_an_unfinished_run_of_before_is_not_mixed_with_answers_of_now(thinker: Path) -> None:
    backend = load_backend(thinker, thinking=30)
    before = backend.prompt.format.cut_tokens
    now = backend.prompt.to_record()["prompts"]
    backend.prompt.format.__dict__["cut_tokens"] = before[:-1]
    assert backend.prompt.to_record()["prompts"] != now


@pytest.mark.parametrize(
    ("asked", "tokens", "found"),
    [
        (Sampling(256, thinking_tokens=2048), 4096, (256, 2048)),
        (Sampling(256, thinking_tokens=2048), 1000, (256, 744)),
        (Sampling(256, thinking_tokens=2048), 300, (150, 150)),
        (Sampling(256, thinking_tokens=20), 200, (180, 20)),
        (Sampling(256), 100, (100, 0)),
        (Sampling(256, thinking_tokens=2048), 1, (1, 0)),
    ],
)
def test_a_small_room_is_shared(asked: Sampling, tokens: int, found: tuple[int, int]) -> None:
    fitted = asked.within(tokens)
    assert (fitted.max_new_tokens, fitted.thinking_tokens) == found


def test_room_is_reserved_for_both(fake: Any) -> None:
    fake.limit = 10_000
    room, sampling = room_for(fake, Sampling(256, thinking_tokens=2048), None)
    assert (room.reserve, room.thinking_tokens, sampling.most_tokens) == (2304, 2048, 2304)
    room, sampling = room_for(fake, Sampling(256, thinking_tokens=2048), 512)
    assert (room.reserve, sampling.max_new_tokens, sampling.thinking_tokens) == (256, 128, 128)


def test_a_server_is_told_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = EndpointBackend(EndpointAddress("http://localhost:1/v1", "m"))
    request = backend._request([Message("user", "Hi")], Sampling(256, thinking_tokens=2048))
    assert request["max_tokens"] == 2304
    default = Sampling(256, thinking_tokens=2048)
    asked = ChatCompletion.model_validate({"messages": [{"role": "user", "content": "Hi"}]})
    assert asked.sampling(default).most_tokens == 2304
    asked = ChatCompletion.model_validate({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1000})
    assert asked.sampling(default).most_tokens == 1000


def test_a_call_that_an_earlier_run_paid_for_is_not_made_again(fake: Any, tmp_path: Path) -> None:
    """Earlier runs had one limit for thinking and answer; what is sent is the same."""
    journal = CallJournal(tmp_path)

    def paid() -> PaidBackend:
        limits = {"account": "m", "spending": Spending({}), "minute": MinuteLimit(None, None)}
        return PaidBackend(lambda whole: fake, "q1", journal, **limits)

    asked = [Message("user", "Hi")]
    for sampling in (Sampling(2304), Sampling(256, thinking_tokens=2048), Sampling(300)):
        drain(paid().answer(asked, sampling))
    assert len(fake.sent) == 2, "only another sum is another call"
    journal.close()
