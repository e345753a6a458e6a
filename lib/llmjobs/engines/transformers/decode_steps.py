"""Prefill and decode steps on transformers' own caches, and logits that are not numbers."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from llmjobs.benchmarks.scoring_requests import common_length
from llmjobs.engines.transformers.forward import Model, accepted_arguments, cache_argument, padded_logits
from llmjobs.engines.transformers.shapes import most_tokens, reset_frequencies

# Prefill a batch of contexts, then decode one token per row and step, in one of five ways.

PATHS = ("shared", "padded", "grouped", "single", "whole")
MIN_SHARED_TOKENS = 32
LAYERS_WITHOUT_DISTANCE = {"full_attention", "moe", "sparse", "dense"}
"""Kinds of layers that do not depend on what is between two tokens, as long as it is masked."""
PADDABLE_LAYERS = LAYERS_WITHOUT_DISTANCE | {
    "sliding_attention", "linear_attention", "conv", "hybrid", "hybrid_sliding", "mamba", "attention", "recurrent",
}  # fmt: skip
"""Kinds for which padding before a row has no effect beyond what the probe's short rows show."""
WINDOWS = ("sliding_window", "window_size", "attention_window_size", "sliding_window_size", "local_attention")
CHUNKS = ("attention_chunk_size",)


class Steps(Protocol):
    """A batch that is being decoded."""

    logits: Tensor
    """Logits of the next token of each row [rows, vocabulary]."""

    def advance(self, tokens: Sequence[int]) -> None:
        """Read one token for each row."""

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with these rows only."""


def start(path: str, model: Model, contexts: Sequence[Sequence[int]], prefix: "Prefix | None" = None) -> Steps:
    """Prefill ``contexts``; ``prefix`` is only used on the shared path."""
    reset_frequencies(model)
    if path == "shared":
        return SharedSteps(model, contexts, prefix)
    return WholeSteps(model, contexts) if path == "whole" else PreparedSteps(model, contexts)


def takes_alike(path: str) -> bool:
    """Whether a path only takes rows of equal length."""
    return path not in ("shared", "padded")


def refuses(path: str, model: Model) -> str | None:
    """Return why a model must not use a path, if the probe's short inputs cannot show it; otherwise None."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if path in ("shared", "padded"):
        if unknown := kinds - PADDABLE_LAYERS:
            return f"layers of kind {', '.join(sorted(unknown))} are not padded"
        if any(getattr(config, name, None) for name in CHUNKS):
            return "attention in chunks is not padded"
    if path == "shared" and cache_argument(model) is None:
        return f"{type(model).__name__} has no cache that can be copied"
    return None


class Prefix:
    """Tokens at the beginning of every row, with their cache, which is computed once and copied for each batch."""

    def __init__(self, model: Model, contexts: Sequence[Sequence[int]]) -> None:
        self.length = shared_length(model, contexts)
        self.tokens = list(contexts[0][: self.length]) if self.length else []
        self.cache: Any = None
        if self.length:
            reset_frequencies(model)
            tokens = torch.tensor([self.tokens], device=model.device)
            _, self.cache = step(model, tokens, torch.ones_like(tokens), None)

    def begins(self, contexts: Sequence[Sequence[int]]) -> bool:
        """Whether all of these begin with the prefix and have more tokens after it."""
        return all(len(one) > self.length and list(one[: self.length]) == self.tokens for one in contexts)

    def expand(self, rows: int) -> Any:
        """Return a cache for ``rows`` rows, or None if nothing is shared."""
        if self.cache is None:
            return None
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return cache


def shared_length(model: Model, contexts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens to share; every row keeps at least one.

    Padding is then between the prefix and a row's own tokens. A window would count it as distance, and a recurrent
    state would read it, so models with such layers share nothing.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    distance = kinds - LAYERS_WITHOUT_DISTANCE or any(getattr(config, name, None) for name in (*WINDOWS, *CHUNKS))
    if len(contexts) < 2 or distance or cache_argument(model) is None:
        return 0
    length = min(len(one) - 1 for one in contexts)
    for context in contexts[1:]:
        length = min(length, common_length(contexts[0], context))
    return length if length >= MIN_SHARED_TOKENS else 0


def drops_rows(cache: Any) -> bool:
    """Whether every layer of a cache can drop rows; recurrent states cannot, even beside keys and values."""
    layers = getattr(cache, "layers", ())
    return bool(layers) and all(
        hasattr(layer, "batch_select_indices") and not hasattr(layer, "recurrent_states") for layer in layers
    )


class SharedSteps:
    """Our own steps on transformers' cache, after a prefix; finished rows leave the cache if it can drop rows."""

    def __init__(self, model: Model, contexts: Sequence[Sequence[int]], prefix: Prefix | None = None) -> None:
        self._model = model
        self._rows = list(range(len(contexts)))
        first = prefix.length if prefix else 0
        tokens, self._mask = pad_left(contexts, first, model.device)
        self.logits, self._cache = step(model, tokens, self._mask, prefix.expand(len(contexts)) if prefix else None)
        self._drops = drops_rows(self._cache)

    def advance(self, tokens: Sequence[int]) -> None:
        """Read one token for each remaining row."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        new = torch.zeros(len(self._mask), 1, dtype=torch.long)
        new[self._rows] = torch.tensor(tokens)[:, None]
        logits, self._cache = step(self._model, new.to(self._mask.device), self._mask, self._cache)
        self.logits = logits[self._rows] if len(self._rows) < len(logits) else logits

    def keep(self, rows: Sequence[int]) -> None:
        """Drop the other rows, or only their logits if a layer's cache cannot drop rows."""
        self._rows = [self._rows[at] for at in rows]
        if self._drops:
            kept = torch.tensor(self._rows, device=self._mask.device)
            self._mask = self._mask[kept]
            self._cache.batch_select_indices(kept)
            self._rows = list(range(len(rows)))


class PreparedSteps:
    """Steps whose inputs and caches the model's ``generate`` code prepares; finished rows are still computed."""

    def __init__(self, model: Model, contexts: Sequence[Sequence[int]]) -> None:
        self._model = model
        tokens, mask = pad_left(contexts, 0, model.device)
        self._rows = list(range(len(contexts)))
        self._ids, self._arguments, _ = prepare(model, tokens, mask, max(1, most_tokens(model) - tokens.shape[1]))
        self._run(is_first_iteration=True)

    def advance(self, tokens: Sequence[int]) -> None:
        """Read one token for each remaining row."""
        new = self._ids[:, -1:].clone()
        new[self._rows] = torch.tensor(tokens, device=new.device)[:, None]
        self._ids = torch.cat([self._ids, new], 1)
        self._run(next_sequence_length=1 if self._arguments.get("use_cache") else None)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only the logits of these rows, because state-space caches cannot drop rows."""
        self._rows = [self._rows[at] for at in rows]

    def _run(self, **how: Any) -> None:
        with torch.inference_mode():
            inputs = self._model.prepare_inputs_for_generation(self._ids, **how, **self._arguments)
            output = self._model(**inputs, return_dict=True)
            self._arguments = self._model._update_model_kwargs_for_generation(
                output, self._arguments, is_encoder_decoder=self._model.config.is_encoder_decoder
            )
        self.logits = output.logits[:, -1][self._rows]


class WholeSteps:
    """Compute the whole input of each row again for every token, which is correct for every scorable model."""

    def __init__(self, model: Model, contexts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._inputs = [list(one) for one in contexts]
        self._run()

    def advance(self, tokens: Sequence[int]) -> None:
        """Read one token for each row."""
        for row, token in zip(self._inputs, tokens, strict=True):
            row.append(token)
        reset_frequencies(self._model)
        self._run()

    def keep(self, rows: Sequence[int]) -> None:
        """Drop the other rows."""
        self._inputs = [self._inputs[at] for at in rows]

    def _run(self) -> None:
        width = max(map(len, self._inputs))
        cells = [at * width + len(row) - 1 for at, row in enumerate(self._inputs)]
        self.logits = padded_logits(self._model, self._inputs, cells, 0)


def pad_left(contexts: Sequence[Sequence[int]], first: int, device: Any) -> tuple[Tensor, Tensor]:
    """Return tokens from position ``first`` on [rows, longest] and the mask [rows, first + longest]."""
    width = max(map(len, contexts)) - first
    tokens = torch.zeros(len(contexts), width, dtype=torch.long)
    mask = torch.ones(len(contexts), first + width, dtype=torch.long)
    for at, context in enumerate(contexts):
        own = torch.tensor(context[first:], dtype=torch.long)
        tokens[at, width - len(own) :] = own
        mask[at, first : first + width - len(own)] = 0
    return tokens.to(device), mask.to(device)


def step(model: Model, tokens: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Run ``tokens`` [rows, new] after ``cache``; return the last logits [rows, vocabulary] and the cache.

    ``mask`` [rows, cached + new] is 0 on padding; positions count only unmasked tokens.
    """
    accepted, name = accepted_arguments(model), cache_argument(model)
    if name is None:
        raise RuntimeError(f"{type(model).__name__} has no cache")
    positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
    optional = {"position_ids": positions, "logits_to_keep": 1}
    given = {key: value for key, value in optional.items() if key in accepted} | {name: cache}
    with torch.inference_mode():
        output = model(input_ids=tokens, attention_mask=mask, use_cache=True, **given)
    return output.logits[:, -1], getattr(output, name)


def prepare(model: Model, tokens: Tensor, mask: Tensor, new_tokens: int) -> tuple[Tensor, dict[str, Any], Any]:
    """Let ``generate`` prepare a batch: return its ids, the arguments of its first forward, and its logits processors.

    ``custom_generate`` is transformers' documented hook for a custom loop; ours stores its arguments and stops.
    """

    def take(
        model: Model,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        synced_gpus: bool = False,
        streamer: Any = None,
        **arguments: Any,
    ) -> tuple[Tensor, dict[str, Any], Any]:
        return input_ids, arguments, logits_processor

    with _quiet(), torch.inference_mode():
        return model.generate(  # type: ignore[no-any-return]
            input_ids=tokens,
            attention_mask=mask,
            custom_generate=take,
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=0,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' remarks on settings of a checkpoint's generation config that have no effect here."""
    logger = logging.getLogger("transformers.generation")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def finite_rows(logits: Tensor) -> list[bool]:
    """Return for each row of ``logits`` [rows, vocabulary] whether its largest value is a number.

    A row with NaN, an infinite maximum, or only minus infinities fails; single tokens at minus infinity are fine.
    """
    found: list[bool] = torch.isfinite(logits.amax(-1)).tolist()
    return found


def why_not_finite(model: Any) -> str:
    """Return a message for output that is not a number, with the likely cause and what to do."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            return (
                "the model's output is not a number (NaN or infinite): "
                f"the weight {name} contains such values; its files are damaged, fetch them again"
            )
    if model.dtype == torch.float16:
        return "the model's output is not a number (NaN or infinite): float16 overflows; use dtype: bfloat16 or float32"
    return (
        f"the model's output is not a number (NaN or infinite) in {str(model.dtype).removeprefix('torch.')}: "
        "the weights are damaged or quantized too coarsely; use dtype: float32 without quantization, or fetch it again"
    )
