"""Readers against the tools' own figures: each metric separately, the same numbers, and a notice if they differ."""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import FakeRun, dump, dump_lines

from llmjobs.errors import DataError
from llmjobs.make_report import make_report
from llmjobs.report.assemble import assemble
from llmjobs.report.blocks import Table
from llmjobs.report.measure import Measures
from llmjobs.report.measure.scores import mean_interval
from llmjobs.report.read import inspect_log
from llmjobs.report.read.formats import read
from llmjobs.report.sections import how_it_was_made
from llmjobs.report.study import Study

DATE = "2026-01-02T03-04-05.678901"


def study_of(*paths: Path, **options: Any) -> Study:
    return assemble([run for path in paths for run in read(path)], **options)


def figures(study: Study) -> dict[str, dict[str, float]]:
    """Model → accuracy by benchmark."""
    found: dict[str, dict[str, float]] = {}
    for benchmark in study.benchmarks:
        for row, place in enumerate(benchmark.rows):
            model = study.entries[place].info.id
            found.setdefault(model, {})[benchmark.name] = float(np.nanmean(benchmark.correct[row]))
    return found


def means(study: Study) -> dict[tuple[str, str, str], float]:
    """(Model, benchmark, metric) → mean."""
    return {
        (study.entries[place].info.id, table.benchmark, table.name): float(np.nanmean(table.values[row]))
        for table in study.metrics
        for row, place in enumerate(table.rows)
    }


def told(study: Study) -> str:
    return "\n".join(map(str, study.notices))


def test_every_figure_of_real_lm_eval_logs_is_found_again(shared_cases: Path) -> None:
    (run,) = read(shared_cases / "lm_eval_real")
    assert run.checks == (14, 14)
    study = assemble([run])
    found, right = means(study), figures(study)
    for folder in sorted((shared_cases / "lm_eval_real").iterdir()):
        own = json.loads(next(folder.glob("results*.json")).read_text())
        model = own["model_name"]
        for name in ("strict-match", "flexible-extract"):
            metric = f"exact_match,{name}"
            assert found[model, "gsm8k", metric] == pytest.approx(own["results"]["gsm8k"][metric])
        for name in ("acc", "acc_norm"):
            assert found[model, "hellaswag", name] == pytest.approx(own["results"]["hellaswag"][f"{name},none"])
        assert found[model, "truthfulqa_mc2", "mc2"] == pytest.approx(own["results"]["truthfulqa_mc2"]["acc,none"])
        assert right[model]["hellaswag"] == pytest.approx(own["results"]["hellaswag"]["acc_norm,none"]), "quoted by it"
        assert right[model]["gsm8k"] == pytest.approx(own["results"]["gsm8k"]["exact_match,strict-match"])
    assert [table.benchmark for table in study.graded] == ["truthfulqa_mc2"]
    assert "truthfulqa_mc2" not in {benchmark.name for benchmark in study.benchmarks}
    assert "mmlu_business_ethics" in told(study)


def lm_eval(folder: Path, task: str, lines: Sequence[dict[str, Any]], own: dict[str, float], **more: Any) -> Path:
    dump_lines(folder / f"samples_{task}_{DATE}.jsonl", lines)
    results = {"model_name": "org/m", "results": {task: own}, "n-shot": {task: 0}, "versions": {task: 1.0}, **more}
    dump(folder / f"results_{DATE}.json", results)
    return folder


def test_a_results_file_that_disagrees_with_its_samples_is_told(tmp_path: Path) -> None:
    lines = [
        {"doc_id": n, "target": "x", "filtered_resps": ["x"], "resps": [["x"]], "filter": "none", "metrics": ["em"],
         "em": float(n < 3)} for n in range(10)
    ]  # fmt: skip
    study = study_of(lm_eval(tmp_path, "t", lines, {"em,none": 0.7}))
    assert figures(study)["org/m"]["t"] == pytest.approx(0.3)
    assert "em,none is 0.7000 in the log's own summary, but its records give 0.3000 of 10" in told(study)
    study = study_of(lm_eval(tmp_path, "t", lines, {"em,none": 0.3, "sample_len": 20}))
    assert "is 0.3000 of 20 questions in the log's own summary, but the log contains 10" in told(study)


def test_two_lm_eval_folders_of_one_model_are_one_model(tmp_path: Path) -> None:
    for task in ("one", "two"):
        lines = [
            {"doc_id": n, "target": "x", "filtered_resps": ["x"], "filter": "none", "metrics": ["acc"], "acc": 1.0}
            for n in range(4)
        ]
        lm_eval(tmp_path / task, task, lines, {"acc,none": 1.0})
    study = study_of(tmp_path / "one", tmp_path / "two")
    assert len(study.entries) == 1
    assert {benchmark.name for benchmark in study.benchmarks} == {"one", "two"}


def test_inspect_logs_give_their_own_accuracy(shared_cases: Path) -> None:
    for file in sorted((shared_cases / "inspect_real").glob("*.eval")):
        try:
            (run,) = read(file)
        except DataError as error:
            assert "backports.zstd" in str(error)
            pytest.skip("no Zstandard in this environment")
        assert run.checks == (1, 1)
        assert len(run.entries[0].records["mmlu"]) == 387
    first = study_of(
        shared_cases / "inspect_real" / "2026-11-27T00-51-04-00-00_mmlu-0-shot_C4AZGrATAnHvrJWE23tBhK.eval"
    )
    assert next(iter(figures(first).values()))["mmlu"] == pytest.approx(0.3979, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "mean", "graded"),
    [
        ("inspect_real/first-60-samples.json", 0.25, False),
        ("inspect_made/two.json", 0.25, False),
        ("inspect_made/frac.json", 0.625, True),
    ],
)
def test_inspect_json_by_the_scorer_that_the_log_names(
    shared_cases: Path, name: str, mean: float, graded: bool
) -> None:
    study = study_of(shared_cases / name)
    if graded:
        (table,) = study.graded
        assert table.values.mean() == pytest.approx(mean)
        assert table.values.shape[1] == 60
        assert not study.benchmarks
    else:
        assert next(iter(figures(study).values()))["mmlu"] == pytest.approx(mean)
    assert "0.3979 of 387 questions in the log's own summary, but the log contains 60" in told(study)


def inspect(
    samples: Sequence[dict[str, Any]], results: dict[str, Any] | None, status: str = "success"
) -> dict[str, Any]:
    spec = {"task": "quiz", "model": "hf/org/m"}
    log: dict[str, Any] = {"version": 2, "status": status, "eval": spec, "samples": list(samples)}
    return log | ({"results": results} if results else {})


def scored(scorer: str, value: float, n: int, reducer: str | None = None) -> dict[str, Any]:
    metrics = {"accuracy": {"name": "accuracy", "value": value}}
    return {"name": scorer, "scorer": scorer, "reducer": reducer, "scored_samples": n, "metrics": metrics}


def epochs(values: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    return [
        {
            "id": n,
            "epoch": at + 1,
            "input": f"Q{n}",
            "target": "x",
            "scores": {"match": {"value": value, "answer": "x"}},
        }
        for n, several in enumerate(values)
        for at, value in enumerate(several)
    ]


@pytest.mark.parametrize(
    ("reducer", "mean"),
    [("mean", 0.5), ("mode", 0.5), ("median", 0.5), ("max", 1.0), ("pass_at_2", 0.8333333), ("at_least_2", 0.5)],
)
def test_epochs_are_reduced_as_the_log_says(tmp_path: Path, reducer: str, mean: float) -> None:
    samples = epochs([["C", "C", "I"], ["I", "I", "C"]])
    dump(tmp_path / "log.json", inspect(samples, {"scores": [scored("match", mean, 2, reducer)]}))
    (run,) = read(tmp_path / "log.json")
    assert run.checks == (1, 1), run.notices
    assert any("3 epochs" in notice.what and reducer in notice.what for notice in run.notices)


def test_partial_credit_and_unscored_samples(tmp_path: Path) -> None:
    samples = epochs([["P"], [0.25], [True], ["no"], [float("nan")]])
    dump(tmp_path / "log.json", inspect(samples, {"scores": [scored("match", 0.4375, 4)]}))
    (run,) = read(tmp_path / "log.json")
    assert run.checks == (1, 1), run.notices
    (table,) = assemble([run]).graded
    assert table.name == "match"
    assert int(np.isnan(table.values).sum()) == 1


def test_an_eval_file_is_read_cut_damaged_or_unfinished(tmp_path: Path) -> None:
    samples = epochs([["C"], ["I"], ["C"]])
    log = inspect([], {"scores": [scored("match", 2 / 3, 3)]})
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(log))
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
    (run,) = read(path)
    assert run.checks == (1, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"not a complete \.eval file"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_journal/start.json", json.dumps({"version": 2, "eval": log["eval"]}))
        archive.writestr("samples/0_epoch_1.json", json.dumps(samples[0]))
        archive.writestr("samples/1_epoch_1.json", "{torn")
    (run,) = read(path)
    assert run.partial
    assert len(run.entries[0].records["quiz"]) == 1
    assert any("1 of 2 records" in notice.what for notice in run.notices)


def test_an_eval_file_that_this_python_cannot_unpack_names_the_remedy(
    shared_cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_log, "_zip_module", lambda: zipfile)
    with pytest.raises(DataError, match=r"Zstandard.*pip install backports\.zstd"):
        read(next((shared_cases / "inspect_real").glob("*.eval")))


@pytest.mark.parametrize("suite", ["suite", "suite_raw"])
def test_helm_runs_of_a_model_are_joined_over_its_subjects(shared_cases: Path, suite: str) -> None:
    study = study_of(shared_cases / "helm_layout" / suite)
    (benchmark,) = study.benchmarks
    assert (benchmark.n, benchmark.subjects, len(benchmark.rows)) == (280, ["econometrics", "virology"], 2)
    assert {info.info.id for info in study.entries} == {"meta/llama-3-70b", "openai/gpt-4-0613"}


def helm_raw(folder: Path, subject: str, right: Sequence[int], own: float) -> Path:
    """What helm-run leaves, without helm-summarize."""
    place = folder / f"mmlu:subject={subject},method=multiple_choice_joint,model=org_m"
    spec = {"name": place.name, "adapter_spec": {"method": "multiple_choice_joint", "model": "org/m"}}
    texts = ("p", "q", "r", "s")
    states, stats = [], []
    for number, score in enumerate(right):
        references = [{"output": {"text": t}, "tags": ["correct"] if t == "q" else []} for t in texts]
        instance = {"id": f"id{number}", "split": "test", "input": {"text": f"{subject} {number}?"},
                    "references": references}  # fmt: skip
        states.append({
            "instance": instance, "train_trial_index": 0, "output_mapping": dict(zip("ABCD", texts, strict=True)),
            "result": {"success": True, "completions": [{"text": " B" if score else " C"}]},
        })  # fmt: skip
        name = {"name": "exact_match", "split": "test"}
        line = {"instance_id": f"id{number}", "train_trial_index": 0}
        stats.append({**line, "stats": [{"name": name, "count": 1, "sum": float(score), "mean": float(score)}]})
        stats.append({**stats[-1], "perturbation": {"name": "typos"}})
    dump(place / "run_spec.json", spec)
    dump(place / "scenario_state.json", {"adapter_spec": {}, "request_states": states})
    dump(place / "per_instance_stats.json", stats)
    dump(place / "stats.json", [{"name": {"name": "exact_match", "split": "test"}, "count": 1, "mean": own}])
    return place


def test_raw_helm_runs_are_read_with_their_questions_and_checked(tmp_path: Path) -> None:
    helm_raw(tmp_path / "runs" / "v1", "one", [1, 0, 1, 1], 0.75)
    helm_raw(tmp_path / "runs" / "v1", "two", [1, 1], 0.5)
    (run,) = read(tmp_path)
    study = assemble([run])
    (benchmark,) = study.benchmarks
    assert (benchmark.n, benchmark.metric) == (6, "acc")
    assert list(benchmark.gold) == ["B"] * 6
    assert run.checks == (1, 2)
    assert "exact_match (test) is 0.5000 in the log's own summary, but its records give 1.0000 of 2" in told(study)
    assert benchmark.questions[0] is not None


TABLES = {
    "missing_gold": {"m-a": (39, 60), "m-b": (41, 60)},
    **dict.fromkeys(
        ("lower", "index_gold", "semicolon", "utf16", "contradict"),
        {"m-a": (89, 120), "m-b": (77, 120), "m-c": (73, 120)},
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_however_they_are_written(shared_cases: Path, name: str) -> None:
    study = study_of(shared_cases / "report" / f"{name}.csv")
    found = {
        study.entries[model.entry].info.id: (model.right, model.n) for model in Measures(study).accuracy[name].models
    }
    assert found == TABLES[name]
    if name == "missing_gold":
        assert "20 questions have no gold answer; 40 rows are left out" in told(study)
    if name == "contradict":
        assert "contradicts gold answer and prediction in 121 of 360 rows" in told(study)


def test_a_table_without_gold_is_refused_until_questions_bring_it(shared_cases: Path, tmp_path: Path) -> None:
    path = shared_cases / "report" / "no_gold_at_all.csv"
    with pytest.raises(DataError, match="no row has a gold answer.*--questions"):
        study_of(path)
    for subject in ("astronomy", "virology"):
        (tmp_path / f"{subject}.csv").write_text("".join(f"Q{n},w,x,y,z,C\n" for n in range(200)))
    study = study_of(path, questions=tmp_path)
    assert study.benchmarks[0].n > 0
    assert set(study.benchmarks[0].gold) == {"C"}
    assert "scored against the answers from --questions" in told(study)


def test_repeated_ids_with_unlike_answers_are_left_out_and_told(shared_cases: Path) -> None:
    study = study_of(shared_cases / "report" / "dup_pred.csv")
    assert study.benchmarks[0].n == 65
    assert "15 question ids occur more than once for m-a with different answers" in told(study)


def test_a_fractional_score_is_a_mean_score(shared_cases: Path, tmp_path: Path) -> None:
    made = make_report([shared_cases / "report" / "score_frac.csv"], tmp_path / "report.pdf", html=True)
    assert "On score_frac, a has a mean score (score) of 66.5% over 50 questions" in made.findings[0].sentence
    rows = (tmp_path / "scores.csv").read_text().splitlines()
    assert [line.split(",")[4:8] for line in rows[1:]] == [["a", "a", "50", "0.665"], ["b", "b", "50", "0.625"]]


def test_mean_intervals_are_students_and_alike_scores_are_not_certain() -> None:
    values = np.array([0.25, 0.5, 0.75, 1.0] * 10)
    value, low, high = mean_interval(values)
    half = 2.0226909 * values.std(ddof=1) / 40**0.5
    assert (value, low, high) == pytest.approx((0.625, 0.625 - half, 0.625 + half))
    assert mean_interval(np.ones(10)) == pytest.approx((1.0, 0.722467, 1.0), abs=1e-5)


CSV = "model,id,gold,pred\n"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("model;id;gold;ll_A;ll_B\nm;1;A;-0,5;-2\nm;2;A;-3;-1,5\n", [1, 0]),
        ("model,id,gold,nll_0,nll_1\nm,1,0,0.5,2\nm,2,1,3,1.5\nm,3,0,9,1\n", [1, 1, 0]),
        ("sep=;\nmodel;id;gold;pred\nm;1;A;(a)\nm;2;B;A.\n", [1, 0]),
        ("model\tid\tgold\tpred\nm\t1\tA\tA. Paris\nm\t2\tB\tAnswer: B\n", [1, 1]),
        (CSV + "m,1,1,A\nm,2,4,D\nm,3,2,D\n", [1, 1, 0]),
        (CSV + "m,1,A,0\nm,2,B,3\n", [1, 0]),
        (CSV + "m,1,T,T\nm,2,F,T\n", [1, 0]),
        ("model,id,choices,gold,pred\n" + 'm,1,"[""red"",""blue""]",blue,B\nm,2,"[""a1"",""b1""]",a1,b1\n', [1, 0]),
        ("model,id,answer,pred\nm,1,B,b\nm,2,A,b\n", [1, 0]),
        ("\n\nmodel,id,gold,pred\rm,1,A,A\rm,2,B,A\r", [1, 0]),
    ],
)  # fmt: skip
def test_answers_in_other_forms(tmp_path: Path, text: str, right: list[int]) -> None:
    (tmp_path / "t.csv").write_text(text)
    study = study_of(tmp_path / "t.csv")
    assert study.benchmarks[0].correct.tolist() == [right]
    assert not study.notices


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (CSV + "m,1,1,A\nm,2,2,D\n", "unclear whether counting starts at 0 or 1"),
        ("model,id,score\nm,1,55\nm,2,80\n", "scores range from 55 to 80.*divide percentages by 100"),
        ("model,question_id,judge,judgment,score,turn\nm,1,j,x,7,1\n", "FastChat judgments.*llmjobs mtbench"),
        ("model,id,gold,gold\nm,1,A,A\n", "names gold twice"),
        ("m,1,A,B\nm,2,A,A\n", "a first row that names its columns"),
    ],
)
def test_tables_that_cannot_be_right_are_refused(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=error):
        study_of(tmp_path / "t.csv")


def test_a_cut_row_is_no_wrong_answer(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV + "m,1,A,A\nm,2,B\n")
    study = study_of(tmp_path / "t.csv")
    assert study.benchmarks[0].correct.tolist() == [[1.0]]
    assert "1 of 2 rows has a different number of cells than the header (4)" in told(study)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    shape = FakeRun(skills={"own": 0.5}, subjects=("sums", "sorting"), questions=12, benchmark="mmlu")
    return shape.write(tmp_path / "run")


def docs(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    files = sorted((folder / "docs").glob("*.jsonl"))
    return [(f.stem.partition(".")[2], json.loads(line)) for f in files for line in f.read_text().splitlines()]


def as_lm_eval(run: Path, folder: Path) -> Path:
    for subject in ("sums", "sorting"):
        lines = []
        for name, doc in docs(run):
            if name == subject:
                gold = "ABCD".index(doc["gold"])
                scores = [["-1.0" if at == (gold + doc["doc_id"] % 2) % 4 else "-4.0", "False"] for at in range(4)]
                lines.append({
                    "doc_id": doc["doc_id"], "doc": {"question": doc["question"], "choices": doc["choices"]},
                    "target": str(gold), "filtered_resps": scores, "filter": "none", "metrics": ["acc"],
                    "acc": float(doc["doc_id"] % 2 == 0),
                })  # fmt: skip
        dump_lines(folder / f"samples_mmlu_{subject}_{DATE}.jsonl", lines)
    tasks = ("mmlu_sums", "mmlu_sorting")
    shots = {"n-shot": dict.fromkeys(tasks, 2), "versions": dict.fromkeys(tasks, 1.0)}
    dump(folder / f"results_{DATE}.json", {"model_name": "org/other", **shots})
    return folder


def as_inspect(run: Path, folder: Path) -> Path:
    """The same questions under other ids, in another order, options turned round."""
    samples = []
    for number, (subject, doc) in enumerate(reversed(docs(run))):
        choices = doc["choices"][::-1]
        target = "DCBA"["ABCD".index(doc["gold"])]
        wrong = "BCDA"["ABCD".index(target)]
        samples.append({
            "id": number, "epoch": 1, "input": f" {doc['question']}\n", "choices": choices, "target": target,
            "metadata": {"subject": subject.upper()},
            "scores": {"choice": {"value": "C" if number % 3 else "I", "answer": target if number % 3 else wrong}},
        })  # fmt: skip
    log = inspect(samples, None) | {"eval": {"task": "mmlu_2_shot", "model": "hf/org/other"}}
    dump(folder / "log.json", log)
    return folder / "log.json"


def as_table(run: Path, folder: Path) -> Path:
    rows = [f"org/other,mmlu,{subject},{doc['doc_id']},{doc['gold']},A" for subject, doc in docs(run)]
    (folder / "t.csv").write_text("model,benchmark,subject,doc_id,gold,pred\n" + "\n".join(rows))
    return folder / "t.csv"


def as_helm(run: Path, folder: Path) -> Path:
    for subject in ("sums", "sorting"):
        place = folder / f"mmlu:subject={subject},model=org_other"
        instances, answers = [], []
        for number, (name, doc) in enumerate(docs(run)):
            if name != subject:
                continue
            right = "ABCD".index(doc["gold"])
            references = [
                {"output": {"text": text}, "tags": ["correct"] if at == right else []}
                for at, text in enumerate(doc["choices"])
            ]
            instances.append({"id": f"id{number}", "input": {"text": doc["question"]}, "references": references})
            answers.append({"instance_id": f"id{number}", "predicted_text": " A", "mapped_output": doc["choices"][0],
                            "stats": {"exact_match": float(right == 0)}})  # fmt: skip
        adapter = {"method": "multiple_choice_joint", "model": "org/other", "max_train_instances": 2}
        dump(place / "run_spec.json", {"name": place.name, "adapter_spec": adapter})
        dump(place / "instances.json", instances)
        dump(place / "display_predictions.json", answers)
    return folder


@pytest.mark.parametrize(
    ("write", "any_prompt"), [(as_lm_eval, True), (as_table, False), (as_inspect, True), (as_helm, True)]
)
def test_a_run_and_another_tools_log_meet_on_every_question(
    tmp_path: Path, run_folder: Path, write: Callable[[Path, Path], Path], any_prompt: bool
) -> None:
    (tmp_path / "other").mkdir()
    other = write(run_folder, tmp_path / "other")
    if any_prompt:
        with pytest.raises(DataError, match=r"prompt differs \(.*original: own.*--any-prompt"):
            study_of(run_folder, other)
    study = study_of(run_folder, other, any_prompt=any_prompt)
    (benchmark,) = study.benchmarks
    assert (benchmark.n, len(benchmark.rows)) == (24, 2)
    assert "version" not in told(study)
    gold = {(subject, str(doc["doc_id"])): doc["gold"] for subject, doc in docs(run_folder)}
    for column, key in enumerate(zip(benchmark.subject, benchmark.doc_id, strict=True)):
        assert benchmark.gold[column] == gold[str(key[0]), key[1]]
    row = next(r for r, place in enumerate(benchmark.rows) if study.entries[place].info.id == "org/other")
    answered = benchmark.answer[row] == benchmark.gold_code
    assert answered.tolist() == (benchmark.correct[row] == 1).tolist()


def test_the_same_ids_on_other_questions_are_refused(tmp_path: Path, run_folder: Path) -> None:
    dump_lines(
        tmp_path / "t.jsonl",
        [
            {"model": "x", "benchmark": "mmlu", "subject": s, "id": d["doc_id"], "gold": "B", "pred": "B"}
            for s, d in docs(run_folder)
        ],
    )
    with pytest.raises(DataError, match="questions have the same id, but a different gold answer"):
        study_of(run_folder, tmp_path / "t.jsonl")


def test_logs_are_compared_by_a_metric_that_all_have(tmp_path: Path) -> None:
    choices = ["a", "bbbbbbbbbb"]
    scores = [[-2.0, -3.0], [-0.5, -9.0]]
    head = {"model": "own", "benchmark": "quiz", "subject": "all", "gold": "B", "status": "ok"}
    records = [
        {**head, "doc_id": n, "prediction": "B" if n == 0 else "A", "correct": n == 0, "loglikelihoods": pair,
         "metrics": {"acc": 0.0, "acc_norm": float(n == 0)}} for n, pair in enumerate(scores)
    ]  # fmt: skip
    run = tmp_path / "run"
    dump_lines(
        run / "docs" / "quiz.all.jsonl", [{"doc_id": n, "question": f"Q{n}", "choices": choices} for n in (0, 1)]
    )
    dump_lines(run / "eval" / "own" / "quiz.all" / "records.jsonl", records)
    dump(run / "eval" / "own" / "quiz.all" / "unit.json", {})
    lines = [
        {"doc_id": n, "doc": {"question": f"Q{n}", "choices": choices}, "target": "1", "filter": "none",
         "filtered_resps": [[str(x), "False"] for x in pair], "metrics": ["acc", "acc_norm"], "acc": 0.0,
         "acc_norm": float(n == 0)} for n, pair in enumerate(scores)
    ]  # fmt: skip
    other = lm_eval(tmp_path / "other", "quiz", lines, {"acc,none": 0.0, "acc_norm,none": 0.5})
    study = study_of(run, other)
    assert study.benchmarks[0].metric == "acc_norm"
    assert figures(study) == {"own": {"quiz": 0.5}, "org/m": {"quiz": 0.5}}
    assert study.benchmarks[0].answer.tolist() == [[1, 0], [1, 0]]
    assert "compared by acc_norm" in told(study)
    assert figures(study_of(run, other, where={"metric": "acc"}))["own"] == {"quiz": 0.0}


def test_where_leaves_a_trace(tmp_path: Path, run_folder: Path) -> None:
    make_report([run_folder], tmp_path / "out" / "report.pdf", where={"subject": "sums"})
    notes = (tmp_path / "out" / "notes.md").read_text()
    assert "selects 1 of 1 model and 12 of 24 records" in notes
    study = study_of(run_folder, where={"subject": "sums"})
    sources = next(
        b for b in how_it_was_made.build(Measures(study)).blocks if isinstance(b, Table) and b.caption == "Sources"
    )
    assert sources.rows[0][2:5] == ["1", "12 of 24", "complete, partly used"]
    assert "subject=sums" in sources.note


def test_questions_that_are_not_the_logs_are_refused(tmp_path: Path) -> None:
    rows = [f"m,sums,{n},{'ABCD'[n % 4]},A" for n in range(20)]
    (tmp_path / "t.csv").write_text("model,subject,id,gold,pred\n" + "\n".join(rows))
    folder = tmp_path / "questions"
    folder.mkdir()
    file = folder / "sums.csv"
    file.write_text("".join(f"Q{n},w,x,y,z,{'ABCD'[(n + 1) % 4]}\n" for n in range(20)))
    with pytest.raises(DataError, match="the answers of sums are not the gold answers of t"):
        study_of(tmp_path / "t.csv", questions=folder)
    file.write_text("".join(f"Q{n},w,x,y,z,{'ABCD'[n % 4] if n else 'D'}\n" for n in range(19)))
    study = study_of(tmp_path / "t.csv", questions=folder)
    assert "1 of 19 answers differs from the log's gold answers" in told(study)
    assert "the file has 19 questions, but 1 id in the log is larger" in told(study)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("t.csv", b"PK\x03\x04rest", "Excel workbook"),
        ("t.xlsx", b"PK\x03\x04rest", "an Excel workbook; save it as CSV"),
        ("t.csv.gz", b"\x1f\x8b", "unpack it first"),
        ("t.csv", b"id,gold,llama,qwen\n1,A,A,B\n", "write one row per model and question"),
        ("t.csv", b"model,id,gold,pred\nm,1,A,A\nm,1,B,A\n", "nothing to report .*more than once for m"),
        (
            "t.csv",
            b'model,id,gold,pred\nm,1,A,A\nm,2,B,"B\nm,3,A,A\nm,4,A,A\n',
            "row 3 contains further rows in one cell",
        ),
        ("t.tsv", b'model\tid\tgold\tpred\nm\t1\t"A\tB\nm\t2\tB\tB\n', "a quote is not closed"),
        (f"samples_x_{DATE}.jsonl", b'{"doc_id": 1, "target": "x", "acc": 40.0}\n', "are not between 0 and 1"),
    ],
)
def test_what_cannot_be_read_names_the_reason(tmp_path: Path, name: str, content: bytes, error: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=error):
        study_of(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        (CSV + "m,1,18,18.0\nm,2,x,X\n", "2 of 2 predictions differ from the gold answer only in case"),
        (CSV + "".join(f"m,{n},{gold},A\n" for n, gold in enumerate("ABCDZ")), "some gold answers are not ('Z')"),
        (CSV + 'm,1,"A,C",A\nm,2,B,B\n', "some answers are an option's letter, but some gold answers are not ('A,C')"),
        (CSV + "m,1,Paris,A\nm,2,Rome,B\n", "some gold answers are not ('Paris', 'Rome')"),
        (CSV + "m,1,A,I think A\nm,2,B,B\n", "1 of 2 predictions is not an option's letter"),
        (
            "model,id,gold,ll_A,ll_B,correct\nm,1,A,-1,-2,1\nm,2,B,-1,-2,1\n",
            "contradicts the largest log-likelihood",
        ),
        ("model,id,gold,ll_A,ll_B\nm,1,A,-1,-2\nm,2,B,oops,-1\n", "log-likelihoods of 1 of 2 rows cannot be parsed"),
        ("model,id,gold,pred,text\nm,1,A,A,caf\xe9\n", "read as Windows-1252"),
    ],
)
def test_what_is_odd_about_a_table_is_told(tmp_path: Path, text: str, notice: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="latin-1")
    assert notice in told(study_of(tmp_path / "t.csv"))


def test_case_alone_makes_no_word_wrong_unless_the_table_says_so(tmp_path: Path) -> None:
    rows = ["m,1,yes,Yes", "m,2,no,No", "m,3,yes,No", "m,4,no, no "]
    (tmp_path / "t.csv").write_text(CSV + "\n".join(rows))
    (tmp_path / "marked.csv").write_text(CSV.strip() + ",correct\n" + "\n".join(f"{row},0" for row in rows))
    for name, right in (("t", 0.75), ("marked", 0.0)):
        study = study_of(tmp_path / f"{name}.csv")
        assert np.asarray(study.benchmarks[0].correct).mean() == right


def test_a_column_of_shares_keeps_its_name_and_all_its_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("model,id,correct\nm,1,0.5\nm,2,1\n")
    (tmp_path / "b.csv").write_text("model,id,gold,pred,f1\nm,1,A,A,0.3\nm,2,A,B,0.6\n")
    assert means(study_of(tmp_path / "a.csv")) == {("m", "a", "score"): 0.75}
    assert means(study_of(tmp_path / "b.csv")) == pytest.approx({("m", "b", "f1"): 0.45})


def test_a_table_of_two_metrics_shows_both(tmp_path: Path) -> None:
    rows = [f"m,{n},A,{'AB'[n % 2]},{1 - n % 2},{int(n % 3 == 0)}" for n in range(9)]
    (tmp_path / "t.csv").write_text("model,id,gold,pred,acc,acc_norm\n" + "\n".join(rows))
    study = study_of(tmp_path / "t.csv")
    assert means(study) == pytest.approx({("m", "t", "acc"): 5 / 9, ("m", "t", "acc_norm"): 3 / 9})
    assert study.benchmarks[0].metric == "acc"


def test_logs_without_texts_and_with_other_ids_name_the_remedy(tmp_path: Path, run_folder: Path) -> None:
    (tmp_path / "other").mkdir()
    rows = as_table(run_folder, tmp_path / "other").read_text().replace("sums,", "sums,q").replace("ing,", "ing,q")
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(
        DataError, match="0 in common; the ids differ and other has no question texts.*--questions FOLDER"
    ):
        study_of(run_folder, tmp_path / "t.csv")


def own_run(folder: Path, benchmark: str, records: Sequence[dict[str, Any]]) -> Path:
    docs_lines = [{"doc_id": record["doc_id"], "question": f"Q{record['doc_id']}", "choices": []} for record in records]
    dump_lines(folder / "docs" / f"{benchmark}.all.jsonl", docs_lines)
    unit = folder / "eval" / "own" / f"{benchmark}.all"
    head = {"model": "own", "benchmark": benchmark, "subject": "all", "loglikelihoods": None, "status": "ok"}
    dump_lines(unit / "records.jsonl", [head | record for record in records])
    dump(unit / "unit.json", {"fingerprint": {"prompt": "lm-eval", "benchmark_version": "1", "num_fewshot": 0}})
    return folder


def test_gsm8k_of_a_run_and_of_lm_eval_meet_filter_by_filter(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run", "gsm8k", [
        {"doc_id": n, "gold": "1000", "prediction": "1000" if n < 1 else "7", "correct": n < 1,
         "metrics": {"exact_match": float(n < 1), "flexible": float(n < 3)}} for n in range(4)
    ])  # fmt: skip
    lines = [
        {"doc_id": n, "doc": {"question": f"Q{n}"}, "target": "so\n#### 1,000", "filter": name, "resps": [["1000"]],
         "filtered_resps": ["1000"], "metrics": ["exact_match"], "exact_match": float(n < right)}
        for name, right in (("strict-match", 2), ("flexible-extract", 4)) for n in range(4)
    ]  # fmt: skip
    own = {"exact_match,strict-match": 0.5, "exact_match,flexible-extract": 1.0}
    other = lm_eval(tmp_path / "other", "gsm8k", lines, own, versions={"gsm8k": 3.0})
    found = means(study_of(run, other))
    assert found == {
        ("own", "gsm8k", "exact_match,strict-match"): 0.25,
        ("own", "gsm8k", "exact_match,flexible-extract"): 0.75,
        ("org/m", "gsm8k", "exact_match,strict-match"): 0.5,
        ("org/m", "gsm8k", "exact_match,flexible-extract"): 1.0,
    }


def test_truthfulqa_mc2_of_a_run_and_of_lm_eval_is_compared_by_its_mean_score(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run", "truthfulqa_mc2", [
        {"doc_id": n, "gold": "A", "prediction": "A", "correct": True, "metrics": {"mc2": 0.6 + 0.1 * n, "acc": 1.0}}
        for n in range(4)
    ])  # fmt: skip
    lines = [
        {"doc_id": n, "doc": {"question": f"Q{n}"}, "target": "0", "filter": "none", "metrics": ["acc"],
         "filtered_resps": [["-1", "False"], ["-2", "False"]], "acc": 0.4 + 0.1 * n} for n in range(4)
    ]  # fmt: skip
    other = lm_eval(tmp_path / "other", "truthfulqa_mc2", lines, {"acc,none": 0.55})
    study = study_of(run, other)
    (table,) = study.graded
    assert table.name == "mc2"
    assert means(study)["own", "truthfulqa_mc2", "mc2"] == pytest.approx(0.75)
    assert means(study)["org/m", "truthfulqa_mc2", "mc2"] == pytest.approx(0.55)
    assert not study.benchmarks
    assert study_of(run).benchmarks[0].correct.tolist() == [[1.0] * 4]


def test_scores_that_contradict_the_answers_are_told(tmp_path: Path) -> None:
    samples = [
        {"id": n, "epoch": 1, "input": f"Q{n}", "choices": ["p", "q"], "target": "A",
         "scores": {"choice": {"value": "C", "answer": "AB"[n % 2]}}} for n in range(4)
    ]  # fmt: skip
    dump(tmp_path / "log.json", inspect(samples, {"scores": [scored("choice", 1.0, 4)]}))
    study = study_of(tmp_path / "log.json")
    assert figures(study)["org/m"]["quiz"] == 1.0
    assert "2 of 4 answers of org/m do not agree with the log's own score (acc)" in told(study)
    lines = [
        {"doc_id": n, "target": "1", "filter": "none", "metrics": ["acc"], "acc": 1.0,
         "filtered_resps": [["-1", "True"], ["-2", "False"]]} for n in range(4)
    ]  # fmt: skip
    study = study_of(lm_eval(tmp_path / "t", "t", lines, {"acc,none": 1.0}))
    assert "4 of 4 scores (acc) of org/m contradict the log-likelihoods" in told(study)


def test_two_scorers_in_two_logs_are_no_repeated_run(tmp_path: Path) -> None:
    dump(tmp_path / "a.json", inspect(epochs([["C"], ["I"]]), {"scores": [scored("match", 0.5, 2)]}))
    other = [{**sample, "scores": {"judge": {"value": "C", "answer": "x"}}} for sample in epochs([["C"], ["C"]])]
    dump(tmp_path / "b.json", inspect(other, {"scores": [scored("judge", 1.0, 2)]}))
    with pytest.raises(DataError, match=r"metric differs \(judge: .*; match: .*\)"):
        study_of(tmp_path)
    dump(tmp_path / "b.json", inspect(epochs([["C"], ["C"]]), {"scores": [scored("match", 1.0, 2)]}))
    study = study_of(tmp_path)
    assert (len(study.entries), study.repeats[0].questions) == (1, 2)
