#!/usr/bin/env python3
"""A study that no machine here could hold, on paper: 1,000 models × 57 subjects × 10 benchmarks on 1 to 512 workers.

    python benchmarks/scale.py [RUN …] [--workers 1 8 64 512] [--models 1000]

Runs the scheduling code itself (``llmjobs.cluster.run``) against simulated time. Times come from run folders
(``RUN``: any finished evals of models of several sizes) or from ``scale_measured.json``, which an earlier call with run
folders wrote; what the driver does for a unit is timed here, on this disk and with Ray. Last line: JSON, a row for each
number of workers.

The bound: nobody can be faster than all work spread evenly, each model loaded once; than the slowest model's load and
its longest unit; than the driver's own work for all units.
"""

import argparse
import heapq
import json
import random
import statistics
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scale_costs import Driving, cost_of_a_message, cost_of_a_unit, state_of_the_driver

from llmjobs.benchmarks.mmlu import CATEGORIES
from llmjobs.cluster.resources import Demand
from llmjobs.cluster.run import Assignment
from llmjobs.work.folder import read_json
from llmjobs.work.journal import read_records
from llmjobs.work.units import Unit

MEASURED = Path(__file__).with_name("scale_measured.json")
SUBJECTS = [subject for subjects in CATEGORIES.values() for subject in subjects]
BENCHMARKS = 10
SIZES_B = (0.14, 0.36, 0.5, 1.0, 1.5, 3.0, 7.0, 8.0, 14.0, 32.0, 70.0)
SHARES = (6, 8, 10, 14, 14, 12, 14, 12, 5, 3, 2)
"""Billions of parameters and how many of a hundred models have them."""
QUESTIONS = (100, 320)
"""Of a unit, evenly between; MMLU's subjects have 100 to 1,534, 246 on average."""
SPREAD = 0.25
"""A unit takes so much more or less than its size says (one standard deviation of its logarithm)."""
BYTES_A_PARAMETER = 2


@dataclass(frozen=True)
class Measured:
    """What decides a unit's time, read off run folders."""

    load_s: float
    """CPU seconds of loading and probing any model."""
    load_s_gb: float
    """And for each GB of weights, on one core."""
    unit_s: float
    """Encoding and planning a unit."""
    question_s_gb: float
    """CPU seconds of a question for each GB of weights (5-shot MMLU on one core)."""


@dataclass(frozen=True)
class Assumed:
    """What is not measured."""

    start_s: float
    """A worker's process and its imports."""
    speed: float
    """How many times faster than the measured core a worker computes."""
    read_gb_s: float
    """Weights from the shared file system."""


def measure(runs: list[Path]) -> Measured:
    """Fit straight lines through the models of finished runs."""
    loads, units, questions = [], [], []
    for model in (path for run in runs for path in sorted(run.glob("eval/*/model.json"))):
        gb = read_json(model)["weight_bytes"] / 1e9
        lines = [line for path in model.parent.glob("*/timings.jsonl") for line in read_records(path)]
        opened = [line for line in lines if line["phase"] == "open"]
        loads += [(gb, line["user_s"] + line["system_s"]) for line in opened if line.get("load_s") is not None]
        units += [line["user_s"] + line["system_s"] for line in opened if line.get("load_s") is None]
        ran = [line for line in lines if line["phase"] == "run"]
        items = sum(line["items"] for line in ran)
        questions.append(sum(line["user_s"] + line["system_s"] for line in ran) / items / gb)
    slope, base = statistics.linear_regression(*zip(*loads, strict=True))
    return Measured(max(base, 0.0), max(slope, 0.0), statistics.median(units), min(questions))


@dataclass
class Study:
    """Made-up models and the true times of their units."""

    units: list[Unit]
    demands: dict[str, Demand]
    load_s: dict[str, float]
    real_s: dict[str, float]


def make_study(models: int, measured: Measured, assumed: Assumed, seed: int = 0) -> Study:
    """Models of the sizes that people use, each on every subject of every benchmark."""
    rng = random.Random(seed)
    study = Study([], {}, {}, {})
    lengths = [rng.uniform(0.3, 2.0) for _ in range(BENCHMARKS)]
    for number in range(models):
        name, gb = f"model-{number}", BYTES_A_PARAMETER * rng.choices(SIZES_B, SHARES)[0]
        study.demands[name] = Demand(weight=gb)
        study.load_s[name] = measured.load_s + gb / assumed.read_gb_s + measured.load_s_gb * gb / assumed.speed
        for benchmark, length in enumerate(lengths):
            for subject in SUBJECTS:
                unit = Unit(f"eval/{name}/b{benchmark}.{subject}", {}, name, rng.randint(*QUESTIONS))
                question_s = measured.question_s_gb / assumed.speed * gb * length * rng.lognormvariate(0, SPREAD)
                study.units.append(unit)
                study.real_s[unit.path] = measured.unit_s + unit.size * question_s
    return study


def simulate(study: Study, workers: int, start_s: float, driving: Driving) -> dict[str, Any]:
    """Makespan of the study: a worker waits for the driver's loop, the end for the last unit that is taken over."""
    work, demand = Assignment(study.units, study.demands), Demand()
    events: list[tuple[float, int, str, int, Any]] = []
    order, loads, free_at, last = 0, 0, 0.0, 0.0
    holds: dict[int, str] = {}
    idle: set[int] = set()

    def push(at: float, kind: str, worker: int, what: Any = None) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (at, order, kind, worker, what))

    for worker in range(workers):
        push(start_s, "free", worker)
    while events:
        now, _, kind, worker, what = heapq.heappop(events)
        if kind == "loaded":
            work.learn(what, load_s=study.load_s[what])
            for other in sorted(idle):
                push(now, "free", other)
            idle.clear()
            continue
        if kind == "ended":
            free_at = max(now, free_at) + driving.dispatch_s
            last = max(free_at, last) + driving.taking_s
            work.ended(what)
            work.learn(what.group, item_s=study.real_s[what.path] / what.size)
            now = free_at
        unit = work.take(str(worker), demand, holds.get(worker))
        if unit is None:
            idle.add(worker)
            continue
        load_s = 0.0
        if holds.get(worker) != unit.group:
            load_s, loads, holds[worker] = study.load_s[unit.group], loads + 1, unit.group
            push(now + load_s, "loaded", worker, unit.group)
        push(now + load_s + study.real_s[unit.path], "ended", worker, unit)
    assert work.is_over
    bound = lower_bound(study, workers, start_s, driving)
    return {
        "workers": workers,
        "makespan_h": round(last / 3600, 2),
        "bound_h": round(max(bound.values()) / 3600, 2),
        "bound_by": max(bound, key=lambda name: bound[name]),
        "ratio": round(last / max(bound.values()), 4),
        "loads_a_model": round(loads / len(study.load_s), 2),
        "units_a_second": round(len(study.units) / last, 2),
        "driver_busy": round(len(study.units) * max(driving.dispatch_s, driving.taking_s) / last, 3),
    }


def lower_bound(study: Study, workers: int, start_s: float, driving: Driving) -> dict[str, float]:
    """What no schedule of whole units on one driver can beat, by its reason."""
    longest: Counter[str] = Counter()
    for unit in study.units:
        longest[unit.group] = max(longest[unit.group], study.real_s[unit.path])
    work = sum(study.real_s.values()) + sum(study.load_s.values())
    return {
        "work": start_s + work / workers,
        "the slowest model's load and longest unit": start_s + max(study.load_s[m] + longest[m] for m in longest),
        "the driver": start_s + len(study.units) * max(driving.dispatch_s, driving.taking_s),
    }


def whole_models(study: Study, workers: int) -> float:
    """What a worker a model would come to at best: hours of the largest model, or the work spread evenly."""
    totals: Counter[str] = Counter(study.load_s)
    for unit in study.units:
        totals[unit.group] += study.real_s[unit.path]
    return round(max(max(totals.values()), sum(totals.values()) / workers) / 3600, 2)


def main() -> None:
    """Measure, simulate, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--start-s", type=float, default=8.0, help="a worker's process and imports")
    parser.add_argument("--speed", type=float, default=2000.0, help="a worker against the measured core")
    parser.add_argument("--read-gb-s", type=float, default=1.0, help="GB of weights a second from the file system")
    parser.add_argument("--dispatch-ms", type=float, help="of the driver's loop for a unit; measured if not given")
    arguments = parser.parse_args()
    if arguments.runs:
        MEASURED.write_text(json.dumps(asdict(measure(arguments.runs)), indent=2) + "\n")
    measured = Measured(**json.loads(MEASURED.read_text()))
    assumed = Assumed(arguments.start_s, arguments.speed, arguments.read_gb_s)
    print(measured, assumed)
    with tempfile.TemporaryDirectory() as folder:
        cost = cost_of_a_unit(Path(folder)) | state_of_the_driver(Path(folder))
        cost["dispatch_ms"] = arguments.dispatch_ms or cost_of_a_message(Path(folder))
    driving = Driving(cost["dispatch_ms"] / 1e3, cost["taking_ms"] / 1e3)
    print("a unit:", cost)
    study = make_study(arguments.models, measured, assumed)
    print(f"units: {len(study.units):,}; work: {sum(study.real_s.values()) / 3600:,.0f} worker hours")
    rows = []
    for workers in arguments.workers:
        rows.append(simulate(study, workers, assumed.start_s, driving))
        rows[-1]["whole_models_h"] = whole_models(study, workers)
        print(rows[-1], flush=True)
    units = len(study.units)
    told = {
        "files": units * cost["files"],
        "gigabytes": round(units * cost["bytes"] / 1e9, 1),
        "driver_gib": round(units * cost["driver_bytes_a_unit"] / 2**30, 2),
        "job_gib": round(units * cost["job_bytes_a_unit"] / 2**30, 2),
        "driver_units_a_second": round(1 / max(driving.dispatch_s, driving.taking_s), 1),
    }
    print(json.dumps({"rows": rows, "study": told, "a_unit": cost, "worst_ratio": max(row["ratio"] for row in rows)}))


if __name__ == "__main__":
    main()
