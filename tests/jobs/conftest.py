"""Fixtures of the job tests: a tiny random Llama, made-up MMLU rows."""

from pathlib import Path

import pytest
from random_llama import make_llama


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def mmlu_rows(tmp_path_factory) -> Path:
    """Made-up rows in the original CSV layout, two subjects."""
    folder = tmp_path_factory.mktemp("mmlu")
    for subject in ("astronomy", "business_ethics"):
        for split, count in (("dev", 5), ("test", 30)):
            (folder / split).mkdir(exist_ok=True)
            lines = [
                f'"{subject} {split} {n}: which, ""if any""?",one {n},two {n * 7},three,four,{"ABCD"[n * 7 % 4]}'
                for n in range(count)
            ]
            (folder / split / f"{subject}_{split}.csv").write_text("\n".join(lines) + "\n")
    return folder
