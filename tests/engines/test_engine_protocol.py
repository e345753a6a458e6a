"""The protocol is complete: an engine of one file, put into the registry, runs jobs, a chat, a plan and a resume."""

import json
import sys
from pathlib import Path

import pytest
import toy_engine
import yaml

from llmjobs.cli import main
from llmjobs.engines import protocol, registry
from llmjobs.eval import job as eval_job
from llmjobs.manifest.engine_names import ENGINES, engine_names
from llmjobs.manifest.models import ModelSpec
from llmjobs.work.journal import read_records


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(ENGINES, "toy", "toy_engine")
    monkeypatch.setitem(sys.modules, "toy_engine", toy_engine)
    monkeypatch.setattr(toy_engine, "loaded", [])


def run(*arguments, expect=0):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == expect


def study(folder: Path) -> Path:
    """Twenty questions with options and twenty without."""
    rows = [{"question": f"What is {n}?", "answer": "A", "a": f"one {n}", "b": "two"} for n in range(20)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = {"file": "q.jsonl", "question": "question", "answer": "answer"}
    benchmarks = [plain | {"name": "options", "choices": ["a", "b"]}, plain | {"name": "replies"}]
    models = [{"id": "toy-1", "name": "toy", "engine": "toy"}]
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"models": models, "eval": {"benchmarks": benchmarks, "batch_tokens": 64}}))
    return path


def records(results: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in results.rglob("records.jsonl")}


def stop_after(step, count):
    def stops(self, index):
        if index >= count:
            raise RuntimeError("stopped here")
        return step(self, index)

    return stops


def test_an_engine_of_one_file_runs_an_eval_and_a_resume_to_the_same_bytes(tmp_path, monkeypatch):
    path = study(tmp_path)
    run("eval", path, "--results", tmp_path / "whole")
    found = json.loads((tmp_path / "whole/study/eval/toy/model.json").read_text())
    assert (found["engine"], found["architecture"], found["dtype"]) == ("toy", "Toy", "float64")
    assert found["decoding"]["path"] == "one by one"
    whole = records(tmp_path / "whole")
    assert {name.partition(".")[0] for name in whole} == {"options", "replies"}
    folder = next((tmp_path / "whole").rglob("options*/records.jsonl"))
    assert all(one["status"] == "ok" and len(one["loglikelihoods"]) == 2 for one in read_records(folder))
    with monkeypatch.context() as patch:
        for work in (eval_job.LoglikelihoodWork, eval_job.GenerationWork):
            patch.setattr(work, "step", stop_after(work.step, 1))
        run("eval", path, "--results", tmp_path / "broken", expect=3)
    assert records(tmp_path / "broken") != whole
    run("eval", path, "--results", tmp_path / "broken")
    assert records(tmp_path / "broken") == whole
    assert toy_engine.loaded == ["toy"] * 3


def test_another_engine_is_another_run(tmp_path, monkeypatch, capsys):
    path = study(tmp_path)
    run("eval", path, "--results", tmp_path / "r")
    monkeypatch.setitem(ENGINES, "other", "toy_engine")
    run("eval", path, "--results", tmp_path / "r", "--set", "models[0].engine=other", expect=1)
    assert "engine_asked was 'toy' and is now 'other'" in capsys.readouterr().err


def test_the_engine_holds_a_chat_that_is_resumed(tmp_path, capsys):
    chat = ["chat", "toy-1", "--set", "models[0].engine=toy", "--results", tmp_path, "--temperature", "1"]
    run(*chat, "--once", "Hello")
    first = capsys.readouterr().out
    run(*chat, "--once", "Hello")
    assert capsys.readouterr().out == first != ""
    run("chat", "--resume", "--results", tmp_path, "--once", "And now?")
    assert capsys.readouterr().out.strip()
    assert len(toy_engine.loaded) == 3


def test_its_plan_says_what_it_takes(tmp_path, capsys):
    run("plan", study(tmp_path), "--json")
    (found,) = json.loads(capsys.readouterr().out)["models"]
    assert (found["error"], found["dtype"], found["fits"]) == (None, "float64", True)
    assert all(unit["tokens"]["questions"] == 20 for unit in found["units"])


def test_an_unknown_engine_is_refused_with_the_names(tmp_path, capsys):
    path = study(tmp_path)
    path.write_text(path.read_text().replace("engine: toy", "engine: transfomers"))
    run("eval", path, "--results", tmp_path / "r", expect=2)
    told = capsys.readouterr().err
    assert f"models[0].engine: 'transfomers' is not one of {', '.join(engine_names())};" in told
    assert "did you mean 'transformers'?" in told and "toy" in told


def test_every_engine_has_every_function():
    wanted = [name for name in vars(protocol.EngineModule) if not name.startswith("_")]
    assert len(wanted) > 10
    for name in ENGINES:
        address = "http://127.0.0.1:1/v1" if name == "endpoint" else None
        module = registry.engine_of(ModelSpec(id="a/b", engine=name, endpoint=address))
        assert [one for one in wanted if not callable(getattr(module, one, None))] == []
