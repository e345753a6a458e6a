"""The questions of ``scoring.py`` as token lists, with a tokenizer trained on other text."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llmjobs.benchmarks.scoring_requests import Request

Doc = list[Request]
Encode = Callable[[str], list[int]]
LETTERS = "ABCD"
FEW_SHOT = "The following are multiple choice questions (with answers) about {}.\n\n"
HELLASWAG_UNIT = 40
"""Docs of HellaSwag between two turns of the contenders."""
SHOTS = {"mmlu-5shot": 5, "mmlu-0shot": 0}


def read_units(
    data: Path, task: str, subjects: Sequence[str] | None, questions: int | None, encode: Encode
) -> list[list[Doc]]:
    """Return a unit of docs a subject; ``questions`` takes that many of each, evenly spread (None: all)."""
    if task == "hellaswag":
        docs = hellaswag_docs(data, questions, encode)
        return [docs[first : first + HELLASWAG_UNIT] for first in range(0, len(docs), HELLASWAG_UNIT)]
    tests = sorted((data / "mmlu" / "test").glob("*_test.csv"))
    names = subjects or [path.stem.removesuffix("_test") for path in tests]
    return [mmlu_unit(data, name, SHOTS[task], questions, encode) for name in names]


def mmlu_unit(data: Path, subject: str, shots: int, questions: int | None, encode: Encode) -> list[Doc]:
    """Return a subject's docs: letters as options, as lm-eval's ``mmlu`` has them."""
    dev = read_csv(data / "mmlu" / "dev" / f"{subject}_dev.csv")[:shots]
    test = read_csv(data / "mmlu" / "test" / f"{subject}_test.csv")
    step = max(1, len(test) // questions) if questions else 1
    header = FEW_SHOT.format(subject.replace("_", " "))
    prefix = header + "".join(question(row, answered=True) for row in dev)
    letters = [tuple(encode(f" {letter}")) for letter in LETTERS]
    contexts = [tuple(encode(prefix + question(row, answered=False))) for row in test[::step][:questions]]
    return [[Request(context, letter) for letter in letters] for context in contexts]


def hellaswag_docs(data: Path, questions: int | None, encode: Encode) -> list[Doc]:
    """Return docs of one context and four endings; a row is six lines: context, label, endings."""
    lines = (data / "hellaswag" / "hellaswag_val_full.txt").read_text(encoding="utf-8").splitlines()
    docs = []
    step = max(1, len(lines) // 6 // questions) if questions else 1
    for first in range(0, len(lines), 6 * step)[:questions]:
        context = tuple(encode(lines[first]))
        endings = lines[first + 2 : first + 6]
        docs.append([Request(context, tuple(encode(f" {ending}"))) for ending in endings])
    return docs


def question(row: Sequence[str], answered: bool) -> str:
    """Write a question as lm-eval's ``mmlu`` does."""
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, row[1:5], strict=True))
    return f"{row[0].strip()}\n{options}\nAnswer:" + (f" {LETTERS[int(row[5])]}\n\n" if answered else "")


def read_csv(path: Path) -> list[list[str]]:
    """Return the rows below the header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def train_tokenizer(data: Path, vocabulary: int) -> Tokenizer:
    """Train byte-level BPE on HellaSwag and MMLU's dev rows; digits stand alone, as in Llama's."""
    texts = (data / "hellaswag" / "hellaswag_val_full.txt").read_text(encoding="utf-8").splitlines()
    dev = sorted((data / "mmlu" / "dev").glob("*.csv"))
    texts += ["\n".join(row) for path in dev for row in read_csv(path)]
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encoder(tokenizer: Tokenizer) -> Encode:
    """Return what turns text into token ids."""

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text).ids)

    return encode
