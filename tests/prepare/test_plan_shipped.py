"""Every shipped manifest is planned against a hub with the real models' shapes: counts, sizes, what fits where."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("hub", "benchmarks")]

from hub_world import TOKEN, World, no_sleep, world  # noqa: E402
from shipped_world import published_models, serve_models, serve_rows  # noqa: E402

from llmjobs.benchmarks.registry import benchmark_class  # noqa: E402
from llmjobs.cli import main  # noqa: E402
from llmjobs.engines.transformers import engine  # noqa: E402
from llmjobs.manifest import ModelSpec, load_manifest  # noqa: E402
from llmjobs.prepare import plan_model  # noqa: E402

__all__ = ["no_sleep", "world"]
pytestmark = pytest.mark.slow
MANIFESTS = sorted(path.stem for path in (Path(__file__).parents[2] / "manifests").glob("*.yaml"))
MANIFESTS.remove("ladder")  # its GGUF files are not among the published shapes
GIB = 1 << 30
T4 = 14.7
"""GiB that torch finds on a Colab's T4."""
FOR_8_GB = ("laptop", "small")
FACTS = published_models()
MEASURED: dict[tuple[object, ...], dict[str, Any]] = {}


def measured_once(real: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Layers of a model's shape are built and timed for the first manifest that names it, and remembered."""

    def measured(spec: ModelSpec, *rest: Any, **named: Any) -> dict[str, Any]:
        key = spec.id, spec.dtype, spec.quantization, any(isinstance(one, dict) for one in rest)
        if key not in MEASURED:
            MEASURED[key] = real(spec, *rest, **named)
        return MEASURED[key]

    return measured


@pytest.fixture
def real_shapes(world: World, tmp_path, monkeypatch) -> World:
    world.hub.models.clear()
    world.hub.datasets.clear()
    serve_models(world.hub, TOKEN)
    serve_rows(world.hub, benchmark_class("mmlu").subjects)
    world.log_in(TOKEN)
    for name, value in {"HF_ENDPOINT": world.hub.url, "HF_HOME": world.home, "HF_HUB_DISABLE_XET": 1}.items():
        monkeypatch.setenv(name, str(value))  # the forecast is a process of its own
    monkeypatch.setenv("LLMJOBS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine, "MEASURE_S", 0.5)
    monkeypatch.setattr(plan_model, "_forecast", measured_once(plan_model._forecast))
    return world


def plan(capsys: Any, name: str, *changes: str) -> tuple[int, dict[str, Any]]:
    arguments = ["plan", name, "--json", *(part for one in changes for part in ("--set", one))]
    with pytest.raises(SystemExit) as done:
        main(arguments)
    printed = capsys.readouterr()
    assert printed.out, printed.err
    return int(done.value.code), json.loads(printed.out)


def memory_of(monkeypatch: Any, gib: float) -> None:
    monkeypatch.setattr(plan_model, "memory_bytes", lambda: round(gib * GIB))


def bfloat16(name: str) -> list[str]:
    """As large as a T4's float16, and computed on any CPU."""
    return [f"models[{at}].dtype=bfloat16" for at in range(len(load_manifest(name).models))]


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_shipped_manifest_can_be_planned(real_shapes, monkeypatch, capsys, name):
    memory_of(monkeypatch, T4)
    study = load_manifest(name)
    code, found = plan(capsys, name, *bfloat16(name))
    assert code == 0, [(one["error"], one["fits"]) for one in found["models"]]
    assert list(dict.fromkeys(one["id"] for one in found["models"])) == [model.id for model in study.models]
    for model in found["models"]:
        assert model["error"] is None and not [unit for unit in model["units"] if unit["error"]]
        if facts := FACTS.get(model["id"]):
            assert model["parameters"] == facts["parameters"]
            assert model["gated"] is facts["gated"]
            assert model["fits"] is True, model
            assert name not in FOR_8_GB or model["needed_bytes"] < 8 * GIB, model
    if study.eval:
        units = sum(len(one.subject_names()) for one in study.eval.benchmarks)
        assert [len(one["units"]) for one in found["models"]] == [units] * len(study.models)
    served = [seen for seen in real_shapes.hub.seen if seen.path.endswith(".safetensors") and seen.method == "GET"]
    assert served == [], "a plan fetches no weights"


def test_the_large_ones_fit_a_t4_by_their_quantization_alone(real_shapes, monkeypatch, capsys):
    memory_of(monkeypatch, T4)
    large = [model.id for model in load_manifest("medium").models if model.quantization == "4bit"]
    assert len(large) == 3 and all(FACTS[name]["parameters"] > 7e9 for name in large)
    plain = [f"models=[{{id: {large[0]}, dtype: bfloat16}}]", "eval.benchmarks[0].subjects=[astronomy]"]
    code, found = plan(capsys, "medium", *plain)
    (model,) = found["models"]
    assert (code, model["fits"]) == (1, False)
    assert model["fits_with"]["4bit"] < 8 * GIB < T4 * GIB < model["needed_bytes"]


def test_without_access_the_gated_model_is_named_and_the_other_planned(real_shapes, capsys):
    real_shapes.log_in(None)
    gated, free = "meta-llama/Llama-3.2-1B", "HuggingFaceTB/SmolLM2-135M"
    code, found = plan(capsys, "small", f"models=[{gated}, {free}]", "eval.benchmarks[0].subjects=[astronomy]")
    first, second = found["models"]
    assert code == 1 and "is gated and there is no token" in first["error"]
    assert (second["error"], second["gated"], second["parameters"]) == (None, False, FACTS[free]["parameters"])
