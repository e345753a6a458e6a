"""The fields of a quantization method. torch and the method's package are only imported when used."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from llmjobs.errors import MissingPackageError

NONE = "none"


def _plain_bytes(weight: Any) -> int:
    return int(weight.numel() * weight.element_size())


def _plain_count(weight: Any) -> int:
    return int(weight.numel())


@dataclass(frozen=True)
class Method:
    """One way to quantize the linear layers of a model while it is loaded; the output embedding is left out."""

    name: str
    """Name in a manifest."""
    title: str
    """Name in tables."""
    about: str
    """What it does, in a few words."""
    package: str
    """Package that must be importable."""
    install: str
    """What follows ``pip install``."""
    devices: tuple[str, ...]
    """Types of devices on which it runs."""
    weight_bytes: Callable[[int], int]
    """Bytes of the packed tensor for this number of weights."""
    scale_bytes: Callable[[int, int], int]
    """Additional bytes of a layer with these numbers of inputs and outputs."""
    gpu_share: float
    """Bytes on a GPU per byte of 16-bit files, including embeddings and scales."""
    layer_error: float
    """Largest error of a layer's output, as a share of its norm, that quantization explains."""
    scoring_nats: float
    """How much a log-likelihood changes with the other rows of its batch, in nats per token and in float32."""
    config: Callable[[Any], Any]
    """Returns ``quantization_config`` for ``from_pretrained``, given the torch number format to compute in."""
    kind_of: Callable[[Any], str | None]
    """For a loaded weight: the method's name, ``mixed`` if it should be quantized and is not, None for any other."""
    layer: Callable[[Any, Any, str], Any]
    """Quantizes a float32 linear layer without bias, for a number format and a device."""
    optional: bool = False
    """Whether the package is an optional extra of llmjobs."""
    noisy_loggers: tuple[str, ...] = ()
    """Loggers whose warnings during the import of the package do not matter here."""
    stored_bytes: Callable[[Any], int] = _plain_bytes
    """Bytes of a loaded weight's packed tensor."""
    stored_count: Callable[[Any], int] = _plain_count
    """Number of weights in a loaded tensor."""
    finish: Callable[[Any], None] | None = None
    """Does to a loaded layer's weights what its first pass would do."""

    def require(self) -> None:
        """Import the package.

        Raises:
            MissingPackageError: it cannot be imported; the message says what to install.

        """
        try:
            import_module(self.package)
        except ImportError as error:
            raise MissingPackageError(
                f"quantization: {self.name} needs {self.package}, which cannot be imported "
                f"({' '.join(str(error).split())[:100]}); pip install {self.install}"
            ) from None


METHODS: dict[str, Method] = {}
"""Methods by name, in the order in which they are shown: from the most bytes to the fewest."""


def register(method: Method) -> None:
    """Add a method; it replaces one with the same name."""
    METHODS[method.name] = method


def quiet_imports() -> None:
    """Silence packages while they are imported; transformers imports those that are installed."""
    for name in {name for method in METHODS.values() for name in method.noisy_loggers}:
        logging.getLogger(name).setLevel(logging.ERROR)


def names() -> list[str]:
    """The values that ``quantization:`` allows."""
    return [NONE, *METHODS]


def kind_of(weight: Any) -> str | None:
    """The method by which a loaded weight is quantized; ``mixed`` if it should be and is not, None for none."""
    return next((found for method in METHODS.values() if (found := method.kind_of(weight))), None)


def stored_bytes(weight: Any) -> int:
    """Bytes of a loaded tensor in memory, without separate scales."""
    method = METHODS.get(kind_of(weight) or "")
    return method.stored_bytes(weight) if method else _plain_bytes(weight)


def stored_count(weight: Any) -> int:
    """Number of weights in a loaded tensor."""
    method = METHODS.get(kind_of(weight) or "")
    return method.stored_count(weight) if method else _plain_count(weight)
