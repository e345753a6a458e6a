"""Writes ``manifest.md``: every key of a manifest, from the schema (``make docs``). The texts are in the schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from llmjobs.manifest.chat import ChatSection, ConverseSection
from llmjobs.manifest.endpoint_limits import EndpointLimits, Price, SpendingLimit
from llmjobs.manifest.eval import BenchmarkSpec, EvalSection, StopRule
from llmjobs.manifest.matrix import DivergenceSection, MatrixSection
from llmjobs.manifest.models import ModelSpec
from llmjobs.manifest.mtbench import ImportedAnswers, JudgeSpec, MTBenchSection
from llmjobs.manifest.schema import Manifest

PAGE = Path(__file__).with_name("manifest.md")
SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The study", Manifest),
    ("models", ModelSpec),
    ("eval", EvalSection),
    ("eval.benchmarks", BenchmarkSpec),
    ("eval.stop", StopRule),
    ("matrix", MatrixSection),
    ("matrix.divergence", DivergenceSection),
    ("chat", ChatSection),
    ("converse", ConverseSection),
    ("mtbench", MTBenchSection),
    ("mtbench.judges", JudgeSpec),
    ("mtbench.answers", ImportedAnswers),
    ("endpoints", EndpointLimits),
    ("spending", SpendingLimit),
    ("price", Price),
)
HEAD = """<!-- Generated from the schema by docs/make_manifest.py; edit the texts there, then run: make docs -->
# The manifest

One YAML file describes a study: a list of `models:`, and a section for each job that you want to run. This page lists
every key with its allowed values, its default and its meaning. `llmjobs manifest --schema` prints the same as a JSON
schema for your editor, and `llmjobs manifest FILE` prints a manifest with all defaults filled in.

```yaml
models:
  - Qwen/Qwen2.5-0.5B              # an id alone is short for {id: …}
  - id: Qwen/Qwen2.5-7B
    quantization: 4bit
eval:
  benchmarks:
    - arc_easy                     # a name alone is short for {name: …}
    - name: mmlu
      subjects: [astronomy, business_ethics]
      num_fewshot: 5
```

- If a key is unknown or given twice, or a value is not allowed, you get one line with the file, the line, the allowed
  values and the closest name. The exit code is 2.
- `--set 'models[1].quantization=none'` changes one value for one call. `manifest.yaml` in the run's folder shows the
  values that were used.
- Relative paths start at the working folder. If nothing is there, they start at the folder of the manifest.
"""


def render() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(title, model) for title, model in SECTIONS)])


def _section(title: str, model: type[BaseModel]) -> str:
    heading = title if title == "The study" else f"`{title}`"
    about = " ".join((model.__doc__ or "").replace("``", "`").split())
    inherited = ModelSpec.model_fields if model is JudgeSpec else {}
    more = "\n\nIt also takes every key of [`models`](#models)." if inherited else ""
    rows = [row for name, row in _rows(model) if name not in inherited]
    head = "| key | allowed values | default | meaning |\n|---|---|---|---|"
    return f"## {heading}\n\n{about}{more}\n\n{head}\n" + "\n".join(rows) + "\n"


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    whole = Manifest.model_json_schema()
    schema = whole if model is Manifest else whole["$defs"][model.__name__]
    for name, field in model.model_fields.items():
        found = schema["properties"][name]
        needed = "from the file's name" if name == "name" else "**required**"
        left_out = needed if field.is_required() else _default(field.get_default(call_default_factory=True))
        words = " ".join((field.description or "").split()).replace("|", "\\|")
        yield name, f"| `{name}` | {_type(found)} | {left_out} | {words} |"


def _default(value: Any) -> str:
    if value is None or value == "" or isinstance(value, BaseModel):
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return "`{}`" if value == {} else f"`{value}`"


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema's type in words."""
    if "$ref" in schema:
        return _link(schema["$ref"].rsplit("/", 1)[-1])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"] if one.get("type") != "null")
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if schema["type"] == "object":
        return f"mapping of a name to {_type(schema['additionalProperties'])}"
    return {"string": "text", "boolean": "`true`, `false`"}.get(schema["type"]) or _number(schema)


def _link(name: str) -> str:
    title = next(title for title, model in SECTIONS if model.__name__ == name)
    return f"[{title}](#{title.replace('.', '')})"


def _number(schema: dict[str, Any]) -> str:
    """``integer, 1 to 1,024``."""
    kind = "integer" if schema["type"] == "integer" else "number"
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    if above is not None:
        return f"{kind} above {above:,g}" + (f", at most {high:,g}" if high is not None else "")
    if low is not None and high is not None:
        return f"{kind}, {_figure(low)} to {_figure(high)}"
    return f"{kind}, {_figure(low)} or more" if low is not None else kind


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
