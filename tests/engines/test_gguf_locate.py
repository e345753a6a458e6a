"""Where a GGUF file is: paths, files of a repository, the stores of Ollama and LM Studio."""

import json
from pathlib import Path

import pytest

from llmjobs.engines.llama_cpp.locate import choose, first_part, hub_name, local_path, locate
from llmjobs.errors import ModelError
from llmjobs.manifest.models import ModelSpec

NAMES = [
    "README.md",
    "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
    "Llama-3.2-1B-Instruct-Q4_K_S.gguf",
    "Llama-3.2-1B-Instruct-Q8_0.gguf",
    "Llama-3.2-1B-Instruct-f16.gguf",
    "mmproj-Llama-3.2-f16.gguf",
    "Q2_K/Llama-3.2-1B-Instruct-Q2_K-00001-of-00002.gguf",
    "Q2_K/Llama-3.2-1B-Instruct-Q2_K-00002-of-00002.gguf",
]


def spec(model: str) -> ModelSpec:
    """A model that llama.cpp would run."""
    return ModelSpec.model_validate({"id": model, "engine": "llama.cpp"})


def test_names_on_the_hub() -> None:
    assert hub_name("owner/Name-GGUF") == hub_name("hf.co/owner/Name-GGUF")
    found = hub_name("owner/Name-GGUF:Q4_K_M")
    assert found is not None and (found.repo, found.which) == ("owner/Name-GGUF", "Q4_K_M")
    assert hub_name("model.gguf") is None


@pytest.mark.parametrize(
    ("which", "file"),
    [
        ("Q4_K_M", NAMES[1]),
        ("q8_0", NAMES[3]),
        ("F16", NAMES[4]),
        ("Llama-3.2-1B-Instruct-Q4_K_S.gguf", NAMES[2]),
        ("Q2_K", NAMES[6]),
        ("Q2_K/Llama-3.2-1B-Instruct-Q2_K-00001-of-00002.gguf", NAMES[6]),
    ],
)
def test_one_file_of_a_repository(which: str, file: str) -> None:
    assert choose(spec(f"o/n:{which}"), NAMES, which)[0] == file


def test_all_parts_are_chosen() -> None:
    assert choose(spec("o/n:Q2_K"), NAMES, "Q2_K") == NAMES[6:]


def test_none_several_or_no_files_are_one_line() -> None:
    with pytest.raises(ModelError, match="has no GGUF file Q5_K_M; it has Llama"):
        choose(spec("o/n:Q5_K_M"), NAMES, "Q5_K_M")
    with pytest.raises(ModelError, match="has several GGUF files; name one as o/n:NAME"):
        choose(spec("o/n"), NAMES, None)
    with pytest.raises(ModelError, match="has no GGUF files; use another repository, often o/n-GGUF"):
        choose(spec("o/n"), ["config.json"], None)


def test_the_only_file_needs_no_name() -> None:
    assert choose(spec("o/n"), NAMES[:2], None) == [NAMES[1]]


def test_a_path_is_hashed(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF one")
    first = locate(spec(str(path)))
    assert first.is_local and first.source == str(path)
    path.write_bytes(b"GGUF other")
    assert str(locate(spec(str(path))).revision).startswith("sha256:")
    assert locate(spec(str(path))).revision != first.revision
    assert first_part(first) == path


def test_a_folder_with_one_file_and_paths_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert local_path(spec(str(tmp_path))) == tmp_path / "m.gguf"
    with pytest.raises(ModelError, match=r"there is no file \./x\.gguf"):
        local_path(spec("./x.gguf"))
    with pytest.raises(ModelError, match="there is no file"):
        local_path(spec("llama3"))
    assert local_path(spec("owner/name:Q4_K_M")) is None


def test_a_model_of_ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    blob = tmp_path / "blobs" / "sha256-abc"
    blob.parent.mkdir()
    blob.write_bytes(b"GGUF")
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:t"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:abc"},
    ]
    for name in ("registry.ollama.ai/library/llama3.2/1b", "registry.ollama.ai/someone/tuned/latest"):
        manifest = tmp_path / "manifests" / name
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps({"layers": layers}))
    assert local_path(spec("ollama:llama3.2:1b")) == blob
    assert local_path(spec("ollama:someone/tuned")) == blob
    with pytest.raises(ModelError, match="has no qwen; it has llama3.2, tuned; run 'ollama pull qwen'"):
        local_path(spec("ollama:qwen"))
    blob.unlink()
    with pytest.raises(ModelError, match="lacks the file of llama3.2:1b"):
        local_path(spec("ollama:llama3.2:1b"))
    manifest.write_text("{}")
    with pytest.raises(ModelError, match="cannot be read; run 'ollama pull someone/tuned' again"):
        local_path(spec("ollama:someone/tuned"))


def test_a_model_of_lm_studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTUDIO_MODELS", str(tmp_path))
    folder = tmp_path / "owner" / "Name-GGUF"
    folder.mkdir(parents=True)
    for kind in ("Q4_K_M", "Q8_0"):
        (folder / f"name-{kind}.gguf").write_bytes(b"GGUF")
    assert local_path(spec("lmstudio:owner/Name-GGUF:Q8_0")) == folder / "name-Q8_0.gguf"
    with pytest.raises(ModelError, match="several GGUF files"):
        local_path(spec("lmstudio:owner/Name-GGUF"))
    with pytest.raises(ModelError, match="LM Studio's store has no other/thing"):
        local_path(spec("lmstudio:other/thing"))
    with pytest.raises(ModelError, match="is not a name in LM Studio's store"):
        local_path(spec("lmstudio:thing"))
