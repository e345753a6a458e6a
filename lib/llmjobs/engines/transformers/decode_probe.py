"""Check, once per model, that decoding in a batch is correct, by comparing a few steps with a plain forward."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from llmjobs.engines.protocol import ProbeResult
from llmjobs.engines.transformers.decoding import PATHS, Prefix, refuses, start
from llmjobs.engines.transformers.device import is_out_of_memory
from llmjobs.engines.transformers.first_layers import enough_layers, try_on
from llmjobs.engines.transformers.forward import Model, padded_logits
from llmjobs.engines.transformers.lengths import most_tokens, reset_frequencies, sharing_limit
from llmjobs.engines.transformers.probe import ROUNDINGS, allowed_difference, own_noise
from llmjobs.engines.transformers.quantize import is_quantized
from llmjobs.errors import ModelError, plain_reason

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
                f"{type(model).__name__} cannot generate text with the installed transformers ({'; '.join(reasons)}); "
                "use it only for multiple-choice benchmarks, or use another model"
            )
        return DecodeProbe("whole", None, "; ".join(reasons))
    if plain is not None:
        _compare("single", single, plain, model, reasons, "a plain forward")
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
    return None if found is None else _compare(path, found, wanted, model, reasons, reference)


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
        reasons.append(f"the {path} path failed: {plain_reason(error, 200)}")
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


def _compare(
    path: str, found: Tensor, wanted: Tensor, model: Model, reasons: list[str], reference: str
) -> float | None:
    """Return the largest difference (nats) of the most likely tokens; None, with a reason, if it exceeds rounding."""
    likely = torch.cat([wanted.topk(min(COMPARED, wanted.shape[-1])).indices, found.argmax(-1, keepdim=True)], -1)
    nats, wanted_there = (found - wanted).abs().gather(-1, likely), wanted.gather(-1, likely).abs()
    unit = ROUNDINGS * torch.finfo(model.dtype).eps
    allowed = (unit * wanted_there).clamp_min(allowed_difference(model))
    if is_quantized(model) and not bool((nats <= allowed).all()):
        allowed = allowed.clamp_min(own_noise(_self_difference(model, wanted, likely)))
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


def _self_difference(model: Model, plain: Tensor, likely: Tensor) -> float:
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
        return plain_reason(error, 200)
    reasons: list[str] = []
    return reasons[-1] if _compare("kept", found, wanted, model, reasons, "a plain forward") is None else None
