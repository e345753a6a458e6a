"""vLLM's offline interface over a model that is arithmetic, which keeps what it was asked."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from llmjobs.engines.protocol import Description
from llmjobs.engines.vllm.load import LoadedModel
from llmjobs.manifest.models import ModelSpec

VOCABULARY, LENGTH, BLOCK, END = 40, 128, 16, 1
FIELDS = ("logprob_token_ids", "skip_reading_prefix_cache", "prompt_logprobs")


def logprobs(tokens: Sequence[int]) -> list[float]:
    """Log-probabilities of the next token."""
    rng = random.Random(repr(list(tokens)))
    logits = [rng.random() * 4 for _ in range(VOCABULARY)]
    total = math.log(sum(map(math.exp, logits)))
    return [one - total for one in logits]


def entry(values: Sequence[float], token: int) -> SimpleNamespace:
    return SimpleNamespace(logprob=values[token], rank=1 + sum(one > values[token] for one in values))


class FakeLLM:
    """Answers requests; ``asked`` keeps them. The first ``cached`` tokens are said to come from the cache."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], SimpleNamespace]] = []
        self.calls: list[int] = []
        self.resets = self.cached = 0
        self.broken: set[int] = set()
        """Lengths of inputs after which nothing is a number."""
        config = SimpleNamespace(cache_config=SimpleNamespace(block_size=BLOCK))
        self.llm_engine = SimpleNamespace(vllm_config=config)

    def reset_prefix_cache(self) -> bool:
        self.resets += 1
        return True

    def generate(self, prompts: Sequence[Mapping[str, Any]], params: Sequence[Any], use_tqdm: bool) -> list[Any]:
        self.calls.append(len(prompts))
        return [self._answer(tuple(one["prompt_token_ids"]), how) for one, how in zip(prompts, params, strict=True)]

    def _answer(self, prompt: tuple[int, ...], how: SimpleNamespace) -> SimpleNamespace:
        self.asked.append((prompt, how))
        assert 0 < len(prompt) < LENGTH, "vLLM refuses it"
        skips = getattr(how, "skip_reading_prefix_cache", None)
        skips = hasattr(how, "prompt_logprobs") if skips is None else skips
        cached = 0 if skips else min(self.cached, (len(prompt) - 1) // BLOCK * BLOCK)
        before: list[Any] = [None]
        for place in range(1, len(prompt)):  # what was not computed is not told
            values = logprobs(prompt[:place])
            before.append(
                {prompt[place]: entry(values, prompt[place])}
                if place > cached
                else {prompt[place]: entry([9.0] * 40, 0)}
            )
        tokens, said = list(self._tokens(prompt, how)), []
        for at, token in enumerate(tokens):
            values = logprobs((*prompt, *tokens[:at]))
            if len(prompt) + at in self.broken:
                values = [math.nan] * VOCABULARY
            wanted = getattr(how, "logprob_token_ids", None) or (
                range(VOCABULARY) if getattr(how, "logprobs", None) == -1 else ()
            )
            said.append({one: entry(values, one) for one in (*wanted, token)})
        return SimpleNamespace(
            outputs=[SimpleNamespace(token_ids=tokens, logprobs=said)], prompt_logprobs=before, num_cached_tokens=cached
        )

    def _tokens(self, prompt: tuple[int, ...], how: SimpleNamespace) -> Iterator[int]:
        tokens = list(prompt)
        for at in range(how.max_tokens):
            values = logprobs(tokens)
            if how.temperature > 0:
                draw = random.Random(f"{how.seed} {at}")
                token = draw.choices(range(VOCABULARY), [math.exp(one) for one in values])[0]
            else:
                token = values.index(max(values))
            tokens.append(token)
            yield token
            if token in getattr(how, "stop_token_ids", ()):
                return


class Letters:
    """A tokenizer of one character a token."""

    def decode(self, ids: Any, **options: Any) -> str:
        return "".join(chr(ord("a") + one) if one < 26 else chr(ord("A") + one - 26) for one in ids)


class FakeLoaded(LoadedModel):
    """A loaded model whose version has ``known`` sampling parameters."""

    known: frozenset[str] = frozenset(FIELDS)

    @property
    def fields(self) -> frozenset[str]:
        return self.known


def fake_loaded() -> FakeLoaded:
    spec = ModelSpec.model_validate({"id": "o/n", "name": "m", "engine": "vllm"})
    found = Description("o/n", None, "Toy", "cpu", "float32", "none", 1, 4, "toy", False, engine="vllm")
    return FakeLoaded(spec, FakeLLM(), Letters(), found, {}, LENGTH, VOCABULARY, frozenset({END}), 1.0)
