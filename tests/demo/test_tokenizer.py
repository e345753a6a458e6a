"""The tokenizer: lossless on any text, letters and numbers one token each, BOS once, a chat template."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from demo_training.build import MAX_LENGTH
from demo_training.measure import chat_text
from demo_training.tokenizer import BOS, SPECIALS, build_tokenizer, save_tokenizer
from llmjobs import demo
from llmjobs.demo.conversation import conversation

TOKENIZER: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(demo.DEMO_MODELS["demo-base"])


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_round_trip_of_any_text(text: str) -> None:
    if any(token in text for token in SPECIALS):
        return
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert TOKENIZER.decode(ids) == text
    assert len(ids) <= len(text.encode())


@pytest.mark.parametrize("piece", [" A", " B", " C", " D", "\n", "Answer", " 0", " 7", " 42", " 99", " Ana", " cat"])
def test_single_tokens(piece: str) -> None:
    assert len(TOKENIZER(piece, add_special_tokens=False).input_ids) == 1


def test_context_and_continuation_join_without_a_merge() -> None:
    context, continuation = "Which is it?\nA. a\nB. b\nC. c\nD. d\nAnswer:", " C"
    whole = TOKENIZER(context + continuation).input_ids
    assert whole == TOKENIZER(context).input_ids + TOKENIZER(continuation, add_special_tokens=False).input_ids


def test_bos_is_added_once_by_default_and_stands_in_the_template() -> None:
    assert TOKENIZER("Hello.").input_ids.count(TOKENIZER.bos_token_id) == 1
    ids = TOKENIZER.apply_chat_template([{"role": "user", "content": "Hello."}], return_dict=True).input_ids
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids.count(TOKENIZER.bos_token_id) == 1


def test_template_grows_at_its_end_and_is_the_text_used_in_training() -> None:
    turns = conversation(3, "test", 6, 2)
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    texts = [TOKENIZER.apply_chat_template(messages[:i], tokenize=False) for i in range(1, len(messages) + 1)]
    assert all(after.startswith(before) for before, after in zip(texts, texts[1:], strict=False))
    asked = TOKENIZER.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    assert asked == chat_text(turns[:-1])
    assert texts[-1].startswith(asked)
    assert asked.startswith(BOS)


def test_build_gives_the_committed_files(tmp_path: Path) -> None:
    save_tokenizer(build_tokenizer(), tmp_path, MAX_LENGTH)
    for folder in demo.DEMO_MODELS.values():
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), f"{folder.name}/{name}"
