"""Writes ``models.md`` (``make docs``): what models weigh, from ``models.yaml`` and the code of ``llmjobs plan``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from llmjobs.engines.transformers.shapes import model_shapes, on_meta, whole_weight_bytes
from llmjobs.hub.files import size_text
from llmjobs.quantization import METHODS

PAGE = Path(__file__).with_name("models.md")
FACTS = PAGE.with_suffix(".yaml")
MANIFESTS = PAGE.parents[1] / "manifests"
QUANTIZED = tuple(METHODS)
PRECISIONS = ("float32", "bfloat16", *QUANTIZED, "cache")
HEAD = """<!-- Generated from docs/models.yaml by docs/make_models.py; edit the texts there, then run: make docs -->
# Models

This page lists the models of the bundled manifests and other common choices, and what each of them needs. **Base**
models continue a text; use them for benchmarks. **Instruct** models answer; use them for chat, conversations and
MT-Bench. To run benchmarks on an instruct model in its own prompt format, set `chat_template: true`. Quantization does
not make the download smaller.
"""
FACTS_HEAD = "| model | parameters | context | licence | gated | instruct |\n|---|--:|--:|---|---|---|"
MEMORY_HEAD = (
    f"| model | download | float32 | bfloat16 | {' | '.join(QUANTIZED)} | keys and values |\n"
    f"|---|{'--:|' * (len(PRECISIONS) + 1)}"
)
NOTES = """## How to read it

- **float32**, **bfloat16** and the quantized columns give the memory of the weights in decimal units, including the
  scales of quantized weights. float16 needs as much as bfloat16. On a CPU, add about 1 GB for the runtime and the
  forward passes.
- **keys and values** is the memory that 1,000 tokens of context add in bfloat16, per sequence.
- **instruct** is the instruct model of the same publisher and size. Licence and gating are the same.
- **download** is the size of the safetensors files as stored. The base models of OLMo 2 are stored in float32, twice
  the size at which they are usually loaded.
- **context** is the maximum in the base model's config. The instruct models of Qwen2.5 allow 32,768.
- **gated** models need your consent, once, on their page, and a token: [The hub](hub.md).
- An empty cell means that we could not confirm the value. `llmjobs doctor MANIFEST` asks the hub about the models of a
  manifest.

What fits, leaving 2 GB for everything else: with 8 GB of memory, every small model in bfloat16; on a GPU with 16 GB,
such as Colab's T4, the small models unquantized (in float16) and the medium models in 4bit or 8bit; with 24 GB, models
of 7 to 9 billion parameters in bfloat16. `llmjobs plan MANIFEST` measures this on your machine before anything runs.

## Sources

`docs/make_models.py` computes parameters and memory with the same code as `llmjobs plan`. transformers builds each
architecture from its published configuration on the device `meta`, where tensors have shapes but use no memory, and the
script adds up the tensors. If the count differs from the one that the hub shows for the files, the page is not written.
Configurations, counts, licences and gating were compared with public copies of the models' pages and configurations on
{checked}, without access to the hub itself. Licences and gating may have changed since; the model's page is
authoritative. In 2024 Mistral's page asked for contact details; we did not check whether it still does.
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
        **{name: whole_weight_bytes(half, name) for name in QUANTIZED},
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
    models = [model for group in facts["groups"] for model in group["models"]]
    known = {model["instruct"]: model for model in models if "instruct" in model} | {one["id"]: one for one in models}
    lines = ["## What the manifests download\n", "| manifest | models | download |", "|---|---|--:|"]
    for name, ids, has_gguf in manifest_models():
        sizes = [download_bytes(known[one]) for one in ids]
        total = size_text(sum(size for size in sizes if size)) + (" and the GGUF files" if has_gguf else "")
        lines.append(f"| `{name}` | {', '.join(one.split('/')[1] for one in ids)} | {total} |")
    return "\n".join([*lines, ""])


def manifest_models() -> Iterator[tuple[str, list[str], bool]]:
    """Every manifest with models of the hub, their ids, and whether GGUF files come with them."""
    for path in sorted(MANIFESTS.glob("*.yaml")):
        named = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
        ids = [one if isinstance(one, str) else one["id"] for one in named]
        if any(not one.startswith("llmjobs/") for one in ids):
            yield path.name, ids, any(isinstance(one, dict) and "gguf" in one for one in named)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
