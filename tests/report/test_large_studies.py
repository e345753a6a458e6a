"""Studies of any size: readable pages, tables before pages, and one line when a page cannot be made."""

import csv
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reportlab.platypus.doctemplate import LayoutError

from llmjobs.cli import group
from llmjobs.errors import LlmjobsError
from llmjobs.make_report import make_report
from llmjobs.report.blocks import Column, Cut, Prose, Table, few
from llmjobs.report.figure_style import ends, name_width, short_names
from llmjobs.report.pdf.tables import _shared
from llmjobs.report.write.csv_files import write_long_tables


def write_study(path: Path, models: list[str], subjects: list[str], questions: int, seed: int = 0) -> Path:
    """A table of answers: every model on ``questions`` questions of each subject."""
    draw = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["model", "subject", "doc_id", "gold", "prediction"])
        for subject in subjects:
            for number in range(questions):
                gold = draw.choice("ABCD")
                for model in models:
                    rows.writerow([model, subject, number, gold, gold if draw.random() < 0.6 else draw.choice("ABCD")])
    return path


def test_a_hundred_models_make_a_report_of_a_few_pages(tmp_path: Path) -> None:
    names = [f"org{n % 7}/some-model-number-{n:03d}-Instruct-v{n % 3}" for n in range(100)]
    study = write_study(tmp_path / "hundred.csv", names, ["astronomy", "virology"], 10)
    told: list[str] = []
    made = make_report([study], tmp_path / "out" / "report.pdf", progress=told.append)
    assert made.pdf.read_bytes().count(b"/Type /Page\n") <= 24
    assert any("4,950 pairs" in line for line in told)
    with (tmp_path / "out" / "letters.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 100 * 4
    with (tmp_path / "out" / "pairs.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 4950, "every pair is in the CSV"


def test_a_failed_page_costs_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise LayoutError("Flowable <Plot at 0x7f>(0 x 0) too large on page 18")

    monkeypatch.setattr("llmjobs.make_report.make_pdf", fail)
    study = write_study(tmp_path / "three.csv", ["a", "b", "c"], ["s"], 20)
    result = CliRunner().invoke(group, ["report", str(study), "-o", str(tmp_path / "out" / "report.pdf"), "--html"])
    assert isinstance(result.exception, LlmjobsError)
    line = str(result.exception)
    assert "pages could not be laid out" in line
    assert "0x7f" not in line
    for name in ("summary.csv", "pairs.csv", "overlap.csv", "notes.md", "report.html", "figures/leaderboard.png"):
        assert (tmp_path / "out" / name).stat().st_size, name


def test_a_long_table_is_cut_and_says_so() -> None:
    rows = [[str(number)] for number in range(500)]
    cut = Cut(3, [7, 499, 20, 1], "the largest", "pairs.csv")
    table = Table("All", [Column("n")], rows, frozenset({499}), "A note.", cut).printed()
    assert [row[0] for row in table.rows] == ["7", "20", "499"]
    assert table.strong == {2}
    assert table.note == "Shown: 3 of 500 rows (the largest). All of them are in pairs.csv. A note."
    whole = Table("All of it", [Column("n")], rows)
    assert f"the first 120 of 500 rows. All of them are in {whole.file_name}." in whole.printed().note
    short = Table("All", [Column("n")], rows[:120])
    assert short.printed() is short


def test_all_rows_of_a_long_table_are_in_a_file(tmp_path: Path) -> None:
    short, long = (Table("All of it", [Column("n")], [[str(n)] for n in range(size)]) for size in (120, 121))
    (path,) = write_long_tables([short, long, Prose("x")], tmp_path)
    assert path == tmp_path / long.file_name
    assert path.read_text().split() == ["n", *map(str, range(121))]


def test_few_blocks_say_how_many_more() -> None:
    blocks = [Prose(str(n)) for n in range(30)]
    *shown, last = few(blocks, 20, "models", "notes.md")
    assert shown == blocks[:20]
    assert isinstance(last, Prose) and last.text == "10 more models are left out here; all of them are in notes.md."
    assert few(blocks, 30, "models", "notes.md") == blocks


def test_the_ends_of_a_ranking() -> None:
    assert ends(5, 5, 2) == [0, 1, 2, 3, 4]
    assert ends(100, 6, 2) == [0, 1, 2, None, 98, 99]


def test_names_are_cut_where_they_are_alike() -> None:
    llamas = ["Llama-3.2-1B-Instruct", "Llama-3.2-3B-Instruct", "Qwen2.5-1.5B-Instruct"]
    cut = short_names(llamas, 16)
    assert "1B" in cut[0] and "3B" in cut[1] and "1.5B" in cut[2]
    assert all(name_width(name) <= 16 for name in cut)
    assert short_names(llamas, 30) == llamas
    numbered = short_names([f"some-model-number-{n:03d}-Instruct-v{n % 3}" for n in range(100)], 20)
    assert len(set(numbered)) == 100
    assert "042" in numbered[42]
    long = ["x" * 50 + "a" + "y" * 50, "x" * 50 + "b" + "y" * 50]
    assert len(set(short_names(long, 20))) == 2


def test_wide_letters_count_twice_and_marks_not_at_all() -> None:
    assert name_width("通义") == 4
    assert name_width("ไทย") == 3
    (cut,) = short_names(["通义千问" * 10], 20)
    assert name_width(cut) <= 20


PIECES = st.sampled_from(
    ["Llama", "-", "3.2", "/", "Instruct", " ", "通义千问", "نموذج", "עברית", "โมเดลไทย", "मॉडल", "🦙", "🚀", "<b>"]
    + ["&amp;", "=1+1", "x" * 90, "word " * 12, "\u202e", "\u200d", "é", "e\u0301", "_", "(", ")", "%", "\\", "$^_$"]
    + ["'", '"', "7B", "\t", "ཀ"]
)
NAMES = st.lists(PIECES, min_size=1, max_size=14).map(lambda parts: "".join(parts).strip(" \t/") or "m")


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(NAMES, min_size=1, max_size=12, unique=True),
    subjects=st.lists(NAMES, min_size=1, max_size=5, unique=True),
    models=st.integers(1, 150),
    many=st.integers(1, 60),
    questions=st.integers(1, 3),
)
def test_any_study_makes_a_report(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    subjects: list[str],
    models: int,
    many: int,
    questions: int,
) -> None:
    """1 to 150 models, 1 to 60 subjects, long and odd names: always a PDF, never a warning."""
    names = [*names, *(f"{names[n % len(names)]}-{n}" for n in range(models - len(names)))][:models]
    subjects = [*subjects, *(f"{subjects[n % len(subjects)]} {n}" for n in range(many - len(subjects)))][:many]
    subjects = subjects[: max(1, 1500 // (models * questions))]
    folder = tmp_path_factory.mktemp("any")
    study = write_study(folder / "any.csv", names, subjects, questions)
    made = make_report([study], folder / "out" / "report.pdf")
    assert made.pdf.read_bytes().startswith(b"%PDF")


def test_a_column_that_needs_little_leaves_its_part_to_the_others() -> None:
    columns = [Column("a", "left", 1), Column("b", "left", 1), Column("n"), Column("why", "left", 1)]
    assert _shared(columns, [100, 80, 30, 900], 400, 3) == pytest.approx([100, 80, 30, 220])
    assert sum(_shared(columns, [50, 80, 30, 90], 400, 3)) == pytest.approx(430)
