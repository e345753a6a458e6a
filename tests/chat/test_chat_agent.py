"""The agent: what stays after turns that fail, are stopped, or undone."""

import pytest
from chat_fakes import FakeBackend

from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Sampling
from llmjobs.chat.messages import Message
from llmjobs.errors import AnswerError, ContextFullError


def test_the_conversation_is_sent_with_the_system_message(fake):
    agent = Agent(fake, system="Be brief.")
    agent.ask("One.")
    agent.ask("Two.")
    assert [m.content for m in fake.sent[-1]] == ["Be brief.", "One.", "Noted.", "Two."]
    assert agent.last.prompt_tokens == 2 * 4 + 5


def test_history_off_sends_the_newest_message_alone(fake):
    agent = Agent(fake, system="Be brief.", history=False)
    agent.ask("One.")
    reply = agent.ask("Two.")
    assert [m.content for m in fake.sent[-1]] == ["Be brief.", "Two."]
    assert reply.dropped_tokens == 6
    assert len(agent.messages) == 4, "it is still kept"


def test_a_failed_turn_leaves_no_trace():
    agent = Agent(FakeBackend(say=lambda sent: "" if "empty" in sent[-1].content else "Yes."))
    agent.ask("One.")
    with pytest.raises(AnswerError, match="the answer is empty"):
        agent.ask("empty")
    assert agent.last is None
    assert [m.content for m in agent.messages] == ["One.", "Yes."]


def test_full_ends_with_a_message_and_another_strategy_goes_on():
    agent = Agent(FakeBackend(limit=40), sampling=Sampling(4))
    with pytest.raises(ContextFullError, match="choose another strategy"):
        for turn in range(20):
            agent.ask(f"Message {turn} of some words.")
    kept = len(agent.messages)
    agent.choose("window")
    agent.ask("On we go.")
    assert len(agent.messages) == kept + 2


def test_a_stopped_answer_is_kept_and_one_without_a_word_is_not():
    agent = Agent(FakeBackend(say=lambda sent: "a b c d"))
    stream = agent.stream("Go.")
    next(stream), next(stream)
    stream.close()
    assert agent.messages[-1] == Message("assistant", "a b")
    assert agent.last.finish_reason == "interrupted"
    stream = agent.stream("Again.")
    stream.close()
    assert len(agent.messages) == 2


def test_undo_reset_replace(fake):
    agent = Agent(fake)
    assert not agent.undo()
    agent.ask("One.")
    agent.ask("Two.")
    assert agent.undo()
    assert [m.content for m in agent.messages] == ["One.", "Noted."]
    agent.replace([Message("user", "x"), Message("assistant", "y")])
    agent.ask("Three.")
    assert [m.content for m in fake.sent[-1]] == ["x", "y", "Three."]
    agent.reset()
    assert agent.messages == []


def test_the_summary_counts(fake):
    fake.limit = 60
    agent = Agent(fake, strategy="summary", sampling=Sampling(4))
    spent = [agent.ask(f"Message {turn} of some words.").side_tokens for turn in range(20)]
    assert sum(1 for tokens in spent if tokens) >= 2
    assert spent[0] == 0


def test_ttft_is_before_the_end(fake):
    reply = Agent(fake).ask("One.")
    assert 0 <= reply.ttft_s <= reply.real_s


def test_thinking_is_kept_apart_and_out_of_the_conversation():
    fake = FakeBackend(say=lambda sent: "<think> A or B? </think> B it is.")
    agent = Agent(fake)
    assert "".join(agent.stream("Which?")).strip() == "B it is."
    assert (agent.last.text, agent.last.thinking) == ("B it is.", "A or B?")
    agent.ask("Sure?")
    assert [m.content for m in fake.sent[-1]] == ["Which?", "B it is.", "Sure?"]


def test_thinking_without_an_answer_is_said_to_be_so():
    agent = Agent(FakeBackend(say=lambda sent: "<think> A or B? Perhaps"))
    with pytest.raises(AnswerError, match="ended its turn while it was thinking .* max_new_tokens"):
        agent.ask("Which?")
    assert agent.messages == []
