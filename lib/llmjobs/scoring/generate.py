"""Batched generation: stop strings, early exit of finished rows, a seed for each row."""

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmjobs.errors import ModelError
from llmjobs.scoring.forward import Model
from llmjobs.scoring.memory import free_memory, is_out_of_memory
from llmjobs.scoring.sampling import Sampling, next_tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Generation:
    """What one row gave. ``text`` ends before the stop string; ``token_ids`` are all that were generated.

    ``finish_reason``: ``eos``, ``stop`` (a stop string) or ``length``.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    prompt_tokens: int
    new_tokens: int


class Generator:
    """Generates on one model. ``row_limit`` is how many rows run at once; out of memory halves it, aloud."""

    def __init__(
        self,
        model: Model,
        tokenizer: Any,
        row_limit: int = 16,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.row_limit = row_limit
        self.warn = warn
        self.eos_token_ids = _eos_token_ids(model, tokenizer)
        model.eval()

    def generate_until(
        self,
        contexts: Sequence[Sequence[int]],
        *,
        stop: Sequence[str] = (),
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
    ) -> list[Generation]:
        """Return a generation for each context, in order.

        A context that leaves no room for ``max_new_tokens`` is cut from the left. ``seeds``: one a row (default: 0),
        used where ``temperature`` > 0. Raises ModelError for an empty context or where one row does not fit.
        """
        if not all(contexts):
            raise ModelError("generation needs at least one token of context in every row")
        sampling = Sampling(temperature, top_p)
        seeds = seeds if seeds is not None else [0] * len(contexts)
        room = _max_length(self.model) - max_new_tokens
        rows = [_Row(tuple(context)[-max(1, room) :], tuple(stop), seed) for context, seed in zip(contexts, seeds, strict=True)]
        waiting = sorted(rows, key=lambda row: -len(row.context))
        while waiting:
            size = min(self.row_limit, len(waiting))
            try:
                self._run(waiting[:size], sampling, max_new_tokens)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(size, error)
                for row in waiting[:size]:
                    row.restart()
                continue
            waiting = waiting[size:]
        return [row.generation(self.tokenizer) for row in rows]

    def close(self) -> None:
        """Forget the model."""
        self.model = None
        free_memory()

    def _halve(self, size: int, error: BaseException) -> None:
        if size == 1:
            raise ModelError(f"out of memory with one row: {error}") from error
        self.row_limit = size // 2
        self.warn(f"out of memory with {size} rows: going on with {self.row_limit}")
        free_memory()

    def _run(self, rows: Sequence["_Row"], sampling: Sampling, max_new_tokens: int) -> None:
        """Prefill padded on the left, then decode; rows that finish leave the batch."""
        rows = list(rows)
        tokens, mask = self._padded(rows)
        cache: Any = None
        for step in range(max_new_tokens):
            logits, cache = self._forward(tokens, mask, cache)
            chosen = next_tokens(logits, sampling, [row.generator for row in rows])
            for row, token in zip(rows, chosen, strict=True):
                row.append(token, self.tokenizer, self.eos_token_ids, last=step + 1 == max_new_tokens)
            going = [at for at, row in enumerate(rows) if not row.finish_reason]
            if not going:
                return
            if len(going) < len(rows):
                keep = torch.tensor(going, device=mask.device)
                rows, mask = [rows[at] for at in going], mask[keep]
                cache = _keep_rows(cache, keep)
            tokens = torch.tensor([[row.token_ids[-1]] for row in rows], device=mask.device)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)

    def _padded(self, rows: Sequence["_Row"]) -> tuple[Tensor, Tensor]:
        width = max(len(row.context) for row in rows)
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for at, row in enumerate(rows):
            tokens[at, width - len(row.context) :] = torch.tensor(row.context)
            mask[at, width - len(row.context) :] = 1
        return tokens.to(self.model.device), mask.to(self.model.device)

    def _forward(self, tokens: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Return the last position's logits [rows, vocabulary] and the cache."""
        accepted = inspect.signature(self.model.forward).parameters
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
        optional = {"position_ids": positions, "logits_to_keep": 1}
        name = "cache_params" if "cache_params" in accepted else "past_key_values"
        with torch.inference_mode():
            output = self.model(
                input_ids=tokens, attention_mask=mask, use_cache=True, **{name: cache},
                **{key: value for key, value in optional.items() if key in accepted},
            )  # fmt: skip
        return output.logits[:, -1], getattr(output, name)


class _Row:
    """One context and what was generated after it."""

    def __init__(self, context: tuple[int, ...], stop: tuple[str, ...], seed: int) -> None:
        self.context, self.stop, self.seed = context, stop, seed
        self.tail = 4 + 4 * max(map(len, stop), default=0)
        self.restart()

    def restart(self) -> None:
        """Forget what was generated."""
        self.generator = torch.Generator().manual_seed(self.seed)
        self.token_ids: list[int] = []
        self.finish_reason = ""

    def append(self, token: int, tokenizer: Any, eos_token_ids: frozenset[int], last: bool) -> None:
        """Add a token and see whether the row is finished."""
        self.token_ids.append(token)
        if token in eos_token_ids:
            self.finish_reason = "eos"
        elif self.stop and self._stops(tokenizer):
            self.finish_reason = "stop"
        elif last:
            self.finish_reason = "length"

    def _stops(self, tokenizer: Any) -> bool:
        """A stop string of n characters is looked for in the last 4 n + 4 tokens, which hold it whole."""
        tail = tokenizer.decode(self.token_ids[-self.tail :], skip_special_tokens=True)
        return any(one in tail for one in self.stop)

    def generation(self, tokenizer: Any) -> Generation:
        """Decode, and cut at the first stop string."""
        ids = self.token_ids[:-1] if self.finish_reason == "eos" else self.token_ids
        text = tokenizer.decode(ids, skip_special_tokens=True)
        ends = [text.find(one) for one in self.stop if one in text]
        return Generation(
            tuple(self.token_ids), text[: min(ends, default=len(text))], self.finish_reason,
            len(self.context), len(self.token_ids),
        )  # fmt: skip


def _keep_rows(cache: Any, keep: Tensor) -> Any:
    """Drop finished rows from the cache, whatever its kind: both of transformers' calls select by index."""
    (getattr(cache, "batch_select_indices", None) or cache.reorder_cache)(keep)
    return cache


def _eos_token_ids(model: Model, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end a text: the generation config's, and the tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(one for one in (*several, tokenizer.eos_token_id) if one is not None)


def _max_length(model: Model) -> int:
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048)
