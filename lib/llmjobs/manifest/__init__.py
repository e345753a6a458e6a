"""The manifest: read, overridden, validated once, written out with every default."""

from llmjobs.manifest.editor_schema import json_schema
from llmjobs.manifest.eval_section import BenchmarkSpec, EvalSection
from llmjobs.manifest.load import dump_manifest, load_manifest
from llmjobs.manifest.model_section import ModelSpec
from llmjobs.manifest.schema import Manifest

__all__ = [
    "BenchmarkSpec",
    "EvalSection",
    "Manifest",
    "ModelSpec",
    "dump_manifest",
    "json_schema",
    "load_manifest",
]
