"""Log-likelihoods of a unit's plan on vLLM: one request per input, with log-probabilities of the scored tokens only.

A request reads the input and generates one token. vLLM gives the log-probabilities, at this position, of the last
tokens of all options with this input, so four letters take one request. The earlier tokens of a longer option are read
from the prompt's log-probabilities, with their rank.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmjobs.benchmarks.scoring_requests import ModelInput, Request, Score
from llmjobs.engines.batches import Batch, Option, UnitPlan
from llmjobs.engines.pass_time import Budget, PassTime
from llmjobs.engines.protocol import Extent, ProbeResult, Warn
from llmjobs.engines.scoring_paths import PATHS, TOGETHER, PathScorer, choose_path
from llmjobs.engines.vllm.load import LoadedModel
from llmjobs.engines.vllm.prefix_cache import PREFIX_ONLY, PrefixCache, Tokens, shared_prefix
from llmjobs.errors import ModelError

log = logging.getLogger(__name__)
MOST_TOKEN_IDS = 128
"""Maximum number of tokens whose log-probabilities vLLM gives for one request."""
PROBED_LENGTH = 512
BATCH_TOKENS = 1 << 10, 1 << 16
"""Minimum and maximum tokens of a scoring batch."""
BATCH_S = 20.0
"""A batch should not take longer, because a run is saved after each."""
PREFIX_TIMES = 16
"""A batch should have this many times the tokens of the prefix."""
TIMED, LONG_S = ((1, 32), (1, 32), (4, 256)), 0.5
"""Rows and tokens of the timed passes; after a pass of ``LONG_S`` seconds or more, no larger one is tried."""


@dataclass(frozen=True)
class _Wanted:
    """One request: the tokens to read, the options that end after them, and where scoring of the prompt begins."""

    tokens: Tokens
    options: tuple[Option, ...]
    targets: tuple[int, ...]
    """The last token of each option."""
    scored_from: int | None
    """First position whose prediction is read, for an option of several tokens."""


class Scorer(PathScorer):
    """Scores batches of a plan on one model.

    ``shared`` reads prefixes from vLLM's prefix cache. ``cached`` does so only for options of one token; it reads
    longer ones from the beginning, because prompt log-probabilities were wrong with the cache in some versions.
    ``plain`` runs one request after the other without the cache.
    """

    ALONE = (TOGETHER,)

    def __init__(self, loaded: LoadedModel, *, warn: Warn = log.warning) -> None:
        """``loaded`` contains vLLM's engine and its settings."""
        super().__init__("shared", warn)
        self._loaded = loaded
        self._cache = PrefixCache(loaded)
        self._plan: UnitPlan | None = None
        self._prefix: Tokens = ()

    def probe(self, docs: Sequence[Sequence[Request]] = (), *, most_tokens: int | None = None) -> ProbeResult:
        """Compare the paths on a few docs (made up if none are given), choose one, and warn if a faster one fails."""
        found = self._loaded.description
        coarse = (found.dtype, found.quantization) != ("float32", "none")
        length = min(PROBED_LENGTH, self._loaded.max_model_len - 1)
        chosen = choose_path(docs, self._loaded.vocabulary, length, self.scores_by, coarse=coarse)
        self._plan = None
        self.take(chosen)
        return chosen

    def can_take(self, path: str) -> bool:
        """Whether ``path`` is one of the three."""
        return path in PATHS

    def batch_budget(self, extent: Extent, *, kept: Mapping[str, Any] | None = None, spent_s: float = 0.0) -> Budget:
        """Choose many times the prefix's tokens, as each batch may read it again, but no more than fit in the time."""
        if (known := Budget.from_builtin(kept)) and known.time is not None:
            return known
        token_s = self._token_s()
        least, most = BATCH_TOKENS
        wanted = max(4 * least, PREFIX_TIMES * extent.prefix_tokens)
        affordable = int(BATCH_S / max(token_s, 1e-9))
        size = max(least, min(most, wanted, affordable))
        size = 1 << (size.bit_length() - 1)
        return Budget(size, most, PassTime(0.0, token_s), f"{token_s * 1e3:.2g} ms a token when reading")

    def start(self, plan: UnitPlan, at: int) -> None:
        """Find the shared beginning of a plan's inputs; before a batch, the prefix cache contains nothing else."""
        if plan is not self._plan:
            self._plan = plan
            inputs = [one.input.tokens for one in plan.placed.values()]
            self._prefix = shared_prefix(inputs, self._loaded.block_tokens)

    def compute(self, plan: UnitPlan, batch: Batch) -> list[Score]:
        """Scores of a batch, in the order of its options."""
        path = self.path_of(plan)
        wanted = _wanted({option: plan.placed[option].input for option in batch.options})
        found: dict[Option, Score] = {}
        for group in [[one] for one in wanted] if path == "plain" else [wanted]:
            self._cache.hold(self._prefix if path in ("shared", "cached") else ())
            found |= self._run(group, path)
        return [found[option] for option in batch.options]

    def close(self) -> None:
        """Nothing is kept outside vLLM."""
        self._plan = None

    def _run(self, wanted: Sequence[_Wanted], path: str) -> dict[Option, Score]:
        """Run requests together; those whose scored tokens came from the cache are repeated without it."""
        reads = [path == "shared" or (path == "cached" and one.scored_from is None) for one in wanted]
        outputs = self._ask(wanted, reads)
        hidden = [at for at, one in enumerate(wanted) if _is_hidden(one, outputs[at])]
        for at, output in zip(hidden, self._ask([wanted[at] for at in hidden], [False] * len(hidden)), strict=True):
            outputs[at] = output
        scores: dict[Option, Score] = {}
        for one, output in zip(wanted, outputs, strict=True):
            scores |= self._read(one, output)
        return scores

    def _ask(self, wanted: Sequence[_Wanted], reads: Sequence[bool]) -> list[Any]:
        settings = [self._how(one, reads_cache) for one, reads_cache in zip(wanted, reads, strict=True)]
        return self._loaded.run([one.tokens for one in wanted], settings) if wanted else []

    def _how(self, wanted: _Wanted, reads_cache: bool) -> dict[str, Any]:
        """The request's sampling parameters. Versions that lack a field get a slower equivalent."""
        fields = self._loaded.fields
        how: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1, "detokenize": False, "ignore_eos": True}
        if "logprob_token_ids" in fields:
            how["logprob_token_ids"] = sorted(set(wanted.targets))
        else:
            how["logprobs"] = -1  # the whole vocabulary
        if wanted.scored_from is not None:
            how["prompt_logprobs"] = 0
        if "skip_reading_prefix_cache" in fields:
            how["skip_reading_prefix_cache"] = not reads_cache
        return how

    def _read(self, wanted: _Wanted, output: Any) -> dict[Option, Score]:
        """Read the scores of a request's options from vLLM's output; sums are in double precision."""
        last, chosen = output.outputs[0].logprobs[0], output.outputs[0].token_ids[0]
        before, is_greedy = 0.0, True
        if wanted.scored_from is not None:
            for place in range(wanted.scored_from + 1, len(wanted.tokens)):
                entry = output.prompt_logprobs[place - len(wanted.tokens)][wanted.tokens[place]]
                before += float(entry.logprob)
                is_greedy = is_greedy and entry.rank == 1
        found = {}
        for option, target in zip(wanted.options, wanted.targets, strict=True):
            if target not in last:
                raise ModelError(f"{self._loaded.spec.name}: vLLM left out the log-probability of a token")
            value = before + float(last[target].logprob)
            found[option] = Score(value, is_greedy and target == chosen)
        return found

    def _token_s(self) -> float:
        """Seconds per prompt token, timed on one short prompt and, if that is fast, on several prompts in one batch."""
        took, tokens = math.inf, 1
        for rows, length in TIMED:
            length = max(min(length, self._loaded.max_model_len - 1), 1)
            tokens = rows * length
            prompts = [tuple((row + at * 7) % self._loaded.vocabulary for at in range(length)) for row in range(rows)]
            self._cache.hold(())
            began = time.perf_counter()
            self._loaded.run(prompts, [PREFIX_ONLY] * rows)
            took = time.perf_counter() - began
            if took > LONG_S:
                break
        return took / tokens


def _wanted(inputs: Mapping[Option, ModelInput]) -> list[_Wanted]:
    """One request per distinct input, or several if it has more than 128 options; keeps the order of the options."""
    groups: dict[tuple[Tokens, int | None], list[Option]] = {}
    for option, read in inputs.items():
        scored_from = read.first_scored if len(read.targets) > 1 else None
        groups.setdefault((read.tokens, scored_from), []).append(option)
    return [
        _Wanted(tokens, tuple(part), tuple(inputs[option].targets[-1] for option in part), scored_from)
        for (tokens, scored_from), options in groups.items()
        for part in (options[at : at + MOST_TOKEN_IDS] for at in range(0, len(options), MOST_TOKEN_IDS))
    ]


def _is_hidden(wanted: _Wanted, output: Any) -> bool:
    """Whether scored tokens of the prompt came from the cache, so that nothing was computed for them."""
    return wanted.scored_from is not None and (output.num_cached_tokens or 0) > wanted.scored_from
