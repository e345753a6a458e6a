"""Tokenizers that hang, eat memory or panic: each ends in one line, and nothing of this process is harmed."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.transformers import tokenizer_trial
from llmjobs.engines.transformers.load import load_tokenizer
from llmjobs.engines.transformers.tokenizer_trial import bound_tokenizer
from llmjobs.errors import ModelError
from llmjobs.manifest.models import ModelSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_MODELS["demo-tiny"], tmp_path / "model"))


def spoilt(folder: Path, **parts: Any) -> str:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load_tokenizer(ModelSpec(id=str(folder), name="m"))
    assert time.monotonic() - began < 90
    line = str(caught.value)
    assert line.startswith("m: ") and "tokenizer.json" in line and "use the tokenizer files" in line
    assert "Panic" not in line
    return line


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize("pattern", ["(a+)+$", "(?:a|aa)+$"])
def test_a_catastrophic_expression(folder: Path, pattern: str) -> None:
    spoilt(folder, pre_tokenizer=split(pattern))


def multiplied(times: int) -> dict[str, Any]:
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    return {"type": "Sequence", "normalizers": [replace] * times}


def test_a_normalizer_that_multiplies_its_text(folder: Path) -> None:
    spoilt(folder, normalizer=multiplied(6))


def test_a_decoder_that_multiplies_its_text(folder: Path) -> None:
    replace = {"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 1000}
    spoilt(folder, decoder={"type": "Sequence", "decoders": [replace] * 4})


def test_a_file_that_is_no_tokenizer(folder: Path) -> None:
    spoilt(folder, model={"type": "Nonsense"})


def test_a_tokenizer_is_tried_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_tokenizer(ModelSpec(id=str(folder), name="m"))
    monkeypatch.setattr(tokenizer_trial.subprocess, "Popen", None)
    load_tokenizer(ModelSpec(id=str(folder), name="m"))


class PanicException(BaseException):
    """As the tokenizers library raises it: no ``Exception``."""


def test_a_panic_while_it_is_used_is_one_line() -> None:
    class Tokenizer:
        def _encode_plus(self, _: str) -> None:
            raise PanicException("retry-limit-in-match over")

    with pytest.raises(ModelError, match="m: its tokenizer crashed on a text"):
        bound_tokenizer(Tokenizer(), "m")._encode_plus("x")
