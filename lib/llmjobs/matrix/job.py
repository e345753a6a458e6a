"""The matrix job: each repetition of a cell is a unit and runs in a separate process."""

import copy
import datetime
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmjobs.engines.adapters import settings_of
from llmjobs.engines.machine_probe import Layer, Machine, probe_machine
from llmjobs.engines.registry import engine_of, prefetch
from llmjobs.errors import LlmjobsError
from llmjobs.eval.tasks import Task, make_tasks, write_docs
from llmjobs.machine.child import (
    Ended,
    describe_end,
    oom_kills,
    out_of_memory,
    run_child,
    was_killed,
)
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.matrix.cells import (
    AttemptsFile,
    Cell,
    make_cells,
    matrix_benchmarks,
    matrix_section,
    questions_study,
    shuffled,
)
from llmjobs.matrix.divergence import CHILD as COMPARING
from llmjobs.matrix.divergence import (
    PARTS,
    REFUSED,
    Comparison,
    comparisons,
    damaged,
    declared_settings,
    expected_files,
    figures,
)
from llmjobs.matrix.grid_chapter import matrix_figures
from llmjobs.matrix.summary import Repetition, cell_result, summarize
from llmjobs.matrix.terminal import render_matrix
from llmjobs.records import DONE, KILLED, CellRecord, CellResult, as_records
from llmjobs.redaction import HUB_TOKENS
from llmjobs.report.write.save_figures import draw_figures
from llmjobs.run_study import run_study
from llmjobs.work import unit_progress
from llmjobs.work.folder import RECORDS, TIMINGS, Revisions, RunFolder, run_date
from llmjobs.work.journal import Record, read_records
from llmjobs.work.outcome import Outcome
from llmjobs.work.run import OnRecords
from llmjobs.work.unit_progress import progress_of
from llmjobs.work.units import Saved, Step, Unit, Work

# The matrix as the runner sees it: a unit for each repetition of each cell that this machine can run.

log = logging.getLogger(__name__)
CHILD = "llmjobs.matrix.cell_process"
CELL_FILE = "cell.json"
_OF_SPEED = ("batch_size", "context_lengths", "new_tokens", "batch_tokens")
"""Settings of a cell that change no distribution."""


@dataclass
class CellWork:
    """A repetition that has already run in its process; its only step returns the result."""

    result: Step
    effective: Mapping[str, Any]
    opening: Mapping[str, Any] = field(default_factory=lambda: {"items": 0})
    steps: int = 1

    def step(self, index: int) -> Step:
        """Return answers and figures."""
        return self.result

    def state(self) -> Mapping[str, Any]:
        """Nothing is needed to resume."""
        return {}


class MatrixJob:
    """Every cell of a study's grid, with its repetitions."""

    name = "matrix"

    def __init__(
        self, study: Manifest, folder: RunFolder, probe: Callable[[Sequence[Layer]], Machine] = probe_machine
    ) -> None:
        """Nothing is probed before :meth:`units`; ``probe`` asks the machine that runs the cells."""
        self.study, self.folder, self._ask_machine = study, folder, probe
        self.section = matrix_section(study)
        self.cells = make_cells(study)
        self.machine = Machine()
        self.unavailable: dict[str, str] = {}
        """Cell → why this machine cannot run it."""
        self.failed: dict[str, str] = {}
        self._date = datetime.date.min
        self._tasks: dict[tuple[str, str], list[Task]] = {}
        """By name and id of a cell's model, because a GGUF file is located separately from its checkpoint."""
        self._places: dict[str, tuple[Cell, int]] = {}
        self._comparisons: dict[str, Comparison] = {}

    def for_worker(self) -> "MatrixJob":
        """A copy for another machine, whose GPU is not the probed one."""
        other = copy.copy(self)
        hidden: dict[str, Mapping[str, Any]]
        hidden = {name: {k: v for k, v in found.items() if k != "uuid"} for name, found in self.machine.devices.items()}
        other.machine, other.failed = Machine(hidden, torch=self.machine.torch), {}
        other._ask_machine = probe_machine
        return other

    def units(self) -> Sequence[Unit]:
        """Units by repetition, each with its cells in a different order."""
        self.find_questions()
        self._probe()
        units = []
        for repetition in range(1, self.section.repetitions + 1):
            for cell in shuffled(self.cells, repetition, self.section.seed):
                if cell.name not in self.unavailable:
                    unit = self.unit(cell, repetition)
                    self._places[unit.path] = (cell, repetition)
                    units.append(unit)
        return [*units, *self._comparison_units()]

    def unit(self, cell: Cell, repetition: int) -> Unit:
        """The unit of one repetition of a cell."""
        tasks = self._tasks_of(cell)
        declared: dict[str, Any] = {
            "model": cell.model.id,
            "revision": tasks[0].located.revision if tasks and tasks[0].located else None,
            "chat_template": cell.model.chat_template,
            "thinking_asked": cell.model.thinking if cell.model.chat_template else None,
            **({} if not cell.model.adapter else settings_of(cell.model, tasks[0].located if tasks else None)),
            **cell.settings(self.section),
            "questions": {task.data.key: _asked(task, self.section.seed) for task in tasks},
            "seed": self.section.seed,
            "repetition": repetition,
        }
        return Unit(cell.path(repetition), declared, cell.name, sum(task.data.count for task in tasks))

    def _comparison_units(self) -> list[Unit]:
        """The reference's distributions, and what is compared with them, on the machine that has the files."""
        if self.section.divergence is None:
            return []
        units = []
        for one in comparisons(self.cells, self.unavailable):
            unit = self.comparison_unit(one)
            self._comparisons[unit.path] = one
            units.append(unit)
        return units

    def comparison_unit(self, one: Comparison) -> Unit:
        """The unit of one comparison."""
        assert self.section.divergence is not None
        tasks, cell = self._tasks_of(one.cell), one.cell
        declared: dict[str, Any] = {
            "model": cell.model.id,
            "revision": tasks[0].located.revision if tasks and tasks[0].located else None,
            "chat_template": cell.model.chat_template,
            **{key: value for key, value in cell.settings(self.section).items() if key not in _OF_SPEED},
            **declared_settings(self.section.divergence),
            "questions": {task.data.key: _asked(task, self.section.seed) for task in tasks},
            "against": one.against.name if one.against else None,
        }
        needs = () if one.against is None else (one.reference_path,)
        return Unit(one.path, declared, cell.name, 0, needs, stays=True)

    @contextmanager
    def open(self, unit: Unit, saved: Saved | None) -> Iterator[Work]:
        """Run the cell in a separate process. A signal stops it; the next run starts it again."""
        if comparison := self._comparisons.get(unit.path):
            yield self._compare(comparison)
            return
        cell, repetition = self._places[unit.path]
        if cell.name in self.failed:
            raise LlmjobsError(self.failed[cell.name])
        tasks = self._tasks_of(cell)
        if error := next((task.error for task in tasks if task.error), None):
            raise LlmjobsError(error)
        try:
            work = self._run(cell, repetition, unit, tasks)
        except LlmjobsError as error:
            self.failed[cell.name] = str(error)
            raise
        for task in tasks:
            write_docs(self.folder, task.data)
        yield work

    def close(self) -> None:
        """Do nothing, because no model stays loaded here."""

    def models(self) -> Mapping[str, ModelSpec]:
        """Models by cell."""
        return {cell.name: cell.model for cell in self.cells}

    @property
    def threads(self) -> int | str:
        """A cell has its own number."""
        return "auto"

    def printer(self) -> OnRecords:
        """Print nothing: the command has no ``--show``."""
        return lambda unit, records: None

    def summarize(self, outcome: Outcome) -> tuple[Mapping[str, Any], str]:
        """The grid of cells; also writes each ``cell.json`` and the figures."""
        cells = _results(self, outcome)
        if figures := matrix_figures(cells):
            draw_figures(figures, self.folder.path / "figures")
        return summarize(cells, outcome.failed), render_matrix(cells)

    def _run(self, cell: Cell, repetition: int, unit: Unit, tasks: Sequence[Task]) -> CellWork:
        """Start the cell, and again after a kill for memory, until it has a result or is given up.

        Raises:
            LlmjobsError: it failed in another way.

        """
        self._make_ready(tasks)
        ended = self._ended(cell, CHILD, self._task_of(cell, tasks), cell.folder)
        if isinstance(ended, str):
            reason = f"{ended}; use quantization: 4bit, a smaller model or a machine with more memory"
            return CellWork(Step([], {"status": KILLED, "reason": reason, "items": unit.size}), {})
        return _finished(cell, repetition, ended)

    def _ended(self, cell: Cell, module: str, task: Mapping[str, Any], folder: str) -> Ended | str:
        """Run ``module`` until it has a result; return why if it was killed too often.

        Raises:
            LlmjobsError: it failed in another way; the message says how.

        """
        attempts = AttemptsFile(self.folder, folder)
        seen = ""
        while not (given_up := attempts.attempts.given_up):
            attempts.start()
            before, killed = oom_kills(), False
            try:
                ended = run_child(module, task, timeout_s=self.section.timeout_s, secrets=HUB_TOKENS)
                killed = was_killed(ended)
            finally:
                attempts.end(killed=killed)
            if ended.result is not None:
                attempts.clear()
                return ended
            if not killed:
                raise LlmjobsError(f"{cell.row}: {ended.error or describe_end(ended)}")
            seen = out_of_memory(ended, before)
            log.warning("%s: %s", cell.name, seen)
        return seen or given_up

    def _compare(self, one: Comparison) -> CellWork:
        """Write the reference's distributions, or compare a cell with them.

        Raises:
            LlmjobsError: one line; what was written or compared so far is kept.

        """
        tasks = self._tasks_of(one.cell)
        if error := next((task.error for task in tasks if task.error), None):
            raise LlmjobsError(error)
        self._make_ready(tasks)
        if one.against is None:
            return self._worked(one, self._written(one))
        expected = self._intact_reference(one)
        task = self._comparison_task(one) | {
            "mode": "compare",
            "expected": expected,
            "parts": str((self.folder.path / one.path / PARTS).absolute()),
        }
        return self._worked(one, self._ended(one.cell, COMPARING, task, one.path))

    def _written(self, one: Comparison) -> Ended | str:
        return self._ended(one.cell, COMPARING, self._comparison_task(one) | {"mode": "reference"}, one.path)

    def _worked(self, one: Comparison, ended: Ended | str) -> CellWork:
        if isinstance(ended, str):
            return CellWork(Step([], {"status": KILLED, "reason": ended, "items": 0}), {})
        result = dict(ended.result)
        records = [{"cell": one.cell.name} | record for record in result.pop("records")]
        status = REFUSED if result.get("refused") else DONE
        timing = {"status": status, "reason": result.get("refused"), "items": 0, **ended.time_record(), **result}
        return CellWork(Step(records, timing), {})

    def _intact_reference(self, one: Comparison) -> dict[str, str]:
        """Names and checksums of the reference's files; damaged or lost ones are written again first.

        Raises:
            LlmjobsError: the reference has none, or cannot write the same ones again.

        """
        assert one.against is not None
        reference = Comparison(one.against, None)
        expected = expected_files(self._comparison_records(reference))
        if not expected:
            raise LlmjobsError(f"{one.cell.row}: {one.against.row} has no distributions to compare with")
        folder = self.folder.path / reference.path
        if damaged(folder, expected):
            log.warning("%s: distributions were lost or changed; writing them again", reference.path)
            ended = self._written(reference)
            if isinstance(ended, str) or expected_files(ended.result["records"]) != expected:
                raise LlmjobsError(
                    f"{one.cell.row}: the distributions of {one.against.row} were lost or changed, and this machine"
                    " cannot reproduce them exactly; start over with --fresh"
                )
        return expected

    def _comparison_records(self, one: Comparison) -> list[Record]:
        """The records of a finished unit; empty if it is not finished."""
        unit = self.comparison_unit(one)
        if not unit_progress.is_done(self.folder, unit.path, unit.declared):
            return []
        return list(read_records(self.folder.path / unit.path / RECORDS, allow_torn=True))

    def _comparison_task(self, one: Comparison) -> dict[str, Any]:
        assert self.section.divergence is not None
        tasks = self._tasks_of(one.cell)
        keys = ("model", "benchmarks", "threads", "seed", "date")
        return {key: value for key, value in self._task_of(one.cell, tasks).items() if key in keys} | {
            "divergence": self.section.divergence.model_dump(mode="json"),
            "folder": str((self.folder.path / one.reference_path).absolute()),
        }

    def with_divergence(self, cell: Cell, result: CellResult, failed: Mapping[str, str]) -> CellResult:
        """Add what the comparison of a cell found, or why there is none."""
        if self.section.divergence is None or result.status != DONE:
            return result
        known = {one.cell.name: one for one in comparisons(self.cells, self.unavailable)}
        one = known.get(cell.name)
        if one is None:
            return replace(result, divergence_reason="the reference precision cannot run here")
        if one.against is None:
            return result
        records, timing = self._comparison_records(one), Record()
        lines = read_records(self.folder.path / one.path / TIMINGS, allow_torn=True) if records else ()
        for line in lines:
            timing = line if line.get("phase") == "run" else timing
        if not records:
            return replace(result, divergence_reason=self._why_not_compared(one, failed))
        reference = self._comparison_records(Comparison(one.against, None))
        return replace(result, divergence=figures(records, reference), tokens_differ=timing.get("tokens_differ"))

    def _why_not_compared(self, one: Comparison, failed: Mapping[str, str]) -> str:
        place = self.folder.path / one.path / TIMINGS
        lines = read_records(place, allow_torn=True) if place.exists() else ()
        told = [str(line["reason"]) for line in lines if line.get("reason")]
        return failed.get(one.path) or (told[-1] if told else "not compared yet; run the same command to resume")

    def _task_of(self, cell: Cell, tasks: Sequence[Task]) -> dict[str, Any]:
        located = tasks[0].located
        pinned = {} if located is None or located.is_local else {"revision": located.revision}
        if located and located.adapter and not located.adapter.is_local:
            pinned["adapter_revision"] = located.adapter.revision
        benchmarks = {task.data.spec.name: task.data for task in tasks}
        return {
            "model": cell.model.model_copy(update=pinned).model_dump(mode="json"),
            "benchmarks": [
                data.spec.model_copy(update={"revision": data.test.revision or data.spec.revision}).model_dump(
                    mode="json", exclude_none=True
                )
                for data in benchmarks.values()
                if data.test is not None
            ],
            "threads": cell.threads,
            "batch_size": cell.batch_size,
            "context_lengths": list(self.section.context_lengths),
            "new_tokens": self.section.new_tokens,
            "batch_tokens": self.section.batch_tokens,
            "seed": self.section.seed,
            "date": self._date.isoformat(),
            "uuid": self.machine.devices.get("cuda", {}).get("uuid"),
        }

    def find_questions(self, *, writes: bool = True) -> None:
        """Find every model's questions, which all of its cells ask; :meth:`unit` needs them."""
        self._date = run_date(self.study, self.folder, writes=writes)
        benchmarks, revisions = matrix_benchmarks(self.study), Revisions.of(self.folder, writes=writes)
        models = {_source(cell): cell.model for cell in self.cells if cell.error is None}
        self._tasks = {source: [] for source in models}
        for task in make_tasks(questions_study(self.study, list(models.values()), benchmarks, "auto"), revisions):
            self._tasks[task.model.name, task.model.id].append(task)

    def _tasks_of(self, cell: Cell) -> list[Task]:
        return self._tasks[_source(cell)]

    def repetitions(self, cell: Cell) -> dict[int, Repetition]:
        """Read the finished repetitions of a cell from its folder, by number."""
        found: dict[int, Repetition] = {}
        for number in range(1, self.section.repetitions + 1) if cell.name not in self.unavailable else ():
            unit = self.unit(cell, number)
            if not unit_progress.is_done(self.folder, unit.path, unit.declared):
                continue
            place = self.folder.path / unit.path
            runs = [line for line in read_records(place / TIMINGS, allow_torn=True) if line.get("phase") == "run"]
            if runs:
                records = read_records(place / RECORDS, allow_torn=True)
                found[number] = Repetition(runs[-1], as_records(records, CellRecord))
        return found

    def _probe(self) -> None:
        """Probe which cells this machine cannot run. A cell that has already run keeps its result."""
        self.unavailable |= {cell.name: cell.error for cell in self.cells if cell.error}
        open_cells = [cell for cell in self.cells if not cell.error and not self._is_done(cell)]
        if not open_cells:
            return
        self.machine = self._ask_machine([cell.layer for cell in open_cells])
        self.folder.write_json("matrix/machine.json", _described(self.machine))
        for cell in open_cells:
            verdict = self.machine.layers[cell.layer]
            if not verdict.ok:
                self.unavailable[cell.name] = verdict.reason

    def _is_done(self, cell: Cell) -> bool:
        """Whether any repetition of it has run."""
        return progress_of(self.folder, cell.folder) == "done"

    def _make_ready(self, tasks: Sequence[Task]) -> None:
        """Put the weights onto this machine and into its page cache, so that no cell's load waits for them."""
        located = tasks[0].located
        if located is None:
            return
        spec = tasks[0].model
        engine_of(spec).ensure_files(spec, located)
        prefetch(spec, located)


def _source(cell: Cell) -> tuple[str, str]:
    return cell.model.name, cell.model.id


def _described(machine: Machine) -> dict[str, Any]:
    """What the probes found, without what identifies the individual GPU."""
    hidden = ("uuid", "free_bytes")
    return {
        "devices": {
            device: {key: value for key, value in found.items() if key not in hidden}
            for device, found in machine.devices.items()
        },
        "layers": [
            {"layer": list(layer), "ok": verdict.ok, "reason": verdict.reason, "dtype": verdict.dtype}
            for layer, verdict in machine.layers.items()
        ],
        "torch": machine.torch,
    }


def _asked(task: Task, seed: int) -> dict[str, Any]:
    """What decides the records of one subject, without what the cell decides."""
    skipped = (
        "model",
        "revision",
        "device_asked",
        "dtype_asked",
        "quantization_asked",
        "chat_template",
        "thinking_asked",
        "seed",
    )
    return {key: value for key, value in task.unit(seed).declared.items() if key not in skipped}


def _finished(cell: Cell, repetition: int, ended: Ended) -> CellWork:
    """Split the output of the child into answers (deterministic) and measurements."""
    result = dict(ended.result)
    records = [
        {"cell": cell.name, "repetition": repetition} | {k: v for k, v in record.items() if k != "step"}
        for record in result.pop("records")
    ]
    effective = result.pop("effective")
    timing = {"status": DONE, "items": len(records), **ended.time_record(), **result}
    return CellWork(Step(records, timing), effective)


def run(study: Manifest, results: Path, *, fresh: bool = False, ray: str | None = None) -> Outcome:
    """Run or resume the matrix of ``study`` below ``results``, on the cluster ``ray`` if given, and print the grid.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    return run_study(
        lambda study, folder, there: MatrixJob(study, folder, there.probe),
        study,
        results,
        fresh=fresh,
        ray=ray,
        whole_nodes=True,
    )


def _results(job: MatrixJob, outcome: Outcome) -> list[CellResult]:
    """Combine the repetitions of every cell into ``cell.json``. Cells killed by the kernel count as failed units."""
    wanted, results = job.section.repetitions, []
    found = {cell.name: job.repetitions(cell) for cell in job.cells}
    for cell in job.cells:
        for number, repetition in found[cell.name].items():
            if not repetition.is_done:
                outcome.failed[cell.path(number)] = str(repetition.timing["reason"])
    for cell in job.cells:
        paths = (cell.path(number) for number in range(1, wanted + 1))
        failed = next((outcome.failed[path] for path in paths if path in outcome.failed), None)
        repetitions, unavailable = list(found[cell.name].values()), job.unavailable.get(cell.name)
        result = cell_result(cell, repetitions, wanted, unavailable=unavailable, failed=failed)
        result = job.with_divergence(cell, result, outcome.failed)
        job.folder.write_json(f"{cell.folder}/{CELL_FILE}", result.to_json())
        results.append(result)
    return results


def dry_run(study: Manifest, results: Path) -> str:
    """Print which cells would run, in which order, and why others would not. Runs the probes but no model."""
    section, cells = matrix_section(study), make_cells(study)
    machine = probe_machine([cell.layer for cell in cells if not cell.error])
    folder = RunFolder(results / study.name)
    job = MatrixJob(study, folder)
    job.find_questions(writes=False)
    lines = []
    for repetition in range(1, section.repetitions + 1):
        for cell in shuffled(cells, repetition, section.seed):
            if cell.error:
                lines.append(f"repetition {repetition}  {cell.name}  unavailable: {cell.error}")
                continue
            verdict = machine.layers[cell.layer]
            done = progress_of(folder, cell.path(repetition), job.unit(cell, repetition).declared) == "done"
            state = "done" if done else "to do" if verdict.ok else f"unavailable: {verdict.reason}"
            lines.append(f"repetition {repetition}  {cell.name}  {state}")
    return "\n".join(lines)
