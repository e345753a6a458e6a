#!/usr/bin/env python3
"""How near the plan's time and peak memory come to a real run, for random-weight Llamas of three sizes.

    python benchmarks/plan.py --data ../shared/data [--sizes 20m 125m 350m] [--questions 40] [--quantization none]

Each size is planned, run (``llmjobs eval`` in a process of its own) and planned again, so that both see the same
machine; the last line is JSON with ``memory_ratio`` and ``time_ratio`` (predicted / measured) of each size.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from scoring_data import train_tokenizer

SIZES = {"20m": (384, 6, 1024), "125m": (768, 14, 2048), "350m": (1024, 24, 2816)}
"""Hidden size, layers, size of the feed-forward layer."""
VOCABULARY = 32_000
SUBJECTS = ["astronomy", "business_ethics"]


def make_model(folder: Path, size: str, data: Path) -> None:
    """Write a random-weight Llama of a size, with a tokenizer trained on text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    hidden, layers, inner = SIZES[size]
    core = train_tokenizer(data, VOCABULARY)
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=core.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def write_manifest(path: Path, model: Path, arguments: argparse.Namespace) -> None:
    """One model on two MMLU subjects."""
    spec = {"id": str(model), "name": model.name, "device": "cpu", "dtype": arguments.dtype}
    benchmark = {
        "name": "mmlu", "subjects": SUBJECTS, "num_fewshot": 5, "limit": arguments.questions,
        "data": str(arguments.data / "mmlu"),
    }  # fmt: skip
    section = {"benchmarks": [benchmark], "batch_tokens": 1024}
    content = {"models": [spec | {"quantization": arguments.quantization}], "eval": section}
    path.write_text(yaml.safe_dump(content))


def llmjobs(*arguments: str | Path) -> str:
    """Run the command; its output."""
    command = [sys.executable, "-m", "llmjobs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def measure(manifest: Path, results: Path) -> dict[str, float]:
    """Run it; seconds of scoring and the largest resident memory."""
    llmjobs("eval", manifest, "--results", results, "--fresh")
    folder = results / manifest.stem
    lines = [json.loads(line) for path in folder.rglob("timings.jsonl") for line in path.read_text().splitlines()]
    scoring = sum(line["real_s"] for line in lines if line["phase"] == "run")
    return {"time_s": scoring, "peak_bytes": max(line.get("peak_rss_bytes") or 0 for line in lines)}


def compare(size: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Plan, run, plan again."""
    model, manifest = folder / size, folder / f"plan-{size}.yaml"
    make_model(model, size, arguments.data)
    write_manifest(manifest, model, arguments)

    def planned() -> dict[str, Any]:
        return dict(json.loads(llmjobs("plan", manifest, "--json"))["models"][0])

    before, real, after = planned(), measure(manifest, folder / "results"), planned()
    time_s, peak = (statistics.mean((before[key], after[key])) for key in ("time_s", "peak_bytes"))
    found = {
        "size": size,
        "parameters": before["parameters"],
        "predicted_s": [round(before["time_s"], 2), round(after["time_s"], 2)],
        "measured_s": round(real["time_s"], 2),
        "predicted_mib": round(peak / 2**20),
        "measured_mib": round(real["peak_bytes"] / 2**20),
        "memory_ratio": round(peak / real["peak_bytes"], 3),
        "time_ratio": round(time_s / real["time_s"], 3),
    }
    print(found, flush=True)
    return found


def main() -> None:
    """Compare every size asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--questions", type=int, default=40, help="of each of the two subjects")
    parser.add_argument("--quantization", choices=("none", "8bit", "4bit"), default="none")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(size, Path(folder), arguments) for size in arguments.sizes]
    print(json.dumps({"rows": rows, **{k: [row[k] for row in rows] for k in ("memory_ratio", "time_ratio")}}))


if __name__ == "__main__":
    main()
