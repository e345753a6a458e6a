"""The transformers engine: safetensors models on PyTorch, behind the engine protocol. torch is imported lazily."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmjobs.clocks import DeviceClock
from llmjobs.engines.adapters import adapter_bytes, ensure_adapter
from llmjobs.engines.locate import Located, files_of
from llmjobs.engines.protocol import DEFAULT_LENGTH, ChatModel, Generator, Scorer, Warn
from llmjobs.engines.speed import Speed
from llmjobs.engines.transformers.locate import load_from, local_path, locate
from llmjobs.engines.transformers.model_files import check_folder, check_repository, checked_config
from llmjobs.engines.transformers.shapes import longest_input
from llmjobs.errors import LlmjobsError, ModelError
from llmjobs.hub.files import ensure_model, is_whole, model_files
from llmjobs.hub.repositories import RemoteFile, RemoteRepo
from llmjobs.machine.child import describe_end, run_child
from llmjobs.manifest.models import ModelSpec
from llmjobs.memory import mapped_weight_bytes
from llmjobs.quantization import METHODS
from llmjobs.redaction import HUB_TOKENS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmjobs.engines.transformers.fast_path_trials import DecodeProbe
    from llmjobs.engines.transformers.load import LoadedModel

__all__ = [
    "TransformersEngine", "check_cached", "check_files", "check_repository", "clock", "context_length", "devices",
    "ensure_files", "forecast", "gpu_uuid", "import_all", "is_cached", "load_tokenizer", "local_path", "locate",
    "open_model", "repository", "wanted_files", "warm_up_s", "weight_files",
]  # fmt: skip

log = logging.getLogger(__name__)
FORECAST = "llmjobs.engines.transformers.forecast"
MEASURE_S = 8.0
"""Seconds that a forecast may measure, after all imports."""


class TransformersEngine:
    """One model loaded by transformers."""

    def __init__(self, loaded: "LoadedModel") -> None:
        """``loaded`` must have been loaded just now, because the mapped part of it changes with use."""
        self.loaded, self.spec, self.description = loaded, loaded.spec, loaded.description
        self.tokenizer, self.max_length = loaded.tokenizer, loaded.max_length
        on_cpu, model = loaded.device == "cpu", loaded.model
        self.mapped_weight_bytes = mapped_weight_bytes([*model.parameters(), *model.buffers()]) if on_cpu else 0
        self._decoding: DecodeProbe | None = None

    @property
    def effective(self) -> Mapping[str, Any]:
        """Engine, device, number format, quantization and threads."""
        import torch

        found = self.description
        adapter = {"adapter_revision": found.adapter_revision, "adapter_merged": found.adapter_merged}
        return {
            "engine": "transformers",
            "device": found.device,
            "dtype": found.dtype,
            "quantization": found.quantization,
            "threads": torch.get_num_threads(),
            **(adapter if found.adapter else {}),
        }

    @property
    def device_name(self) -> str | None:
        """Name of the GPU that computes; None for the CPU."""
        from llmjobs.engines.transformers import device

        return device.device_name(self.description.device)

    @property
    def not_finite_reason(self) -> str:
        """The likely cause of NaN, derived from the weights."""
        from llmjobs.engines.transformers.decode_steps import why_not_finite

        return why_not_finite(self.loaded.model)

    def clock(self) -> DeviceClock | None:
        """Device events on CUDA; on Apple's GPU it waits for the device."""
        return clock(self.description.device)

    def scorer(self, warn: Warn = log.warning) -> Scorer:
        """Share prefixes, packed into one row of tokens, if the model can."""
        from llmjobs.engines.transformers.score import Scorer

        return Scorer(self.loaded.model, _pad_token_id(self.tokenizer), warn=warn)

    def generator(self, path: str | None = None, *, found: object = None, warn: Warn = log.warning) -> Generator:
        """Batched decoding; the way is determined once per model."""
        from llmjobs.engines.transformers.fast_path_trials import DecodeProbe, probe_decoding
        from llmjobs.engines.transformers.generate import Generator

        if self._decoding is None:
            self._decoding = DecodeProbe.from_builtin(found) or probe_decoding(self.loaded.model)
            if self._decoding.path != "shared":
                warn(f"{self.spec.name}: generating on the {self._decoding.path} path: {self._decoding.reason}")
        model, length, probe = self.loaded.model, self.max_length, self._decoding
        return Generator(model, self.tokenizer, warn=warn, max_length=length, probe=probe, path=path)

    def chat_model(self, *, keeps_keys: bool = True, warn: Warn = log.warning) -> ChatModel:
        """One row, with keys and values kept between turns."""
        from llmjobs.engines.transformers.chat_model import TransformersChatModel

        return TransformersChatModel(self.loaded, keeps_keys=keeps_keys, warn=warn)

    def measure_speed(self, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1) -> list[Speed]:
        """Time prefill and decode in the way that an eval decodes."""
        from llmjobs.engines.transformers.generate import measure_speed

        model, device = self.loaded.model, self.description.device
        return measure_speed(model, device, self.max_length, contexts, rows=rows, new_tokens=new_tokens, tries=tries)

    def next_token_logprobs(self, tokens: Sequence[int], positions: Sequence[int]) -> "NDArray[np.float32]":
        """Log-probabilities [positions, vocabulary] of the token after each position."""
        from llmjobs.engines.transformers.score import next_token_logprobs

        if len(tokens) > self.max_length:
            raise ModelError(
                f"{self.spec.name}: {len(tokens)} tokens, but the model's context length is {self.max_length} tokens"
            )
        found = next_token_logprobs(self.loaded.model, tokens, positions)
        if found is None:
            raise ModelError(f"{self.spec.name}: {self.not_finite_reason}")
        return found

    def close(self) -> None:
        """Free the weights."""
        self.loaded.close()


def _pad_token_id(tokenizer: Any) -> int:
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return found if isinstance(found, int) else 0


def open_model(spec: ModelSpec, *, threads: int | str = "auto") -> TransformersEngine:
    """Load the model of ``spec`` with its device, dtype and quantization.

    Raises:
        ModelError: not found, no access, no memory, or the loaded model differs from the request.

    """
    from llmjobs.engines.transformers.device import set_threads
    from llmjobs.engines.transformers.load import load_model

    set_threads(threads)
    return TransformersEngine(load_model(spec))


def repository(spec: ModelSpec) -> str:
    """Return the id itself."""
    return spec.id


def is_cached(spec: ModelSpec, revision: str) -> bool:
    """Whether the cache has the config, the tokenizer and all weights."""
    return is_whole(spec.id, revision)


def check_cached(spec: ModelSpec, folder: Path) -> None:
    """Refuse a snapshot that is not a causal model that transformers loads."""
    check_folder(spec, folder)


def weight_files(located: Located) -> list[Path]:
    """The safetensors files on this machine."""
    folder = files_of(located)
    return sorted(folder.glob("*.safetensors")) if folder and folder.is_dir() else []


def wanted_files(spec: ModelSpec, repo: RemoteRepo) -> list[RemoteFile]:
    """Config, tokenizer and weights; code and pickles only if they are allowed."""
    return model_files(repo, pickle_weights=spec.pickle_weights, code=spec.trust_remote_code)


def ensure_files(spec: ModelSpec, located: Located) -> None:
    """Fetch the missing files into the cache."""
    if located.adapter:
        ensure_adapter(spec, located.adapter)
    if located.revision and not located.is_local:
        ensure_model(spec.id, located.revision, pickle_weights=spec.pickle_weights, code=spec.trust_remote_code)


def check_files(spec: ModelSpec, located: Located) -> None:
    """Load the tokenizer, and compare the headers of the weight files with the model of the config.

    Raises:
        ModelError: loading the model would fail.

    """
    from llmjobs.engines.transformers.load import check_loads

    check_loads(spec, located)


def devices() -> list[str]:
    """Devices that torch can use here, best first."""
    from llmjobs.engines.transformers.device import available

    return available()


def clock(device: str) -> DeviceClock | None:
    """The clock of a device."""
    from llmjobs.engines.transformers.device import DeviceClock

    return DeviceClock(device)


def import_all(spec: ModelSpec) -> None:
    """Import what loading and running ``spec`` needs, so that it is not counted as loading."""
    import llmjobs.engines.transformers.generate
    import llmjobs.engines.transformers.load
    import llmjobs.engines.transformers.score  # noqa: F401

    if spec.quantization in METHODS:
        METHODS[spec.quantization].require()


def warm_up_s(device: str) -> float:
    """Seconds of the device's first small product (context, kernels)."""
    from llmjobs.engines.transformers.device import warm_up_seconds

    return warm_up_seconds(device)


def gpu_uuid() -> str | None:
    """UUID of the first GPU that this process may use, as NVML reports it; None if there is none."""
    from llmjobs.engines.transformers import device

    return device.gpu_uuid()


def load_tokenizer(spec: ModelSpec, located: Located) -> Any:
    """The tokenizer without the weights."""
    from llmjobs.engines.transformers.load import load_tokenizer

    return load_tokenizer(spec, located)


def context_length(spec: ModelSpec, located: Located) -> int:
    """Longest input in tokens, from ``config.json``; 2,048 if it does not say."""
    config = checked_config(spec.name, *load_from(spec, located), trust_remote_code=spec.trust_remote_code)
    return longest_input(config.get_text_config()) or DEFAULT_LENGTH


def forecast(
    spec: ModelSpec, located: Located, *, threads: int | str, unit: Mapping[str, int] | None, rows: int
) -> dict[str, Any]:
    """Sizes from the config, and speed from a few layers of the model's shape, measured in a child process."""
    source, revision = load_from(spec, located)
    task = {
        "name": spec.name,
        "source": source,
        "revision": revision,
        "trust_remote_code": spec.trust_remote_code,
        "device": spec.device,
        "dtype": spec.dtype,
        "quantization": spec.quantization,
        "threads": threads,
        "unit": unit,
        "rows": rows,
        "seconds": MEASURE_S,
    }
    ended = run_child(FORECAST, task, secrets=HUB_TOKENS)
    shapes = next((line["shapes"] for line in ended.lines if "shapes" in line), None)
    if shapes is None:
        raise LlmjobsError(f"{spec.name}: {ended.error or describe_end(ended)}")
    if located.adapter:
        _add_adapter(shapes, spec, located.adapter)
    return {"shapes": shapes, "speed": ended.result, "why": None if ended.result is not None else describe_end(ended)}


def _add_adapter(shapes: dict[str, Any], spec: ModelSpec, adapter: Located) -> None:
    """Count the weights of an adapter that is not merged."""
    if spec.merge_adapter:
        return
    more = adapter_bytes(spec, adapter)
    shapes["weight_bytes"] += more
    needs = shapes["memory_by_quantization"]
    shapes["memory_by_quantization"] = {name: size + more for name, size in needs.items()}


if TYPE_CHECKING:
    from llmjobs.engines.protocol import EngineModule
    from llmjobs.engines.transformers import engine

    _complete: EngineModule = engine
