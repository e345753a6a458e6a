"""Reports on made-up run folders: what is written, refused and reported."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from run_folders import FakeRun, Line, dump

from llmjobs.cli import group
from llmjobs.errors import DataError, LlmjobsError
from llmjobs.make_report import make_report
from llmjobs.matrix.summary import find_flips
from llmjobs.report.assemble import assemble
from llmjobs.report.measure import Measures
from llmjobs.report.measure.cost import parse_budget
from llmjobs.report.read.formats import read
from llmjobs.report.read.run_folder import read_run_folder
from llmjobs.report.sections import cost
from llmjobs.report.write.csv_files import safe_cell
from llmjobs.report.write.notes import escape


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run = FakeRun().write(folder / "run")
    make_report([run], run / "report.pdf", html=True, budget={"memory": 500 * 2**20})
    return run


def text_of(pdf: Path) -> str:
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext is not installed (poppler-utils)")
    return subprocess.run(["pdftotext", "-layout", pdf, "-"], check=True, capture_output=True, text=True).stdout


def test_everything_is_written_beside_the_pdf(made: Path) -> None:
    for name in ("report.pdf", "report.html", "notes.md", "summary.csv", "pairs.csv", "overlap.csv"):
        assert (made / name).stat().st_size > 200, name
    figures = {path.name for path in (made / "figures").iterdir()}
    assert {"leaderboard.pdf", "leaderboard.png", "differences.png", "upset.pdf", "letters.png", "times.png"} <= figures


def test_the_runs_own_summary_stays(made: Path) -> None:
    summary = json.loads((made / "summary.json").read_text())
    assert summary["eval"]["status"] == "complete"
    assert len(summary["report"]["summary"]) == 3 * (1 + 3)


def test_the_pdf_says_what_it_is(made: Path) -> None:
    text = " ".join(text_of(made / "report.pdf").split())
    for told in (
        "Three models on demo",
        "Within 500 MiB of memory, run large",
        "Contents",
        "Accuracy on demo",
        "chance 25%",
        "Every pair on the same questions",
        "Do the models miss the same questions?",
        "Tests for patterns",
        "the CPU has no device events",
        "Example CPU 3000",
        "LlamaForCausalLM",
    ):
        assert told in text, told
    info = subprocess.run(["pdfinfo", made / "report.pdf"], check=True, capture_output=True, text=True).stdout
    assert "Title:           Three models on demo" in info
    assert "Author:          llmjobs" in info
    fonts = subprocess.run(["pdffonts", made / "report.pdf"], check=True, capture_output=True, text=True).stdout
    assert all(line.split()[-5] == "yes" for line in fonts.splitlines()[2:]), "every font is embedded"


def test_same_input_same_bytes(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "run"
    shutil.copytree(made, again)
    make_report([again], again / "report.pdf", html=True, budget={"memory": 500 * 2**20})
    for file in [path for path in made.rglob("*") if path.is_file()]:
        assert file.read_bytes() == (again / file.relative_to(made)).read_bytes(), file.name


def test_csv_figures_match_the_records(made: Path) -> None:
    with (made / "summary.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["subject"]]
    for row in rows:
        lines = [
            json.loads(line) for unit in (made / "eval" / row["model"]).glob("demo.*/records.jsonl")
            for line in unit.read_text().splitlines()
        ]  # fmt: skip
        assert int(row["right"]) == sum(line["correct"] for line in lines)
        assert float(row["acc"]) == pytest.approx(sum(line["correct"] for line in lines) / len(lines))
        assert float(row["real_s"]) > 0
        assert row["gpu_s"] == ""


def test_damage_is_told_and_survived(tmp_path: Path) -> None:
    def change(record: Line) -> Line | None:
        if record["model"] == "small" and record["doc_id"] % 9 == 0:
            return record | {"prediction": None, "correct": False, "status": "unparsed", "text": "?"}
        if record["model"] == "middle" and record["doc_id"] == 3:
            return record | {"prediction": None, "correct": None, "status": "error", "error": "out of memory"}
        return record

    run = FakeRun(change=change).write(tmp_path / "run")
    torn = run / "eval" / "large" / "demo.sums" / "records.jsonl"
    torn.write_bytes(torn.read_bytes()[:-25])
    (run / "eval" / "small" / "demo.sorting" / "records.jsonl").unlink()
    doubled = run / "eval" / "middle" / "demo.calendar" / "records.jsonl"
    doubled.write_text(doubled.read_text() + doubled.read_text().splitlines()[0] + "\n{not json\n")
    summary = json.loads((run / "summary.json").read_text())
    summary["eval"]["models"][0]["benchmarks"][0]["acc"] = 0.999
    dump(run / "summary.json", summary)
    result = CliRunner().invoke(group, ["report", str(run)])
    assert result.exit_code == 0, result.output
    told = result.stderr
    assert "the last line is cut off" in told
    assert "small/demo.sorting/records.jsonl: the file is missing" in told
    assert "1 question is recorded twice" in told
    assert "1 of 42 lines is not a JSON object" in told
    assert "disagrees with the records of large" in told
    assert "the study is not finished" in told
    notices = json.loads((run / "summary.json").read_text())["report"]["notices"]
    assert len(notices) == told.count("note: ") - 1
    text = text_of(run / "report.pdf")
    assert "Partial:" in text
    assert "the last line is cut off" in text
    assert "no readable answer" in text


def test_a_running_study_gives_a_report(tmp_path: Path) -> None:
    run = FakeRun().write(tmp_path / "run")
    (run / "summary.json").unlink()
    shutil.rmtree(run / "eval" / "small")
    unit = run / "eval" / "middle" / "demo.sums" / "records.jsonl"
    unit.write_text("".join(line + "\n" for line in unit.read_text().splitlines()[:10]))
    made = make_report([run], tmp_path / "out" / "report.pdf")
    assert made.partial
    study = assemble(read(run))
    assert study.benchmarks[0].n == 90
    assert any("30 of 120 demo questions have no record yet" in notice.what for notice in made.notices)
    assert study.entries[0].cost is not None
    assert study.entries[0].cost.real_s == pytest.approx(4.5)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"fingerprint": {"prompt": "course"}}, r"prompt differs \(course: .*; original: "),
        ({"fingerprint": {"num_fewshot": 0}}, "num_fewshot differs"),
        ({"questions": 30}, r"different questions \(120: .*; 90: .*; 90 in common\)"),
        ({"seed": 8}, "a different gold answer or text"),
    ],
)
def test_unlike_runs_are_refused_with_what_differs(tmp_path: Path, other: dict[str, object], told: str) -> None:
    first = FakeRun().write(tmp_path / "laptop")
    second = FakeRun(cpu="Colab CPU", **other).write(tmp_path / "colab")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=told):
        assemble([*read(first), *read(second)])


def test_two_machines_stand_side_by_side(tmp_path: Path) -> None:
    first = FakeRun().write(tmp_path / "laptop")
    second = FakeRun(cpu="Colab CPU").write(tmp_path / "colab")
    make_report([first, second], tmp_path / "out" / "report.pdf")
    notes = (tmp_path / "out" / "notes.md").read_text()
    assert "Colab CPU" in notes.split("## Colab against laptop")[1].split("##")[0]
    study = assemble([*read(first), *read(second)])
    assert len(study.entries) == 6
    assert len({entry.label for entry in study.entries}) == 6
    assert len(Measures(study).overlap["demo"].rows) == 3, "the same weights twice are one model"


def test_common_questions_are_compared_when_asked(tmp_path: Path) -> None:
    first = FakeRun(skills={"a": 1.0}).write(tmp_path / "one")
    second = FakeRun(skills={"b": 0.0}).write(tmp_path / "two")
    (second / "docs" / "demo.calendar.jsonl").unlink()
    shutil.rmtree(second / "eval" / "b" / "demo.calendar")
    runs = [*read(first), *read(second)]
    with pytest.raises(DataError, match="120: a; 80: b; 80 in common.*--common"):
        assemble(runs)
    assert assemble(runs, common=True).benchmarks[0].n == 80


def test_without_a_mistake_there_is_nothing_to_compare(tmp_path: Path) -> None:
    run = FakeRun(skills={"a": 99.0, "b": 99.0, "c": 99.0}).write(tmp_path / "one")
    text = " ".join(text_of(make_report([run], run / "report.pdf").pdf).split())
    assert "no model misses any of the 120 questions: there are no mistakes to compare." in text
    assert "models miss 0" not in text.split("Contents")[0]


def test_a_matrix_alone_is_a_report(tmp_path: Path) -> None:
    run = tmp_path / "run"
    dump(run / "summary.json", {"run": "run"})
    dump(run / "environment.json", {"machine": {"cpu": "Example"}})
    for row, status in (("GPU", "unavailable"), ("CPU", "done"), ("CPU 4-bit", "done")):
        quantization = "4bit" if "4" in row else "none"
        cell = {"row": row, "model": "demo", "device": row[:3].lower(), "quantization": quantization, "status": status}
        measures = {"questions_real_s": {"median": 4.0 + len(row)}, "real_s": 30.0, "load_s": 1}
        cell |= {"reason": "no CUDA device", "measures": measures}
        dump(run / "matrix" / row.replace(" ", "-") / "cell.json", cell)
    made = make_report([run], run / "report.pdf")
    text = text_of(made.pdf)
    assert "no CUDA device" in text
    assert "CPU 4-bit takes 1.9 times as long as CPU for the same questions" in text
    assert "Models and their effective settings" not in text
    assert "Time (load and real) of the whole process" in text


def test_a_matrix_of_two_models_names_them_everywhere(tmp_path: Path) -> None:
    run = tmp_path / "run"
    dump(run / "summary.json", {"run": "run"})
    for model in ("base", "tiny"):
        for row, quantization in (("CPU", "none"), ("CPU 4-bit", "4bit"), ("GPU", "none")):
            cell = {"row": row, "model": model, "device": row[:3].lower(), "quantization": quantization}
            cell |= {"status": "unavailable", "reason": "no CUDA device"} if row == "GPU" else {}
            cell["measures"] = {"questions_real_s": {"median": 4.0 + len(row)}}
            folder = run / "matrix" / f"{model}.{row.replace(' ', '-')}"
            dump(folder / "cell.json", cell)
            (folder / "records.jsonl").write_text(json.dumps({"doc_id": 0, "prediction": "A", "correct": True}) + "\n")
    text = text_of(make_report([run], run / "report.pdf").pdf)
    for model in ("base", "tiny"):
        assert f"{model} CPU 4-bit takes 1.9 times as long as CPU" in text
        assert f"{model} CPU 4-bit cannot be told apart in accuracy from CPU" in " ".join(text.split())
        assert f"{model} GPU" in text


def test_two_matrices_of_one_name_count_their_own_cells(tmp_path: Path) -> None:
    for place, answers in (("here", 2), ("there", 3)):
        folder = tmp_path / place / "matrix" / "matrix" / "CPU"
        dump(folder / "cell.json", {"row": "CPU", "model": "m", "device": "cpu"})
        lines = [{"subject": "all", "doc_id": n, "correct": True} for n in range(answers)]
        (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        dump(tmp_path / place / "matrix" / "summary.json", {"run": "matrix"})
    runs = [tmp_path / place / "matrix" for place in ("here", "there")]
    text = text_of(make_report(runs, tmp_path / "report.pdf").pdf)
    assert re.findall(r"llmjobs run\s+1\s+(\d)\s", text) == ["2", "3"]


def test_cells_keep_apart_what_two_benchmarks_number_alike(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "matrix" / "CPU"
    dump(folder / "cell.json", {"row": "CPU", "model": "m", "device": "cpu"})
    lines = [{"benchmark": name, "subject": "all", "doc_id": 0, "correct": name == "arc"} for name in ("arc", "piqa")]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (cell,) = read_run_folder(tmp_path / "run").cells
    assert cell.accuracy is not None
    assert (len(cell.answers), cell.accuracy.value) == (2, 0.5)


def test_flips_of_a_quantized_cell(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for row, right in (("CPU", [1, 1, 0, 0, 1]), ("CPU-4-bit", [1, 0, 1, 0, 0])):
        quantization = "4bit" if "4" in row else "none"
        dump(
            run / "matrix" / row / "cell.json",
            {"row": row, "model": "m", "device": "cpu", "quantization": quantization},
        )
        lines = [{"doc_id": i, "prediction": "A" if r else "B", "correct": bool(r)} for i, r in enumerate(right)]
        (run / "matrix" / row / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "eval").mkdir()
    (flip,) = find_flips([cell for one in read(run) for cell in one.cells])
    assert (flip.cell.row, flip.against.row, flip.changed) == ("CPU-4-bit", "CPU", 3)
    assert (flip.result.only_first, flip.result.only_second) == (1, 2)


def test_budgets_are_read_and_refused_in_one_line() -> None:
    assert parse_budget(["memory=8GiB", "time=1.5h"]) == {"memory": 8 * 2**30, "time": 5400}
    for wrong in ("memory=8", "memory=GiB", "speed=3s", "time=-1h", "time=1parsec"):
        with pytest.raises(LlmjobsError, match="--budget"):
            parse_budget([wrong])


def test_the_budget_decides_what_is_recommended(tmp_path: Path) -> None:
    run = FakeRun().write(tmp_path / "run")
    for limit, told in (
        (0.5, "No model stays within 0.50 s of real time"),
        (12.0, "Within 12.0 s of real time, run large"),
    ):
        measures = Measures(assemble(read(run), budget={"time": limit}))
        assert cost.SECTION.build(measures).findings[0].sentence.startswith(told)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "x.json").write_text("{}")
    for path in (tmp_path / "nowhere", tmp_path / "empty", tmp_path / "x.csv", tmp_path / "x.json"):
        with pytest.raises(DataError) as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "l.json", "l.eval", "samples_mmlu_2026-01-01T00-00-00.jsonl"])
def test_an_empty_file_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"^{name}: the file is empty; write these results again, or leave it out"):
        read(tmp_path / name)


def test_an_empty_samples_file_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "samples_mmlu_2026-01-01T00-00-00.jsonl").touch()
    with pytest.raises(
        DataError, match=r"nothing to report .*samples_mmlu_2026-01-01T00-00-00.jsonl: the file is empty"
    ):
        assemble(read(tmp_path))


@given(st.text(max_size=40))
def test_cells_run_nothing_and_markdown_stays_text(text: str) -> None:
    cell = safe_cell(text)
    assert not str(cell).startswith(("=", "+", "-", "@", "\t", "\r"))
    escaped = escape(text)
    assert "\n" not in escaped
    assert "<" not in escaped.replace("\\<", "")
