"""Tables as people have them: marks in words, percentages, invisible characters, cells without a number."""

from pathlib import Path

import numpy as np
import pytest

from llmjobs.errors import DataError
from llmjobs.report.assemble import assemble
from llmjobs.report.numbers import percent
from llmjobs.report.read.formats import read
from llmjobs.report.study import Study


def study_of(*paths: Path, name: str | None = None) -> Study:
    return assemble([run for path in paths for run in read(path, name)])


def told(study: Study) -> str:
    return "\n".join(map(str, study.notices))


def right(study: Study) -> list[float]:
    return [float(np.nansum(row)) for row in study.benchmarks[0].correct]


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("yes", "no"),
    [("WAHR", "FALSCH"), ("VRAI", "FAUX"), ("Vero", "Falso"), ("right", "wrong"), ("✓", "✗"), ("100%", "0 %")],
)
def test_right_and_wrong_in_words_signs_and_percent(tmp_path: Path, yes: str, no: str) -> None:
    rows = [f"m,{n},{yes if n < 7 else no}" for n in range(10)]
    assert right(study_of(write(tmp_path / "t.csv", "model,id,correct", rows))) == [7]


def test_a_table_whose_marks_cannot_be_read_is_refused_with_an_example(tmp_path: Path) -> None:
    rows = [f"m,{n},{'x' if n < 7 else ''}" for n in range(10)]
    with pytest.raises(
        DataError, match="10 rows are marked neither right nor wrong \\('x'\\); write 1 for right and 0"
    ):
        study_of(write(tmp_path / "t.csv", "model,id,correct", rows))


def test_rows_without_a_score_are_counted_in_a_notice(tmp_path: Path) -> None:
    rows = [f"m,{n},{cell}" for n, cell in enumerate(["0.5", "inf", "nan", "", "75%"])]
    study = study_of(write(tmp_path / "t.csv", "model,id,score", rows))
    assert "3 of 5 rows have no score that is a number; these are left out" in told(study)
    assert float(np.nanmean(study.metrics[0].values[0])) == 0.625


@pytest.mark.parametrize("written", ["\uff22", "B\u200b", "**B**", "'B'", "\u00a0(B)"])
def test_letters_with_invisible_characters_emphasis_or_full_width(tmp_path: Path, written: str) -> None:
    rows = [f"m,{n},{'B' if n < 3 else 'C'},{written}" for n in range(5)]
    study = study_of(write(tmp_path / "t.csv", "model,id,gold,prediction", rows))
    assert right(study) == [3]
    assert "unreadable" not in told(study)


@pytest.mark.parametrize("empty", ["?", "#N/A", "#NV"])
def test_a_sign_for_no_gold_answer_is_no_answer(tmp_path: Path, empty: str) -> None:
    rows = [f"m,{n},{empty if n < 2 else 'A'},A" for n in range(8)]
    study = study_of(write(tmp_path / "t.csv", "model,id,gold,prediction", rows))
    assert "2 questions have no gold answer" in told(study)
    assert right(study) == [6]


def test_gold_from_one_and_predictions_from_zero_are_remarked(tmp_path: Path) -> None:
    rows = [f"m,{n},{n % 4 + 1},{n % 4}" for n in range(12)]
    study = study_of(write(tmp_path / "t.csv", "model,id,gold,prediction", rows))
    assert "the gold answers are 1 to 4, but the predictions 0 to 3" in told(study)
    rows = [f"m,{n},{n % 4 + 1},{n % 4 + 1}" for n in range(12)]
    assert "predictions" not in told(study_of(write(tmp_path / "same.csv", "model,id,gold,prediction", rows)))


def test_two_tables_of_one_model_with_other_answers_are_both_shown(tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", "model,id,gold,prediction", [f"m,{n},A,A" for n in range(8)])
    two = write(tmp_path / "two.csv", "model,id,gold,prediction", [f"m,{n},A,{'AB'[n % 2]}" for n in range(8)])
    study = study_of(one, two, name="quiz")
    assert [entry.label for entry in study.entries] == ["m (one)", "m (two)"]
    assert right(study) == [8, 4]
    same = write(tmp_path / "same.csv", "model,id,gold,prediction", [f"m,{n},A,A" for n in range(8)])
    study = study_of(one, same, name="quiz")
    assert right(study) == [8]
    assert study.repeats[0].same == 8


def test_a_refusal_repeats_what_was_left_out_of_the_input(tmp_path: Path) -> None:
    lines = [f'{{"model": "{m}", "id": {n}, "gold": "A", "prediction": "A"}}' for n in range(4) for m in ("a", "b")]
    (tmp_path / "t.jsonl").write_text("\n".join(lines)[:-9])
    with pytest.raises(DataError, match="4: a; 3: b; 3 in common.*the last line is cut off"):
        study_of(tmp_path / "t.jsonl")


def test_only_all_is_a_hundred_percent_and_only_none_is_zero() -> None:
    assert [percent(x, 0) for x in (1.0, 0.995, 0.994, 0.0, 0.004)] == ["100%", "99.5%", "99%", "0%", "0.4%"]
    assert percent(0.9999) == "99.99%"


def test_the_note_on_several_filters_is_true_under_where_too(shared_cases: Path) -> None:
    runs = read(shared_cases / "lm_eval_real")
    study = assemble(runs, where={"metric": "exact_match,flexible-extract"})
    assert sorted(right(study)) == [96, 98]
    assert "uses exact_match,strict-match unless --where metric= selects another" in told(study)


@pytest.mark.parametrize(("gold", "said"), [("E", "{letter}"), ("yes", "Yes, it is"), ("A,B", "{letter}")])
def test_gold_answers_that_no_prediction_can_be_are_remarked(tmp_path: Path, gold: str, said: str) -> None:
    rows = [f'm,{n},"{gold}","{said.format(letter="ABCD"[n % 4])}"' for n in range(12)]
    study = study_of(write(tmp_path / "t.csv", "model,id,gold,prediction", rows))
    assert right(study) == [0]
    assert "is ever one of the gold answers" in told(study)


def test_what_a_grader_marked_right_is_not_remarked(tmp_path: Path) -> None:
    rows = [f'm,{n},yes,"Yes, it is",{n % 2}' for n in range(12)]
    study = study_of(write(tmp_path / "t.csv", "model,id,gold,prediction,correct", rows))
    assert right(study) == [6] and "is ever one of the gold answers" not in told(study)


def test_the_rest_of_a_table_without_marks_is_no_accuracy(tmp_path: Path) -> None:
    rows = [f"m,{n},{'inf' if n < 7 else 0}" for n in range(12)]
    with pytest.raises(DataError, match="7 of 12 rows are marked neither right nor wrong"):
        study_of(write(tmp_path / "t.csv", "model,id,score", rows))
    rows = [f"m,{n},{'' if n < 5 else n % 2}" for n in range(12)]
    assert right(study_of(write(tmp_path / "u.csv", "model,id,score", rows))) == [4]
