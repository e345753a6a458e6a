"""Killed at ten moments: each judgment exists once, and a call is only repeated if it was in progress."""

import os
import random
import signal
import time

from mtbench_runs import records_of, run
from mtbench_stand_in import repeated, stand_in

from llmjobs.work.journal import read_records

KILLS = 10


def start(arguments) -> int:
    """Run the job in a child with everything imported already."""
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        from llmjobs.cli import main

        main(["mtbench", *map(str, arguments)])
    except SystemExit as ended:
        os._exit(int(ended.code or 0))
    finally:
        os._exit(99)


def killed_after(server, arguments, requests: int, wait_s: float) -> bool:
    """Kill the job when the server has seen so many requests and a moment has passed; False if it ended before."""
    child = start(arguments)
    while len(server.requests) < requests:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    time.sleep(wait_s)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_at_ten_moments(study, tmp_path):
    rng = random.Random(8)
    with stand_in(delay_s=0.01) as server:
        path = study(server.url, modes=["single", "pairwise"])
        run(path, "--results", tmp_path / "unbroken")
        whole = len(server.requests)
        assert repeated(server.requests) == 0
        server.requests.clear()
        arguments, kills = [path, "--results", tmp_path / "killed"], 0
        for _ in range(KILLS):
            seen = repeated(server.requests)
            target = len(server.requests) + rng.randint(1, whole // KILLS - 1)
            kills += killed_after(server, arguments, target, rng.uniform(0, 0.03))
            assert repeated(server.requests) - seen <= 1
        run(*arguments)
        assert kills == KILLS
        assert repeated(server.requests) <= KILLS
        assert len(server.requests) <= whole + KILLS
    assert records_of(tmp_path / "killed") == records_of(tmp_path / "unbroken")
    for unit in (tmp_path / "killed/study/mtbench/judgments").rglob("records.jsonl"):
        keys = [(record["question_id"], record["turn"]) for record in read_records(unit)]
        assert len(keys) == len(set(keys)) == 16


def test_a_signal_lets_the_calls_in_flight_finish(study, tmp_path):
    with stand_in(delay_s=0.03) as server:
        judge = {"endpoint": server.url, "model": "judge", "concurrency": 4}
        arguments = [study(server.url, judges=[judge]), "--results", tmp_path / "r"]
        child = start(arguments)
        while len(server.requests) < 25:
            time.sleep(0.001)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
        run(*arguments)
        assert repeated(server.requests) == 0
