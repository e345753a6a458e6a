"""Context strategies: properties for every conversation and budget, and the purpose of each."""

import contextlib

import pytest
from chat_fakes import FakeBackend
from hypothesis import assume, given
from hypothesis import strategies as st

from llmjobs.chat.backend import MessageTooLongError, Sampling, room_for
from llmjobs.chat.messages import Message, split
from llmjobs.chat.strategies import make_strategy, rank
from llmjobs.errors import ContextFullError, DataError, LlmjobsError
from llmjobs.extensions import STRATEGIES

WORDS = ["red", "blue", "Ana", "dog", "lives", "in", "Rome", "what", "is", "my", "name"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


@st.composite
def conversations(draw):
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for user, assistant in draw(st.lists(st.tuples(texts, texts), max_size=12)):
        messages += [Message("user", user), Message("assistant", assistant)]
    return [*messages, Message("user", draw(texts))]


def grow(messages, strategy, room):
    """Plan at every turn, as a conversation does; returns the last plan."""
    has_system = messages[0].role == "system"
    for end in range(1 + has_system, len(messages), 2):
        with contextlib.suppress(MessageTooLongError):
            strategy.plan(messages[:end], room)
    return strategy.plan(messages, room)


@given(conversations(), st.sampled_from([n for n in STRATEGIES if n != "full"]), st.integers(16, 120))
def test_every_plan_keeps_the_rules(messages, name, context):
    backend = FakeBackend(limit=context, say=lambda sent: " ".join(WORDS * 2))
    room, _ = room_for(backend, Sampling(8), None)
    alone = [m for m in messages if m.role == "system"] + messages[-1:]
    assume(room.count(alone) <= room.budget)
    plan = grow(messages, make_strategy(name), room)
    assert plan.tokens == room.count(plan.messages) <= room.budget
    parts = split(plan.messages)  # raises unless the roles take turns and the user's message is last
    assert parts.question == messages[-1]
    if messages[0].role == "system":
        assert parts.system.content.startswith(messages[0].content)
    original = split(messages).exchanges
    places, at = [], 0
    for exchange in parts.exchanges:
        at = original.index(exchange, at) + 1
        places.append(at)
    assert places == sorted(set(places)), "the order is kept, nothing is sent twice"
    assert 0 <= plan.dropped_tokens <= room.count(messages)
    assert all(room.count(sent) <= context for sent in backend.sent), "a summary's own prompt fits too"


@given(conversations(), st.integers(16, 120))
def test_full_sends_all_or_says_so(messages, context):
    room, _ = room_for(FakeBackend(limit=context), Sampling(8), None)
    strategy = make_strategy("full")
    if room.count(messages) <= room.budget:
        assert strategy.plan(messages, room).messages == tuple(messages)
    else:
        with pytest.raises((ContextFullError, MessageTooLongError), match="tokens"):
            strategy.plan(messages, room)


@given(conversations(), st.integers(16, 120))
def test_window_is_the_longest_run_of_newest_turns(messages, context):
    room, _ = room_for(FakeBackend(limit=context), Sampling(8), None)
    parts = split(messages)
    assume(room.count(parts.compose(())) <= room.budget)
    sent = split(make_strategy("window").plan(messages, room).messages).exchanges
    assert parts.exchanges[len(parts.exchanges) - len(sent) :] == sent
    if len(sent) < len(parts.exchanges):
        one_more = parts.exchanges[len(parts.exchanges) - len(sent) - 1 :]
        assert room.count(parts.compose(one_more)) > room.budget


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_message_longer_than_the_context_is_a_clear_error(name):
    room, _ = room_for(FakeBackend(limit=40), Sampling(8), None)
    with pytest.raises(MessageTooLongError, match=r"too long: 52 tokens .* room for 32"):
        make_strategy(name).plan([Message("user", "word " * 50)], room)


def talk(*pairs, question):
    messages = [m for user, answer in pairs for m in (Message("user", user), Message("assistant", answer))]
    return [*messages, Message("user", question)]


def test_retrieve_brings_back_what_bears_on_the_question():
    pairs = [("Kim lives in Oslo.", "Noted.")] + [(f"Small talk number {n}.", "I see.") for n in range(20)]
    room, _ = room_for(FakeBackend(limit=60), Sampling(8), None)
    messages = talk(*pairs, question="Where does Kim live?")
    assert "Oslo" in str(make_strategy("retrieve").plan(messages, room).messages)
    assert "Oslo" not in str(make_strategy("window").plan(messages, room).messages)


def test_ranking_is_stable_and_empty_without_a_shared_word():
    exchanges = split(talk(("red boat", "a"), ("red boat", "b"), ("green kite", "c"), question="x")).exchanges
    assert rank("the red boat", exchanges) == [1, 0]
    assert rank("nothing of it", exchanges) == []
    assert rank("?!", exchanges) == []


def test_summary_is_written_by_the_model_pinned_and_counted():
    backend = FakeBackend(limit=80, say=lambda sent: "Ana has a red boat.")
    room, _ = room_for(backend, Sampling(8), None)
    strategy = make_strategy("summary")
    messages = [Message("system", "Be brief.")]
    for turn in range(12):
        plan = strategy.plan([*messages, Message("user", f"Turn {turn} of many words here.")], room)
        if plan.side_tokens:
            break
        messages += [Message("user", f"Turn {turn} of many words here."), Message("assistant", "I see that.")]
    assert plan.side_tokens > 0
    assert plan.messages[0].content == "Be brief.\n\nSummary of the conversation so far: Ana has a red boat."
    asked = backend.sent[-1]
    assert "Turn 0" in asked[-1].content and asked[0].role == "system"
    restored = make_strategy("summary")
    restored.restore(strategy.state())
    again = [*messages, Message("user", f"Turn {turn} of many words here.")]
    assert restored.plan(again, room).messages == plan.messages


def test_summary_begins_anew_after_undone_turns():
    strategy = make_strategy("summary")
    strategy.restore({"text": "old", "covered": 5})
    room, _ = room_for(FakeBackend(), Sampling(8), None)
    assert strategy.plan([Message("user", "Hello.")], room).messages == (Message("user", "Hello."),)


def test_reserve_takes_at_most_half():
    room, sampling = room_for(FakeBackend(limit=100), Sampling(256), None)
    assert (room.budget, sampling.max_new_tokens) == (50, 50)
    with pytest.raises(LlmjobsError, match="200 is more than fake's limit of 100 tokens"):
        room_for(FakeBackend(limit=100), Sampling(), 200)


@pytest.mark.parametrize(
    "messages",
    [
        [Message("assistant", "a")],
        [Message("user", "a"), Message("user", "b")],
        [Message("user", "a"), Message("assistant", "b")],
        [],
    ],
)
def test_roles_that_do_not_take_turns_are_refused(messages):
    with pytest.raises(DataError):
        split(messages)
