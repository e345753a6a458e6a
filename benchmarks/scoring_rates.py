"""Seconds, and FLOPs a second against a bare forward's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from llmjobs.benchmarks.scoring_requests import Request
from llmjobs.engines.batches import UnitPlan, plan_unit

BARE_SHAPES = {
    "cpu": ((4, 128), (8, 128), (1, 512), (2, 512)),
    "cuda": ((8, 512), (64, 128), (32, 512), (128, 128)),
}
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "T4": 65}
"""Dense half-precision peaks of the makers' data sheets, by a part of the card's name."""


@dataclass
class Clock:
    """Wall and CPU seconds of one contender, and each doc's log-likelihoods."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    answers: list[list[float]] = field(default_factory=list)

    def run(self, work: Callable[[], list[list[float]]]) -> None:
        """Add the time and the answers of ``work``."""
        synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        synchronize()
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        self.answers += found


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def plan_flops(config: Any, unit_plan: UnitPlan) -> float:
    """Count matrix products and attention of the computed tokens, and the logits that are read."""
    width = config.num_attention_heads * config.head_dim
    kept = config.num_key_value_heads * config.head_dim
    token = 2 * config.hidden_size * (2 * width + 2 * kept + 3 * config.intermediate_size)
    segments = [*unit_plan.prefixes, *(one for batch in unit_plan.batches for one in batch.segments)]
    pairs = sum(len(one.tokens) * (one.start + one.end + 1) / 2 for one in segments)
    rows = sum(len({row for one in batch.readings for row in one.rows}) for batch in unit_plan.batches)
    layers = config.num_hidden_layers * (unit_plan.distinct_tokens * token + pairs * 4 * width)
    return float(layers + rows * 2 * config.hidden_size * config.vocab_size)


def bare_rates(model: Any, shapes: Sequence[tuple[int, int]], repeats: int = 3) -> tuple[float, float]:
    """Return the best FLOPs a wall and a CPU second of a plain forward over ``shapes`` (rows, tokens)."""
    wall = cpu = 0.0
    for rows, length in shapes:
        tokens = torch.randint(model.config.vocab_size, (rows, length), device=model.device)
        docs = [[Request(tuple(range(at, at + length)), (0,))] for at in range(rows)]
        alike = plan_unit(docs, max_length=length, batch_tokens=rows * length, sharing=False)
        work = plan_flops(model.config, alike)
        for _ in range(repeats):
            clock = Clock()
            with torch.inference_mode():
                clock.run(partial(bare_forward, model, tokens))
            wall, cpu = max(wall, work / clock.wall_s), max(cpu, work / clock.cpu_s)
    return wall, cpu


def bare_forward(model: Any, tokens: torch.Tensor) -> list[list[float]]:
    """Run the model, logits at the last position of each row."""
    model(tokens, use_cache=False, logits_to_keep=1)
    return []
