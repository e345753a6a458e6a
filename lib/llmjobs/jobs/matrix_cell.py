"""One cell in a process of its own (``python -m llmjobs.jobs.matrix_cell``): load, warm up, time, ask.

Its answers come from the eval job's own code. Heavy imports stand inside the functions, so that they are timed.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmjobs.clocks import Span, measured
from llmjobs.errors import printable
from llmjobs.measuring.child import Teller, serve
from llmjobs.measuring.memory import own_peak_bytes
from llmjobs.measuring.perf_events import CpuCounters
from llmjobs.process_memory import WATCH
from llmjobs.redaction import redacted

if TYPE_CHECKING:
    from llmjobs.jobs.matrix_questions import Asker

WARM_UP_TOKENS = 16
NOISE = ("will be cast from", "gemm_4bit_forward")
"""Lines that a back end repeats for every layer and that change nothing."""


class Remarks(logging.Handler):
    """Collects warnings, each once, so that a halved batch is told with the cell's result."""

    def __init__(self) -> None:
        """Collect from warnings upwards."""
        super().__init__(logging.WARNING)
        self.lines: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        line = printable(redacted(record.getMessage()))
        if not any(noise in line for noise in NOISE):
            self.lines[line[:300]] = None


def run_cell(task: Mapping[str, Any], teller: Teller) -> dict[str, Any]:
    """Measure one cell; returns what it is, its figures and its answers.

    Raises:
        LlmjobsError: it cannot be loaded, or is not what was asked for.

    """
    remarks = Remarks()
    logging.basicConfig(level=logging.WARNING, handlers=[remarks], force=True)
    with CpuCounters() as counters, tempfile.TemporaryDirectory(prefix="llmjobs-cell-") as folder:
        teller.phase("import")
        with measured() as importing:
            asker = _import_everything(task, Path(folder))
        phases = _Phases(teller, asker.clock)
        teller.phase("load")
        bench = asker.load()
        with phases.timed("warmup"):
            asker.warm_up(WARM_UP_TOKENS)
        with phases.timed("speed"):
            speed = asker.measure_speed()
        with asker.energy_meter() as energy:
            records, questions = asker.ask(teller)
        return {
            "effective": asker.effective,
            "scoring_path": asker.effective["scoring_path"],
            "model": bench.loaded.description.to_record(),
            "import_s": round(importing.real_s, 6),
            "load_s": asker.load_s,
            "warmup_s": round(asker.probe_s + phases.spans["warmup"].real_s, 6),
            "gpu_s": phases.gpu_s(asker.load_gpu_s, questions["gpu_s"]),
            "gpu_s_reason": asker.gpu_s_reason,
            "speed": [one.to_record() for one in speed],
            "questions": questions,
            "energy": {"joules": dict(energy.joules.by_source), "reasons": dict(energy.joules.reasons)},
            "peak_rss_bytes": own_peak_bytes(),
            "peak_anon_bytes": WATCH.peaks().anon_bytes,
            "mapped_weight_bytes": bench.mapped_weight_bytes,
            "peak_device_bytes": phases.peak_device_bytes(asker.load_peak_device_bytes, questions["peak_device_bytes"]),
            "cpu": vars(counters.read()),
            "remarks": list(remarks.lines),
            "records": records,
        }


def _import_everything(task: Mapping[str, Any], folder: Path) -> "Asker":
    """Import what the cell needs, bitsandbytes only where it is quantized."""
    from llmjobs.jobs.matrix_questions import Asker

    if task["model"]["quantization"] != "none":
        import bitsandbytes  # noqa: F401
    return Asker(task, folder)


class _Phases:
    """Spans by name, told to the parent as they begin."""

    def __init__(self, teller: Teller, clock: Any) -> None:
        self.teller, self.clock = teller, clock
        self.spans: dict[str, Span] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        self.teller.phase(name)
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
