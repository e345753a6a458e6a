"""Replaces ``run_child``: a matrix cell runs in a fork of this process, which has done the imports.

The real cell code runs, writes its phases to a file, and dies with its parent.
"""

import os
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmjobs.machine.child import Ended, Reporter, _read


def run_warm(_module: str, task: Mapping[str, Any], **_: Any) -> Ended:
    """Run a cell in a fork and wait for it."""
    from llmjobs.matrix.cell_process import run_cell

    with tempfile.TemporaryDirectory(prefix="llmjobs-") as folder:
        told, began, parent = Path(folder, "reports.jsonl"), time.monotonic(), os.getpid()
        process = os.fork()
        if not process:
            code = 70
            try:
                threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
                reporter = Reporter(told)
                reporter.report(result=run_cell(task, reporter))
                code = 0
            finally:
                os._exit(code)
        _, status, usage = os.wait4(process, 0)
        times = time.monotonic() - began, usage.ru_utime, usage.ru_stime
        return Ended(tuple(_read(told)), os.waitstatus_to_exitcode(status), *times, 1, False, "")


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.01)
    os._exit(1)
