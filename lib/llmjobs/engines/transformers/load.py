"""Load a model and its tokenizer, and check that the result is what was requested.

What is recorded about a model is read from its loaded layers, never from the request.
"""

import contextlib
import io
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from llmjobs.engines.chat_template import bound_template
from llmjobs.engines.locate import DEMO_PREFIX, Located, files_of
from llmjobs.engines.protocol import DEFAULT_LENGTH, Description
from llmjobs.engines.transformers.adapter import apply_adapter, require_peft
from llmjobs.engines.transformers.device import (
    dtype_remark,
    free_memory,
    is_out_of_memory,
    resolve_device,
    resolve_dtype,
)
from llmjobs.engines.transformers.first_layers import enough_layers, first_layers
from llmjobs.engines.transformers.fits_in_memory import check_fit
from llmjobs.engines.transformers.forward import FailedPassError, guard_passes
from llmjobs.engines.transformers.locate import load_from, locate
from llmjobs.engines.transformers.model_files import (
    check_layers,
    check_model_files,
    check_weights,
    checked_config,
    missing_package,
)
from llmjobs.engines.transformers.quantize import (
    count_parameters,
    find_quantization,
    finish_layers,
    quantization_config,
)
from llmjobs.engines.transformers.shapes import longest_input
from llmjobs.engines.transformers.tokenizer_trial import bound_tokenizer, try_tokenizer
from llmjobs.errors import LlmjobsError, ModelError, plain_reason
from llmjobs.hub.files import ensure_model
from llmjobs.library_warnings import quiet_repeats
from llmjobs.manifest.models import ModelSpec
from llmjobs.memory import blocks_given_back
from llmjobs.quantization.method import stored_bytes
from llmjobs.quantization.stored import DEQUANTIZED, StoredAs, stored_as
from llmjobs.terminal_text import plural


def describe(
    spec: ModelSpec,
    model: Any,
    tokenizer: Any,
    located: Located,
    context_length: int | None = None,
    stored: StoredAs | None = None,
) -> Description:
    """Read a model's effective properties; ``stored`` is what config.json says of a quantized checkpoint."""
    weights = [*model.parameters(), *model.buffers()]
    devices = {w.device.type for w in model.parameters()}
    floats: Counter[str] = Counter()
    for weight in model.parameters():
        if weight.is_floating_point():
            floats[str(weight.dtype).removeprefix("torch.")] += weight.numel()
    found = find_quantization(model, stored)
    return Description(
        id=spec.id,
        revision=located.revision,
        architecture=type(model).__name__,
        device=devices.pop() if len(devices) == 1 else "mixed",
        dtype=floats.most_common(1)[0][0] if floats else "none",
        quantization=found.name,
        quantized_share=found.share or None,
        parameters=count_parameters(model),
        weight_bytes=sum(map(stored_bytes, weights)),
        attention=str(getattr(model.config, "_attn_implementation", None) or "own"),
        has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
        engine="transformers",
        context_length=context_length,
        adapter=spec.adapter,
        adapter_revision=located.adapter.revision if located.adapter else None,
        adapter_merged=spec.merge_adapter if located.adapter else None,
    )


# Refuse a model if some weights did not come from its files, because transformers fills them with random numbers.

SHOWN = 3
BUFFERS = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|num_batches_tracked"
    r"|rotary_emb\.(cos|sin)_cached|attention\.masked_bias|causal_mask)$"
)
"""Older checkpoints contain these tables, which are computed, not trained."""
EXTRA_HEADS = re.compile(r"(^|\.)(mtp|mtp_layers|nextn|eh_proj|enorm|hnorm|shared_head)\.")
"""Heads that predict further tokens (DeepSeek, GLM, Qwen), which are only used for speculative decoding."""
OTHER_SENSES = re.compile(
    r"(^|\.)(vision\w*|visual\w*|image\w*|audio\w*|speech\w*|multi_modal_projector|multimodal\w*|mm_\w+|vit|vqmodel"
    r"|embed_vision|embed_audio|\w*vision_tower|\w*_projector|connector|aligner|resampler|talker|token2wav)\."
)
"""The parts of a model for images or sound, which its text part does not have."""


def check_all_loaded(who: str, model: Any, report: Mapping[str, Any]) -> None:
    """Compare the keys of the weight files with those of the model; tied weights and known buffers are exempt.

    ``report`` is what ``from_pretrained(…, output_loading_info=True)`` returns.

    Raises:
        ModelError: weights are missing, have another shape, or are not part of the model (names the first three).

    """
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = sorted(set(report.get("missing_keys") or ()) - tied)
    mismatched = sorted(_name(key) for key in report.get("mismatched_keys") or ())
    unexpected = sorted(key for key in report.get("unexpected_keys") or () if not _is_known_extra(str(key), model))
    remedy = "nothing was evaluated: check that config.json belongs to these weights, or fetch the model again"
    kind = type(model).__name__
    if missing:
        also = f" and contain others that it does not have ({_listed(unexpected)})" if unexpected else ""
        raise ModelError(
            f"{who}: the weight files lack {len(missing)} of the model's weights ({_listed(missing)}){also}; {kind} "
            f"would fill them with random numbers; {remedy}"
        )
    if mismatched:
        raise ModelError(
            f"{who}: {plural(len(mismatched), 'weight does', 'weights do')} not have the shape that config.json"
            f" gives ({_listed(mismatched)}); {remedy}"
        )
    if unexpected:
        raise ModelError(
            f"{who}: the weight files contain {plural(len(unexpected), 'weight')} that {kind} does not have "
            f"({_listed(unexpected)}), so the evaluated model would not be the one that was trained; {remedy}"
        )
    if errors := report.get("error_msgs"):
        raise ModelError(f"{who}: the weights could not be loaded: {str(errors[0])[:200]}; {remedy}")


LOOKED_AT = 8
"""Tokens of the two prompts that are compared."""
MOST_CHANGE = {torch.float32: 1e-3}
"""How far rounding moves a logit, as a share of the largest; a hundredth in 16 bits. Of the 170 kinds of causal model
in transformers, tiny and in float32, those that read forward stay below 1e-4, all others but ProphetNet reach 3e-2."""


def check_reads_forward(who: str, model: Any) -> None:
    """Refuse a model whose logits change with tokens that come later: its log-likelihoods would mean nothing.

    No class or type shows this: transformers has XLNet, XLM and X-MOD among the causal models and PaliGemma among the
    decoders with images, and all of them read a prompt in both directions. So does a Gemma if its config says so. Two
    prompts that differ in their last token are read in one batch. A router's tie may fall either way by rounding, so
    most of the earlier positions have to differ. If a pass is slow, only the model's first layers are checked; if they
    fail, the whole model is.

    Raises:
        ModelError: logits of earlier tokens changed with a later one.

    """
    count = enough_layers(model)
    if count is not None:
        with contextlib.suppress(ModelError), first_layers(model, count):
            _check_reads_forward(who, model)
            return
    _check_reads_forward(who, model)


def _check_reads_forward(who: str, model: Any) -> None:
    vocabulary = int(model.config.get_text_config().vocab_size)
    tokens = torch.arange(LOOKED_AT).remainder(max(vocabulary // 2, 1)) + vocabulary // 4
    other = tokens.clone()
    other[-1] = (other[-1] + 1) % vocabulary
    try:
        with torch.inference_mode():
            logits = model(input_ids=torch.stack([tokens, other]).to(model.device), use_cache=False).logits
            first, second = logits[:, :-1].float()
    except Exception as error:  # a foreign model's code may raise anything; scoring will report it if it matters
        if is_out_of_memory(error):
            raise
        narrow = {weight.dtype for weight in model.parameters()} & {torch.bfloat16, torch.float16}
        if narrow:
            name = str(narrow.pop()).removeprefix("torch.")
            raise ModelError(
                f"{who}: {type(model).__name__} cannot be computed in {name} ({_reason(error)}); "
                "set dtype: float32, and if that fails too, use another model"
            ) from error
        log.debug("%s: could not test whether it only looks back: %s", who, error)
        return
    change = (first - second).abs().amax(-1) / first.abs().max()
    if int((change > MOST_CHANGE.get(logits.dtype, 1e-2)).sum()) > len(change) // 2:
        raise ModelError(
            f"{who}: {type(model).__name__} reads its prompt in both directions; only decoder models have "
            "log-likelihoods, use another model"
        )


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, FailedPassError) else plain_reason(error)


def check_vocabulary(who: str, model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer with tokens that have no embedding, because an index error on a GPU ends the process.

    Tokens that were added later (a padding token, say) may have none, as in many fine-tuned models; no prompt contains
    them.

    Raises:
        ModelError: with both sizes and the remedy.

    """
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):  # a model that keeps them elsewhere
        return
    if weight.dim() != 2 or not hasattr(tokenizer, "get_vocab"):
        return
    rows, added = int(weight.shape[0]), set(getattr(tokenizer, "added_tokens_decoder", None) or ())
    beyond = [at for at in tokenizer.get_vocab().values() if at >= rows and at not in added]
    if beyond:
        raise ModelError(
            f"{who}: its tokenizer has {len(beyond):,} tokens beyond the {rows:,} that the model knows; copy the "
            "tokenizer files from the model that it was trained from"
        )


def _is_known_extra(key: str, model: Any) -> bool:
    if BUFFERS.search(key) or EXTRA_HEADS.search(key):
        return True
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    if (found := re.search(r"\.layers\.(\d+)\.", key)) and _next_token_layers(model) and isinstance(layers, int):
        return layers <= int(found[1]) < layers + _next_token_layers(model)
    return bool(OTHER_SENSES.search(key)) and _is_text_part(model)


def _next_token_layers(model: Any) -> int:
    """Number of layers after the last one that only predict further tokens (DeepSeek-V3: one)."""
    found = getattr(model.config.get_text_config(), "num_nextn_predict_layers", 0)
    return found if isinstance(found, int) else 0


def _is_text_part(model: Any) -> bool:
    """Whether the model is the text part of a checkpoint that also reads images or sound, so it lacks that part."""
    return not any(OTHER_SENSES.search(f"{name}.") for name, _ in model.named_modules())


def _name(key: Any) -> str:
    return str(key[0]) if isinstance(key, tuple | list) and key else str(key)


def _listed(keys: Iterable[str]) -> str:
    names = [str(key)[:80] for key in keys]
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


log = logging.getLogger(__name__)


@dataclass
class LoadedModel:
    """A model ready to score: weights on their device, tokenizer, and effective properties."""

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
        return _max_length(self.model, self.tokenizer)

    def close(self) -> None:
        """Free the weights."""
        self.model = None
        free_memory()


def _max_length(model: Any, tokenizer: Any) -> int:
    if length := longest_input(model.config.get_text_config()):
        return length
    length = getattr(tokenizer, "model_max_length", None)
    return length if isinstance(length, int) and length < 10**7 else DEFAULT_LENGTH


def load_tokenizer(spec: ModelSpec, located: Located | None = None) -> Any:
    """Load a tokenizer alone (no torch weights).

    Raises:
        ModelError: it cannot be loaded.

    """
    from transformers import AutoTokenizer

    where = located or locate(spec)
    _check_files(spec, where)
    folder = files_of(where)
    if folder and not spec.id.startswith(DEMO_PREFIX):
        try_tokenizer(spec.name, folder)
    source, revision = load_from(spec, where)
    if folder:
        with _one_line(spec, "model"):  # first, because a damaged config makes the tokenizer fail
            checked_config(spec.name, source, revision, trust_remote_code=spec.trust_remote_code)
    with _one_line(spec, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=spec.trust_remote_code)
    # the demo models' template is our own, so it needs no protection, and nobody has to wait for it
    if spec.id.startswith(DEMO_PREFIX):
        return tokenizer
    return bound_template(bound_tokenizer(tokenizer, spec.name), spec.name)


def load_model(spec: ModelSpec) -> LoadedModel:
    """Load the model of ``spec`` with its device, dtype and quantization.

    Raises:
        ModelError: not found, no access, no memory, or the loaded model differs from the request.

    """
    from transformers.utils import logging as transformers_logging

    quiet_repeats()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    located = locate(spec)
    if spec.adapter:
        require_peft(spec)
    device = resolve_device(spec.device, spec.quantization)
    dtype = resolve_dtype(spec.dtype, device)
    stored = read_stored(spec, located)
    if remark := dtype_remark(dtype, device):
        log.warning("%s: %s", spec.name, remark)
    check_fit(spec, located, device, dtype, stored)
    if located.revision and not located.is_local:
        code, pickles = spec.trust_remote_code, spec.pickle_weights
        ensure_model(spec.id, located.revision, pickle_weights=pickles, code=code)
    tokenizer = load_tokenizer(spec, located)
    model_class = _check_weights(spec, located, dtype)
    source, revision = load_from(spec, located)
    arguments: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": spec.trust_remote_code,
        "dtype": dtype,
        "use_safetensors": None if spec.pickle_weights else True,
        "low_cpu_mem_usage": True,
        "ignore_mismatched_sizes": True,  # otherwise transformers raises without a name; check_all_loaded refuses them
    }
    arguments |= _placement(spec, device, quantization_config(spec.quantization, dtype) if stored is None else None)
    is_quantized = spec.quantization != "none" or stored is not None
    memory = blocks_given_back() if is_quantized and device == "cpu" else contextlib.nullcontext()
    with _one_line(spec, "model"), memory:
        model, report = _loaded(model_class, source, arguments)
        check_all_loaded(spec.name, model, report)
        unpack(model, dtype)
        if located.adapter:
            model = apply_adapter(spec, model, located.adapter, device)
        if not getattr(model, "hf_device_map", None):
            model = model.to(device)
        model.eval()
        finish_layers(model)
        check_vocabulary(spec.name, model, tokenizer)
        guard_passes(spec.name, model, own_code=spec.trust_remote_code)
        check_reads_forward(spec.name, model)
    model.requires_grad_(False)
    description = describe(spec, model, tokenizer, located, _max_length(model, tokenizer), stored)
    _check(spec, device, dtype, description, stored)
    _say_unpacked(spec.name, description)
    return LoadedModel(spec, model, tokenizer, description)


def check_loads(spec: ModelSpec, located: Located) -> None:
    """Load everything but the weights: the tokenizer, and the model without memory (on torch's meta device).

    Of the weight files only the headers are read: 1.3 seconds for 3 billion weights. Quantized checkpoints and models
    with their own code are not compared, because their loaders change the weights' names.

    Raises:
        ModelError: :func:`load_model` would refuse the model.

    """
    _check_files(spec, located)
    tokenizer = load_tokenizer(spec, located)
    model_class = _check_weights(spec, located, torch.float32)
    folder = files_of(located)
    has_safetensors = folder is not None and any(folder.glob("*.safetensors"))
    if not has_safetensors or spec.trust_remote_code or read_stored(spec, located) is not None:
        return
    source, revision = load_from(spec, located)
    arguments = {"revision": revision, "device_map": "meta", "use_safetensors": True, "ignore_mismatched_sizes": True}
    with _one_line(spec, "model"):
        model, report = _loaded(model_class, source, arguments)
    check_all_loaded(spec.name, model, report)
    check_vocabulary(spec.name, model, tokenizer)


def _placement(spec: ModelSpec, device: str, config: Any) -> dict[str, Any]:
    """Return arguments of ``from_pretrained`` for where weights are loaded and how they are quantized."""
    arguments = {"quantization_config": config} if config else {}
    if spec.device_map == "auto":
        return arguments | {"device_map": "auto"}
    return arguments | ({"device_map": {"": device}} if config or device == "cuda" else {})


def _say_unpacked(who: str, found: Description) -> None:
    """Warn about a checkpoint whose weights need more memory here than on disk."""
    if found.quantization.endswith(DEQUANTIZED):
        log.warning(
            "%s: its stored weights (%s) do not run packed on %s; they were converted to %s and need as much memory as "
            "an unquantized model",
            who,
            found.quantization.removesuffix(DEQUANTIZED),
            found.device,
            found.dtype,
        )


def _loaded(model_class: Any, source: str, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Load without transformers' own table of keys, because :func:`check_all_loaded` reports problems in one line."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with _quiet_bars():
            found: tuple[Any, dict[str, Any]] = model_class.from_pretrained(
                source, output_loading_info=True, **arguments
            )
        return found
    finally:
        transformers_logging.set_verbosity(level)


def _check_files(spec: ModelSpec, located: Located) -> None:
    if folder := files_of(located):
        check_model_files(spec.name, folder)


def _check_weights(spec: ModelSpec, located: Located, dtype: torch.dtype) -> Any:
    """Compare the config with the contents of the weight files, before memory is allocated for either.

    Returns transformers' class that loads it.
    """
    from llmjobs.engines.transformers.shapes import model_class_of, on_meta

    folder, remote = files_of(located), spec.trust_remote_code
    with _one_line(spec, "model"):
        config = checked_config(spec.name, *load_from(spec, located), trust_remote_code=remote)
        if folder is None or getattr(config, "quantization_config", None) or remote:
            return model_class_of(config)
        check_layers(spec.name, folder, int(config.get_text_config().num_hidden_layers))
        parameters = sum(weight.numel() for weight in on_meta(config, dtype).parameters())
        check_weights(spec.name, folder, parameters)
        return model_class_of(config)


def read_stored(spec: ModelSpec, located: Located) -> StoredAs | None:
    """How the checkpoint's weights are stored, from its ``config.json``; None for plain numbers."""
    from transformers import PretrainedConfig

    try:
        source, revision = load_from(spec, located)
        plain, _ = PretrainedConfig.get_config_dict(source, revision=revision)
    except Exception as error:
        log.debug("%s: its config cannot be read before loading: %s", located.source, error)
        return None
    return stored_as(plain)


def unpack(model: Any, dtype: torch.dtype) -> None:
    """Let compressed-tensors turn its weights into plain numbers now, not in the first pass, and all into ``dtype``."""
    if getattr(model, "ct_decompress_hook", None) is None:
        return
    with _quiet_bars():
        model.hf_quantizer.compressor.decompress_model(model)
    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if getattr(layer, "quantization_scheme", None) is not None and isinstance(weight, torch.nn.Parameter):
            weight.data = weight.data.to(dtype)


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """Keep the progress bars and greetings of other libraries out of a log; on a terminal they are shown."""
    if sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def _check(spec: ModelSpec, device: str, dtype: torch.dtype, found: Description, stored: StoredAs | None) -> None:
    """Refuse a loaded model that differs from the manifest's request, so that nothing falls back silently."""
    asked = {"device": device, "quantization": spec.quantization}
    if stored is not None and spec.quantization == "none":
        asked["quantization"] = found.quantization if _is_as_stored(found, stored) else stored.label
    elif spec.quantization == "none":
        asked["dtype"] = str(dtype).removeprefix("torch.")
    for name, value in asked.items():
        if (is_now := getattr(found, name)) != value:
            raise ModelError(
                f"{spec.name}: {name} {value} was requested, but the weights were loaded as {is_now}, so the model was "
                f"not run. Set {name}: {is_now} if that is what you want"
            )


def _is_as_stored(found: Description, stored: StoredAs) -> bool:
    name = found.quantization
    return name == stored.same_as or name == stored.method or name.startswith((f"{stored.method}-", stored.label))


class _one_line:  # noqa: N801 - reads as a statement
    """Turn transformers' exceptions into one line with the model's name and a remedy."""

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
            f"{self.spec.name}: the {self.what} {self.spec.id} cannot be loaded by transformers: {plain_reason(error)}"
            "; check its files, or use another model (llmjobs -v shows more)"
        )
