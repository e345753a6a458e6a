"""What the bundled manifests name, on the stand-in hub: real shapes without weights, sample rows of all benchmarks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from benchmark_samples import SAMPLES, Rows
from hub_world import parquet
from standin import StandIn
from standin_repos import Repo

from llmjobs.benchmarks.registry import benchmark_class
from llmjobs.demo import DEMO_MODELS

FACTS = Path(__file__).parents[2] / "docs" / "models.yaml"
STORED_BYTES = {"bfloat16": 2, "float32": 4}


class Claimed(bytes):
    """A file that cannot be fetched: the hub reports a size but has no content."""

    size: int

    def __len__(self) -> int:
        return self.size


def published_models() -> dict[str, dict[str, Any]]:
    """Hub id → the facts that the docs state, the architecture's figures among them."""
    groups = yaml.safe_load(FACTS.read_text(encoding="utf-8"))["groups"]
    return {model["id"]: model for group in groups for model in group["models"]}


def serve_models(hub: StandIn, token: str) -> None:
    """Every model of the docs: its real config, a small tokenizer, and how large its weights are."""
    tokenizer = DEMO_MODELS["demo-base"]
    shared = {path.name: path.read_bytes() for path in tokenizer.glob("*.json") if "config" not in path.stem}
    shared["tokenizer_config.json"] = (tokenizer / "tokenizer_config.json").read_bytes()
    for name, facts in published_models().items():
        weights = Claimed()
        weights.size = facts["parameters"] * STORED_BYTES[facts["stored"]] if facts.get("stored") else 1
        files = shared | {"config.json": json.dumps(facts["config"]).encode(), "model.safetensors": weights}
        hub.models[name] = Repo(files, gated=bool(facts.get("gated")), allowed={token})


def serve_rows(hub: StandIn, mmlu_subjects: Sequence[str]) -> None:
    """The data set of every benchmark with its sample rows; MMLU's in each of the subjects."""
    for name, (subject, samples) in SAMPLES.items():
        for one in mmlu_subjects if name == "mmlu" else [subject]:
            rows = {s: [r | {"subject": one} for r in part] if name == "mmlu" else part for s, part in samples.items()}
            place = benchmark_class(name).hub
            assert place is not None
            _add(hub.datasets.setdefault(place.path, Repo({})), (place.config or "default").format(subject=one), rows)
    for repo in hub.datasets.values():
        repo.files["README.md"] = _card(repo)


def _add(repo: Repo, config: str, samples: dict[str, Rows]) -> None:
    for split, rows in samples.items():
        repo.files[f"{config}/{split}-00000-of-00001.parquet"] = parquet(rows)


def _card(repo: Repo) -> bytes:
    """The configurations that the repository's folders make up."""
    configs: dict[str, list[dict[str, str]]] = {}
    for path in repo.files:
        config, _, file = path.partition("/")
        if file:
            split = file.partition("-")[0]
            configs.setdefault(config, []).append({"split": split, "path": f"{config}/{split}-*"})
    listed = [{"config_name": name, "data_files": files} for name, files in configs.items()]
    return f"---\n{yaml.safe_dump({'configs': listed})}---\n".encode()
