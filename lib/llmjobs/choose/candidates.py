"""What can be chosen: a model at a precision on an engine, with everything that was measured of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmjobs.choose.constraints import QUANTITIES
from llmjobs.report.study import Floats

UNQUANTIZED = "unquantized"
"""Precision of a model whose log says that it was not quantized, but not its number format."""


@dataclass(frozen=True)
class Measured:
    """A measurement in its base unit, over ``n`` repetitions, and at how many tokens of context it was taken.

    ``context`` is None if that is not recorded. ``given`` marks a figure that was not measured by llmjobs.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    context: int | None = None
    given: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest repetition."""
        return (
            self.value if self.low is None else self.low,
            self.value if self.high is None else self.high,
        )


@dataclass(frozen=True)
class SpeedAt:
    """Speeds at one context length."""

    context: int
    decode: Measured | None = None
    first_token: Measured | None = None
    reason: str = ""
    """Why there are none."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model at a precision on an engine of one machine.

    ``answers`` maps each benchmark to 1, 0 or ``nan`` by question; the questions are the same for all candidates.
    """

    label: str
    """Short and different from every other candidate's."""
    model: str
    """The model without its precision; candidates of one model are compared for ``--lose``."""
    precision: str = ""
    engine: str = ""
    id: str = ""
    """As the engine finds it: a hub id, a folder, a file."""
    revision: str = ""
    device: str = ""
    dtype: str = ""
    quantization: str = ""
    bits: float | None = None
    """Bits of a weight; the candidate of a model with the most is the reference of ``--lose``."""
    is_reference: bool = False
    """Whether the run named it as the reference."""
    machine: str = ""
    answers: Mapping[str, Floats] = field(default_factory=dict)
    figures: Mapping[str, Measured] = field(default_factory=dict)
    speeds: tuple[SpeedAt, ...] = ()
    failed: str = ""
    """Why it could not run on this machine; empty if it did."""
    sources: tuple[str, ...] = ()
    manifest: Path | None = None
    """The manifest of a run that contains it."""
    gpu_layers: str = ""
    """Layers on the GPU, as recorded by llama.cpp."""

    @property
    def title(self) -> str:
        """The candidate in a sentence: ``Qwen2.5-1.5B-Instruct as Q5_K_M with llama.cpp``."""
        plain = "," if self.precision == UNQUANTIZED else " as"
        precision = f"{plain} {self.precision}" if self.precision else ""
        return f"{self.model}{precision}" + (f" with {self.engine}" if self.engine else "")

    def measured(self, key: str, context: int | None = None) -> tuple[Measured | None, str]:
        """Return a quantity at a context length (None: the shortest that was measured), or None and why not."""
        noun = QUANTITIES[key].noun
        if key in ("decode", "first_token") and self.speeds:
            return self._speed(key, context)
        found = self.figures.get(key)
        if found is None:
            return None, f"{noun} was not measured; {QUANTITIES[key].hint}"
        return found, ""

    def _speed(self, key: str, context: int | None) -> tuple[Measured | None, str]:
        noun = QUANTITIES[key].noun
        rows = sorted(self.speeds, key=lambda row: row.context)
        fitting = [row for row in rows if context is None or row.context >= context]
        if not fitting:
            return None, (
                f"{noun} was measured with at most {rows[-1].context:,} tokens of context, not {context:,};"
                f" list {context} under context_lengths of the matrix"
            )
        for row in fitting:
            found: Measured | None = getattr(row, key)
            if found is not None:
                return found, ""
        return None, f"{noun} was not measured" + (f": {fitting[0].reason}" if fitting[0].reason else "")
