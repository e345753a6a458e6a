"""Plan: tokens as eval plans them, sizes as loaded, what does not fit, what cannot be had."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
import yaml
from random_llama import make_llama

from llmjobs.cli import main
from llmjobs.engines.transformers import engine
from llmjobs.engines.trial_cache import FOLDER, cache_folder
from llmjobs.manifest import load_manifest
from llmjobs.prepare import plan_model
from llmjobs.prepare.plan import make_plan

sys.path.append(str(Path(__file__).parents[1] / "hub"))

from hub_world import GATED, MODEL, World, no_sleep, world  # noqa: E402

__all__ = ["no_sleep", "world"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMJOBS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine, "MEASURE_S", 1.0)


SHAPES = {
    "parameters": 10**10, "weight_bytes": 40 << 30, "layers": 32, "hidden": 4096, "vocabulary": 32000,
    "max_length": 1024, "cache_token_bytes": 1000, "device": "cpu", "dtype": "float32", "device_memory_bytes": None,
    "memory_by_quantization": {"none": 40 << 30, "8bit": 11 << 30, "4bit": 6 << 30},
}  # fmt: skip
SPEED = {
    "path": "shared",
    "runtime_bytes": 1 << 29, "pass_bytes": 1 << 29, "pass_s": 1e-2, "token_s": 1e-3, "head_row_s": 1e-3,
    "decode_s": 1e-2, "rows": 16, "threads": 2, "start_s": 5.0, "quantize_s": 7.0,
}  # fmt: skip


@pytest.fixture
def played(monkeypatch):
    """A forecast without its process: a model of ten billion parameters on a machine with 64 GiB."""
    monkeypatch.setattr(plan_model, "_forecast", lambda *_: {"shapes": SHAPES, "speed": SPEED, "why": None})
    monkeypatch.setattr(plan_model, "memory_bytes", lambda: 64 << 30)


@pytest.fixture
def manifest(tmp_path, llama, mmlu_rows):
    def write(*models, **changes) -> Path:
        benchmark = {"name": "mmlu", "subjects": ["astronomy", "business_ethics"], "data": str(mmlu_rows)}
        spec = {"id": str(llama), "name": "tiny", "device": "cpu", "dtype": "float32"}
        section = {"benchmarks": [benchmark | {"num_fewshot": 5}], "batch_tokens": 512} | changes
        path = tmp_path / "p.yaml"
        path.write_text(yaml.safe_dump({"models": list(models) or [spec], "eval": section}))
        return path

    return write


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    return int(done.value.code)


@pytest.mark.usefixtures("new_interpreters")
def test_tokens_are_those_that_eval_computes(manifest, tmp_path, capsys):
    path = manifest()
    assert run("plan", path, "--json", "--results", tmp_path / "r") == 0
    model = json.loads(capsys.readouterr().out)["models"][0]
    assert not (tmp_path / "r").exists(), "a plan leaves no trace among the results"
    assert run("eval", path, "--results", tmp_path / "r") == 0
    loaded = json.loads((tmp_path / "r" / "p" / "eval" / "tiny" / "model.json").read_text())
    assert (model["parameters"], model["weight_bytes"]) == (loaded["parameters"], loaded["weight_bytes"])
    assert (model["device"], model["dtype"]) == (loaded["device"], loaded["dtype"])
    for unit in model["units"]:
        file = tmp_path / "r" / "p" / "eval" / "tiny" / unit["key"] / "unit.json"
        real = json.loads(file.read_text())["effective"]["plan"]
        for name in ("total_tokens", "distinct_tokens", "peak_cache_tokens", "batches"):
            assert unit["tokens"][name] == real[name]
        assert unit["tokens"]["questions"] == 30
        assert unit["time_s"] > 0
    assert model["fits"] is True and model["peak_bytes"] > model["weight_bytes"]


def test_the_table(manifest, played, tmp_path, capsys):
    assert run("plan", manifest()) == 0
    shown = capsys.readouterr().out
    assert "cpu (float32)" in shown and "mmlu.astronomy" in shown and "nothing was run" in shown


def test_counts_are_kept(manifest, played, monkeypatch):
    study = load_manifest(manifest())
    first = make_plan(study, Path("results"))["models"][0]["units"]
    monkeypatch.setattr(plan_model.TokenCounter, "_counted", None)
    again = make_plan(study, Path("results"))["models"][0]["units"]
    assert [unit["tokens"] for unit in again] == [unit["tokens"] for unit in first]


def test_each_phase_of_the_command_is_in_the_plan(manifest, played, capsys):
    path = manifest(batch_tokens="auto")
    assert run("plan", path, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    (model,) = plan["models"]
    assert model["load_s"] > SPEED["quantize_s"] and model["prepare_s"] > 0 and model["questions_s"] > 0
    phases = ("load_s", "prepare_s", "questions_s", "generation_s")
    assert model["time_s"] == pytest.approx(sum(model[phase] for phase in phases))
    assert model["questions_s"] == pytest.approx(sum(unit["time_s"] for unit in model["units"]))
    assert plan["time_s"] == pytest.approx(plan["start_s"] + model["time_s"] + plan["report_s"])
    assert plan["start_s"] == SPEED["start_s"] and plan["report_s"] > 0
    assert run("plan", path) == 0
    shown = capsys.readouterr().out
    assert "tiny: load " in shown and ", trials " in shown and ", questions " in shown


def test_passes_that_cost_much_whatever_they_read_count_each(manifest, played, monkeypatch, capsys):
    def planned(pass_s: float, size: int) -> float:
        speed = SPEED | {"pass_s": pass_s, "encode_s": 0.0}
        monkeypatch.setattr(plan_model, "_forecast", lambda *_: {"shapes": SHAPES, "speed": speed, "why": None})
        monkeypatch.setenv("LLMJOBS_CACHE", f"{os.environ['LLMJOBS_CACHE']}x")
        assert run("plan", manifest(batch_tokens=size), "--json") == 0
        return float(json.loads(capsys.readouterr().out)["models"][0]["questions_s"])

    assert planned(9.0, 256) - planned(0.0, 256) > 2 * (planned(9.0, 4096) - planned(0.0, 4096)) > 0


def test_memory_is_that_of_the_largest_pass(manifest, played, monkeypatch, capsys):
    """Not of a usual batch: what all questions share is read in one pass, and may be longer."""
    speed = SPEED | {"pass_bytes": 1 << 30, "pass_token_bytes": 1 << 23, "batch_tokens": 64}
    monkeypatch.setattr(plan_model, "_forecast", lambda *_: {"shapes": SHAPES, "speed": speed, "why": None})
    assert run("plan", manifest(batch_tokens="auto"), "--json") == 0
    model = json.loads(capsys.readouterr().out)["models"][0]
    largest = max(unit["tokens"]["largest_pass"] for unit in model["units"])
    assert largest >= max(unit["tokens"]["prefix_tokens"] // unit["tokens"]["prefixes"] for unit in model["units"]) > 64
    kept = SHAPES["weight_bytes"] + SPEED["runtime_bytes"] + model["cache_bytes"]
    assert model["needed_bytes"] - kept == (1 << 30) + (largest << 23)


def test_what_eval_found_out_counts_from_then_on(manifest, tmp_path, capsys):
    path = manifest(batch_tokens="auto", threads=1)
    assert run("eval", path, "--results", tmp_path / "r") == 0
    capsys.readouterr()
    assert run("plan", path, "--json") == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    (opened,) = [line for line in timings(tmp_path / "r") if line.get("load_s")]
    assert model["load_s"] == pytest.approx(opened["load_s"], abs=0.01)
    assert opened["prepare_s"] > 0 == model["prepare_s"], "nothing is left to be tried"


def timings(results: Path) -> list[dict]:
    files = sorted(results.rglob("timings.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_what_was_measured_is_kept(manifest, monkeypatch, capsys):
    path, measured = manifest(), []
    real = engine.run_child
    monkeypatch.setattr(engine, "run_child", lambda *a, **k: (measured.append(a), real(*a, **k))[1])
    shown = []
    for _ in range(2):
        assert run("plan", path, "--json") == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert len(measured) == 1 and shown[0] == shown[1]
    for entry in (cache_folder() / FOLDER).glob("*.json"):
        entry.write_text("{")
    assert run("plan", path, "--json") == 0
    assert len(measured) == 2


@pytest.mark.slow
def test_measuring_a_slow_model_ends_in_time(manifest, tmp_path, monkeypatch, capsys):
    """A model whose layers take their time with each token, as bfloat16 does on an old processor."""
    slow = tmp_path / "sitecustomize.py"
    slow.write_text(
        "import time\n"
        "from transformers.models.llama.modeling_llama import LlamaMLP\n"
        "forward = LlamaMLP.forward\n"
        "def slow(self, x):\n"
        "    time.sleep(0.02 * x.shape[:-1].numel())\n"
        "    return forward(self, x)\n"
        "LlamaMLP.forward = slow\n"
    )
    monkeypatch.setattr(engine, "MEASURE_S", 4.0)
    real, took = engine.run_child, []

    def timed(module, task, **how):
        code = f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{tmp_path}"
        ended = real(module, task, **how, environment={"PYTHONPATH": code})
        took.append(ended.result["measured_s"])
        return ended

    monkeypatch.setattr(engine, "run_child", timed)
    assert run("plan", manifest(batch_tokens="auto"), "--json") == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    tokens = sum(unit["tokens"]["distinct_tokens"] for unit in model["units"])
    assert model["questions_s"] == pytest.approx(0.04 * tokens, rel=0.5), "two layers, a fiftieth of a second each"
    assert took[0] < 20


def test_what_does_not_fit_and_what_would(manifest, played, monkeypatch, capsys):
    monkeypatch.setattr(plan_model, "memory_bytes", lambda: 8 << 30)
    assert run("plan", manifest()) == 1
    assert "tiny: does not fit: 41.0" in (shown := capsys.readouterr().out)
    assert "of 8.00 GiB; 4bit needs 7.0" in shown
    monkeypatch.setattr(plan_model, "memory_bytes", lambda: 2 << 30)
    assert run("plan", manifest()) == 1
    assert "no quantization makes it fit; use a smaller model" in capsys.readouterr().out


def test_a_gated_model_and_one_to_fetch(world: World, manifest, monkeypatch, capsys):
    monkeypatch.setattr(plan_model, "_forecast", None)
    assert run("plan", manifest({"id": GATED, "name": "gated"}, {"id": MODEL, "name": "open"}), "--json") == 1
    gated, free = json.loads(capsys.readouterr().out)["models"]
    assert gated["gated"] and gated["error"].startswith(f"{GATED} is gated and there is no token; request access at")
    config = 2_000  # was read already, to see what kind of model it is
    assert free["download_bytes"] - config < free["missing_bytes"] <= free["download_bytes"] > 100_000


def test_no_network_is_said_once_and_not_waited_for(world: World, manifest, no_sleep, capsys):
    world.patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert run("plan", manifest({"id": MODEL, "name": "far"})) == 1
    shown = capsys.readouterr().out
    assert "far: maker/tiny is not completely cached and the hub cannot be reached; run 'llmjobs fetch'" in shown
    assert no_sleep == []


def test_a_model_that_is_not_there_stops_no_other(manifest, played, llama, capsys):
    here = {"id": str(llama), "name": "tiny", "device": "cpu", "dtype": "float32"}
    assert run("plan", manifest({"id": "./nowhere", "name": "lost"}, here)) == 1
    shown = capsys.readouterr().out
    assert "lost: there is no folder ./nowhere" in shown and "tiny   cpu (float32)" in shown


def test_the_demo_with_generated_answers(played, capsys):
    """Units without options are counted by the longest reply that they allow."""
    overrides = ("--set", "models=[llmjobs/demo-base]", "--set", "eval.benchmarks=[{name: demo, limit: 5}]")
    assert run("plan", "demo", *overrides, "--json") == 0
    units = {u["key"]: u for u in json.loads(capsys.readouterr().out)["models"][0]["units"]}
    assert units["demo.sort_numbers"]["tokens"]["new_tokens"] > 0 < units["demo.sort_numbers"]["time_s"]
    assert units["demo.number_size"]["tokens"]["new_tokens"] == 0


@pytest.mark.slow
def test_all_57_subjects_in_seconds(shared_data, tmp_path, capsys):
    """Real rows, five shots: 14,042 questions; the second time they are read from the cache."""
    folder = make_llama(tmp_path / "llama", length=8192)
    spec = {"id": str(folder), "name": "tiny", "device": "cpu", "dtype": "float32"}
    benchmark = {"name": "mmlu", "num_fewshot": 5, "data": str(shared_data / "mmlu")}
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump({"models": [spec], "eval": {"benchmarks": [benchmark], "batch_tokens": 1024}}))
    took = []
    for _ in range(2):
        began = time.monotonic()
        assert run("plan", path, "--json") == 0
        took.append(time.monotonic() - began)
        units = json.loads(capsys.readouterr().out)["models"][0]["units"]
        assert len(units) == 57 and sum(unit["tokens"]["questions"] for unit in units) == 14_042
    assert took[0] < 180 and took[1] < 40


def test_two_names_for_one_model_are_said_to_be_so(played, manifest, llama, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in llama.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    spec = {"device": "cpu", "dtype": "float32"}
    models = [
        {"id": str(llama), "name": "one", **spec},
        {"id": str(copy), "name": "two", **spec},
        {"id": str(copy), "name": "three", **spec, "quantization": "4bit"},
    ]
    notes = make_plan(load_manifest(manifest(*models)), tmp_path / "r")["notes"]
    assert "one and two: two names for one model (same files, same settings)" in notes
    assert not any("three" in note for note in notes)


@pytest.mark.parametrize("command", ["plan", "matrix"])
def test_a_matrix_with_an_endpoint_is_refused_before_anything_starts(tmp_path, capsys, command):
    there = {"id": "m", "name": "there", "endpoint": "http://127.0.0.1:9/v1"}
    study = {"models": ["llmjobs/demo-tiny", there], "matrix": {"benchmarks": [{"name": "demo", "limit": 1}]}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study))
    assert run(command, tmp_path / "s.yaml", "--results", tmp_path / "r") == 1
    shown = capsys.readouterr()
    assert "s: there is an endpoint, but the matrix only times local models; remove it" in shown.err
    assert not shown.out and not list((tmp_path / "r").rglob("*.jsonl"))
