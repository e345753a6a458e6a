"""Other tools' logs, written here in their layouts."""

import json
from pathlib import Path

import pytest
from run_folders import dump, dump_lines

from llmjobs.report.assemble import assemble
from llmjobs.report.measure import Measures
from llmjobs.report.read.formats import read
from llmjobs.report.study import RawRun


def write_lm_eval(folder: Path, model: str, flip: int) -> Path:
    place = folder / model.replace("/", "__")
    for subject in ("astronomy", "virology"):
        lines = []
        for number in range(12):
            gold = number % 4
            pick = (gold + 1) % 4 if number % flip == 0 else gold
            pairs = [[str(-1.0 if option == pick else -3.0 - option), "False"] for option in range(4)]
            lines.append({
                "doc_id": number, "doc": {"question": f"Q{number}?", "choices": ["w", "x", "y", "z"], "answer": gold},
                "target": str(gold), "resps": [[pair] for pair in pairs], "filtered_resps": pairs,
                "doc_hash": "h", "acc": float(pick == gold),
            })  # fmt: skip
        dump_lines(place / f"samples_mmlu_{subject}_2026-01-02T03-04-05.678901.jsonl", lines)
    dump(place / "results_2026-01-02T03-04-05.678901.json", {
        "model_name": model,
        "config": {"model_args": f"pretrained={model},revision=abc,load_in_4bit=True", "device": "cuda:0"},
        "n-shot": {"mmlu_astronomy": 5, "mmlu_virology": 5}, "versions": {"mmlu_astronomy": 1},
        "total_evaluation_time_seconds": "12.5",
    })  # fmt: skip
    return place


def test_lm_eval_samples(tmp_path: Path) -> None:
    write_lm_eval(tmp_path, "org/one", 3)
    write_lm_eval(tmp_path, "org/two", 4)
    (run,) = read(tmp_path)
    study = assemble([run])
    assert [entry.info.id for entry in study.entries] == ["org/two", "org/one"]
    info = study.entries[0].info
    assert (info.revision, info.quantization, info.device) == ("abc", "4bit", "cuda")
    assert study.entries[0].cost is not None
    assert study.entries[0].cost.real_s == 12.5
    (benchmark,) = study.benchmarks
    assert (benchmark.name, benchmark.n, benchmark.subjects) == ("mmlu", 24, ["astronomy", "virology"])
    measures = Measures(study)
    assert measures.accuracy["mmlu"].of(0).right == 18
    assert measures.overlap["mmlu"].pairs[0].capa_from == "probabilities"
    assert benchmark.questions[0] is not None
    assert benchmark.protocol["num_fewshot"] == "5"


def test_lm_eval_generation_with_two_filters(tmp_path: Path) -> None:
    lines = []
    for number in range(4):
        for name, reply, right in (("strict", "[invalid]", 0.0), ("flexible", str(number), float(number != 2))):
            lines.append({"doc_id": number, "doc": {"question": "How many?"}, "target": str(number),
                          "filter": name,
                          "resps": [[f"I think {number}"]], "filtered_resps": [reply],
                          "exact_match": right})  # fmt: skip
    dump_lines(tmp_path / "samples_gsm8k_2026-01-02T03-04-05.678901.jsonl", lines)
    run = read(tmp_path / "samples_gsm8k_2026-01-02T03-04-05.678901.jsonl")[0]
    study = assemble([run])
    (benchmark,) = study.benchmarks
    assert benchmark.metric == "exact_match,strict"
    assert benchmark.correct.sum() == 0
    assert benchmark.chance == 0.0
    assert {table.name: table.values.mean() for table in study.metrics} == {
        "exact_match,strict": 0.0,
        "exact_match,flexible": 0.75,
    }
    assert assemble([run], where={"metric": "exact_match,flexible"}).benchmarks[0].correct.sum() == 3
    assert any("no results file" in notice.what for notice in run.notices)


def test_inspect_log(tmp_path: Path) -> None:
    samples = [
        {"id": n, "epoch": 1, "input": f"Q{n}", "choices": ["a", "b", "c", "d"], "target": "B",
         "output": {"choices": [{"message": {"content": "ANSWER: B"}}]},
         "scores": {"choice": {"value": "C" if n % 2 else "I", "answer": "B" if n % 2 else "A"}}}
        for n in range(6)
    ]  # fmt: skip
    samples.append({"id": 6, "epoch": 1, "input": "Q6", "target": "B", "error": {"message": "boom"}, "scores": {}})
    samples.append({**samples[1], "epoch": 2})
    log = {
        "version": 2,
        "status": "cancelled",
        "eval": {"task": "mmlu_0_shot", "model": "hf/org/model"},
        "samples": samples,
    }
    log["stats"] = {"started_at": "2026-01-01T00:00:00+00:00", "completed_at": "2026-01-01T00:01:40+00:00"}
    dump(tmp_path / "log.json", log)
    (run,) = read(tmp_path / "log.json")
    measures = Measures(assemble([run]))
    (model,) = measures.accuracy["mmlu"].models
    assert (model.n, model.right, model.errors) == (6, 3, 1)
    assert run.partial
    assert measures.study.entries[0].info.id == "org/model"
    assert measures.study.entries[0].cost is not None
    assert measures.study.entries[0].cost.real_s == 100
    assert any("2 epochs" in notice.what for notice in run.notices)


def test_helm_folder(tmp_path: Path) -> None:
    run_spec = {
        "name": "mmlu:subject=astronomy,model=org_m",
        "adapter_spec": {"model": "org/m", "max_train_instances": 5},
    }
    dump(tmp_path / "run_spec.json", run_spec)
    references = [{"output": {"text": t}, "tags": ["correct"] if t == "y" else []} for t in ("x", "y", "z")]
    instances = [{"id": f"id{n}", "input": {"text": f"Q{n}"}, "references": references} for n in range(3)]
    dump(tmp_path / "instances.json", instances)
    replies = [(" B", "y", 1), (" A", "x", 0), ("I cannot", None, 0)]
    lines = [
        {"instance_id": f"id{n}", "predicted_text": text, "mapped_output": mapped, "stats": {"exact_match": score}}
        for n, (text, mapped, score) in enumerate(replies)
    ]
    dump(tmp_path / "display_predictions.json", [*lines, {**lines[0], "perturbation": {"name": "typos"}}])
    (run,) = read(tmp_path)
    (benchmark,) = assemble([run]).benchmarks
    assert (benchmark.name, benchmark.subjects, benchmark.n) == ("mmlu", ["astronomy"], 3)
    assert list(benchmark.status[0]) == [0, 0, 1]
    assert benchmark.gold[0] == "B"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "model,question_id,answer,gold,prob_A,prob_B\nm,1,A,A,0.7,0.3\nm,2,B,A,0.4,0.6\n,3,A,A,,\n"),
        ("t.jsonl", '{"model":"m","id":1,"pred":"A","target":"A","probabilities":[0.7,0.3]}\n'
                    '{"model":"m","id":2,"pred":"B","target":"A","probabilities":[0.4,0.6]}\n{"id":3,"pred":"","target":"A"}\n'),
    ],
)  # fmt: skip
def test_plain_tables(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (run,) = read(tmp_path / name)
    (benchmark,) = assemble([run]).benchmarks
    assert benchmark.correct.tolist() == [[1.0, 0.0]]
    table = benchmark.loglikelihoods[0]
    assert table is not None
    assert table.shape == (2, 2)
    assert "1 row does not name a model or a question" in run.notices[0].what


def test_only_right_and_wrong(tmp_path: Path) -> None:
    rows = [{"model": m, "id": i, "correct": int(i % k == 0)} for m, k in (("a", 2), ("b", 3)) for i in range(30)]
    dump_lines(tmp_path / "marks.jsonl", rows)
    (run,) = read(tmp_path / "marks.jsonl")
    measures = Measures(assemble([run]))
    assert [model.right for model in measures.accuracy["marks"].models] == [15, 10]
    found = measures.overlap["marks"]
    assert found.missed_by.sum() == 30
    assert measures.study.benchmarks[0].chance == 0.0
    assert any("only right and wrong" in notice.what for notice in run.notices)


def test_broken_files_do_not_raise(tmp_path: Path) -> None:
    from llmjobs.report.read.json_files import read_json, read_lines

    run = RawRun(tmp_path, "test")
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.jsonl").write_bytes(b'{"a": 1}\n\xff\xfe\n[2]\n{"b": ')
    assert read_json(tmp_path / "a.json", run, "a") == {}
    assert list(read_lines(tmp_path / "b.jsonl", run, "b")) == [{"a": 1}]
    assert json.dumps([str(notice) for notice in run.notices]).count("b:") == 2


def accuracies(folder: Path, text: str) -> dict[str, tuple[int, int]]:
    """Right answers and questions of each model in a table."""
    folder.mkdir(exist_ok=True)
    (folder / "t.csv").write_text(text, encoding="utf-8")
    study = assemble(read(folder / "t.csv"))
    found = Measures(study).accuracy["t"]
    return {study.entries[model.entry].info.id: (model.right, model.n) for model in found.models}


def test_marks_count_where_no_prediction_is_known(tmp_path: Path) -> None:
    """A prediction column under an unknown name, or none, must not turn answers marked right into wrong ones."""
    rows = [(f"q{n}", "ABCD"[n % 4], n % 3 > 0) for n in range(24)]
    marked = [f"m,{q},{gold},x,{right}" for q, gold, right in rows]
    assert accuracies(tmp_path, "\n".join(["model,id,gold,my_answer,is_correct", *marked])) == {"m": (16, 24)}
    scored = [f"m,{q},{gold},{int(right)}" for q, gold, right in rows]
    assert accuracies(tmp_path, "\n".join(["model,id,gold,score", *scored])) == {"m": (16, 24)}
    (run,) = read(tmp_path / "t.csv")
    assert any("no answers" in notice.what for notice in run.notices)


def test_a_mark_without_an_answer_is_told(tmp_path: Path) -> None:
    rows = [f"m,q{n},B,{'B' if n else ''},1" for n in range(8)]
    assert accuracies(tmp_path, "\n".join(["model,id,gold,predicted_answer,correct", *rows])) == {"m": (7, 8)}
    (run,) = read(tmp_path / "t.csv")
    assert any("contradicts" in notice.what and "1 of 8" in notice.what for notice in run.notices)


@pytest.mark.parametrize("first", [0, 1])
def test_places_written_as_floats(tmp_path: Path, first: int) -> None:
    """Data frames write whole numbers as ``1.0`` if another row of the column is empty."""
    rows = [f"m,q{n},{n % 4 + first}.0,{'ABCD'[n % 4 if n % 3 else (n + 1) % 4]}" for n in range(24)]
    header = "model,id,gold,prediction"
    assert accuracies(tmp_path, "\n".join([header, *rows, "m,q24,,A"])) == {"m": (16, 24)}
    turned = [",".join((m, q, b, a)) for m, q, a, b in (row.split(",") for row in rows)]
    assert accuracies(tmp_path, "\n".join([header, *turned])) == {"m": (16, 24)}
