"""Every job on a run small enough to be killed at each of its file operations, and what must come out the same.

The demo model is loaded once, in the process that forks: a child then has weights and imports without paying for them.
"""

import gc
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults import Fault, in_child

sys.path.append(str(Path(__file__).parents[1] / "matrix"))
from matrix_stand_in import StandIn, probe

from llmjobs.chat.backend import Ending
from llmjobs.work import checkpoint, when_to_save

JOBS = ("eval", "converse", "mtbench", "matrix", "report")
MODEL = {"id": "llmjobs/demo-tiny", "name": "tiny", "dtype": "float32", "device": "cpu"}
SECTIONS: dict[str, dict[str, Any]] = {
    "eval": {
        "benchmarks": [{"name": "demo", "subjects": ["number_size", "odd_one_out"], "limit": 4}],
        "batch_tokens": 96,
        "threads": 1,
    },
    "converse": {
        "conversations": 2, "distances": [1], "strategies": ["window"], "contexts": [128],
        "max_new_tokens": 4, "threads": 1,
    },
    "mtbench": {
        "categories": ["writing", "math"], "limit": 1, "max_new_tokens": 4, "threads": 1,
        "judges": [{"endpoint": "http://127.0.0.1:9/v1", "model": "judge"}],
    },
    "matrix": {
        "benchmarks": [{"name": "demo", "subjects": ["number_size"], "limit": 10}],
        "devices": "cpu", "quantizations": "none", "repetitions": 2, "context_lengths": [32],
    },
}  # fmt: skip
MEASURED = frozenset(
    [
        "real_s",
        "user_s",
        "system_s",
        "gpu_s",
        "load_s",
        "ttft_s",
        "turn_s",
        "questions_per_s",
        "peak_rss_bytes",
        "peak_anon_bytes",
        "needed_bytes",
        "scoring_s",
        "peak_device_bytes",
        "attempts",
        "attempt",
        "saves",
        "max_difference",
        "layers",
        "timings_bytes",
        "timings_sha256",
    ]
)
"""Names of what is measured, in any file: time, memory, how often it was begun, and what a probe saw of a model (if the
machine is busy, of its first layers only). Everything else must be equal."""


@dataclass
class Rule:
    """An endpoint that answers by rule."""

    name: str = "judge"
    limit: int | None = 4000

    @property
    def effective(self) -> dict[str, Any]:
        return {"endpoint": "by rule", "model": self.name}

    def clock(self):
        return None

    def count(self, messages):
        return sum(4 + len(message.content.split()) for message in messages)

    def answer(self, messages, sampling):
        yield f"Fine. Rating: [[{1 + len(messages[-1].content) % 10}]]"
        return Ending("stop", self.count(messages), 5, counted="server")

    def start(self, seed):
        pass

    def close(self):
        pass


MODULES = [
    "llmjobs.cli", "llmjobs.chat.open_backend", "llmjobs.eval.job", "llmjobs.converse.job", "llmjobs.mtbench.job",
    "llmjobs.matrix.job", "llmjobs.matrix.cell_process", "llmjobs.make_report",
    "matplotlib.backends.backend_agg", "llmjobs.engines.transformers.generate",
    "llmjobs.engines.transformers.score", "llmjobs.engines.transformers.chat_model",
]  # fmt: skip


@cache
def demo_model():
    """The model and everything else that a child needs, loaded once."""
    import torch

    from llmjobs.engines.transformers.load import load_model
    from llmjobs.manifest import ModelSpec

    torch.set_num_threads(1)
    for name in MODULES:
        import_module(name)
    loaded = load_model(ModelSpec.model_validate(MODEL))
    gc.collect()
    gc.freeze()  # a child's collector would else walk, and copy, all that is shared with it
    return loaded


def fast_folder() -> Path:
    """A new folder in memory where there is one: hundreds of thousands of syncs would wear a disk and prove nothing."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="llmjobs-crash-", dir=memory if os.access(memory, os.W_OK) else None))


def play() -> None:
    """Let every job of this process (a fork) take the loaded model, played cells, and a judge by rule."""
    from llmjobs.chat import open_backend as opening
    from llmjobs.chat.local_backend import LocalBackend
    from llmjobs.cluster import local_or_cluster
    from llmjobs.engines.transformers.engine import TransformersEngine
    from llmjobs.eval import job as eval_job
    from llmjobs.matrix import job as matrix_job

    def load(spec, **_):
        return TransformersEngine(replace(demo_model(), spec=spec))

    def backend(spec, **_):
        return Rule(spec.name) if spec.endpoint else LocalBackend(load(spec))

    when_to_save.SHARE_OF_TIME = float("inf")  # every step is saved: more boundaries
    eval_job.open_model = load
    opening.open_backend = backend
    matrix_job.run_child = StandIn()
    matrix_job.probe_machine = local_or_cluster.probe_machine = probe


def tell_to(path: Path | None) -> None:
    """Let this process (a fork) print into a file, or nowhere."""
    sys.stdout = sys.stderr = Path(path or os.devnull).open("a")  # noqa: SIM115 - to the end of the process
    for descriptor in (1, 2):
        os.dup2(sys.stdout.fileno(), descriptor)


@dataclass(frozen=True)
class SmallJob:
    """One job on its small run."""

    name: str
    manifest: Path
    run_folder: Path | None = None
    """What a report is made of."""

    def work(self, results: Path) -> int:
        """Run it in this process, as the command does; returns the exit code."""
        from llmjobs.cli import main

        if self.run_folder:
            results.mkdir(exist_ok=True)
            arguments = [str(self.run_folder), "-o", str(results / "report.pdf"), "--html"]
        else:
            arguments = [str(self.manifest), "--results", str(results)]
        try:
            main([self.name, *arguments])
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1

    def run(self, results: Path, fault: Fault | None = None, told: Path | None = None) -> int:
        """Run it in a child that dies where ``fault`` says; its messages go to ``told``."""

        def child() -> int:
            tell_to(told)
            play()
            if fault:
                fault.install()
            try:
                return self.work(results)
            finally:
                sys.stdout.flush()
                if fault and fault.note:
                    fault.note.write_text(str(fault.count))

        return in_child(child)

    def unbroken(self, folder: Path) -> tuple[dict[str, Any], int]:
        """What an unbroken run leaves, and how many file operations it takes."""
        counter = Fault(0, note=folder / "operations")
        results = folder / "unbroken"
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LLMJOBS_CACHE", str(folder / "cache"))  # what earlier runs measured would be recorded
            assert self.run(results, counter, folder / "told") == 0, (folder / "told").read_text()
        assert counter.note
        return state_of(results), int(counter.note.read_text())


def make_job(name: str, folder: Path) -> SmallJob:
    """Write what the job needs below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    demo_model()
    if name == "report":
        study = make_job("eval", folder)
        assert study.run(folder / "input") == 0
        return SmallJob("report", study.manifest, folder / "input" / "eval")
    manifest = folder / f"{name}.yaml"
    manifest.write_text(yaml.safe_dump({"models": [MODEL], name: SECTIONS[name]}))
    return SmallJob(name, manifest)


def state_of(results: Path) -> dict[str, Any]:
    """Everything below ``results`` that must not depend on deaths: all files, and of each all but what is measured."""
    files = (p for p in sorted(results.rglob("*")) if p.is_file())
    return {str(p.relative_to(results)): _content(p) for p in files if p.name != "checkpoint.pkl.previous"}


def _content(path: Path) -> Any:
    if path.name == "checkpoint.pkl":
        return without_measured(checkpoint.read(path))
    if path.name in ("timings.jsonl", "calls.jsonl"):
        lines = [without_measured(json.loads(line)) for line in path.read_bytes().splitlines()]
        return [line for line in lines if line.get("phase") != "open"]
    if path.name in ("summary.json", "model.json", "unit.json"):
        return without_measured(json.loads(path.read_bytes()))
    return path.read_bytes()


def without_measured(value: Any) -> Any:
    """The value without what is measured, at any depth."""
    if isinstance(value, dict):
        return {key: without_measured(inner) for key, inner in value.items() if key not in MEASURED}
    return [without_measured(inner) for inner in value] if isinstance(value, list | tuple) else value


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of the files that differ, for a message that can be read."""
    return [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]


def records_of(results: Path) -> dict[str, bytes]:
    """Every record file below ``results``."""
    return {str(p.relative_to(results)): p.read_bytes() for p in sorted(results.rglob("records.jsonl"))}


def each(work: Callable[[str], SmallJob]) -> Iterator[SmallJob]:
    """Every job in order."""
    return map(work, JOBS)


@contextmanager
def played_once(name: str) -> Iterator[tuple[SmallJob, dict[str, bytes], int]]:
    """A job in its own folder, the results of an unbroken run, and the number of its file operations."""
    folder = fast_folder()
    job = make_job(name, folder)
    yield job, *job.unbroken(folder)
    shutil.rmtree(folder)
