"""``matrix:`` — one grid of devices, precisions and settings, timed cell by cell."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmjobs.manifest.eval import BenchmarkSpec
from llmjobs.manifest.fields import Section
from llmjobs.manifest.models import DType, Quantization

CellDevice = Literal["cuda", "mps", "cpu"]
Threads = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]


class MatrixSection(Section):
    """Every model of `models:` in every cell, with the device, number format and quantization of the cell."""

    devices: list[CellDevice] = Field(default=["cuda", "mps", "cpu"], min_length=1)
    """Devices. One that this machine does not have appears in the table with the reason."""
    quantizations: list[Quantization] = Field(default=["none", "8bit", "4bit"], min_length=1)
    """Precisions of the weights, as under `models:`."""
    dtypes: list[DType] = Field(default=["auto"], min_length=1)
    """Number formats, as under `models:`."""
    threads: list[Threads] = Field(default=["auto"], min_length=1)
    """CPU threads. `auto` uses the physical cores."""
    batch_sizes: list[Annotated[int, Field(ge=1, le=4096)]] = Field(default=[1], min_length=1)
    """Number of prompts that are processed at once when prefill and decode are timed. Questions always run in batches
    of `batch_tokens`."""
    context_lengths: list[Annotated[int, Field(ge=1, le=1 << 20)]] = Field(default=[256, 1024], min_length=1)
    """Prompt lengths in tokens at which prefill and decode are timed. The tables show the first one."""
    new_tokens: Annotated[int, Field(ge=2, le=4096)] = 32
    """Tokens to generate after each prompt."""
    repetitions: Annotated[int, Field(ge=1, le=100)] = 3
    """How often each cell runs, each time in a new process. Tables show the median and the range."""
    benchmarks: list[BenchmarkSpec] = Field(default_factory=list)
    """The questions to ask in every cell. Default: the benchmarks of `eval:`."""
    batch_tokens: Annotated[int, Field(ge=16, le=1 << 20)] = 1024
    """Tokens per forward pass over the questions, the same in every cell."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed for the order of the cells in each repetition. The order is random so that a machine that slows down does
    not favour any cell."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Time limit of a cell, in seconds. A cell that takes longer has failed."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """A single value is short for a list."""
        if not isinstance(value, dict):
            return value
        lists = ("devices", "quantizations", "dtypes", "threads", "batch_sizes", "context_lengths", "benchmarks")
        single = {key: [one] for key in lists if isinstance(one := value.get(key), str | int | dict)}
        return value | single

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for key in ("devices", "quantizations", "dtypes", "threads", "batch_sizes", "context_lengths"):
            values = getattr(self, key)
            if twice := next((one for one in values if values.count(one) > 1), None):
                raise ValueError(f"{key}: {twice!r} is given twice; keep one")
        names = [one.name for one in self.benchmarks]
        if again := next((one for one in names if names.count(one) > 1), None):
            raise ValueError(f"benchmarks: {again!r} is given twice; keep one, or put the other into a second manifest")
        return self
