"""In a real notebook kernel: the stop button, the kernel's life after it, no advice about widgets."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_runs import OVERRIDES, STUDY, count, once_there_are, records_of
from jupyter_client.manager import KernelManager, start_new_kernel

import llmjobs

TIMEOUT_S = 240


class Kernel:
    """A kernel, and what its cells put out."""

    def __init__(self, cwd: Path) -> None:
        self.manager: KernelManager
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(cwd))
        self.outputs: list[dict[str, Any]] = []

    def run(self, code: str) -> dict[str, Any]:
        """Execute a cell; returns its reply, with ``outputs`` beside."""
        self.outputs = []
        reply: dict[str, Any] = self.client.execute_interactive(code, output_hook=self._take, timeout=TIMEOUT_S)
        return reply["content"]

    def _take(self, message: dict[str, Any]) -> None:
        self.outputs.append(message["content"] | {"type": message["msg_type"]})

    def signal(self, number: int) -> None:
        """As the stop button does it (SIGINT to the kernel's process group); callable in any thread."""
        os.killpg(os.getpgid(self.manager.provisioner.pid), number)

    def text(self) -> str:
        return "".join(one.get("text", "") for one in self.outputs)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    started = Kernel(tmp_path)
    yield started
    started.close()


@pytest.mark.slow
def test_the_stop_button_leaves_a_run_that_goes_on(kernel, tmp_path):
    whole = llmjobs.run(STUDY, results=tmp_path / "whole", overrides=OVERRIDES, report=False)
    kernel.run(
        "import os, signal, llmjobs\n"
        "before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]\n"
        f"def go(): return llmjobs.run({STUDY!r}, results='there', overrides={OVERRIDES!r})\n"
    )
    results = tmp_path / "there"
    with once_there_are(20, results, lambda: kernel.signal(signal.SIGINT)):
        reply = kernel.run("found = go()")
    assert (reply["status"], reply["ename"]) == ("error", "StoppedError")
    assert len(reply["traceback"]) == 1 and "run again to resume" in reply["traceback"][0]
    assert 20 <= count(results) < count(whole.folder)
    reply = kernel.run("assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before")
    assert reply["status"] == "ok", "the same kernel still lives, with its own handlers"
    reply = kernel.run("found = go(); found")
    assert reply["status"] == "ok"
    assert records_of(results) == records_of(tmp_path / "whole")
    shown = [one["data"]["text/html"] for one in kernel.outputs if one["type"] == "execute_result"]
    assert len(shown) == 1 and "<table" in shown[0] and "data:image/png" in shown[0]
    assert "IProgress" not in kernel.text() and "Warning" not in kernel.text()
    assert f"{15 * 10}/{15 * 10}" in kernel.text(), "a text bar, as ipywidgets is not there"


def test_a_thread_of_a_notebook(kernel, tmp_path):
    reply = kernel.run(
        "import threading, llmjobs\n"
        f"work = lambda: llmjobs.run({STUDY!r}, results='there', overrides={OVERRIDES!r}, report=False)\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        f"print(llmjobs.Results('there/{STUDY}').summary['eval']['status'])"
    )
    assert reply["status"] == "ok" and "complete" in kernel.text()


@pytest.mark.slow
def test_a_killed_kernel(kernel, tmp_path):
    whole = llmjobs.run(STUDY, results=tmp_path / "whole", overrides=OVERRIDES, report=False)
    results = tmp_path / "there"
    code = f"import llmjobs; llmjobs.run({STUDY!r}, results='there', overrides={OVERRIDES!r}, report=False)"
    kernel.client.execute(code)
    with once_there_are(20, results, lambda: kernel.signal(signal.SIGKILL)):
        kernel.manager.provisioner.process.wait(TIMEOUT_S)
    assert count(results) < count(whole.folder)
    again = Kernel(tmp_path)
    try:
        assert again.run(code)["status"] == "ok"
    finally:
        again.close()
    assert records_of(results) == records_of(tmp_path / "whole")
