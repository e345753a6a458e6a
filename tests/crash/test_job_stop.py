"""A study that stops when it is decided dies twenty times, and ends with the same bytes and the same sentence."""

import json
from random import Random

import pytest
import yaml
from crash_jobs import MODEL, SmallJob, demo_model, differences, state_of
from faults import Fault

pytestmark = pytest.mark.slow
DEATHS = 20


@pytest.mark.parametrize("mode", ["kill", "power"])
def test_a_race_dies_twenty_times(folder, mode):
    demo_model()
    manifest = folder / "race.yaml"
    section = {
        "benchmarks": [{"name": "demo", "subjects": ["number_size", "odd_one_out", "repeat_words"]}],
        "batch_tokens": 1024,
        "threads": 1,
        "stop": {"precision": 8},
    }
    models = [MODEL, MODEL | {"id": "llmjobs/demo-base", "name": "base"}]
    manifest.write_text(yaml.safe_dump({"models": models, "eval": section}))
    job = SmallJob("eval", manifest)
    expected, operations = job.unbroken(folder)
    results, rng, deaths = folder / "r", Random(mode), 0
    while deaths < DEATHS and job.run(results, Fault(rng.randint(1, operations // DEATHS + 10), mode, deaths)) < 0:
        deaths += 1
    assert deaths > DEATHS // 4
    assert job.run(results, told=folder / "told") == 0, (folder / "told").read_text()
    assert differences(state_of(results), expected) == []
    (race,) = json.loads((results / "race/summary.json").read_text())["eval"]["stop"]["races"]
    assert race["decided"] and 64 < race["asked"] < race["population"], "more than one block"
