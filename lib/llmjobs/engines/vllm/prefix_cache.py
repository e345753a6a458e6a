"""vLLM's prefix cache, brought to a known content before each batch, so that no result depends on what ran before.

vLLM shares whole blocks of keys and values among all requests that begin alike, also with those of earlier calls. What
is found there moves the last digits of a result, because less is computed in one pass. A resumed run would begin with
an empty cache. So before each batch it holds exactly the blocks of one prefix, which was computed alone, or nothing.
"""

from collections.abc import Sequence
from os.path import commonprefix
from typing import Any

from llmjobs.engines.vllm.load import LoadedModel
from llmjobs.errors import ModelError

Tokens = tuple[int, ...]
PREFIX_ONLY = {"temperature": 0.0, "max_tokens": 1, "detokenize": False, "ignore_eos": True}


def shared_prefix(contexts: Sequence[Sequence[int]], block_tokens: int) -> Tokens:
    """What all contexts begin with, in whole blocks, so that each has a token left to read; () for fewer than two."""
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
        """Block number → hash, of the prefix."""

    def hold(self, prefix: Tokens) -> None:
        """Have the cache hold exactly the blocks of ``prefix``, computed alone.

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
            # one token more, because vLLM always computes the last one anew
            self._loaded.run([(*prefix, prefix[-1])], [PREFIX_ONLY])
            self._kept = {one.block_id: one.block_hash for one in self._cached_blocks()}

    def _drop_others(self) -> bool:
        """Take all blocks out but the prefix's; False where vLLM needed some of these for something else."""
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
        """VLLM's pool of blocks, inside the engine of this process; None where this version keeps it elsewhere."""
        found: Any = self._loaded.llm.llm_engine
        for name in ("engine_core", "engine_core", "scheduler", "kv_cache_manager", "block_pool"):
            found = getattr(found, name, None)
        return found
