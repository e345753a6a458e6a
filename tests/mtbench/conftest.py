"""Studies that use the stand-in server."""

import json
from pathlib import Path

import pytest
import yaml

from llmjobs.calls.retry import RetryPolicy
from llmjobs.mtbench.questions import read_questions


@pytest.fixture(autouse=True)
def online(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Another try comes at once."""
    monkeypatch.setattr(RetryPolicy, "wait_s", lambda *_: 0.0)


@pytest.fixture
def imported(tmp_path) -> Path:
    """A model_answer file of somebody's agent: all questions, one of them failed."""
    path = tmp_path / "theirs.jsonl"
    lines = []
    for place, question in enumerate(read_questions("own")):
        turns = [f"Their answer {place}.{turn}." for turn in (1, 2)] if place else ["$ERROR$", "$ERROR$"]
        lines.append({"question_id": int(question.id), "model_id": "theirs", "choices": [{"index": 0, "turns": turns}]})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def study(tmp_path, imported):
    def write(url: str, **changes) -> Path:
        mtbench = {
            "limit": 1,
            "answers": [str(imported)],
            "judges": [{"endpoint": url, "model": "judge"}],
            "timeout_s": 5,
            "threads": 1,
        } | changes
        models = mtbench.pop("models", [{"id": "agent", "endpoint": url}])
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"models": models, "mtbench": mtbench}))
        return path

    return write
