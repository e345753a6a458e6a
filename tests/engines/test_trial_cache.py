"""Results of trials are kept, and never used for anything else than they were made for."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmjobs.engines import trial_cache
from llmjobs.engines.trial_cache import Known

KEY: dict[str, Any] = {"id": "a", "revision": "sha256:1", "device": "cpu", "dtype": "float32", "threads": 2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMJOBS_CACHE", str(tmp_path))
    return tmp_path


def test_what_was_kept_is_found_again_beside_what_was_there() -> None:
    assert Known(**KEY).get("probe") is None
    Known(**KEY).put("probe", {"path": "shared"})
    Known(**KEY).put("load", {"load_s": 3.0})
    assert Known(**KEY).get("probe") == {"path": "shared"}
    assert Known(**KEY).get("load") == {"load_s": 3.0}


@pytest.mark.parametrize("change", [{"revision": "sha256:2"}, {"threads": 3}, {"dtype": "bfloat16"}, {"id": "b"}])
def test_another_model_or_setting_is_another_entry(change: dict[str, Any]) -> None:
    Known(**KEY).put("probe", {"path": "shared"})
    assert Known(**KEY | change).get("probe") is None


@pytest.mark.parametrize("what", ["describe_machine", "engine_digest"])
def test_another_machine_or_build_is_another_entry(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    Known(**KEY).put("probe", {"path": "shared"})
    other = {"machine": "another"} if what == "describe_machine" else "0123"
    monkeypatch.setattr(trial_cache, what, lambda: other)
    assert Known(**KEY).get("probe") is None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'{"found": {"probe": {"path": "plain"}}}', b"\xff\xfe", b"[" * 100_000,
        b'{"for": {}, "found": {"probe": {"path": "plain"}}}',
    ],
    ids=["empty", "torn", "list", "null", "for nothing", "no text", "deep", "for another"],
)  # fmt: skip
def test_a_damaged_or_foreign_entry_is_ignored_and_replaced(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    entry = Known(**KEY)
    entry.put("probe", {"path": "shared"})
    entry.path.write_bytes(content)
    with caplog.at_level("INFO", logger="llmjobs.engines.trial_cache"):
        assert Known(**KEY).get("probe") is None
    assert len(caplog.records) == 1
    entry.put("probe", {"path": "shared"})
    assert json.loads(entry.path.read_text())["for"]["id"] == "a"
    assert Known(**KEY).get("probe") == {"path": "shared"}


def test_an_entry_of_the_right_name_with_another_key_is_foreign() -> None:
    entry, other = Known(**KEY), Known(**KEY | {"threads": 8})
    other.put("probe", {"path": "plain"})
    entry.path.write_bytes(other.path.read_bytes())
    assert Known(**KEY).get("probe") is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMJOBS_CACHE", str(tmp_path / "file"))
    entry = Known(**KEY)
    entry.put("probe", {"path": "shared"})
    assert entry.get("probe") is None
