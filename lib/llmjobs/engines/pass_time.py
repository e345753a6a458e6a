"""How long a pass takes depending on its number of tokens, and the batch size that follows from it. No torch.

A pass has a fixed cost (weights that are unpacked or fetched, kernel launches) and a cost per token: ``seconds(n) =
pass_s + token_s * n``. If the fixed cost is large, few large batches are best.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

ENOUGH_GAIN = 1.03
"""A larger batch is used if it computes 3 % more tokens per second."""


CLEARLY_SLOWER = 0.8
"""If a size computes this many times the tokens per second of another, the difference is not due to chance."""


@dataclass(frozen=True)
class PassTime:
    """Seconds of a pass through the whole model: fixed, and per token."""

    pass_s: float
    token_s: float

    def seconds(self, tokens: float, passes: float = 1) -> float:
        """Seconds of ``passes`` passes that read ``tokens`` in total."""
        return passes * self.pass_s + tokens * self.token_s

    def rate(self, tokens: int) -> float:
        """Tokens per second of a pass of ``tokens``."""
        return tokens / max(self.seconds(tokens), 1e-9)

    def scaled(self, by: float) -> "PassTime":
        """The same, scaled to ``by`` times the layers."""
        return PassTime(self.pass_s * by, self.token_s * by)

    def to_builtin(self) -> dict[str, float]:
        """Plain values."""
        return {name: float(f"{value:.4g}") for name, value in asdict(self).items()}

    @classmethod
    def from_builtin(cls, found: Mapping[str, Any] | None) -> "PassTime | None":
        """Read it back; None if it is not valid."""
        values = [found.get(name) for name in ("pass_s", "token_s")] if isinstance(found, Mapping) else [None]
        fits = all(isinstance(one, int | float) and math.isfinite(one) and one >= 0 for one in values)
        return cls(*map(float, values)) if fits else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class Budget:
    """Tokens per batch, what was measured of passes (None: nothing), and a description of how."""

    batch_tokens: int
    largest: int
    """The largest size that was considered; a longer unit may want a larger one."""
    time: PassTime | None
    reason: str

    def to_builtin(self) -> dict[str, Any]:
        """Plain values for a record."""
        found = self.time.to_builtin() if self.time else {}
        return {"batch_tokens": self.batch_tokens, "largest": self.largest, "reason": self.reason, **found}

    @classmethod
    def from_builtin(cls, found: Mapping[str, Any] | None) -> "Budget | None":
        """Read it back; None if it is not valid."""
        if not isinstance(found, Mapping) or not isinstance(found.get("reason"), str):
            return None
        tokens, largest = found.get("batch_tokens"), found.get("largest")
        if not all(type(one) is int and 0 < one <= 1 << 20 for one in (tokens, largest)):
            return None
        return cls(int(tokens or 0), int(largest or 0), PassTime.from_builtin(found), found["reason"])


def fit(points: Sequence[tuple[int, float]]) -> PassTime:
    """Fit the line through ``points`` (tokens, seconds) by least squares; neither part is below 0.

    Points are weighted by relative error, because the noise of timings is proportional.
    """
    weights = [1 / max(seconds, 1e-9) ** 2 for _, seconds in points]
    total = sum(weights)
    mean_n = sum(w * n for w, (n, _) in zip(weights, points, strict=True)) / total
    mean_s = sum(w * s for w, (_, s) in zip(weights, points, strict=True)) / total
    spread = sum(w * (n - mean_n) ** 2 for w, (n, _) in zip(weights, points, strict=True))
    slope = sum(w * (n - mean_n) * (s - mean_s) for w, (n, s) in zip(weights, points, strict=True))
    token_s = max(slope / spread, 0.0) if spread else mean_s / max(mean_n, 1)
    pass_s = mean_s - token_s * mean_n
    return PassTime(pass_s, token_s) if pass_s >= 0 else PassTime(0.0, mean_s / max(mean_n, 1e-9))


def best_size(points: Sequence[tuple[int, float]], sizes: Sequence[int]) -> int:
    """Return the smallest of ``sizes`` that no other beats by 3 %, measured or, for larger ones, by the fitted line.

    Larger sizes are ignored if the largest measured one is clearly slower than a smaller one.
    """
    rates = {size: size / max(seconds, 1e-9) for size, seconds in points if size in sizes}
    largest = max(size for size, _ in points)
    best = max(rates.values(), default=0.0)
    if not rates or rates.get(largest, best) >= CLEARLY_SLOWER * best:
        line = fit(points[-3:])
        rates |= {size: line.rate(size) for size in sizes if size > largest or not rates}
    top = max(rates.values())
    return min(size for size, rate in rates.items() if rate * ENOUGH_GAIN >= top)
