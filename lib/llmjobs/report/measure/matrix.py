"""The timing matrix as the report takes it: one :class:`Cell` for each device, quantization, dtype and model.

:func:`read_cells` fills it from ``matrix/CELL/cell.json`` and ``records.jsonl`` of a run folder.
``cell.json`` has ``row`` (the name to print), ``model``, ``device``, ``quantization``, ``dtype``,
``status`` (done, unavailable, failed or killed), ``reason``, ``repetitions`` and ``measures``: a number,
or ``{"median", "low", "high"}`` over the repetitions, under the names in :data:`MEASURES`. What a cell
did not measure is absent or null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmjobs.report.read.json_files import number_or_none, read_json, read_lines
from llmjobs.report.study import RawRun
from llmjobs.statistics.intervals import Interval, wilson
from llmjobs.statistics.paired import PairedDifference, paired_difference

MEASURES = (
    "import_s",
    "load_s",
    "warmup_s",
    "real_s",
    "user_s",
    "system_s",
    "gpu_s",
    "cycles",
    "instructions",
    "ttft_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "questions_real_s",
    "questions_per_s",
    "peak_rss_bytes",
    "needed_bytes",
    "peak_device_bytes",
    "weight_bytes",
    "energy_j",
    "joules_per_1000_questions",
)
DONE = "done"


@dataclass(frozen=True)
class Spread:
    """A median with the lowest and highest of its repetitions."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One cell of the grid; ``answers`` maps (subject, doc_id) to the answer and whether it is right."""

    name: str
    model: str
    device: str
    quantization: str
    dtype: str
    status: str
    reason: str = ""
    repetitions: int = 0
    measures: Mapping[str, Spread] = field(default_factory=dict)
    answers: Mapping[tuple[str, str, str], tuple[str | None, bool]] = field(default_factory=dict)
    run: Path = Path()
    """The run's folder; two runs may have one name."""

    def value(self, name: str) -> float | None:
        """Return the median of a measure, or None where it was not measured."""
        found = self.measures.get(name)
        return None if found is None else found.median

    @property
    def cpu_s(self) -> float | None:
        """User and system time together."""
        user, system = self.value("user_s"), self.value("system_s")
        return None if user is None else user + (system or 0.0)

    @property
    def memory_bytes(self) -> float | None:
        """Memory that the cell needs: the accelerator's where it is on one, else what must stay of the process."""
        return self.value("peak_device_bytes") or self.value("needed_bytes") or self.value("peak_rss_bytes")

    @property
    def accuracy(self) -> Interval | None:
        """Share right with Wilson's interval, or None without answers."""
        if not self.answers:
            return None
        right = sum(correct for _, correct in self.answers.values())
        return Interval(right / len(self.answers), *wilson(right, len(self.answers)))


@dataclass(frozen=True)
class Flips:
    """What a cell's settings change on the same questions, against the cell it is compared with.

    ``changed`` counts other answers, right or wrong; the difference is this cell's accuracy less the
    other's.
    """

    cell: Cell
    against: Cell
    changed: int
    result: PairedDifference


def cell_names(cells: Sequence[Cell]) -> list[str]:
    """Return what each cell is called beside the others: its row, with the model where there are several."""
    several = len({cell.model for cell in cells}) > 1
    return [f"{cell.model} {cell.name}" if several else cell.name for cell in cells]


def read_cells(runs: Sequence[RawRun]) -> list[Cell]:
    """Read the cells of all runs in the order of their folders; an unreadable one becomes a notice."""
    cells = []
    for run in runs:
        for file in sorted((run.path / "matrix").glob("*/cell.json")) if run.path.is_dir() else []:
            where = f"{run.path.name}/{file.relative_to(run.path).as_posix()}"
            raw = read_json(file, run, where)
            if raw:
                cells.append(_cell(raw, file.parent, run))
    return cells


def _cell(raw: Mapping[str, Any], folder: Path, run: RawRun) -> Cell:
    answers = {}
    records = folder / "records.jsonl"
    for line in read_lines(records, run, f"{run.path.name}/matrix/{folder.name}") if records.exists() else ():
        if line.get("correct") is not None:
            key = (str(line.get("benchmark", "")), str(line.get("subject", "")), str(line.get("doc_id")))
            answers[key] = (line.get("prediction"), bool(line["correct"]))
    measures = {name: spread for name in MEASURES if (spread := _spread((raw.get("measures") or {}).get(name)))}
    return Cell(
        name=str(raw.get("row") or raw.get("cell") or folder.name),
        model=str(raw.get("model") or ""),
        device=str(raw.get("device") or ""),
        quantization=str(raw.get("quantization") or "none"),
        dtype=str(raw.get("dtype") or ""),
        status=str(raw.get("status") or DONE),
        reason=str(raw.get("reason") or ""),
        repetitions=int(number_or_none(raw.get("repetitions")) or 0),
        measures=measures,
        answers=answers,
        run=run.path,
    )


def _spread(value: Any) -> Spread | None:
    if isinstance(value, dict):
        median, low, high = (number_or_none(value.get(name)) for name in ("median", "low", "high"))
        if median is None:
            return None
        return Spread(median, median if low is None else low, median if high is None else high)
    number = number_or_none(value)
    return None if number is None else Spread(number, number, number)


def find_flips(cells: Sequence[Cell]) -> list[Flips]:
    """Hold every cell against the unquantized one of its model, on its own device where there is one."""
    found = []
    for cell in cells:
        plain = [c for c in cells if c.model == cell.model and c.quantization == "none" and c.answers and c is not cell]
        plain.sort(key=lambda c: (c.device != cell.device, cells.index(c)))
        if not plain or not cell.answers or (cell.quantization == "none" and cells.index(cell) < cells.index(plain[0])):
            continue
        against = plain[0]
        keys = sorted(set(cell.answers) & set(against.answers))
        if keys:
            mine, theirs = [cell.answers[k] for k in keys], [against.answers[k] for k in keys]
            changed = sum(a[0] != b[0] for a, b in zip(mine, theirs, strict=True))
            result = paired_difference([a[1] for a in mine], [b[1] for b in theirs])
            found.append(Flips(cell, against, changed, result))
    return found
