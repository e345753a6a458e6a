"""Stop when it is decided: the order of the questions, who is asked, resuming, completing, and what is reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmjobs.cli import main
from llmjobs.eval.job import EvalModel
from llmjobs.statistics.sequential import question_blocks
from llmjobs.work.journal import read_records

SUBJECTS = ["number_size", "odd_one_out", "repeat_words"]
MODELS = [{"id": f"llmjobs/demo-{name}", "name": name, "dtype": "float32"} for name in ("tiny", "base")]


def study(folder: Path, stop: Any = None, name: str = "race", **changes: Any) -> Path:
    section = {"benchmarks": [{"name": "demo", "subjects": SUBJECTS}], "batch_tokens": 1024, "threads": 1}
    section |= {"stop": stop} if stop else {}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"models": MODELS, "eval": section} | changes))
    return path


def run(path: Path, results: Path, *arguments: str, expect: int = 0) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(path), "--results", str(results), *arguments])
    assert ended.value.code == expect
    return summary(results / path.stem)


def summary(run_folder: Path) -> dict[str, Any]:
    return json.loads((run_folder / "summary.json").read_text())["eval"]


def answered(run_folder: Path, model: str) -> dict[tuple[str, int], dict[str, Any]]:
    files = sorted((run_folder / "eval" / model).rglob("records.jsonl"))
    return {(r["subject"], r["doc_id"]): r for file in files for r in read_records(file)}


@pytest.fixture(scope="module")
def race(tmp_path_factory) -> Path:
    """The results of a study that stops when the best model is known."""
    folder = tmp_path_factory.mktemp("race")
    run(study(folder, {"best": 95}), folder / "results")
    return folder / "results" / "race"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The results of the same study with every question."""
    folder = tmp_path_factory.mktemp("whole")
    run(study(folder), folder / "results")
    return folder / "results" / "race"


def test_it_stops_early_and_says_why(race, whole):
    found = summary(race)
    (decided,) = found["stop"]["races"]
    assert found["stop"]["rule"] == {"best": 95.0, "over": "benchmark"}
    assert found["status"] == "complete" and not found["units_missing"]
    assert decided["decided"] and decided["by"] == "rule" and decided["leaders"] == ["base"]
    assert decided["asked"] < decided["population"] == len(answered(whole, "base"))
    asked, population = decided["asked"], decided["population"]
    of = f"{asked} of {population} questions"
    assert decided["sentence"] == f"demo: decided after {of}: base is the best (95% confidence)"
    assert {one["model"]: one["asked"] for one in decided["models"]} == {"tiny": asked, "base": asked}
    assert all(one["low"] <= one["accuracy"] <= one["high"] and one["low"] < one["high"] for one in decided["models"])
    for model in ("tiny", "base"):
        assert len(answered(race, model)) == decided["asked"]


def test_the_questions_are_the_first_blocks_of_the_recorded_order(race, whole):
    sizes = [len([1 for subject, _ in answered(whole, "base") if subject == one]) for one in SUBJECTS]
    keys = [one for one, size in zip(SUBJECTS, sizes, strict=True) for _ in range(size)]
    ids = [at for size in sizes for at in range(size)]
    expected, asked = set(), summary(race)["stop"]["races"][0]["asked"]
    for block in question_blocks([f"demo.{key}" for key in keys], seed=0):
        if len(expected) < asked:
            expected |= {(keys[at], ids[at]) for at in block}
    assert set(answered(race, "base")) == expected
    unit = json.loads((race / "eval/base/demo.number_size/unit.json").read_text())
    assert sorted(at for block in unit["effective"]["blocks"]["docs"] for at in block) == list(range(sizes[0]))


def test_answers_equal_those_of_a_whole_run(race, whole):
    for model in ("tiny", "base"):
        full = answered(whole, model)
        for key, record in answered(race, model).items():
            assert record["prediction"] == full[key]["prediction"]
            if record["loglikelihoods"]:
                assert record["loglikelihoods"] == pytest.approx(full[key]["loglikelihoods"], abs=1e-3)


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to / "results" / folder.name)
    return to / "results"


def test_again_nothing_is_loaded(race, tmp_path, monkeypatch, capsys):
    results = copy_of(race, tmp_path)
    before = summary(race)["stop"]
    monkeypatch.setattr(EvalModel, "__init__", lambda *_: pytest.fail("a model was loaded"))
    assert run(study(tmp_path, {"best": 95}), results, "--show")["stop"] == before
    shown = capsys.readouterr().out
    assert before["races"][0]["sentence"] in shown
    assert shown.count(" · question ") == sum(len(answered(race, model)) for model in ("tiny", "base"))


def test_a_dry_run_says_what_is_decided(race, tmp_path, capsys):
    results = copy_of(race, tmp_path)
    path = study(tmp_path, {"best": 95})
    for place, expected in ((results, summary(race)["stop"]["races"][0]["sentence"]), (tmp_path / "new", None)):
        with pytest.raises(SystemExit) as ended:
            main(["eval", str(path), "--results", str(place), "--dry-run"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out.splitlines()
        assert shown[-1] == expected or (expected is None and shown[-1] == "demo: not decided after 0 of 300 questions")
    assert not (tmp_path / "new").exists()


def test_without_the_rule_the_study_is_completed(race, whole, tmp_path):
    results = copy_of(race, tmp_path)
    kept = {path: path.read_bytes() for path in race.rglob("records.jsonl")}
    found = run(study(tmp_path), results)
    assert "stop" not in found and found["status"] == "complete"
    for path, content in kept.items():
        assert (results / "race" / path.relative_to(race)).read_bytes().startswith(content)
    for model in ("tiny", "base"):
        ours, full = answered(results / "race", model), answered(whole, model)
        assert {key: r["prediction"] for key, r in ours.items()} == {key: r["prediction"] for key, r in full.items()}


def test_with_a_rule_a_complete_study_asks_nothing_more(race, whole, tmp_path, monkeypatch):
    results = copy_of(whole, tmp_path)
    monkeypatch.setattr(EvalModel, "__init__", lambda *_: pytest.fail("a model was loaded"))
    (decided,) = run(study(tmp_path, {"best": 95}), results)["stop"]["races"]
    assert decided == summary(race)["stop"]["races"][0]


def test_a_model_that_cannot_be_loaded_leaves_the_race(tmp_path, race):
    models = [*MODELS, {"id": str(tmp_path / "nowhere"), "name": "missing"}]
    path = study(tmp_path, {"best": 95}, models=models)
    found = run(path, tmp_path / "results", expect=3)
    (decided,) = found["stop"]["races"]
    assert decided["leaders"] == ["base"] and decided["failed"] == ["missing"]
    assert answered(tmp_path / "results" / "race", "base").keys() == answered(race, "base").keys()


@pytest.mark.parametrize(
    ("stop", "line"),
    [
        ({}, "give exactly one of best, compare, lose, precision (given: none)"),
        ({"best": 95, "lose": 1}, "give exactly one of best, compare, lose, precision (given: best and lose)"),
        ({"best": 120}, "stop.best"),
        ({"best": 95, "reference": "base"}, "reference: only applies to lose:"),
        ({"lose": 1}, "eval.stop.lose: no two models have the same id; name the one to compare with in reference:"),
        ({"lose": 1, "reference": "bse"}, "eval.stop.reference: 'bse' is not one of tiny, base; did you mean 'base'?"),
    ],
)
def test_a_rule_that_cannot_be_used(tmp_path, capsys, stop, line):
    path = study(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["eval"]["stop"] = stop
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(path), "--results", str(tmp_path / "r")])
    assert ended.value.code not in (0, 3, 75)
    told = capsys.readouterr().err
    assert line in told and len(told.strip().splitlines()) == 1


def test_each_precision_against_its_reference(tmp_path):
    models = [MODELS[1], MODELS[1] | {"name": "again"}, MODELS[0]]
    found = run(study(tmp_path, {"lose": 30}, models=models), tmp_path / "results")
    (decided,) = found["stop"]["races"]
    (pair,) = decided["pairs"]
    assert (pair["first"], pair["second"], pair["outcome"]) == ("again", "base", "holds")
    assert "again loses at most 30 points" in decided["sentence"]
    outcomes = {one["model"]: one["outcome"] for one in decided["models"]}
    assert outcomes["base"] == "reference" and outcomes["again"] == "loses at most 30 points"
    assert not answered(tmp_path / "results" / "race", "tiny"), "nothing is compared with it"


def test_a_rule_for_the_whole_study(tmp_path):
    rows = "".join(json.dumps({"q": f"What is {n}?", "a": "A", "x": "one", "y": "two"}) + "\n" for n in range(40))
    (tmp_path / "own.jsonl").write_text(rows)
    own = {"file": str(tmp_path / "own.jsonl"), "question": "q", "choices": ["x", "y"], "answer": "a"}
    path = study(tmp_path, {"precision": 40, "over": "study"})
    content = yaml.safe_load(path.read_text())
    content["eval"]["benchmarks"].append(own)
    path.write_text(yaml.safe_dump(content))
    (decided,) = run(path, tmp_path / "results")["stop"]["races"]
    assert decided["name"] == "study" and decided["population"] == 340
    asked = answered(tmp_path / "results" / "race", "base")
    assert len(asked) == decided["asked"] < 340 and {"all", "number_size"} <= {subject for subject, _ in asked}


def test_a_unit_that_was_begun_in_another_order_is_asked_to_its_end(tmp_path, monkeypatch):
    path = study(tmp_path)
    real, calls = EvalModel.write, []

    def stopped(model: EvalModel) -> None:
        calls.append(model)
        real(model)
        if len(calls) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(EvalModel, "write", stopped)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        main(["eval", str(path), "--results", str(tmp_path / "results")])
    monkeypatch.undo()
    begun = [p.parent.name for p in (tmp_path / "results").rglob("records.jsonl") if p.stat().st_size]
    assert begun
    (decided,) = run(study(tmp_path, {"best": 95}), tmp_path / "results")["stop"]["races"]
    assert decided["leaders"] == ["base"]
    asked = answered(tmp_path / "results" / "race", "tiny")
    assert sum(subject == begun[0].removeprefix("demo.") for subject, _ in asked) == 100


def test_a_plan_says_how_many_questions_a_rule_needs(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(study(tmp_path, {"best": 95})), "--results", str(tmp_path)])
    assert ended.value.code == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: stop:")]
    assert "demo: of 300 questions, about" in line and "if the best model leads by 10 points" in line


@pytest.mark.parametrize("begun", ["complete", "one subject"])
def test_a_model_joins_a_study_that_was_begun_without_the_rule(tmp_path, whole, race, begun):
    results = copy_of(whole, tmp_path)
    if begun == "one subject":
        for model in ("tiny", "base"):
            for subject in SUBJECTS[1:]:
                shutil.rmtree(results / "race" / "eval" / model / f"demo.{subject}")
    models = [*MODELS, MODELS[1] | {"name": "again"}]
    (decided,) = run(study(tmp_path, {"best": 95}, models=models), results)["stop"]["races"]
    assert decided["decided"] and decided["failed"] == []
    asked = {one["model"]: one["asked"] for one in decided["models"]}
    assert asked["again"] == asked["base"] > summary(race)["stop"]["races"][0]["asked"], "several blocks were asked"


def test_a_benchmark_may_be_called_study(tmp_path):
    benchmarks, columns = [], {"question": "q", "choices": ["x", "y"], "answer": "a"}
    for name, count in (("study", 4), ("other", 6)):
        file = tmp_path / f"{name}.jsonl"
        rows = ({"q": f"What is {n}?", "a": "A", "x": "one", "y": "two"} for n in range(count))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        benchmarks.append({"file": str(file), **columns})
    path = study(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["eval"] |= {"benchmarks": benchmarks, "stop": {"precision": 1}}
    path.write_text(yaml.safe_dump(content))
    races = run(path, tmp_path / "results")["stop"]["races"]
    assert {race["name"]: race["population"] for race in races} == {"study": 4, "other": 6}


def test_a_newest_checkpoint_that_is_missing_loses_no_model(race, tmp_path):
    """A kill between two renames leaves only the previous checkpoint."""
    results = copy_of(race, tmp_path)
    for file in (results / "race" / "eval").rglob("checkpoint.pkl"):
        file.rename(file.with_name("checkpoint.pkl.previous"))
    assert run(study(tmp_path, {"best": 95}), results)["stop"] == summary(race)["stop"]
