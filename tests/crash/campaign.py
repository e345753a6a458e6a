"""A random campaign of deaths over every job: ``python tests/crash/campaign.py --kills 1000`` (``make crash``).

Each run of a job dies again and again until it ends: half of the deaths are SIGKILLs from outside at a random moment,
half are at a random file operation, as a kill or as a loss of power. The model is really loaded, the matrix's cells
and their questions are real; only imports are not paid for, since every process is a fork of one that has them. What
must then equal an unbroken run's is what ``crash_jobs.state_of`` reads: every file, but for what is measured.

Prints a table and one JSON line; ends with 1 if anything differed.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "mtbench")]
from crash_jobs import SECTIONS, SmallJob, demo_model, differences, fast_folder, make_job, state_of, tell_to  # noqa: E402
from faults import Fault  # noqa: E402
from mtbench_stand_in import Flaky, stand_in  # noqa: E402
from warm_child import run_warm  # noqa: E402

from llmjobs.calls.retry import RetryPolicy  # noqa: E402
from llmjobs.errors import EXIT_UNITS_FAILED  # noqa: E402
from llmjobs.work import when_to_save  # noqa: E402

FLAKY = "flaky"
SHARES = {"eval": 0.35, "converse": 0.25, "mtbench": 0.15, FLAKY: 0.1, "matrix": 0.08, "report": 0.07}
"""Of all kills; a job whose run takes longer gets fewer. ``flaky`` is mtbench with a judge that fails in every way."""
FAILING_SHARE = 0.3
"""Of the requests to the flaky judge."""
NOT_COMPARED = ("figures/", "cell.json", "machine.json", "report.html", "report.pdf", "summary.json", "timings.jsonl")
"""Of the matrix, whose cells measure: its answers, checkpoints and everything else are compared."""
ATTEMPT_MOST = 40


@dataclass
class Tally:
    """What happened to one job."""

    job: str
    boundaries: int
    """File operations of an unbroken run."""
    tried: set[str] = field(default_factory=set)
    """Those that it died at."""
    kills: int = 0
    at_operations: int = 0
    resumes: int = 0
    runs: int = 0
    differences: int = 0

    def to_record(self) -> dict[str, object]:
        """Plain values."""
        return vars(self) | {"tried": len({name.split()[0] for name in self.tried})}


class RealJob(SmallJob):
    """A small job whose models are loaded and whose cells run in each attempt."""

    def start(self, results: Path, fault: Fault | None, told: Path) -> int:
        """Begin an attempt; returns the process."""
        process = os.fork()
        if process:
            return process
        code = 70
        try:
            os.setsid()
            tell_to(told)
            from llmjobs.matrix import job as matrix_job

            matrix_job.run_child, when_to_save.SHARE_OF_TIME = run_warm, float("inf")
            if fault:
                fault.die = lambda: os.killpg(0, signal.SIGKILL)  # from within a cell too: the whole run ends at once
                fault.install()
            code = self.work(results)
        finally:
            sys.stdout.flush()
            os._exit(code)

    def attempt(self, results: Path, told: Path, fault: Fault | None = None, kill_after_s: float | None = None) -> int:
        """Run until it ends or dies; returns the exit code, negative for a signal."""
        process = self.start(results, fault, told)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        while _is_there(process):
            time.sleep(0.002)
        return code


class FlakyJob(RealJob):
    """MT-Bench with a judge that fails before, within and after its answers; each request is tried twice."""

    def work(self, results: Path) -> int:
        """Run it in this process, with a policy that does not wait."""
        RetryPolicy.wait_s = lambda *_: 0.0
        RetryPolicy.tries_again = lambda _, attempt, failure: failure.is_temporary and attempt < 1
        return super().work(results)


def _is_there(group: int) -> bool:
    """Whether a process of a group is alive; a cell, here a fork, holds the run's lock until its parent is dead."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def compared(job: SmallJob, results: Path) -> dict[str, object]:
    """What must be equal; for the matrix without what its cells measure."""
    if isinstance(job, FlakyJob):
        return _without_calls(state_of(results))
    skipped = NOT_COMPARED if job.name == "matrix" else ()
    found = {name: value for name, value in state_of(results).items() if not name.endswith(skipped)}
    return {name: value for name, value in found.items() if not any(part in name for part in skipped)}


def _without_calls(state: dict[str, Any]) -> dict[str, object]:
    """All records, FastChat's files and the summary, but for what failed calls cost."""
    kept = {name: value for name, value in state.items() if name.endswith("records.jsonl") or "/fastchat/" in name}
    summaries = {name: value for name, value in state.items() if name.endswith("summary.json")}
    for name, value in summaries.items():
        kept[name] = {key: part for key, part in value["mtbench"].items() if key != "spending"}
    return kept


def campaign(job: RealJob, folder: Path, kills: int, rng: Random, begin: Callable[[], object] = lambda: None) -> Tally:
    """Kill ``job`` until ``kills`` deaths are counted; ``begin`` is called when the unbroken run is known."""
    told, began = folder / "told", time.monotonic()
    if code := job.attempt(folder / "unbroken", told):
        raise SystemExit(f"{job.name}: the unbroken run ended with {code}: {told.read_text()}")
    expected, whole_s = compared(job, folder / "unbroken"), time.monotonic() - began
    tally = Tally(job.name, _operations(job, folder))
    begin()
    while tally.kills < kills:
        results = folder / f"run-{tally.runs}"
        code = _until_the_end(job, results, told, tally, rng, whole_s)
        tally.runs += 1
        if code or (wrong := differences(compared(job, results), expected)):
            tally.differences += 1
            why = f"exit code {code}: {told.read_text()[-2000:]}" if code else ", ".join(wrong)
            print(f"{job.name}: run {tally.runs} differs ({why}); kept in {results}", file=sys.stderr)
        else:
            shutil.rmtree(results)
        told.unlink()
    return tally


def _until_the_end(job: RealJob, results: Path, told: Path, tally: Tally, rng: Random, whole_s: float) -> int:
    """Let attempts die one after another until one finishes; the last ones may live, so that one does."""
    code = -1
    for attempt in range(ATTEMPT_MOST):
        tally.resumes += attempt > 0
        if attempt >= rng.randint(2, 8):
            code = job.attempt(results, told)
        elif rng.random() < 0.5:
            code = job.attempt(results, told, kill_after_s=rng.uniform(0, whole_s))
        else:
            at, mode = rng.randint(1, tally.boundaries), rng.choice(("kill", "power"))
            code = job.attempt(results, told, Fault(at, mode, rng.randrange(2**30)))
            if code < 0:
                tally.at_operations += 1
                tally.tried.add(f"{at} {mode}")
        if code >= 0 and not (code == EXIT_UNITS_FAILED and isinstance(job, FlakyJob)):
            return code
        tally.kills += code < 0
    return code


def _operations(job: RealJob, folder: Path) -> int:
    note = folder / "operations"
    counter = Fault(0)
    counter.before = lambda: note.write_text(str(counter.count + 1))
    if job.attempt(folder / "counted", folder / "told", counter):
        raise SystemExit(f"{job.name}: the counted run did not end")
    return int(note.read_text())


def _at(small: SmallJob, url: str) -> SmallJob:
    """The small job with its judge at another address; the run keeps its name."""
    study = yaml.safe_load(small.manifest.read_text())
    study["mtbench"] |= {
        "judges": [{"endpoint": url, "model": "judge"}],
        "timeout_s": 0.3,
        "modes": ["single", "pairwise"],
    }
    study["mtbench"]["history"] = "both"
    small.manifest.write_text(yaml.safe_dump(study))
    return small


def main() -> None:
    """Run the campaign and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="deaths over all jobs")
    parser.add_argument("--jobs", nargs="+", choices=SHARES, default=list(SHARES), help="these alone, with their share")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["LLMJOBS_CACHE"] = tempfile.mkdtemp()
    demo_model()
    folder, began, tallies = fast_folder(), time.monotonic(), []
    with stand_in() as judge, stand_in() as flaky:
        SECTIONS["mtbench"]["judges"][0]["endpoint"] = judge.url
        print(f"{'job':10}{'boundaries':>12}{'tried':>7}{'kills':>7}{'resumes':>9}{'runs':>6}{'differences':>13}")
        for name in arguments.jobs:
            small = make_job("mtbench" if name == FLAKY else name, folder / name)
            kills, rng = max(round(arguments.kills * SHARES[name]), 1), Random(f"{arguments.seed} {name}")
            if name == FLAKY:
                small = _at(small, flaky.url)
            job = (FlakyJob if name == FLAKY else RealJob)(small.name, small.manifest, small.run_folder)
            begin = partial(setattr, flaky, "troubles", Flaky(rng, FAILING_SHARE)) if name == FLAKY else bool
            t = campaign(job, folder / name, kills, rng, begin)
            tallies.append(r := t.to_record())
            figures = f"{r['boundaries']:12}{r['tried']:7}{t.kills:7}{t.resumes:9}{t.runs:6}{t.differences:13}"
            print(f"{name:10}{figures}", flush=True)
    kills, wrong = sum(int(t["kills"]) for t in tallies), sum(int(t["differences"]) for t in tallies)
    print(
        json.dumps({"seconds": round(time.monotonic() - began), "kills": kills, "differences": wrong, "jobs": tallies})
    )
    if not wrong:
        shutil.rmtree(folder)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
