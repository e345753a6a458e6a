"""Times the report on made run folders: ``python benchmarks/report.py [--models 12] [--questions 14042]``.

Each report is made in a process of its own; seconds include starting Python and every import, memory is the peak of
that process. The last line is JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
SUBJECTS = 57


def write_run(path: Path, models: int, questions: int) -> None:
    """Write a run folder with four options a question and every log-likelihood."""
    rng = np.random.default_rng(0)
    sizes = [questions // SUBJECTS + (place < questions % SUBJECTS) for place in range(min(SUBJECTS, questions))]
    (path / "docs").mkdir(parents=True)
    (path / "manifest.yaml").write_text("name: large\n")
    (path / "environment.json").write_text(json.dumps({"machine": {"cpu": "made"}}))
    (path / "summary.json").write_text(json.dumps({"run": "large"}))
    gold = [rng.integers(0, 4, size) for size in sizes]
    hard = [rng.normal(0, 1, size) for size in sizes]
    for place, size in enumerate(sizes):
        lines = [
            {"doc_id": n, "question": f"Question {n}: " + "words " * 40,
             "choices": [f"choice {n} {k}" for k in range(4)],
             "gold": "ABCD"[gold[place][n]], "hash": f"{place}-{n}"}
            for n in range(size)
        ]  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / "docs" / f"mmlu.subject_{place:02d}.jsonl").write_text(text)
        for model in range(models):
            _write_unit(path, f"model-{model:02d}", place, gold[place], hard[place], 0.2 * model, rng)


def _write_unit(
    path: Path, name: str, place: int, gold: np.ndarray, hard: np.ndarray, skill: float, rng: np.random.Generator
) -> None:
    scores = rng.gumbel(0, 1, (len(gold), 4))
    scores[np.arange(len(gold)), gold] += skill - hard + 1
    unit = path / "eval" / name / f"mmlu.subject_{place:02d}"
    unit.mkdir(parents=True)
    with (unit / "records.jsonl").open("w") as file:
        for number, row in enumerate(scores):
            pick = int(row.argmax())
            record = {
                "model": name, "benchmark": "mmlu", "subject": f"subject_{place:02d}", "doc_id": number,
                "gold": "ABCD"[gold[number]], "prediction": "ABCD"[pick], "correct": pick == int(gold[number]),
                "loglikelihoods": [round(float(x), 6) for x in row], "status": "ok", "metrics": {"acc": 1},
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
    (unit / "unit.json").write_text(json.dumps({"fingerprint": {"prompt": "original", "num_fewshot": 5}}))
    (unit / "timings.jsonl").write_text(
        json.dumps({"real_s": 1.0, "user_s": 2.0, "system_s": 0.1, "items": len(gold)}) + "\n"
    )
    (unit.parent / "model.json").write_text(json.dumps({"id": name, "device": "cpu"}))


def measure(run: Path, output: Path, html: bool) -> tuple[float, int]:
    """Return seconds and peak bytes of one report."""
    code = (
        "import sys; from pathlib import Path; from llmjobs.make_report import make_report; "
        f"make_report([Path({str(run)!r})], Path({str(output)!r}), html={html}); "
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "lib"), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return time.perf_counter() - begin, int(done.stdout.split()[-1]) * 1024


def main() -> None:
    """Make the folders, time the reports, print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--questions", type=int, default=14_042)
    arguments = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as name:
        for label, models, questions in (("large", arguments.models, arguments.questions), ("small", 1, 100)):
            run = Path(name) / label
            write_run(run, models, questions)
            for html in (False, True):
                seconds, peak = measure(run, Path(name) / f"{label}-out" / "report.pdf", html)
                key = f"{label}{'_html' if html else ''}"
                result |= {f"{key}_s": round(seconds, 2), f"{key}_peak_mib": round(peak / 2**20)}
                what = f"{models:2} models, {questions:6,} questions, html={html!s:5}"
                print(f"{what} {seconds:6.2f} s {peak / 2**20:6.0f} MiB")
    result["own_peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
