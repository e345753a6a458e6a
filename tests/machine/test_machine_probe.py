"""Probes in a child: their results, and a probe that crashes its process."""

import pytest

from llmjobs.engines import machine_probe
from llmjobs.engines.machine_probe import Verdict, probe_machine
from llmjobs.errors import LlmjobsError
from llmjobs.machine.child import Ended

DEVICES = {"devices": {"cpu": {"name": "CPU"}, "cuda": {"reason": "no CUDA"}}}
GOOD, BAD = ["cpu", "auto", "none"], ["cpu", "auto", "4bit"]


def ended(*lines, status=0) -> Ended:
    return Ended(tuple(lines), status, 1.0, 1.0, 0.0, 1 << 20, False, "")


def test_a_crash_is_an_answer_and_the_others_are_still_tried(monkeypatch):
    asked = []

    def run(_module, task, **_):
        asked.append(task["layers"])
        lines = [DEVICES]
        for layer in task["layers"]:
            lines.append({"trying": list(layer)})
            if list(layer) == BAD:
                return ended(*lines, status=-11)
            lines.append({"layer": list(layer), "verdict": {"ok": True, "dtype": "float32", "error": 0.0}})
        return ended(*lines, {"result": {"torch": "2"}})

    monkeypatch.setattr(machine_probe, "run_child", run)
    machine = probe_machine([tuple(BAD), tuple(GOOD)])
    assert machine.layers[tuple(GOOD)].ok
    assert machine.layers[tuple(BAD)] == Verdict(False, "the probe crashed with SIGSEGV during start")
    assert len(asked) == 2 and machine.available() == ["cpu"]


def test_a_machine_without_torch_is_one_line(monkeypatch):
    monkeypatch.setattr(machine_probe, "run_child", lambda *_, **__: ended({"phase": "start"}, status=1))
    with pytest.raises(LlmjobsError, match="cannot be probed: ended with code 1"):
        probe_machine([tuple(GOOD)])


@pytest.mark.usefixtures("new_interpreters")
def test_this_machine():
    machine = probe_machine([("cpu", "float32", "none"), ("cuda", "auto", "none")])
    assert machine.layers["cpu", "float32", "none"].ok
    assert "cpu" in machine.available()
    if "cuda" not in machine.available():
        assert "CUDA" in machine.layers["cuda", "auto", "none"].reason
