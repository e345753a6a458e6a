"""The manifest: read, overridden, validated once, written out with every default."""

from llmjobs.manifest.eval import BenchmarkSpec, EvalSection
from llmjobs.manifest.load import dump_manifest, load_manifest
from llmjobs.manifest.models import ModelSpec
from llmjobs.manifest.schema import Manifest, json_schema

__all__ = [
    "BenchmarkSpec",
    "EvalSection",
    "Manifest",
    "ModelSpec",
    "dump_manifest",
    "json_schema",
    "load_manifest",
]
