#!/usr/bin/env python3
"""What saving costs: the share of an eval's time that goes into records, timings, checkpoints and their syncs.

    python benchmarks/checkpoint.py --data ../shared/data [--size 125m] [--questions 60] [--results DIR]

Runs ``llmjobs eval`` in this process at the default settings (batch size measured) on two MMLU subjects, 5-shot, with
a random-weight Llama of a size of ``plan.py``, or with the demo manifest (``--size demo``: tiny models, the worst case
there is), and times every call that writes below the run. ``--results`` chooses the disk. The last line is JSON:
``share`` of the wall time and ``share_cpu`` of this thread's CPU time, ``steps``, and the seconds of each call
(``step`` saves the steps, the others begin and end a run and its units).
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from plan import SIZES, SUBJECTS, make_model

from llmjobs.work.folder import RunFolder
from llmjobs.work.when_to_save import Writer

SAVING = (
    (Writer, ("__init__", "opened", "step", "finish", "leave", "close")),
    (RunFolder, ("write_json", "write_text")),
)
"""Everything that writes below a run."""


@dataclass
class Spent:
    """Seconds within the calls that save."""

    real_s: float = 0.0
    cpu_s: float = 0.0
    steps: int = 0
    by_call: dict[str, float] = field(default_factory=dict)

    def watch(self) -> None:
        """Time the calls from here on."""
        for owner, names in SAVING:
            for name in names:
                setattr(owner, name, self._timed(name, getattr(owner, name)))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            real, cpu = time.perf_counter(), time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                took = time.perf_counter() - real
                self.real_s += took
                self.by_call[name] = self.by_call.get(name, 0.0) + took
                self.cpu_s += time.thread_time() - cpu
                self.steps += name == "step"

        return timed


def write_manifest(folder: Path, size: str, data: Path, questions: int) -> str:
    """The manifest of a size; the demo's own for ``demo``."""
    if size == "demo":
        return "demo"
    make_model(folder / size, size, data)
    benchmark = {"name": "mmlu", "subjects": SUBJECTS, "num_fewshot": 5, "data": str(data / "mmlu"), "limit": questions}
    model = {"id": str(folder / size), "name": size, "device": "cpu"}
    path = folder / "checkpoint.yaml"
    path.write_text(yaml.safe_dump({"models": [model], "eval": {"benchmarks": [benchmark]}}), encoding="utf-8")
    return str(path)


def main() -> None:
    """Run, and print the share."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", choices=[*SIZES, "demo"], default="125m")
    parser.add_argument("--questions", type=int, default=60, help="of each subject")
    parser.add_argument("--results", type=Path, help="a folder on the disk to measure; default: a temporary one")
    arguments = parser.parse_args()
    from llmjobs.eval import job as eval_job
    from llmjobs.manifest import load_manifest

    with tempfile.TemporaryDirectory(dir=arguments.results) as folder:
        manifest = write_manifest(Path(folder), arguments.size, arguments.data, arguments.questions)
        spent = Spent()
        spent.watch()
        real, cpu = time.perf_counter(), time.thread_time()
        code = eval_job.run(load_manifest(manifest), Path(folder) / "results").exit_code
        real, cpu = time.perf_counter() - real, time.thread_time() - cpu
    figures = {
        "size": arguments.size,
        "seconds": round(real, 2),
        "saving_s": round(spent.real_s, 3),
        "share": round(spent.real_s / real, 5),
        "share_cpu": round(spent.cpu_s / cpu, 5),
        "steps": spent.steps,
        "by_call_s": {name: round(took, 3) for name, took in spent.by_call.items()},
    }
    print(json.dumps(figures))
    sys.exit(code)


if __name__ == "__main__":
    main()
