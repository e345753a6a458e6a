"""Loads one model and its tokenizer, and checks that what is in memory is what was asked for."""

import gc
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmjobs.errors import LlmjobsError, ModelError, printable
from llmjobs.hub.files import ensure_model
from llmjobs.hub.repositories import cached_snapshot
from llmjobs.library_warnings import quiet_repeats
from llmjobs.manifest.model_section import ModelSpec
from llmjobs.models.chat_template import bound_template
from llmjobs.models.checkpoint import METHODS, missing_package
from llmjobs.models.describe import Description, describe
from llmjobs.models.device import dtype_remark, free_memory, resolve_device, resolve_dtype
from llmjobs.models.fit import check_fit
from llmjobs.models.loading_report import check_all_loaded, check_reads_forward
from llmjobs.models.locate import DEMO_PREFIX, Located, locate
from llmjobs.models.model_files import check_layers, check_model_files, check_weights, checked_config
from llmjobs.models.quantize import quantization_config
from llmjobs.models.tokenizer_trial import bound_tokenizer, try_tokenizer

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
    folder = files_of(where)
    if folder and not spec.id.startswith(DEMO_PREFIX):
        try_tokenizer(spec.name, folder)
    with _one_line(spec, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(where.source, **_common(spec, where))
    # the demo models' template is this project's own: no need to guard against it, nor to wait for the guard
    if spec.id.startswith(DEMO_PREFIX):
        return tokenizer
    return bound_template(bound_tokenizer(tokenizer, spec.name), spec.name)


def load_model(spec: ModelSpec) -> LoadedModel:
    """Load ``spec`` as it says: device, dtype, quantization.

    Raises:
        ModelError: not found, no access, no memory, or not what was asked for once loaded.

    """
    from transformers.utils import logging as transformers_logging

    quiet_repeats()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    located = locate(spec)
    device = resolve_device(spec.device, spec.quantization)
    dtype = resolve_dtype(spec.dtype, device)
    if remark := dtype_remark(dtype, device):
        log.warning("%s: %s", spec.name, remark)
    check_fit(spec, located, device, dtype)
    if located.revision and not located.is_local:
        code, pickles = spec.trust_remote_code, spec.pickle_weights
        ensure_model(spec.id, located.revision, pickle_weights=pickles, code=code)
    tokenizer = load_tokenizer(spec, located)
    model_class = _check_weights(spec, located, dtype)
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
        model, report = _loaded(model_class, located, arguments)
        check_all_loaded(spec.name, model, report)
        if model_class.__name__ != "AutoModelForCausalLM":
            check_reads_forward(spec.name, model)
        if not getattr(model, "hf_device_map", None):
            model = model.to(device)
    model.eval()
    model.requires_grad_(False)
    description = describe(spec, model, tokenizer, located)
    _check(spec, device, dtype, description)
    return LoadedModel(spec, model, tokenizer, description)


def _loaded(model_class: Any, located: Located, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Load, without transformers' own table of keys: :func:`check_all_loaded` says in one line what is wrong."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        found: tuple[Any, dict[str, Any]] = model_class.from_pretrained(
            located.source, output_loading_info=True, **arguments
        )
        return found
    finally:
        transformers_logging.set_verbosity(level)


def _common(spec: ModelSpec, located: Located) -> dict[str, Any]:
    revision = {} if located.is_local else {"revision": located.revision}
    return {"trust_remote_code": spec.trust_remote_code, **revision}


def files_of(located: Located) -> Path | None:
    """Return where a model's files are by now; None where nothing of them is on this machine."""
    return Path(located.source) if located.is_local else cached_snapshot("model", located.source, located.revision)


def _check_files(spec: ModelSpec, located: Located) -> None:
    if folder := files_of(located):
        check_model_files(spec.name, folder)


def _check_weights(spec: ModelSpec, located: Located, dtype: torch.dtype) -> Any:
    """Compare what the config describes with what the weight files hold, before memory is taken for either.

    Returns the class of transformers that loads it.
    """
    from llmjobs.measuring.model_shapes import model_class_of, on_meta

    folder, remote = files_of(located), spec.trust_remote_code
    with _one_line(spec, "model"):
        revision = None if located.is_local else located.revision
        config = checked_config(spec.name, located.source, revision, trust_remote_code=remote)
        if folder is None or getattr(config, "quantization_config", None) or remote:
            return model_class_of(config)
        check_layers(spec.name, folder, int(config.get_text_config().num_hidden_layers))
        parameters = sum(weight.numel() for weight in on_meta(config, dtype).parameters())
        check_weights(spec.name, folder, parameters)
        return model_class_of(config)


def _check(spec: ModelSpec, device: str, dtype: torch.dtype, found: Description) -> None:
    """Refuse a model that is not what its manifest says: nothing falls back in silence."""
    asked = {"device": device, "quantization": spec.quantization}
    if spec.quantization == "none" and found.quantization in METHODS:
        asked["quantization"] = found.quantization  # as its maker stored it
    elif spec.quantization == "none":
        asked["dtype"] = str(dtype).removeprefix("torch.")
    for name, value in asked.items():
        if (is_now := getattr(found, name)) != value:
            raise ModelError(
                f"{spec.name}: asked for {name} {value}, but the loaded weights are {is_now}; not running it. "
                f"Write {name}: {is_now} if that is what you want"
            )


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

        if isinstance(error, ImportError):
            raise ModelError(missing_package(self.spec.name, error)) from error
        raise ModelError(explain(self.spec.name, self.spec.id, self.what, error) or self._general(error)) from error

    def _general(self, error: Exception) -> str:
        if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "out of memory" in str(error).lower():
            return f"{self.spec.name}: does not fit into memory; use quantization: 4bit or a smaller model"
        return (
            f"{self.spec.name}: the {self.what} {self.spec.id} cannot be loaded by transformers: {_reason(error)}; "
            "check its files, or take another model (llmjobs -v shows more)"
        )


def _reason(error: Exception) -> str:
    """What a library says, on one line and without the names of its classes."""
    text = " ".join(str(error).split()) or "no reason given"
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = re.sub(r"\b(?:\w+\.)*\w+(?:Error|Exception)\b:?\s*", "", text)
    return printable(text)[:300].rstrip(" .:;")
