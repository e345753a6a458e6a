"""Load a GGUF file with llama.cpp, and read its effective properties."""

import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmjobs.engines.llama_cpp.context import ContextSettings
from llmjobs.engines.llama_cpp.crash_test import special_kernels
from llmjobs.engines.llama_cpp.gguf import (
    Header,
    check_causal,
    check_tokenizer,
    read_parts,
    share_text,
    weights_by_format,
)
from llmjobs.engines.llama_cpp.library import LOG, library, load_weights, refusal, vocabulary_of
from llmjobs.engines.llama_cpp.tokenizer import GgufTokenizer
from llmjobs.engines.locate import Located
from llmjobs.engines.protocol import DEFAULT_LENGTH, Description
from llmjobs.errors import ModelError
from llmjobs.manifest.models import ModelSpec

log = logging.getLogger(__name__)
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Formats that are not quantized, with their usual names."""
_USING = re.compile(r"using device \w+ \(([^)]+)\)")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")


@dataclass
class LoadedModel:
    """A loaded GGUF file: llama.cpp's model, its tokenizer, and their effective properties."""

    spec: ModelSpec
    path: Path
    headers: Sequence[Header]
    model: Any
    tokenizer: GgufTokenizer
    description: Description
    settings: ContextSettings
    gpu_layers: int
    """Layers on a GPU, as llama.cpp reports them."""
    kernels: str
    """``fast``, or ``plain`` if the fast kernels crash on this processor."""
    gpu_name: str | None = None
    """Name of the GPU, if one is used."""

    @property
    def header(self) -> Header:
        """The first part's header, which has the metadata."""
        return self.headers[0]

    @property
    def vocabulary(self) -> int:
        """Number of tokens in the logits."""
        return vocabulary_of(self.model)

    @property
    def is_recurrent(self) -> bool:
        """Whether some layers have a state instead of keys and values, which can be neither shared nor cut."""
        api = library()
        return bool(api.llama_model_is_recurrent(self.model) or api.llama_model_is_hybrid(self.model))

    def close(self) -> None:
        if self.model:
            library().llama_model_free(self.model)
        self.model = None


def checked_headers(who: str, path: Path) -> list[Header]:
    """Read a file's headers and refuse what cannot be evaluated.

    Raises:
        ModelError: truncated, not a GGUF file, an embedding model, or without a usable tokenizer.

    """
    headers = read_parts(path)
    check_causal(who, headers[0])
    check_tokenizer(who, headers[0])
    return headers


def context_length(header: Header) -> int:
    """Longest input in tokens that the model was made for; 2,048 if the file does not say."""
    found = header.of_architecture("context_length")
    return int(found) if isinstance(found, int) and found > 0 else DEFAULT_LENGTH


def quantization_of(headers: Sequence[Header]) -> tuple[str, str]:
    """Number format and quantization as in ``Description``, from the tensors of all parts."""
    found = weights_by_format(headers)
    if set(found) <= set(FLOATS) and found:
        return FLOATS[found.most_common(1)[0][0]], "none"
    return "float32", share_text(found)


def load(
    spec: ModelSpec, located: Located, path: Path, threads: int, warn: Callable[[str], None] = log.warning
) -> LoadedModel:
    """Load ``path`` with the device, the layers on the GPU and the format of keys and values of ``spec``.

    Raises:
        MissingPackageError: the binding is not installed.
        ModelError: it cannot be loaded, or runs on another device than requested.

    """
    headers = checked_headers(spec.name, path)
    api = library()
    asked = gpu_layers(spec)
    special = special_kernels(spec.name, path, headers, asked)
    if not special:
        warn(
            f"{spec.name}: the fast kernels of the installed llama.cpp crash on this processor, so plain ones are "
            "used; see docs/gguf.md for a build whose fast kernels work"
        )
    model = load_weights(spec.name, path, asked, special=special)
    try:
        lines = LOG.lines()
        on_gpu, layers = _offloaded(lines)
        device = _device(on_gpu, layers)
        _check_device(spec, asked, device)
        vocab = api.llama_model_get_vocab(model)
        tokenizer = GgufTokenizer(headers[0], vocab, spec.name)
        description = _describe(spec, located, headers, model, tokenizer, device)
    except BaseException:
        api.llama_model_free(model)
        raise
    settings = ContextSettings(threads, spec.kv_cache, flash_attention=False if spec.kv_cache == "f32" else None)
    loaded = LoadedModel(
        spec,
        path,
        headers,
        model,
        tokenizer,
        description,
        settings,
        gpu_layers=on_gpu,
        kernels="fast" if special else "plain",
        gpu_name=_named(lines) if on_gpu else None,
    )
    if loaded.is_recurrent:  # each sequence would need a separate state
        loaded.settings = replace(loaded.settings, sequences=1)
    return loaded


def load_tokenizer(spec: ModelSpec, path: Path) -> GgufTokenizer:
    """Load the tokenizer alone; it stays in memory until the process ends.

    Raises:
        ModelError: it cannot be loaded.

    """
    headers = checked_headers(spec.name, path)
    api = library()
    parameters = api.llama_model_default_params()
    parameters.vocab_only = True
    LOG.clear()
    model = api.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise ModelError(f"{spec.name}: llama.cpp cannot read the tokenizer of {path.name}: {refusal()}")
    return GgufTokenizer(headers[0], api.llama_model_get_vocab(model), spec.name)


def has_gpu() -> bool:
    """Whether the installed build of llama.cpp found a GPU."""
    return bool(library().llama_supports_gpu_offload())


def gpu_name() -> str:
    """Name of the GPU's device."""
    return "mps" if sys.platform == "darwin" else "cuda"


def gpu_layers(spec: ModelSpec) -> int:
    """Layers to request: all (-1) if there is a GPU, unless the manifest sets fewer."""
    wants = spec.device in ("cuda", "mps") or (spec.gpu_layers not in ("auto", 0))
    if wants and not has_gpu():
        raise ModelError(
            f"{spec.name}: the installed llama.cpp finds no GPU; install a build of llama-cpp-python with GPU support "
            "(docs/gguf.md), or set device: cpu and remove gpu_layers"
        )
    if spec.device == "cpu" or not has_gpu():
        return 0
    return -1 if spec.gpu_layers == "auto" else int(spec.gpu_layers)


def _offloaded(lines: Sequence[str]) -> tuple[int, int]:
    """Layers on the GPU and layers in total, as llama.cpp reports them; (0, 0) if it does not."""
    for line in lines:
        if match := _OFFLOADED.search(line):
            return int(match[1]), int(match[2])
    return 0, 0


def _named(lines: Sequence[str]) -> str | None:
    return next((found[1] for line in lines if (found := _USING.search(line))), None)


def _device(on_gpu: int, layers: int) -> str:
    if not on_gpu:
        return "cpu"
    return gpu_name() if on_gpu >= layers else "mixed"


def _check_device(spec: ModelSpec, asked: int, device: str) -> None:
    if asked and device == "cpu":
        raise ModelError(
            f"{spec.name}: layers on the GPU were requested, but llama.cpp put none there, so the model was not run. "
            "Set device: cpu if that is what you want"
        )


def _describe(
    spec: ModelSpec, located: Located, headers: Sequence[Header], model: Any, tokenizer: GgufTokenizer, device: str
) -> Description:
    api = library()
    dtype, quantization = quantization_of(headers)
    return Description(
        id=spec.id,
        revision=located.revision,
        architecture=headers[0].architecture,
        device=device,
        dtype=dtype,
        quantization=quantization,
        parameters=int(api.llama_model_n_params(model)),
        weight_bytes=int(api.llama_model_size(model)),
        attention="llama.cpp",
        has_chat_template=bool(tokenizer.chat_template),
        engine="llama.cpp",
        context_length=context_length(headers[0]),
    )
