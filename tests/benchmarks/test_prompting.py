"""Prompts of every benchmark against the golden file, and the way from text to tokens."""

import json
from typing import Any

import pytest
from asking import ask, make
from make_prompt_golden import PATH, prompts
from tiny_models import NO_SYSTEM, tiny_tokenizer

from llmjobs.benchmarks.base import Benchmark, Doc, Options, Shots
from llmjobs.benchmarks.demo import Demo
from llmjobs.benchmarks.prompting import ChatStyle, Encoder, PromptWriter, Text, encode_unit
from llmjobs.benchmarks.rows import load_rows
from llmjobs.errors import ModelError


def test_prompts_are_those_of_the_golden_file() -> None:
    golden, now = json.loads(PATH.read_text(encoding="utf-8")), prompts()
    assert list(now) == list(golden)
    for case, texts in now.items():
        assert texts == golden[case], f"{case}: raise the benchmark's version, then run make_prompt_golden.py"


def demo_unit(subject: str, num_fewshot: int) -> tuple[Benchmark, list[Doc], Shots]:
    benchmark = Demo(Options(num_fewshot, "demo", "loglikelihood"))
    rows = load_rows(Demo, subject, "test").rows[:4]
    shots = benchmark.shots(load_rows(Demo, subject, "fewshot").rows, subject)
    return benchmark, [benchmark.doc(row, at, subject) for at, row in enumerate(rows)], shots


def test_encoding_splits_at_the_contexts_own_length() -> None:
    tokenizer = tiny_tokenizer()
    text = Text("Question: Who?\nAnswer:", " B")
    ((context, continuation),) = Encoder(tokenizer).encode([[text]])[0]
    assert list(context) == tokenizer.encode(text.context)
    assert list(context + continuation) == tokenizer.encode(text.context + text.continuation)
    assert tokenizer.decode(continuation) == " B"


def test_white_space_moves_to_the_continuation() -> None:
    tokenizer = tiny_tokenizer()
    ((context, continuation),) = Encoder(tokenizer).encode([[Text("Answer: ", "B")]])[0]
    assert tokenizer.decode(context, skip_special_tokens=True) == "Answer:"
    assert tokenizer.decode(continuation) == " B"


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, False), (True, True), (False, True)])
def test_special_tokens_follow_the_tokenizers_default_once(bos: bool, eos: bool) -> None:
    tokenizer = tiny_tokenizer(bos=bos, eos=eos)
    encoder = Encoder(tokenizer)
    ((context, continuation),) = encoder.encode([[Text("Who?", " B")]])[0]
    assert (context[0] == 0) == bos and context[1:].count(0) == 0
    assert 1 not in context + continuation, "what the tokenizer adds behind would stand between context and answer"
    assert encoder.bos == ("added" if bos else "none")
    ((context, _),) = encoder.encode([[Text("<s>Who?", " B")]])[0]
    assert context.count(0) == 1
    assert encoder.bos == "in the text"


def test_shots_are_dropped_until_the_prompt_fits() -> None:
    benchmark, docs, shots = demo_unit("number_size", 5)
    tokenizer = tiny_tokenizer()
    whole = encode_unit(benchmark, docs, shots, tokenizer, max_length=4096)
    assert whole.shots_used == (5,) * 4 and not any(whole.truncated)
    longest = max(len(r.context) + len(r.continuation) for r in whole.requests[0])
    exact = encode_unit(benchmark, docs[:1], shots, tokenizer, max_length=longest - 1)
    assert exact.shots_used == (5,), "the last token of a continuation is never read"
    less = encode_unit(benchmark, docs[:1], shots, tokenizer, max_length=longest - 2)
    assert less.shots_used == (4,) and less.truncated == (False,)
    alone = encode_unit(benchmark, docs[:1], Shots(), tokenizer, max_length=4096)
    none = encode_unit(benchmark, docs[:1], shots, tokenizer, max_length=10)
    assert none.shots_used == (0,) and none.truncated == (True,)
    assert none.requests == alone.requests, "cutting from the left is the scorer's work"


def test_generation_leaves_room_for_the_reply() -> None:
    benchmark, docs, shots = demo_unit("repeat_words", 5)
    tokenizer = tiny_tokenizer()
    unit = encode_unit(benchmark, docs, shots, tokenizer, max_length=120)
    assert not unit.requests and len(unit.contexts) == len(unit.generations) == 4
    for context, generation, used in zip(unit.contexts, unit.generations, unit.shots_used, strict=True):
        assert len(context) + generation.max_new_tokens <= 120 and used < 5
    tight = encode_unit(benchmark, docs, shots, tokenizer, max_length=16)
    assert all(tight.truncated)
    for context, generation in zip(tight.contexts, tight.generations, strict=True):
        assert len(context) > 0 and generation.max_new_tokens > 0 and len(context) + generation.max_new_tokens <= 16


def test_chat_messages() -> None:
    benchmark, docs, shots = demo_unit("number_size", 2)
    tokenizer = tiny_tokenizer()
    turns = PromptWriter(benchmark, shots, tokenizer, ChatStyle(True, True, "Be brief.")).write(docs[0], 2, False)
    assert turns[0].context.count("<|user|>") == 3 and turns[0].context.count("<|assistant|>") == 3
    assert turns[0].context.startswith("<s><|system|>\nBe brief.\n<|user|>\n")
    assert [t.continuation for t in turns] == ["A", "B", "C", "D"], "the template ends the line: no blank before"
    one = PromptWriter(benchmark, shots, tokenizer, ChatStyle(True, False)).write(docs[0], 2, False)
    assert one[0].context.count("<|user|>") == 1 and shots.render(2) in one[0].context
    unit = encode_unit(benchmark, docs, shots, tokenizer, max_length=4096, chat_template=True, system="Be brief.")
    assert unit.bos == "in the text" and unit.system == "system"
    assert all(r.context.count(0) == 1 for row in unit.requests for r in row)


def test_a_template_without_a_system_role_gets_its_text_in_the_first_message() -> None:
    benchmark = make("mmlu", 1)
    docs, shots = ask(benchmark)
    tokenizer = tiny_tokenizer(template=NO_SYSTEM)
    writer = PromptWriter(benchmark, shots, tokenizer, ChatStyle(True, True, "Be brief."))
    text = writer.write(docs[0], 1, False)[0].context
    assert writer.system_role == "merged"
    assert text.startswith(
        "<s><|user|>\nBe brief.\n\nThe following are multiple choice questions (with answers) about "
    )
    assert encode_unit(benchmark, docs, shots, tokenizer, max_length=4096, chat_template=True).system == "merged"


def test_no_chat_template_is_an_error() -> None:
    benchmark, docs, shots = demo_unit("number_size", 0)
    tokenizer: Any = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="remove chat_template: true"):
        encode_unit(benchmark, docs, shots, tokenizer, max_length=512, chat_template=True)


def test_a_system_message_without_chat_template_comes_first() -> None:
    benchmark, docs, shots = demo_unit("number_size", 0)
    writer = PromptWriter(benchmark, shots, tiny_tokenizer(), ChatStyle(system="Be brief."))
    assert writer.write(docs[0], 0, False)[0].context == "Be brief.\n\n" + docs[0].questions[0]
