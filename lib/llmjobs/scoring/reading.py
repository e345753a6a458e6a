"""From logits to log-likelihoods."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmjobs.scoring.batch import Reading
from llmjobs.scoring.requests import Score

CHUNK = 1 << 21
"""Logits that are turned into probabilities at once: what fits into a processor's cache."""


def read_scores(logits: Tensor, rows: Sequence[int], readings: Sequence[Reading]) -> list[Score]:
    """Read each option's score off ``logits`` [len(rows), vocabulary]; log-softmax in fp32, sums in double.

    ``rows`` names the packed row of each line of logits.
    """
    where = {row: at for at, row in enumerate(rows)}
    cells = [
        (where[row], target) for reading in readings for row, target in zip(reading.rows, reading.targets, strict=True)
    ]
    at, targets = torch.tensor(cells, device=logits.device).T
    best, total = _best_and_total(logits)
    greedy = (best[at] == targets).tolist()
    picked = (logits[at, targets].float() - total[at]).tolist()
    scores, first = [], 0
    for reading in readings:
        last = first + len(reading.targets)
        scores.append(Score(sum(picked[first:last]), all(greedy[first:last])))
        first = last
    return scores


def _best_and_total(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's best token and log-sum-exp, a few rows at a time, with no second copy of it all."""
    chunks = (chunk.float() for chunk in logits.split(max(1, CHUNK // logits.shape[-1])))
    pairs = [(chunk.argmax(-1), torch.logsumexp(chunk, -1)) for chunk in chunks]
    return torch.cat([best for best, _ in pairs]), torch.cat([total for _, total in pairs])
