"""The JSON schema of a manifest as people write it, short forms included: an editor marks only what is wrong."""

from typing import Any

from llmjobs.manifest.schema import Manifest

BY_TEXT = ("ModelSpec", "JudgeSpec", "BenchmarkSpec", "ImportedAnswers")
"""Sections that a text alone may stand for (``- meta-llama/Llama-3.2-1B``)."""


def json_schema() -> dict[str, Any]:
    """JSON schema of a manifest, for editors."""
    whole = Manifest.model_json_schema()
    sections = whole["$defs"]
    whole["required"].remove("name")  # else the file's name
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
    """One value stands for a list of one."""
    about = {key: found[key] for key in ("description", "default", "title") if key in found}
    return about | {"anyOf": [{key: found[key] for key in found if key not in about}, found["items"]]}


def _name_or_file(section: dict[str, Any]) -> None:
    """Take a benchmark's name from its file; one subject stands for a list of one."""
    section["required"].remove("name")
    section["anyOf"] = [{"required": ["name"]}, {"required": ["file"]}]
    section["properties"]["subjects"] = _one_or_list(section["properties"]["subjects"])


def _judges(sections: dict[str, Any]) -> None:
    """Take ``model:`` for ``id:``, ``judge:`` for a list of one, and truth values, as YAML reads ``on`` and ``off``."""
    judge, bench = sections["JudgeSpec"], sections["MTBenchSection"]["properties"]
    judge["properties"]["model"] = judge["properties"]["id"]
    judge["required"].remove("id")
    judge["anyOf"] = [{"required": ["id"]}, {"required": ["model"]}]
    bench["judge"] = _one_or_list(bench["judges"])
    bench["history"] = {"anyOf": [bench["history"], {"type": "boolean"}]}
