"""The vLLM engine, behind the engine protocol. Files are found as for transformers; vllm is imported lazily."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmjobs.clocks import DeviceClock
from llmjobs.engines.locate import Located
from llmjobs.engines.protocol import ChatModel, Generator, ProbeResult, Scorer, Warn
from llmjobs.engines.speed import Speed
from llmjobs.engines.transformers import engine as files
from llmjobs.engines.transformers.engine import (
    check_cached,
    check_files,
    check_repository,
    ensure_files,
    gpu_uuid,
    is_cached,
    load_tokenizer,
    local_path,
    locate,
    repository,
    wanted_files,
    weight_files,
)
from llmjobs.engines.vllm import NOT_FINITE
from llmjobs.engines.vllm.library import is_installed, library, platform
from llmjobs.manifest.models import ModelSpec

if TYPE_CHECKING:
    from llmjobs.engines.vllm.load import LoadedModel

__all__ = [
    "VllmEngine", "check_cached", "check_files", "check_repository", "clock", "context_length", "devices",
    "ensure_files", "forecast", "gpu_uuid", "import_all", "is_cached", "load_tokenizer", "local_path", "locate",
    "open_model", "repository", "wanted_files", "warm_up_s", "weight_files",
]  # fmt: skip

log = logging.getLogger(__name__)
NOT_MEASURED = "vLLM takes a long time to start and tunes itself, so its speed is only known once it runs"


class VllmEngine:
    """One model loaded by vLLM."""

    mapped_weight_bytes: int | None = 0
    """vLLM copies the weights out of their files."""

    def __init__(self, loaded: "LoadedModel") -> None:
        """``loaded`` must have been loaded just now."""
        self.loaded, self.spec, self.description = loaded, loaded.spec, loaded.description
        self.tokenizer, self.effective, self.device_name = loaded.tokenizer, loaded.effective, loaded.device_name
        self.max_length = loaded.max_model_len - 1  # vLLM keeps room for one new token
        self.not_finite_reason = NOT_FINITE

    def clock(self) -> DeviceClock | None:
        """None: a call returns when its results are ready."""
        return None

    def scorer(self, warn: Warn = log.warning) -> Scorer:
        """One request per question, with prefixes from vLLM's prefix cache if the probe finds that correct."""
        from llmjobs.engines.vllm.score import Scorer as VllmScorer

        return VllmScorer(self.loaded, warn=warn)

    def generator(self, path: str | None = None, *, found: object = None, warn: Warn = log.warning) -> Generator:
        """Continuous batching; a resumed unit stays on its ``path``."""
        from llmjobs.engines.vllm.generate import PATHS
        from llmjobs.engines.vllm.generate import Generator as VllmGenerator

        probe = ProbeResult(PATHS[0], None, "vLLM's own batches")
        if path and path in PATHS and path != probe.path:
            probe = ProbeResult(path, None, "this unit was started on it")
        return VllmGenerator(self.loaded, probe, warn=warn)

    def chat_model(self, *, keeps_keys: bool = True, warn: Warn = log.warning) -> ChatModel:
        """One request per turn, with earlier turns from vLLM's prefix cache."""
        from llmjobs.engines.vllm.chat_model import VllmChatModel

        return VllmChatModel(self.loaded, keeps_keys=keeps_keys)

    def measure_speed(self, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1) -> list[Speed]:
        """Time prefill and decode of several requests at once."""
        from llmjobs.engines.vllm.generate import measure_speed

        return measure_speed(self.loaded, self.max_length, contexts, rows=rows, new_tokens=new_tokens, tries=tries)

    def close(self) -> None:
        """Free the weights, the keys and values, and the worker processes."""
        self.loaded.close()


# The functions of the module (``protocol.EngineModule``).


def open_model(spec: ModelSpec, *, threads: int | str = "auto") -> VllmEngine:
    """Load ``spec`` with its device, dtype, number of GPUs and maximum length.

    Raises:
        MissingPackageError: vllm is not installed.
        ModelError: not found, no access, no memory, or vLLM cannot run it here.

    """
    library()  # before gigabytes are fetched
    from llmjobs.engines.vllm.load import load

    return VllmEngine(load(spec, threads))


def context_length(spec: ModelSpec, located: Located) -> int:
    """Longest input in tokens, from the manifest or ``config.json``, less one new token."""
    asked = spec.max_model_len
    return (files.context_length(spec, located) if asked == "auto" else asked) - 1


def devices() -> list[str]:
    """The one kind of device that the installed build computes on."""
    return [platform()] if is_installed() else ["cpu"]


def clock(device: str) -> DeviceClock | None:
    """None: a call returns when its results are ready."""
    return None


def import_all(spec: ModelSpec) -> None:
    """Import what loading and running needs, including vllm."""
    import llmjobs.engines.vllm.generate
    import llmjobs.engines.vllm.load
    import llmjobs.engines.vllm.score  # noqa: F401

    library()


def warm_up_s(device: str) -> float:
    """0, because vLLM initializes a device when it loads a model."""
    return 0.0


def forecast(
    spec: ModelSpec, located: Located, *, threads: int | str, unit: Mapping[str, int] | None, rows: int
) -> dict[str, Any]:
    """Sizes from the config, as for transformers. Speed is not measured, because that would mean starting vLLM."""
    found = files.forecast(spec, located, threads=threads, unit=None, rows=rows)
    return {"shapes": found["shapes"], "speed": None, "why": NOT_MEASURED if unit else None}


if TYPE_CHECKING:
    from llmjobs.engines.protocol import EngineModule
    from llmjobs.engines.vllm import engine

    _complete: EngineModule = engine
