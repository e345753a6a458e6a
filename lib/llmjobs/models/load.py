"""Loads one model and its tokenizer, and checks that what is in memory is what was asked for."""

import gc
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmjobs.errors import LlmjobsError, ModelError, printable
from llmjobs.hub.files import ensure_model
from llmjobs.hub.repositories import cached_snapshot
from llmjobs.manifest.model_section import ModelSpec
from llmjobs.models.chat_template import bound_template
from llmjobs.models.describe import Description, describe
from llmjobs.models.device import free_memory, resolve_device, resolve_dtype
from llmjobs.models.fit import check_fit
from llmjobs.models.locate import DEMO_PREFIX, Located, locate
from llmjobs.models.model_files import check_model_files, check_weights, checked_config
from llmjobs.models.quantize import quantization_config

log = logging.getLogger(__name__)


@dataclass
class LoadedModel:
    """A model ready to score: weights on their device, tokenizer, and what they really are."""

    spec: ModelSpec
    model: Any
    tokenizer: Any
    description: Description

    @property
    def device(self) -> str:
        """Type of the device that holds the weights."""
        return self.description.device

    @property
    def max_length(self) -> int:
        """Longest input in tokens that the model was made for."""
        config = self.model.config.get_text_config()
        for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx"):
            length = getattr(config, name, None)
            if isinstance(length, int) and length > 0:
                return length
        length = getattr(self.tokenizer, "model_max_length", None)
        return length if isinstance(length, int) and length < 10**7 else 2048

    def close(self) -> None:
        """Free the weights."""
        device = self.device
        self.model = None
        gc.collect()
        free_memory(device)


def load_tokenizer(spec: ModelSpec, located: Located | None = None) -> Any:
    """Load a tokenizer alone (no torch weights).

    Raises:
        ModelError: it cannot be loaded; the line says why.

    """
    from transformers import AutoTokenizer

    where = located or locate(spec)
    _check_files(spec, where)
    with _one_line(spec, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(where.source, **_common(spec, where))
    # the demo models' template is this project's own: no need to guard against it, nor to wait for the guard
    return tokenizer if spec.id.startswith(DEMO_PREFIX) else bound_template(tokenizer, spec.name)


def load_model(spec: ModelSpec) -> LoadedModel:
    """Load ``spec`` as it says: device, dtype, quantization.

    Raises:
        ModelError: not found, no access, no memory, or not what was asked for once loaded.

    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    located = locate(spec)
    device = resolve_device(spec.device, spec.quantization)
    dtype = resolve_dtype(spec.dtype, device)
    check_fit(spec, located, device, dtype)
    if located.revision and not located.is_local:
        code, pickles = spec.trust_remote_code, spec.pickle_weights
        ensure_model(spec.id, located.revision, pickle_weights=pickles, code=code)
    tokenizer = load_tokenizer(spec, located)
    _check_weights(spec, located, dtype)
    arguments: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": None if spec.pickle_weights else True,
        "low_cpu_mem_usage": True,
        **_common(spec, located),
    }
    if config := quantization_config(spec.quantization, dtype):
        arguments["quantization_config"] = config
    if spec.device_map == "auto":
        arguments["device_map"] = "auto"
    elif config or device == "cuda":
        arguments["device_map"] = {"": device}
    with _one_line(spec, "model"):
        model: Any = AutoModelForCausalLM.from_pretrained(located.source, **arguments)
        if not getattr(model, "hf_device_map", None):
            model = model.to(device)
    model.eval()
    model.requires_grad_(False)
    description = describe(spec, model, tokenizer, located)
    _check(spec, device, dtype, description)
    return LoadedModel(spec, model, tokenizer, description)


def _common(spec: ModelSpec, located: Located) -> dict[str, Any]:
    revision = {} if located.is_local else {"revision": located.revision}
    return {"trust_remote_code": spec.trust_remote_code, **revision}


def files_of(located: Located) -> Path | None:
    """Return where a model's files are by now; None where nothing of them is on this machine."""
    return Path(located.source) if located.is_local else cached_snapshot("model", located.source, located.revision)


def _check_files(spec: ModelSpec, located: Located) -> None:
    if folder := files_of(located):
        check_model_files(spec.name, folder)


def _check_weights(spec: ModelSpec, located: Located, dtype: torch.dtype) -> None:
    """Compare what the config describes with what the weight files hold, before memory is taken for either."""
    from llmjobs.measuring.model_shapes import on_meta

    folder, remote = files_of(located), spec.trust_remote_code
    with _one_line(spec, "model"):
        revision = None if located.is_local else located.revision
        config = checked_config(spec.name, located.source, revision, trust_remote_code=remote)
        if folder is None or getattr(config, "quantization_config", None) or remote:
            return
        parameters = sum(weight.numel() for weight in on_meta(config, dtype).parameters())
        check_weights(spec.name, folder, parameters, int(config.get_text_config().num_hidden_layers))


def _check(spec: ModelSpec, device: str, dtype: torch.dtype, found: Description) -> None:
    """Refuse a model that is not what its manifest says: nothing falls back in silence."""
    asked = {"device": device, "quantization": spec.quantization}
    if spec.quantization == "none":
        asked["dtype"] = str(dtype).removeprefix("torch.")
    for name, value in asked.items():
        if (is_now := getattr(found, name)) != value:
            raise ModelError(f"{spec.name}: {name} should be {value}, but the loaded weights are {is_now}; not run")


class _one_line:  # noqa: N801 - reads as a statement
    """Turn what transformers raises into one line with the model's name and a remedy."""

    def __init__(self, spec: ModelSpec, what: str) -> None:
        self.spec, self.what = spec, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, LlmjobsError) or not isinstance(error, Exception):
            return
        from llmjobs.hub.explain import explain

        raise ModelError(explain(self.spec.name, self.spec.id, self.what, error) or self._general(error)) from error

    def _general(self, error: Exception) -> str:
        if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "out of memory" in str(error).lower():
            return f"{self.spec.name}: does not fit into memory; use quantization: 4bit or a smaller model"
        first = printable(str(error).strip().split("\n", 1)[0])[:300]
        return f"{self.spec.name}: the {self.what} {self.spec.id} cannot be loaded: {type(error).__name__}: {first}"
