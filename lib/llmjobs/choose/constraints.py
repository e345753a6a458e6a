"""What a candidate must satisfy: memory, decode speed, time to the first token, size, context length, loss."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmjobs.errors import ManifestError
from llmjobs.report.measure.cost import ENERGIES, SIZES, TIMES, parse_amount
from llmjobs.report.numbers import count, decimal, points, size
from llmjobs.terminal_text import fixed

LOSE = "lose"
"""Key of the constraint on the loss against the least quantized form of the same model."""


def rate(value: float) -> str:
    """Tokens per second: ``14``, ``7.2``."""
    return f"{count(value) if value >= 100 else decimal(value, 1)} tokens/s"


def short_seconds(value: float) -> str:
    """Seconds with two digits, ``0.045 s``, ``1.3 s``."""
    return f"{fixed(value, 3 if value < 0.1 else 2 if value < 10 else 1)} s"


def _tokens(value: float) -> str:
    return f"{count(value)} tokens"


def _joules(value: float) -> str:
    return f"{count(value) if value >= 100 else decimal(value, 1)} J"


def _points(value: float) -> str:
    return f"{points(value)} points"


@dataclass(frozen=True)
class Quantity:
    """Something that is measured of a candidate, apart from its accuracy."""

    key: str
    title: str
    """Its column in tables."""
    noun: str
    """Its name in a sentence."""
    at_most: bool
    """Whether a constraint is an upper limit; otherwise it is a lower one."""
    show: Callable[[float], str]
    units: Mapping[str, float]
    """Units in lower case, and what one of them is in the base unit."""
    example: str
    too: tuple[str, str]
    """Words for a value that misses the limit: before the value, and for the distance (``more``)."""
    hint: str = ""
    """What measures it."""


MATRIX = "llmjobs matrix measures it"
RATES = {"": 1.0, "tokens/s": 1.0, "tok/s": 1.0, "t/s": 1.0}
QUANTITIES: Mapping[str, Quantity] = {
    one.key: one
    for one in (
        Quantity("memory", "memory", "memory", True, size, SIZES, "4GiB", ("needs", "more"),
                 "llmjobs eval and llmjobs matrix measure it"),
        Quantity("decode", "decode", "decode speed", False, rate, RATES, "10", ("decodes", "fewer"), MATRIX),
        Quantity("first_token", "first token", "time to the first token", True, short_seconds, {"": 1.0, **TIMES}, "2s",
                 ("takes", "more"), MATRIX),
        Quantity("size", "weights", "size of the weights", True, size, SIZES, "3GiB", ("has weights of", "more"),
                 "llmjobs eval and llmjobs matrix record it"),
        Quantity("context", "context", "context length", False, _tokens, {"": 1.0, "tokens": 1.0}, "8192",
                 ("reads", "fewer"), "llmjobs eval records it"),
        Quantity("energy", "J/1,000 q.", "energy of 1,000 questions", True, _joules, ENERGIES, "500J",
                 ("takes", "more"), "llmjobs matrix measures it where the machine has counters"),
        Quantity(LOSE, "loss", "loss", True, _points, {"": 0.01}, "1", ("loses", "more"), "llmjobs eval measures it"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Constraint:
    """A limit on a quantity: bytes, seconds, tokens per second, tokens, or a share of the questions."""

    key: str
    limit: float

    @property
    def quantity(self) -> Quantity:
        """What is limited."""
        return QUANTITIES[self.key]

    @property
    def option(self) -> str:
        """The option that states it, such as ``--first-token``."""
        return f"--{self.key.replace('_', '-')}"

    @property
    def text(self) -> str:
        """The limit in words: ``at most 4 GiB of memory``."""
        bound = "at most" if self.quantity.at_most else "at least"
        shown = self.quantity.show(self.limit)
        words = {
            "memory": f"{bound} {shown} of memory",
            "decode": f"{bound} {shown}",
            "first_token": f"{bound} {shown} to the first token",
            "size": f"{bound} {shown} of weights",
            "context": f"{bound} {shown} of context",
            LOSE: f"{bound} {shown} lost against the least quantized form of the model",
        }
        return words.get(self.key, f"{bound} {shown}")

    def allows(self, value: float) -> bool:
        """Whether a value meets the limit."""
        return value <= self.limit if self.quantity.at_most else value >= self.limit

    def excess(self, value: float) -> float:
        """By how much a value misses the limit, as a share of it; negative if it meets the limit."""
        return value / self.limit - 1 if self.quantity.at_most else 1 - value / self.limit

    def miss(self, value: float) -> str:
        """The miss in words: ``needs 5.20 GiB, 1.20 GiB more than 4 GiB``."""
        verb, word = self.quantity.too
        what = {"memory": " of memory", "first_token": " to the first token"}.get(self.key, "")
        far = self.quantity.show(abs(value - self.limit))
        return f"{verb} {self.quantity.show(value)}{what}, {far} {word} than {self.quantity.show(self.limit)}"

    def loosened(self, value: float) -> str:
        """The option that a value would just meet, such as ``--memory 5.3GiB``: rounded towards a looser limit."""
        return f"{self.option} {_option_value(self.key, value)}"

    @property
    def stated(self) -> str:
        """The option with its own limit: ``--memory 4GiB``."""
        return f"{self.option} {_option_value(self.key, self.limit)}"


def _option_value(key: str, value: float) -> str:
    """Write a limit as an option takes it, with at most two decimals."""
    if key in ("memory", "size"):
        unit, factor = next(((name, f) for name, f in (("GiB", 2**30), ("MiB", 2**20)) if value >= f), ("KiB", 2**10))
        return f"{_up(value / factor, 2)}{unit}"
    if key == "decode":
        return _down(value, 1)
    if key == "context":
        return _down(value, 0)
    return _up(100 * value, 1) if key == LOSE else f"{_up(value, 3)}{'J' if key == 'energy' else ''}"


def _up(value: float, digits: int) -> str:
    return f"{math.ceil(round(value * 10**digits, 6)) / 10**digits:g}"


def _down(value: float, digits: int) -> str:
    return f"{math.floor(round(value * 10**digits, 6)) / 10**digits:g}"


def make_constraint(key: str, text: str) -> Constraint:
    """Read a limit with its unit.

    Raises:
        ManifestError: it cannot be read or is not above 0.

    """
    quantity, option = QUANTITIES[key], f"--{key.replace('_', '-')}"
    return Constraint(key, parse_amount(text, quantity.units, f"{option} {text}", f"{option} {quantity.example}"))


def parse_benchmarks(text: str) -> dict[str, float]:
    """Read ``mmlu=2,gsm8k`` into weights by benchmark; 1 where none is given.

    Raises:
        ManifestError: a name is missing or there twice, or a weight is not a number above 0.

    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, marked, weight = (piece.strip() for piece in part.partition("="))
        if not name or name in found:
            problem = f"'{name}' is named twice" if name else "a name is missing"
            raise ManifestError(f"--benchmarks {text}: {problem}; expected names, as in mmlu=2,gsm8k=1")
        try:
            found[name] = float(weight) if marked else 1.0
        except ValueError:
            found[name] = -1.0
        if not 0 < found[name] < float("inf"):
            raise ManifestError(f"--benchmarks {text}: the weight of {name} must be a number above 0, as in {name}=2")
    return found
