"""Each extension is added to a copy of the library and run, and takes exactly the files that CONTRIBUTING says.

The counts of files are asserted, so that a list of names typed a second time somewhere makes a test fail.
"""

import json
import re
from pathlib import Path

import pytest
import yaml
from extended_copy import ExtendedCopy

pytestmark = pytest.mark.slow

MODEL = {"id": "llmjobs/demo-base", "name": "tiny", "dtype": "float32"}


def write_manifest(root: Path, **sections: object) -> Path:
    path = root / "study.yaml"
    path.write_text(yaml.safe_dump({"models": [MODEL], **sections}), encoding="utf-8")
    return path


def records_of(root: Path, place: str) -> list[dict]:
    files = sorted((root / "results" / "study" / place).rglob("records.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def check_promise(kind: str, copy: ExtendedCopy) -> None:
    """Compare the files of an extension with the line about it in CONTRIBUTING's table."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (counts,) = re.findall(rf"^\| {kind} \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    assert tuple(map(int, counts)) == (len(copy.new), len(copy.edited))


BENCHMARK = '''"""Colours: is the sky blue?"""

from llmjobs.benchmarks.base import HubDataset, Row
from llmjobs.benchmarks.multiple_choice import OptionTexts, question_row


class Colours(OptionTexts):
    """Two options a question."""

    name = "colours"
    title = "Colours"
    source = "made up"
    hub = HubDataset("nobody/colours", None, {"test": "test"})
    test_rows = 2

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read a question, two options and a label of 0 or 1."""
        return question_row(raw["question"], [raw["a"], raw["b"]], int(raw["label"]))

    def text(self, row: Row) -> str:
        """Write the question."""
        return str(row["question"])
'''


def test_a_benchmark(tmp_path):
    copy = ExtendedCopy.make(
        tmp_path,
        {"benchmarks/colours.py": BENCHMARK},
        {
            "benchmarks/registry.py": [
                ('    "demo":', '    "colours": "llmjobs.benchmarks.colours:Colours",\n    "demo":')
            ]
        },
    )
    check_promise("benchmark", copy)
    (tmp_path / "rows").mkdir()
    rows = [{"question": f"The {thing} is", "a": "blue", "b": "red", "label": 0} for thing in ("sky", "sea")]
    (tmp_path / "rows" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = write_manifest(
        tmp_path, eval={"benchmarks": [{"name": "colours", "data": str(tmp_path / "rows"), "num_fewshot": 0}]}
    )
    assert "colours" in copy.run("benchmarks")
    copy.run("eval", manifest)
    assert [record["benchmark"] for record in records_of(tmp_path, "eval")] == ["colours"] * 2
    copy.run("report", tmp_path / "results" / "study")
    assert "colours" in (tmp_path / "results" / "study" / "notes.md").read_text()


STRATEGY = '''

class LastTurn(Stateless):
    """Sends the newest exchange and nothing before it."""

    name = "last"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Keep one exchange, if it fits."""
        parts = split(messages)
        require_room(room, parts)
        kept = parts.exchanges[-1:]
        return make_plan(room, parts, kept if fits(room, parts, kept) else ())


INSTRUCTION = '''


def test_a_context_strategy(tmp_path):
    copy = ExtendedCopy.make(
        tmp_path,
        {},
        {
            "chat/strategies.py": [("\nINSTRUCTION = ", STRATEGY)],
            "extensions.py": [('    "hybrid":', '    "last": "llmjobs.chat.strategies:LastTurn",\n    "hybrid":')],
        },
    )
    check_promise("context strategy", copy)
    section = {"conversations": 1, "distances": [2], "strategies": ["full", "none", "last"], "contexts": [128]}
    manifest = write_manifest(tmp_path, converse=section)
    assert '"last"' in copy.run("manifest", "--schema")
    assert "last" in copy.run("chat", "--help")
    copy.run("converse", manifest)
    assert {record["strategy"] for record in records_of(tmp_path, "converse")} == {"full", "none", "last"}
    copy.run("report", tmp_path / "results" / "study")
    assert (tmp_path / "results" / "study" / "report.pdf").stat().st_size > 1000
    (pages,) = [path for path in (tmp_path / "results" / "study").glob("notes.md")]
    assert "conversation" in pages.read_text()


SECTION = '''"""Rows: how many questions there are."""

from llmjobs.report.blocks import Content, Finding, Prose
from llmjobs.report.measure import Measures
from llmjobs.report.blocks import Section


def _wanted(measures: Measures) -> bool:
    return measures.study.main is not None


def build(measures: Measures) -> Content:
    """Count the questions."""
    text = f"The largest benchmark has {measures.study.main.n} questions."
    return Content([Prose(text)], [Finding("n", text, 100)], [("How large is it?", text)])


SECTION = Section("rows", "Rows", _wanted, build)
'''
REPORT_LINE = ("    how_it_was_made.SECTION,\n", "    how_it_was_made.SECTION,\n    {}.SECTION,\n")


def test_a_section_of_the_report(tmp_path):
    line = (REPORT_LINE[0], REPORT_LINE[1].format("rows"))
    imported = ("import accuracy, cost, differences,", "import rows, accuracy, cost, differences,")
    copy = ExtendedCopy.make(tmp_path, {"report/sections/rows.py": SECTION}, {"make_report.py": [imported, line]})
    check_promise("report section", copy)
    answers = "".join(f"m,{n},A,{'AB'[n % 2]}\n" for n in range(20))
    (tmp_path / "answers.csv").write_text("model,id,gold,pred\n" + answers)
    copy.run("report", tmp_path / "answers.csv", "--output", tmp_path / "out" / "report.pdf")
    assert "The largest benchmark has 20 questions." in (tmp_path / "out" / "notes.md").read_text()


JOB_SECTION = '''"""``letters:``: count the letters of words."""

from llmjobs.manifest.fields import Section


class LettersSection(Section):
    """Words whose letters are counted."""

    words: list[str]
    """The words."""
'''
JOB = '''"""The letters job: a unit a model, a word a step."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmjobs.run_study import run_study
from llmjobs.work.unit_progress import progress_of
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import read_records
from llmjobs.work.units import Step, Unit


@dataclass
class LettersWork:
    """One model's words."""

    words: list[str]
    effective: Mapping[str, Any] = field(default_factory=dict)
    opening: Mapping[str, Any] = field(default_factory=lambda: {"items": 0})

    @property
    def steps(self):
        return len(self.words)

    def step(self, index):
        return Step([{"word": self.words[index], "letters": len(self.words[index])}], {"items": 1})

    def state(self):
        return {}


class LettersJob:
    """Counts letters."""

    name, threads = "letters", "auto"

    def __init__(self, study, folder):
        self.study, self.folder = study, folder

    def for_worker(self):
        return self

    def units(self):
        words = self.study.letters.words
        return [Unit(f"letters/{m.name}", {"words": words}, m.name, len(words)) for m in self.study.models]

    @contextmanager
    def open(self, unit, saved):
        yield LettersWork(self.study.letters.words)

    def close(self):
        pass

    def models(self):
        return {m.name: m for m in self.study.models}

    def summarize(self, outcome):
        files = [self.folder.path / f"letters/{m.name}/records.jsonl" for m in self.study.models]
        total = sum(record["letters"] for file in files for record in read_records(file))
        return {"status": "complete", "letters": total}, f"{total} letters"


def run(study, results, *, fresh=False, ray=None):
    return run_study(lambda study, folder, _: LettersJob(study, folder), study, results, fresh=fresh, ray=ray)


def dry_run(study, results):
    folder = RunFolder(Path(results) / study.name)
    return "\\n".join(f"{unit.path}  {progress_of(folder, unit.path)}" for unit in LettersJob(study, folder).units())
'''
JOB_REPORT = '''"""The chapter on letters."""

from llmjobs.report.blocks import Content, Finding, Prose
from llmjobs.report.blocks import Section


def _parts(measures):
    return [run.summary["letters"] for run in measures.study.runs if "letters" in run.summary]


def build(measures):
    text = f"The words have {sum(part['letters'] for part in _parts(measures))} letters."
    return Content([Prose(text)], [Finding("n", text, 100)], [("How many letters are there?", text)])


SECTION = Section("letters", "Letters", lambda measures: bool(_parts(measures)), build)
'''


ENTRY = '"llmjobs.letters.job", "Count letters.", "Count the letters of words."'


@pytest.fixture
def letters(tmp_path) -> ExtendedCopy:
    import_line = "from llmjobs.matrix import grid_chapter, ladder_chapter\n"
    return ExtendedCopy.make(
        tmp_path,
        {
            "manifest/letters.py": JOB_SECTION,
            "letters/__init__.py": '"""Letters."""\n',
            "letters/job.py": JOB,
            "letters/chapter.py": JOB_REPORT,
        },
        {
            "manifest/schema.py": [
                (
                    "from llmjobs.manifest.matrix import MatrixSection\n",
                    "from llmjobs.manifest.letters import LettersSection\n"
                    "from llmjobs.manifest.matrix import MatrixSection\n",
                ),
                (
                    "    matrix: MatrixSection | None = None\n",
                    "    letters: LettersSection | None = None\n    matrix: MatrixSection | None = None\n",
                ),
            ],
            "extensions.py": [
                ('    "converse": JobEntry(', f'    "letters": JobEntry({ENTRY}),\n    "converse": JobEntry('),
            ],
            "make_report.py": [
                (import_line, "from llmjobs.letters import chapter as letters_chapter\n" + import_line),
                (REPORT_LINE[0], REPORT_LINE[1].format("letters_chapter")),
            ],
        },
    )  # fmt: skip


def test_a_job(letters, tmp_path):
    check_promise("job", letters)
    manifest = write_manifest(tmp_path, letters={"words": ["one", "three"]})
    assert "letters" in letters.run("--help")
    assert "letters/tiny  to do" in letters.run("letters", manifest, "--dry-run")
    letters.run("letters", manifest)
    assert [record["letters"] for record in records_of(tmp_path, "letters")] == [3, 5]
    assert "letters/tiny  done" in letters.run("letters", manifest, "--dry-run")
    letters.run("report", tmp_path / "results" / "study")
    assert "The words have 8 letters." in (tmp_path / "results" / "study" / "notes.md").read_text()


def test_run_takes_the_job_and_its_typos_are_named(letters, tmp_path):
    manifest = write_manifest(tmp_path, letters={"words": ["four"]})
    assert "report.pdf" in letters.run("run", manifest)
    wrong = write_manifest(tmp_path, letters={"wrods": ["four"]})
    assert "did you mean 'words'?" in letters.run("letters", wrong, status=2)
