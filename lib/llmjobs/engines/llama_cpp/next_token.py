"""The whole distribution of the next token at given positions of a text, on llama.cpp."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmjobs.engines.llama_cpp import NOT_FINITE
from llmjobs.engines.llama_cpp.context import Context
from llmjobs.engines.llama_cpp.load import LoadedModel
from llmjobs.errors import ModelError


def next_token_logprobs(
    loaded: LoadedModel, max_length: int, tokens: Sequence[int], positions: Sequence[int]
) -> NDArray[np.float32]:
    """Log-probabilities [positions, vocabulary] in nats; the text is one sequence in an empty context.

    Raises:
        ModelError: the text is too long, llama.cpp cannot compute it, or the result is not a number.

    """
    if len(tokens) > max_length:
        raise ModelError(f"{loaded.spec.name}: {len(tokens)} tokens, but the model reads at most {max_length}")
    wanted = set(positions)
    context = Context(loaded.spec.name, loaded.model, loaded.settings, len(tokens))
    try:
        logits = context.decode(
            tokens, range(len(tokens)), [(0,)] * len(tokens), [at in wanted for at in range(len(tokens))]
        )
        found = _log_softmax(logits)
    finally:
        context.close()
    if np.isnan(found).any():
        raise ModelError(f"{loaded.spec.name}: {NOT_FINITE}")
    return found


def _log_softmax(logits: Any) -> NDArray[np.float32]:
    """Compute row by row, to avoid a second copy of all rows in double precision."""
    found = np.empty(logits.shape, np.float32)
    for at, line in enumerate(logits):
        values = line.astype(np.float64)
        values -= values.max()
        found[at] = values - np.log(np.exp(values).sum())
    return found
