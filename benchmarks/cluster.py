#!/usr/bin/env python3
"""One worker against two on a Ray cluster of one-core nodes on this machine: six models, the same records.

    python benchmarks/cluster.py [--models 6] [--limit 100] [--rounds 3]
    python benchmarks/cluster.py --size 20m --data ../shared/data

The demo models on their own questions, or random Llamas of a size of ``plan.py`` on two MMLU subjects: a longer study,
in which the start of the workers weighs less. Both are timed from the start of the units to their end
(``cluster.json``'s ``real_s``: workers are started, models loaded, units run and taken over), in turns, in one run on
one cluster; a node more is added for two. Last line: JSON with ``ratio``, the median of two workers' time over one
worker's; and the load that other programs made.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from plan import SIZES, SUBJECTS, make_model

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))
from local_cluster import LocalCluster  # noqa: E402

DEMO = ("llmjobs/demo-base", "llmjobs/demo-narrow", "llmjobs/demo-tiny")
BATCH_TOKENS = {"demo": 64, **dict.fromkeys(SIZES, 1024)}


def write_manifest(path: Path, models: int, limit: int, size: str, data: Path | None) -> None:
    """Models of one kind under several names, small batches on one thread."""
    specs: list[dict[str, Any]] = [{"name": f"model-{n}", "device": "cpu"} for n in range(models)]
    benchmark: dict[str, Any] = {"name": "demo", "num_fewshot": 5, "limit": limit}
    if data is not None:
        make_model(path.parent / size, size, data)
        benchmark |= {"name": "mmlu", "subjects": SUBJECTS, "data": str(data / "mmlu")}
    for number, spec in enumerate(specs):
        spec["id"] = DEMO[number % len(DEMO)] if data is None else str(path.parent / size)
    section = {"benchmarks": [benchmark], "batch_tokens": BATCH_TOKENS[size], "threads": 1}
    path.write_text(yaml.safe_dump({"models": specs, "eval": section}), encoding="utf-8")


def run(manifest: Path, results: Path, address: str) -> dict[str, Any]:
    """One run; returns what ``cluster.json`` holds."""
    command = [sys.executable, "-m", "llmjobs", "eval", str(manifest), "--results", str(results), "--ray", address]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[str, Any] = json.loads((results / manifest.stem / "cluster.json").read_text())
    return found


def records_of(folder: Path) -> dict[str, bytes]:
    """All records by their place."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("records.jsonl")}


def main() -> None:
    """Time both in turns and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--limit", type=int, default=100, help="questions of each subject")
    parser.add_argument("--size", choices=["demo", *SIZES], default="demo")
    parser.add_argument("--data", type=Path, help="where mmlu/ lies, for every size but the demo's")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if (arguments.size == "demo") != (arguments.data is None):
        parser.error("--data goes with every --size but the demo's")
    os.environ["OMP_NUM_THREADS"] = "1"
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name, LocalCluster("a") as cluster:
        folder = Path(name)
        manifest = folder / "study.yaml"
        data = arguments.data and arguments.data.resolve()
        write_manifest(manifest, arguments.models, arguments.limit, arguments.size, data)
        seen: list[dict[str, bytes]] = []
        for number in range(arguments.rounds):
            for workers in (1, 2):
                if workers == 2:
                    cluster.add("b")
                told = run(manifest, folder / f"{number}-{workers}", cluster.address)
                assert len(told["nodes"]) == workers, told
                seconds[workers].append(told["real_s"])
                seen.append(records_of(folder / f"{number}-{workers}"))
                print(f"{workers} workers: {told['real_s']:.1f} s; load {os.getloadavg()[0]:.1f}", flush=True)
            cluster.remove("b")
        assert all(records == seen[0] for records in seen), "records differ"
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    ratios = [b / a for a, b in zip(seconds[1], seconds[2], strict=True)]
    told = {"ratio": round(two / one, 3), "ratios": [round(ratio, 3) for ratio in ratios], "one_s": one, "two_s": two}
    told["size"] = arguments.size
    print(json.dumps(told | {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
