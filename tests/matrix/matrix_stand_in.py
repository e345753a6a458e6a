"""A cell's process and the probes, played: fast, deterministic, able to die on demand."""

import signal
from collections.abc import Callable

from llmjobs.engines.machine_probe import Machine, Verdict
from llmjobs.machine.child import Ended
from llmjobs.work.signals import StopRequestedError

WRONG = {"none": 0, "8bit": 1, "4bit": 3}
"""Answers that a precision changes."""


def ended(*lines, status=0) -> Ended:
    return Ended(tuple(lines), status, 12.0, 9.0, 1.0, 3 << 30, False, "Traceback\nRuntimeError: it broke\n")


def probe(layers, *_) -> Machine:
    """Only the CPU is here."""
    machine = Machine({"cpu": {"name": "CPU"}, "cuda": {"reason": "no CUDA"}, "mps": {"reason": "no Apple GPU"}})
    for layer in layers:
        machine.layers[layer] = Verdict(
            layer[0] == "cpu", "" if layer[0] == "cpu" else f"no {layer[0]} here", "float32"
        )
    return machine


def result_of(task) -> dict:
    """The result of a finished cell."""
    quantization = task["model"]["quantization"]
    records = [
        {
            "model": task["model"]["name"], "benchmark": "demo", "subject": "number_size", "doc_id": n, "gold": "A",
            "prediction": "B" if n < WRONG[quantization] else "A", "correct": n >= WRONG[quantization],
            "loglikelihoods": [-1.0, -2.0, -3.0, -4.0], "status": "ok", "metrics": {}, "num_fewshot": 0,
        }
        for n in range(10)
    ]  # fmt: skip
    speed = {"ttft_s": 0.1, "prefill_tokens_per_s": 2560.0, "decode_tokens_per_s": 20.0, "reason": None}
    return {
        "scoring_path": "shared",
        "effective": {"device": "cpu", "dtype": "float32", "quantization": quantization, "plans": {}},
        "model": {
            "device": "cpu", "dtype": "float32", "quantization": quantization, "weight_bytes": 1000,
            "architecture": "LlamaForCausalLM", "parameters": 250, "revision": "sha256:0",
        },
        "import_s": 3.0, "load_s": 1.0, "warmup_s": 0.5, "gpu_s": None, "gpu_s_reason": "the model ran on the CPU",
        "speed": [{"context_tokens": length, **speed} for length in task["context_lengths"]],
        "questions": {"real_s": 5.0, "user_s": 4.0, "system_s": 0.1, "gpu_s": None, "questions": 10, "tokens": 500},
        "energy": {"joules": {"cpu": 40.0}, "reasons": {}},
        "peak_rss_bytes": 1 << 30, "peak_device_bytes": None,
        "cpu": {"cycles": None, "instructions": None, "reason": "no counters", "kernel_included": False},
        "remarks": [], "records": records,
    }  # fmt: skip


class StandIn:
    """Replaces ``run_child``; ``acts`` says what happens in a call (by number from 1, or by precision)."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.acts: dict[int | str, Callable[[], Ended]] = {}

    def __call__(self, _module, task, **_) -> Ended:
        self.started.append(task["model"]["quantization"])
        act = self.acts.get(len(self.started)) or self.acts.get(task["model"]["quantization"])
        return act() if act else ended({"phase": "questions"}, {"result": result_of(task)})


def killed() -> Ended:
    return ended({"phase": "load"}, status=-signal.SIGKILL)


def stop() -> Ended:
    raise StopRequestedError(signal.SIGTERM)
