"""Generated pages are up to date, and the schema describes each key."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from llmjobs.manifest import Manifest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def load(name: str) -> ModuleType:
    """Import a script of ``docs/`` without running it."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("script", "page", "write"),
    [
        ("make_manifest", "manifest.md", "render"),
        ("make_models", "models.md", "render"),
        ("make_architecture", "architecture.svg", "draw"),
        ("make_statistics", "statistics.md", "render"),
    ],
)
def test_the_page_is_what_its_script_writes(script: str, page: str, write: str) -> None:
    assert getattr(load(script), write)() == (DOCS / page).read_text(encoding="utf-8"), "make docs"


def test_every_script_is_tested() -> None:
    assert {p.stem for p in DOCS.glob("make_*.py")} == {
        "make_manifest",
        "make_models",
        "make_architecture",
        "make_statistics",
    }


def sections() -> dict[str, dict[str, Any]]:
    whole = Manifest.model_json_schema()
    return {"Manifest": whole, **whole["$defs"]}


def test_every_key_says_what_it_does() -> None:
    silent = [
        f"{name}.{key}"
        for name, section in sections().items()
        for key, found in section.get("properties", {}).items()
        if not found.get("description")
    ]
    assert not silent, f"write a docstring below each field: {silent}"


def test_the_reference_has_every_key_of_every_section() -> None:
    made = load("make_manifest")
    told = {model.__name__ for _, model in made.SECTIONS}
    assert told == {name for name, section in sections().items() if "properties" in section}
    page = made.render()
    for name, section in sections().items():
        for key in section.get("properties", {}):
            assert f"| `{key}` |" in page, f"{name}.{key}"


def test_models_of_the_manifests_are_all_in_the_table() -> None:
    made = load("make_models")
    text = made.FACTS.read_text(encoding="utf-8")
    for manifest, ids, _ in made.manifest_models():
        for one in ids:
            assert f": {one}\n" in text, f"{manifest}: {one} is not in docs/models.yaml"


def test_manifests_say_what_they_download() -> None:
    made = load("make_models")
    facts = yaml.safe_load(made.FACTS.read_text(encoding="utf-8"))
    models = [model for group in facts["groups"] for model in group["models"]]
    known = {model["instruct"]: model for model in models if "instruct" in model} | {one["id"]: one for one in models}
    for manifest, ids, _ in made.manifest_models():
        total = sum(made.download_bytes(known[one]) for one in ids)
        said = re.search(r"[Aa]bout ([\d.]+) GB", (made.MANIFESTS / manifest).read_text(encoding="utf-8"))
        assert said and abs(float(said[1]) - total / 1e9) < 0.5, f"{manifest}: {total / 1e9:.1f} GB"


def test_a_wrong_count_of_parameters_is_refused() -> None:
    made = load("make_models")
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = {"id": "maker/tiny", "parameters": 1, "licence": "", "config": config}
    with pytest.raises(ValueError, match="parameters computed, 1 published"):
        made.rows_of(model)
