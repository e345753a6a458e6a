"""Batched generation with stop strings, a shared prefix, and settings and a seed for each row; its speed."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from llmjobs.engines.protocol import Asked, Generation, Sampling
from llmjobs.engines.reply_row import Row
from llmjobs.engines.sampling import next_tokens
from llmjobs.engines.speed import Run, Speed, measure_each
from llmjobs.engines.transformers.decode_steps import (
    PATHS,
    Prefix,
    finite_rows,
    prepare,
    start,
    takes_alike,
    why_not_finite,
)
from llmjobs.engines.transformers.device import SMALLER, free_memory, is_out_of_memory
from llmjobs.engines.transformers.fast_path_trials import DecodeProbe, probe_decoding
from llmjobs.engines.transformers.forward import Model
from llmjobs.engines.transformers.shapes import most_tokens, sharing_limit
from llmjobs.errors import ModelError

# Each row has its own settings and seed; the model determines how rows can be batched.

__all__ = ["Asked", "Generation", "Generator", "Sampling"]

log = logging.getLogger(__name__)


class Generator:
    """Generates on one model.

    ``row_limit`` is how many rows run at once; an out-of-memory error halves it, with a warning. Store it with the
    results, because in half precision the batch size can decide a near-tie. ``probe`` is the result of
    :func:`probe_decoding` if it is already known, which saves a few forwards. ``path`` is the decoding path of a
    resumed unit. ``max_length``: maximum tokens of a context and its reply.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Any,
        row_limit: int = 16,
        warn: Callable[[str], None] = log.warning,
        *,
        max_length: int | None = None,
        probe: DecodeProbe | None = None,
        path: str | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.row_limit = row_limit
        self.warn = warn
        self.max_length = max_length or most_tokens(model)
        self.end_tokens = end_tokens(model, tokenizer)
        model.eval()
        self.found = probe or probe_decoding(model)
        if probe is None and self.found.path != "shared":
            warn(f"generating on the {self.found.path} path: {self.found.reason}")
        takes_path = path in PATHS and path != self.found.path
        self.probe = DecodeProbe(str(path), None, "this unit was started on it") if takes_path else self.found
        self.processors = processor_names(model)
        self._limit = sharing_limit(model)
        self._kept: Prefix | None = None

    def keep_prefix(self, asked: Sequence[Asked]) -> None:
        """Compute the common beginning of a unit's contexts once, for all later calls.

        The shared tokens affect the last bit of a logit, so pass the same contexts again after a restart.
        """
        rows = [Row(one, self.max_length) for one in asked]
        contexts = [row.context for row in rows if self._path(row) == "shared"]
        self._kept = Prefix(self.model, contexts) if contexts and all(contexts) else None

    def generate(self, asked: Sequence[Asked]) -> list[Generation]:
        """Return a generation for each, in order.

        A context that leaves no room for its ``max_new_tokens`` is cut from the left, as in lm-eval, which
        ``cut_tokens`` records. The common beginning of all contexts is computed once, or was by :meth:`keep_prefix`. A
        row with output that is not a number ends with ``error``.

        Raises:
            ModelError: a context is empty, or not even one row fits into memory.

        """
        if not all(one.context for one in asked):
            raise ModelError("a prompt is empty; generation needs at least one token")
        rows = [Row(one, self.max_length) for one in asked]
        for path in PATHS:
            self._generate(path, [row for row in rows if self._path(row) == path])
        return [row.generation(self.tokenizer) for row in rows]

    @property
    def path(self) -> str:
        """How rows are decoded (``decoding.PATHS``)."""
        return self.probe.path

    def to_record(self) -> dict[str, Any]:
        """The result of the decoding trial, whatever path a resumed unit uses."""
        return {**self.found.to_builtin(), "logits_processors": list(self.processors)}

    def close(self) -> None:
        """Release the model and the kept prefix."""
        self.model = self._kept = None
        free_memory()

    def _path(self, row: Row) -> str:
        """Return the path of one row; beyond the length at which positions change, nothing is shared."""
        path = self.probe.path
        beyond = self._limit is not None and row.length > self._limit
        return "single" if beyond and path != "whole" else path

    def _generate(self, path: str, rows: list[Row]) -> None:
        if not rows:
            return
        waiting = sorted(rows, key=lambda row: -len(row.context))
        prefix = None
        if path == "shared":
            contexts = [row.context for row in rows]
            kept = self._kept if self._kept and self._kept.length and self._kept.begins(contexts) else None
            prefix = kept or Prefix(self.model, contexts)
        while waiting:
            limit = 1 if path in ("single", "whole") else self.row_limit
            batch = waiting[:limit]
            if takes_alike(path):
                batch = [row for row in batch if len(row.context) == len(batch[0].context)]
            if self._fits(path, batch, prefix):
                waiting = waiting[len(batch) :]

    def _fits(self, path: str, batch: list[Row], prefix: Prefix | None) -> bool:
        """Run a batch; if memory runs out, halve the limit and restore the batch."""
        try:
            self._run(path, batch, prefix)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise ModelError(f"out of memory with one row: {error}; {SMALLER}") from error
            self.row_limit = len(batch) // 2
        else:
            return True
        self.warn(f"out of memory with {len(batch)} rows at once: continuing with {self.row_limit}")
        for row in batch:
            row.restart()
        free_memory()
        return False

    def _run(self, path: str, rows: list[Row], prefix: Prefix | None) -> None:
        """Prefill, then decode; rows that finish leave the batch."""
        processors = [self._processors(row) for row in rows]
        steps = start(path, self.model, [row.context for row in rows], prefix)
        while True:
            finite = finite_rows(steps.logits)
            logits = self._processed(steps.logits, rows, processors)
            chosen = next_tokens(logits, [row.sampling for row in rows], [row.generator for row in rows])
            for row, token, good in zip(rows, chosen, finite, strict=True):
                if good:
                    row.append(token, self.tokenizer, self.end_tokens)
                else:
                    row.fail(f"{why_not_finite(self.model)}, after {len(row.token_ids)} new tokens")
            going = [at for at, row in enumerate(rows) if not row.finish_reason]
            if not going:
                return
            if len(going) < len(rows):
                rows, processors = [rows[at] for at in going], [processors[at] for at in going]
                steps.keep(going)
            steps.advance([row.token_ids[-1] for row in rows])

    def _processors(self, row: Row) -> Any:
        """Return the logits processors of the checkpoint's generation config for a row, as in ``generate``."""
        if not self.processors:
            return None
        tokens = torch.tensor([row.context], device=self.model.device)
        return prepare(self.model, tokens, torch.ones_like(tokens), row.max_new_tokens)[2]

    def _processed(self, logits: Tensor, rows: list[Row], processors: list[Any]) -> Tensor:
        if not self.processors:
            return logits
        done = []
        for at, (row, change) in enumerate(zip(rows, processors, strict=True)):
            ids = torch.tensor([[*row.context, *row.token_ids]], device=logits.device)
            done.append(change(ids, logits[at : at + 1].float()))
        return torch.cat(done)


def end_tokens(model: Model, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end a text: the generation config's, and the tokenizer's."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(one for one in (*several, tokenizer.eos_token_id) if isinstance(one, int))


def processor_names(model: Model) -> tuple[str, ...]:
    """Name the logits processors of the checkpoint's generation config (such as a repetition penalty); () if none.

    ``transformers.generate`` applies it to greedy decoding too, and so do we.
    """
    if not hasattr(model, "generate"):
        return ()
    try:
        tokens = torch.ones(1, 1, dtype=torch.long, device=model.device)
        found = prepare(model, tokens, tokens, 1)[2]
    except Exception:  # a model without generate code decodes on the whole path
        return ()
    return tuple(type(one).__name__.removesuffix("LogitsProcessor") for one in found)


def measure_speed(
    model: Any, device: str, max_length: int, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1
) -> list[Speed]:
    """Measure each context length after a warm-up; ``tries`` > 1 takes the median of that many.

    Decodes as ``eval`` does: on the model's path, one row at a time if it cannot batch.
    """
    path = probe_decoding(model).path
    rows = 1 if path in ("single", "whole") else rows

    def runs(length: int) -> list[Run]:
        return [_once(model, device, path, length, rows, new_tokens) for _ in range(tries)]

    return measure_each(contexts, runs, rows=rows, new_tokens=new_tokens, max_length=max_length)


def prompt(vocabulary: int, rows: int, length: int) -> Tensor:
    """Made-up tokens [rows, length] that differ from row to row; which ones does not matter for time."""
    first = max(min(vocabulary // 8, 1000), 1)
    return first + (torch.arange(rows * length).reshape(rows, length) * 7) % max(vocabulary - first, 1)


def _once(model: Any, device: str, path: str, length: int, rows: int, new_tokens: int) -> Run:
    """Time made-up tokens that differ by row."""
    tokens = prompt(model.config.get_text_config().vocab_size, rows, length)
    synchronize(device)
    began = time.perf_counter()
    steps = start(path, model, tokens.tolist())
    chosen = steps.logits.argmax(-1).tolist()
    first = time.perf_counter()
    for _ in range(new_tokens - 1):
        steps.advance(chosen)
        chosen = steps.logits.argmax(-1).tolist()
    return first - began, time.perf_counter() - first


def synchronize(device: str) -> None:
    """Wait until the device has finished all its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
