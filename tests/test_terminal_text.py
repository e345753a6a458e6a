"""Text of models, data and servers on a terminal, in a spreadsheet, in a notebook: shown, never obeyed."""

import csv
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmjobs.benchmarks.base import Doc
from llmjobs.chat.terminal import visible
from llmjobs.cli import group, main
from llmjobs.converse import summary as converse_summary
from llmjobs.errors import LlmjobsError
from llmjobs.eval import summary as eval_summary
from llmjobs.matrix.cell_process import WarningCollector
from llmjobs.mtbench import summary as mtbench_summary
from llmjobs.progress_bar import Progress
from llmjobs.report.write.csv_files import FORMULA
from llmjobs.work.run import one_line
from llmjobs.work.units import Unit

ATTACKS = {
    "clipboard": "\x1b]52;c;cm0gLXJmIH4=\x07",
    "link": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "title": "\x1b]0;owned\x07",
    "clear": "\x1b[2J\x1b[H\x1b[31m",
    "report": "\x1b[6n\x1b[c\x1bP+q544e\x1b\\",
    "c1": "\x9b2J\x9d52;c;QQ==\x9c\x90q",
    "overwrite": "wrong\r\x1b[Kright\b\b\b\x7f",
    "bidi": "\u202egnorw\u2066\u2069\u200f",
    "bell": "\x07\x0e\x0f\x0b\x0c\x85\u2028\u2029",
}
ALL = "".join(ATTACKS.values())


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character in "\n\t" for character in text)


def test_the_check_itself_sees_each_attack() -> None:
    assert not [name for name, text in ATTACKS.items() if is_harmless(text)]


@pytest.mark.parametrize("status", ["ok", "unparsed", "error"])
def test_a_question_that_is_shown(status: str) -> None:
    record: dict[str, Any] = {
        "model": "m", "benchmark": "b", "subject": "s", "doc_id": 0, "gold": ALL, "prediction": ALL, "correct": False,
        "status": status, "text": ALL, "error": ALL,
    }  # fmt: skip
    doc = Doc(0, "s", f"{ALL}\n{ALL}", (ALL, "b"), "A", (ALL,), (ALL, ALL))
    shown = eval_summary.render(record, doc)
    assert is_harmless(shown) and "\\x1b]52;c;" in shown


def test_conversations_and_judgments_that_are_shown() -> None:
    lines: list[str] = []
    unit = Unit("converse/m/u", {})
    turn = {"conversation": "c", "question": ALL, "answer": ALL, "expected": ALL, "correct": False, "error": ALL}
    show = converse_summary.record_printer(lines.append)
    show(unit, [{**turn, "status": "ok"}, {**turn, "status": "error"}])
    judged = mtbench_summary.record_printer(lines.append)
    judged(unit, [{"question_id": ALL, "questions": [ALL], "turns": [ALL]}])
    judged(unit, [{"question_id": "1", "mode": "single", "rating": 1, "turn": 1, "judgment": ALL, "status": "ok"}])
    assert is_harmless("\n".join(lines)) and sum("\\x1b]52" in line for line in lines) >= 6


def test_an_answer_that_streams_in_pieces() -> None:
    assert is_harmless("".join(map(visible, ALL)))


def test_errors_failures_progress_and_remarks() -> None:
    stream = io.StringIO()
    Progress("eval", 1, 0, stream).say(f"failed: u: {one_line(ValueError(ALL))}")
    remarks = WarningCollector()
    remarks.emit(logging.LogRecord("x", logging.WARNING, "f", 1, ALL, (), None))
    told = [stream.getvalue(), str(LlmjobsError(ALL)), *remarks.lines]
    assert all(map(is_harmless, told)) and all("\\x1b]52" in one for one in told)


def test_a_line_of_the_doctor() -> None:
    from llmjobs.prepare.doctor_result import Check, Checkup, run_check

    def check_hub(_: Checkup) -> list[Check]:
        return [Check("hub", "ok", f"account {ALL}", f"see {ALL}")]

    (check,) = run_check(check_hub, Checkup(None, Path()))
    assert is_harmless(check.line + check.remedy) and "\\x1b]52" in check.line


@pytest.mark.parametrize(
    "arguments",
    [["eval", ALL], ["nonsense" + ALL], ["report", ALL], ["eval", "demo", "--set", ALL], ["eval", "--" + ALL]],
)
def test_a_command_line_is_quoted_back_harmlessly(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([argument.replace("\0", "") for argument in arguments])
    told = "".join(capfd.readouterr())
    assert is_harmless(told) and told.count("\n") == 1


HARD = (
    ALL,
    '=HYPERLINK("http://evil")',
    "+1",
    "-2+cmd|' /C calc'!A0",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    " =1",
    "＝1",
    '","=1',
)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("hard")
    rows = [
        {"model": name, "benchmark": f"b{name}", "subject": f"{name}{s}", "id": i, "pred": "AB"[i % 2], "target": "A",
         "device": name, "quantization": name, "question": name, "text": name}
        for name in HARD for s in range(2) for i in range(3)
    ]  # fmt: skip
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    ended = CliRunner().invoke(group, ["report", str(path), "-o", str(folder / "out" / "report.pdf"), "--common"])
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return folder / "out", ended.output


def test_a_report_on_such_names_prints_them_harmlessly(reported: tuple[Path, str]) -> None:
    folder, output = reported
    assert is_harmless(output)
    assert is_harmless((folder / "notes.md").read_text())


def test_no_cell_of_its_tables_is_a_formula(reported: tuple[Path, str]) -> None:
    folder, _ = reported
    with (folder / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    models = {row[2] for row in rows[1:]}
    assert len(models) >= 7, "those that are alike once blanks around them are left out are one"
    for row in rows:
        assert len(row) == len(rows[0])
        for cell in row:
            assert not cell.lstrip().startswith(FORMULA) or _is_number(cell), cell
            assert is_harmless(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell not in ("+1",)


def test_a_notebooks_table_is_escaped(tmp_path: Path) -> None:
    from llmjobs.api import Results

    evil = "<img src=x onerror=alert(1)>"
    figures = {"benchmark": evil, "n": 1, "acc": 1.0, "low": 1.0, "high": 1.0, "macro_acc": 1.0}
    model = {"model": evil, "questions_per_s": 1.0, "real_s": 1.0, "gpu_s": None, "benchmarks": [figures]}
    (tmp_path / "manifest.yaml").write_text("")
    (tmp_path / "summary.json").write_text(json.dumps({"eval": {"models": [model]}}))
    assert "<img src=x" not in Results(tmp_path)._repr_html_()
