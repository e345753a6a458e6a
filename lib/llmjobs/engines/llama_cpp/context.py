"""A context of llama.cpp: cells of keys and values, the sequences that they belong to, and logits where requested."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmjobs.engines.llama_cpp.library import LOG, library
from llmjobs.errors import ModelError

Logits = NDArray[np.float32]
Whom = Sequence[int]
"""The sequences that a token belongs to."""

CACHE_FORMATS = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2}
"""Number formats of keys and values, with ggml's numbers."""
MOST_SEQUENCES = 256
"""``LLAMA_MAX_SEQ``."""
AT_ONCE = 512
"""Tokens per pass through the layers (``n_ubatch``); larger ones were slower on CPUs."""
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 512, 2048
"""Tokens per batch when scoring; with more, each token also skips more cells of other sequences."""
CELLS_STEP = 256


@dataclass(frozen=True)
class ContextSettings:
    """The settings that are the same for all contexts of a model."""

    threads: int
    kv_cache: str = "f16"
    sequences: int = MOST_SEQUENCES
    flash_attention: bool | None = None
    """None: llama.cpp decides. Its CPU kernel rounds to 16 bits internally (we measured 7e-3 nats per token, also with
    keys and values in 32 bits). So it is off if 32 bits are requested, which gives 2e-5.
    """


class Context:
    """One context with ``cells`` cells for all sequences together; a copied beginning takes no cells.

    Raises:
        ModelError: there is no memory for it, or the model does not allow the settings.

    """

    def __init__(self, who: str, model: Any, settings: ContextSettings, cells: int) -> None:
        self._api = library()
        self.who = who
        self.cells = -(-max(cells, 1) // CELLS_STEP) * CELLS_STEP
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx = self.cells
        parameters.n_batch = self.cells
        parameters.n_ubatch = min(AT_ONCE, self.cells)
        parameters.n_seq_max = settings.sequences
        parameters.n_threads = parameters.n_threads_batch = settings.threads
        parameters.type_k = parameters.type_v = CACHE_FORMATS[settings.kv_cache]
        parameters.kv_unified = True
        parameters.swa_full = True  # a window that drops keys could not be branched
        parameters.no_perf = True
        if settings.flash_attention is not None:
            parameters.flash_attn_type = int(settings.flash_attention)
        LOG.clear()
        self._context = self._api.llama_init_from_model(model, parameters)
        if not self._context:
            reason = "; ".join(LOG.errors()[:2]) or "not enough memory"
            raise ModelError(
                f"{who}: llama.cpp could not allocate a context of {self.cells:,} tokens ({reason}); "
                "use a smaller file, or kv_cache: q8_0"
            )
        self._memory = self._api.llama_get_memory(self._context)
        self._vocabulary = self._api.llama_vocab_n_tokens(self._api.llama_model_get_vocab(model))

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[Whom], wanted: Sequence[bool]
    ) -> Logits:
        """Compute tokens after the content of their sequences; return the logits of the wanted ones, in order.

        A token that belongs to several sequences is computed once. Its parts must come in order of their positions. The
        logits are float32 [wanted, vocabulary], valid until the next call.

        Raises:
            ModelError: llama.cpp fails; the message contains its log.

        """
        count = len(tokens)
        ids = np.asarray(tokens, np.int32)
        places = np.asarray(positions, np.int32)
        members = np.fromiter((len(whom) for whom in sequences), np.int32, count)
        flat = np.fromiter((one for whom in sequences for one in whom), np.int32, int(members.sum()))
        starts = np.concatenate([[0], np.cumsum(members)[:-1]]).astype(np.uint64)
        pointers = (starts * np.uint64(flat.itemsize) + np.uint64(flat.ctypes.data)).astype(np.uint64)
        marks = np.asarray(wanted, np.int8)
        batch = self._api.llama_batch()
        batch.n_tokens = count
        for name, array in (("token", ids), ("pos", places), ("n_seq_id", members), ("logits", marks)):
            self._point(batch, name, array)
        self._point(batch, "seq_id", pointers)
        LOG.clear()
        code = self._api.llama_decode(self._context, batch)
        if code:
            reason = "; ".join(LOG.errors()[:2]) or ("no room in the context" if code == 1 else f"code {code}")
            raise ModelError(
                f"{self.who}: llama.cpp could not compute {count} tokens: {reason}; use a smaller file, or"
                " kv_cache: q8_0"
            )
        rows = int(marks.astype(bool).sum())
        if not rows:
            return np.empty((0, self._vocabulary), np.float32)
        found = self._api.llama_get_logits(self._context)
        return np.ctypeslib.as_array(found, shape=(rows, self._vocabulary))

    def copy(self, source: int, target: int) -> None:
        """Let the sequence ``target`` begin with the content of ``source``; nothing is computed or moved."""
        self._api.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def remove(self, sequence: int, start: int = 0) -> bool:
        """Remove a sequence's tokens from a position on; False if the model cannot be rewound to it."""
        return bool(self._api.llama_memory_seq_rm(self._memory, sequence, start, -1))

    def clear(self) -> None:
        """Remove everything."""
        self._api.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        if self._context:
            self._api.llama_free(self._context)
        self._context = None

    @staticmethod
    def _point(batch: Any, name: str, array: NDArray[Any]) -> None:
        kind = type(getattr(batch, name))
        setattr(batch, name, ctypes.cast(array.ctypes.data, kind))
