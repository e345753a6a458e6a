"""Replies on llama.cpp: several sequences in one batch after a shared prefix; the speed of prefill and decode."""

import logging
import time
from collections.abc import Sequence
from os.path import commonprefix
from typing import Any

import numpy as np
import torch

from llmjobs.engines.llama_cpp.context import Context, ContextSettings, Logits
from llmjobs.engines.llama_cpp.load import LoadedModel
from llmjobs.engines.protocol import Asked, Generation, ProbeResult, Warn
from llmjobs.engines.reply_row import Row
from llmjobs.engines.sampling import next_tokens
from llmjobs.engines.speed import Run, Speed, measure_each
from llmjobs.errors import ModelError

log = logging.getLogger(__name__)
PATHS = ("shared", "single")
ROWS = 16
MIN_SHARED_TOKENS = 32
PREFIX, FIRST = 0, 1
"""The sequence of the shared prefix, and that of the first row."""


class Generator:
    """Generates on one model.

    ``path``: ``shared`` decodes rows together after a shared prefix, ``single`` one whole row after the other.
    ``row_limit`` is how many rows run at once; a context that does not fit into memory halves it, with a warning.
    """

    def __init__(
        self,
        who: str,
        model: Any,
        settings: ContextSettings,
        tokenizer: Any,
        end_tokens: frozenset[int],
        max_length: int,
        probe: ProbeResult,
        *,
        warn: Warn = log.warning,
    ) -> None:
        """``max_length``: maximum tokens of a context and its reply; ``probe`` has the path and the reason for it."""
        self.who, self.end_tokens, self.warn = who, end_tokens, warn
        self.row_limit = ROWS if probe.path == "shared" else 1
        self.max_length = max_length
        self._model, self._settings, self._tokenizer = model, settings, tokenizer
        self._path, self._probe = probe.path, probe
        self._unit: tuple[int, ...] | None = None
        """The common beginning of all contexts of the unit; None if it was not set."""
        self._context: Context | None = None
        self._held: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        """How rows are decoded."""
        return self._path

    def keep_prefix(self, asked: Sequence[Asked]) -> None:
        """Compute the common beginning of a unit's contexts once, for all later calls."""
        self._unit = self._shared([Row(one, self.max_length) for one in asked])

    def generate(self, asked: Sequence[Asked]) -> list[Generation]:
        """Return a generation for each, in order.

        A context that leaves no room for its ``max_new_tokens`` is cut from the left, which ``cut_tokens`` records. A
        row with output that is not a number ends with ``error``.

        Raises:
            ModelError: a context is empty, or not even one row fits into memory.

        """
        if not all(one.context for one in asked):
            raise ModelError(f"{self.who}: a prompt is empty; generation needs at least one token")
        rows = [Row(one, self.max_length) for one in asked]
        waiting = sorted(rows, key=lambda row: -len(row.context))
        prefix = self._unit
        if prefix is None or not all(row.context[: len(prefix)] == prefix for row in rows):
            prefix = self._shared(rows)
        while waiting:
            batch = waiting[: self.row_limit if self._path == "shared" else 1]
            if self._has_room(batch, prefix):
                self._run(batch, prefix)
                waiting = waiting[len(batch) :]
        return [row.generation(self._tokenizer) for row in rows]

    def to_record(self) -> dict[str, Any]:
        """How the model decodes and why."""
        return {**self._probe.to_builtin(), "logits_processors": []}

    def close(self) -> None:
        if self._context:
            self._context.close()
        self._context, self._held = None, ()

    def _shared(self, rows: Sequence[Row]) -> tuple[int, ...]:
        """The longest common beginning of all contexts that leaves each at least one token to read."""
        if self._path != "shared" or len(rows) < 2:
            return ()
        found = tuple(commonprefix([row.context[:-1] for row in rows]))
        return found if len(found) >= MIN_SHARED_TOKENS else ()

    def _has_room(self, rows: Sequence[Row], prefix: Sequence[int]) -> bool:
        """Make a context for these rows; if there is no memory for it, halve the rows."""
        cells = len(prefix) + sum(row.length - len(prefix) for row in rows)
        if self._context and self._context.cells >= cells:
            return True
        self.close()
        try:
            self._context = Context(self.who, self._model, self._settings, cells)
        except ModelError:
            if len(rows) == 1:
                raise
            self.row_limit = len(rows) // 2
            self.warn(f"{self.who}: no memory for {len(rows)} rows at once; continuing with {self.row_limit}")
            return False
        return True

    def _run(self, rows: list[Row], prefix: tuple[int, ...]) -> None:
        """Prefill, then decode; rows that finish leave the batch."""
        context = self._context
        assert context is not None
        self._hold(prefix)
        sequences = [FIRST + at if self._path == "shared" else 0 for at in range(len(rows))]
        places = [len(row.context) for row in rows]
        logits = self._prefill(rows, sequences, prefix)
        going = list(range(len(rows)))
        while True:
            finite = [bool(np.isfinite(line).all()) for line in logits]
            chosen = next_tokens(
                torch.from_numpy(logits), [rows[at].sampling for at in going], [rows[at].generator for at in going]
            )
            for at, token, good in zip(going, chosen, finite, strict=True):
                row = rows[at]
                if good:
                    row.append(token, self._tokenizer, self.end_tokens)
                else:
                    row.fail(
                        f"the model's output is not a number (NaN or infinite) after {len(row.token_ids)} new tokens"
                    )
            going = [at for at in going if not rows[at].finish_reason]
            if not going:
                break
            logits = context.decode(
                [rows[at].token_ids[-1] for at in going],
                [places[at] + len(rows[at].token_ids) - 1 for at in going],
                [(sequences[at],) for at in going],
                [True] * len(going),
            )
        for sequence in sequences:
            context.remove(sequence)
        if self._path != "shared":
            self._held = ()

    def _hold(self, prefix: tuple[int, ...]) -> None:
        """Make the context hold the prefix in its first cells and nothing else."""
        context = self._context
        assert context is not None
        if prefix and self._held == prefix:
            return
        context.clear()
        if prefix:
            count = len(prefix)
            context.decode(prefix, range(count), [(PREFIX,)] * count, [False] * count)
        self._held = prefix

    def _prefill(self, rows: Sequence[Row], sequences: Sequence[int], prefix: Sequence[int]) -> Logits:
        """Read the rest of each context; return the logits after each."""
        context = self._context
        assert context is not None
        tokens: list[int] = []
        positions: list[int] = []
        members: list[tuple[int]] = []
        wanted: list[bool] = []
        for row, sequence in zip(rows, sequences, strict=True):
            if prefix:
                context.copy(PREFIX, sequence)
            own = row.context[len(prefix) :]
            tokens += own
            positions += range(len(prefix), len(row.context))
            members += [(sequence,)] * len(own)
            wanted += [*([False] * (len(own) - 1)), True]
        return context.decode(tokens, positions, members, wanted)


def measure_speed(
    loaded: LoadedModel, max_length: int, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1
) -> list[Speed]:
    """Measure each context length; ``tries`` > 1 takes the median of that many. A recurrent model runs one row."""
    rows = min(rows, loaded.settings.sequences)

    def runs(length: int) -> list[Run]:
        context = Context(loaded.spec.name, loaded.model, loaded.settings, rows * (length + new_tokens))
        try:
            return [_once(context, loaded.vocabulary, length, rows, new_tokens) for _ in range(tries)]
        finally:
            context.close()

    return measure_each(contexts, runs, rows=rows, new_tokens=new_tokens, max_length=max_length)


def _once(context: Context, vocabulary: int, length: int, rows: int, new_tokens: int) -> Run:
    """Time made-up tokens that differ by row."""
    context.clear()
    first = max(min(vocabulary // 8, 1000), 1)
    tokens = [first + at * 7 % max(vocabulary - first, 1) for at in range(rows * length)]
    positions = list(range(length)) * rows
    members = [(row,) for row in range(rows) for _ in range(length)]
    ends = [place == length - 1 for place in positions]
    began = time.perf_counter()
    chosen = context.decode(tokens, positions, members, ends).argmax(-1).tolist()
    read = time.perf_counter()
    each = [(row,) for row in range(rows)]
    for step in range(new_tokens - 1):
        chosen = context.decode(chosen, [length + step] * rows, each, [True] * rows).argmax(-1).tolist()
    return read - began, time.perf_counter() - read
