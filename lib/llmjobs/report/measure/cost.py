"""Cost beside accuracy, and which models a budget allows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmjobs.errors import ManifestError
from llmjobs.report.measure.accuracy import BenchmarkAccuracy, ModelAccuracy
from llmjobs.report.study import Cost, Entry

SIZES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
TIMES = {"ms": 0.001, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
ENERGIES = {"j": 1, "kj": 10**3, "wh": 3600, "kwh": 3.6e6}
LIMITS: Mapping[str, Mapping[str, float]] = {
    "memory": SIZES,
    "time": TIMES,
    "cpu": TIMES,
    "gpu": TIMES,
    "energy": ENERGIES,
}


def parse_amount(text: str, units: Mapping[str, float], where: str, example: str) -> float:
    """Read an amount with its unit, such as ``8GiB``, into the base unit (bytes, seconds, joules).

    ``units`` maps units in lower case to factors; an empty one is allowed if it is in there. ``where`` begins the line
    of an error, ``example`` ends it.

    Raises:
        ManifestError: it cannot be read or is not above 0; the line says what is allowed.

    """
    digits = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ /")
    unit = text.strip()[len(digits) :].strip().lower()
    try:
        amount = float(digits) * units[unit]
    except (ValueError, KeyError):
        allowed = ", ".join(filter(None, units))
        with_unit = f" {'or one ' if '' in units else ''}with one of {allowed}" if allowed else ""
        raise ManifestError(f"{where}: expected a number{with_unit}, as in {example}") from None
    if not 0 < amount < math.inf:
        raise ManifestError(f"{where}: must be more than 0")
    return amount


def parse_budget(texts: Sequence[str]) -> dict[str, float]:
    """Read ``memory=8GiB``, ``time=1h`` into base units (bytes, seconds, joules).

    Raises ManifestError with what is allowed if a limit cannot be read.
    """
    budget = {}
    for text in texts:
        name, _, amount = text.partition("=")
        units = LIMITS.get(name.strip())
        if units is None:
            raise ManifestError(f"--budget {text}: '{name}' is not one of {', '.join(LIMITS)}")
        example = f"{name}=8{list(units)[-1]}"
        budget[name.strip()] = parse_amount(amount, units, f"--budget {text}", example)
    return budget


def spent(cost: Cost | None, name: str) -> float | None:
    """Return what a model used of a budget's ``name``; None if not measured."""
    if cost is None:
        return None
    value = {
        "memory": cost.memory_bytes,
        "time": cost.real_s,
        "cpu": cost.cpu_s,
        "gpu": cost.gpu_s,
        "energy": cost.energy_j,
    }[name]
    return None if value is None else float(value)


FAR_APART = 1.5
"""Single runs of the same work differ by tens of percent between repetitions; only larger factors are reported."""
LONG_ENOUGH_S = 5.0
"""Below this, start-up and the machine's other programs dominate."""


def time_factor(a: Entry, b: Entry) -> float | None:
    """Return how many times as long ``a`` took as ``b``; None if a single run of each cannot show it.

    Both must be timed on one machine, on the same number of questions, without a restart, and the difference must be
    far larger than that between repetitions. For runs on the CPU, the CPU times must be long enough and differ by a
    similar factor; otherwise the slower run may only have waited for other programs.
    """
    if not a.cost or not b.cost or not a.cost.real_s or not b.cost.real_s or dict(a.machine) != dict(b.machine):
        return None
    if a.cost.questions != b.cost.questions or max(a.cost.attempts, b.cost.attempts) > 1:
        return None
    factor = a.cost.real_s / b.cost.real_s
    far = max(factor, 1 / factor) >= FAR_APART and min(a.cost.real_s, b.cost.real_s) >= LONG_ENOUGH_S
    if {a.info.device, b.info.device} == {"cpu"} and a.cost.cpu_s and b.cost.cpu_s:
        worked = a.cost.cpu_s / b.cost.cpu_s
        far = far and (worked if factor > 1 else 1 / worked) >= FAR_APART
        far = far and min(a.cost.cpu_s, b.cost.cpu_s) >= LONG_ENOUGH_S
        far = far and 1 / FAR_APART <= factor / worked <= FAR_APART
    return factor if far else None


@dataclass(frozen=True)
class Recommendation:
    """The models within the budget: the best one, and why others are not recommended."""

    best: ModelAccuracy | None
    within: tuple[ModelAccuracy, ...]
    over: tuple[ModelAccuracy, ...]
    unmeasured: tuple[ModelAccuracy, ...]


def recommend(found: BenchmarkAccuracy, entries: Sequence[Entry], budget: Mapping[str, float]) -> Recommendation:
    """Sort the models of a leaderboard by whether they stay within every limit."""
    within, over, unmeasured = [], [], []
    for model in found.models:
        used = {name: spent(entries[model.entry].cost, name) for name in budget}
        if any(value is not None and value > budget[name] for name, value in used.items()):
            over.append(model)
        elif any(value is None for value in used.values()):
            unmeasured.append(model)
        elif model.n:
            within.append(model)
    return Recommendation(within[0] if within else None, tuple(within), tuple(over), tuple(unmeasured))
