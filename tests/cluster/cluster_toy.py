"""A job without models for a cluster: ``cluster_toy.py ADDRESS RUN UNIT…`` runs it as a driver that can be killed.

A unit's name says what it does: ``deadly`` kills its worker in step 2, ``broken`` raises there, ``stumbling`` kills its
worker once, ``slow`` takes its time, ``here`` stays with the driver, any other just writes records.
"""

import copy
import json
import os
import random
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from llmjobs.cli import end_at_once
from llmjobs.cluster import when_gone
from llmjobs.cluster.connection import connected
from llmjobs.cluster.resources import Demand
from llmjobs.cluster.run import run_on_cluster
from llmjobs.work import leases, when_to_save
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import read_records
from llmjobs.work.lock import exclusive
from llmjobs.work.units import Step, Unit

STEPS, PAUSE_S = 8, 0.1


class Work:
    effective = {"plan": "fixed"}

    def __init__(self, unit, folder, load_s):
        self.unit, self.folder, self.steps = unit, folder, STEPS
        self.opening = {"load_s": load_s, "items": 0}

    def step(self, index):
        name = self.unit.path
        time.sleep(PAUSE_S * (5 if "slow" in name else 1))
        once = self.folder.path.parents[1] / f"{name.replace('/', '.')}.fell"
        is_worker = leases.LEASES in self.folder.path.parts
        if index == 2 and is_worker and ("deadly" in name or ("stumbling" in name and not once.exists())):
            once.write_text("fell")
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 2 and "broken" in name:
            raise ValueError("this unit\nalways fails")
        rng = random.Random(f"{name}{index}")
        records = [{"unit": name, "value": rng.random(), "text": "ü🙂" * rng.randrange(9)} for _ in range(3)]
        return Step(records, {"items": 3, "real_s": PAUSE_S})

    def state(self):
        return {"anything": [1, None]}


class ClusterToy:
    name = "toy"

    def __init__(self, folder, names):
        self.folder, self.names, self.loaded = folder, names, None

    def units(self):
        found = []
        for name in self.names:
            needs = tuple(one for one in self.names if one.startswith("first")) if name.startswith("second") else ()
            found.append(Unit(name, {"seed": 1}, name.split("/")[1], STEPS * 3, needs, stays="here" in name))
        return found

    def for_worker(self):
        return copy.copy(self)

    @contextmanager
    def open(self, unit, saved):
        when_to_save.SHARE_OF_TIME = float("inf")  # here, since this runs in the workers: every step is saved at once
        for one in unit.needs:
            assert len(read_records(self.folder.path / one / "records.jsonl")) == STEPS * 3
        load_s = None if self.loaded == unit.group else 0.1
        self.loaded = unit.group
        self.folder.write_json(f"{unit.path.split('/')[0]}/{unit.group}/model.json", {"model": unit.group})
        yield Work(unit, self.folder, load_s)

    def close(self):
        self.loaded = None


def main(address, run, names):
    when_gone.do = end_at_once
    target = Path(run)
    with connected(address), exclusive(target):
        folder = RunFolder.create(target.parent, target.name)
        leases.collect(folder)
        demands = {name.split("/")[1]: Demand(1.0, 0.0, 100 << 20) for name in names}
        outcome = run_on_cluster(ClusterToy(folder, names), folder, demands, silence_s=20.0)
    print(json.dumps({"units": outcome.units, "done": outcome.done, "failed": outcome.failed}))
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
