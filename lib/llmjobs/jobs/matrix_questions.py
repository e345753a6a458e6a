"""What happens in a cell's process once torch is there: the model, its speed, and the eval job's questions."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmjobs.clocks import Span, measured
from llmjobs.errors import LlmjobsError
from llmjobs.jobs.eval_job import EvalJob
from llmjobs.manifest import BenchmarkSpec, EvalSection, Manifest, ModelSpec
from llmjobs.measuring.child import Teller
from llmjobs.measuring.energy import EnergyMeter
from llmjobs.measuring.speed import Speed, measure_speed
from llmjobs.models.device import NO_GPU_TIME, DeviceClock, gpu_uuid, warm_up_seconds
from llmjobs.runfolder.folder import RunFolder


class CellEval(EvalJob):
    """The eval job of one model, driven unit by unit, its model open to look at."""

    def bench(self) -> Any:
        """The loaded model with its scorer."""
        return self._model(self.study.models[0])


class Asker:
    """One cell at work."""

    def __init__(self, task: Mapping[str, Any], folder: Path) -> None:
        """Take the task as the parent sent it; ``folder`` is thrown away afterwards."""
        self.task = task
        # built as the parent validated it: a grid may hold pairs that a manifest refuses
        self.spec = ModelSpec.model_construct(**task["model"])
        benchmarks = [BenchmarkSpec.model_validate(one) for one in task["benchmarks"]]
        section = EvalSection(
            benchmarks=benchmarks, seed=task["seed"], batch_tokens=task["batch_tokens"], threads=task["threads"]
        )
        date = datetime.date.fromisoformat(task["date"]) if task.get("date") else None
        study = Manifest.model_construct(name="cell", description="", date=date, models=[self.spec], eval=section)
        self.job = CellEval(study, RunFolder(folder))
        self.clock = DeviceClock(self.spec.device)
        self.effective: dict[str, Any] = {}
        self.load_s = self.probe_s = 0.0
        self.load_gpu_s: float | None = None
        self.load_peak_device_bytes: int | None = None

    @property
    def gpu_s_reason(self) -> str | None:
        """Why there is no GPU time, where there is none."""
        return NO_GPU_TIME.get(self.spec.device)

    def load(self) -> Any:
        """Load the model, after the device was woken; what the scoring paths' check takes counts as warm-up."""
        self.probe_s = warm_up_seconds(self.spec.device)
        with measured(self.clock) as span:
            bench = self.job.bench()
        self.load_s = float(bench.take_load_s() or 0.0)
        self.probe_s += span.real_s - self.load_s
        self.load_gpu_s, self.load_peak_device_bytes = span.gpu_s, span.peak_device_bytes
        found = bench.loaded.description
        for key in ("device", "quantization"):
            if (asked := getattr(self.spec, key)) != (is_now := getattr(found, key)):
                raise LlmjobsError(f"{key} should be {asked}, but the loaded weights are {is_now}; not run")
        self.effective = dict(bench.effective)
        return bench

    def warm_up(self, tokens: int) -> None:
        """Run a short prompt once through prefill and decode."""
        self._speed([tokens], rows=1, new_tokens=4)

    def measure_speed(self) -> list[Speed]:
        """Time prefill and decode at the context lengths asked for."""
        task = self.task
        return self._speed(task["context_lengths"], rows=task["batch_size"], new_tokens=task["new_tokens"])

    def energy_meter(self) -> EnergyMeter:
        """Energy of processor and device."""
        return EnergyMeter(self.spec.device, self.task.get("uuid") or gpu_uuid())

    def ask(self, teller: Teller) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Ask every question; returns the records, and the time of their batches added up."""
        records: list[dict[str, Any]] = []
        total, gpu, peaks, tokens = Span(), [], [0], 0
        plans = {}
        for unit in self.job.units():
            teller.tell(phase=f"questions {unit.path.rpartition('/')[2]}")
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
        self.effective["plans"] = plans
        seen = [one for one in gpu if one is not None]
        total.gpu_s = sum(seen) if seen else None
        total.peak_device_bytes = max(peaks) or None
        return records, total.to_record() | {"questions": len(records), "tokens": tokens}

    def _speed(self, contexts: list[int], *, rows: int, new_tokens: int) -> list[Speed]:
        loaded = self.job.bench().loaded
        return measure_speed(loaded.model, loaded.device, loaded.max_length, contexts, rows=rows, new_tokens=new_tokens)
