"""The matrix job: one unit per repetition of a cell, the summary of the grid, and its table on the terminal."""

import contextlib
import copy
import datetime
import logging
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from llmjobs.cluster.place import place
from llmjobs.engines.transformers.load import prefetch
from llmjobs.errors import DataError, LlmjobsError
from llmjobs.eval.tasks import Task, docs_record, make_tasks
from llmjobs.machine.child import (
    Ended,
    boot_id,
    describe_end,
    oom_kills,
    out_of_memory,
    own_oom_kills,
    run_child,
    was_killed,
)
from llmjobs.machine.probing import Layer, Machine, probe_machine
from llmjobs.manifest import Manifest
from llmjobs.matrix.cells import Cell, make_cells, matrix_benchmarks, matrix_section, questions_study, shuffled
from llmjobs.matrix.report import matrix_figures
from llmjobs.process_memory import needed_bytes
from llmjobs.redaction import HUB_TOKENS
from llmjobs.report.measure.matrix import Flips, find_flips, read_cells
from llmjobs.report.study import RawRun
from llmjobs.report.write.figures import draw_figures
from llmjobs.statistics.intervals import wilson
from llmjobs.terminal_text import DASH, gib, seconds, table
from llmjobs.work import cursor as cursors
from llmjobs.work.cursor import progress_of
from llmjobs.work.folder import CHECKPOINT, RECORDS, TIMINGS, RunFolder, read_object
from llmjobs.work.journal import Record, encode, read_records
from llmjobs.work.revisions import Revisions
from llmjobs.work.run import Outcome, open_run, write_summary
from llmjobs.work.run_date import run_date
from llmjobs.work.units import Saved, Step, Unit, Work

# How often a cell was started and never heard of again, kept before each start.

FILE = "attempts.json"
MOST_KILLS = 2
"""A cell that was killed for memory this often is recorded so and left alone."""
MOST_VANISHED = 5
"""The same where the kernel does not count such kills and nobody came back to tell."""


@dataclass
class Attempts:
    """What is known of earlier starts of a cell, since it last had a result."""

    kills: int = 0
    """Starts that ended by a kill for memory: the cell's own, or that of the whole run with it."""
    vanished: int = 0
    """Starts whose end nobody saw, where the kernel counts no kills."""
    running: bool = False
    boot: str | None = None
    oom_kills: int | None = None
    """Of this process's control group where it has a count of its own, else of the machine."""
    group: str | None = None

    @property
    def given_up(self) -> str | None:
        """Why it is not tried again, or None."""
        if self.kills >= MOST_KILLS:
            return f"killed for lack of memory {self.kills} times"
        if self.vanished >= MOST_VANISHED:
            return f"{self.vanished} attempts ended without a word while it ran, most likely for lack of memory"
        return None


class AttemptsFile:
    """The attempts of one cell, in its folder."""

    def __init__(self, folder: RunFolder, cell_folder: str) -> None:
        """Read what earlier runs left, and count a start that nobody saw the end of."""
        self._folder, self._file = folder, f"{cell_folder}/{FILE}"
        self.attempts = self._read()
        if self.attempts.running:
            self._count_unseen_end()
            self._write()

    def start(self) -> None:
        """Note a start, before it happens."""
        self.attempts.running = True
        self.attempts.boot = boot_id()
        self.attempts.group, self.attempts.oom_kills = own_oom_kills() or (None, oom_kills())
        self._write()

    def end(self, *, killed: bool) -> None:
        """Note that its end was seen."""
        self.attempts.running = False
        self.attempts.kills += killed
        self._write()

    def clear(self) -> None:
        """Forget earlier ends: it has a result."""
        self.attempts = Attempts()
        self._write()

    def _count_unseen_end(self) -> None:
        group, now = own_oom_kills() or (None, oom_kills())
        before = self.attempts.oom_kills if self.attempts.group == group else None
        self.attempts.running = False
        if before is None or now is None:
            self.attempts.vanished += 1
        elif self.attempts.boot == boot_id() and now > before:
            self.attempts.kills += 1

    def _read(self) -> Attempts:
        known, empty = {}, Attempts()
        with contextlib.suppress(DataError):
            known = read_object(self._folder.path / self._file)
        texts, flags = ("boot", "group"), ("running",)
        for one in fields(Attempts):
            kind = str if one.name in texts else bool if one.name in flags else int
            if type(known.get(one.name)) is kind:
                setattr(empty, one.name, known[one.name])
        return empty

    def _write(self) -> None:
        self._folder.write_json(self._file, asdict(self.attempts))


# The matrix as the runner sees it: a unit for each repetition of each cell that this machine can run.

log = logging.getLogger(__name__)
CHILD = "llmjobs.matrix.cell_process"
DONE, KILLED, FAILED, UNAVAILABLE, MISSING = "done", "killed", "failed", "unavailable", "missing"


@dataclass
class CellWork:
    """A repetition that has run in its process already; its one step hands over what came of it."""

    result: Step
    effective: Mapping[str, Any]
    opening: Mapping[str, Any] = field(default_factory=lambda: {"items": 0})
    steps: int = 1

    def step(self, index: int) -> Step:
        """Return answers and figures."""
        return self.result

    def state(self) -> Mapping[str, Any]:
        """Nothing is needed to go on."""
        return {}


class MatrixJob:
    """Every cell of a study's grid, as often as it asks for."""

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
        self._tasks: dict[str, list[Task]] = {}
        self._places: dict[str, tuple[Cell, int]] = {}

    def for_worker(self) -> "MatrixJob":
        """A copy for another machine, whose card is not the one that was probed."""
        other = copy.copy(self)
        hidden: dict[str, Mapping[str, Any]]
        hidden = {name: {k: v for k, v in found.items() if k != "uuid"} for name, found in self.machine.devices.items()}
        other.machine, other.failed = Machine(hidden, torch=self.machine.torch), {}
        other._ask_machine = probe_machine
        return other

    def units(self) -> Sequence[Unit]:
        """Repetition by repetition, the cells of each in an order of their own; each unit knows its questions."""
        self.find_questions()
        self._probe()
        units = []
        for repetition in range(1, self.section.repetitions + 1):
            for cell in shuffled(self.cells, repetition, self.section.seed):
                if cell.name not in self.unavailable:
                    unit = self.unit(cell, repetition)
                    self._places[unit.path] = (cell, repetition)
                    units.append(unit)
        return units

    def unit(self, cell: Cell, repetition: int) -> Unit:
        """The unit of one repetition of a cell."""
        tasks = self._tasks[cell.model.name]
        declared: dict[str, Any] = {
            "model": cell.model.id,
            "revision": tasks[0].located.revision if tasks and tasks[0].located else None,
            "chat_template": cell.model.chat_template,
            "thinking_asked": cell.model.thinking if cell.model.chat_template else None,
            **cell.settings(self.section),
            "questions": {task.data.key: _asked(task, self.section.seed) for task in tasks},
            "seed": self.section.seed,
            "repetition": repetition,
        }
        return Unit(cell.path(repetition), declared, cell.name, sum(task.data.count for task in tasks))

    @contextmanager
    def open(self, unit: Unit, saved: Saved | None) -> Iterator[Work]:
        """Run the cell in a process of its own; a signal ends it here, and it starts again next time."""
        cell, repetition = self._places[unit.path]
        if cell.name in self.failed:
            raise LlmjobsError(self.failed[cell.name])
        tasks = self._tasks[cell.model.name]
        if error := next((task.error for task in tasks if task.error), None):
            raise LlmjobsError(error)
        try:
            work = self._run(cell, repetition, unit, tasks)
        except LlmjobsError as error:
            self.failed[cell.name] = str(error)
            raise
        for task in tasks:
            self._write_docs(task)
        yield work

    def close(self) -> None:
        """Nothing stays loaded here."""

    def _run(self, cell: Cell, repetition: int, unit: Unit, tasks: Sequence[Task]) -> CellWork:
        """Start the cell, again after a kill for memory, until it has a result or is given up.

        Raises:
            LlmjobsError: it failed in another way; the line says how.

        """
        attempts = AttemptsFile(self.folder, cell.folder)
        seen = ""
        self._make_ready(tasks)
        while not (given_up := attempts.attempts.given_up):
            attempts.start()
            before, killed = oom_kills(), False
            try:
                ended = run_child(
                    CHILD, self._task_of(cell, tasks), timeout_s=self.section.timeout_s, secrets=HUB_TOKENS
                )
                killed = was_killed(ended)
            finally:
                attempts.end(killed=killed)
            if ended.result is not None:
                attempts.clear()
                return _finished(cell, repetition, ended)
            if not killed:
                raise LlmjobsError(f"{cell.row}: {ended.error or describe_end(ended)}")
            seen = out_of_memory(ended, before)
            log.warning("%s: %s", cell.name, seen)
        reason = f"{seen or given_up}; use quantization: 4bit, a smaller model or a machine with more memory"
        return CellWork(Step([], {"status": KILLED, "reason": reason, "items": unit.size}), {})

    def _task_of(self, cell: Cell, tasks: Sequence[Task]) -> dict[str, Any]:
        located = tasks[0].located
        pinned = {} if located is None or located.is_local else {"revision": located.revision}
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
        self._tasks = {
            model.name: make_tasks(questions_study(self.study, model, benchmarks, "auto"), revisions)
            for model in self.study.models
        }

    def _probe(self) -> None:
        """Find out which cells this machine cannot run; one that has run already keeps its result."""
        open_cells = [cell for cell in self.cells if not self._is_done(cell)]
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
        """Bring the weights onto this machine and into its page cache, so that no cell's load waits for them."""
        located = tasks[0].located
        if located is None:
            return
        folder = Path(located.source)
        if not located.is_local:
            from llmjobs.hub.files import ensure_model

            spec = tasks[0].model
            folder = ensure_model(
                spec.id, str(located.revision), pickle_weights=spec.pickle_weights, code=spec.trust_remote_code
            )
        prefetch(folder)

    def _write_docs(self, task: Task) -> None:
        if task.data.test is None:
            return
        lines = b"".join(encode(docs_record(doc, task.data.test.hash)) for doc in task.data.docs)
        relative = f"docs/{task.data.key}.jsonl"
        if not (self.folder.path / relative).exists():
            self.folder.write_text(relative, lines.decode())


def _described(machine: Machine) -> dict[str, Any]:
    """What the probes found, without what names this very card."""
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
    """Split what the child told into answers (deterministic) and figures (measured)."""
    result = dict(ended.result)
    records = [
        {"cell": cell.name, "repetition": repetition} | {k: v for k, v in record.items() if k != "step"}
        for record in result.pop("records")
    ]
    effective = result.pop("effective")
    timing = {"status": DONE, "items": len(records), **ended.time_record(), **result}
    return CellWork(Step(records, timing), effective)


# What a matrix found: `cell.json` for each cell, and the grid for `summary.json`; from the folders alone.

CELL_FILE = "cell.json"
CONFIDENCE = "95% Wilson"


def summarize(job: MatrixJob, outcome: Outcome) -> dict[str, Any]:
    """Write every cell's ``cell.json``; return the ``matrix`` part of ``summary.json``."""
    cells = [_cell(job, cell, outcome) for cell in job.cells]
    for cell, found in zip(job.cells, cells, strict=True):
        job.folder.write_json(f"{cell.folder}/{CELL_FILE}", found)
    missing = [found["cell"] for found in cells if found["status"] == MISSING]
    return {
        "status": "partial" if missing else "complete",
        "cells": cells,
        "flips": [_flip(one) for one in find_flips([c for c in read_cells([raw_run(job.folder)]) if c.status == DONE])],
        "units_missing": missing,
        "units_failed": [{"unit": path, "error": line} for path, line in outcome.failed.items()],
    }


def raw_run(folder: RunFolder) -> RawRun:
    """The run as the report's reader of cells takes it."""
    return RawRun(folder.path, "llmjobs run")


def killed_units(job: MatrixJob) -> dict[str, str]:
    """Units whose result is that the kernel killed them, with the reason."""
    found = {}
    for cell in job.cells:
        for repetition in range(1, job.section.repetitions + 1):
            timing, _ = _repetition(job, cell, repetition)
            if timing and timing["status"] == KILLED:
                found[cell.path(repetition)] = str(timing["reason"])
    return found


def _repetition(job: MatrixJob, cell: Cell, number: int) -> tuple[Record | None, list[Record]]:
    """The figures and answers of one finished repetition."""
    if cell.name in job.unavailable:
        return None, []
    unit = job.unit(cell, number)
    place = job.folder.path / unit.path
    if not (place / CHECKPOINT).exists() or not cursors.load(job.folder.unit(unit.path), unit.declared)[0].done:
        return None, []
    runs = [line for line in read_records(place / TIMINGS, allow_torn=True) if line.get("phase") == "run"]
    return (runs[-1] if runs else None), read_records(place / RECORDS, allow_torn=True)


def _cell(job: MatrixJob, cell: Cell, outcome: Outcome) -> dict[str, Any]:
    section = matrix_section(job.study)
    found = [_repetition(job, cell, n) for n in range(1, section.repetitions + 1)]
    timings = [timing for timing, _ in found if timing and timing["status"] == DONE]
    answers = [records for timing, records in found if timing and timing["status"] == DONE]
    status, reason = _status(job, cell, outcome, [timing for timing, _ in found if timing], len(timings))
    head = {"row": cell.row, "cell": cell.name, "model": cell.model.name}
    asked = {
        "device": cell.model.device,
        "quantization": cell.model.quantization,
        "dtype": cell.model.dtype,
        "threads": cell.threads,
        "batch_size": cell.batch_size,
    }
    state = {"status": status, "reason": reason, "repetitions": len(timings)}
    if not timings:
        return head | asked | state
    model = timings[0]["model"]
    return {
        **head,
        **asked,
        **{key: model[key] for key in ("device", "quantization", "dtype", "architecture", "parameters", "revision")},
        "scoring_path": timings[0]["scoring_path"],
        **state,
        "accuracy": _accuracy(answers[0]),
        "repetitions_agree": all(_answers(one) == _answers(answers[0]) for one in answers),
        "measures": _measures(timings),
        "by_context": _by_context(timings),
        "reasons": _reasons(timings[0]),
        "remarks": list(dict.fromkeys(remark for timing in timings for remark in timing["remarks"])),
    }


def _status(
    job: MatrixJob, cell: Cell, outcome: Outcome, timings: Sequence[Record], done: int
) -> tuple[str, str | None]:
    wanted = job.section.repetitions
    killed = next((str(timing["reason"]) for timing in timings if timing["status"] == KILLED), None)
    paths = (cell.path(n) for n in range(1, wanted + 1))
    failed = next((outcome.failed[path] for path in paths if path in outcome.failed), None)
    if cell.name in job.unavailable:
        return UNAVAILABLE, job.unavailable[cell.name]
    if done == wanted:
        return DONE, None
    if done and (killed or failed):
        return DONE, f"{done} of {wanted} repetitions: {killed or failed}"
    if killed:
        return KILLED, killed
    if failed:
        return FAILED, failed
    return MISSING, f"{done} of {wanted} repetitions; the same command goes on"


def _answers(records: Sequence[Record]) -> list[tuple[Any, ...]]:
    return [(r["benchmark"], r["subject"], r["doc_id"], r["prediction"]) for r in records]


def _accuracy(records: Sequence[Record]) -> dict[str, Any]:
    """Micro accuracy; a question in error is counted apart."""
    scored = [record for record in records if record["status"] != "error"]
    right = sum(bool(record["correct"]) for record in scored)
    errors = len(records) - len(scored)
    if not scored:
        return {"n": 0, "correct": 0, "acc": None, "low": None, "high": None, "errors": errors}
    low, high = wilson(right, len(scored))
    figures = {"acc": right / len(scored), "low": low, "high": high}
    rounded = {key: round(value, 6) for key, value in figures.items()}
    return {"n": len(scored), "correct": right, **rounded, "errors": errors, "interval": CONFIDENCE}


def _measures(timings: Sequence[Record]) -> dict[str, Any]:
    return spreads([_figures(timing) for timing in timings])


def _figures(timing: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of one repetition, under the names of ``docs/measuring.md``."""
    questions, first = timing["questions"], timing["speed"][0]
    count, asked_s = questions["questions"], questions["real_s"]
    energy = timing["energy"]["joules"]
    energy_j = round(sum(energy.values()), 3) if energy else None
    plain = ("import_s", "load_s", "warmup_s", "real_s", "user_s", "system_s", "gpu_s", "peak_rss_bytes")
    return {
        **{name: timing[name] for name in plain},
        "needed_bytes": needed_bytes(timing.get("peak_anon_bytes"), timing.get("mapped_weight_bytes")),
        "peak_device_bytes": timing["peak_device_bytes"],
        "weight_bytes": timing["model"]["weight_bytes"],
        "cycles": timing["cpu"]["cycles"],
        "instructions": timing["cpu"]["instructions"],
        **{name: first[name] for name in ("ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s")},
        "questions_real_s": asked_s,
        "questions_cpu_s": round(questions["user_s"] + questions["system_s"], 6),
        "questions_gpu_s": questions["gpu_s"],
        "questions_per_s": round(count / asked_s, 4) if asked_s else None,
        "energy_j": energy_j,
        "joules_per_1000_questions": round(1000 * energy_j / count, 3) if energy_j is not None and count else None,
    }


def spreads(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Median, lowest, highest and number of each figure; None where no repetition has it."""
    found: dict[str, Any] = {}
    for name in rows[0]:
        values = [value for row in rows if (value := row.get(name)) is not None]
        median = statistics.median(values) if values else None
        found[name] = values and {"median": median, "low": min(values), "high": max(values), "n": len(values)} or None
    return found


def _by_context(timings: Sequence[Record]) -> list[dict[str, Any]]:
    names = ("ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s")
    rows = []
    for at, first in enumerate(timings[0]["speed"]):
        figures = spreads([{name: timing["speed"][at][name] for name in names} for timing in timings])
        rows.append({"context_tokens": first["context_tokens"], **figures, "reason": first["reason"]})
    return rows


def _reasons(timing: Mapping[str, Any]) -> dict[str, str]:
    """Why a figure is null, by its name."""
    cpu, device = timing["cpu"], timing["model"]["device"]
    found = {
        "gpu_s": timing["gpu_s_reason"] if timing["gpu_s"] is None else None,
        "cycles": cpu["reason"],
        "peak_device_bytes": None if timing["peak_device_bytes"] else f"no separate device memory on the {device}",
        "ttft_s": timing["speed"][0]["reason"],
        **{f"energy_j ({source})": why for source, why in timing["energy"]["reasons"].items()},
    }
    return {name: why for name, why in found.items() if why}


def _flip(flip: Flips) -> dict[str, Any]:
    result = flip.result
    return {
        "model": flip.cell.model,
        "cell": flip.cell.name,
        "against": flip.against.name,
        "n": result.n,
        "changed": flip.changed,
        "lost": result.only_second,
        "gained": result.only_first,
        "difference": round(result.difference, 6),
        "low": round(result.low, 6),
        "high": round(result.high, 6),
        "p": round(result.p, 6),
        "test": "McNemar, exact",
    }


# The grid as it stands on the terminal.

Show = Callable[[float | None], str]


def render_matrix(part: Mapping[str, Any]) -> str:
    """The grid, why cells have no figures, which answers change, and what the columns mean."""
    cells = part["cells"]
    several = len({cell["model"] for cell in cells}) > 1
    names = {cell["cell"]: f"{cell['model']} {cell['row']}" if several else cell["row"] for cell in cells}
    done = [cell for cell in cells if cell.get("measures")]
    lines = table([HEADER, *(_row(cell, names[cell["cell"]]) for cell in done)]) if done else []
    for cell in cells:
        if cell["reason"]:
            lines.append(f"{names[cell['cell']]}: {cell['status']}: {cell['reason']}")
    lines += [f"{names[cell['cell']]}: the repetitions gave different answers" for cell in done if _differs(cell)]
    lines += [f"{names[cell['cell']]}: {remark}" for cell in done for remark in cell["remarks"]]
    lines += [_flip_line(one, several) for one in part["flips"]]
    lines += _nulls(done)
    if done:
        counts = sorted({cell["repetitions"] for cell in done})
        lines.append(
            f"Medians of {' or '.join(map(str, counts))} repetitions. real and CPU are those of the whole process, as "
            "'time' has them; CPU is user + system time of all threads and passes real time with several."
        )
    return "\n".join(lines)


HEADER = (
    "cell", "weights", "load", "real", "CPU", "GPU", "first token", "prefill t/s", "decode t/s",
    "questions/s", "accuracy (95% interval)", "memory", "J/1000 q",
)  # fmt: skip


def _row(cell: Mapping[str, Any], name: str) -> tuple[str, ...]:
    measures = cell["measures"]

    def get(key: str) -> float | None:
        return measures[key]["median"] if measures.get(key) else None

    user, system = get("user_s") or 0.0, get("system_s") or 0.0
    return (
        f"{name} ({cell['dtype']})",
        gib(get("weight_bytes")),
        seconds(get("load_s")),
        _spread(measures["real_s"]),
        seconds(user + system),
        seconds(get("gpu_s")),
        seconds(get("ttft_s")),
        _number(get("prefill_tokens_per_s")),
        _number(get("decode_tokens_per_s")),
        _number(get("questions_per_s")),
        _accuracy_cell(cell["accuracy"]),
        gib(get("peak_device_bytes") or get("needed_bytes") or get("peak_rss_bytes")),
        _number(get("joules_per_1000_questions")),
    )


def _spread(value: Mapping[str, float]) -> str:
    if value["n"] < 2:
        return seconds(value["median"])
    return f"{seconds(value['median'])} ({value['low']:.1f}–{value['high']:.1f})"


def _accuracy_cell(found: Mapping[str, Any]) -> str:
    if found["acc"] is None:
        return DASH
    return f"{found['acc']:.1%} ({found['low']:.1%}–{found['high']:.1%})"


def _differs(cell: Mapping[str, Any]) -> bool:
    return not cell["repetitions_agree"]


def _flip_line(flip: Mapping[str, Any], several: bool) -> str:
    model = f"{flip['model']} " if several else ""
    return (
        f"{model}{flip['cell']} against {flip['against']}: {flip['changed']} of {flip['n']} answers are others "
        f"({flip['lost']} lost, {flip['gained']} gained, {100 * flip['difference']:+.1f} points, p = {flip['p']:.3f})"
    )


def _nulls(done: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each reason that figures are missing."""
    reasons: dict[str, dict[str, None]] = {}
    for cell in done:
        for name, why in cell["reasons"].items():
            reasons.setdefault(f"{name} {DASH}: {why}", {})[cell["row"]] = None
    return [line if len(rows) == len(done) else f"{', '.join(rows)}: {line}" for line, rows in reasons.items()]


def _number(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# The matrix job from a manifest to a grid.


def run(study: Manifest, results: Path, *, fresh: bool = False, ray: str | None = None) -> Outcome:
    """Run (or go on with) the matrix of ``study`` below ``results``, on the cluster ``ray`` if given; prints the grid.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    job_cells = make_cells(study)
    with place(ray) as there, open_run(study, results, fresh=fresh) as folder:
        job = MatrixJob(study, folder, there.probe)
        outcome = there.run(job, folder, {cell.name: cell.model for cell in job.cells}, "auto", whole_nodes=True)
        if not outcome.units and not job.unavailable:
            print(f"stopped by {outcome.stopped_by} before the first cell", file=sys.stderr)
            return outcome
        outcome.failed |= killed_units(job)
        part = summarize(job, outcome)
        write_summary(folder, study, job.name, part)
        if figures := matrix_figures(read_cells([raw_run(folder)])):
            draw_figures(figures, folder.path / "figures")
        click.echo(render_matrix(part))
        if outcome.stopped_by:
            print(
                f"Stopped by {outcome.stopped_by}. Finished cells are saved; run the same command to resume.",
                file=sys.stderr,
            )
        click.echo(f"results: {folder.path} ({len(job_cells)} cells)", err=True)
    return outcome


def dry_run(study: Manifest, results: Path) -> str:
    """Say which cells would run, in which order, and why others would not; runs the probes, no model."""
    section, cells = matrix_section(study), make_cells(study)
    machine = probe_machine([cell.layer for cell in cells])
    folder = RunFolder(results / study.name)
    job = MatrixJob(study, folder)
    job.find_questions(writes=False)
    lines = []
    for repetition in range(1, section.repetitions + 1):
        for cell in shuffled(cells, repetition, section.seed):
            verdict = machine.layers[cell.layer]
            done = progress_of(folder, cell.path(repetition), job.unit(cell, repetition).declared) == "done"
            state = "done" if done else "to do" if verdict.ok else f"unavailable: {verdict.reason}"
            lines.append(f"repetition {repetition}  {cell.name}  {state}")
    return "\n".join(lines)
