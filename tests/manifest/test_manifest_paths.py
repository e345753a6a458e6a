"""Relative paths in every section: from the working folder first, then from the manifest's folder."""

from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from llmjobs.manifest import Manifest, load_manifest
from llmjobs.manifest.fields import DataPath, ModelId, OwnOrPath, QuestionsSource

MODEL = {"models": ["llmjobs/demo-base"]}
OWN = {"file": "here.csv", "question": "q", "answer": "a"}
CASES = {
    "eval.benchmarks.data": ({"eval": {"benchmarks": [{"name": "mmlu", "data": "here.csv"}]}}, 1),
    "eval.benchmarks.file": ({"eval": {"benchmarks": [OWN]}}, 1),
    "matrix.benchmarks.data": ({"matrix": {"benchmarks": [{"name": "mmlu", "data": "here.csv"}]}}, 1),
    "matrix.benchmarks.file": ({"matrix": {"benchmarks": OWN}}, 1),
    "mtbench.questions": ({"mtbench": {"questions": "here.csv"}}, 1),
    "mtbench.references": ({"mtbench": {"references": "here.csv"}}, 1),
    "mtbench.prompts": ({"mtbench": {"prompts": "here.csv"}}, 1),
    "mtbench.answers.file": ({"mtbench": {"answers": ["here.csv", {"file": "here.csv", "name": "b"}]}}, 2),
    "mtbench.judgments": ({"mtbench": {"judgments": ["here.csv"]}}, 1),
    "mtbench.votes": ({"mtbench": {"votes": ["here.csv", "here.csv"]}}, 2),
    "mtbench.judges.id": ({"mtbench": {"judge": {"model": "./here.csv"}}}, 1),
    "matrix.divergence.text": ({"matrix": {"precisions": ["fp32", "bf16"], "divergence": {"text": "here.csv"}}}, 1),
    "mtbench.judges.adapter": ({"mtbench": {"judge": {"model": "llmjobs/demo-base", "adapter": "./here.csv"}}}, 1),
    "models.adapter": ({"models": [{"id": "llmjobs/demo-base", "adapter": "./here.csv"}]}, 1),
    "models.id": ({"models": ["./here.csv"]}, 1),
}


def values_of(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for key, one in value.items() if key != "name" for text in values_of(one)]
    if isinstance(value, list):
        return [text for one in value for text in values_of(one)]
    return [value] if isinstance(value, str) else []


def mentions(annotation: object) -> bool:
    kinds = (DataPath, OwnOrPath, QuestionsSource, ModelId)
    return any(annotation == kind for kind in kinds) or any(mentions(one) for one in get_args(annotation))


def path_fields(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every field of the schema that is declared to be a path, as in CASES."""
    found = set()
    for name, annotation in model.__annotations__.items() if model.__module__ != "pydantic" else ():
        if mentions(annotation):
            found.add(f"{prefix}{name}")
        for section in sections(annotation):
            found |= path_fields(section, f"{prefix}{name}.")
    for parent in model.__bases__:
        if parent is not BaseModel and issubclass(parent, BaseModel):
            found |= path_fields(parent, prefix)
    return found


def sections(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for inner in get_args(annotation) for one in sections(inner)]


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "here.csv").write_text("q,a\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


def load(folder: Path, values: dict) -> Manifest:
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(MODEL | values))
    return load_manifest(path)


def test_every_path_of_the_schema_has_its_case():
    assert path_fields(Manifest) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_beside_the_manifest(study, name):
    values, times = CASES[name]
    found = values_of(load(study, values).model_dump(mode="json"))
    assert found.count(str(study / "here.csv")) == times
    assert "here.csv" not in found and "./here.csv" not in found


@pytest.mark.parametrize("name", CASES)
def test_the_working_folder_comes_first(study, name):
    Path("here.csv").write_text("q,a\n")
    found = values_of(load(study, CASES[name][0]).model_dump(mode="json"))
    assert str(study / "here.csv") not in found
    assert "here.csv" in found or "./here.csv" in found


def test_what_is_nowhere_stays_as_it_was_written(study):
    values = {"eval": {"benchmarks": [{"name": "mmlu", "data": "gone"}]}, "mtbench": {"votes": ["../gone"]}}
    found = load(study, values)
    assert (found.eval.benchmarks[0].data, found.mtbench.votes) == ("gone", ["../gone"])


def test_a_name_is_never_taken_for_a_file(study):
    for name in ("own", "Qwen", "hub:"):
        (study / name).mkdir()
    (study / "hub:a").mkdir()
    found = load(study, {"models": ["Qwen"], "mtbench": {"questions": "own", "prompts": "own"}})
    assert (found.models[0].id, found.mtbench.questions, found.mtbench.prompts) == ("Qwen", "own", "own")
    assert load(study, {"mtbench": {"questions": "hub:a"}}).mtbench.questions == "hub:a"


def test_an_absolute_path_and_a_long_one(study):
    there = str(study / "here.csv")
    assert load(study, {"mtbench": {"votes": [there]}}).mtbench.votes == [there]
    assert load(study, {"mtbench": {"votes": ["x" * 4000]}}).mtbench.votes == ["x" * 4000]
