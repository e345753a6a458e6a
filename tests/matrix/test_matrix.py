"""The matrix: the grid with its reasons, restarts, kills for memory, failures, and one real cell against eval."""

import json
from pathlib import Path

import pytest
import yaml
from matrix_stand_in import StandIn, ended, killed, probe, stop

from llmjobs.cli import main
from llmjobs.cluster import local_or_cluster
from llmjobs.errors import LlmjobsError, ManifestError
from llmjobs.exit_codes import EXIT_RESUMABLE, EXIT_UNITS_FAILED
from llmjobs.manifest import load_manifest
from llmjobs.matrix import cells as cells_module
from llmjobs.matrix import job as matrix_job
from llmjobs.matrix.cells import AttemptsFile, make_cells, shuffled
from llmjobs.matrix.summary import find_flips, summarize
from llmjobs.records import CellRecord, as_record
from llmjobs.report.read.run_folder import read_run_folder
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import read_records

CPU = ("none", "8bit", "4bit")
KEYS = ("model", "benchmark", "subject", "doc_id", "gold", "prediction", "correct", "loglikelihoods", "status")


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest and return its path."""

    def write(name="grid", **section) -> Path:
        demo = {"name": "demo", "subjects": ["number_size"], "limit": 10}
        content = {
            "models": [{"id": "llmjobs/demo-base", "name": "tiny"}],
            "matrix": {"benchmarks": [demo], "repetitions": 2, "context_lengths": [32, 64]} | section,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def cells(monkeypatch) -> StandIn:
    """Cells and probes that are played."""
    stand_in = StandIn()
    monkeypatch.setattr(matrix_job, "run_child", stand_in)
    monkeypatch.setattr(matrix_job, "probe_machine", probe)
    monkeypatch.setattr(local_or_cluster, "probe_machine", probe)
    return stand_in


def run(*arguments, expect=0) -> None:
    with pytest.raises(SystemExit) as done:
        main(["matrix", *map(str, arguments)])
    assert done.value.code == expect


def cell(folder: Path, name: str) -> dict:
    return json.loads((folder / "matrix" / f"tiny.{name}" / "cell.json").read_text())


def records_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("records.jsonl"))}


def test_the_grid(manifest, cells, tmp_path, capsys):
    run(manifest(), "--results", tmp_path / "r")
    folder, shown = tmp_path / "r" / "grid", capsys.readouterr().out
    assert sorted(cells.started) == sorted(CPU * 2)
    for name in CPU:
        found = cell(folder, f"cpu-{name}")
        assert (found["status"], found["repetitions"], found["quantization"]) == ("done", 2, name)
        assert found["measures"]["real_s"] == {"median": 12.0, "low": 12.0, "high": 12.0, "n": 2}
        assert found["measures"]["joules_per_1000_questions"]["median"] == 4000
        assert found["measures"]["cycles"] is None and found["reasons"]["cycles"] == "no counters"
        assert [one["context_tokens"] for one in found["by_context"]] == [32, 64]
    for device, row in (("cuda", "GPU"), ("mps", "Apple GPU")):
        for name in CPU:
            found = cell(folder, f"{device}-{name}")
            assert (found["status"], found["reason"]) == ("unavailable", f"no {device} here")
            assert found["row"].startswith(row)
    summary = json.loads((folder / "summary.json").read_text())["matrix"]
    flips = {flip["cell"]: flip for flip in summary["flips"]}
    assert summary["status"] == "complete" and set(flips) == {"CPU 4-bit", "CPU 8-bit"}
    assert (flips["CPU 4-bit"]["changed"], flips["CPU 4-bit"]["lost"], flips["CPU 4-bit"]["gained"]) == (3, 3, 0)
    assert "CPU 4-bit against CPU none: 3 of 10 answers changed (3 lost, 0 gained, -30.0 points" in shown
    assert "GPU none: unavailable: no cuda here" in shown
    for figure in ("matrix-times", "matrix-accuracy-time", "matrix-memory-speed"):
        for kind in ("pdf", "png"):
            assert (folder / "figures" / f"{figure}.{kind}").stat().st_size > 1000


def test_the_report_reads_the_grid_from_the_folder_alone(manifest, cells, tmp_path):
    run(manifest(), "--results", tmp_path / "r")
    found = {c.row: c for c in read_run_folder(tmp_path / "r" / "grid").cells}
    assert len(found) == 9
    assert found["CPU 4-bit"].value("decode_tokens_per_s") == 20
    assert found["CPU 4-bit"].accuracy.value == pytest.approx(0.7)
    assert found["GPU 4-bit"].reason == "no cuda here"
    assert len(find_flips(list(found.values()))) == 2


def test_the_report_has_the_very_cells_of_the_job(manifest, cells, tmp_path, monkeypatch):
    """What is written and read again is what the job's own summary and table were made from."""
    made = []
    monkeypatch.setattr(matrix_job, "summarize", lambda found, failed: made.extend(found) or real(found, failed))
    real = summarize
    run(manifest(), "--results", tmp_path / "r")
    read = {cell.cell: cell for cell in read_run_folder(tmp_path / "r" / "grid").cells}
    assert len(made) == 9
    for cell in made:
        assert read[cell.cell] == cell
    assert [one.to_json() for one in find_flips(list(read.values()))] == real(made, {})["flips"]


def test_records_are_what_their_kind_says(manifest, cells, tmp_path):
    run(manifest(), "--results", tmp_path / "r")
    lines = read_records(tmp_path / "r" / "grid" / "matrix" / "tiny.cpu-8bit" / "records.jsonl")
    assert len([as_record(line, CellRecord) for line in lines]) == 10


def test_records_say_their_cell(manifest, cells, tmp_path):
    run(manifest(), "--results", tmp_path / "r")
    folder = tmp_path / "r" / "grid" / "matrix" / "tiny.cpu-8bit"
    first = read_records(folder / "records.jsonl")
    again = read_records(folder / "repetition-2" / "records.jsonl")
    assert [r["cell"] for r in first] == ["tiny.cpu-8bit"] * 10
    assert [r | {"repetition": 2} for r in first] == again
    assert set(KEYS) <= set(first[0])
    assert (tmp_path / "r" / "grid" / "docs" / "demo.number_size.jsonl").exists()


def test_the_order_differs_between_repetitions_and_not_between_runs(manifest):
    grid = make_cells(load_manifest(manifest()))
    orders = [[c.name for c in shuffled(grid, repetition, 0)] for repetition in (1, 2, 3)]
    assert orders[0] != orders[1] != orders[2]
    assert all(sorted(order) == sorted(c.name for c in grid) for order in orders)
    assert orders == [[c.name for c in shuffled(grid, repetition, 0)] for repetition in (1, 2, 3)]
    assert orders[0] != [c.name for c in shuffled(grid, 1, seed=1)]


def test_stopped_twice_the_same_grid(manifest, cells, tmp_path):
    """Stopped in cell 3 it starts again in cell 3; the records are those of an unbroken run."""
    run(manifest(), "--results", tmp_path / "whole")
    order, cells.started = cells.started, []
    cells.acts = {3: stop, 5: stop}
    run(manifest(), "--results", tmp_path / "r", expect=EXIT_RESUMABLE)
    summary = json.loads((tmp_path / "r" / "grid" / "summary.json").read_text())["matrix"]
    assert summary["status"] == "partial" and summary["units_missing"]
    run(manifest(), "--results", tmp_path / "r", expect=EXIT_RESUMABLE)
    run(manifest(), "--results", tmp_path / "r")
    assert cells.started == [*order[:3], *order[2:4], *order[3:]]
    assert records_of(tmp_path / "r") == records_of(tmp_path / "whole")
    started = len(cells.started)
    run(manifest(), "--results", tmp_path / "r")
    assert len(cells.started) == started


def test_a_cell_that_the_kernel_kills_is_not_tried_for_ever(manifest, cells, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cells_module, "own_oom_kills", lambda: None)
    cells.acts = {"8bit": killed}
    run(manifest(), "--results", tmp_path / "r", expect=EXIT_UNITS_FAILED)
    found = cell(tmp_path / "r" / "grid", "cpu-8bit")
    assert found["status"] == "killed"
    assert "because memory ran out during load, with 3.00 GiB resident" in found["reason"]
    assert cells.started.count("8bit") == 2, "two attempts in all, not two a repetition"
    assert cell(tmp_path / "r" / "grid", "cpu-none")["status"] == "done"
    assert "CPU 8-bit: killed: killed by SIGKILL" in capsys.readouterr().out
    run(manifest(), "--results", tmp_path / "r", expect=EXIT_UNITS_FAILED)
    assert cells.started.count("8bit") == 2


def test_one_kill_and_then_a_result(manifest, cells, tmp_path):
    cells.acts = {1: killed}
    run(manifest(), "--results", tmp_path / "r")
    assert all(cell(tmp_path / "r" / "grid", f"cpu-{name}")["status"] == "done" for name in CPU)


@pytest.mark.parametrize(("count_of", "given_up_after"), [(lambda starts: 7, 5), (lambda starts: 7 + starts, 2)])
def test_whose_kill_ended_a_cell_shows_in_the_kernels_count(tmp_path, monkeypatch, count_of, given_up_after):
    """A cell that a person or another program kills is started more often than one that the kernel kills for memory."""
    starts = 0
    monkeypatch.setattr(cells_module, "own_oom_kills", lambda: ("group", count_of(starts)))
    file = AttemptsFile(RunFolder(tmp_path), "matrix/x")
    while starts < 8 and not file.attempts.given_up:
        file.start()
        starts += 1
        file.end(killed=True)
    assert starts == given_up_after


@pytest.mark.parametrize(("counts", "given_up_after"), [((5, 6, 7, 8), 2), ((None,) * 20, 5), ((5,) * 20, None)])
def test_a_run_that_dies_with_its_cell(tmp_path, monkeypatch, counts, given_up_after):
    """Nobody saw the end: the kernel's count of kills decides; a run that a person killed is never given up."""
    count = iter([kills for kills in counts for _ in (0, 1)][1:])
    monkeypatch.setattr(cells_module, "oom_kills", lambda: next(count))
    monkeypatch.setattr(cells_module, "own_oom_kills", lambda: None)
    folder = RunFolder(tmp_path)
    starts = 0
    while starts < 8 and not (file := AttemptsFile(folder, "matrix/x")).attempts.given_up:
        file.start()
        starts += 1
    assert (starts if starts < 8 else None) == given_up_after


def test_a_failing_cell_stops_no_other(manifest, cells, tmp_path, capsys):
    cells.acts = {"4bit": lambda: ended({"phase": "load"}, {"error": "tiny: does not fit"}, status=1)}
    run(manifest(), "--results", tmp_path / "r", expect=EXIT_UNITS_FAILED)
    found = cell(tmp_path / "r" / "grid", "cpu-4bit")
    assert (found["status"], found["reason"]) == ("failed", "CPU 4-bit: tiny: does not fit")
    assert cells.started.count("4bit") == 1, "the second repetition knows"
    assert cell(tmp_path / "r" / "grid", "cpu-none")["status"] == "done"
    cells.acts = {"4bit": lambda: ended({"phase": "load"}, status=-11)}
    run(manifest(), "--results", tmp_path / "r", expect=EXIT_UNITS_FAILED)
    assert "crashed with SIGSEGV during load" in cell(tmp_path / "r" / "grid", "cpu-4bit")["reason"]
    cells.acts = {}
    run(manifest(), "--results", tmp_path / "r")
    assert cell(tmp_path / "r" / "grid", "cpu-4bit")["status"] == "done"


def test_settings_that_vary_are_in_the_names(manifest):
    study = load_manifest(manifest(devices="cpu", quantizations="none", dtypes=["float32", "bfloat16"], threads=[1, 2]))
    assert [c.row for c in make_cells(study)][:2] == ["CPU none, float32, threads 1", "CPU none, float32, threads 2"]
    assert len({c.name for c in make_cells(study)}) == 4


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"devices": ["gpu"]}, "'gpu' is not one of cuda, mps, cpu"),
        ({"quantizations": ["4bits"]}, "did you mean '4bit'?"),
        ({"repetition": 3}, "did you mean 'repetitions'?"),
        ({"devices": ["cpu", "cpu"]}, "'cpu' is given twice"),
    ],
)
def test_what_the_section_refuses(manifest, section, says):
    with pytest.raises(ManifestError, match="grid.yaml:[0-9]+: matrix") as caught:
        load_manifest(manifest(**section))
    assert says in str(caught.value)


def test_a_cell_that_is_not_what_its_row_says_is_an_error(manifest, tmp_path, monkeypatch):
    """Weights on another device than asked for end the cell, whatever the loader let through."""
    from dataclasses import replace

    from llmjobs.eval import job as eval_job
    from llmjobs.matrix.cell_process import CellRun

    def elsewhere(spec, **options):
        engine = real(spec, **options)
        engine.description = replace(engine.description, device="cuda")
        return engine

    real = eval_job.open_model
    monkeypatch.setattr(eval_job, "open_model", elsewhere)
    grid = make_cells(load_manifest(manifest(devices="cpu", quantizations="none")))
    task = {
        "model": grid[0].model.model_dump(mode="json"), "benchmarks": [{"name": "demo"}], "threads": 1,
        "batch_tokens": 256, "seed": 0,
    }  # fmt: skip
    with pytest.raises(
        LlmjobsError, match="device cpu was requested, but the weights were loaded as cuda, so the cell was not run"
    ):
        CellRun(task, tmp_path).load()


@pytest.mark.usefixtures("new_interpreters")
def test_a_real_cell_answers_as_eval_does(manifest, tmp_path):
    """CPU none in its process: figures that fit together, and eval's log-likelihoods to the digit."""
    path = manifest(devices="cpu", quantizations="none", dtypes="float32", repetitions=1, threads=1)
    run(path, "--results", tmp_path / "r")
    found, folder = cell(tmp_path / "r" / "grid", "cpu-none"), tmp_path / "r" / "grid" / "matrix" / "tiny.cpu-none"
    assert (found["status"], found["device"], found["dtype"]) == ("done", "cpu", "float32")
    measures = {name: value["median"] for name, value in found["measures"].items() if value}
    parts = ("import_s", "load_s", "warmup_s", "questions_real_s")
    assert found["scoring_path"] == "shared"
    assert sum(measures[part] for part in parts) < measures["real_s"] < 120
    assert measures["user_s"] > 1 and measures["peak_rss_bytes"] > measures["weight_bytes"] > 1000
    assert found["measures"]["gpu_s"] is None and found["reasons"]["gpu_s"] == "the model ran on the CPU"
    content = yaml.safe_load(path.read_text())
    content["models"][0] |= {"device": "cpu", "dtype": "float32"}
    content["eval"] = {"benchmarks": content.pop("matrix")["benchmarks"], "batch_tokens": 1024, "threads": 1}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit):
        main(["eval", str(path), "--results", str(tmp_path / "e")])
    other = read_records(tmp_path / "e" / "grid" / "eval" / "tiny" / "demo.number_size" / "records.jsonl")
    mine = read_records(folder / "records.jsonl")
    assert [r["loglikelihoods"] for r in mine] == [r["loglikelihoods"] for r in other]
    assert [r["prediction"] for r in mine] == [r["prediction"] for r in other]
