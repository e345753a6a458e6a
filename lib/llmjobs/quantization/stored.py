"""How a checkpoint's own weights may be stored: one entry for each ``quant_method`` of ``config.json``. No torch.

``STORED`` holds the entries by that name. :func:`stored_as` reads ``quantization_config`` before anything is fetched or
loaded; :func:`packing_of` reads a loaded layer. To add a format, write a :class:`StoredFormat` and :func:`register` it.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from llmjobs.quantization.bitsandbytes import NATS
from llmjobs.quantization.method import METHODS

DEQUANTIZED = "-dequantized"
"""Ends the name of a checkpoint whose weights were turned back into plain numbers while it was loaded."""


@dataclass(frozen=True)
class Packing:
    """How the weights of a layer are packed."""

    bits: int
    kind: str = "int"
    """``int``, ``fp``, ``nf``, ``nvfp`` or ``mxfp``."""
    group: tuple[int, ...] | str = ""
    """Weights that share a scale: ``(128,)`` of a row, ``(128, 128)`` a block, ``channel``, ``tensor``, or unknown."""
    activations: int | None = None
    """Bits to which a layer's inputs are quantized as well; None if they are not."""

    @property
    def text(self) -> str:
        """``4bit-g128``, ``8bit-channel-a8``, ``fp8-128x128``."""
        parts = [f"{self.bits}bit" if self.kind == "int" else f"{self.kind}{self.bits}"]
        if isinstance(self.group, str):
            parts += [self.group] if self.group else []
        else:
            parts.append(f"g{self.group[0]}" if len(self.group) == 1 else "x".join(map(str, self.group)))
        if self.activations:
            parts.append(f"a{self.activations}")
        return "-".join(parts)

    def layer_bytes(self, inputs: int, outputs: int) -> int:
        """Bytes of a layer of this shape: the packed weights, and two bytes a scale."""
        weights = inputs * outputs
        if self.group == "tensor":
            scales = 1
        elif self.group == "channel" or not self.group or isinstance(self.group, str):
            scales = outputs
        else:
            scales = math.ceil(weights / math.prod(self.group))
        return math.ceil(weights * self.bits / 8) + scales * 2


@dataclass(frozen=True)
class Place:
    """What is known of the machine, without torch."""

    cuda: bool
    """Whether torch is likely to find an NVIDIA or AMD GPU."""
    installed: Callable[[str], bool]
    """Whether a package can be imported."""

    @classmethod
    def here(cls, device: str = "auto") -> Self:
        """Look at this machine, for a model whose manifest asks for ``device``."""
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
        nodes = (path for pattern in ("nvidia[0-9]*", "dxg", "kfd") for path in Path("/dev").glob(pattern))
        cuda = device == "cuda" or (device == "auto" and not hidden and any(nodes))
        return cls(cuda, lambda name: is_installed(name))


def is_installed(name: str) -> bool:
    """Whether a package is installed, without importing it."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@dataclass(frozen=True)
class StoredFormat:
    """One way in which a checkpoint's weights come quantized."""

    name: str
    """``quant_method`` in ``config.json``."""
    packages: tuple[str, ...] = ()
    """What transformers has to import for it."""
    install: tuple[str, ...] = ()
    """What to install for it, where the names differ from :attr:`packages`."""
    packings: Callable[[Mapping[str, Any]], Iterable[Packing]] = lambda config: ()
    """From its ``quantization_config``; empty if it does not say."""
    problem: Callable[[Mapping[str, Any], Place], str | None] = lambda config, place: None
    """Why it does not run here, and what it needs, if ``quantization_config`` tells."""
    read: Callable[[Any], Packing | None] = lambda layer: None
    """Of a loaded layer; None if it is not quantized in this way."""
    unpacked: Callable[[Mapping[str, Any], Place], bool] = lambda config, place: False
    """Whether loading turns the weights into plain numbers here."""
    scoring_nats: float = NATS
    """How much a log-likelihood depends on the other rows of its batch, in nats per token."""
    merges: bool = False
    """Whether a LoRA adapter can be merged into weights that stay packed."""

    def missing(self, place: Place) -> list[str]:
        """What has to be installed for it."""
        names = self.install or tuple(package.replace("_", "-") for package in self.packages)
        return [name for name, package in zip(names, self.packages, strict=True) if not place.installed(package)]

    def label(self, packings: Iterable[Packing]) -> str:
        """``gptq-4bit-g128``: the method, and the packings with the largest share first."""
        texts = list(dict.fromkeys(packing.text for packing in packings))
        if not texts:
            return self.name
        whole = "+".join(texts)
        return whole if whole.startswith(self.name) else f"{self.name}-{whole}"


STORED: dict[str, StoredFormat] = {}
"""By ``quant_method``."""


def register(entry: StoredFormat) -> None:
    """Add a format; one of the same name is replaced."""
    STORED[entry.name] = entry


@dataclass(frozen=True)
class StoredAs:
    """What ``config.json`` says of a checkpoint's quantization."""

    method: str
    """``quant_method``."""
    config: Mapping[str, Any]
    """Its ``quantization_config``."""

    @property
    def entry(self) -> StoredFormat | None:
        """The entry of its method; None for an unknown one."""
        return STORED.get(self.method)

    @property
    def packings(self) -> list[Packing]:
        """The packings that the config describes; empty if it has none, or not in a library's format."""
        try:
            return list(self.entry.packings(self.config)) if self.entry else []
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return []

    @property
    def label(self) -> str:
        """``gptq-4bit-g128``; the bare method where the config says no more, ``4bit`` for what ``4bit`` would make."""
        return self.same_as or (self.entry.label(self.packings) if self.entry else self.method)

    @property
    def same_as(self) -> str | None:
        """The ``quantization:`` that quantizes a plain checkpoint in the same way; None if there is none."""
        return SAME.get((self.method, tuple(self.packings)))

    def is_unpacked(self, place: Place) -> bool:
        """Whether loading turns the weights into plain numbers here."""
        return self.entry is not None and self.entry.unpacked(self.config, place)

    def problems(self, place: Place) -> Iterator[str]:
        """Why the checkpoint does not run here, and what it needs; each ends a sentence that begins with its name."""
        what = f"is quantized by {self.method}"
        if self.entry is None:
            yield f"is quantized by {self.method!r}, which transformers does not load; use the original model"
            return
        if missing := self.entry.missing(place):
            yield (
                f"{what}, which needs {' and '.join(missing)}: pip install {' '.join(missing)}, or use the original "
                f"model (often the same name without -{self.method.upper()})"
            )
        if problem := self.entry.problem(self.config, place):
            yield f"{what}, {problem}"


def stored_as(config: Mapping[str, Any]) -> StoredAs | None:
    """How the weights of a checkpoint are stored, from its ``config.json``; None if they are plain numbers."""
    text = config.get("text_config")
    found = config.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, Mapping) else None
    )
    if not isinstance(found, Mapping):
        return None
    method = str(found.get("quant_method") or "")[:40]
    if method in ("", "bitsandbytes"):
        return StoredAs("bitsandbytes", found) if found.get("load_in_4bit") or found.get("load_in_8bit") else None
    return StoredAs(method, found)


def packing_of(layer: Any, method: str) -> Packing | None:
    """How a loaded layer's weights are packed, read from the layer; None if they are not."""
    entry = STORED.get(method)
    try:
        return entry.read(layer) if entry else None
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None


def nats_of(name: str) -> float | None:
    """How far the batch moves a log-likelihood, for the recorded name of a quantization; None if it is not known."""
    if name in METHODS:
        return METHODS[name].scoring_nats
    entries = [entry for entry in STORED.values() if name == entry.name or name.startswith(f"{entry.name}-")]
    return max((entry.scoring_nats for entry in entries), default=None)


# The formats.


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _group(value: Any) -> tuple[int, ...] | str:
    size = _integer(value)
    return (size,) if size and size > 0 else "channel"


def _grouped(config: Mapping[str, Any]) -> list[Packing]:
    """GPTQ, AWQ and AutoRound: ``bits`` and ``group_size`` of every layer; -1 is one scale a row."""
    bits = _integer(config.get("bits", config.get("w_bit")))
    return [Packing(bits, group=_group(config.get("group_size", config.get("q_group_size"))))] if bits else []


def _read_grouped(layer: Any) -> Packing | None:
    """A layer of gptqmodel: whole numbers packed into ``qweight``, with one scale per group."""
    if getattr(layer, "bits", None) is None or not (hasattr(layer, "qweight") or hasattr(layer, "scales")):
        return None
    size = int(layer.group_size)
    return Packing(int(layer.bits), group="channel" if size in (-1, int(layer.in_features)) else (size,))


def _of_arguments(weights: Mapping[str, Any], inputs: Any) -> Packing:
    """compressed-tensors: ``weights`` and ``input_activations`` of a scheme (its ``QuantizationArgs`` as a mapping)."""
    bits, kind, strategy = int(weights["num_bits"]), str(weights["type"]), str(weights.get("strategy") or "tensor")
    size, block = _integer(weights.get("group_size")), weights.get("block_structure")
    group: tuple[int, ...] | str = "tensor"
    if strategy in ("group", "tensor_group") and size:
        group = (size,)
    elif strategy == "block" and isinstance(block, list | tuple):
        group = tuple(int(one) for one in block)
    elif strategy != "tensor":
        group = "channel"
    name = "int" if kind.endswith("int") else "fp"
    if bits == 4 and name == "fp":
        name = "nvfp" if strategy == "tensor_group" else "mxfp"
    given = inputs.get("num_bits") if isinstance(inputs, Mapping) else None
    return Packing(bits, name, group, _integer(given))


def _compressed_tensors(config: Mapping[str, Any]) -> Iterable[Packing]:
    for scheme in (config.get("config_groups") or {}).values():
        if isinstance(weights := scheme.get("weights"), Mapping):
            yield _of_arguments(weights, scheme.get("input_activations"))


def _read_compressed_tensors(layer: Any) -> Packing | None:
    """Weights of a loaded layer are plain numbers by now; what they were packed into, its scales still say."""
    scheme = getattr(layer, "quantization_scheme", None)
    if scheme is None or scheme.weights is None or getattr(layer, "weight_scale", None) is None:
        return None
    inputs = scheme.input_activations
    found = _of_arguments(scheme.weights.model_dump(mode="json"), inputs and inputs.model_dump(mode="json"))
    if found.group == "channel" or len(found.group) != 1:
        return found
    held = int(layer.in_features) // int(layer.weight_scale.shape[-1])
    return Packing(found.bits, found.kind, (held,), found.activations)


def _fine_grained(config: Mapping[str, Any]) -> Iterable[Packing]:
    block = config.get("weight_block_size")
    size = tuple(int(one) for one in block) if isinstance(block, list | tuple) and block else "tensor"
    if str(config.get("quant_method")) == "mxfp8":
        yield Packing(8, "mxfp", (32,))
    else:
        yield Packing(8, "fp", size, 8 if config.get("activation_scheme") == "static" else None)


def _read_fine_grained(layer: Any) -> Packing | None:
    weight, scale = getattr(layer, "weight", None), getattr(layer, "weight_scale_inv", None)
    if weight is None or scale is None or "float8" not in str(weight.dtype):
        return None
    block = tuple(of // by for of, by in zip(weight.shape, scale.shape, strict=True)) if scale.dim() == 2 else "tensor"
    return Packing(8, "fp", block)


def _needs_kernels(config: Mapping[str, Any], place: Place) -> str | None:
    if place.cuda and not place.installed("kernels"):
        return "which needs the kernels package on a GPU; run pip install kernels, or set device: cpu"
    return None


def _torchao(config: Mapping[str, Any]) -> Iterable[Packing]:
    """``quant_type`` names a configuration of torchao, alone or as ``default``; older files have its former name."""
    found = config.get("quant_type")
    inner = found.get("default") if isinstance(found, Mapping) else None
    data = inner.get("_data", {}) if isinstance(inner, Mapping) else {}
    name = str(inner.get("_type") if isinstance(inner, Mapping) else found).lower().replace("_", "")
    bits = next((size for size in (4, 8) if f"int{size}weight" in name or f"float{size}" in name), None)
    if "intxweightonly" in name:
        bits = 4 if "int4" in str(data.get("weight_dtype")) else 8
    if bits:
        size = _integer(data.get("group_size"))
        activations = 8 if "dynamicactivation" in name else None
        yield Packing(bits, "fp" if "float" in name else "int", (size,) if size else "channel", activations)


def _torchao_problem(config: Mapping[str, Any], place: Place) -> str | None:
    text = str(config.get("quant_type")).lower().replace("_", "")
    on_gpu = "int4weightonly" in text or "tilepackedto4d" in text
    if on_gpu and not place.cuda:
        return "whose 4-bit weights need an NVIDIA GPU; use an 8-bit version, or the original with quantization: 4bit"
    return None


def _read_torchao(layer: Any) -> Packing | None:
    weight: Any = getattr(layer, "weight", None)
    kind = type(weight)
    if not kind.__module__.startswith("torchao"):
        return None
    bits, number = (8, "fp") if "Float8" in kind.__name__ else (4 if "Int4" in kind.__name__ else 8, "int")
    if "Intx" in kind.__name__:
        bits = 4 if "int4" in str(weight.target_dtype) else 8
    block = getattr(weight, "block_size", None)
    size = int(block[-1]) if block else int(weight.shape[-1])
    acts = getattr(weight, "act_quant_kwargs", None) or getattr(weight, "activation_quantization", None)
    return Packing(bits, number, "channel" if size >= int(weight.shape[-1]) else (size,), 8 if acts else None)


def _bitsandbytes(config: Mapping[str, Any]) -> Iterable[Packing]:
    if config.get("load_in_8bit"):
        yield Packing(8, group="channel", activations=8)
    else:
        yield Packing(4, "fp" if config.get("bnb_4bit_quant_type") == "fp4" else "nf", (64,))


def _read_bitsandbytes(layer: Any) -> Packing | None:
    weight = getattr(layer, "weight", None)
    if type(weight).__name__ == "Int8Params":
        return Packing(8, group="channel", activations=8)
    state = getattr(weight, "quant_state", None)
    return Packing(4, "fp" if state.quant_type == "fp4" else "nf", (int(state.blocksize),)) if state else None


def _hqq(config: Mapping[str, Any]) -> Iterable[Packing]:
    found = config.get("quant_config") or {}
    weights = found.get("weight_quant_params") or {}
    if bits := _integer(weights.get("nbits")):
        yield Packing(bits, group=_group(weights.get("group_size")))


def _no_hqq(config: Mapping[str, Any], place: Place) -> str | None:
    return "which transformers 5 no longer loads; use the original model with quantization: 4bit"


def _no_nvfp4(config: Mapping[str, Any], place: Place) -> str | None:
    return "which transformers does not load; use a version for compressed-tensors, or the original model"


for _entry in (
    StoredFormat("gptq", ("optimum", "gptqmodel"), packings=_grouped, read=_read_grouped),
    StoredFormat("awq", ("gptqmodel",), packings=_grouped, read=_read_grouped),
    StoredFormat("auto-round", ("auto_round",), packings=_grouped, read=_read_grouped),
    StoredFormat("intel/auto-round", ("auto_round",), packings=_grouped, read=_read_grouped),
    StoredFormat(
        "compressed-tensors",
        ("compressed_tensors",),
        install=("compressed-tensors",),
        packings=_compressed_tensors,
        read=_read_compressed_tensors,
        unpacked=lambda config, place: True,
    ),
    StoredFormat(
        "fp8",
        packings=_fine_grained,
        read=_read_fine_grained,
        problem=_needs_kernels,
        unpacked=lambda config, place: not place.cuda,
    ),
    StoredFormat(
        "mxfp8",
        packings=_fine_grained,
        read=_read_fine_grained,
        problem=_needs_kernels,
        unpacked=lambda config, place: not place.cuda,
    ),
    StoredFormat(
        "mxfp4",
        packings=lambda config: [Packing(4, "mxfp", (32,))],
        read=lambda layer: Packing(4, "mxfp", (32,)) if type(layer).__name__.startswith("Mxfp4") else None,
        unpacked=lambda config, place: not (place.cuda and place.installed("kernels") and place.installed("triton")),
    ),
    StoredFormat(
        "torchao",
        ("torchao",),
        packings=_torchao,
        read=_read_torchao,
        problem=_torchao_problem,
    ),
    StoredFormat("bitsandbytes", ("bitsandbytes",), packings=_bitsandbytes, read=_read_bitsandbytes, merges=True),
    StoredFormat("hqq", ("hqq",), packings=_hqq, problem=_no_hqq),
    StoredFormat("nvfp4", problem=_no_nvfp4),
    StoredFormat("quanto", ("optimum.quanto",), install=("optimum-quanto",)),
    StoredFormat("aqlm", ("aqlm",)),
    StoredFormat("vptq", ("vptq",)),
    StoredFormat("spqr", ("spqr_quant",)),
    StoredFormat("quark", ("quark",), install=("amd-quark",)),
    StoredFormat("eetq", ("kernels",)),
    StoredFormat("higgs", ("flute", "fast_hadamard_transform"), install=("flute-kernel", "fast-hadamard-transform")),
    StoredFormat("fp_quant", ("fp_quant",)),
    StoredFormat("fbgemm_fp8", ("fbgemm_gpu",)),
    StoredFormat("bitnet"),
):
    register(_entry)

SAME: dict[tuple[str, tuple[Packing, ...]], str] = {
    ("bitsandbytes", (Packing(8, group="channel", activations=8),)): "8bit",
    ("bitsandbytes", (Packing(4, "nf", (64,)),)): "4bit",
    ("torchao", (Packing(8, group="channel"),)): "int8",
}
"""Method and packing of a checkpoint → the ``quantization:`` whose weights are the same."""
