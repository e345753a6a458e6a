"""The embedded demo: a benchmark made by rule and three tiny models trained on it; tools/demo_training made them."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
DATA = FOLDER / "data"
DEMO_MODELS: dict[str, Path] = {name: FOLDER / "models" / name for name in ("demo-base", "demo-narrow", "demo-tiny")}
LEFT_OUT: dict[str, tuple[str, ...]] = {"demo-narrow": ("calendar_order", "far_country")}


def subjects() -> list[str]:
    """The subjects of the demo benchmark, sorted."""
    return sorted(path.name.removesuffix("_test.jsonl") for path in DATA.glob("*_test.jsonl"))


def rows(subject: str, split: str) -> list[dict[str, Any]]:
    """The rows of a subject: `question`, `answer`, and `choices` where it is multiple choice.

    Raises ValueError for a subject or split that is not there, naming those that are.
    """
    path = DATA / f"{subject}_{split}.jsonl"
    if subject not in subjects() or split not in ("dev", "test"):
        raise ValueError(f"{subject} {split}: not one of {', '.join(subjects())} with dev or test")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
