"""Trials of the fast paths of scoring and decoding: each is compared with a plain forward before it is used."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from llmjobs.benchmarks.scoring_requests import Request, Score
from llmjobs.engines.batches import Option, UnitPlan, plan_unit
from llmjobs.engines.protocol import ProbeResult
from llmjobs.engines.transformers.decode_steps import PATHS, Prefix, refuses, start
from llmjobs.engines.transformers.device import is_out_of_memory
from llmjobs.engines.transformers.first_layers import enough_layers, try_on
from llmjobs.engines.transformers.forward import FailedPassError, Model, padded_logits
from llmjobs.engines.transformers.quantize import is_quantized, scoring_nats
from llmjobs.engines.transformers.shapes import most_tokens, reset_frequencies, sharing_limit
from llmjobs.engines.transformers.shapes import most_tokens as longest_input
from llmjobs.errors import ModelError, plain_reason

TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
"""The largest difference of a log-likelihood (nats per scored token) that rounding explains."""
NOISE, MOST_NOISE = 2.0, 1.0
"""A quantized model in 16 bits differs more from itself. A path may differ from a plain forward by twice as much as
plain forwards in batches of two shapes differ, but by at most one nat. Only measured if the fixed limit is exceeded.
"""
ROUNDINGS = 3
"""This many units in the last place of a log-likelihood are rounding too: in 16 bits a logit of 20 is rounded by a
tenth, and unlikely tokens have large logits. A demo model's plain forward in bfloat16 is 2.1 units off its float32 one.
"""
PROBE_TOKENS, TOGETHER_TOKENS = 96, 4096
"""Sizes of a batch when paths are compared, and when a plain forward is compared with itself."""
USUAL_TOKENS, FEW_TOKENS, FEW_PROBE_TOKENS = 1300, 500, 20
"""Total tokens of made-up docs, read plainly and shared: usually, and for a small study; then of its batch."""

ScoreBy = Callable[[str, UnitPlan], list[Score]]


@dataclass(frozen=True)
class ScoringProbe(ProbeResult):
    """The scoring path of a model and the reason; ``max_difference`` in nats per scored token, None if nothing ran."""

    PATHS: ClassVar[Sequence[str] | None] = ("shared", "cached", "plain")


def probe_paths(
    model: Any,
    refusals: Mapping[str, str | None],
    score_by: ScoreBy,
    docs: Sequence[Sequence[Request]],
    *,
    most_tokens: int | None = None,
) -> ScoringProbe:
    """Try the paths in order and take the first that equals ``plain`` on ``docs`` or on random tokens.

    ``most_tokens``: below :data:`USUAL_TOKENS`, the made-up docs are smaller.
    """
    max_length = sharing_limit(model) or longest_input(model)
    few = most_tokens is not None and most_tokens < USUAL_TOKENS
    docs = docs or made_up_docs(model.config.get_text_config().vocab_size, max_length, few=few)
    plan = plan_unit(docs, max_length=max_length, batch_tokens=FEW_PROBE_TOKENS if few else PROBE_TOKENS)
    plain = score_by("plain", plan)
    if not all(math.isfinite(one.loglikelihood) for one in plain):
        return ScoringProbe("plain", None, "a plain forward gives values that are not numbers")
    noise = _Noise(model, docs, plan, plain, score_by)
    reasons: list[str] = []
    for path in ("shared", "cached"):
        differences, reason = None, refusals[path]
        if reason is None:
            differences, reason = _compare(path, plan, plain, score_by, model)
        if differences is None:
            reasons.append(str(reason))
            continue
        worst = max(differences, key=lambda one: one.nats / one.allowed)
        largest = max(one.nats for one in differences)
        if worst.nats > worst.allowed:
            differences = [replace(one, allowed=max(one.allowed, noise.allowed)) for one in differences]
            worst = max(differences, key=lambda one: one.nats / one.allowed)
        if worst.nats <= worst.allowed:
            right = f"equal to a plain forward within {max(largest, allowed_difference(model)):.3g}{noise.said}"
            return ScoringProbe(path, largest, "; ".join([*reasons, right]))
        reasons.append(f"the {path} path differs by {worst.nats:.3g}, rounding allows {worst.allowed:.3g}")
    return ScoringProbe("plain", max(one.nats for one in differences) if differences else None, "; ".join(reasons))


class _Noise:
    """How much a quantized model's plain forward differs from itself in other batch shapes; measured on demand."""

    def __init__(
        self, model: Any, docs: Sequence[Sequence[Request]], plan: UnitPlan, plain: Sequence[Score], score_by: ScoreBy
    ) -> None:
        self._docs, self._plan, self._plain, self._score_by = docs, plan, plain, score_by
        self._quantized = is_quantized(model)
        self.said = ""

    @cached_property
    def allowed(self) -> float:
        """The difference that noise explains, in nats per scored token; 0 for a model that is not quantized."""
        if not self._quantized:
            return 0.0
        together = plan_unit(self._docs, max_length=self._plan.max_length, batch_tokens=TOGETHER_TOKENS)
        once, again = _by_option(self._plan, self._plain), _by_option(together, self._score_by("plain", together))
        difference = max(abs(once[at].loglikelihood - again[at].loglikelihood) / once[at].tokens for at in once)
        self.said = f"; in batches of another shape it differs from itself by {difference:.3g}"
        return own_noise(difference)


@dataclass(frozen=True)
class _Scored:
    loglikelihood: float
    tokens: int


def _by_option(plan: UnitPlan, scores: Sequence[Score]) -> dict[Option, _Scored]:
    """Return the scores of a plan by doc and option."""
    sizes = {
        option: len(reading.targets)
        for batch in plan.batches
        for option, reading in zip(batch.options, batch.readings, strict=True)
    }
    order = [
        option for batch in plan.batches for doc in batch.docs for option in sorted(batch.options) if option[0] == doc
    ]
    pairs = zip(order, scores, strict=True)
    return {option: _Scored(score.loglikelihood, sizes[option]) for option, score in pairs}


@dataclass(frozen=True)
class _Difference:
    """The difference of one request between two paths, in nats per scored token."""

    nats: float
    allowed: float
    """The difference that rounding explains for a token of this likelihood."""


def _compare(
    path: str, plan: UnitPlan, plain: Sequence[Score], score_by: ScoreBy, model: Any
) -> tuple[list[_Difference] | None, str | None]:
    """Return the differences of all requests, or None and the reason."""
    try:
        found = score_by(path, plan)
    except Exception as error:  # a foreign model's code may raise anything, and the plain path remains
        return None, f"the {path} path failed: {_reason(error)}"
    lengths = [len(one.targets) for batch in plan.batches for one in batch.readings]
    pairs = zip(found, plain, lengths, strict=True)
    least, unit = allowed_difference(model), ROUNDINGS * torch.finfo(model.dtype).eps
    return [
        _Difference(
            abs(one.loglikelihood - other.loglikelihood) / size, max(least, unit * abs(other.loglikelihood) / size)
        )
        for one, other, size in pairs
    ], None


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, FailedPassError) else plain_reason(error, 200)


def made_up_tokens(most_tokens: int | None) -> int:
    """Approximate number of tokens that a comparison reads if it may read ``most_tokens``."""
    return USUAL_TOKENS if most_tokens is None or most_tokens >= USUAL_TOKENS else FEW_TOKENS


def probe_size(most_tokens: int | None) -> tuple[int, float]:
    """Tokens per batch and number of batches of a comparison that may read ``most_tokens``."""
    size = PROBE_TOKENS if made_up_tokens(most_tokens) == USUAL_TOKENS else FEW_PROBE_TOKENS
    return size, made_up_tokens(most_tokens) / size


def made_up_docs(vocabulary: int, max_length: int, *, few: bool = False) -> list[list[Request]]:
    """Make docs of various shapes: few-shot prefixes, several endings, one suffix after two contexts.

    With ``few``, they have about :data:`FEW_TOKENS`, plain and shared together, instead of :data:`USUAL_TOKENS`.
    """
    rng = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(min(count, max(1, max_length // 4))))

    shots = tokens(40 if few else 160)
    letters = [tokens(1) for _ in range(4)]
    questions = (5, 20, 30) if few else (5, 23, 40, 31)
    docs = [[Request(shots + question, letter) for letter in letters] for question in map(tokens, questions)]
    context, suffix = tokens(30), tokens(6)
    docs.append([Request(context, tokens(count)) for count in ((3, 7) if few else (3, 9, 1, 7))])
    docs.append([Request(context + option, suffix) for option in (tokens(2), tokens(3))])
    return docs


def allowed_difference(model: Any) -> float:
    """Return the difference per scored token that rounding explains at the model's precision, for any likelihood."""
    allowed = TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16])
    return max(allowed, scoring_nats(model)) if is_quantized(model) else allowed


def own_noise(self_difference: float) -> float:
    """Return how much another path may differ for a model that differs from itself by ``self_difference``."""
    return min(NOISE * self_difference, MOST_NOISE) if math.isfinite(self_difference) else 0.0


PREFIX_TOKENS, OWN_TOKENS, NEW_TOKENS = 40, (9, 3, 9), 2
"""Lengths of the shared beginning, of each row's own tokens, and of the tokens that are read one by one."""
PASSES = 7
"""A comparison takes about as long as this many passes of the prefix."""
Rows = list[list[int]]
COMPARED = 8
"""Number of a row's most likely tokens that are compared, because they decide what is generated."""


@dataclass(frozen=True)
class DecodeProbe(ProbeResult):
    """How a model decodes (``decoding.PATHS``) and why; ``max_difference`` in nats, None if nothing was compared."""

    PATHS: ClassVar[Sequence[str] | None] = PATHS


def probe_decoding(model: Model) -> DecodeProbe:
    """Try the paths in order and take the first whose logits equal the reference's.

    The reference is a plain forward over whole inputs. If the shared path differs from it, the reference for the other
    paths is the model's own ``generate`` code on one row at a time, because text should equal that of
    ``transformers.generate``. If a pass is slow, only the model's first layers are compared (``first_layers``).

    Raises:
        ModelError: even a plain forward fails.

    """
    layers = None if refuses("shared", model) else enough_layers(model, tokens=PREFIX_TOKENS, passes=PASSES)
    found = try_on(model, layers, lambda: _probe(model), lambda one: one.path == "shared")
    return replace(found, layers=layers) if layers is not None and found.path == "shared" else found


def _probe(model: Model) -> DecodeProbe:
    rows = _made_up_rows(model)
    reasons: list[str] = []
    plain = _try("plain", model, rows, reasons)
    if plain is not None and not bool(torch.isfinite(plain.amax(-1)).all()):
        return DecodeProbe("single", None, "a plain forward gives values that are not numbers")
    if plain is not None and (same := _trial("shared", model, rows, plain, "a plain forward", reasons)) is not None:
        return DecodeProbe("shared", same, reasons[-1])
    single = _try("single", model, rows, reasons)
    if single is None:
        if plain is None:
            raise ModelError(
                f"{type(model).__name__} cannot be run with the installed transformers ({'; '.join(reasons)}); "
                "update transformers or the model's files, or use another model"
            )
        return DecodeProbe("whole", None, "; ".join(reasons))
    if plain is not None:
        _compare_decoding("single", single, plain, model, reasons, "a plain forward")
    for path in ("padded", "grouped"):
        if (same := _trial(path, model, rows, single, "generate", reasons)) is not None:
            return DecodeProbe(path, same, "; ".join(reasons))
    return DecodeProbe("single", None, "; ".join(reasons))


def _trial(path: str, model: Model, rows: Rows, wanted: Tensor, reference: str, reasons: list[str]) -> float | None:
    """Return how much a path differs from the reference; None, with a reason, if it must not be used."""
    if refusal := refuses(path, model):
        reasons.append(refusal)
        return None
    found = _try(path, model, rows, reasons)
    return None if found is None else _compare_decoding(path, found, wanted, model, reasons, reference)


def _made_up_rows(model: Model) -> list[list[int]]:
    """Make rows that begin alike and then differ; the first and the last have equal length."""
    rng = random.Random(0)
    vocabulary = model.config.get_text_config().vocab_size
    longest = sharing_limit(model) or most_tokens(model)
    prefix = max(1, min(PREFIX_TOKENS, longest - max(OWN_TOKENS) - NEW_TOKENS))

    def tokens(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    before = tokens(prefix)
    return [before + tokens(own) for own in OWN_TOKENS]


def _continuations(rows: Rows) -> Rows:
    """Return the tokens that are read one by one; they do not depend on what a path computes."""
    return [[row[(3 * at + n) % len(row)] for n in range(NEW_TOKENS)] for at, row in enumerate(rows)]


def _try(path: str, model: Model, rows: Rows, reasons: list[str]) -> Tensor | None:
    """Return a path's log-probabilities [rows, 1 + new tokens, vocabulary]; None, with a reason, if it fails."""
    new = _continuations(rows)
    try:
        if path == "plain":
            return plain_log_probabilities(model, rows, new)
        if path == "single":
            groups = [[at] for at in range(len(rows))]
        elif path == "grouped":
            by_length = {len(row): [at for at, other in enumerate(rows) if len(other) == len(row)] for row in rows}
            groups = list(by_length.values())
        else:
            groups = [list(range(len(rows)))]
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for group in groups:
            decoded = _decode(path, model, [rows[at] for at in group], [new[at] for at in group])
            for at, one in zip(group, decoded, strict=True):
                found[at] = one
        return torch.stack(found)
    except Exception as error:  # a foreign model's code may raise anything, and there are other paths
        if is_out_of_memory(error):
            raise ModelError(f"out of memory with {len(rows)} rows of {max(map(len, rows))} tokens: {error}") from error
        reasons.append(f"the {path} path failed: {_reason(error)}")
        return None


def _decode(path: str, model: Model, rows: Rows, new: Rows) -> Tensor:
    steps = start(path, model, rows, Prefix(model, rows) if path == "shared" else None)
    found = [_log_probabilities(steps.logits)]
    for at in range(NEW_TOKENS):
        steps.advance([own[at] for own in new])
        found.append(_log_probabilities(steps.logits))
    return torch.stack(found, 1)


def plain_log_probabilities(model: Model, rows: Rows, new: Rows) -> Tensor:
    """Return log-probabilities [rows, 1 + new tokens, vocabulary] by one forward over whole inputs."""
    reset_frequencies(model)
    inputs = [row + own for row, own in zip(rows, new, strict=True)]
    width = max(map(len, inputs))
    cells = [at * width + len(row) - 1 + n for at, row in enumerate(rows) for n in range(NEW_TOKENS + 1)]
    return _log_probabilities(padded_logits(model, inputs, cells, 0)).view(len(rows), NEW_TOKENS + 1, -1)


def _log_probabilities(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).cpu()


def _compare_decoding(
    path: str,
    found: Tensor,
    wanted: Tensor,
    model: Model,
    reasons: list[str],
    reference: str,
    noise: Callable[[Tensor], float] | None = None,
) -> float | None:
    """Return the largest difference (nats) of the most likely tokens; None, with a reason, if it exceeds rounding.

    ``noise`` returns how much a quantized model differs from itself on the same inputs at these tokens; the default is
    for the made-up rows.
    """
    likely = torch.cat([wanted.topk(min(COMPARED, wanted.shape[-1])).indices, found.argmax(-1, keepdim=True)], -1)
    nats, wanted_there = (found - wanted).abs().gather(-1, likely), wanted.gather(-1, likely).abs()
    unit = ROUNDINGS * torch.finfo(model.dtype).eps
    allowed = (unit * wanted_there).clamp_min(allowed_difference(model))
    if is_quantized(model) and not bool((nats <= allowed).all()):
        allowed = allowed.clamp_min(own_noise((noise or partial(_self_difference, model))(likely)))
    largest = float(nats.max())
    if bool((nats <= allowed).all()):
        reasons.append(f"the {path} path equals {reference} within {max(largest, float(allowed.min())):.3g}")
        return largest
    at = int((nats / allowed).nan_to_num(nan=torch.inf).argmax())
    reasons.append(
        f"the {path} path differs from {reference} by {float(nats.flatten()[at]):.3g} nats, rounding allows "
        f"{float(allowed.flatten()[at]):.3g}"
    )
    return None


def _self_difference(model: Model, likely: Tensor) -> float:
    """Return how much plain forwards of single rows differ from the plain forward of all rows at once."""
    rows = _made_up_rows(model)
    new = _continuations(rows)
    alone = [plain_log_probabilities(model, [row], [own]) for row, own in zip(rows, new, strict=True)]
    together = plain_log_probabilities(model, rows, new)
    return float((torch.cat(alone) - together).abs().gather(-1, likely).max())


def probe_one_row(model: Model, kept: Callable[[list[int], int, list[int]], list[Tensor]]) -> str | None:
    """Try keeping keys between turns on made-up tokens; return the difference from a plain forward, or None if correct.

    ``kept`` reads a first prompt, then one token, then a second prompt that begins like the first, and returns the
    logits [1, vocabulary] after each.
    """
    rng = random.Random(1)
    vocabulary = model.config.get_text_config().vocab_size
    size = min(24, max(4, (sharing_limit(model) or most_tokens(model)) // 2))
    first = [rng.randrange(vocabulary) for _ in range(size)]
    token, second = first[0], [*first[: size // 2], *(rng.randrange(vocabulary) for _ in range(size // 2 + 2))]
    inputs = [first, [*first, token], second]
    width = max(map(len, inputs))
    cells = [at * width + len(one) - 1 for at, one in enumerate(inputs)]
    try:
        reset_frequencies(model)
        wanted = _log_probabilities(padded_logits(model, inputs, cells, 0))
        if not bool(torch.isfinite(wanted.amax(-1)).all()):
            return None  # an answer will report it
        found = _log_probabilities(torch.cat(kept(first, token, second)))
    except Exception as error:  # a foreign model's code may raise anything
        if is_out_of_memory(error):
            raise ModelError(f"out of memory with {width} tokens: {error}") from error
        return _reason(error)
    reasons: list[str] = []

    def noise(likely: Tensor) -> float:
        alone = [_log_probabilities(padded_logits(model, [one], [len(one) - 1], 0)) for one in inputs]
        return float((torch.cat(alone) - wanted).abs().gather(-1, likely).max())

    same = _compare_decoding("kept", found, wanted, model, reasons, "a plain forward", noise)
    return reasons[-1] if same is None else None
