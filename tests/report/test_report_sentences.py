"""Each sentence of the first page is true: checked on published answers against plain numpy."""

import csv
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_folders import FakeRun, dump, dump_lines
from scipy import stats

from llmjobs.make_report import FINDINGS_SHOWN, ORDER, rank
from llmjobs.report.assemble import assemble
from llmjobs.report.blocks import Finding, Prose
from llmjobs.report.measure import Measures
from llmjobs.report.measure.cost import time_factor
from llmjobs.report.measure.overlap import MODELS, SETTINGS, leading_group
from llmjobs.report.numbers import decimal, percent, points
from llmjobs.report.read.formats import read
from llmjobs.report.sections.differences import what_differs
from llmjobs.report.study import Cost, Entry, ModelInfo
from llmjobs.report.wording import all_of, strength

Answers = dict[str, dict[tuple[str, str], tuple[str, str]]]


def findings(measures: Measures) -> list[Finding]:
    return [found for section in ORDER if section.wanted(measures) for found in section.build(measures).findings]


def sentences(measures: Measures) -> str:
    return " ".join(found.sentence for found in findings(measures))


@pytest.fixture(scope="module")
def predictions(shared_data: Path) -> Path:
    return shared_data / "mmlu_predictions" / "predictions.csv"


@pytest.fixture(scope="module")
def common(predictions: Path) -> Measures:
    """Fourteen models of four people, some at two precisions and on three devices."""
    return Measures(assemble(read(predictions, "mmlu"), common=True))


@pytest.fixture(scope="module")
def biased(predictions: Path) -> Measures:
    return Measures(assemble(read(predictions, "mmlu"), where={"study": "study-3"}))


def test_numbers_are_rounded_half_up() -> None:
    assert [decimal(x) for x in (9.175, 5.475, -0.004, 2.675)] == ["9.18", "5.48", "0.00", "2.68"]
    assert (percent(0.0125), percent(0.5475, 1), points(-0.00049), points(0.1235)) == ("1.3%", "54.8%", "0.0", "12.4")
    assert (all_of(2), all_of(6), strength(0.0999)) == ("both", "all six", "small")


def test_further_runs_of_a_model_change_no_verdict(predictions: Path) -> None:
    runs = read(predictions, "mmlu")
    alone = Measures(assemble(runs, where={"study": "study-1", "device": "cuda"}))
    three = assemble(read(predictions, "mmlu"), where={"study": "study-1", "quantization": "none"})
    with_others = Measures(three)
    assert len(three.entries) > len(alone.study.entries)

    def adjusted(measures: Measures) -> dict[frozenset[str], float]:
        benchmark = measures.study.benchmarks[0]
        name = [measures.study.entries[place].info.id for place in benchmark.rows]
        pairs = [pair for pair in measures.pairs["mmlu"] if pair.family == MODELS]
        return {frozenset((name[pair.first], name[pair.second])): pair.p_holm for pair in pairs}

    assert adjusted(with_others) == pytest.approx(adjusted(alone))
    assert len(adjusted(alone)) == 15
    assert any(pair.family == SETTINGS for pair in with_others.pairs["mmlu"])


def test_two_peoples_runs_of_one_model_say_what_differs(common: Measures) -> None:
    benchmark = common.study.benchmarks[0]
    labels = [common.label(benchmark, row) for row in range(len(benchmark.rows))]
    by_model: dict[str, set[str]] = {}
    for entry in common.study.entries:
        by_model.setdefault(entry.info.id, set()).add(entry.info.study)
    shared = {name for name, studies in by_model.items() if len(studies) > 1}
    assert shared
    for entry in common.study.entries:
        if entry.info.id in shared:
            assert entry.info.study in entry.label
    assert len(set(labels)) == len(labels)
    told = sentences(common)
    assert "the same model under other settings" not in told
    assert "perhaps the prompt and the parsing of replies, which are not recorded" in told


def test_runs_on_two_dates_differ_in_the_date(common: Measures) -> None:
    entry = common.study.entries[0]
    first, second = (
        replace(entry, info=replace(entry.info, details={"prompt_date": date})) for date in ("2026-07-26", "2026-07-27")
    )
    told = what_differs(first, second, common.study.benchmarks[0])
    assert "date in the prompts (2026-07-26, 2026-07-27)" in told


def test_a_verdict_never_contradicts_its_interval(common: Measures) -> None:
    benchmark = common.study.benchmarks[0]
    pairs = [pair for pair in common.pairs["mmlu"] if pair.family == MODELS]
    z = stats.norm.ppf(1 - 0.025 / len(pairs))
    for pair in pairs:
        x, y = benchmark.correct[pair.first], benchmark.correct[pair.second]
        up, down = (np.sum(x > y) + 1) / (len(x) + 2), (np.sum(y > x) + 1) / (len(x) + 2)
        half = z * np.sqrt((up + down - (up - down) ** 2) / (len(x) + 2))
        assert pair.together == pytest.approx((up - down - half, up - down + half))
        if pair.distinguishable:
            assert pair.p_holm < 0.05 and pair.together[0] > 0
    best = common.accuracy["mmlu"].models[0].row
    group = leading_group(pairs, best)
    assert 1 < len(group) < len(pairs)
    first = findings(common)[0].sentence
    assert all(common.label(benchmark, row) in first for row in group)


def test_every_sentence_names_its_benchmark(predictions: Path, tmp_path: Path) -> None:
    with predictions.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["study"] == "study-3"]
    half = sorted({row["subject"] for row in rows})[:5]
    for row in rows:
        row["benchmark"] = "first-half" if row["subject"] in half else "other-half"
    with (tmp_path / "two.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    told = findings(Measures(assemble(read(tmp_path / "two.csv"))))
    assert len(told) > 6
    assert all(("first-half" in found.sentence) != ("other-half" in found.sentence) for found in told)


def test_a_model_at_chance_is_said_to_be(biased: Measures) -> None:
    (model,) = [model for model in biased.patterns["mmlu"] if model.at_chance]
    name = biased.label(biased.study.benchmarks[0], model.row)
    accuracy = biased.accuracy["mmlu"].of(model.row)
    exact = stats.binomtest(accuracy.right, accuracy.n, 0.25, alternative="greater").pvalue
    assert exact > 0.05
    assert model.above_p == pytest.approx(min(1, exact))
    assert f"{name} has {percent(accuracy.interval.value)} right" in sentences(biased)
    assert "no evidence that it is better than blind guessing" in sentences(biased)


def test_a_preferred_letter_is_held_against_what_it_would_score(common: Measures) -> None:
    benchmark = common.study.benchmarks[0]
    above = below = 0
    for model in common.patterns["mmlu"]:
        if not model.one_letter:
            continue
        chosen, gold = benchmark.answer[model.row], benchmark.gold_code
        alone = sum(np.mean(chosen == letter) * np.mean(gold == letter) for letter in range(4))
        assert model.alone == pytest.approx(alone)
        rng = np.random.default_rng(0)
        dealt = np.array([np.sum(rng.permutation(chosen) == gold) for _ in range(4000)])
        assert model.beyond_alone_p == pytest.approx(np.mean(dealt >= np.sum(chosen == gold)), abs=0.03)
        above, below = above + (model.beyond_alone_p < 0.05), below + (model.beyond_alone_p >= 0.05)
    assert above and below, "the data have both: a letter that is all, and one that is not"
    told = " ".join(
        block.text for section in ORDER if section.key == "patterns" for block in section.build(common).blocks
        if isinstance(block, Prose)
    )  # fmt: skip
    assert "its accuracy comes from more than that letter" in told
    assert "about what it knows" not in told


def test_subjects_are_named_only_where_they_differ(biased: Measures, predictions: Path, tmp_path: Path) -> None:
    assert "accuracy averaged over the models is lowest in" in sentences(biased)
    rng = np.random.default_rng(5)
    with predictions.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["study"] == "study-3"]
    keys = sorted({(row["subject"], row["doc_id"]) for row in rows})
    dealt = dict(zip(keys, rng.permutation([subject for subject, _ in keys]), strict=True))
    for row in rows:
        key = (row["subject"], row["doc_id"])
        row["subject"], row["doc_id"] = str(dealt[key]), f"{key[0]}-{key[1]}"
    with (tmp_path / "dealt.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    told = sentences(Measures(assemble(read(tmp_path / "dealt.csv"))))
    assert "lowest in" not in told
    assert "beyond chance" not in told


def test_faulty_labels_are_left_out_as_well(shared_data: Path, predictions: Path) -> None:
    notes = shared_data / "mmlu_redux" / "mmlu_redux"
    runs = read(predictions, "mmlu")
    where = {"study": "study-3"}
    measures = Measures(assemble(runs, where=where, questions=shared_data / "mmlu" / "test", label_notes=notes))
    benchmark = measures.study.benchmarks[0]
    known = measures.study.label_notes
    keys = [("mmlu", str(s), d) for s, d in zip(benchmark.subject, benchmark.doc_id, strict=True)]
    kept = np.array([known.get(key, "ok") == "ok" for key in keys])
    assert 0 < (~kept).sum() < len(keys) / 5
    best = np.argmax(benchmark.correct[:, kept].mean(axis=1))
    told = sentences(measures)
    assert f"has {percent(benchmark.correct[best, kept].mean())} of {kept.sum():,} right" in told
    missed = (benchmark.correct < 0.5).all(axis=0)
    assert f"{(missed & kept).sum()} of {kept.sum():,} are missed, expected" in told


def test_blind_guessers_stand_beside_the_oracle(biased: Measures) -> None:
    found = biased.overlap["mmlu"]
    assert found.guessers == pytest.approx(1 - 0.75**3)
    right = biased.study.benchmarks[0].correct[list(found.rows)]
    assert found.best_alone.value == pytest.approx(right.mean(axis=1).max())
    assert f"three blind guessers: {percent(1 - 0.75**3, 0)}" in sentences(biased)
    counted = sum(pair.p_holm < 0.05 for pair in found.pairs)
    assert f"{counted} of 3 pairs of models share{'s' * (counted == 1)} more mistakes" in sentences(biased)


def test_what_nothing_can_be_learned_from_is_not_on_the_first_page(tmp_path: Path) -> None:
    """No question that all models miss, and none expected: true of any many models, so it gives way to the rest."""
    rng = random.Random(0)
    lines = ["model,subject,id,gold,prediction"]
    for model in range(30):
        lines += [f"m{model:02},s,{i},A,{'A' if rng.random() < 0.7 else 'B'}" for i in range(40)]
    table = tmp_path / "many.csv"
    table.write_text("\n".join(lines))
    found = findings(Measures(assemble(list(read(table, None)))))
    assert next(one.weight for one in found if "models miss 0 of 40" in one.sentence) < 40


def test_a_larger_model_below_its_sister_is_remarked(predictions: Path, tmp_path: Path) -> None:
    with predictions.open(encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file)
            if row["study"] == "study-1" and row["device"] == "cuda" and "Qwen" in row["model"]
        ]  # fmt: skip
    swap = {"Qwen/Qwen2.5-7B": "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B": "Qwen/Qwen2.5-7B"}
    for row in rows:
        row["model"] = swap[row["model"]]
    with (tmp_path / "swapped.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    told = sentences(Measures(assemble(read(tmp_path / "swapped.csv"))))
    assert "Qwen2.5-7B has 24.8 points fewer right than the smaller Qwen2.5-0.5B" in told


def timed(*seconds: float) -> Sequence[Entry]:
    info = ModelInfo("m")
    return [Entry("m", info, "", Cost(real_s=s, questions=100), {"cpu": "c"}, {}) for s in seconds]


def test_single_short_runs_are_not_compared_in_time() -> None:
    quick, slow, long, other = timed(3.0, 9.0, 60.0, 70.0)
    assert time_factor(slow, quick) is None
    assert time_factor(other, long) is None
    assert time_factor(long, slow) == pytest.approx(60 / 9)
    assert time_factor(replace(long, machine={"cpu": "d"}), slow) is None


def test_waiting_for_other_programs_is_no_difference_in_time() -> None:
    """Two runs on one busy processor: one took 2.3 times as long, for 1.5 times the CPU time at most."""
    info = ModelInfo("m", device="cpu")

    def entry(real_s: float, cpu_s: float) -> Entry:
        return Entry("m", info, "", Cost(real_s=real_s, user_s=cpu_s, questions=100), {"cpu": "c"}, {})

    assert time_factor(entry(98.8, 14.6), entry(42.6, 10.0)) is None
    assert time_factor(entry(42.6, 10.0), entry(98.8, 14.6)) is None
    assert time_factor(entry(19.9, 3.7), entry(7.7, 1.5)) is None, "most of both was waiting"
    assert time_factor(entry(400, 60), entry(80, 39)) is None, "so much of the difference was waiting"
    assert time_factor(entry(98.8, 24.0), entry(42.6, 10.0)) == pytest.approx(98.8 / 42.6)
    on_gpu = [replace(e, info=replace(info, device="cuda")) for e in (entry(98.8, 14.6), entry(42.6, 10.0))]
    assert time_factor(*on_gpu) == pytest.approx(98.8 / 42.6)


def test_questions_a_second_are_the_summarys(tmp_path: Path) -> None:
    run = FakeRun().write(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    for model in summary["eval"]["models"]:
        model["questions_per_s"] = 129.6
    dump(run / "summary.json", summary)
    costs = [entry.cost for entry in assemble(read(run)).entries]
    assert [cost.questions_per_s for cost in costs if cost] == [129.6] * 3
    (run / "summary.json").unlink()
    (small,) = [entry.cost for entry in assemble(read(run)).entries if entry.label == "small"]
    assert small is not None
    assert small.questions_per_s == pytest.approx(120 / (3 * 4.5))


def test_confidence_is_read_off_the_scores_that_chose(shared_data: Path, tmp_path: Path) -> None:
    """Plain sums are recorded, answers are those with the largest log-likelihood a byte: acc_norm."""
    folder = shared_data / "hellaswag"
    lines = (folder / "hellaswag_val_full.txt").read_text(encoding="utf-8").splitlines()[: 6 * 600]
    tasks = [lines[at : at + 6] for at in range(0, len(lines), 6)]
    name = "sum_meta-llama--Llama-3.2-1B.csv"
    sums = np.loadtxt(folder / "loglikelihoods" / name, delimiter=",", skiprows=1, max_rows=len(tasks))
    records, docs = [], []
    for number, (task, scores) in enumerate(zip(tasks, sums, strict=True)):
        choices, gold = task[2:], int(task[1])
        by_length = int(np.argmax(scores / [len(choice) for choice in choices]))
        docs.append(
            {"doc_id": number, "question": task[0], "choices": choices, "gold": "ABCD"[gold], "hash": str(number)}
        )
        records.append({
            "model": "m", "benchmark": "hellaswag", "subject": "all", "doc_id": number, "gold": "ABCD"[gold],
            "prediction": "ABCD"[by_length], "correct": by_length == gold, "loglikelihoods": list(scores),
            "status": "ok", "metrics": {"acc": float(np.argmax(scores) == gold), "acc_norm": float(by_length == gold)},
        })  # fmt: skip
    run = tmp_path / "run"
    dump(run / "manifest.yaml", {})
    dump(run / "environment.json", {})
    dump(run / "summary.json", {"run": "run"})
    dump_lines(run / "docs" / "hellaswag.all.jsonl", docs)
    dump_lines(run / "eval" / "m" / "hellaswag.all" / "records.jsonl", records)
    dump(run / "eval" / "m" / "hellaswag.all" / "unit.json", {})
    dump(run / "eval" / "m" / "model.json", {"id": "m"})
    measures = Measures(assemble(read(run)))
    (found,) = measures.patterns["hellaswag"]
    right = np.mean([record["correct"] for record in records])
    plain = np.mean([np.argmax(scores) == "ABCD".index(r["gold"]) for scores, r in zip(sums, records, strict=True)])
    assert found.calibration is not None
    assert found.calibration.accuracy == pytest.approx(right)
    assert abs(right - plain) > 0.05
    assert found.scores_kind == "log-likelihoods per character"


def test_the_intervals_of_a_models_patterns_agree_with_their_tests(biased: Measures) -> None:
    for model, name in itertools.product(biased.patterns["mmlu"], ("subjects", "position")):
        test = getattr(model, name)
        assert test.size.low <= test.size.value <= test.size.high
        if model.p_holm[name] >= 0.05:
            assert test.size.low == 0


def test_warnings_reach_the_first_page() -> None:
    """Sentences on who is best on each of many benchmarks leave room for what is wrong with the figures."""
    best = [Finding("60%", f"best on {n}", 100) for n in range(12)]
    warnings = [Finding("25%", f"at chance on {n}", 93, alarm=True) for n in range(6)]
    ranked = rank([*best, Finding("1", "a detail", 40), *warnings])
    assert [finding.sentence for finding in ranked[:FINDINGS_SHOWN]] == [
        *(f"best on {n}" for n in range(4)),
        *(f"at chance on {n}" for n in range(4)),
    ]
    assert len(ranked) == 19
    assert ranked[-1].sentence == "a detail"
    assert rank(best[:2] + warnings[:1]) == best[:2] + warnings[:1]


def test_the_time_of_a_whole_run_is_not_put_beside_a_part_of_it(shared_cases: Path) -> None:
    """lm-eval records one time for all tasks of a run; ``--where`` takes one of them."""
    logs = shared_cases / "lm_eval_real"
    whole = sentences(Measures(assemble(read(logs))))
    assert "2.3 times as long as gemma-2-2b-it for the same 802 questions of gsm8k, hellaswag and 2 more: " in whole
    part = sentences(Measures(assemble(read(logs), where={"benchmark": "gsm8k"})))
    assert "for the same 802 questions of the whole run, which has more than this report covers: " in part
    assert "including loading (one run each)" not in part
