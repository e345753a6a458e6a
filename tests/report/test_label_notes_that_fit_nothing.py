"""Label notes that cover no question are named; leaving them out in silence looks as if nothing was wrong."""

from pathlib import Path

from run_folders import FakeRun

from llmjobs.report.assemble import assemble
from llmjobs.report.read.formats import read


def notices(tmp_path: Path, **options: Path) -> list[str]:
    table = tmp_path / "answers.csv"
    rows = [f"m,sums,{number},A,{'AB'[number % 2]}" for number in range(12)]
    table.write_text("\n".join(["model,subject,id,gold,prediction", *rows]))
    return [str(notice) for notice in assemble(list(read(table)), **options).notices]


def test_notes_without_the_texts_of_the_questions(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "sums.csv").write_text("question,error_type\nWhich?,wrong_groundtruth\n")
    (line,) = [line for line in notices(tmp_path, label_notes=tmp_path / "notes") if "label-notes" in line]
    assert "cover no question: questions are found by their text" in line and "--questions" in line


def test_notes_on_other_questions(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    run = FakeRun(questions=10).write(tmp_path / "run")
    study = assemble(list(read(run)), label_notes=tmp_path / "notes")
    (line,) = [str(notice) for notice in study.notices if "label-notes" in str(notice)]
    assert "they are about other questions or subjects" in line
