"""The cells of the grid: every model at every device, precision and setting, and how often each was started.

A start is counted before it happens, so that starts without a result include kills.
"""

import contextlib
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import product
from typing import Any

from llmjobs.engines.machine_probe import Layer
from llmjobs.errors import DataError, ManifestError
from llmjobs.machine.child import boot_id, oom_kills, own_oom_kills
from llmjobs.manifest import BenchmarkSpec, EvalSection, Manifest, ModelSpec
from llmjobs.manifest.engine_names import engine_name
from llmjobs.manifest.matrix import MatrixSection, Precision, spec_at
from llmjobs.quantization import METHODS
from llmjobs.terminal_text import plural
from llmjobs.work.folder import RunFolder, read_object

DEVICE_NAMES = {"cuda": "GPU", "mps": "Apple GPU", "cpu": "CPU"}


@dataclass(frozen=True)
class Cell:
    """One cell of the grid, as the manifest describes it."""

    model: ModelSpec
    """The model with the device, dtype and quantization of the cell."""
    threads: int | str
    batch_size: int
    tags: tuple[str, ...]
    """What distinguishes it from other cells of the same row: dtype, threads, rows; empty if nothing varies."""
    precision: Precision | None = None
    """The precision, if the manifest lists ``precisions``."""
    is_reference: bool = False
    """Whether cells of other precisions are compared with it."""
    error: str | None = None
    """Why it cannot exist, as far as the manifest shows."""

    @property
    def row(self) -> str:
        """The displayed name, such as ``GPU none`` or ``CPU 4-bit``, followed by settings that vary."""
        what = self.precision.title if self.precision else _title(self.model.quantization)
        name = f"{DEVICE_NAMES[self.model.device]} {what}"
        return ", ".join([name, *self.tags])

    @cached_property
    def name(self) -> str:
        """Folder of the cell: ``demo-base.cpu-4bit``."""
        settings = "".join(f"-{tag.replace(' ', '')}" for tag in self.tags)
        what = self.precision.file_name if self.precision else self.model.quantization
        return f"{self.model.name}.{self.model.device}-{what}{settings}"

    @property
    def layer(self) -> Layer:
        """What the machine must support for it."""
        engine = engine_name(self.model.engine, self.model.id)
        if engine != "transformers":
            return (self.model.device, "auto", engine)
        return (self.model.device, self.model.dtype, self.model.quantization)

    @property
    def folder(self) -> str:
        """The cell's folder in the run, which contains its answers and ``cell.json``."""
        return f"matrix/{self.name}"

    def path(self, repetition: int) -> str:
        """Folder of a repetition's unit; the first repetition uses the folder of the cell."""
        return self.folder if repetition == 1 else f"{self.folder}/repetition-{repetition}"

    def settings(self, section: MatrixSection) -> dict[str, Any]:
        """What decides its answers and measurements, besides model and questions."""
        return {
            "cell": self.name,
            "device_asked": self.model.device,
            "dtype_asked": self.model.dtype,
            "quantization_asked": self.model.quantization,
            "threads_asked": self.threads,
            "batch_size": self.batch_size,
            "context_lengths": list(section.context_lengths),
            "new_tokens": section.new_tokens,
            "batch_tokens": section.batch_tokens,
            **self.model.engine_settings,
        }


def _title(quantization: str) -> str:
    return METHODS[quantization].title if quantization in METHODS else quantization


def matrix_section(study: Manifest) -> MatrixSection:
    """The manifest's ``matrix`` section.

    Raises:
        ManifestError: it has none.

    """
    if study.matrix is None:
        raise ManifestError(f"{study.name}: the manifest has no 'matrix:' section; add one ('matrix: {{}}' works)")
    return study.matrix


def matrix_benchmarks(study: Manifest) -> list[BenchmarkSpec]:
    """The questions of every cell: the benchmarks of the section, otherwise those of ``eval``.

    Raises:
        DataError: there are none.

    """
    own = matrix_section(study).benchmarks
    found = own or (study.eval.benchmarks if study.eval else [])
    if not found:
        raise DataError(
            f"{study.name}: matrix: lists no benchmarks, and eval: has none to use instead; add benchmarks:"
        )
    return found


def make_cells(study: Manifest) -> list[Cell]:
    """All cells in the order of the grid: model, device, precision, then whatever else varies.

    Raises:
        DataError: a model is an endpoint.

    """
    section = matrix_section(study)
    cells = []
    for model in study.models:
        if model.endpoint:
            raise DataError(
                f"{study.name}: {model.name} is an endpoint, but the matrix only times local models; remove it"
            )
        for device in section.devices:
            here = model.model_copy(update={"device": device, "device_map": "none"})
            cells += _rungs(section, here) if section.rungs else _grid(section, here)
    return cells


def _grid(section: MatrixSection, model: ModelSpec) -> list[Cell]:
    """Every quantization with every number format. Pairs are not validated; a probe says why one cannot work."""
    cells = []
    axes = (section.quantizations, section.dtypes, section.threads, section.batch_sizes)
    for quantization, dtype, threads, batch_size in product(*axes):
        tags = (dtype if len(section.dtypes) > 1 else "", *_tags(section, threads, batch_size))
        spec = model.model_copy(update={"quantization": quantization, "dtype": dtype})
        cells.append(Cell(spec, threads, batch_size, tuple(filter(None, tags))))
    return cells


def _rungs(section: MatrixSection, model: ModelSpec) -> list[Cell]:
    """Every precision, on its engine."""
    cells = []
    for precision, threads, batch_size in product(section.rungs, section.threads, section.batch_sizes):
        try:
            spec, error = spec_at(model, precision), None
        except ValueError as problem:
            spec, error = model, str(problem)
        tags = tuple(filter(None, _tags(section, threads, batch_size)))
        is_reference = precision.name == section.reference_name
        cells.append(Cell(spec, threads, batch_size, tags, precision, is_reference, error))
    return cells


def _tags(section: MatrixSection, threads: int | str, batch_size: int) -> tuple[str, str]:
    return (
        f"threads {threads}" if len(section.threads) > 1 else "",
        f"batch {batch_size}" if len(section.batch_sizes) > 1 else "",
    )


def shuffled(cells: list[Cell], repetition: int, seed: int) -> list[Cell]:
    """The order of a repetition, the same for the same grid and seed."""
    order = list(cells)
    random.Random(f"{seed}/{repetition}").shuffle(order)
    return order


def questions_study(
    study: Manifest, models: Sequence[ModelSpec], benchmarks: list[BenchmarkSpec], threads: int | str
) -> Manifest:
    """The study that the eval code runs for cells of these models."""
    section = matrix_section(study)
    asked = EvalSection(
        benchmarks=benchmarks,
        seed=section.seed,
        batch_tokens=section.batch_tokens,
        threads=threads,
    )
    return Manifest.model_construct(name=study.name, description="", models=list(models), eval=asked)


FILE = "attempts.json"
MOST_KILLS = 2
"""A cell that was killed for memory this often is recorded as killed and not tried again."""
MOST_VANISHED = 5
"""The same for ends without evidence of a memory kill: the kernel's counter did not move, or there is none."""


@dataclass
class Attempts:
    """Earlier starts of a cell since its last result."""

    kills: int = 0
    """Starts that ended by a kill for memory: the cell's own, or that of the whole run with it."""
    vanished: int = 0
    """Unobserved ends on systems without a kill counter, and kills that the counter does not include."""
    running: bool = False
    boot: str | None = None
    oom_kills: int | None = None
    """The counter of this process's control group if it has one, else that of the machine."""
    group: str | None = None

    @property
    def given_up(self) -> str | None:
        """Why it is not tried again; None if it is."""
        if self.kills >= MOST_KILLS:
            return f"killed for lack of memory {'once' if self.kills == 1 else f'{self.kills} times'}"
        if self.vanished >= MOST_VANISHED:
            return (
                f"{plural(self.vanished, 'attempt')} ended without an error message while this cell was running, "
                "most likely for lack of memory"
            )
        return None


class AttemptsFile:
    """The attempts of one cell, in its folder."""

    def __init__(self, folder: RunFolder, cell_folder: str) -> None:
        """Read the counts of earlier runs, and count a start whose end was not observed."""
        self._folder, self._file = folder, f"{cell_folder}/{FILE}"
        self.attempts = self._read()
        if self.attempts.running:
            self._count_unseen_end()
            self._write()

    def start(self) -> None:
        """Record a start before it happens."""
        self.attempts.running = True
        self.attempts.boot = boot_id()
        self.attempts.group, self.attempts.oom_kills = own_oom_kills() or (None, oom_kills())
        self._write()

    def end(self, *, killed: bool) -> None:
        """Record an observed end, by SIGKILL or not.

        If there is a control group, its count of kills for memory shows who killed it.
        """
        self.attempts.running = False
        if killed:
            own, before = own_oom_kills(), self.attempts.oom_kills
            is_foreign = own is not None and own[0] == self.attempts.group and before is not None and own[1] <= before
            self.attempts.vanished += is_foreign
            self.attempts.kills += not is_foreign
        self._write()

    def clear(self) -> None:
        """Clear the counts, because the cell has a result."""
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
