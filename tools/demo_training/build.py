"""Writes the demo benchmark's data files and the models' tokenizer files (docs/demo.md)."""

import json
from pathlib import Path

from demo_training.rules import RULES
from demo_training.tokenizer import build_tokenizer, save_tokenizer
from demo_training.world import DEV_ROWS, TEST_ROWS, draw_distinct
from llmjobs.demo import DATA, DEMO_MODELS

SEED = 2026
MAX_LENGTH = 2048


def write_data(folder: Path) -> None:
    """Write `{subject}_{test,dev}.jsonl` for every subject; the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    for subject in RULES:
        for split, count in (("test", TEST_ROWS), ("dev", DEV_ROWS)):
            questions = draw_distinct(subject, split, count, SEED)
            lines = [json.dumps(question.row(), ensure_ascii=False) + "\n" for question in questions]
            (folder / f"{subject}_{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Write everything that needs no training."""
    write_data(DATA)
    tokenizer = build_tokenizer()
    for folder in DEMO_MODELS.values():
        save_tokenizer(tokenizer, folder, MAX_LENGTH)
    print(f"{len(RULES)} subjects in {DATA.name}/, vocabulary {tokenizer.get_vocab_size()}")


if __name__ == "__main__":
    main()
