"""Batched generation: stop strings, a shared prefix, early exit of finished rows, a seed for each row."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from llmjobs.errors import ModelError
from llmjobs.scoring.decoding import Prefix, keep_rows, pad_left, step
from llmjobs.scoring.forward import Model, most_tokens
from llmjobs.scoring.generation import Generation, Row
from llmjobs.scoring.memory import free_memory, is_out_of_memory
from llmjobs.scoring.sampling import Sampling, next_tokens

__all__ = ["Generation", "Generator"]

log = logging.getLogger(__name__)


class Generator:
    """Generates on one model.

    ``row_limit`` is how many rows run at once; out of memory halves it, aloud. Checkpoint it with the
    results: in half precision a batch's size can move a near-tie.
    """

    def __init__(
        self, model: Model, tokenizer: Any, row_limit: int = 16, warn: Callable[[str], None] = log.warning
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.row_limit = row_limit
        self.warn = warn
        self.end_tokens = _end_tokens(model, tokenizer)
        self._kept: Prefix | None = None
        model.eval()

    def keep_prefix(self, contexts: Sequence[Sequence[int]]) -> None:
        """Compute what all contexts of a unit begin with, once for all calls that follow.

        Which tokens are shared moves the last bit of a logit: give the same contexts again after a restart.
        """
        self._kept = Prefix(self.model, contexts) if contexts and all(contexts) else None

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

        A context that leaves no room for ``max_new_tokens`` is cut from the left, as lm-eval does.
        ``seeds``: one a row (default 0), used where ``temperature`` > 0. What all contexts begin with is
        computed once, or was by :meth:`keep_prefix`. Raises ModelError for an empty context or where not even
        one row fits into memory.
        """
        if not all(contexts):
            raise ModelError("generation needs at least one token of context in every row")
        room = max(1, most_tokens(self.model) - max_new_tokens)
        seeds = seeds if seeds is not None else [0] * len(contexts)
        rows = [Row(one[-room:], stop, seed) for one, seed in zip(contexts, seeds, strict=True)]
        waiting = sorted(rows, key=lambda row: -len(row.context))
        inputs = [row.context for row in rows]
        kept = self._kept if self._kept and self._kept.length and self._kept.begins(inputs) else None
        prefix = kept or Prefix(self.model, inputs)
        while waiting:
            batch = waiting[: self.row_limit]
            if self._fits(batch, prefix, Sampling(temperature, top_p), max_new_tokens):
                waiting = waiting[len(batch) :]
        return [row.generation(self.tokenizer) for row in rows]

    def close(self) -> None:
        """Forget the model and the kept prefix."""
        self.model = self._kept = None
        free_memory()

    def _fits(self, batch: list[Row], prefix: Prefix, sampling: Sampling, max_new_tokens: int) -> bool:
        """Run a batch; out of memory, halve the limit and leave the batch as it was."""
        try:
            self._run(batch, prefix, sampling, max_new_tokens)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise ModelError(f"out of memory with one row: {error}") from error
            self.row_limit = len(batch) // 2
        else:
            return True
        self.warn(f"out of memory with {len(batch)} rows at once: going on with {self.row_limit}")
        for row in batch:
            row.restart()
        free_memory()
        return False

    def _run(self, rows: list[Row], prefix: Prefix, sampling: Sampling, max_new_tokens: int) -> None:
        """Prefill padded on the left, then decode; rows that finish leave the batch."""
        tokens, mask = pad_left([row.context for row in rows], prefix.length, self.model.device)
        cache = prefix.expand(len(rows))
        for count in range(1, max_new_tokens + 1):
            logits, cache = step(self.model, tokens, mask, cache)
            chosen = next_tokens(logits, sampling, [row.generator for row in rows])
            for row, token in zip(rows, chosen, strict=True):
                row.append(token, self.tokenizer, self.end_tokens, last=count == max_new_tokens)
            going = [at for at, row in enumerate(rows) if not row.finish_reason]
            if not going:
                return
            if len(going) < len(rows):
                kept = torch.tensor(going, device=mask.device)
                rows, mask = [rows[at] for at in going], mask[kept]
                keep_rows(cache, kept)
            tokens = torch.tensor([[row.token_ids[-1]] for row in rows], device=mask.device)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)


def _end_tokens(model: Model, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end a text: the generation config's, and the tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(one for one in (*several, tokenizer.eos_token_id) if one is not None)
