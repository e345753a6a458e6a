"""Chat on transformers: token by token, with keys and values kept between turns."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from llmjobs.engines.chat_state import DrawnAnswer, KeptTokens
from llmjobs.engines.protocol import Sampling
from llmjobs.engines.transformers.decode_steps import Steps, finite_rows, prepare, start, why_not_finite
from llmjobs.engines.transformers.fast_path_trials import probe_one_row
from llmjobs.engines.transformers.first_layers import enough_layers, try_on
from llmjobs.engines.transformers.forward import accepted_arguments, cache_argument
from llmjobs.engines.transformers.generate import end_tokens, processor_names
from llmjobs.engines.transformers.load import LoadedModel
from llmjobs.engines.transformers.shapes import reset_frequencies, sharing_limit
from llmjobs.errors import ModelError, printable

log = logging.getLogger(__name__)


CHUNK = 1024
"""Maximum number of tokens per pass."""


class KeptKeys:
    """One model's cache over one conversation."""

    def __init__(self, model: Any, name: str, *, keeps: bool = True, warn: Callable[[str], None] = log.warning) -> None:
        """Without ``keeps``, every prompt is computed from the beginning."""
        self.model, self.name, self.warn = model, name, warn
        self.keeps = keeps
        self._cache: Any = None
        self._kept = KeptTokens()
        self._steps: Steps | None = None
        self._accepted = accepted_arguments(model)
        self._slot = cache_argument(model)
        self._limit = sharing_limit(model)
        if keeps and not _is_croppable(model):
            self._give_up("its layers cannot be restored")
        self._path = "single"
        self._check()

    @property
    def held(self) -> list[int]:
        """The tokens whose keys and values are kept."""
        return self._kept.tokens

    def prefill(self, ids: Sequence[int], new_tokens: int = 0) -> tuple[Tensor, int]:
        """Read a prompt; return the logits [1, vocabulary] after it and how many tokens were still cached.

        ``new_tokens``: how long the answer can become.
        """
        self._steps = None
        if not self.keeps or (self._limit is not None and len(ids) + new_tokens > self._limit):
            self.forget()
            self._steps = start(self._path, self.model, [ids])
            return self._steps.logits.float(), 0
        reset_frequencies(self.model)
        self._cut(self._kept.reusable(ids))
        reused = len(self._kept)
        try:
            for first in range(reused, len(ids), CHUNK):
                tokens = list(ids[first : first + CHUNK])
                logits = self._forward(tokens)
                self._kept.add(tokens)
        except BaseException:
            self._repair()
            raise
        return logits, reused

    def advance(self, token: int) -> Tensor:
        """Read one token of the answer; return the logits [1, vocabulary] after it."""
        if self._steps:
            self._steps.advance([token])
            return self._steps.logits.float()
        return self._forward([token])

    def end_answer(self, tokens: Sequence[int] = ()) -> None:
        """End an answer: remove its tokens from the cache; ``tokens`` are computed in their place, in one pass."""
        if self._steps:
            self._steps = None
            return
        self._repair()
        if tokens and self.keeps and self._cache is not None:
            self._forward(list(tokens))
            self._kept.add(tokens)

    def forget(self) -> None:
        """Clear the cache."""
        self._cache = self._steps = None
        self._kept.take()

    def state(self) -> Mapping[str, Any]:
        """Builtins from which :meth:`restore` computes the same cache."""
        return {"segments": self._kept.to_builtin(), "keeps": self.keeps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Recompute a saved cache, with the original grouping of tokens."""
        self.forget()
        self.keeps = self.keeps and bool(state["keeps"])
        for tokens, kept in state["segments"] if self.keeps else ():
            self._forward(list(tokens))
            self._kept.add(tokens)
            self._cut(len(self._kept) - len(tokens) + kept)

    def _forward(self, tokens: list[int]) -> Tensor:
        assert self._slot is not None
        if self._cache is None:
            self._cache = DynamicCache()
        arguments = {"logits_to_keep": 1} if "logits_to_keep" in self._accepted else {}
        with torch.inference_mode():
            output = self.model(
                input_ids=torch.tensor([tokens], device=self.model.device),
                use_cache=True,
                **{self._slot: self._cache},
                **arguments,
            )
        self._cache = getattr(output, self._slot)
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _cut(self, length: int) -> None:
        """Keep the first ``length`` tokens."""
        if length <= 0:
            self.forget()
            return
        self._kept.cut(length)
        self._repair()

    def _repair(self) -> None:
        """Restore the cache to what the segments say, also after a pass that was interrupted."""
        length = len(self._kept) if self.keeps else 0
        if self._cache is None or not length:
            self.forget()
            return
        for layer in self._cache.layers:
            # not with crop(), because after an interrupted pass keys and values differ in length
            if layer.is_initialized:
                layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]

    def _check(self) -> None:
        """Check on a few tokens that keeping keys is correct; if not, try the next way."""

        def kept(first: list[int], token: int, second: list[int]) -> list[Tensor]:
            found = [self.prefill(first)[0], self.advance(token)]
            self.end_answer()
            return [*found, self.prefill(second)[0]]

        def tried() -> str | None:
            self.forget()
            return probe_one_row(self.model, kept)

        layers = enough_layers(self.model) if self.keeps else None
        if self.keeps and (reason := try_on(self.model, layers, tried, lambda one: one is None)):
            self._give_up(reason)
        self.forget()
        if not self.keeps or self._limit is not None:
            try:
                start("single", self.model, [[1, 1]]).advance([1])
            except Exception as error:  # a model without generate code
                log.debug("%s: %s: %s", self.name, type(error).__name__, printable(str(error)))
                self._path = "whole"

    def _give_up(self, reason: str) -> None:
        self.keeps = False
        self.forget()
        self.warn(
            f"{self.name}: keys and values cannot be reused between turns ({reason}); each turn is computed"
            " from the beginning"
        )


def _is_croppable(model: Any) -> bool:
    """Whether plain growing layers suit this model: full attention, or a sliding window made by the mask."""
    try:
        layers = DynamicCache(config=model.config).layers
    except Exception:
        return False
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return plain and cache_argument(model) in ("cache", "past_key_values")


class TransformersChatModel:
    """One conversation with a loaded model. It has its own random numbers, so that they can be saved."""

    def __init__(
        self, loaded: LoadedModel, *, keeps_keys: bool = True, warn: Callable[[str], None] = log.warning
    ) -> None:
        """Without ``keeps_keys``, each turn is computed from the beginning."""
        self.name = loaded.spec.name
        self.end_tokens = end_tokens(loaded.model, loaded.tokenizer)
        self.keys = KeptKeys(loaded.model, self.name, keeps=keeps_keys, warn=warn)
        self._loaded = loaded
        self._processor_names = processor_names(loaded.model)
        self._answer = DrawnAnswer()
        self._ids: list[int] = []
        self._logits: Tensor | None = None
        self._change: Any = None

    def read(self, ids: Sequence[int], max_new_tokens: int) -> int:
        """Read a prompt; return how many of its tokens were still cached from earlier turns."""
        self._ids = list(ids)
        self._answer.take()
        self._change = self._processors(ids, max_new_tokens)
        self._logits, reused = self.keys.prefill(ids, max_new_tokens)
        return reused

    def next_token(self, sampling: Sampling) -> int:
        """Choose the next token of the answer.

        Raises:
            ModelError: the model's output is not a number.

        """
        logits = self._advanced()
        if not finite_rows(logits)[0]:
            raise ModelError(f"{self.name}: {why_not_finite(self._loaded.model)}")
        if self._change:
            logits = self._change(torch.tensor([[*self._ids, *self._answer.tokens]], device=logits.device), logits)
        return self._answer.draw(logits, sampling)

    def write(self, token: int) -> None:
        """Add a token to the answer that the model did not choose."""
        self._advanced()
        self._answer.add(token)

    def finish(self, *, keep: bool) -> None:
        """End the answer: remove its tokens from the cache; ``keep`` computes them again in one pass."""
        said, self._logits = self._answer.take(), None
        self.keys.end_answer(said if keep else ())

    def seed(self, seed: int) -> None:
        """Restart the random numbers from ``seed``; the cache is kept."""
        self._answer.seed(seed)

    def forget(self) -> None:
        """Clear the cache."""
        self.keys.forget()

    def state(self) -> Mapping[str, Any]:
        """The random state, and the tokens that the cache was computed from."""
        return {"random": self._answer.random_state(), "keys": dict(self.keys.state())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the random state and recompute the cache."""
        self._answer.set_random_state(state["random"])
        self.keys.restore(state["keys"])

    def _advanced(self) -> Tensor:
        """Logits after all tokens so far."""
        said = self._answer.tokens
        logits = self.keys.advance(said[-1]) if said else self._logits
        assert logits is not None
        return logits

    def _processors(self, ids: Sequence[int], new_tokens: int) -> Any:
        """Return what the checkpoint's generation config does to logits, as ``transformers.generate`` does; or None."""
        if not self._processor_names:
            return None
        tokens = torch.tensor([ids], device=self._loaded.model.device)
        return prepare(self._loaded.model, tokens, torch.ones_like(tokens), new_tokens)[2]
