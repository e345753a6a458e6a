"""Every pair of models on the same questions."""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from llmjobs.report.study import Benchmark
from llmjobs.statistics.paired import PairedDifference, clustered_difference, holm, paired_difference


@dataclass(frozen=True)
class Pair:
    """Two rows of a benchmark, the better one first; ``p_holm`` is adjusted over the benchmark's pairs.

    ``changed`` counts the questions on which the two gave different answers, right or wrong.
    """

    first: int
    second: int
    result: PairedDifference
    clustered: tuple[float, float]
    p_holm: float
    changed: int

    @property
    def distinguishable(self) -> bool:
        """Whether the difference stands after Holm's correction at 5 %."""
        return self.p_holm < 0.05


def measure_pairs(benchmark: Benchmark) -> list[Pair]:
    """Compare all pairs on the questions that both scored, in the order of the rows."""
    pairs = []
    for a, b in itertools.combinations(range(len(benchmark.rows)), 2):
        both = ~np.isnan(benchmark.correct[a]) & ~np.isnan(benchmark.correct[b])
        if not both.any():
            continue
        x, y = benchmark.correct[a][both] > 0.5, benchmark.correct[b][both] > 0.5
        first, second = (a, b) if x.sum() >= y.sum() else (b, a)
        if first == b:
            x, y = y, x
        changed = int(np.sum(benchmark.answer[a][both] != benchmark.answer[b][both]))
        result = paired_difference(x, y)
        pairs.append(Pair(first, second, result, clustered_difference(x, y, benchmark.subject[both]), 1.0, changed))
    adjusted = holm([pair.result.p for pair in pairs])
    return [replace(pair, p_holm=p) for pair, p in zip(pairs, adjusted, strict=True)]
