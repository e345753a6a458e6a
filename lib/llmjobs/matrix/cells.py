"""The cells of the grid: every model at every device, precision and setting of a manifest's ``matrix`` section."""

import random
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from llmjobs.engines.probing import Layer
from llmjobs.errors import DataError, ManifestError
from llmjobs.manifest import BenchmarkSpec, EvalSection, Manifest, ModelSpec
from llmjobs.manifest.matrix import MatrixSection
from llmjobs.quantization import METHODS

DEVICE_NAMES = {"cuda": "GPU", "mps": "Apple GPU", "cpu": "CPU"}


@dataclass(frozen=True)
class Cell:
    """One square of the grid, as the manifest asks for it."""

    model: ModelSpec
    """With the device, dtype and quantization of the cell."""
    threads: int | str
    batch_size: int
    tags: tuple[str, ...]
    """What distinguishes it from others of the same row: dtype, threads, rows; empty if the manifest has one of"
    " each."""

    @property
    def row(self) -> str:
        """The displayed name, such as ``GPU none`` or ``CPU 4-bit``, followed by settings that vary."""
        name = f"{DEVICE_NAMES[self.model.device]} {_title(self.model.quantization)}"
        return ", ".join([name, *self.tags])

    @cached_property
    def name(self) -> str:
        """Folder of the cell: ``demo-base.cpu-4bit``."""
        settings = "".join(f"-{tag.replace(' ', '')}" for tag in self.tags)
        return f"{self.model.name}.{self.model.device}-{self.model.quantization}{settings}"

    @property
    def layer(self) -> Layer:
        """What has to work for it."""
        return (self.model.device, self.model.dtype, self.model.quantization)

    @property
    def folder(self) -> str:
        """The cell's folder in the run, where its answers and ``cell.json`` lie."""
        return f"matrix/{self.name}"

    def path(self, repetition: int) -> str:
        """Folder of a repetition's unit; the first repetition uses the folder of the cell."""
        return self.folder if repetition == 1 else f"{self.folder}/repetition-{repetition}"

    def settings(self, section: MatrixSection) -> dict[str, Any]:
        """What decides its answers and its figures, beside model and questions."""
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
    """The questions of every cell: the benchmarks of the section, or else those of ``eval``.

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
    """All cells in the order of the grid: model, device, quantization, then what else varies."""
    section = matrix_section(study)
    axes = (section.devices, section.quantizations, section.dtypes, section.threads, section.batch_sizes)
    cells = []
    for model in study.models:
        if model.endpoint:
            raise DataError(
                f"{study.name}: {model.name} is an endpoint, but the matrix only times local models; remove it"
            )
        for device, quantization, dtype, threads, batch_size in product(*axes):
            tags = (
                dtype if len(section.dtypes) > 1 else "",
                f"threads {threads}" if len(section.threads) > 1 else "",
                f"batch {batch_size}" if len(section.batch_sizes) > 1 else "",
            )
            own = {"device": device, "quantization": quantization, "dtype": dtype, "device_map": "none"}
            # not validated anew: a pair that cannot work is a cell too, and a probe says why
            cells.append(Cell(model.model_copy(update=own), threads, batch_size, tuple(filter(None, tags))))
    return cells


def shuffled(cells: list[Cell], repetition: int, seed: int) -> list[Cell]:
    """The order of a repetition, the same for the same grid and seed."""
    order = list(cells)
    random.Random(f"{seed}/{repetition}").shuffle(order)
    return order


def questions_study(study: Manifest, model: ModelSpec, benchmarks: list[BenchmarkSpec], threads: int | str) -> Manifest:
    """The study that the eval code runs for one cell."""
    section = matrix_section(study)
    asked = EvalSection(
        benchmarks=benchmarks,
        seed=section.seed,
        batch_tokens=section.batch_tokens,
        threads=threads,
    )
    return Manifest.model_construct(name=study.name, description="", models=[model], eval=asked)
