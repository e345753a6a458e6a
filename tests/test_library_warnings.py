"""A library's warning is shown once, however often the library repeats it; our own lines always."""

import logging
import warnings

import pytest

from llmjobs.library_warnings import _Once


def record(name: str, text: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, (), None)


def test_once_for_libraries_only() -> None:
    once = _Once()
    assert [once.filter(record("bitsandbytes.autograd", "cast")) for _ in range(3)] == [True, False, False]
    assert [once.filter(record("llmjobs.x", "cast")) for _ in range(2)] == [True, True]
    assert once.filter(record("transformers.x", "other"))
    assert [once.filter(record("transformers.x", "said", logging.INFO)) for _ in range(2)] == [True, True]


def test_pythons_warnings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmjobs import library_warnings

    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
    library_warnings._wrap_showwarning()
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning("again", UserWarning, "file", 1)
    assert shown == ["again"]
