"""Chat on vLLM: one request per turn, stepped token by token; earlier turns come from the prefix cache."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.benchmarks.scoring_requests import common_length
from llmjobs.engines.protocol import Sampling
from llmjobs.engines.vllm import NOT_FINITE
from llmjobs.engines.vllm.generate import sampling_parameters
from llmjobs.engines.vllm.library import library, one_line
from llmjobs.engines.vllm.load import SMALLER, LoadedModel
from llmjobs.engines.vllm.prefix_cache import PrefixCache, Tokens
from llmjobs.errors import ModelError


class VllmChatModel:
    """One conversation with a loaded model.

    Before each turn, the prefix cache contains only the previous turn's prompt, computed alone, so a resumed
    conversation gives the same results. vLLM draws the random numbers; each request gets a seed that is derived from
    the conversation's seed and the number of requests so far.
    """

    def __init__(self, loaded: LoadedModel, *, keeps_keys: bool = True) -> None:
        """Without ``keeps_keys``, each turn is computed from the beginning."""
        self.end_tokens = loaded.end_tokens
        self._loaded, self._keeps = loaded, keeps_keys
        self._cache = PrefixCache(loaded)
        self._held: Tokens = ()
        """The previous turn's prompt, cut to complete blocks."""
        self._seed, self._requests = 0, 0
        self._prompt: Tokens = ()
        self._said: list[int] = []
        self._most = 1
        self._request: str | None = None
        self._how: Sampling | None = None

    def read(self, ids: Sequence[int], max_new_tokens: int) -> int:
        """Set the prompt, which is read with the first token; return how many of its tokens are still cached."""
        self._abort()
        self._prompt, self._said, self._most = tuple(ids), [], max(max_new_tokens, 1)
        size = self._loaded.block_tokens
        shared = common_length(self._held, self._prompt[:-1]) // size * size if self._keeps else 0
        self._cache.hold(self._prompt[:shared])
        return shared

    def next_token(self, sampling: Sampling) -> int:
        """Choose the next token of the answer.

        Raises:
            ModelError: the model's output is not a number, or vLLM is out of memory.

        """
        if self._request is None or sampling != self._how:
            self._begin(sampling)
        with one_line(self._loaded.spec.name, "could not compute a token", SMALLER):
            output = self._step()
        token = output.token_ids[-1]
        if not math.isfinite(output.logprobs[-1][token].logprob):
            raise ModelError(f"{self._loaded.spec.name}: {NOT_FINITE}")
        self._said.append(int(token))
        return self._said[-1]

    def write(self, token: int) -> None:
        """Add a token to the answer that the model did not choose; a new request continues after it."""
        self._abort()
        self._said.append(token)

    def finish(self, *, keep: bool) -> None:
        """End the answer. With ``keep``, the prompt stays cached; the answer is read again with the next prompt."""
        self._abort()
        size = self._loaded.block_tokens
        if keep and self._keeps:
            self._held = self._prompt[: (len(self._prompt) - 1) // size * size]
        self._prompt, self._said = (), []

    def seed(self, seed: int) -> None:
        """Restart the random numbers from ``seed``; the cache is kept."""
        self._seed, self._requests = seed, 0

    def forget(self) -> None:
        """Clear the cache."""
        self._abort()
        self._held = ()

    def state(self) -> Mapping[str, Any]:
        """The seed, the number of requests so far, and the tokens whose keys and values the next turn may reuse."""
        return {"seed": self._seed, "requests": self._requests, "held": list(self._held)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; the next turn computes the cache again."""
        self._abort()
        self._seed, self._requests = int(state["seed"]), int(state["requests"])
        self._held = tuple(state["held"]) if self._keeps else ()

    def close(self) -> None:
        """Abort the request in progress."""
        self._abort()

    def _begin(self, sampling: Sampling) -> None:
        """Start a request that continues after the answer so far."""
        self._abort()
        loaded = self._loaded
        how: dict[str, Any] = {
            "max_tokens": self._most - len(self._said) if self._most > len(self._said) else 1,
            "ignore_eos": True,
            "detokenize": False,
            "logprobs": 0,
        }
        how |= sampling_parameters(loaded, sampling, self._seed, self._requests)
        self._requests += 1
        name = loaded.new_request()
        with one_line(loaded.spec.name, "refused a prompt", SMALLER):
            prompt = {"prompt_token_ids": [*self._prompt, *self._said]}
            loaded.llm.llm_engine.add_request(name, prompt, library().SamplingParams(**how))
        self._request, self._how = name, sampling

    def _step(self) -> Any:
        """Run vLLM until the request has one more token."""
        engine = self._loaded.llm.llm_engine
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    self._request = None
                if output.outputs and output.outputs[0].token_ids:
                    return output.outputs[0]
        raise ModelError(f"{self._loaded.spec.name}: vLLM ended a request without a token; {SMALLER}")

    def _abort(self) -> None:
        """Abort the request in progress, if there is one, and run vLLM until nothing of it is left."""
        if self._request is None:
            return
        engine, name = self._loaded.llm.llm_engine, self._request
        self._request = None
        engine.abort_request([name])
        while engine.has_unfinished_requests():
            engine.step()
