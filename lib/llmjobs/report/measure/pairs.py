"""Pairs of models on the same questions: who differs, by how much, and who is in the leading group.

Two families are tested, each by itself:

``models``    every pair of distinct models; one row stands for a model at one precision, however often it was run
``settings``  each further run of a model (another device, machine, study) against the row that stands for it

The same weights on two devices give nearly the same answers. Counted as two models, they would make every other
comparison stricter and could turn a verdict, so that they never enter the first family.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmjobs.report.study import Benchmark, Study
from llmjobs.statistics.paired import (
    PairedDifference,
    clustered_difference,
    difference_from_counts,
    holm,
    paired_difference,
    simultaneous_level,
)

MODELS, SETTINGS = "models", "settings"


@dataclass(frozen=True)
class Pair:
    """Two rows of a benchmark, the better one first; ``p_holm`` is adjusted over the pairs of its ``family``.

    ``together`` is the difference's interval at a level at which the intervals of the whole family hold together with
    95 % (Bonferroni); ``changed`` counts the questions on which the two gave different answers, right or wrong.
    """

    first: int
    second: int
    result: PairedDifference
    clustered: tuple[float, float]
    p_holm: float
    changed: int
    family: str = MODELS
    together: tuple[float, float] = (-1.0, 1.0)

    @property
    def distinguishable(self) -> bool:
        """Whether the two can be told apart: by the test after Holm's correction and by the interval as well.

        Near 5 % the two may disagree, since Holm's steps are less strict than the intervals; then no difference is
        claimed, so that no sentence contradicts the interval beside it.
        """
        return self.p_holm < 0.05 and not self.together[0] <= 0 <= self.together[1]


def measure_pairs(study: Study, benchmark: Benchmark) -> list[Pair]:
    """Compare the pairs of both families on the questions that both rows scored, in the order of the rows."""
    found: list[Pair] = []
    stands = representatives(study, benchmark)
    own = list(stands.values())
    for family, candidates in (
        (MODELS, list(itertools.combinations(sorted(set(own)), 2))),
        (SETTINGS, [(row, first) for row, first in stands.items() if row != first]),
    ):
        pairs = list(_compared(benchmark, candidates, family))
        adjusted = holm([pair.result.p for pair in pairs])
        level = simultaneous_level(len(pairs))
        for pair, p in zip(pairs, adjusted, strict=True):
            result = pair.result
            wide = difference_from_counts(result.only_first, result.only_second, result.n, level)
            found.append(replace(pair, p_holm=p, together=(wide.low, wide.high)))
    return found


def representatives(study: Study, benchmark: Benchmark) -> dict[int, int]:
    """Return, for every row, the row that stands for the same model at the same precision.

    An accelerator before the CPU, then the row that comes first. Another revision is another model; one that is not
    recorded is taken for the recorded one where there is just one.
    """
    device = {"cuda": 0, "mps": 1, "cpu": 2}
    infos = [study.entries[place].info for place in benchmark.rows]
    known: dict[str, set[str]] = {}
    for info in infos:
        known.setdefault(info.id, set()).update({info.revision} - {""})
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row, info in enumerate(infos):
        only = next(iter(known[info.id])) if len(known[info.id]) == 1 else ""
        groups.setdefault((info.id, info.revision or only, info.quantization or "none"), []).append(row)
    stands: dict[int, int] = {}
    for rows in groups.values():
        first = min(rows, key=lambda row: (device.get(infos[row].device, 3), row))
        stands |= dict.fromkeys(rows, first)
    return dict(sorted(stands.items()))


def _compared(benchmark: Benchmark, candidates: Sequence[tuple[int, int]], family: str) -> Iterator[Pair]:
    scored = ~np.isnan(benchmark.correct)
    for a, b in candidates:
        both = scored[a] & scored[b]
        if not both.any():
            continue
        x, y = benchmark.correct[a][both] > 0.5, benchmark.correct[b][both] > 0.5
        first, second = (a, b) if (x.sum(), -a) >= (y.sum(), -b) else (b, a)
        if first == b:
            x, y = y, x
        changed = int(np.sum(benchmark.answer[a][both] != benchmark.answer[b][both]))
        clustered = clustered_difference(x, y, benchmark.subject[both])
        yield Pair(first, second, paired_difference(x, y), clustered, 1.0, changed, family)


def leading_group(pairs: Sequence[Pair], best: int) -> list[int]:
    """Return the rows that cannot be told apart from the row ``best``, itself first.

    With 95 % the truly best model is among them: it is left out only if one of the family's comparisons errs.
    """
    others = [p.second if p.first == best else p.first for p in pairs if best in (p.first, p.second)
              and p.family == MODELS and not p.distinguishable]  # fmt: skip
    return [best, *others]
