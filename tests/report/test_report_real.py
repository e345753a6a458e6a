"""The report on real models' answers, its overlap figures against plain numpy."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from run_folders import dump_lines

from llmjobs.errors import DataError
from llmjobs.make_report import make_report
from llmjobs.report.assemble import assemble
from llmjobs.report.measure import Measures
from llmjobs.report.measure.accuracy import compare_metrics
from llmjobs.report.read.formats import read

ACCURACIES = {
    "meta-llama/Llama-3.1-8B": 0.6532,
    "meta-llama/Llama-3.2-1B-Instruct": 0.5096,
    "allenai/OLMo-2-0425-1B-SFT": 0.4294,
    "allenai/OLMo-2-1124-7B": 0.6527,
    "Qwen/Qwen2.5-0.5B": 0.4988,
    "Qwen/Qwen2.5-7B": 0.7471,
}
WHERE = {"study": "study-1", "device": "cuda"}


@pytest.fixture(scope="module")
def measures(shared_data: Path) -> Measures:
    runs = read(shared_data / "mmlu_predictions" / "predictions.csv", "mmlu")
    notes = shared_data / "mmlu_redux" / "mmlu_redux"
    return Measures(assemble(runs, where=WHERE, questions=shared_data / "mmlu" / "test", label_notes=notes))


@pytest.fixture(scope="module")
def answers(shared_data: Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Models, subjects, gold letters and answers, read with nothing of the library."""
    kept: dict[str, dict[tuple[str, int], tuple[str, str]]] = {}
    with (shared_data / "mmlu_predictions" / "predictions.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (
                row["study"] == "study-1"
                and row["device"] == "cuda"
                and "_10_subjects_" in f"_10_subjects_{row['run']}"
            ):
                kept.setdefault(row["model"], {}).setdefault(
                    (row["subject"], int(row["doc_id"])), (row["gold"], row["prediction"])
                )
    keys = sorted(next(iter(kept.values())))
    assert all(sorted(found) == keys for found in kept.values())
    gold = np.array([next(iter(kept.values()))[key][0] for key in keys])
    table = np.array([[found[key][1] for key in keys] for found in kept.values()])
    return list(kept), np.array([subject for subject, _ in keys]), gold, table


def test_accuracies_of_the_six_models(measures: Measures) -> None:
    found = measures.accuracy["mmlu"]
    told = {measures.study.entries[m.entry].info.id: round(m.interval.value, 4) for m in found.models}
    assert told == ACCURACIES
    assert all(model.n == 2131 for model in found.models)
    assert found.benchmark.chance == 0.25


def test_a_repeated_run_is_held_against_the_first(measures: Measures) -> None:
    (repeat,) = measures.study.repeats
    assert (repeat.questions, repeat.same) == (252, 252)


def test_overlap_equals_plain_numpy(
    measures: Measures, answers: tuple[list[str], np.ndarray, np.ndarray, np.ndarray]
) -> None:
    names, subject, gold, table = answers
    wrong = table != gold
    found = measures.overlap["mmlu"]
    assert list(found.missed_by) == [int(np.sum(wrong.sum(axis=0) == k)) for k in range(7)]
    place = {measures.study.entries[found.benchmark.rows[row]].info.id: row for row in found.rows}
    pairs = {(p.first, p.second): p for p in found.pairs}
    for a, b in itertools.combinations(range(6), 2):
        x, y = sorted((place[names[a]], place[names[b]]))
        pair = pairs[x, y]
        both = wrong[a] & wrong[b]
        right_a, right_b = 1 - wrong[a].mean(), 1 - wrong[b].mean()
        assert pair.errors.both_wrong == both.sum()
        assert pair.errors.expected == pytest.approx(wrong[a].sum() * wrong[b].sum() / 2131)
        assert pair.errors.phi == pytest.approx(np.corrcoef(wrong[a], wrong[b])[0, 1])
        assert pair.errors.jaccard == pytest.approx(both.sum() / (wrong[a] | wrong[b]).sum())
        chance = right_a * right_b + (1 - right_a) * (1 - right_b)
        assert pair.errors.kappa == pytest.approx(((wrong[a] == wrong[b]).mean() - chance) / (1 - chance))
        within = sum(
            wrong[a][subject == s].sum() * wrong[b][subject == s].sum() / (subject == s).sum() for s in set(subject)
        )
        assert pair.errors.expected_in_strata == pytest.approx(within)
        assert pair.same.same == np.sum(table[a][both] == table[b][both])
        letters_chance = right_a * right_b + (1 - right_a) * (1 - right_b) / 3
        same = np.mean(table[a] == table[b])
        assert pair.capa == pytest.approx((same - letters_chance) / (1 - letters_chance))
    assert found.oracle.value == pytest.approx(1 - wrong.all(axis=0).mean())
    missed = wrong.all(axis=0)
    shares = [np.mean(table[a][missed] == table[b][missed]) for a, b in itertools.combinations(range(6), 2)]
    same = found.same_answer
    assert same is not None
    assert same.share == pytest.approx(np.mean(shares))
    expected = 0.0
    for a, b in itertools.combinations(range(6), 2):
        for letter in "ABCD":
            x, y = table[a][missed & (gold == letter)], table[b][missed & (gold == letter)]
            expected += sum(np.sum(x == other) * np.sum(y == other) for other in "ABCD") / max(len(x), 1)
    assert same.habit == pytest.approx(expected / 15 / missed.sum())
    assert found.excess.value == pytest.approx(found.missed_by[-1] - found.expected[-1])
    assert found.all_same == np.sum((table[:, missed] == table[0, missed]).all(axis=0))


def test_the_permutation_p_of_all_missed_is_that_of_real_shuffles(
    measures: Measures, answers: tuple[list[str], np.ndarray, np.ndarray, np.ndarray]
) -> None:
    _, subject, gold, table = answers
    wrong, rng = table != gold, np.random.default_rng(1)
    most = 0
    for _ in range(200):
        shuffled = wrong.copy()
        for name in np.unique(subject):
            here = np.flatnonzero(subject == name)
            for row in shuffled:
                row[here] = row[rng.permutation(here)]
        most = max(most, int(shuffled.all(axis=0).sum()))
    assert most < measures.overlap["mmlu"].missed_by[-1]
    assert measures.overlap["mmlu"].all_p < 0.001


def test_label_notes_mark_faulty_questions(measures: Measures) -> None:
    notes = measures.study.label_notes
    assert len(notes) > 950
    faulty = sum(note != "ok" for note in notes.values())
    found = measures.overlap["mmlu"]
    missed = [("mmlu", str(found.benchmark.subject[c]), found.benchmark.doc_id[c]) for c in found.all_missed]
    reviewed = [notes[key] for key in missed if key in notes]
    assert sum(note != "ok" for note in reviewed) / len(reviewed) > 2 * faulty / len(notes)


def test_unlike_studies_are_refused_and_compared_when_asked(shared_data: Path) -> None:
    runs = read(shared_data / "mmlu_predictions" / "predictions.csv")
    with pytest.raises(DataError, match=r"not comparable.*2,643.*2,131.*252 in common.*--common"):
        assemble(runs)
    study = assemble(runs, common=True)
    assert study.benchmarks[0].n == 252
    assert any("common questions" in notice.what for notice in study.notices)


def test_one_letter_and_unread_replies_raise_an_alarm(shared_data: Path) -> None:
    table = shared_data / "mmlu_predictions" / "predictions.csv"
    study = Measures(assemble(read(table), where={"study": "study-3"}))
    alarmed = [study.label(study.study.benchmarks[0], p.row) for p in study.patterns["predictions"] if p.one_letter]
    assert alarmed == ["TinyLlama-1.1B-Chat-v1.0"]
    helm = Measures(assemble(read(shared_data / "mmlu_predictions" / "helm_raw_completions.csv")))
    unread = {helm.study.entries[m.entry].info.id: m.unparsed for m in helm.accuracy["helm_raw_completions"].models}
    assert [count for name, count in unread.items() if "gpt-4-1106" in name] == [151]


def test_hellaswag_accuracies_by_two_metrics(shared_data: Path, tmp_path: Path) -> None:
    """Sums give acc, means by byte acc_norm: the published figures, and their paired difference."""
    folder = shared_data / "hellaswag"
    lines = (folder / "hellaswag_val_full.txt").read_text(encoding="utf-8").splitlines()
    gold = [int(line) for line in lines[1::6]]
    scores = {}
    for name in (
        "sum_meta-llama--Llama-3.2-1B",
        "byte_mean_meta-llama--Llama-3.2-1B",
        "HuggingFaceTB--SmolLM2-1.7B",
        "Qwen--Qwen2.5-1.5B",
        "meta-llama--Llama-3.2-1B",
    ):
        scores[name] = np.loadtxt(folder / "loglikelihoods" / f"{name}.csv", delimiter=",", skiprows=1)
    picks = {name: table.argmax(axis=1) for name, table in scores.items()}
    records = []
    for model, plain, normed in (
        ("meta-llama/Llama-3.2-1B", "sum_meta-llama--Llama-3.2-1B", "byte_mean_meta-llama--Llama-3.2-1B"),
        ("HuggingFaceTB/SmolLM2-1.7B", "HuggingFaceTB--SmolLM2-1.7B", "HuggingFaceTB--SmolLM2-1.7B"),
        ("Qwen/Qwen2.5-1.5B", "Qwen--Qwen2.5-1.5B", "Qwen--Qwen2.5-1.5B"),
    ):
        for number, right in enumerate(gold):
            metrics = {"acc": int(picks[plain][number] == right), "acc_norm": int(picks[normed][number] == right)}
            records.append({
                "model": model, "benchmark": "hellaswag", "doc_id": number, "gold": "ABCD"[right],
                "prediction": "ABCD"[picks[normed][number]], "metrics": metrics,
                "loglikelihoods": list(scores[normed][number]),
            })  # fmt: skip
    dump_lines(tmp_path / "hellaswag.jsonl", records)
    measures = Measures(assemble(read(tmp_path / "hellaswag.jsonl")))
    found = {measures.study.entries[m.entry].info.id: m for m in measures.accuracy["hellaswag"].models}
    llama = found["meta-llama/Llama-3.2-1B"]
    assert round(llama.metrics["acc"], 4) == 0.4698
    assert round(llama.metrics["acc_norm"], 4) == 0.6232
    assert round(found["HuggingFaceTB/SmolLM2-1.7B"].interval.value, 3) == 0.693
    by_row = dict(compare_metrics(measures.study.benchmarks[0], "acc", "acc_norm"))
    result = by_row[llama.row]
    assert result.difference == pytest.approx(0.1534, abs=2e-4)
    assert result.p < 1e-100
    assert len(measures.pairs["hellaswag"]) == 3


def test_the_whole_report_on_the_six_models(shared_data: Path, tmp_path: Path) -> None:
    made = make_report(
        [shared_data / "mmlu_predictions" / "predictions.csv"],
        tmp_path / "report.pdf",
        where=WHERE,
        name="mmlu",
        questions=shared_data / "mmlu" / "test",
    )
    told = " ".join(finding.sentence for finding in made.findings)
    assert (
        "Qwen2.5-7B has 9.4 points more right than Llama-3.1-8B, which ranks next, on the same 2,131 questions" in told
    )
    assert "all six models miss 169 of 2,131 questions. If mistakes were independent within each subject" in told
    part = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["report"]
    assert part["missed_by_all"][0]["missed_by"][-1] == 169
    assert len(part["missed_by_all"][0]["doc_ids"]) == 169
