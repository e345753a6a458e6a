"""The cells of the grid: every model at every device, precision and setting of a manifest's ``matrix`` section."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from llmjobs.engines.probing import Layer
from llmjobs.errors import DataError, ManifestError
from llmjobs.manifest import BenchmarkSpec, EvalSection, Manifest, ModelSpec
from llmjobs.manifest.engines import engine_name
from llmjobs.manifest.matrix import MatrixSection
from llmjobs.manifest.precisions import Precision, spec_at
from llmjobs.quantization import METHODS

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
    """Where the manifest lists ``precisions``."""
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
