"""Runs of version 0.1.0 (``runs.tar.gz``, made by its commands) can be read and resumed by every later version.

``finished`` has a section of each job; ``killed-JOB`` died by SIGKILL in the middle. They have no checksums, no number
of steps and no memory that must stay. Where the bundled model or data changed since, what the old run recorded of them
is brought up to date first: a model that was trained anew is another one, and this is not about that.
"""

import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmjobs.api import Results
from llmjobs.cli import main
from llmjobs.converse.job import ConverseJob
from llmjobs.eval.job import EvalJob
from llmjobs.manifest import load_manifest
from llmjobs.mtbench.job import MTBenchJob
from llmjobs.report.read.run_folder import read_run_folder
from llmjobs.work import checkpoint
from llmjobs.work.folder import RunFolder
from llmjobs.work.integrity import check_run
from llmjobs.work.journal import read_records

SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Debian 12's Python has none
HERE = Path(__file__).parent
JOBS = {"eval": EvalJob, "converse": ConverseJob, "mtbench": MTBenchJob}
CHANGES_WITH_CONTENT = ("revision", "data_hash", "fewshot_hash", "benchmark_version", "version")


@pytest.fixture
def runs(tmp_path):
    with tarfile.open(HERE / "runs.tar.gz") as archive:
        archive.extractall(tmp_path, **SAFELY)
    return tmp_path


def manifest(runs: Path, name: str, job: str) -> Path:
    whole = yaml.safe_load((HERE / "manifest.yaml").read_text())
    file = runs / f"{name}-{job}.yaml"
    file.write_text(yaml.safe_dump({"name": name, "models": whole["models"], job: whole[job]}))
    for unit in JOBS[job](load_manifest(str(file)), RunFolder(runs / name)).units():
        for path in (runs / name / unit.path).glob("checkpoint.pkl*"):
            state = checkpoint.read(path)
            for field in CHANGES_WITH_CONTENT:
                if field in state["declared"]:
                    state["declared"][field] = unit.declared[field]
            data = path.with_name("one")
            checkpoint.save(data, state)
            data.replace(path)
    return file


def run(job: str, file: Path, runs: Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([job, str(file), "--results", str(runs)])
    return int(ended.value.code or 0)


def test_a_finished_run_is_read(runs):
    found = check_run(runs / "finished")
    assert found.unfinished == [] and len(found.unverified) == 7, "no checksums: every unit is named"
    read = read_run_folder(runs / "finished")
    assert not read.partial
    assert [len(records) for entry in read.entries for records in entry.records.values()] == [24]
    results = Results(runs / "finished")
    assert {job: len(results.records(job)) for job in results.jobs} == {
        "eval": 24, "matrix": 10, "converse": 30, "mtbench": 6,
    }  # fmt: skip
    assert results.table("matrix")["needed_bytes"].isna().all(), "it was not measured then"


@pytest.mark.parametrize("job", JOBS)
def test_a_finished_run_stays_finished(runs, job):
    before = {path: path.read_bytes() for path in (runs / "finished" / job).rglob("records.jsonl")}
    assert run(job, manifest(runs, "finished", job), runs) == 0
    assert before and {path: path.read_bytes() for path in before} == before
    assert Results(runs / "finished").summary[job]["status"] == "complete"


@pytest.mark.parametrize("job", JOBS)
def test_a_killed_run_goes_on(runs, job):
    name = f"killed-{job}"
    states = {path.parent: checkpoint.read(path) for path in (runs / name).rglob("checkpoint.pkl")}
    saved = {unit: (unit / "records.jsonl").read_bytes()[: state["records_bytes"]] for unit, state in states.items()}
    assert not all(state["done"] for state in states.values())
    assert run(job, manifest(runs, name, job), runs) == 0
    for unit, data in saved.items():
        assert (unit / "records.jsonl").read_bytes().startswith(data), "what was saved is not computed again"
    finished = sorted((runs / "finished" / job).rglob("records.jsonl"))
    for path in finished:
        other = runs / name / path.relative_to(runs / "finished")
        keys = ("doc_id", "conversation", "turn", "question_id", "step")
        first, second = ([[r.get(key) for key in keys] for r in read_records(one)] for one in (path, other))
        assert first == second
    assert check_run(runs / name).unverified == []
