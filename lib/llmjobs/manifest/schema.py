"""The whole manifest: one study with a section for each job, and its JSON schema for editors."""

import datetime
from typing import Any, Self

from pydantic import Field, model_validator

from llmjobs.manifest.chat import ChatSection, ConverseSection
from llmjobs.manifest.engine_names import engine_name
from llmjobs.manifest.eval import EvalSection
from llmjobs.manifest.fields import FileName, Section, one_of
from llmjobs.manifest.matrix import MatrixSection
from llmjobs.manifest.models import ModelSpec
from llmjobs.manifest.mtbench import MTBenchSection


class Manifest(Section):
    """A study: a list of models, and one section for each job to run on them."""

    name: FileName
    """Name of the run's folder inside the results folder."""
    description: str = ""
    """A short description, shown to readers."""
    date: datetime.date | None = None
    """The date that chat templates print as today's date in every prompt of the run. Default: the day on which the run
    was first started."""
    models: list[ModelSpec] = Field(min_length=1)
    """The models that every job uses. An id alone uses the defaults."""
    eval: EvalSection | None = None
    """Accuracy on benchmarks (`llmjobs eval`)."""
    chat: ChatSection | None = None
    """Settings of the chat agent (`llmjobs chat`, `llmjobs serve`)."""
    converse: ConverseSection | None = None
    """Scripted conversations (`llmjobs converse`)."""
    mtbench: MTBenchSection | None = None
    """MT-Bench (`llmjobs mtbench`)."""
    matrix: MatrixSection | None = None
    """Comparison of devices and precisions (`llmjobs matrix`)."""

    @model_validator(mode="after")
    def _distinct_models(self) -> Self:
        names = [m.name.lower() for m in self.models]
        if twice := next((m.name for m in self.models if names.count(m.name.lower()) > 1), None):
            raise ValueError(f"models: the name {twice!r} is used for two models; set a different name: for each")
        wants_gguf = self.matrix and next((one.name for one in self.matrix.rungs if one.gguf), None)
        if wants_gguf and not any(_has_gguf(model) for model in self.models):
            raise ValueError(
                f"matrix: precisions: {wants_gguf} needs the model's GGUF files; add gguf: to a model "
                "(OWNER/NAME-GGUF, a folder, or a path with *)"
            )
        for name in (self.converse.models if self.converse else None) or ():
            one_of("converse.models", name, [m.name for m in self.models])
        if self.eval and self.eval.stop:
            self.eval.stop.references({m.name: m.id for m in self.models})
        return self

    def named(self, names: list[str] | None) -> list[ModelSpec]:
        """The models of those names, in the manifest's order; all for None."""
        return [m for m in self.models if names is None or m.name in names]


def _has_gguf(model: ModelSpec) -> bool:
    return model.gguf is not None or engine_name(model.engine, model.id) == "llama.cpp"


# The JSON schema of a manifest as people write it, including short forms, so that an editor marks only errors.

BY_TEXT = ("ModelSpec", "JudgeSpec", "BenchmarkSpec", "ImportedAnswers")
"""Sections that can be written as a text (``- meta-llama/Llama-3.2-1B``)."""


def json_schema() -> dict[str, Any]:
    """JSON schema of a manifest, for editors."""
    whole = Manifest.model_json_schema()
    sections = whole["$defs"]
    whole["required"].remove("name")  # otherwise the file's name
    _name_or_file(sections["BenchmarkSpec"])
    _judges(sections)
    for name in ("ModelSpec", "JudgeSpec"):
        sections[name]["properties"]["thinking"]["anyOf"].append({"type": "boolean"})  # as YAML reads on and off
    for key, found in sections["MatrixSection"]["properties"].items():
        if found.get("type") == "array":
            sections["MatrixSection"]["properties"][key] = _one_or_list(found)
    for name in BY_TEXT:
        sections[name] = {"anyOf": [{"type": "string"}, sections[name]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "llmjobs manifest"} | whole


def _one_or_list(found: dict[str, Any]) -> dict[str, Any]:
    """Allow a single value instead of a list."""
    about = {key: found[key] for key in ("description", "default", "title") if key in found}
    return about | {"anyOf": [{key: found[key] for key in found if key not in about}, found["items"]]}


def _name_or_file(section: dict[str, Any]) -> None:
    """Allow a benchmark without a name if it has a file, and a single subject instead of a list."""
    section["required"].remove("name")
    section["anyOf"] = [{"required": ["name"]}, {"required": ["file"]}]
    section["properties"]["subjects"] = _one_or_list(section["properties"]["subjects"])


def _judges(sections: dict[str, Any]) -> None:
    """Allow ``model:`` for ``id:``, ``judge:`` for one judge, and booleans, as YAML reads ``on`` and ``off``."""
    judge, bench = sections["JudgeSpec"], sections["MTBenchSection"]["properties"]
    judge["properties"]["model"] = judge["properties"]["id"]
    judge["required"].remove("id")
    judge["anyOf"] = [{"required": ["id"]}, {"required": ["model"]}]
    bench["judge"] = _one_or_list(bench["judges"])
    bench["history"] = {"anyOf": [bench["history"], {"type": "boolean"}]}
