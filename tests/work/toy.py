"""A job without models: records are a function of unit and step alone."""

import random
import time
from contextlib import contextmanager
from pathlib import Path

from llmjobs.work.units import Step, Unit

EVERY_STEP = float("inf")
"""As ``when_to_save.SHARE_OF_TIME``: nothing waits for a save."""


class ToyWork:
    effective = {"plan": "fixed"}
    opening = {"real_s": 0.0}

    def __init__(self, unit, steps, pause_s):
        self.unit, self.steps, self.pause_s = unit, steps, pause_s

    def step(self, index):
        time.sleep(self.pause_s)
        if "broken" in self.unit.path:
            raise ValueError("this unit\nalways fails")
        rng = random.Random(f"{self.unit.path}{index}")
        records = [{"unit": self.unit.path, "value": rng.random(), "text": "ü🙂" * rng.randrange(9)} for _ in range(3)]
        return Step(records, {"items": 3, "real_s": self.pause_s})

    def state(self):
        return {"anything": [1, None]}


class ToyJob:
    name = "toy"

    def __init__(self, units=3, steps=6, pause_s=0.0, declared=None, names=None):
        self.names = names or [f"toy/unit-{n}" for n in range(units)]
        self.steps, self.pause_s, self.declared = steps, pause_s, declared or {"seed": 1}
        self.opened, self.closed = [], 0

    def units(self):
        return [Unit(name, self.declared, "group", self.steps * 3) for name in self.names]

    @contextmanager
    def open(self, unit, saved):
        self.opened.append((unit.path, saved.steps_done if saved else None))
        yield ToyWork(unit, self.steps, self.pause_s)

    def close(self):
        self.closed += 1


def records_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("records.jsonl"))}
