"""One matrix cell in its own process (``python -m llmjobs.matrix.cell_process``): load, warm up, time, ask."""

import datetime
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmjobs.clocks import NO_GPU_TIME, Span, measured
from llmjobs.engines.protocol import Engine
from llmjobs.engines.registry import engine_of, locate, weight_file_bytes
from llmjobs.engines.speed import Speed
from llmjobs.errors import LlmjobsError, printable
from llmjobs.eval.job import EvalJob, EvalModel
from llmjobs.machine.child import Reporter, serve
from llmjobs.machine.cpu_counters import CpuCounters
from llmjobs.machine.energy import EnergyMeter
from llmjobs.manifest import BenchmarkSpec, EvalSection, Manifest, ModelSpec
from llmjobs.memory import WATCH, high_water_bytes
from llmjobs.quantization import NONE
from llmjobs.redaction import redacted
from llmjobs.work.folder import RunFolder

# In the cell's process, after importing torch: the model, its speed, and the questions of the eval job.


class CellRun:
    """The measurement of one cell."""

    def __init__(self, task: Mapping[str, Any], folder: Path) -> None:
        """``task`` is as the parent sent it; ``folder`` is temporary."""
        self.task = task
        # built from what the parent validated: a grid may contain pairs that a manifest refuses
        self.spec = ModelSpec.model_construct(**task["model"])
        benchmarks = [BenchmarkSpec.model_validate(one) for one in task["benchmarks"]]
        section = EvalSection(
            benchmarks=benchmarks, seed=task["seed"], batch_tokens=task["batch_tokens"], threads=task["threads"]
        )
        date = datetime.date.fromisoformat(task["date"]) if task.get("date") else None
        study = Manifest.model_construct(name="cell", description="", date=date, models=[self.spec], eval=section)
        self.job = EvalJob(study, RunFolder(folder))
        self.engine = engine_of(self.spec)
        self.clock = self.engine.clock(self.spec.device)
        self.effective: dict[str, Any] = {}
        self.load_s = self.probe_s = 0.0
        self.load_gpu_s: float | None = None
        self.load_peak_device_bytes: int | None = None

    @property
    def gpu_s_reason(self) -> str | None:
        """Why there is no GPU time; empty if there is."""
        return NO_GPU_TIME.get(self.spec.device)

    def load(self) -> EvalModel:
        """Initialize the device, then load the model."""
        self.probe_s = self.engine.warm_up_s(self.spec.device)
        with measured(self.clock) as span:
            bench = self.job.loaded(self.spec)
        self.load_s = bench.load_s
        self.probe_s += span.real_s - self.load_s
        self.load_gpu_s, self.load_peak_device_bytes = span.gpu_s, span.peak_device_bytes
        found = bench.engine.description
        for key in ("device", "quantization"):
            asked, is_now = getattr(self.spec, key), getattr(found, key)
            # the precision of a stored file is recorded, not requested
            as_stored = key == "quantization" and asked == NONE
            if asked != is_now and not as_stored:
                raise LlmjobsError(
                    f"{key} {asked} was requested, but the weights were loaded as {is_now}, so the cell was not run"
                )
        self.effective = dict(bench.effective)
        return bench

    def warm_up(self, tokens: int) -> None:
        """Run a short prompt once through prefill and decode."""
        self._speed([tokens], rows=1, new_tokens=4)

    def measure_speed(self) -> list[Speed]:
        """Time prefill and decode at the requested context lengths."""
        task = self.task
        return self._speed(task["context_lengths"], rows=task["batch_size"], new_tokens=task["new_tokens"])

    def energy_meter(self) -> EnergyMeter:
        """Return a meter for the energy of processor and device."""
        return EnergyMeter(self.spec.device, self.task.get("uuid") or self.engine.gpu_uuid())

    def ask(self, reporter: Reporter) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
        """Ask every question; return the records and the total time of their batches."""
        records: list[Mapping[str, Any]] = []
        total, gpu, peaks, tokens = Span(), [], [0], 0
        plans = {}
        for unit in self.job.units():
            reporter.report(phase=f"questions {unit.path.rpartition('/')[2]}")
            with self.job.open(unit, None) as work:
                plans[unit.path.rpartition("/")[2]] = work.effective.get("plan")
                for index in range(work.steps):
                    step = work.step(index)
                    timing = step.timing
                    records += step.records
                    tokens += timing.get("tokens", 0)
                    for name in ("real_s", "user_s", "system_s"):
                        setattr(total, name, getattr(total, name) + timing.get(name, 0.0))
                    gpu.append(timing.get("gpu_s"))
                    peaks.append(timing.get("peak_device_bytes") or 0)
        self.effective |= {**self.job.loaded(self.spec).effective, "plans": plans}
        seen = [one for one in gpu if one is not None]
        total.gpu_s = sum(seen) if seen else None
        total.peak_device_bytes = max(peaks) or None
        return records, total.to_record() | {"questions": len(records), "tokens": tokens}

    def _speed(self, contexts: list[int], *, rows: int, new_tokens: int) -> list[Speed]:
        engine: Engine = self.job.loaded(self.spec).engine
        return engine.measure_speed(contexts, rows=rows, new_tokens=new_tokens)


WARM_UP_TOKENS = 16
NOISE = ("will be cast from", "gemm_4bit_forward")
"""Messages that a back end repeats for every layer and that change nothing."""


class WarningCollector(logging.Handler):
    """Collects warnings, each once, so that a halved batch is reported with the cell's result."""

    def __init__(self) -> None:
        """Collect warnings and errors."""
        super().__init__(logging.WARNING)
        self.lines: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Store one line."""
        line = printable(redacted(record.getMessage()))
        if not any(noise in line for noise in NOISE):
            self.lines[line[:300]] = None


def run_cell(task: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Measure one cell; return its properties, measurements and answers.

    Raises:
        LlmjobsError: it cannot be loaded, or differs from what was requested.

    """
    remarks = WarningCollector()
    logging.basicConfig(level=logging.WARNING, handlers=[remarks], force=True)
    with CpuCounters() as counters, tempfile.TemporaryDirectory(prefix="llmjobs-cell-") as folder:
        reporter.phase("import")
        with measured() as importing:
            cell = _import_everything(task, Path(folder))
        phases = _Phases(reporter, cell.clock)
        reporter.phase("load")
        bench = cell.load()
        with phases.timed("warmup"):
            cell.warm_up(WARM_UP_TOKENS)
        with phases.timed("speed"):
            speed = cell.measure_speed()
        with cell.energy_meter() as energy:
            records, questions = cell.ask(reporter)
        return {
            "effective": cell.effective,
            "scoring_path": cell.effective["scoring_path"],
            "model": bench.engine.description.to_record(),
            "import_s": round(importing.real_s, 6),
            "load_s": cell.load_s,
            "warmup_s": round(cell.probe_s + phases.spans["warmup"].real_s, 6),
            "gpu_s": phases.gpu_s(cell.load_gpu_s, questions["gpu_s"]),
            "gpu_s_reason": cell.gpu_s_reason,
            "speed": [one.to_record() for one in speed],
            "questions": questions,
            "energy": {"joules": dict(energy.joules.by_source), "reasons": dict(energy.joules.reasons)},
            "peak_rss_bytes": high_water_bytes(),
            "peak_anon_bytes": WATCH.peaks().anon_bytes,
            "mapped_weight_bytes": bench.engine.mapped_weight_bytes,
            "file_bytes": weight_file_bytes(cell.spec, locate(cell.spec)),
            "peak_device_bytes": phases.peak_device_bytes(cell.load_peak_device_bytes, questions["peak_device_bytes"]),
            "cpu": vars(counters.read()),
            "remarks": list(remarks.lines),
            "records": records,
        }


def _import_everything(task: Mapping[str, Any], folder: Path) -> "CellRun":
    """Import what the cell needs."""
    cell = CellRun(task, folder)
    cell.engine.import_all(cell.spec)
    return cell


class _Phases:
    """Times spans by name and reports each to the parent as it begins."""

    def __init__(self, reporter: Reporter, clock: Any) -> None:
        self.reporter, self.clock = reporter, clock
        self.spans: dict[str, Span] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        self.reporter.phase(name)
        with measured(self.clock) as span:
            yield
        self.spans[name] = span

    def gpu_s(self, *others: float | None) -> float | None:
        found = [s for s in (*(span.gpu_s for span in self.spans.values()), *others) if s is not None]
        return round(sum(found), 6) if found else None

    def peak_device_bytes(self, *others: int | None) -> int | None:
        return max((p for p in (*(s.peak_device_bytes for s in self.spans.values()), *others) if p), default=None)


if __name__ == "__main__":
    serve(run_cell)
