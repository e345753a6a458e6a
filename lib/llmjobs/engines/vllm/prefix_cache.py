"""Bring vLLM's prefix cache to a known content before each batch, so that no result depends on what ran before.

vLLM shares complete blocks of keys and values among all requests with the same beginning, including those of earlier
calls. A cached block changes the last digits of a result, because less is computed in one pass, and a resumed run would
start with an empty cache. So before each batch, the cache contains exactly the blocks of one prefix, which was computed
alone, or nothing.
"""

from collections.abc import Sequence
from os.path import commonprefix
from typing import Any

from llmjobs.engines.vllm.load import LoadedModel
from llmjobs.errors import ModelError

Tokens = tuple[int, ...]
PREFIX_ONLY = {"temperature": 0.0, "max_tokens": 1, "detokenize": False, "ignore_eos": True}


def shared_prefix(contexts: Sequence[Sequence[int]], block_tokens: int) -> Tokens:
    """The shared beginning of all contexts in complete blocks, leaving each a token to read; () for fewer than two."""
    if len(contexts) < 2:
        return ()
    found = tuple(commonprefix([tuple(one)[:-1] for one in contexts]))
    return found[: len(found) // block_tokens * block_tokens]


class PrefixCache:
    """Holds the blocks of one prefix, or nothing."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Nothing is computed yet."""
        self._loaded = loaded
        self._prefix: Tokens = ()
        self._kept: dict[int, Any] = {}
        """Block number → hash, for the blocks of the prefix."""

    def hold(self, prefix: Tokens) -> None:
        """Make the cache contain exactly the blocks of ``prefix``, computed alone.

        Raises:
            ModelError: vLLM cannot compute it.

        """
        mine = self._loaded.owner is self and self._prefix == prefix
        if mine and prefix and self._drop_others():
            return
        if not self._loaded.llm.reset_prefix_cache():
            raise ModelError(
                f"{self._loaded.spec.name}: vLLM's prefix cache cannot be emptied; use engine: transformers"
            )
        self._loaded.owner, self._prefix, self._kept = self, prefix, {}
        if prefix:
            # one more token, because vLLM always computes the last one again
            self._loaded.run([(*prefix, prefix[-1])], [PREFIX_ONLY])
            self._kept = {one.block_id: one.block_hash for one in self._cached_blocks()}

    def _drop_others(self) -> bool:
        """Remove all blocks except the prefix's; False if vLLM has reused some of these for something else."""
        pool = self._pool()
        evict = getattr(pool, "evict_blocks", None)
        if evict is None or not self._kept:
            return False
        now = {one.block_id: one.block_hash for one in self._cached_blocks()}
        if any(now.get(number) != digest for number, digest in self._kept.items()):
            return False
        evict(set(now) - set(self._kept))
        return {one.block_id for one in self._cached_blocks()} == set(self._kept)

    def _cached_blocks(self) -> list[Any]:
        pool = self._pool()
        return [one for one in getattr(pool, "blocks", ()) if one.block_hash is not None]

    def _pool(self) -> Any:
        """Return vLLM's pool of blocks from the engine in this process; None if this version stores it elsewhere."""
        found: Any = self._loaded.llm.llm_engine
        for name in ("engine_core", "engine_core", "scheduler", "kv_cache_manager", "block_pool"):
            found = getattr(found, name, None)
        return found
