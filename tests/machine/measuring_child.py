"""A child for the tests (``python -m measuring_child``): it computes, dies or waits, as its task says."""

import os
import signal
import time

from llmjobs.machine.child import serve


def act(task, reporter):
    reporter.phase("acting")
    until = time.process_time() + task.get("burn_s", 0)
    while time.process_time() < until:
        pass
    if "signal" in task:
        os.kill(os.getpid(), signal.Signals[task["signal"]])
    if "sleep_s" in task:
        reporter.report(pid=os.getpid())
        time.sleep(task["sleep_s"])
    if "raise" in task:
        raise ValueError(task["raise"])
    return {"got": task}


if __name__ == "__main__":
    serve(act)
