"""Precisions of a matrix by name: which engine, number format, quantization and file each one stands for."""

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import CoreSchema, core_schema

from llmjobs.manifest.engines import engine_name
from llmjobs.manifest.models import DType, ModelSpec
from llmjobs.manifest.suggest import not_one_of
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
        """What tells it from others, whatever it is called."""
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
    """The names that are no GGUF files."""
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
    """The id of the model's file: ``gguf:`` with the star filled in, or with the file's name behind a colon."""
    source = model.gguf
    if source is None and engine_name(model.engine, model.id) == "llama.cpp":
        source = None if ":" in model.id or model.id.lower().endswith(".gguf") else model.id
    if source is None:
        return None
    return source.replace("*", which) if "*" in source else f"{source}:{which}"


def reference_of(names: Sequence[str], wanted: str | None) -> str:
    """The precision that others are compared with: the one that the manifest names, else the first of its list."""
    if wanted is None:
        return names[0]
    key = precision_of(wanted).key
    return next(name for name in names if precision_of(name).key == key)
