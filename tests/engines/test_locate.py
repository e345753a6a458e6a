from pathlib import Path

import pytest

from llmjobs.engines import locate as places
from llmjobs.engines.transformers import locate as locating
from llmjobs.errors import ModelError
from llmjobs.manifest.models import ModelSpec


def test_a_file_of_another_user_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    locked = tmp_path / "model.safetensors"

    def denied(*_: object) -> str:
        raise PermissionError(13, "Permission denied", str(locked))

    monkeypatch.setattr(locating, "check_folder", lambda *_: None)
    monkeypatch.setattr(locating, "folder_hash", denied)
    with pytest.raises(ModelError, match=f"m: {locked}: Permission denied; let this user read it: chmod a\\+r"):
        locating.locate(ModelSpec(id=str(tmp_path), name="m"))


def test_files_are_a_folders_or_what_the_hubs_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []
    monkeypatch.setattr(places, "cached_snapshot", lambda *which: asked.append(which) or tmp_path)
    assert places.files_of(places.Located("some/folder", None, is_local=True)) == Path("some/folder")
    assert places.files_of(places.Located("a/model", "c0ffee", is_local=False)) == tmp_path
    assert asked == [("model", "a/model", "c0ffee")]
