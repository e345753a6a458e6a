"""Trials before the first question are kept for the next run, and a run continues as it began."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmjobs.cli import main
from llmjobs.engines.transformers import score
from llmjobs.engines.trial_cache import FOLDER, cache_folder
from llmjobs.eval import job


@pytest.fixture
def study(tmp_path, llama, mmlu_rows):
    benchmark = {"name": "mmlu", "subjects": ["astronomy", "business_ethics"], "num_fewshot": 2, "data": str(mmlu_rows)}
    models = [{"id": str(llama), "name": "tiny", "dtype": "float32", "device": "cpu"}]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"models": models, "eval": {"benchmarks": [benchmark], "threads": 1}}))
    return path


@pytest.fixture
def tried(monkeypatch) -> list[str]:
    """What was tried."""
    seen: list[str] = []
    probe, measure = score.Scorer.probe, score.measure_batch_tokens

    def probing(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append("probe")
        return probe(self, *args, **kwargs)

    def measuring(*args: Any, **kwargs: Any) -> Any:
        seen.append("budget")
        return measure(*args, **kwargs)

    monkeypatch.setattr(score.Scorer, "probe", probing)
    monkeypatch.setattr(score, "measure_batch_tokens", measuring)
    return seen


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


def model_json(results: Path) -> dict[str, Any]:
    (found,) = results.rglob("model.json")
    return dict(json.loads(found.read_text()))


def records(results: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(results.rglob("records.jsonl"))]


def test_a_second_run_of_the_same_model_tries_nothing(study, tmp_path, tried):
    assert run("eval", study, "--results", tmp_path / "a") == 0
    assert tried == ["probe", "budget"], "once a model, not once a unit"
    first = model_json(tmp_path / "a")
    assert first["probe"]["path"] == "shared" and first["budget"]["batch_tokens"] == first["batch_tokens"]
    assert run("eval", study, "--results", tmp_path / "b") == 0
    assert tried == ["probe", "budget"]
    assert model_json(tmp_path / "b") == first
    assert records(tmp_path / "a") == records(tmp_path / "b")


@pytest.mark.parametrize("damage", ["not json", "[]", "", '{"for": {}, "found": {"probe": {"path": "plain"}}}'])
def test_a_damaged_entry_is_ignored_with_a_line_at_most(study, tmp_path, tried, damage, caplog):
    assert run("eval", study, "--results", tmp_path / "a") == 0
    (entry,) = (cache_folder() / FOLDER).glob("*.json")
    entry.write_text(damage)
    with caplog.at_level(logging.WARNING):
        assert run("eval", study, "--results", tmp_path / "b") == 0
    assert tried == ["probe", "budget"] * 2 and not caplog.records
    assert model_json(tmp_path / "a")["probe"]["path"] == model_json(tmp_path / "b")["probe"]["path"]


def kept_otherwise(**probe: Any) -> None:
    (entry,) = (cache_folder() / FOLDER).glob("*.json")
    content = json.loads(entry.read_text())
    content["found"]["probe"] |= probe
    content["found"]["budget"]["batch_tokens"] = 256
    entry.write_text(json.dumps(content))


def stopped_after_the_first_unit(monkeypatch, study: Path, results: Path) -> None:
    work, opened = job.EvalJob._work, []

    def stops(self: Any, *args: Any) -> Any:
        if opened:
            raise KeyboardInterrupt
        opened.append(True)
        return work(self, *args)

    monkeypatch.setattr(job.EvalJob, "_work", stops)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - however the command ends
        main(["eval", str(study), "--results", str(results)])
    monkeypatch.setattr(job.EvalJob, "_work", work)


def test_a_resumed_run_goes_by_its_own_record_not_by_what_is_kept(study, tmp_path, tried, monkeypatch):
    assert run("eval", study, "--results", tmp_path / "whole") == 0
    stopped_after_the_first_unit(monkeypatch, study, tmp_path / "r")
    before = model_json(tmp_path / "r")
    kept_otherwise(path="plain")
    del tried[:]
    assert run("eval", study, "--results", tmp_path / "r") == 0
    assert tried == []
    after = model_json(tmp_path / "r")
    assert {key: after[key] for key in before} == before
    assert records(tmp_path / "r") == records(tmp_path / "whole")


def test_what_was_recorded_elsewhere_is_tried_again(study, tmp_path, tried, monkeypatch):
    stopped_after_the_first_unit(monkeypatch, study, tmp_path / "r")
    (file,) = (tmp_path / "r").rglob("model.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"measured_on": "another machine"}))
    monkeypatch.setenv("LLMJOBS_CACHE", str(tmp_path / "elsewhere"))
    del tried[:]
    assert run("eval", study, "--results", tmp_path / "r") == 0
    assert tried == ["probe"], "the batches stay those that the run began with"


def test_a_slower_path_is_said_once(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(score.SharedPath, "refuses", lambda self, model: "not this one")
    for results in ("a", "b"):
        assert run("eval", study, "--results", tmp_path / results) == 0
        assert capsys.readouterr().err.count("scoring on the cached path: not this one") == 1


def test_a_run_of_an_older_version_goes_on(study, tmp_path, tried, monkeypatch):
    stopped_after_the_first_unit(monkeypatch, study, tmp_path / "r")
    (file,) = (tmp_path / "r").rglob("model.json")
    old = json.loads(file.read_text())
    for name in ("measured_on", "budget"):
        del old[name]
    del old["probe"]["layers"]
    file.write_text(json.dumps(old))
    assert run("eval", study, "--results", tmp_path / "r") == 0


def test_reading_ahead_of_a_small_study_is_small(study, tmp_path, monkeypatch):
    """Tokens that are read before the first question, over all forwards, are no more than the study's own."""
    read: list[int] = []
    opening = job.open_model

    def counting(*args: Any, **how: Any) -> Any:
        engine = opening(*args, **how)
        engine.loaded.model.register_forward_pre_hook(
            lambda _, __, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        return engine

    monkeypatch.setattr(job, "open_model", counting)
    ahead: list[int] = []
    prepare = job.EvalModel.prepare_scoring

    def preparing(self: Any, *args: Any) -> None:
        before = sum(read)
        prepare(self, *args)
        ahead.append(sum(read) - before)

    monkeypatch.setattr(job.EvalModel, "prepare_scoring", preparing)
    assert run("eval", study, "--results", tmp_path / "r") == 0
    assert len(ahead) == 2 and ahead[1] == 0
    assert 0 < ahead[0] <= sum(read) - sum(ahead)
