"""The whole distribution of the next token at given positions of a text, on transformers."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from llmjobs.engines.transformers.device import SMALLER, free_memory, is_out_of_memory
from llmjobs.engines.transformers.forward import Model, padded_logits
from llmjobs.engines.transformers.lengths import reset_frequencies
from llmjobs.errors import ModelError


def next_token_logprobs(model: Model, tokens: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32] | None:
    """Log-probabilities [positions, vocabulary] in nats, of one row read in one pass; None if some are not numbers.

    Raises:
        ModelError: there is not enough memory.

    """
    reset_frequencies(model)
    try:
        logits = padded_logits(model, [tokens], positions, 0)
        with torch.inference_mode():
            found = torch.log_softmax(logits.float(), -1).cpu()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_memory()
        raise ModelError(f"out of memory with a text of {len(tokens)} tokens: {error}; {SMALLER}") from error
    return None if bool(found.isnan().any()) else found.numpy()
