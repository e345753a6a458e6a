"""The section ``matrix:``: devices and settings, or precisions by name, each timed in a separate cell.

A precision's name stands for an engine, a number format, a quantization and a file.
"""

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import CoreSchema, core_schema

from llmjobs.manifest.engine_names import engine_name
from llmjobs.manifest.eval import BenchmarkSpec
from llmjobs.manifest.fields import DataPath, Section, not_one_of
from llmjobs.manifest.models import DType, ModelSpec, Quantization
from llmjobs.quantization import METHODS

FLOATS: dict[str, DType] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
OTHER_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "nf4": "4bit"}
"""Other names for the same precision; tables show the name that was written."""
GGUF = "gguf:"
_FORMAT = re.compile(r"gguf:[A-Za-z0-9][\w.+-]{0,60}")


@dataclass(frozen=True)
class Precision:
    """One precision: a number format or a quantization method of transformers, or a GGUF file of llama.cpp."""

    name: str
    """As the manifest writes it."""
    dtype: DType = "auto"
    quantization: str = "none"
    gguf: str | None = None
    """Part of the GGUF file's name, such as ``Q4_K_M``."""

    @property
    def title(self) -> str:
        """The name in tables: ``bf16``, ``8-bit``, ``GGUF Q4_K_M``."""
        if self.gguf:
            return f"GGUF {self.gguf}"
        if self.name == "nf4":
            return "NF4"
        return METHODS[self.name].title if self.name in METHODS else self.name

    @property
    def key(self) -> tuple[str, str, str | None]:
        """What distinguishes it from other precisions, independent of its name."""
        return self.dtype, self.quantization, self.gguf and self.gguf.lower()

    @property
    def file_name(self) -> str:
        """The name as a part of a folder's name: ``gguf-Q4_K_M``."""
        return self.name.replace(":", "-")


def precision_of(name: str) -> Precision:
    """Look a precision up by its name.

    Raises:
        ValueError: there is no such precision; the line lists them.

    """
    if _FORMAT.fullmatch(name):
        return Precision(name, gguf=name.removeprefix(GGUF))
    same = OTHER_NAMES.get(name, name)
    if same in FLOATS:
        return Precision(name, dtype=FLOATS[same])
    if same in METHODS:
        return Precision(name, quantization=same)
    raise ValueError(not_one_of(name, [*names(), "gguf:Q4_K_M"]))


def names() -> list[str]:
    """All names that are not GGUF files."""
    return [*FLOATS, *METHODS, "nf4"]


class _Name:
    """A precision's name in a manifest, checked when the manifest is read."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Check by :func:`precision_of`."""
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        """The names, or a GGUF file."""
        return {"anyOf": [{"enum": [*names(), *OTHER_NAMES]}, {"type": "string", "pattern": f"^{_FORMAT.pattern}$"}]}

    def _check(self, value: Any) -> str:
        return precision_of(value if isinstance(value, str) else str(value)).name


PRECISION_NAME = _Name()
"""Annotates a ``str`` that names a precision."""


def spec_at(model: ModelSpec, precision: Precision) -> ModelSpec:
    """Return the model at a precision: another number format, another quantization, or its GGUF file.

    Raises:
        ValueError: the model does not exist at this precision; the line says what to add.

    """
    if precision.gguf is None:
        if engine_name(model.engine, model.id) == "llama.cpp":
            raise ValueError(f"{model.id} is a GGUF file; name its unquantized checkpoint as id: and the file as gguf:")
        return model.model_copy(update={"dtype": precision.dtype, "quantization": precision.quantization})
    found = _gguf_id(model, precision.gguf)
    if found is None:
        raise ValueError(
            f"no GGUF file is known for {model.id}; add gguf: to the model "
            "(OWNER/NAME-GGUF, a folder, or a path with *)"
        )
    own = {"id": found, "engine": "llama.cpp", "revision": None, "dtype": "auto", "quantization": "none"}
    return model.model_copy(update=own)


def gguf_models(models: Iterable[ModelSpec], precisions: Iterable[Precision]) -> list[ModelSpec]:
    """The GGUF files of ``models`` that ``precisions`` ask for, each as a model with the precision in its name."""
    found = []
    for model in models:
        for precision in precisions:
            with contextlib.suppress(ValueError):
                if precision.gguf:
                    spec = spec_at(model, precision)
                    found.append(spec.model_copy(update={"name": f"{model.name} {precision.name}"}))
    return found


def _gguf_id(model: ModelSpec, which: str) -> str | None:
    """The id of the model's file: ``gguf:`` with the star filled in, or with the file's name after a colon."""
    source = model.gguf
    if source is None and engine_name(model.engine, model.id) == "llama.cpp":
        source = None if ":" in model.id or model.id.lower().endswith(".gguf") else model.id
    if source is None:
        return None
    return source.replace("*", which) if "*" in source else f"{source}:{which}"


def reference_of(names: Sequence[str], wanted: str | None) -> str:
    """The precision that the others are compared with: the manifest's ``reference``, otherwise the first one."""
    if wanted is None:
        return names[0]
    key = precision_of(wanted).key
    return next(name for name in names if precision_of(name).key == key)


CellDevice = Literal["cuda", "mps", "cpu"]
Threads = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]


LISTS = ("devices", "quantizations", "dtypes", "precisions", "threads", "batch_sizes", "context_lengths")
"""Keys whose values must differ."""


class DivergenceSection(Section):
    """How far the distribution of the next token moves from the reference precision's, as KL divergence."""

    text: DataPath | None = None
    """A text file in UTF-8. Default: a bundled one, in English."""
    chunks: Annotated[int, Field(ge=0, le=10_000)] = 8
    """Maximum number of parts of the text, each read alone; 0 leaves the text out."""
    context: Annotated[int, Field(ge=16, le=1 << 16)] = 512
    """Tokens per part. As in llama-perplexity, the first half is only context; the positions in the second half are
    compared."""
    prompts: Annotated[int, Field(ge=0, le=10_000)] = 32
    """Maximum number of benchmark questions, taken evenly from the subjects; the position where the answer begins is
    compared. 0 leaves them out."""
    disk_gib: Annotated[float, Field(gt=0, le=1024)] = 1.0
    """Maximum disk space for the reference's distributions, which take two bytes per position and token of the
    vocabulary. Parts of the text beyond this limit are left out."""

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
    quantization method (`int8`, `8bit`, `4bit`; `nf4` is `4bit`), or `gguf:Q4_K_M` for a GGUF file on llama.cpp; the
    model's `gguf:` says where to find it."""
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
        """The precisions; empty if `quantizations` and `dtypes` are used instead."""
        return [precision_of(name) for name in self.precisions]

    @property
    def reference_name(self) -> str | None:
        """The precision that the others are compared with; None without `precisions`."""
        return reference_of(self.precisions, self.reference) if self.precisions else None
