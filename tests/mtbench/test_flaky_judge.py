"""A judge that fails at every point of the protocol, and kills in between: the records of a judge that never failed."""

import json
import os
import random
import signal
import time

import pytest
from mtbench_runs import part_of, records_of, run
from mtbench_stand_in import FAILURES, Flaky, stand_in
from test_mtbench_kills import start

from llmjobs.calls.retry import RetryPolicy

RUNS_MOST = 60


@pytest.fixture(autouse=True)
def two_tries(monkeypatch):
    monkeypatch.setattr(RetryPolicy, "tries_again", lambda _, attempt, failure: failure.is_temporary and attempt < 1)


def kept(results) -> dict[str, object]:
    """What must not depend on the judge's failures: all records, and the summary but for what was spent."""
    summary = {key: value for key, value in part_of(results).items() if key != "spending"}
    return {**records_of(results), "summary": json.dumps(summary)}


def ended(arguments, kill_after_s: float | None) -> int:
    """Run once in a child, perhaps killed; returns how it ended, negative for a signal."""
    child = start(arguments)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def until_whole(results, arguments, rng: random.Random, kills: float) -> list[int]:
    """Run until the exit code is 0; after every other run a message says that something is missing."""
    codes = []
    while not codes or codes[-1] != 0:
        assert len(codes) < RUNS_MOST
        codes.append(ended(arguments, rng.uniform(0, 0.6) if rng.random() < kills else None))
        assert codes[-1] in (0, 3, -signal.SIGKILL)
        if codes[-1] == 3:
            part = part_of(results)
            assert part["status"] == "partial" and all(one["error"] for one in part["units_failed"])
    return codes


@pytest.mark.parametrize("seed", range(3))
def test_a_judge_that_fails_in_every_way(study, tmp_path, seed):
    rng = random.Random(seed)
    changes = {"answers": [], "modes": ["single", "pairwise"], "history": "both", "categories": ["math", "writing"]}
    with stand_in() as server:
        run(study(server.url, **changes), "--results", tmp_path / "good")
    with stand_in(troubles=(flaky := Flaky(rng, 0.35))) as server:
        judge = {"endpoint": server.url, "model": "judge", "concurrency": 1 + 2 * (seed % 2)}
        path = study(server.url, **changes, judges=[judge], timeout_s=0.25)
        codes = until_whole(tmp_path / "r", [path, "--results", tmp_path / "r"], rng, kills=0.3)
    assert codes[-1] == 0 and flaky.failed.total() >= 5
    assert kept(tmp_path / "r") == kept(tmp_path / "good")


@pytest.mark.parametrize("kind", FAILURES)
def test_each_failure_alone(study, tmp_path, kind):
    """The first judgment fails until the run ends; the next run finds a good server at the same address."""
    changes = {"answers": [], "categories": ["math"], "timeout_s": 0.25}
    with stand_in() as server:
        run(study(server.url, **changes), "--results", tmp_path / "good")
    with stand_in(troubles=dict.fromkeys(range(2, 4), kind)) as server:
        path = study(server.url, **changes)
        run(path, "--results", tmp_path / "r", expect=3)
        assert part_of(tmp_path / "r")["status"] == "partial"
        server.troubles = {}
        run(path, "--results", tmp_path / "r")
    assert kept(tmp_path / "r") == kept(tmp_path / "good")
