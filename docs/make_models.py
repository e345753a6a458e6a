"""Writes ``models.md`` (``make docs``): what models weigh, from ``models.yaml`` and the code of ``llmjobs plan``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from llmjobs.engines.transformers.shapes import model_shapes, on_meta, whole_weight_bytes
from llmjobs.hub.files import size_text

PAGE = Path(__file__).with_name("models.md")
FACTS = PAGE.with_suffix(".yaml")
MANIFESTS = PAGE.parents[1] / "manifests"
PRECISIONS = ("float32", "bfloat16", "8bit", "4bit", "cache")
HEAD = """<!-- Written by docs/make_models.py from docs/models.yaml; change the words there, then: make docs -->
# Models

Which models the manifests name, which others people choose, and what each of them needs. **Base** models continue a
text; ask them benchmarks. **Instruct** models answer; take them for chat, conversations and MT-Bench, and set
`chat_template: true` to ask them benchmarks in their own form. Quantized or not, the whole files are downloaded.
"""
FACTS_HEAD = "| model | parameters | context | licence | gated | instruct |\n|---|--:|--:|---|---|---|"
MEMORY_HEAD = "| model | download | float32 | bfloat16 | 8bit | 4bit | keys and values |\n|---|--:|--:|--:|--:|--:|--:|"
NOTES = """## How to read it

- **float32 … 4bit** is the memory of the weights, with the scales of quantized ones, in decimal units; float16 takes
  what bfloat16 takes. Runtime and passes come on top, about 1 GB on a CPU.
- **keys and values** is what 1,000 tokens of context add in bfloat16, for each sequence that is kept.
- **instruct** is the model of the same maker and size that answers, with the same licence and gate.
- **download** is the safetensors files in the number format in which they are stored. OLMo 2's base models are stored
  in float32, twice as large as they are loaded.
- **context** is the largest that the base model's config allows. The instruct models of Qwen2.5 say 32,768.
- **gated** models want your consent once, on their page, and a token: [The hub](hub.md).
- An empty cell was not known for certain. `llmjobs doctor MANIFEST` asks the hub, for the models of a manifest.

What fits where, with 2 GB to spare for the rest: 8 GB of memory take every small model in bfloat16. A GPU with 16 GB,
such as a Colab's T4, takes the small ones whole (in float16) and the medium ones in 4bit or 8bit. 24 GB take the models
of 7 to 9 billion parameters in bfloat16. `llmjobs plan MANIFEST` measures it on your machine before anything runs.

## Where it comes from

Parameters and memory are computed, by the same code as in `llmjobs plan`: transformers builds each architecture from
its published configuration on the device `meta`, where tensors have shapes and no memory, and the tensors are added up
(`docs/make_models.py`). The count must equal the one that the hub shows for the files, else this page is not written.
Configurations, counts, licences and gating were compared with public copies of the models' pages and configurations on
{checked}; the hub itself could not be reached from there. A licence or a gate can have changed since: the model's page
counts. Mistral's page asked for contact details in 2024; whether it still does was not checked.
"""


def render() -> str:
    """The whole page."""
    facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    parts = [HEAD]
    for group in facts["groups"]:
        rows = [rows_of(model) for model in group["models"]]
        tables = [[FACTS_HEAD, *(one for one, _ in rows), ""], [MEMORY_HEAD, *(two for _, two in rows), ""]]
        parts += [f"## {group['title']}\n", *("\n".join(table) for table in tables)]
    return "\n".join([*parts, _manifests(facts), NOTES.format(checked=facts["checked"])])


def rows_of(model: Mapping[str, Any]) -> tuple[str, str]:
    """One model's line of facts and its line of sizes.

    Raises:
        ValueError: the architecture has another number of parameters than the published files.

    """
    sizes = weights(model["config"])
    if sizes["parameters"] != model["parameters"]:
        raise ValueError(f"{model['id']}: {sizes['parameters']} parameters computed, {model['parameters']} published")
    owner, name = model["id"].split("/")
    instruct = model.get("instruct", "")
    facts = (
        f"{owner}/**{name}**",
        f"{sizes['parameters'] / 1e9:.2f} B",
        f"{model['config']['max_position_embeddings']:,}",
        model["licence"],
        {True: "yes", False: "no", None: ""}[model.get("gated")],
        instruct.split("/")[1] if instruct else f"is {model['only']} itself",
    )
    memory = (name, _download(model), *(size_text(sizes[key]) for key in PRECISIONS))
    return f"| {' | '.join(facts)} |", f"| {' | '.join(memory)} |"


def weights(config: Mapping[str, Any]) -> dict[str, int]:
    """Parameters, bytes at each precision, and bytes of keys and values of 1,000 tokens."""
    from transformers import AutoConfig

    built = AutoConfig.for_model(**config)
    whole, half = (on_meta(built, dtype) for dtype in (torch.float32, torch.bfloat16))
    shapes = model_shapes(built, half, torch.bfloat16, "none")
    return {
        "parameters": shapes.parameters,
        "float32": whole_weight_bytes(whole, "none"),
        "bfloat16": whole_weight_bytes(half, "none"),
        "8bit": whole_weight_bytes(half, "8bit"),
        "4bit": whole_weight_bytes(half, "4bit"),
        "cache": 1000 * int(shapes.cache_token_bytes or 0),
    }


def download_bytes(model: Mapping[str, Any]) -> int | None:
    """Bytes of the safetensors files of the model itself; None where their number format is not known."""
    stored = model.get("stored")
    return None if stored is None else model["parameters"] * getattr(torch, stored).itemsize


def _download(model: Mapping[str, Any]) -> str:
    size = download_bytes(model)
    return "" if size is None else size_text(size)


def _manifests(facts: Mapping[str, Any]) -> str:
    """What each manifest downloads."""
    known = {model["id"]: model for group in facts["groups"] for model in group["models"]}
    lines = ["## What the manifests download\n", "| manifest | models | download |", "|---|---|--:|"]
    for name, models in manifest_models():
        sizes = [download_bytes(known[one]) for one in models]
        total = size_text(sum(size for size in sizes if size))
        lines.append(f"| `{name}` | {', '.join(one.split('/')[1] for one in models)} | {total} |")
    return "\n".join([*lines, ""])


def manifest_models() -> Iterator[tuple[str, list[str]]]:
    """Every manifest with models of the hub, and their ids."""
    for path in sorted(MANIFESTS.glob("*.yaml")):
        named = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
        ids = [one if isinstance(one, str) else one["id"] for one in named]
        if any(not one.startswith("llmjobs/") for one in ids):
            yield path.name, ids


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
