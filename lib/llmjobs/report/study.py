"""The data of a report: as read (raw), and matched on the same questions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmjobs.changed_prompts import ChangedPrompts
from llmjobs.records import CellResult

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

OK, UNPARSED, ERROR, ABSENT = 0, 1, 2, 3
STATUS = {"ok": OK, "unparsed": UNPARSED, "error": ERROR}
TEXT_CODE = 1000
"""Codes of generated answers start here, those of letters at 0."""


class Answer(NamedTuple):
    """One model's answer to one question, as read.

    ``correct`` is None if nothing was scored right or wrong; ``score`` is between 0 and 1 if the log gives partial
    credit (then ``correct`` is None).
    """

    subject: str
    doc_id: str
    gold: str
    prediction: str | None
    correct: bool | None
    status: str
    loglikelihoods: list[float] | None = None
    metrics: Mapping[str, float] | None = None
    text: str | None = None
    score: float | None = None


class Question(NamedTuple):
    """A readable question; ``gold`` is its answer if the question's source has one."""

    text: str
    choices: tuple[str, ...] = ()
    hash: str = ""
    gold: str = ""


@dataclass(frozen=True)
class Notice:
    """Something about the input that a reader of the report must know; nothing is dropped silently."""

    where: str
    what: str

    def __str__(self) -> str:
        """One line for the terminal."""
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Cost:
    """What a model used, over all attempts; None if not measured.

    ``questions_per_s`` has the same definition everywhere: questions with a record, divided by the real time of the
    steps that scored them, so without loading, planning, the trial of batch sizes and saving.
    """

    real_s: float | None = None
    user_s: float | None = None
    system_s: float | None = None
    gpu_s: float | None = None
    gpu_s_reason: str | None = None
    load_s: float | None = None
    peak_rss_bytes: int | None = None
    needed_bytes: int | None = None
    """The part of the resident memory that the system cannot reclaim; file pages are not included."""
    peak_device_bytes: int | None = None
    energy_j: float | None = None
    questions: int = 0
    attempts: int = 1
    questions_per_s: float | None = None

    @property
    def cpu_s(self) -> float | None:
        """User and system time together."""
        return None if self.user_s is None else self.user_s + (self.system_s or 0.0)

    @property
    def memory_bytes(self) -> int | None:
        """Memory that the model needs: the accelerator's if it uses one, otherwise what the process cannot release."""
        return self.peak_device_bytes or self.needed_bytes or self.peak_rss_bytes


LOADED_AS = {
    "engine": "engine",
    "kv_cache": "format of keys and values",
    "gpu_layers": "layers on the GPU",
    "adapter": "adapter",
    "adapter_revision": "revision of the adapter",
    "adapter_merged": "merged adapter",
}
"""Details of a model by which two entries with the same weights may differ on purpose, and what they are called."""


@dataclass(frozen=True)
class ModelInfo:
    """What was run: the effective settings, as recorded."""

    id: str
    revision: str = ""
    device: str = ""
    dtype: str = ""
    quantization: str = ""
    study: str = ""
    run: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that distinguish two runs of one model, without the run's name."""
        return (self.revision, self.device, self.dtype, self.quantization, *self.prompts, *map(self.detail, LOADED_AS))

    @property
    def engine(self) -> str:
        """The program that ran it; empty if it is not recorded."""
        return self.detail("engine")

    def detail(self, name: str) -> str:
        """A recorded detail as text; empty if there is none."""
        value = self.details.get(name)
        return "" if value is None else str(value)

    @property
    def prompts(self) -> tuple[str, str]:
        """The thinking and the date in a chat template's prompts; empty if the template has neither."""
        thinking, date = (str(self.details.get(name) or "") for name in ("thinking", "prompt_date"))
        return ("" if thinking == "none" else thinking, date)


@dataclass
class RawEntry:
    """One model in one result folder or log: records by benchmark, before they are matched.

    A log can score the same answers by several metrics (``acc`` and ``acc_norm``, two filters, two scorers):
    ``by_metric[benchmark][name]`` holds the records of each, ``metric[benchmark]`` names the one that ``records``
    holds. A table of answers names none.
    """

    info: ModelInfo
    source: str
    records: dict[str, list[Answer]] = field(default_factory=dict)
    metric: dict[str, str] = field(default_factory=dict)
    by_metric: dict[str, dict[str, list[Answer]]] = field(default_factory=dict)
    protocol: dict[str, dict[str, str]] = field(default_factory=dict)
    cost: Cost | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
    fingerprints: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    changed: dict[str, ChangedPrompts] = field(default_factory=dict)
    """By benchmark: prompts that differ from the manifest."""

    def protocol_of(self, benchmark: str, subject: str, fields: Mapping[str, str]) -> None:
        """Store how a subject was asked; a field that differs between subjects is stored per subject."""
        kept = self.protocol.setdefault(benchmark, {})
        for name, value in fields.items():
            if kept.setdefault(name, value) != value:
                kept[f"{name} ({subject})"] = value


@dataclass
class RawRun:
    """The content of one path.

    ``checks`` counts the figures of the tool's own summary that were recomputed from its records: equal ones, and all.
    """

    path: Path
    kind: str
    in_parts: bool = False
    """Whether the tool may write a model's benchmarks into several logs."""
    entries: list[RawEntry] = field(default_factory=list)
    questions: dict[tuple[str, str, str], Question] = field(default_factory=dict)
    asked: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    environment: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    cells: list[CellResult] = field(default_factory=list)
    """Cells of a timing matrix."""
    partial: bool = False
    checks: tuple[int, int] = (0, 0)
    races: list[Mapping[str, Any]] = field(default_factory=list)
    """What a rule decided that ended the questions early (``stop:``), as in the run's summary."""

    def checked(self, equal: bool) -> None:
        """Count a figure of the tool's own summary that was recomputed."""
        self.checks = (self.checks[0] + equal, self.checks[1] + 1)

    def notice(self, where: str, what: str) -> None:
        """Add a notice."""
        self.notices.append(Notice(where, what))


@dataclass(frozen=True)
class Entry:
    """One model with its settings; a benchmark's ``rows`` are indices into :attr:`Study.entries`."""

    label: str
    info: ModelInfo
    source: str
    cost: Cost | None
    machine: Mapping[str, Any]
    fingerprints: Mapping[str, Mapping[str, Any]]
    changed: Mapping[str, ChangedPrompts] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """Answers to the same questions: one row per entry (those in ``rows``), one column per question.

    ``correct`` is 1, 0 or ``nan`` (an error, or not answered yet); ``answer`` the option's index, at or above
    :data:`TEXT_CODE` the code of a generated answer, -1 if none could be read. ``options`` is 0 for generated answers.
    ``metric`` names what ``correct`` was computed from (``acc``, ``acc_norm``, a filter or a scorer), "" if no log says
    it.
    """

    name: str
    rows: tuple[int, ...]
    subject: NDArray[np.str_]
    doc_id: tuple[str, ...]
    gold: tuple[str, ...]
    gold_code: Ints
    options: Ints
    correct: Floats
    answer: Ints
    status: Ints
    loglikelihoods: tuple[Floats | None, ...]
    metrics: Mapping[str, Floats]
    questions: tuple[Question | None, ...]
    texts: Mapping[tuple[int, int], str]
    protocol: Mapping[str, str]
    metric: str = ""

    @property
    def n(self) -> int:
        """Number of questions."""
        return len(self.doc_id)

    @property
    def subjects(self) -> list[str]:
        """Subjects in sorted order."""
        return sorted({str(name) for name in self.subject})

    @property
    def chance(self) -> float:
        """Accuracy of blind guessing: the mean of 1 / k, 0 for generated answers."""
        return float(np.mean(np.where(self.options > 1, 1 / np.maximum(self.options, 1), 0.0))) if self.n else 0.0

    def letter(self, code: int) -> str:
        """Return the letter of an option's index; a dash if there is none."""
        return chr(ord("A") + code) if 0 <= code < 26 else "–"


@dataclass(frozen=True)
class MetricTable:
    """One metric of a benchmark: one row per entry (those in ``rows``), one column per question; ``nan``: not scored.

    ``graded``: values between 0 and 1 occur, so its mean is a mean score, not a share of right answers. ``counts``: the
    rest of the report uses this metric.
    """

    benchmark: str
    name: str
    rows: tuple[int, ...]
    values: Floats
    subject: NDArray[np.str_]
    graded: bool
    counts: bool


@dataclass(frozen=True)
class Repeat:
    """A second run of the same model with the same settings: how often it gave the same answer."""

    label: str
    benchmark: str
    source: str
    questions: int
    same: int


@dataclass(frozen=True)
class Study:
    """All the data of a report."""

    title: str
    entries: tuple[Entry, ...]
    benchmarks: tuple[Benchmark, ...]
    runs: tuple[RawRun, ...]
    notices: tuple[Notice, ...]
    partial: bool
    repeats: tuple[Repeat, ...] = ()
    label_notes: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)
    metrics: tuple[MetricTable, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    taken: tuple[tuple[int, int], ...] = ()
    """Numbers of models and records that ``where`` selected from each run, in order."""

    @property
    def graded(self) -> tuple[MetricTable, ...]:
        """Mean scores that the rest of the report uses: benchmarks without right and wrong."""
        return tuple(table for table in self.metrics if table.graded and table.counts)

    @property
    def main(self) -> Benchmark | None:
        """The benchmark with the most questions that the most entries answered."""
        return max(self.benchmarks, key=lambda b: (len(b.rows), b.n), default=None)
