"""Requests to a model: how likely is a continuation after a context."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model reads, before anybody makes tokens of it: messages for its chat template, or plain text."""

    text: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    """Role and content of each."""


@dataclass(frozen=True, slots=True)
class Request:
    """One log-likelihood: the sum of log P(continuation | context) over the continuation's tokens.

    An engine without a tokenizer gets ``prompt`` and ``ending`` in place of the tokens: the same as text.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    prompt: Prompt | None = None
    ending: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """The answer to a :class:`Request`, in nats; ``is_greedy``: greedy decoding gives the continuation.

    ``error`` says why there is none (``loglikelihood`` is not a number then); ``is_temporary``: another try may give
    one.
    """

    loglikelihood: float
    is_greedy: bool
    error: str | None = None
    is_temporary: bool = False
    is_refused: bool = False
    """A server refused this question; it may still answer others."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The tokens that a model reads for one request, and what is read from its logits.

    ``tokens`` is the concatenation without its last token; the logits of its last ``len(targets)`` positions predict
    ``targets``.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def first_scored(self) -> int:
        """The first position whose logits are read."""
        return len(self.tokens) - len(self.targets)


def model_input(request: Request, max_length: int, prefix_token_id: int | None = None) -> ModelInput:
    """Concatenate, cut from the left to ``max_length`` + 1 tokens, drop the last, as lm-eval's ``hf`` does.

    An empty context becomes ``prefix_token_id``, or the continuation's first token if the two are equal. Raises
    ValueError if a request cannot be scored.
    """
    context, continuation = request.context, request.continuation
    if not context:
        if prefix_token_id is None:
            raise ValueError("the context is empty and the model has no BOS or EOS token to use instead")
        if continuation[:1] == (prefix_token_id,):
            context, continuation = continuation[:1], continuation[1:]
        else:
            context = (prefix_token_id,)
    if not continuation:
        raise ValueError("the continuation is empty")
    if len(continuation) > max_length:
        raise ValueError(
            f"the continuation has {len(continuation)} tokens, but the model's context length is {max_length} tokens"
        )
    return ModelInput((context + continuation)[-(max_length + 1) :][:-1], continuation)


def common_length(left: Sequence[int], right: Sequence[int], start: int = 0) -> int:
    """Return how many leading tokens are the same, given that the first ``start`` are."""
    end = min(len(left), len(right))
    while start < end:
        step = min(64, end - start)
        if left[start : start + step] != right[start : start + step]:
            return next(at for at in range(start, start + step) if left[at] != right[at])
        start += step
    return start
