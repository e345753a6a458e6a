"""Encoding in parts gives the tokens of the whole text, and unsuitable tokenizers are detected."""

import json
from typing import Any

import pytest
from benchmark_samples import SAMPLES
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llmjobs.benchmarks.prompting import Encoder, Text

CORPUS = json.dumps(SAMPLES, ensure_ascii=False)


def trained(raw: Tokenizer, **how: Any) -> Any:
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, special_tokens=["<unk>", "<s>"], **how)
    raw.train_from_iterator([CORPUS, "of the of the of the " * 200], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>")


def sentencepiece(*, prepend: bool = False) -> Any:
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    if prepend:
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        return trained(raw)
    raw.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    return trained(raw)


def superwords() -> Any:
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return trained(raw)


TOKENIZERS = {"byte-level": tiny_tokenizer(), "no BOS": tiny_tokenizer(bos=False), "SentencePiece": sentencepiece()}
words = st.lists(
    st.sampled_from(["Which", "bird", "runs?", "12", "é", "\n", "\n\n", "A.", "  ", "don't", "of", "the", "-", "X_y"]),
    min_size=1,
    max_size=12,
).map(" ".join)


def wholly(tokenizer: Any, texts: list[list[Text]]) -> Any:
    encoder = Encoder(tokenizer)
    encoder.in_parts = False
    return encoder.encode(texts)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(shared=words, own=st.lists(words, min_size=3, max_size=5), options=st.lists(words, min_size=1, max_size=3))
def test_parts_give_the_tokens_of_the_whole(name: str, shared: str, own: list[str], options: list[str]) -> None:
    docs = [[Text(f"{shared}\n\n{question}\nAnswer:", f" {option}") for option in options] for question in own]
    encoder = Encoder(TOKENIZERS[name])
    assert encoder.encode(docs) == wholly(TOKENIZERS[name], docs)
    assert encoder.in_parts


def test_tokens_that_reach_over_a_blank_are_noticed() -> None:
    tokenizer = superwords()
    assert any("fĠt" in token for token in tokenizer.get_vocab())
    assert not Encoder(tokenizer).in_parts


def test_a_normalizer_that_marks_every_beginning_is_noticed() -> None:
    tokenizer = sentencepiece(prepend=True)
    docs = [[Text(f"Question: Which bird runs, number {n}?\nAnswer:", " of the")] for n in range(4)]
    encoder = Encoder(tokenizer)
    assert encoder.encode(docs) == wholly(tokenizer, docs)
    assert not encoder.in_parts


def test_shared_parts_are_encoded_once() -> None:
    class Counting:
        def __init__(self, real: Any) -> None:
            self.real, self.chars = real, 0

        def __call__(self, text: Any, **how: Any) -> Any:
            self.chars += len(text) if isinstance(text, str) else sum(map(len, text))
            return self.real(text, **how)

        def decode(self, token_ids: Any) -> Any:
            return self.real.decode(token_ids)

        def get_vocab(self) -> Any:
            return self.real.get_vocab()

        def apply_chat_template(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    shots = "These are the worked examples of this unit. " * 50
    docs = [[Text(f"{shots}\n\nWhich is number {n}?\nAnswer:", f" {x}") for x in "ABCD"] for n in range(100)]
    counting = Counting(tiny_tokenizer())
    Encoder(counting).encode(docs)
    assert counting.chars < 40_000 < 100 * 5 * len(shots)
