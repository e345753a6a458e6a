"""``matrix:`` — one grid of devices, precisions and settings, timed cell by cell."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmjobs.manifest.eval import BenchmarkSpec
from llmjobs.manifest.fields import DataPath, Section
from llmjobs.manifest.models import DType, Quantization
from llmjobs.manifest.precisions import PRECISION_NAME, Precision, precision_of, reference_of

CellDevice = Literal["cuda", "mps", "cpu"]
Threads = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]


LISTS = ("devices", "quantizations", "dtypes", "precisions", "threads", "batch_sizes", "context_lengths")
"""Keys whose values must differ."""


class DivergenceSection(Section):
    """How far the distribution of the next token moves from the reference precision's, as KL divergence."""

    text: DataPath | None = None
    """A text file in UTF-8. Default: a bundled one, in English."""
    chunks: Annotated[int, Field(ge=0, le=10_000)] = 8
    """Parts of the text at most, each read alone; 0 leaves the text out."""
    context: Annotated[int, Field(ge=16, le=1 << 16)] = 512
    """Tokens of a part. The first half is only read, as by llama-perplexity; the positions behind it are compared."""
    prompts: Annotated[int, Field(ge=0, le=10_000)] = 32
    """Questions of the benchmarks at most, taken evenly from their subjects; the position where the answer begins is
    compared. 0 leaves them out."""
    disk_gib: Annotated[float, Field(gt=0, le=1024)] = 1.0
    """Most disk space for the reference's distributions, two bytes a token of the vocabulary and position. Parts of the
    text that would take more are left out."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.chunks or self.prompts):
            raise ValueError("chunks and prompts are both 0, so there is nothing to compare; raise one of them")
        return self


class MatrixSection(Section):
    """Every model of `models:` in every cell, with the device, number format and quantization of the cell."""

    devices: list[CellDevice] = Field(default=["cuda", "mps", "cpu"], min_length=1)
    """Devices. One that this machine does not have appears in the table with the reason."""
    quantizations: list[Quantization] = Field(default=["none", "8bit", "4bit"], min_length=1)
    """Precisions of the weights, as under `models:`."""
    dtypes: list[DType] = Field(default=["auto"], min_length=1)
    """Number formats, as under `models:`."""
    precisions: list[Annotated[str, PRECISION_NAME]] = Field(default_factory=list)
    """Engines and precisions side by side, in place of `quantizations` and `dtypes`: `fp32`, `bf16`, `fp16`, a
    quantization method (`int8`, `8bit`, `4bit`; `nf4` is `4bit`), or `gguf:Q4_K_M` for a GGUF file on llama.cpp, which
    the model's `gguf:` has to say where to find."""
    reference: Annotated[str, PRECISION_NAME] | None = None
    """The precision that the others are compared with. Default: the first of `precisions`."""
    divergence: DivergenceSection | None = None
    """With `precisions`: measure the KL divergence from the reference (`divergence: {}` takes the defaults)."""
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
        lists = (*LISTS, "benchmarks")
        single = {key: [one] for key in lists if isinstance(one := value.get(key), str | int | dict)}
        return value | single

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for key in LISTS:
            values = getattr(self, key)
            if twice := next((one for one in values if values.count(one) > 1), None):
                raise ValueError(f"{key}: {twice!r} is given twice; keep one")
        self._check_precisions()
        names = [one.name for one in self.benchmarks]
        if again := next((one for one in names if names.count(one) > 1), None):
            raise ValueError(f"benchmarks: {again!r} is given twice; keep one, or put the other into a second manifest")
        return self

    def _check_precisions(self) -> None:
        found = [precision_of(name) for name in self.precisions]
        for at, one in enumerate(found):
            if same := next((other for other in found[:at] if other.key == one.key), None):
                raise ValueError(f"precisions: {same.name} and {one.name} are the same; keep one")
        if found and ({"quantizations", "dtypes"} & self.model_fields_set):
            raise ValueError("precisions: takes the place of quantizations and dtypes; remove those")
        if self.divergence is not None and len(found) < 2:
            raise ValueError("divergence: compares precisions; list at least two under precisions:")
        if self.reference is not None and precision_of(self.reference).key not in {one.key for one in found}:
            raise ValueError(f"reference: {self.reference} is not one of precisions; add it there")

    @property
    def rungs(self) -> list[Precision]:
        """The precisions; empty where `quantizations` and `dtypes` say what to compare."""
        return [precision_of(name) for name in self.precisions]

    @property
    def reference_name(self) -> str | None:
        """The precision that the others are compared with; None without `precisions`."""
        return reference_of(self.precisions, self.reference) if self.precisions else None
