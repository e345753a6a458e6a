"""Replies on vLLM, with its continuous batching; each row has its own settings, seed, stop strings and thinking limit.

vLLM generates the tokens; the same code as on the other engines decides, token by token, where a row ends.
"""

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from llmjobs.engines.protocol import Asked, Generation, ProbeResult, Sampling, Warn
from llmjobs.engines.reply_row import Row
from llmjobs.engines.speed import Run, Speed, measure_each
from llmjobs.engines.vllm.load import LoadedModel
from llmjobs.engines.vllm.prefix_cache import PrefixCache, Tokens, shared_prefix
from llmjobs.errors import ModelError

log = logging.getLogger(__name__)
PATHS = ("continuous", "single")
ROWS = 256
SEED_STEP = 1_000_003
"""Added to a row's seed for each request after its first, so that it does not draw the same numbers again."""
MOST_SEED = 1 << 63


class Generator:
    """Generates on one model.

    ``path``: ``continuous`` passes all rows of a call to vLLM, ``single`` one at a time. ``row_limit`` is how many rows
    are passed to vLLM at once; vLLM runs as many of them together as fit.
    """

    def __init__(self, loaded: LoadedModel, probe: ProbeResult, *, warn: Warn = log.warning) -> None:
        """``probe`` has the path and the reason for it."""
        self.end_tokens = loaded.end_tokens
        self.row_limit = ROWS if probe.path == "continuous" else 1
        self._loaded, self._probe, self.warn = loaded, probe, warn
        self._cache = PrefixCache(loaded)
        self._unit: Tokens | None = None

    @property
    def path(self) -> str:
        """How rows are decoded."""
        return self._probe.path

    def keep_prefix(self, asked: Sequence[Asked]) -> None:
        """Find the shared beginning of a unit's contexts; it stays in the prefix cache for all later calls."""
        rows = [Row(one, self._loaded.max_model_len - 1) for one in asked]
        self._unit = shared_prefix([row.context for row in rows], self._loaded.block_tokens)

    def generate(self, asked: Sequence[Asked]) -> list[Generation]:
        """Return a generation for each, in order.

        A context that leaves no room for its ``max_new_tokens`` is cut from the left, which ``cut_tokens`` records. A
        row with output that is not a number ends with ``error``.

        Raises:
            ModelError: a context is empty, or vLLM cannot compute a batch.

        """
        if not all(one.context for one in asked):
            raise ModelError(f"{self._loaded.spec.name}: a prompt is empty; generation needs at least one token")
        rows = [Row(one, self._loaded.max_model_len - 1) for one in asked]
        prefix = self._unit
        if prefix is None or not all(row.context[: len(prefix)] == prefix for row in rows):
            prefix = shared_prefix([row.context for row in rows], self._loaded.block_tokens)
        for first in range(0, len(rows), self.row_limit):
            self._cache.hold(prefix)
            self._run(rows[first : first + self.row_limit])
        return [row.generation(self._loaded.tokenizer) for row in rows]

    def to_record(self) -> dict[str, Any]:
        """How the model decodes and why."""
        changed = ["RepetitionPenalty"] if self._loaded.repetition_penalty != 1.0 else []
        return {**self._probe.to_builtin(), "logits_processors": changed}

    def close(self) -> None:
        """Nothing is kept outside vLLM."""
        self._unit = None

    def _run(self, rows: Sequence[Row]) -> None:
        """Generate until every row is finished; a row whose thinking was cut off continues with another request."""
        requests = 0
        while going := [row for row in rows if not row.finish_reason]:
            prompts = [(*row.context, *row.token_ids) for row in going]
            outputs = self._loaded.run(prompts, [self._how(row, requests) for row in going])
            for row, output in zip(going, outputs, strict=True):
                self._take(row, output.outputs[0])
            requests += 1

    def _how(self, row: Row, requests: int) -> dict[str, Any]:
        how: dict[str, Any] = {
            "max_tokens": self._most_tokens(row),
            "stop": list(row.stop),
            "stop_token_ids": sorted(self.end_tokens),
            "logprobs": 0,
            "skip_special_tokens": True,
            "detokenize": bool(row.stop),
        }
        return how | sampling_parameters(self._loaded, row.sampling, row.seed, requests)

    def _most_tokens(self, row: Row) -> int:
        """Maximum new tokens of the row's next request: up to the thinking limit, or all that are left."""
        left = row.max_new_tokens - len(row.token_ids)
        limit = row.thinking_limit
        if limit and not (row.thinking and row.thinking.is_over):
            left = min(left, max(limit.tokens - len(limit.cut) - len(row.token_ids), 1))
        return left

    def _take(self, row: Row, output: Any) -> None:
        """Add a request's tokens to the row, until the row ends or has a different token than the request."""
        for token, entries in zip(output.token_ids, output.logprobs, strict=True):
            if not math.isfinite(entries[token].logprob):
                row.fail(f"the model's output is not a number (NaN or infinite) after {len(row.token_ids)} new tokens")
                return
            row.append(token, self._loaded.tokenizer, self.end_tokens)
            if row.finish_reason:
                return
            if row.token_ids[-1] != token or (row.thinking and row.thinking.is_cutting):
                self._write_cut(row)
                return

    def _write_cut(self, row: Row) -> None:
        """Write the tokens that end the thinking, in place of the model's."""
        while not row.finish_reason and row.thinking and row.thinking.is_cutting:
            row.append(0, self._loaded.tokenizer, self.end_tokens)


def sampling_parameters(loaded: LoadedModel, sampling: Sampling, seed: int, requests: int) -> dict[str, Any]:
    """Return vLLM's sampling parameters; ``requests`` is how many requests had the same seed before this one."""
    how: dict[str, Any] = {"temperature": sampling.temperature}
    if sampling.temperature > 0:
        how |= {"top_p": sampling.top_p, "seed": (seed + requests * SEED_STEP) % MOST_SEED}
    if loaded.repetition_penalty != 1.0:
        how["repetition_penalty"] = loaded.repetition_penalty
    return how


def measure_speed(
    loaded: LoadedModel, max_length: int, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1
) -> list[Speed]:
    """Measure each context length; ``tries`` > 1 takes the median of that many.

    vLLM starts decoding some rows while it still reads others. So the prompts are run twice, once with one new token
    and once with all of them; the difference is the decoding time.
    """
    loaded.owner = None

    def runs(length: int) -> list[Run]:
        found = []
        for _ in range(tries):
            first = _seconds(loaded, length, rows, 1)
            whole = _seconds(loaded, length, rows, new_tokens) if new_tokens > 1 else first
            found.append((first, max(whole - first, 1e-9)))
        return found

    return measure_each(contexts, runs, rows=rows, new_tokens=new_tokens, max_length=max_length)


def _seconds(loaded: LoadedModel, length: int, rows: int, new_tokens: int) -> float:
    """Seconds that ``rows`` different made-up prompts take with an empty cache, greedy, without end tokens."""
    size = loaded.vocabulary
    prompts = [[(row * length + at * 7) % size for at in range(length)] for row in range(rows)]
    how = {"temperature": 0.0, "max_tokens": new_tokens, "min_tokens": new_tokens, "ignore_eos": True}
    loaded.llm.reset_prefix_cache()
    began = time.perf_counter()
    loaded.run(prompts, [how | {"detokenize": False}] * rows)
    return time.perf_counter() - began
