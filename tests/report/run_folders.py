"""Makes run folders in the documented layout, from a seeded model of abilities and difficulties."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LETTERS = "ABCDEFGHIJ"
Line = dict[str, Any]


@dataclass
class FakeRun:
    """What to make; ``skills`` maps model names to abilities in logits."""

    skills: Mapping[str, float] = field(default_factory=lambda: {"large": 1.4, "middle": 0.7, "small": -0.1})
    subjects: Sequence[str] = ("sums", "sorting", "calendar")
    questions: int = 40
    options: int = 4
    benchmark: str = "demo"
    seed: int = 7
    cpu: str = "Example CPU 3000"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    text: Callable[[str, int], str] = lambda subject, number: f"Question {number} on {subject}: which one is it?"
    choices: Callable[[str, int], list[str]] = lambda subject, number: [f"answer {number + k}" for k in range(4)]
    change: Callable[[Line], Line | None] = lambda record: record
    probabilities: bool = True

    def write(self, path: Path) -> Path:
        """Write the whole folder and return it."""
        rng = np.random.default_rng(self.seed)
        difficulty = {s: rng.normal(0.2 * i, 1.0, self.questions) for i, s in enumerate(self.subjects)}
        gold = {s: rng.integers(0, self.options, self.questions) for s in self.subjects}
        lure = {s: rng.integers(1, self.options, self.questions) for s in self.subjects}
        path.mkdir(parents=True, exist_ok=True)
        (path / "manifest.yaml").write_text("name: fake\n")
        machine = {"cpu": self.cpu, "cores": 2, "memory_bytes": 8 * 2**30, "system": "Linux x86_64"}
        dump(path / "environment.json", {"machine": machine, "versions": {"torch": "2.11.0"}, "llmjobs": "0.1.0"})
        for subject in self.subjects:
            lines = [self._doc(subject, number, int(gold[subject][number])) for number in range(self.questions)]
            dump_lines(path / "docs" / f"{self.benchmark}.{subject}.jsonl", lines)
        models = []
        for place, (name, skill) in enumerate(self.skills.items()):
            every: list[Line] = []
            for subject in self.subjects:
                records = self._records(rng, name, skill, subject, difficulty[subject], gold[subject], lure[subject])
                every += records
                self._unit(path, name, subject, records, place)
            self._model(path, name, place)
            models.append(self._summary(name, every, place))
        part = {"status": "complete", "models": models, "units_missing": [], "units_failed": []}
        dump(path / "summary.json", {"run": path.name, "eval": part})
        return path

    def _doc(self, subject: str, number: int, gold: int) -> Line:
        return {
            "doc_id": number,
            "question": self.text(subject, number),
            "choices": self.choices(subject, number)[: self.options],
            "gold": LETTERS[gold],
            "hash": f"{subject}-{number}",
        }

    def _records(
        self, rng: np.random.Generator, name: str, skill: float, subject: str, hard: Any, gold: Any, lure: Any
    ) -> list[Line]:
        found = []
        for number in rng.permutation(self.questions):
            scores = rng.gumbel(0, 1, self.options)
            scores[gold[number]] += 1.2 * (skill - hard[number]) + 1.5
            scores[(gold[number] + lure[number]) % self.options] += 1.0
            choice = int(np.argmax(scores))
            record: Line | None = {
                "model": name,
                "benchmark": self.benchmark,
                "subject": subject,
                "doc_id": int(number),
                "gold": LETTERS[gold[number]],
                "prediction": LETTERS[choice],
                "correct": bool(choice == gold[number]),
                "loglikelihoods": [round(float(x) - 4, 6) for x in scores] if self.probabilities else None,
                "status": "ok",
                "metrics": {"acc": int(choice == gold[number])},
            }
            record = self.change(record) if record else None
            if record is not None:
                found.append(record)
        return found

    def _unit(self, path: Path, name: str, subject: str, records: Sequence[Line], place: int) -> None:
        unit = path / "eval" / name / f"{self.benchmark}.{subject}"
        dump_lines(unit / "records.jsonl", records)
        shared = {"prompt": "original", "num_fewshot": 2, "output_type": "loglikelihood", "data_hash": f"sha-{subject}"}
        dump(unit / "unit.json", {"fingerprint": {**shared, "benchmark_version": 1, "model": name, **self.fingerprint}})
        timing = {"items": len(records), "tokens": 900, "real_s": 1.5 * (place + 1), "user_s": 2.6 * (place + 1)}
        timing |= {"system_s": 0.1, "gpu_s": None, "peak_rss_bytes": (300 + 150 * place) * 2**20, "attempt": 1}
        dump_lines(
            unit / "timings.jsonl",
            [{"step": -1, "phase": "open", "load_s": 0.4}, {"step": 0, "phase": "run", **timing}],
        )

    def _model(self, path: Path, name: str, place: int) -> None:
        details = {"id": name, "revision": f"{place:040x}", "device": "cpu", "dtype": "float32", "quantization": "none"}
        details |= {"parameters": 900_000 * (place + 1), "weight_bytes": 3_600_000 * (place + 1)}
        details |= {"architecture": "LlamaForCausalLM", "scoring_path": "shared", "chat_template": False}
        dump(path / "eval" / name / "model.json", details | dict(self.settings.get(name, {})))

    def _summary(self, name: str, records: Sequence[Line], place: int) -> Line:
        scored = [record for record in records if record["correct"] is not None]
        acc = sum(record["correct"] for record in scored) / len(scored) if scored else None
        return {
            "model": name, "real_s": 5.0 * (place + 1), "user_s": 8.1 * (place + 1), "system_s": 0.3, "gpu_s": None,
            "gpu_s_reason": "the CPU has no device events", "load_s": 0.4, "questions": len(records),
            "peak_rss_bytes": (300 + 150 * place) * 2**20, "peak_device_bytes": None, "attempts": 1 + place % 2,
            "benchmarks": [{"benchmark": self.benchmark, "n": len(scored), "acc": acc}],
        }  # fmt: skip


def dump(path: Path, value: Any) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def dump_lines(path: Path, lines: Sequence[Any]) -> None:
    """Write JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
