"""How right a demo model is: on questions of the benchmark, and at recalling what a conversation said before.

Everything is read off one forward a batch: greedy decoding gives a text exactly where each of its tokens is the most
likely one after those before it.
"""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from demo_training.tokenizer import ASSISTANT, BOS, END, SYSTEM, USER
from demo_training.world import Question
from llmjobs.demo import DEMO_MODELS, subjects
from llmjobs.demo import rows as demo_rows
from llmjobs.demo.conversation import Kind, Turn, conversation
from llmjobs.demo.words import LETTERS, STOP, prompt

BATCH_ROWS = 25
KINDS: tuple[Kind, ...] = ("recall", "corrected")
MARKS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


def chat_text(turns: Sequence[Turn]) -> str:
    """The chat template's text of some turns, ready for the next reply; a test holds it equal to the template."""
    said = [f"{MARKS[turn.role]} {turn.text.strip()}{END}" for turn in turns]
    return "".join([BOS, *said, ASSISTANT])


@torch.no_grad()
def _logits(model: LlamaForCausalLM, rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    logits: torch.Tensor = model(input_ids=ids).logits
    return logits


def _greedy_hits(model: LlamaForCausalLM, pairs: list[tuple[list[int], list[int]]]) -> list[bool]:
    hits = []
    for start in range(0, len(pairs), BATCH_ROWS):
        batch = pairs[start : start + BATCH_ROWS]
        best = _logits(model, [context + target for context, target in batch]).argmax(-1)
        for row, (context, target) in zip(best.tolist(), batch, strict=True):
            hits.append(row[len(context) - 1 : len(context) - 1 + len(target)] == target)
    return hits


def answers(model: LlamaForCausalLM, tokenizer: Tokenizer, questions: Sequence[Question]) -> list[int | bool]:
    """For each question, zero-shot: the index of the likeliest letter, or whether the greedy text is the answer."""
    given: list[int | bool] = []
    letters = [tokenizer.encode(f" {letter}", add_special_tokens=False).ids[0] for letter in LETTERS]
    contexts = [tokenizer.encode(prompt(q.question, q.choices)).ids for q in questions]
    for start in range(0, len(questions), BATCH_ROWS):
        batch, ids = questions[start : start + BATCH_ROWS], contexts[start : start + BATCH_ROWS]
        if batch[0].choices:
            logits = _logits(model, ids)
            given += [int(logits[i, len(row) - 1, letters].argmax()) for i, row in enumerate(ids)]
        else:
            texts = [tokenizer.encode(q.continuation + STOP, add_special_tokens=False).ids for q in batch]
            given += _greedy_hits(model, list(zip(ids, texts, strict=True)))
    return given


def accuracy(model: LlamaForCausalLM, tokenizer: Tokenizer, questions: Sequence[Question]) -> float:
    """The share of questions answered right (letter by log-likelihood, or exact match); one subject at a time."""
    given = answers(model, tokenizer, questions)
    right = [g == q.answer if q.choices else bool(g) for g, q in zip(given, questions, strict=True)]
    return sum(right) / len(right)


def recall_cases(distance: int, count: int, split: str, seed: int, kind: Kind = "recall") -> list[list[Turn]]:
    """Conversations cut after the reply to a question about a fact told `distance` exchanges before."""
    cases = []
    for i in range(count):
        turns = conversation(f"{seed}-{i}", split, distance + 4, 2 + distance // 4, distance, kind)
        last = next(k for k, turn in enumerate(turns) if turn.kind == kind and turn.distance == distance)
        cases.append(turns[: last + 2])
    return cases


def recall(model: LlamaForCausalLM, tokenizer: Tokenizer, cases: Sequence[list[Turn]], history: bool = True) -> float:
    """The share of cases whose greedy reply is the reference reply; without history only the question is sent."""
    pairs = []
    for turns in cases:
        sent = turns[:-1] if history else turns[-2:-1]
        context = tokenizer.encode(chat_text(sent), add_special_tokens=False).ids
        pairs.append((context, tokenizer.encode(f" {turns[-1].text}{END}", add_special_tokens=False).ids))
    hits = _greedy_hits(model, pairs)
    return sum(hits) / len(hits)


def load_demo(name: str) -> tuple[LlamaForCausalLM, Tokenizer]:
    """A demo model and its tokenizer, ready to be measured."""
    folder = DEMO_MODELS[name]
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def stored_questions(subject: str) -> list[Question]:
    """The test questions of a subject as they stand in the data files."""
    return [
        Question(row["question"], row["answer"], tuple(row.get("choices", ()))) for row in demo_rows(subject, "test")
    ]


def main() -> None:
    """Print, in percent: accuracy by model and subject, then recall of `demo-base` by distance."""
    loaded = {name: load_demo(name) for name in DEMO_MODELS}
    print(f"| subject | {' | '.join(loaded)} |\n|---|{'--:|' * len(loaded)}")
    for subject in subjects():
        rates = [accuracy(*pair, stored_questions(subject)) for pair in loaded.values()]
        print(f"| {subject} | {' | '.join(f'{100 * rate:.0f}' for rate in rates)} |")
    print("\n| told … exchanges before | recalled | corrected | without history |\n|--:|--:|--:|--:|")
    for distance in (1, 2, 4, 8, 12, 16, 20, 25, 30):
        cases = {kind: recall_cases(distance, 100, "test", 1, kind) for kind in KINDS}
        rates = [recall(*loaded["demo-base"], cases[kind]) for kind in KINDS]
        rates.append(recall(*loaded["demo-base"], cases["recall"], history=False))
        print(f"| {distance} | {' | '.join(f'{100 * rate:.0f}' for rate in rates)} |")


if __name__ == "__main__":
    main()
