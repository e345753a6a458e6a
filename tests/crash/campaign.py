"""A random campaign of deaths over whole jobs: ``python tests/crash/campaign.py --kills 1000``.

Each run of a job dies at a random file operation (as a kill or as a loss of power), is resumed, dies again, until a
resume reaches the end; its records must then equal an unbroken run's. Prints a table and one JSON line; ends with 1
if anything differed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "jobs")]
from faults import Fault, in_child  # noqa: E402
from random_llama import make_llama  # noqa: E402

MODES = ("kill", "power")


@dataclass
class Tally:
    """What happened to one job."""

    job: str
    operations: int
    runs: int = 0
    deaths: int = 0
    differences: int = 0


def quiet(work: Callable[[], int], fault: Fault | None) -> int:
    """Run ``work`` in a child without output, dying where ``fault`` says."""

    def child() -> int:
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if fault:
            fault.install()
        return work()

    return in_child(child)


def command(job: str, manifest: Path, results: Path) -> Callable[[], int]:
    """The job as ``llmjobs JOB MANIFEST`` runs it, in this process."""

    def work() -> int:
        from llmjobs.cli import main

        try:
            main([job, str(manifest), "--results", str(results)])
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1

    return work


def records_of(results: Path) -> dict[str, bytes]:
    """Every record file below ``results``."""
    return {str(p.relative_to(results)): p.read_bytes() for p in sorted(results.rglob("records.jsonl"))}


def count_operations(job: str, manifest: Path, folder: Path) -> int:
    """Run the job unbroken into ``folder/unbroken`` and count its file operations."""
    counter = Fault(0)
    note = folder / "operations"

    def work() -> int:
        code = command(job, manifest, folder / "unbroken")()
        note.write_text(str(counter.count))
        return code

    if code := quiet(work, counter):
        raise SystemExit(f"{job}: the unbroken run ended with {code}")
    return int(note.read_text())


def campaign(job: str, manifest: Path, folder: Path, kills: int, rng: Random) -> Tally:
    """Kill ``job`` until ``kills`` deaths are counted."""
    tally = Tally(job, count_operations(job, manifest, folder))
    expected = records_of(folder / "unbroken")
    while tally.deaths < kills:
        results = folder / f"run-{tally.runs}"
        for _ in range(rng.randint(1, 6)):
            fault = Fault(rng.randint(1, tally.operations), rng.choice(MODES), rng.randrange(2**30))
            tally.deaths += quiet(command(job, manifest, results), fault) < 0
        code = quiet(command(job, manifest, results), None)
        tally.runs += 1
        if code or records_of(results) != expected:
            tally.differences += 1
            print(f"{job}: run {tally.runs} differs (exit code {code}); kept in {results}", file=sys.stderr)
    return tally


def main() -> None:
    """Run the campaign and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="deaths a job")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["LLMJOBS_CACHE"] = tempfile.mkdtemp()
    import llmjobs.jobs.evaluate  # noqa: F401 - loaded once, every child is a fork

    folder = Path(tempfile.mkdtemp(prefix="llmjobs-crash-"))
    (folder / "eval").mkdir()
    model = make_llama(folder / "model")
    manifest = folder / "eval.yaml"
    manifest.write_text(
        f"models: [{{id: {model}, name: m, dtype: float32}}]\n"
        "eval: {benchmarks: [{name: demo, subjects: [letters], limit: 4}], batch_tokens: 256, threads: 1}\n"
    )
    began = time.monotonic()
    tallies = [campaign("eval", manifest, folder / "eval", arguments.kills, Random(arguments.seed))]
    print(f"{'job':10}{'boundaries':>12}{'kills':>8}{'runs':>8}{'differences':>13}")
    for t in tallies:
        print(f"{t.job:10}{t.operations:12}{t.deaths:8}{t.runs:8}{t.differences:13}")
    print(json.dumps({"seconds": round(time.monotonic() - began), "jobs": [vars(t) for t in tallies]}))
    sys.exit(any(t.differences for t in tallies))


if __name__ == "__main__":
    main()
