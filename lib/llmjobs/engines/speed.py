"""How fast a model is: prefill and decode at several context lengths, and the cost of one pass. No torch.

A pass has a fixed cost (weights that are unpacked or fetched, kernel launches) and a cost per token: ``seconds(n) =
pass_s + token_s * n``. If the fixed cost is large, few large batches are best.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Run = tuple[float, float]
"""Seconds until the first token, and seconds of all other tokens."""


@dataclass(frozen=True)
class Speed:
    """Measurements at one context length; None with a reason if the model cannot read that many tokens.

    prefill_tokens_per_s   prompt tokens of all rows / time of the one pass that reads them
    ttft_s                 from prompt tokens on the host to the first new token on the host
    decode_tokens_per_s    new tokens of all rows after the first / their time, greedy
    """

    context_tokens: int
    ttft_s: float | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    reason: str | None = None

    @classmethod
    def too_long(cls, context_tokens: int, new_tokens: int, max_length: int) -> "Speed":
        """Return no figures, because the model cannot read this many tokens."""
        reason = f"the model reads {max_length} tokens, not {context_tokens} and {new_tokens} new ones"
        return cls(context_tokens, reason=reason)

    @classmethod
    def of_runs(cls, context_tokens: int, runs: Sequence[Run], *, rows: int, new_tokens: int) -> "Speed":
        """The medians of ``runs``."""
        prefill, decode = (statistics.median(one[at] for one in runs) for at in (0, 1))
        return cls(
            context_tokens,
            ttft_s=round(prefill, 6),
            prefill_tokens_per_s=round(rows * context_tokens / prefill, 3),
            decode_tokens_per_s=round(rows * (new_tokens - 1) / decode, 3) if new_tokens > 1 else None,
        )

    def to_record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure_each(
    contexts: Sequence[int], runs: Callable[[int], Sequence[Run]], *, rows: int, new_tokens: int, max_length: int
) -> list[Speed]:
    """Return the speed at each context length; ``runs`` times one length once or several times."""
    return [
        Speed.of_runs(length, runs(length), rows=rows, new_tokens=new_tokens)
        if length + new_tokens <= max_length
        else Speed.too_long(length, new_tokens, max_length)
        for length in contexts
    ]
