"""Every benchmark from a manifest and from the hub: parquet rows, a model in safetensors, records from a run."""

import json
from pathlib import Path

import pytest
from asking import make
from benchmark_samples import SAMPLES, SIX_PAIRS
from hub_world import World
from shipped_world import serve_rows
from standin_repos import Repo
from tiny_models import tiny_model, tiny_tokenizer

from llmjobs import fetch
from llmjobs.benchmarks.base import Generation
from llmjobs.benchmarks.gsm8k import GSM8K
from llmjobs.benchmarks.mmlu_pro import MMLUPro
from llmjobs.benchmarks.registry import names
from llmjobs.benchmarks.rows import load_rows
from llmjobs.benchmarks.truthfulqa import TruthfulQAMC1
from llmjobs.eval import job as eval_job
from llmjobs.manifest import Manifest


@pytest.fixture
def served(world: World) -> World:
    """The hub with every benchmark's data set, in as many configurations as the samples need."""
    world.hub.datasets.clear()
    serve_rows(world.hub, [SAMPLES["mmlu"][0]])
    return world


def random_model(folder: Path) -> Repo:
    tokenizer = tiny_tokenizer()
    tiny_model(len(tokenizer), max_length=256).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Repo({path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.mark.parametrize("name", list(SAMPLES))
def test_rows_from_the_hub(served: World, name: str) -> None:
    subject, samples = SAMPLES[name]
    benchmark = make(name, 0)
    assert benchmark.hub is not None
    found = load_rows(type(benchmark), subject, "test")
    raw = [r for r in samples[benchmark.hub.splits["test"]] if name == "mmlu" or benchmark.belongs(r, subject)]
    assert found.rows == [benchmark.canonical(r) for r in raw]
    assert found.revision == served.hub.datasets[benchmark.hub.path].commit


def test_a_manifest_with_every_benchmark_runs(served: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TruthfulQAMC1, "own_rows", classmethod(lambda c, u, s: SIX_PAIRS if s == "fewshot" else None))
    for generated in (GSM8K, MMLUPro):
        monkeypatch.setattr(
            generated, "generation", lambda self, doc: Generation(stop=("Question:",), max_new_tokens=8)
        )
    asked = [
        {"name": name, "limit": 2, "num_fewshot": 1 if name == "gsm8k" else None, "subjects": [SAMPLES[name][0]]}
        for name in SAMPLES
    ]
    served.hub.models["maker/random"] = random_model(tmp_path / "model")
    manifest = Manifest.model_validate(
        {
            "name": "every",
            "models": [{"id": "maker/random", "dtype": "float32"}],
            "eval": {"benchmarks": asked, "threads": 1, "batch_tokens": 512},
        }
    )
    assert set(SAMPLES) == set(names()) - {"demo"}
    outcome = eval_job.run(manifest, tmp_path)
    assert outcome.exit_code == 0
    for name, (subject, _) in SAMPLES.items():
        path = tmp_path / "every" / "eval" / "random" / f"{name}.{subject}" / "records.jsonl"
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert records and all(r["status"] in ("ok", "unparsed") for r in records), (name, records)


def test_after_fetch_a_run_needs_no_network(served: World, tmp_path: Path) -> None:
    served.hub.models["maker/random"] = random_model(tmp_path / "model")
    asked = [{"name": "mmlu", "subjects": ["astronomy"], "num_fewshot": 5}, "arc_easy", "lambada_openai"]
    manifest = Manifest.model_validate(
        {"name": "offline", "models": ["maker/random"], "eval": {"benchmarks": asked, "threads": 1}}
    )
    assert fetch.run(manifest) == 0
    served.go_offline()
    before = len(served.hub.seen)
    assert eval_job.run(manifest, tmp_path).exit_code == 0
    assert len(served.hub.seen) == before
    unit = tmp_path / "offline" / "eval" / "random" / "mmlu.astronomy"
    assert len((unit / "records.jsonl").read_text(encoding="utf-8").splitlines()) == len(SAMPLES["mmlu"][1]["test"])
    revisions = json.loads((tmp_path / "offline" / "revisions.json").read_text(encoding="utf-8"))
    assert served.hub.models["maker/random"].commit in revisions.values()


def test_offline_without_fetch_every_unit_says_what_is_missing(served: World, tmp_path: Path) -> None:
    served.go_offline()
    asked = [{"name": "mmlu", "subjects": ["astronomy"]}]
    manifest = Manifest.model_validate({"name": "none", "models": ["maker/random"], "eval": {"benchmarks": asked}})
    outcome = eval_job.run(manifest, tmp_path)
    assert outcome.exit_code == 3
    assert "HF_HUB_OFFLINE is set; run 'llmjobs fetch'" in next(iter(outcome.failed.values()))
