"""What an entry says of a quantization method. torch and the method's package are imported only when used."""

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
    """As a manifest gives it."""
    title: str
    """As tables give it."""
    about: str
    """What it does, in a few words."""
    package: str
    """What has to be importable."""
    install: str
    """What follows ``pip install``."""
    devices: tuple[str, ...]
    """Where it runs."""
    weight_bytes: Callable[[int], int]
    """Bytes of the packed tensor of so many weights."""
    scale_bytes: Callable[[int, int], int]
    """Bytes beside it, of a layer with so many inputs and outputs."""
    gpu_share: float
    """Bytes on a GPU for a byte of 16-bit files; embeddings and scales included."""
    layer_error: float
    """Largest error of a layer's output, as a share of its norm, that quantizing explains."""
    scoring_nats: float
    """How far a log-likelihood moves with the rows beside it, in nats a token and in float32."""
    config: Callable[[Any], Any]
    """What ``from_pretrained`` takes as ``quantization_config``, for a torch number format to compute in."""
    kind_of: Callable[[Any], str | None]
    """Of a loaded weight: the method's name, ``mixed`` where it should be quantized and is not, None for any other."""
    layer: Callable[[Any, Any, str], Any]
    """A float32 linear layer without bias → the same layer quantized, for a number format and a device."""
    optional: bool = False
    """Whether the package comes with an extra of llmjobs only."""
    noisy_loggers: tuple[str, ...] = ()
    """Loggers that warn of nothing that matters here while the package is imported."""
    stored_bytes: Callable[[Any], int] = _plain_bytes
    """Bytes of a loaded weight's packed tensor."""
    stored_count: Callable[[Any], int] = _plain_count
    """How many weights a loaded tensor stands for."""

    def require(self) -> None:
        """Import the package.

        Raises:
            MissingPackageError: it cannot be imported; the line says what to install.

        """
        try:
            import_module(self.package)
        except ImportError as error:
            raise MissingPackageError(
                f"quantization: {self.name} needs {self.package}, which cannot be imported "
                f"({' '.join(str(error).split())[:100]}); pip install {self.install}"
            ) from None


METHODS: dict[str, Method] = {}
"""By name, in the order in which they are shown: from the most bytes to the fewest is what people expect."""


def register(method: Method) -> None:
    """Add a method; one of the same name is replaced."""
    METHODS[method.name] = method


def quiet_imports() -> None:
    """Silence what packages say while they are imported; transformers imports those that are installed."""
    for name in {name for method in METHODS.values() for name in method.noisy_loggers}:
        logging.getLogger(name).setLevel(logging.ERROR)


def names() -> list[str]:
    """What ``quantization:`` allows."""
    return [NONE, *METHODS]


def kind_of(weight: Any) -> str | None:
    """The method by which a loaded weight is quantized; ``mixed`` where it should be and is not, None for none."""
    return next((found for method in METHODS.values() if (found := method.kind_of(weight))), None)


def stored_bytes(weight: Any) -> int:
    """Bytes of a loaded tensor as it lies in memory, without scales beside it."""
    method = METHODS.get(kind_of(weight) or "")
    return method.stored_bytes(weight) if method else _plain_bytes(weight)


def stored_count(weight: Any) -> int:
    """How many weights a loaded tensor stands for."""
    method = METHODS.get(kind_of(weight) or "")
    return method.stored_count(weight) if method else _plain_count(weight)
