"""The demo models' tokenizer: bytes, a few merges, and each word of the demo world as one token. No torch.

Lossless on any text: a piece that is not a known word falls back to merged bytes.
"""

import json
import re
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from demo_training.rules import RULES
from demo_training.world import draw
from llmjobs.demo import conversation, words
from llmjobs.demo.words import prompt

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIALS = (PAD, BOS, EOS, SYSTEM, USER, ASSISTANT, END)
MERGES = 64
PIECE = r"\r?\n|'s| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def demo_texts() -> list[str]:
    """Seeded texts in which every word of the demo world comes up."""
    rng = Random("tokenizer")
    texts = [
        " ".join(("", *group))
        for group in (
            words.common_words(),
            words.MONTHS,
            words.LANDS,
            words.FOODS,
            words.CREATURES,
            words.NAMES,
            words.COLOURS,
            words.CITIES,
            words.THINGS,
            words.COUNTED,
            words.DOGS,
            map(str, range(100)),
            conversation.SYSTEMS,
            (conversation.NOTED, conversation.INSTRUCTION, conversation.CLOSING, "A B C D"),
        )
    ]
    texts += [f" {line}" for pair in conversation.SMALL_TALK for line in pair]
    for subject in sorted(RULES):
        questions = [draw(subject, "train", rng) for _ in range(200)]
        texts += [prompt(q.question, q.choices) + q.continuation for q in questions]
        texts += [f" {q.question}" for q in questions]
    for i in range(300):
        texts += [f" {turn.text}" for turn in conversation.conversation(f"tokenizer-{i}", "train", 24, 6)]
    return texts


def _with_words(tokenizer: Tokenizer, texts: list[str]) -> Tokenizer:
    """The trained bytes and merges, and every piece of the texts as one token on top (`ignore_merges`)."""
    state = json.loads(tokenizer.to_str())
    vocab: dict[str, int] = state["model"]["vocab"]
    splitter = tokenizer.pre_tokenizer
    pieces = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    numbers = {form for n in range(100) for form in (str(n), f"Ġ{n}")}
    for piece in sorted(pieces | numbers):
        vocab.setdefault(piece, len(vocab))
    state["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(state))


def build_tokenizer() -> Tokenizer:
    """The tokenizer, made from the demo texts alone; the same each time. BOS is put in front by default."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(SPECIALS) + len(alphabet) + MERGES,
        show_progress=False,
        initial_alphabet=sorted(alphabet),
        special_tokens=list(SPECIALS),
    )
    texts = demo_texts()
    tokenizer.train_from_iterator([re.sub(r"\d", "", text) for text in texts], trainer)
    tokenizer = _with_words(tokenizer, texts)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIALS.index(BOS))]
    )
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of one token. Raises KeyError where the vocabulary lacks it."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`; `max_length` in tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT, END],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
