"""The llama.cpp engine: GGUF files on the CPU or a GPU, behind the engine protocol. The binding is imported lazily."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from llmjobs.clocks import DeviceClock
from llmjobs.engines.llama_cpp import NOT_FINITE
from llmjobs.engines.llama_cpp.gguf import part_paths
from llmjobs.engines.llama_cpp.locate import fetch, first_part, hub_name, in_cache, local_path, locate, wanted_files
from llmjobs.engines.locate import Located
from llmjobs.engines.protocol import DEFAULT_LENGTH, ChatModel, Generator, ProbeResult, Scorer, Warn
from llmjobs.engines.speed import Speed
from llmjobs.errors import MissingPackageError, ModelError
from llmjobs.hub.repositories import inspect
from llmjobs.machine.child import describe_end, run_child
from llmjobs.manifest.models import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmjobs.engines.llama_cpp.load import LoadedModel
    from llmjobs.engines.llama_cpp.score import Scorer as LlamaScorer

__all__ = [
    "LlamaEngine", "check_cached", "check_files", "check_repository", "clock", "context_length", "devices",
    "ensure_files", "forecast", "gpu_uuid", "import_all", "is_cached", "load_tokenizer", "local_path", "locate",
    "missing", "open_model", "repository", "wanted_files", "warm_up_s", "weight_files",
]  # fmt: skip

log = logging.getLogger(__name__)
FORECAST = "llmjobs.engines.llama_cpp.forecast"
MAX_THREADS = "LLMJOBS_MAX_THREADS"
"""Environment variable that a cluster's worker sets."""
SPEED_S = 1.0
"""Time limit of a forecast, in seconds."""


class LlamaEngine:
    """One GGUF file loaded by llama.cpp."""

    def __init__(self, loaded: "LoadedModel") -> None:
        """``loaded`` must have been loaded just now."""
        self.loaded, self.spec, self.description = loaded, loaded.spec, loaded.description
        self.tokenizer, self.max_length = loaded.tokenizer, loaded.description.context_length or DEFAULT_LENGTH
        self.device_name = loaded.gpu_name
        self.not_finite_reason = NOT_FINITE
        self._decoding: ProbeResult | None = None
        self._open: list[Any] = []

    @property
    def mapped_weight_bytes(self) -> int | None:
        """Bytes of the file, which is mapped; the part on a GPU is not counted."""
        from llmjobs.engines.llama_cpp.library import library

        if self.description.device != "cpu" or not library().llama_supports_mmap():
            return 0
        return self.description.weight_bytes

    @property
    def effective(self) -> Mapping[str, Any]:
        """Engine, device, number format, quantization, threads, layers on the GPU, format of keys and values."""
        found = self.description
        return {
            "engine": "llama.cpp",
            "device": found.device,
            "dtype": found.dtype,
            "quantization": found.quantization,
            "threads": self.loaded.settings.threads,
            "gpu_layers": self.loaded.gpu_layers,
            "kv_cache": self.loaded.settings.kv_cache,
            "kernels": self.loaded.kernels,
        }

    def clock(self) -> DeviceClock | None:
        """None: a call returns when its results are ready."""
        return None

    def scorer(self, warn: Warn = log.warning) -> Scorer:
        """Share prefixes with llama.cpp's own sequences, if the probe finds that correct."""
        return self._scorer(warn)

    def generator(self, path: str | None = None, *, found: object = None, warn: Warn = log.warning) -> Generator:
        """Run several sequences in one batch, if the probe finds sharing correct."""
        from llmjobs.engines.llama_cpp.generate import PATHS
        from llmjobs.engines.llama_cpp.generate import Generator as LlamaGenerator

        loaded = self.loaded
        if self._decoding is None:
            self._decoding = ProbeResult.from_builtin(found)
        if self._decoding is None or self._decoding.path not in PATHS:
            self._decoding = self._found_decoding(warn)
        probe = self._decoding
        if path in PATHS and path != probe.path:
            probe = ProbeResult(path, None, "this unit was started on it")
        made = LlamaGenerator(
            self.spec.name,
            loaded.model,
            loaded.settings,
            loaded.tokenizer,
            loaded.tokenizer.end_tokens,
            self.max_length,
            probe,
            warn=warn,
        )
        self._open.append(made)
        return made

    def chat_model(self, *, keeps_keys: bool = True, warn: Warn = log.warning) -> ChatModel:
        """One sequence, with keys and values kept between turns."""
        from llmjobs.engines.llama_cpp.chat_model import LlamaChatModel

        loaded = self.loaded
        made = LlamaChatModel(
            self.spec.name,
            loaded.model,
            loaded.settings,
            loaded.tokenizer.end_tokens,
            self.max_length,
            keeps_keys=keeps_keys,
            can_crop=not loaded.is_recurrent,
            warn=warn,
        )
        self._open.append(made)
        return made

    def measure_speed(self, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1) -> list[Speed]:
        """Time prefill and decode of several sequences at once."""
        from llmjobs.engines.llama_cpp.generate import measure_speed

        return measure_speed(self.loaded, self.max_length, contexts, rows=rows, new_tokens=new_tokens, tries=tries)

    def next_token_logprobs(self, tokens: Sequence[int], positions: Sequence[int]) -> "NDArray[np.float32]":
        """Log-probabilities [positions, vocabulary] of the token after each position."""
        from llmjobs.engines.llama_cpp.score import next_token_logprobs

        return next_token_logprobs(self.loaded, self.max_length, tokens, positions)

    def close(self) -> None:
        """Free the contexts and the weights."""
        for one in self._open:
            one.close()
        self._open = []
        self.loaded.close()

    def _scorer(self, warn: Warn) -> "LlamaScorer":
        from llmjobs.engines.llama_cpp.score import Scorer as LlamaScorer

        loaded = self.loaded
        made = LlamaScorer(
            self.spec.name,
            loaded.model,
            loaded.settings,
            loaded.vocabulary,
            self.description.device,
            coarse=(self.description.dtype, self.description.quantization, self.loaded.settings.kv_cache)
            != ("float32", "none", "f32"),
            shares=not loaded.is_recurrent,
            warn=warn,
        )
        self._open.append(made)
        return made

    def _found_decoding(self, warn: Warn) -> ProbeResult:
        """Rows run together if a beginning may be shared, which the scorer's probe tests."""
        scorer = self._scorer(warn=lambda line: None)
        found = scorer.probe()
        scorer.close()
        if found.path == "plain":
            warn(f"{self.spec.name}: generating on the single path: {found.reason}")
        return replace(found, path="single" if found.path == "plain" else "shared")


def open_model(spec: ModelSpec, *, threads: int | str = "auto") -> LlamaEngine:
    """Load the file of ``spec`` with its layers on the GPU and its format of keys and values.

    Raises:
        MissingPackageError: the binding is not installed.
        ModelError: not found, no access, no memory, or the loaded model differs from the request.

    """
    from llmjobs.engines.llama_cpp.library import library
    from llmjobs.engines.llama_cpp.load import checked_headers, load

    if spec.quantization != "none":  # a cell of the matrix requests it
        raise ModelError(
            f"{spec.name}: a GGUF file cannot be quantized again; "
            "to compare precisions, add another GGUF file of the model"
        )
    located = locate(spec)
    if located.is_local:
        checked_headers(spec.name, Path(located.source))
    library()  # before gigabytes are fetched
    path = fetch(spec, located)
    return LlamaEngine(load(spec, located, path, thread_count(threads)))


def thread_count(threads: int | str) -> int:
    """Threads of a pass; ``auto`` uses the physical cores that this process may use, as on transformers."""
    if isinstance(threads, int):
        return threads
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = int(os.environ.get(MAX_THREADS, "1024"))
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable, most))


def repository(spec: ModelSpec) -> str:
    """``OWNER/NAME`` of an id that may end in ``:Q4_K_M``."""
    named = hub_name(spec.id)
    return named.repo if named else spec.id


def is_cached(spec: ModelSpec, revision: str) -> bool:
    """Whether the cache has the file that an id names, including all parts of a split one."""
    return in_cache(spec, revision) is not None


def check_cached(spec: ModelSpec, folder: Path) -> None:
    """Do nothing: which file of the repository is meant is found by :func:`locate`."""


def check_repository(spec: ModelSpec, commit: str) -> None:
    """Refuse a repository without the requested GGUF file."""
    named = hub_name(spec.id)
    if named is None:
        raise ModelError(f"{spec.name}: {spec.id} is not a name on the hub")
    wanted_files(spec, inspect("model", named.repo, commit))


def missing() -> str | None:
    """What has to be installed; None if llama.cpp's library can be loaded."""
    from llmjobs.engines.llama_cpp.library import library

    try:
        library()
    except MissingPackageError as error:
        return str(error)
    return None


def devices() -> list[str]:
    """Devices that the installed build can use, best first."""
    from llmjobs.engines.llama_cpp.library import is_installed
    from llmjobs.engines.llama_cpp.load import gpu_name, has_gpu

    return [gpu_name(), "cpu"] if is_installed() and has_gpu() else ["cpu"]


def weight_files(located: Located) -> list[Path]:
    """The file and its other parts, if they are on this machine."""
    path = first_part(located)
    return part_paths(path) if path else []


def ensure_files(spec: ModelSpec, located: Located) -> None:
    """Fetch the file, if it is not in the cache."""
    fetch(spec, located)


def check_files(spec: ModelSpec, located: Located) -> None:
    """Read the file's header, which holds the tokenizer too."""
    context_length(spec, located)


def clock(device: str) -> DeviceClock | None:
    """None: a call returns when its results are ready."""
    return None


def import_all(spec: ModelSpec) -> None:
    """Import what loading and running needs, including llama.cpp's library."""
    import llmjobs.engines.llama_cpp.generate
    import llmjobs.engines.llama_cpp.load
    import llmjobs.engines.llama_cpp.score  # noqa: F401
    from llmjobs.engines.llama_cpp.library import library

    library()


def warm_up_s(device: str) -> float:
    """0, because llama.cpp initializes a device when it loads a model."""
    return 0.0


def gpu_uuid() -> str | None:
    """None, because llama.cpp does not say which GPU it uses."""
    return None


def load_tokenizer(spec: ModelSpec, located: Located) -> Any:
    """The file's tokenizer; the file must be on this machine."""
    from llmjobs.engines.llama_cpp import load

    return load.load_tokenizer(spec, _here(spec, located))


def context_length(spec: ModelSpec, located: Located) -> int:
    """Longest input in tokens, from the file's header."""
    from llmjobs.engines.llama_cpp import load

    return load.context_length(load.checked_headers(spec.name, _here(spec, located))[0])


def _here(spec: ModelSpec, located: Located) -> Path:
    path = first_part(located)
    if path is None:
        raise ModelError(f"{spec.name}: its GGUF file is not on this machine yet; run 'llmjobs fetch MANIFEST'")
    return path


def forecast(
    spec: ModelSpec, located: Located, *, threads: int | str, unit: Mapping[str, int] | None, rows: int
) -> dict[str, Any]:
    """Sizes from the header, and speed from the file itself, measured in a child process."""
    from llmjobs.engines.llama_cpp import load
    from llmjobs.engines.llama_cpp.crash_test import special_kernels
    from llmjobs.engines.llama_cpp.forecast import shapes_of

    path = _here(spec, located)
    headers = load.checked_headers(spec.name, path)
    on_gpu = load.gpu_layers(spec)
    device = load.gpu_name() if on_gpu else "cpu"
    shapes = shapes_of(headers, spec.kv_cache) | {"device": device, "device_memory_bytes": None, "remark": None}
    if unit is None:
        return {"shapes": shapes, "speed": None, "why": None}
    task = {
        "path": str(path),
        "gpu_layers": on_gpu,
        "special": special_kernels(spec.name, path, headers, on_gpu),
        "kv_cache": spec.kv_cache,
        "threads": thread_count(threads),
        "rows": rows,
        "seconds": SPEED_S,
    }
    ended = run_child(FORECAST, task)
    why = None if ended.result is not None else ended.error or describe_end(ended)
    return {"shapes": shapes, "speed": ended.result, "why": why}


if TYPE_CHECKING:
    from llmjobs.engines.llama_cpp import engine
    from llmjobs.engines.protocol import EngineModule

    _complete: EngineModule = engine
